"""What a caller may say beside the prompt, checked once, for every face alike."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict, cast

from tokenkit.budget import Budget, parse_limit
from tokenkit.compress.asked import asked
from tokenkit.errors import UserError, did_you_mean
from tokenkit.types import Prompt, Request, Tool, messages_of


class Options(TypedDict, total=False):
    """What may be said beside the prompt. Sizes are tokens, ``deadline`` is seconds for the whole call.

    ``model`` is ``"auto"``, a name, or ``provider/name``; ``extra`` goes to the wire as it is; ``budget`` is the most
    that this one call may cost, all tries together, such as ``"0.05 USD"``.

    ``compress`` names the stages that shorten the prompt, to ``target`` (the share of tokens to keep),
    ``target_tokens`` or ``target_recall`` (the share of evidence to keep), for ``query``; ``keep`` are literal texts
    that survive, and with ``compress_all`` the system prompt and the last user turn may be shortened too. With
    ``changes`` a text that is an edited version of an earlier one of its ``session`` is sent as edits, where the
    provider's prompt cache makes that cheaper. With ``cache`` the same request is answered again from this home's own
    cache, at no cost: always (``True``), or while the answer is no older than ``"7d"``, ``"12h"`` or ``"30m"``.
    """

    model: str
    provider: str | None
    max_tokens: int | None
    system: str | None
    temperature: float | None
    top_p: float | None
    stop: str | Sequence[str]
    seed: int | None
    tools: Sequence[Tool]
    tool_choice: str | None
    response_format: Mapping[str, Any] | None
    deadline: float | None
    extra: Mapping[str, Any]
    user: str | None
    session: str | None
    endpoint_name: str | None
    budget: Any
    compress: Any
    target: float | None
    query: str | None
    keep: str | Sequence[str]
    target_tokens: int | None
    target_recall: float | None
    compress_all: bool
    changes: bool
    cache: bool | str | None


def request_of(prompt: Prompt, options: Options, defaults: Mapping[str, Any], stages: Sequence[str] = ()) -> Request:
    """Build the request from a prompt and options, ``defaults`` filling what was not said.

    ``stages`` are names of compression stages beyond the built-in ones. Raises UserError for an unknown option (with
    the nearest known one), a wrong type, or a size below 1.
    """
    given = {name: value for name, value in options.items() if value is not None}
    said = {**_fitting(defaults, given), **given}
    unknown = [name for name in said if name not in Options.__annotations__]
    if unknown:
        raise UserError(
            f"There is no option {unknown[0]!r}. {did_you_mean(unknown[0], sorted(Options.__annotations__))}"
        )
    _check(said)
    messages = messages_of(prompt, cast("str | None", said.pop("system", None)))
    stop = said.pop("stop", ())
    compress = asked(
        said.pop("compress", None),
        target=said.pop("target", None),
        query=said.pop("query", None),
        keep=said.pop("keep", ()),
        tokens=said.pop("target_tokens", None),
        recall=said.pop("target_recall", None),
        everything=said.pop("compress_all", False),
        known=stages,
    )
    said["cache"] = _age(said.get("cache"))
    if said.get("changes") and said.get("session") is None:
        raise UserError("changes needs a session: say which one this text belongs to.")
    if said.get("changes") and compress is not None:
        raise UserError("changes and compress exclude each other: edits belong to a text that was sent whole.")
    return Request(
        messages,
        stop=(stop,) if isinstance(stop, str) else tuple(stop),
        tools=tuple(said.pop("tools", ())),
        compress=compress,
        **said,
    )


def _fitting(defaults: Mapping[str, Any], given: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the defaults that a call has a use for: one that says how it is shortened is not contradicted."""
    unfit = {"compress"} if given.get("changes") else set()
    stages = given.get("compress", None if unfit else defaults.get("compress"))
    if not stages or given.keys() & {"target_tokens", "target_recall"}:
        unfit.add("target")
    return {name: value for name, value in defaults.items() if name not in unfit}


_AGES = {"m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}


def _age(cache: Any) -> float | None:
    """Return how many seconds old a cached answer may be; None: the cache is not asked."""
    if cache is None or cache is False:
        return None
    if cache is True:
        return math.inf
    found = re.fullmatch(r"\s*(\d{1,6})\s*([mhdw])\s*", cache) if isinstance(cache, str) else None
    if found is None:
        raise UserError(f"cache is True, False, or an age such as '30m', '12h' or '7d', not {cache!r}.")
    return int(found[1]) * _AGES[found[2]]


def _check(said: Mapping[str, Any]) -> None:
    for name in ("model", "provider", "system", "user", "session", "endpoint_name"):
        if name in said and not isinstance(said[name], str):
            raise UserError(f"{name} must be text, not {said[name]!r}.")
    for name in ("max_tokens", "seed", "target_tokens"):
        if name in said and (isinstance(said[name], bool) or not isinstance(said[name], int)):
            raise UserError(f"{name} must be a whole number, not {said[name]!r}.")
    if said.get("max_tokens", 1) < 1:
        raise UserError(f"max_tokens must be at least 1, not {said['max_tokens']}.")
    for name in ("temperature", "top_p", "deadline", "target", "target_recall"):
        if name in said and (isinstance(said[name], bool) or not isinstance(said[name], int | float)):
            raise UserError(f"{name} must be a number, not {said[name]!r}.")
    if (limit := said.get("budget")) is not None and not isinstance(limit, Budget):
        parse_limit(limit)
    if not said.get("deadline", 1) > 0:
        raise UserError(f"deadline must be more than 0 seconds, not {said['deadline']}.")
