"""Azure OpenAI: chat completions in OpenAI's words, at an address that names the deployment and the API version.

Shapes from Microsoft's reference, "Azure OpenAI in Microsoft Foundry Models REST API". A request's model is the name
of the deployment. The key goes into ``api-key``.
"""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import quote, urlencode

from tokenkit.effects import WireRequest
from tokenkit.errors import UserError
from tokenkit.providers import openai
from tokenkit.providers.base import Provider
from tokenkit.providers.failures import classify
from tokenkit.types import Request, Secret

API_VERSION = "2024-10-21"
"""The version asked for where the address names none: the latest stable one of the dated kind."""


def provider(name: str = "azure", base_url: str = "", key: Secret | None = None) -> Provider:
    """Return the record of one Azure resource.

    ``base_url`` is its endpoint, as ``https://NAME.openai.azure.com``; ``?api-version=…`` may follow it. An address
    that ends in ``/openai/v1`` means Azure's undated API, which names the deployment in the body.
    """
    return Provider(
        name,
        base_url.rstrip("/"),
        encode,
        openai.decode,
        openai.feed,
        classify,
        key,
        auth=("api-key", ""),
        key_env=("AZURE_OPENAI_API_KEY",),
    )


def versioned(base_url: str, version: str) -> str:
    """Return an address that names this API version (as OPENAI_API_VERSION does), where it names none of its own."""
    named = "?" in base_url or base_url.rstrip("/").endswith("/openai/v1")
    return base_url if named or not version.strip() else f"{base_url}?{urlencode({'api-version': version.strip()})}"


def encode(request: Request, provider: Provider) -> WireRequest:
    """Write a chat completion request. Raises UserError where the resource's address is not known."""
    # At its own address the dialect knows which models of OpenAI's take what: the same ones run here.
    wire = openai.encode(request, replace(provider, base_url=openai.BASE_URL))
    return replace(wire, url=address(provider, request.model))


def address(provider: Provider, deployment: str, verb: str = "chat/completions") -> str:
    """Return where to ask a deployment, by the dated API or, at ``/openai/v1``, the undated one."""
    return _at(provider, f"/deployments/{quote(deployment, safe='')}/{verb}", f"/{verb}")


def models(provider: Provider) -> str:
    """Return where a resource lists the models it can deploy; the names of deployments are its owner's own."""
    return _at(provider, "/models", "/models")


def _at(provider: Provider, dated: str, undated: str) -> str:
    base, _, query = provider.base_url.partition("?")
    base = base.rstrip("/")
    if not base:
        raise UserError(
            f"The provider {provider.name} has no address: set AZURE_OPENAI_ENDPOINT, or base_url in tokenkit.toml, to "
            "the endpoint of the resource, as https://NAME.openai.azure.com."
        )
    if base.endswith("/openai/v1"):
        return f"{base}{undated}{'?' + query if query else ''}"
    query = query or urlencode({"api-version": API_VERSION})
    return f"{base.removesuffix('/openai')}/openai{dated}?{query}"
