"""What a provider says, made fit to show: short, and without anything that looks like a key, or like the end of one."""

from __future__ import annotations

import re

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


def safe(text: str) -> str:
    """Shorten a provider's words and take out what looks like a key, even a shortened one."""
    text = _KEYLIKE.sub("[key]", text[:LONGEST_READ])
    return text if len(text) <= LONGEST_MESSAGE else text[: LONGEST_MESSAGE - 1] + "…"
