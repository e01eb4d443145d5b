"""From what a call gave to OpenAI's JSON: whole answers, chunks of a stream, and our own ``tokenkit`` object beside.

Shapes by OpenAI's API reference, "The chat completion object", "chat.completion.chunk" and "The completion object". The
``tokenkit`` object is one more key at the top: that reference counts new keys among the changes a client must bear, and
the SDKs keep them. In a stream it comes on the chunk that ends the answer, so no chunk is there that was not expected.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tokenkit.adversarial import Adversarial
from tokenkit.catalog import Model
from tokenkit.money import Nanos, usd
from tokenkit.providers.openai import dumps
from tokenkit.receipts import Receipt
from tokenkit.types import Delta, Response, ToolCallDelta, Usage

_FINISHES = ("stop", "length", "tool_calls", "content_filter")


def headers_of(receipt: Receipt | None) -> dict[str, str]:
    """Return what a receipt says in headers: its id, the cost in USD where it is known, the model that answered."""
    if receipt is None:
        return {}
    said = {"x-tokenkit-receipt": receipt.id, "x-tokenkit-cost-usd": _usd(receipt.cost_nanos)}
    return {name: value for name, value in {**said, "x-tokenkit-model": _ascii(receipt.model)}.items() if value}


def account(receipt: Receipt | None, ignored: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the ``tokenkit`` object: receipt, model, cost in USD (text, exact; null where unknown), tokens saved."""
    told: dict[str, Any] = {"ignored": list(ignored)} if ignored else {}
    if receipt is None:
        return told
    return {
        "receipt": receipt.id,
        "requested_model": receipt.requested_model,
        "model": receipt.model,
        "provider": receipt.provider,
        "cost_usd": _usd(receipt.cost_nanos),
        "saved_tokens": receipt.saved_tokens,
        "attempts": len(receipt.attempts),
        "usage_source": None if receipt.usage is None else receipt.usage.source,
        **told,
    }


@dataclass(frozen=True, slots=True)
class Shape:
    """How one of the two endpoints words its answers: ids, objects and choices."""

    prefix: str
    whole: str
    chunk: str
    chats: bool

    def answer(self, response: Response, created: int, ignored: tuple[str, ...] = ()) -> dict[str, Any]:
        """Return a whole answer; ``created`` is Unix seconds."""
        said: dict[str, Any] = {"text": response.text}
        if self.chats:
            said = {"message": _message(response)}
        choice = {"index": 0, **said, "logprobs": None, "finish_reason": finish_of(response)}
        receipt = response.receipt
        return {
            "id": self.prefix + (receipt.id if receipt is not None else response.id or ""),
            "object": self.whole,
            "created": created,
            "model": _model(response, receipt),
            "choices": [choice],
            **({} if response.usage is None else {"usage": usage_of(response.usage)}),
            "tokenkit": account(receipt, ignored),
        }


CHAT = Shape("chatcmpl-", "chat.completion", "chat.completion.chunk", chats=True)
TEXT = Shape("cmpl-", "text_completion", "text_completion", chats=False)


@dataclass(slots=True)
class Chunks:
    """The chunks of one stream, in order: ``delta`` for each step, then ``end``. All carry one id and one model."""

    shape: Shape
    id: str
    model: str
    created: int
    include_usage: bool = False
    ignored: tuple[str, ...] = ()
    begun: bool = field(default=False, init=False)
    named: set[int] = field(default_factory=set, init=False)

    def delta(self, delta: Delta) -> bytes:
        """Return the event that shows one step; empty where it has nothing to show."""
        said: dict[str, Any] = {}
        if delta.text:
            said["content"] = delta.text
        if delta.reasoning and self.shape.chats:
            said["reasoning_content"] = delta.reasoning
        if delta.tool_calls and self.shape.chats:
            said["tool_calls"] = [self._part(part) for part in delta.tool_calls]
        return self._event(said) if said else b""

    def end(self, response: Response | None, receipt: Receipt | None) -> bytes:
        """Return the events that end a stream: finish reason and ``tokenkit``, usage where wanted, ``[DONE]``."""
        finish = "stop" if response is None else finish_of(response)
        events = self._event({}, finish, tokenkit=account(receipt, self.ignored))
        if self.include_usage:
            usage = None if response is None or response.usage is None else usage_of(response.usage)
            events += event({**self._head(), "choices": [], "usage": usage})
        return events + DONE

    def _event(self, said: Mapping[str, Any], finish: str | None = None, **beside: Any) -> bytes:
        choice: dict[str, Any] = {"index": 0, "text": said.get("content", "")}
        if self.shape.chats:
            role = {} if self.begun else {"role": "assistant", "content": ""}
            choice = {"index": 0, "delta": {**role, **said}}
        self.begun = True
        choice |= {"logprobs": None, "finish_reason": finish}
        unknown = {"usage": None} if self.include_usage else {}
        return event({**self._head(), "choices": [choice], **unknown, **beside})

    def _head(self) -> dict[str, Any]:
        return {"id": self.id, "object": self.shape.chunk, "created": self.created, "model": self.model}

    def _part(self, part: ToolCallDelta) -> dict[str, Any]:
        function: dict[str, Any] = {"arguments": part.arguments}
        made: dict[str, Any] = {"index": part.index, "function": function}
        if part.index not in self.named and (part.id or part.name):
            self.named.add(part.index)
            made |= {"id": part.id or f"call_{part.index}", "type": "function"}
            function["name"] = part.name or ""
        return made


DONE = b"data: [DONE]\n\n"


def event(data: Mapping[str, Any]) -> bytes:
    """Return one server-sent event."""
    return b"data: " + dumps(data) + b"\n\n"


def finish_of(response: Response) -> str:
    """Return why the answer ended, in one of OpenAI's words: other ones break clients that know only those."""
    reason = response.finish_reason
    return reason if reason in _FINISHES else "tool_calls" if response.tool_calls else "stop"


def usage_of(usage: Usage) -> dict[str, Any]:
    """Return usage in OpenAI's words, which know no unknown: the total is of what is known."""
    read, written = usage.input_tokens or 0, usage.output_tokens or 0
    made: dict[str, Any] = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
    if usage.cache_read_input_tokens is not None:
        made["prompt_tokens_details"] = {"cached_tokens": usage.cache_read_input_tokens}
    if usage.reasoning_output_tokens is not None:
        made["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning_output_tokens}
    return made


def run_of(run: Adversarial, ignored: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return an adversarial run: the texts, every round, the cost of it all in USD, and its receipts."""
    rounds = [
        {
            "critique": None if one.critique is None else one.critique.text,
            "refined": None if one.refined is None else one.refined.text,
            "change": one.change,
            "cost_usd": _usd(one.cost_nanos),
            **({"note": one.note} if one.note else {}),
        }
        for one in run.rounds
    ]
    return {
        "id": run.id,
        "object": "tokenkit.adversarial",
        "planner": run.planner,
        "critic": run.critic,
        "plan": run.initial_plan,
        "critique": run.critique,
        "refined": run.refined_plan,
        "rounds": rounds,
        "note": run.note,
        "cost_usd": None if run.cost is None else f"{run.cost:f}",
        "receipts": [{"operation": receipt.operation, **account(receipt)} for receipt in run.receipts],
        **({"ignored": list(ignored)} if ignored else {}),
    }


def model_of(model: Model) -> dict[str, Any]:
    """Return one model as the list of models has it."""
    return {
        "id": model.id,
        "object": "model",
        "created": 0,
        "owned_by": model.provider,
        "tokenkit": {
            "weight": model.weight,
            "context_window": model.context_window,
            "max_output_tokens": model.max_output_tokens,
            "capabilities": sorted(model.capabilities),
            "price": None if model.price is None else str(model.price.receipt(0)),
        },
    }


AUTO = {"id": "auto", "object": "model", "created": 0, "owned_by": "tokenkit"}
"""The entry for the model that stands for routing."""


def _message(response: Response) -> dict[str, Any]:
    made: dict[str, Any] = {"role": "assistant", "content": response.text or None, "refusal": None}
    if not response.tool_calls:
        made["content"] = response.text
    if response.reasoning:
        made["reasoning_content"] = response.reasoning
    if response.tool_calls:
        made["tool_calls"] = [
            {
                "id": call.id or f"call_{place}",
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for place, call in enumerate(response.tool_calls)
        ]
    return made


def _model(response: Response, receipt: Receipt | None) -> str:
    routed = receipt.model if receipt is not None else None
    return routed or response.model or "auto"


def _usd(nanos: Nanos | None) -> str | None:
    cost = usd(nanos)
    return None if cost is None else f"{cost:f}"


def _ascii(text: str | None) -> str:
    """Return text as a header can carry it."""
    return "".join(c for c in text or "" if " " <= c <= "~")
