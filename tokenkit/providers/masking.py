"""What a provider says, made fit to show: whole characters, in few words, and nothing like a key or the end of one."""

from __future__ import annotations

import base64
import re
from urllib.parse import quote

from tokenkit.errors import ProviderError
from tokenkit.types import Secret

LONGEST_MESSAGE = 400

LONGEST_READ = 4000
"""How many characters of a message are looked at: the patterns must not be fed megabytes."""

# Keys of OpenAI, Anthropic, OpenRouter, Groq, xAI, Google, Hugging Face, Replicate, NVIDIA, Fireworks, Perplexity and
# Together; what is masked, quoted after "API key", or as long as a key: providers like to show the last characters.
_KEYLIKE = re.compile(
    r"\b(?:(?:sk|pk|rk|gsk|xai|key|hf|r8|fw|pplx|tgp|sess|nvapi)[-_]|AIza|ya29\.)[-_A-Za-z0-9*.…]{4,}"
    r"|\b[Bb]earer\s+\S+"
    r"|(?i:\b(?:api[ _-]?key|access[ _-]token|secret)(?: provided| supplied| given)?[\"']?\s*[:=]\s*[\"']?)[^\s\"',;}]+"
    r"|(?i:\bkey\b[^.\n]{0,40}?\bend(?:s|ing) (?:in|with) )\S+"
    r"|[^\s*]{0,200}\*{2,}\S*"
    r"|(?:(?<![A-Za-z0-9])[A-Za-z0-9]{1,40}|(?<![A-Za-z0-9.]))(?:\.{3,}+|…)[A-Za-z0-9]{1,40}"
    r"|\b[A-Za-z0-9_-]{32,}(?:(?:\.{3,}+|…)[A-Za-z0-9]{1,40})?"
)


def sound(text: str) -> str:
    """Return text that can be printed: halves of one character that meet are joined, a lone one becomes U+FFFD."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def safe(text: str) -> str:
    """Shorten a provider's words and take out what looks like a key, even a shortened one."""
    text = _KEYLIKE.sub("[key]", sound(text[:LONGEST_READ]))
    return text if len(text) <= LONGEST_MESSAGE else text[: LONGEST_MESSAGE - 1] + "…"


SHORTEST_KEY = 6
"""A key of fewer characters (``none``, ``EMPTY``) guards nothing, and is left standing in the words it is part of."""


def without_key(body: bytes, key: Secret | None) -> bytes:
    """Return what a provider sent without the key it was sent, which no pattern need know, in any form it may take."""
    pattern = _forms(key)
    if pattern is None:
        return body
    return pattern.sub("[key]", body.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")


def hide_key(error: ProviderError, key: Secret | None) -> None:
    """Take the key that was sent out of everything an error says."""
    pattern = _forms(key)
    if pattern is not None:
        error.args = tuple(pattern.sub("[key]", said) if isinstance(said, str) else said for said in error.args)
        for field in ("code", "request_id"):
            said = getattr(error, field)
            setattr(error, field, pattern.sub("[key]", said) if isinstance(said, str) else said)


def _forms(key: Secret | None) -> re.Pattern[str] | None:
    """Return what finds a key: whole or encoded; and, of a long one, a word that begins or ends as it does."""
    text = key.reveal() if key is not None else ""
    if len(text) < SHORTEST_KEY:
        return None
    raw = text.encode("utf-8", "surrogatepass")
    whole = (text, quote(raw, safe=""), base64.b64encode(raw).decode().rstrip("="), raw.hex())
    forms = [re.escape(form) for form in whole]
    if len(text) >= 16:
        word = r"[^\s\"'<>]{0,200}"
        forms += [f"{re.escape(text[:8])}{word}", f"{word}{re.escape(text[-4:])}(?![A-Za-z0-9])"]
    return re.compile("|".join(forms), re.IGNORECASE)
