"""The many that speak OpenAI's chat completions: for each, one line says where it answers and which key it takes.

Addresses and variables are those each vendor's own documentation names. A server of one's own answers without a key;
its address in the environment alone makes it a provider. Any other compatible server is ``openai`` with a ``base_url``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from tokenkit.effects import WireRequest
from tokenkit.providers import openai
from tokenkit.providers.base import Provider
from tokenkit.types import Request, Secret


class Place(NamedTuple):
    """Where a compatible provider answers: its address, the variables of its key and of another address.

    ``own`` is true of servers one runs oneself; ``words`` says which words of the body it calls otherwise (``None``:
    refuses).
    """

    base_url: str
    key_env: str
    url_env: str
    own: bool = False
    words: tuple[tuple[str, str | None], ...] = ()


# Mistral refuses words it does not know; it streams usage unasked (Mistral's API reference, "Chat completion").
_MISTRAL = (("seed", "random_seed"), ("stream_options", None))

PLACES: Mapping[str, Place] = {
    "abacus": Place("https://routellm.abacus.ai/v1", "ABACUS_API_KEY", "ABACUS_BASE_URL"),
    "chatllm": Place("https://routellm.abacus.ai/v1", "CHATLLM_API_KEY", "CHATLLM_BASE_URL"),
    "deepseek": Place("https://api.deepseek.com/v1", "DEEPSEEK_API_KEY", "DEEPSEEK_BASE_URL"),
    "groq": Place("https://api.groq.com/openai/v1", "GROQ_API_KEY", "GROQ_BASE_URL"),
    "mistral": Place("https://api.mistral.ai/v1", "MISTRAL_API_KEY", "MISTRAL_BASE_URL", words=_MISTRAL),
    "openrouter": Place("https://openrouter.ai/api/v1", "OPENROUTER_API_KEY", "OPENROUTER_BASE_URL"),
    "together": Place("https://api.together.xyz/v1", "TOGETHER_API_KEY", "TOGETHER_BASE_URL"),
    "xai": Place("https://api.x.ai/v1", "XAI_API_KEY", "XAI_BASE_URL"),
    "llamacpp": Place("http://127.0.0.1:8080/v1", "LLAMACPP_API_KEY", "LLAMACPP_BASE_URL", own=True),
    "lmstudio": Place("http://127.0.0.1:1234/v1", "LMSTUDIO_API_KEY", "LMSTUDIO_BASE_URL", own=True),
    "transformers": Place("http://127.0.0.1:8000/v1", "TRANSFORMERS_API_KEY", "TRANSFORMERS_BASE_URL", own=True),
    "vllm": Place("http://127.0.0.1:8000/v1", "VLLM_API_KEY", "VLLM_BASE_URL", own=True),
}


def provider(place: str, name: str = "", base_url: str = "", key: Secret | None = None) -> Provider:
    """Return the record of one of ``PLACES``."""
    known = PLACES[place]
    made = openai.provider(name or place, base_url or known.base_url, key)
    return replace(made, key_env=(known.key_env,), encode=partial(_encode, known.words) if known.words else made.encode)


def _encode(words: tuple[tuple[str, str | None], ...], request: Request, provider: Provider) -> WireRequest:
    """Write a chat completion request, then change the words that this place calls otherwise; never those of extra."""
    wire = openai.encode(replace(request, extra={}), provider)
    body = json.loads(wire.body)
    for ours, theirs in words:
        if ours in body:
            value = body.pop(ours)
            body |= {theirs: value} if theirs is not None else {}
    return replace(wire, body=openai.dumps(body | dict(request.extra)))


def makers() -> dict[str, Callable[..., Provider]]:
    """Return what the registry lists: for each place a function like those of the other dialects."""
    return {place: partial(provider, place) for place in PLACES}
