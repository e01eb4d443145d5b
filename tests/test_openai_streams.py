"""Streams of OpenAI's dialect as servers really send them: calls all numbered 0, choices in turns, odd errors."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tokenkit.errors import ProtocolError, RateLimited
from tokenkit.providers import openai
from tokenkit.providers.base import gather
from tokenkit.types import Response, ToolCall

END = {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}
FIRST, SECOND = ToolCall("a", "weather", '{"city":"Bern"}'), ToolCall("b", "time", '{"zone":"CET"}')


def streamed(*chunks: Any) -> Response:
    feed = openai.feed()
    data = b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks)
    return gather([delta for piece in (data, b"") for delta in feed(piece)])


def part(index: int | None, identifier: str | None, name: str | None, arguments: str) -> dict[str, Any]:
    call: dict[str, Any] = {"id": identifier, "function": {"name": name, "arguments": arguments}}
    return {"choices": [{"index": 0, "delta": {"tool_calls": [call | ({} if index is None else {"index": index})]}}]}


def fragments(index: int | None, call: ToolCall, *, repeats: bool) -> list[dict[str, Any]]:
    """One call in three fragments; some servers repeat id and name in each, OpenAI's tells them once."""
    known, name = (call.id, call.name) if repeats else (None, None)
    start, middle, end = call.arguments[:4], call.arguments[4:9], call.arguments[9:]
    return [part(index, call.id, call.name, start), part(index, known, name, middle), part(index, known, name, end)]


@pytest.mark.parametrize("repeats", [False, True])
@pytest.mark.parametrize("numbers", [(0, 1), (0, 0), (None, None), (1, 2), (3, 3), (1, 0)])
def test_each_call_stays_apart_however_its_server_numbers_it(
    numbers: tuple[int | None, int | None], repeats: bool
) -> None:
    found = streamed(
        *fragments(numbers[0], FIRST, repeats=repeats), *fragments(numbers[1], SECOND, repeats=repeats), END
    )
    assert sorted(found.tool_calls, key=lambda call: call.id) == [FIRST, SECOND]


def test_fragments_in_turns_are_told_apart_by_their_numbers() -> None:
    turns = zip(fragments(0, FIRST, repeats=False), fragments(1, SECOND, repeats=False), strict=True)
    assert streamed(*(chunk for pair in turns for chunk in pair), END).tool_calls == (FIRST, SECOND)


def test_a_third_call_never_takes_the_number_of_a_second() -> None:
    third = ToolCall("c", "now", "{}")
    chunks = [*fragments(0, FIRST, repeats=False), *fragments(0, SECOND, repeats=False), part(1, "c", "now", "{}")]
    assert streamed(*chunks, END).tool_calls == (FIRST, SECOND, third)


def test_an_id_that_changes_with_every_fragment_begins_no_call_without_a_name() -> None:
    chunks = [part(0, "a", "weather", '{"city":'), part(0, "x1", None, '"Be'), part(0, "x2", None, 'rn"}')]
    assert streamed(*chunks, END).tool_calls == (FIRST,)


def test_an_id_that_comes_after_the_name_belongs_to_the_same_call() -> None:
    chunks = [part(0, None, "weather", ""), part(0, "a", "weather", '{"city":"Bern"}'), part(0, "b", "time", "{}")]
    assert streamed(*chunks, END).tool_calls == (FIRST, ToolCall("b", "time", "{}"))


def test_of_several_choices_in_turns_the_first_is_read_alone() -> None:
    def chunk(index: int | None, text: str, finish: str | None = None) -> dict[str, Any]:
        number = {} if index is None else {"index": index}
        return {"choices": [number | {"delta": {"content": text}, "finish_reason": finish}]}

    turns = [chunk(0, "Good "), chunk(1, "Bad "), chunk(1, "day.", "length"), chunk(0, "day.", "stop")]
    assert (streamed(*turns).text, streamed(*turns).finish_reason) == ("Good day.", "stop")
    # Whatever number a lone choice has, and whether it keeps it or not, it is the answer.
    assert streamed(chunk(1, "Good "), chunk(1, "day.", "stop")).text == "Good day."
    assert streamed(chunk(0, "Good "), chunk(None, "day.", "stop")).text == "Good day."
    # That another one ended does not end this one.
    with pytest.raises(ProtocolError, match="ended before"):
        streamed(*turns[:3])


def test_an_event_named_error_fails_the_call_without_an_error_in_it() -> None:
    with pytest.raises(RateLimited, match="slow down"):
        openai.feed()(b'event: error\ndata: {"message": "slow down", "type": "rate_limit_error"}\n\n')
