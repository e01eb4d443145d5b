"""What a caller may write as a prompt, and the one sentence for what he may not."""

from __future__ import annotations

from typing import Any

import pytest

from tokenkit.errors import UserError
from tokenkit.types import Message, messages_of


@pytest.mark.parametrize(
    "prompt",
    [
        "Hi",
        Message("user", "Hi"),
        {"role": "user", "content": "Hi"},
        ["Hi"],
        iter([Message("user", "Hi")]),
        ({"role": "user", "content": "Hi"},),
    ],
)
def test_a_prompt_may_be_written_in_many_ways(prompt: Any) -> None:
    assert messages_of(prompt) == (Message("user", "Hi"),)
    assert messages_of("Hi", system="Be brief.")[0] == Message("system", "Be brief.")


def test_a_message_that_calls_tools_needs_no_content() -> None:
    call = {"id": "1", "function": {"name": "f", "arguments": "{}"}}
    (message,) = messages_of([{"role": "assistant", "tool_calls": [call]}])
    assert (message.text, message.tool_calls[0].name) == ("", "f")


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("  \n", "The prompt is empty"),
        ([], "The list of messages is empty"),
        (None, "A prompt is a text, a message or a list of messages, not None."),
        (5, "not int 5."),
        (b"Hi", "not bytes b'Hi'."),
        ([{"content": "Hi"}], "Message 0 needs a 'role'"),
        (["Hi", {"role": "user"}], r"Message 1 \(role 'user'\) has no 'content'."),
        ([{"role": "user", "content": 5}], "content must be text or a list of parts, not int"),
    ],
)
def test_what_is_no_prompt_is_one_sentence(prompt: Any, said: str) -> None:
    with pytest.raises(UserError, match=said) as error:
        messages_of(prompt)
    assert "\n" not in str(error.value)
