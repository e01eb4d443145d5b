"""Text completions: models that only complete are asked by the older endpoint, whole and streamed."""

from __future__ import annotations

import json
from pathlib import Path

import faults
import pytest
from faults import FaultServer, reply

import tokenkit as tk
from tokenkit.catalog import Model
from tokenkit.errors import NoRoute, ProtocolError, ServerError, TokenkitError, UserError
from tokenkit.pricing import flat
from tokenkit.providers import anthropic, completions, openai
from tokenkit.types import Secret

USAGE = {"prompt_tokens": 4, "completion_tokens": 2, "total_tokens": 6}
WHOLE = json.dumps(
    {"id": "cmpl-1", "object": "text_completion", "model": "i", "usage": USAGE,
     "choices": [{"text": " a time", "index": 0, "finish_reason": "stop"}]}
).encode()  # fmt: skip
STREAM = (
    "".join(
        f"data: {json.dumps(row)}\n\n"
        for row in (
            {"model": "i", "choices": [{"text": " a", "finish_reason": None}]},
            {"model": "i", "choices": [{"text": " time", "finish_reason": "stop"}]},
            {"model": "i", "choices": [], "usage": USAGE},
        )
    ).encode()
    + b"data: [DONE]\n\n"
)


def kit_on(server: FaultServer, tmp_path: Path) -> tk.Kit:
    provider = openai.provider(name="here", base_url=f"{server.url}/v1", key=Secret("sk-here-123456"))
    able = frozenset({"completion", "stream"})
    return tk.Kit(
        home=tmp_path,
        providers=[provider],
        models=[Model("here", "i", 1.0, flat("user", "i", input=1, output=2), 4096, capabilities=able)],
        environ={},
    )


def test_a_prompt_is_completed_whole_and_streamed(tmp_path: Path) -> None:
    with FaultServer(reply(200, WHOLE), faults.streamed(STREAM)) as server, kit_on(server, tmp_path) as kit:
        answer = kit.call("Once upon", model="i", max_tokens=5)
        assert (answer.text, answer.finish_reason) == (" a time", "stop")
        assert answer.receipt is not None
        assert answer.receipt.cost_nanos == 4 * 1000 + 2 * 2000
        stream = kit.stream("Once upon", model="i", max_tokens=5)
        assert "".join(delta.text for delta in stream) == " a time"
        assert stream.receipt is not None
        assert stream.receipt.cost_nanos == answer.receipt.cost_nanos
        assert [seen.line.split()[1] for seen in server.requests] == ["/v1/completions"] * 2
        body = json.loads(server.requests[0].body)
        assert (body["prompt"], body["max_tokens"]) == ("Once upon", 5)
        assert "messages" not in body


def test_a_chat_is_written_out_and_the_receipt_says_so(tmp_path: Path) -> None:
    with FaultServer(reply(200, WHOLE)) as server, kit_on(server, tmp_path) as kit:
        answer = kit.call("Hi", model="i", system="Be brief.")
        assert json.loads(server.requests[0].body)["prompt"] == "system: Be brief.\n\nuser: Hi\n\nassistant:"
        assert answer.receipt is not None
        assert "written out" in answer.receipt.attempts[0].notes[0]


def test_what_only_chat_can_carry_is_refused(tmp_path: Path) -> None:
    with FaultServer(reply(200, WHOLE)) as server, kit_on(server, tmp_path) as kit:
        with pytest.raises((NoRoute, UserError)):
            kit.call("Hi", model="i", tools=[tk.Tool("t")])
        assert server.requests == []
    with pytest.raises(UserError, match="no text completions"):
        completions.completing(anthropic.provider())


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b'{"choices": []}', b'{"choices": [null]}', b'{"error": {"message": "x"}}']
)
def test_an_odd_answer_is_an_error_of_ours(body: bytes) -> None:
    with pytest.raises(TokenkitError):
        completions.decode(body)


def test_every_cut_of_a_stream_gives_the_same_text() -> None:
    for cut in range(1, len(STREAM)):
        decode = completions.feed()
        deltas = [*decode(STREAM[:cut]), *decode(STREAM[cut:]), *decode(b"")]
        assert "".join(d.text for d in deltas) == " a time"
    decode = completions.feed()
    decode(STREAM[:60])
    with pytest.raises(ProtocolError):
        decode(b"")
    with pytest.raises(ServerError):
        completions.feed()(b'data: {"error": {"message": "it broke", "code": 500}}\n\n')
