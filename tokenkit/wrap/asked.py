"""What somebody else's client is asked, read before it is: the books need its size and its words, not its types."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tokenkit.tokens import count_messages, count_text
from tokenkit.types import Message, Request, TokenCount, Usage, messages_of
from tokenkit.wrap.reading import field

_BOUNDS = ("max_completion_tokens", "max_tokens", "max_output_tokens", "maxOutputTokens")
_SYSTEM = ("system", "instructions", "system_instruction", "systemInstruction")
_COPIES = ("n", "best_of", "candidate_count", "candidateCount")
_WORDS = ("text", "thinking", "content", "parts", "function", "name", "arguments", "output", "refusal", "tool_calls")
_DATA = ("input", "args", "response")
_CALLS = ("function_call", "function_response")
_DEEP = 12


def listed(kw: Mapping[str, Any], asked: str) -> dict[str, Any]:
    """Return arguments whose iterators are lists, so that the books and the client can both read them.

    Raises what such an iterator raises, as the client would.
    """
    return {
        name: list(value) if name in (asked, "tools", "system") and hasattr(type(value), "__next__") else value
        for name, value in kw.items()
    }


def request_of(kw: Mapping[str, Any], asked: str, model: str, provider: str, **more: Any) -> Request:
    """Return a request as the books know it: its words, its bounds, whose it is."""
    places = _places(kw)
    most = [n for place in places for name in _BOUNDS if (n := _number(field(place, name)))]
    system = next((words(s) for p in places for name in _SYSTEM if (s := field(p, name))), "")
    copies = {name: n for place in places for name in _COPIES if (n := _number(field(place, name)))}
    turns = ((Message("system", system),) if system else ()) + messages_from(kw.get(asked))
    user = kw.get("user")
    return Request(
        turns, f"{provider}/{model}", provider, most[0] if most else None, extra=copies,
        user=user if isinstance(user, str) else None, **more,
    )  # fmt: skip


def size_of(request: Request, kw: Mapping[str, Any], asked: str) -> TokenCount:
    """Return the tokens of what is asked; never exact where there is anything beside the messages."""
    tools = [tool for place in _places(kw) if isinstance(tool := field(place, "tools"), list | tuple)]
    beside = _numbers(kw.get(asked)) + sum(count_text(_dumped(tool), request.model).tokens for tool in tools)
    counted = count_messages(request.messages, request.model)
    return counted if not beside else TokenCount(counted.tokens + beside, False, counted.encoding)


def called_by_itself(answer: Any, contents: Any, model: str) -> Usage | None:
    """Estimate what Google's client used before the request that was answered, where it called tools by itself.

    It reports the usage of its last request alone, and what was said in all of them: the contents it was given, then a
    turn that calls and a turn that answers for each.
    """
    said = field(answer, "automatic_function_calling_history")
    if not isinstance(said, list) or not said:
        return None
    given = sum(1 for turn in contents if field(turn, "role")) if isinstance(contents, list | tuple) else 1
    turns = [count_text(words(turn), model).tokens for turn in said]
    calls = range(max(given, 1), len(turns), 2)
    return Usage(sum(sum(turns[:at]) for at in calls), sum(turns[at] for at in calls), source="estimated")


def messages_from(said: Any) -> tuple[Message, ...]:
    """Return what a caller wrote as messages, whichever SDK's words they are in."""
    if said is None:
        return ()
    turns = said if isinstance(said, list | tuple) else [said]
    try:
        if not any(field(turn, "parts") for turn in turns):  # Google's word for content
            return messages_of(said)
    except Exception:  # words of another SDK, which are read one by one
        turns = [turn for turn in turns if not isinstance(turn, int)]
    return tuple(_turn(turn) for turn in turns)


def words(value: Any, deep: int = 0) -> str:
    """Return the text within a message or a part of one, of whatever kind; pictures and files have none."""
    if isinstance(value, str):
        return value
    if deep > _DEEP or value is None or isinstance(value, int | float | bytes):
        return ""
    if isinstance(value, list | tuple):
        return "\n".join(text for one in value if (text := words(one, deep + 1)))
    texts = [words(field(value, name), deep + 1) for name in _WORDS]
    for place in (value, *(field(value, name) for name in _CALLS)):
        texts += [_dumped(data) for name in _DATA if isinstance(data := field(place, name), Mapping)]
        texts += [] if place is value else [words(field(place, "name"), deep + 1)]
    return "\n".join(text for text in texts if text)


def _turn(turn: Any) -> Message:
    role = field(turn, "role")
    if not isinstance(role, str) or not role:
        return Message("user", words(turn))
    try:
        read = messages_of([turn])[0]
    except Exception:  # as above
        return Message(role, words(turn))
    return read if read.content or read.tool_calls else Message(role, words(turn))


def _places(kw: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return where settings may stand: among the arguments, or in Google's config."""
    config = kw.get("config")
    return (kw,) if config is None else (kw, config)


def _numbers(said: Any, deep: int = 0) -> int:
    """How many tokens were given as numbers, which completions and embeddings take."""
    if not isinstance(said, list | tuple) or deep > 1:
        return 0
    return sum(1 if isinstance(one, int) else _numbers(one, deep + 1) for one in said)


def _number(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _dumped(value: Any) -> str:
    try:
        return json.dumps(value, default=lambda one: words(one) or type(one).__name__, ensure_ascii=False)
    except Exception:
        return ""
