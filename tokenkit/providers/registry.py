"""Which dialects are known, and which providers the environment brings by itself.

A key in the environment is a provider: ``OPENAI_API_KEY`` alone makes ``openai`` answer. Other packages add dialects
through the entry point group ``tokenkit.providers``: a function like those here, ``(name=..., base_url=..., key=...)``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import entry_points

from tokenkit.errors import ConfigError
from tokenkit.providers import anthropic, azure, compatible, gemini, ollama, openai, responses, simulated
from tokenkit.providers.base import Provider
from tokenkit.types import Secret

Make = Callable[..., Provider]

BUILT_IN: Mapping[str, Make] = {
    "anthropic": anthropic.provider,
    "azure": azure.provider,
    "gemini": gemini.provider,
    "ollama": ollama.provider,
    "openai": openai.provider,
    "responses": responses.provider,
    "simulated": simulated.provider,
    **compatible.makers(),
}

# Which variables hold a provider's key and its address; the first that is set counts.
ENVIRONMENT: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "openai": (("OPENAI_API_KEY",), ("OPENAI_BASE_URL",)),
    "anthropic": (("ANTHROPIC_API_KEY",), ("ANTHROPIC_BASE_URL",)),
    "gemini": (("GEMINI_API_KEY", "GOOGLE_API_KEY"), ("GEMINI_BASE_URL", "GOOGLE_GEMINI_BASE_URL")),
    "azure": (("AZURE_OPENAI_API_KEY",), ("AZURE_OPENAI_ENDPOINT",)),
    "ollama": (("OLLAMA_API_KEY",), ("OLLAMA_BASE_URL", "OLLAMA_HOST")),
    **{name: ((place.key_env,), (place.url_env,)) for name, place in compatible.PLACES.items()},
}

# Servers of one's own: they answer without a key, so that an address alone makes them providers; a key alone does not.
OWN = {"ollama", *(name for name, place in compatible.PLACES.items() if place.own)}

_broken: list[str] = []


@cache
def known() -> Mapping[str, Make]:
    """Return every dialect by name, those of other packages included; one that cannot load is noted, not raised."""
    found = dict(BUILT_IN)
    _broken.clear()
    try:
        points = tuple(entry_points(group="tokenkit.providers"))
    except Exception as error:  # one damaged list of entry points, of any package at all, spoils the reading of them
        points = ()
        _broken.append(f"The providers of other packages could not be listed: {type(error).__name__}.")
    for point in points:
        # A provider is handed a key, so a package may add one but not step into the place of one of ours.
        why = "one of that name is built in" if point.name in BUILT_IN else ""
        try:
            make = None if why else point.load()
        except (Exception, SystemExit) as error:  # another package's code may fail in any way, and must not end ours
            make, why = None, type(error).__name__
        if callable(make):
            found[point.name] = make
        else:
            reason = why or "it is no function"
            _broken.append(f"The provider {point.name} of another package could not be loaded: {reason}.")
    return found


def notice() -> str:
    """Return what could not be loaded, as sentences; empty when all is well."""
    return " ".join(_broken)


def from_environment(environ: Mapping[str, str]) -> tuple[Provider, ...]:
    """Return the providers whose key or address the environment holds. Raises ConfigError for what cannot be a key."""
    found: list[Provider] = []
    problems: list[str] = []
    for name, (keys, urls) in ENVIRONMENT.items():
        try:
            key = next((key for k in keys if (key := key_from(environ, k)) is not None), None)
            url = next((url for u in urls if (url := address_from(environ, u, name)) is not None), None)
        except ConfigError as error:
            problems.extend(error.problems)
            continue
        if (url if name in OWN else key) is None:
            continue
        if name == "azure" and url is not None:
            url = azure.versioned(url, environ.get("OPENAI_API_VERSION", ""))
        make = known()[name]
        found.append(make(key=key) if url is None else make(key=key, base_url=url))
    if problems:
        raise ConfigError(problems)
    return tuple(found)


def key_from(environ: Mapping[str, str], variable: str) -> Secret | None:
    """Return the key a variable holds, without the whitespace and quotes that come with copying; ``None`` if unset.

    Raises ConfigError, which never shows it, for a key with control or non-ASCII characters or spaces inside.
    """
    text = environ.get(variable, "").strip().strip("'\"").strip()
    if not text:
        return None
    if not re.fullmatch(r"[\x21-\x7e]+", text):
        raise ConfigError(
            f"{variable} holds a key with a space, a control character or a letter no key has inside: copy it again."
        )
    return Secret(text)


def address_from(environ: Mapping[str, str], variable: str, provider: str) -> str | None:
    """Return the address a variable holds, without what comes with copying; ``None`` if unset.

    Raises ConfigError, which does not show it, for what is no web address or has a name or a key in it.
    """
    text = environ.get(variable, "").strip().strip("'\"").strip()
    if not text:
        return None
    bare = provider == "ollama"  # whose own tools take a host without a scheme
    if not re.fullmatch(r"[\x21-\x7e]+" if bare else r"https?://[\x21-\x7e]+", text, re.IGNORECASE):
        raise ConfigError(f"{variable} holds no web address: it begins with http:// or https:// and has no spaces.")
    if "@" in text:
        raise ConfigError(f"{variable} holds an address with a name or a key before an @: leave that out.")
    return text
