"""OpenTelemetry, live: every receipt as a span, each try as its child, and the two metrics of the GenAI conventions.

    from tokenkit.otel import instrument                  # the extra tokenkit[otel]
    stop = instrument(kit)                                # into the tracer and meter providers your program has set
    stop()

Names are those of the OpenTelemetry semantic conventions for generative AI. Prompts and answers go along only with
``content=True``, and never where the kit does not store them. Spans are made from the receipt when the call has ended,
with its own times, so a slow exporter delays no answer and a failing one costs none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from tokenkit.receipts import Attempt, Receipt
from tokenkit.types import Usage

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

    from tokenkit.kit import Kit

NAME = "tokenkit"
Attributes = dict[str, Any]


def instrument(
    kit: Kit,
    *,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
    content: bool = False,
) -> Callable[[], None]:
    """Send every receipt this kit writes from now on to OpenTelemetry; return what ends that.

    Without providers the global ones are used. Raises ImportError without the extra ``otel``.
    """
    from opentelemetry import metrics, trace

    tracer = trace.get_tracer(NAME, tracer_provider=tracer_provider)
    meter = metrics.get_meter(NAME, meter_provider=meter_provider)
    tokens = meter.create_histogram("gen_ai.client.token.usage", "{token}", "Tokens of a call, by input and output")
    seconds = meter.create_histogram("gen_ai.client.operation.duration", "s", "How long a call took, tries included")

    def told(receipt: Receipt) -> None:
        about = attributes_of(receipt)
        more = _contents(receipt) if content else {}
        ended = receipt.started_at + int(receipt.seconds * 10**9)
        span = tracer.start_span(
            f"{receipt.operation} {receipt.requested_model}",
            kind=trace.SpanKind.CLIENT,
            start_time=receipt.started_at,
            attributes={**about, **more},
        )
        inside = trace.set_span_in_context(span)
        for number, attempt in enumerate(receipt.attempts, 1):
            child = tracer.start_span(
                f"{receipt.operation} {attempt.model.partition('/')[2]}",
                context=inside,
                kind=trace.SpanKind.CLIENT,
                start_time=attempt.started_at,
                attributes={**_of_attempt(receipt.operation, attempt), "tokenkit.attempt": number},
            )
            _fail(child, attempt.status, attempt.error)
            child.end(attempt.started_at + int(attempt.seconds * 10**9))
        _fail(span, receipt.status, receipt.error)
        span.end(ended)
        labels = {name: value for name, value in about.items() if name in _LABELS}
        seconds.record(receipt.seconds, labels)
        for kind, count in (("input", _used(receipt).input_tokens), ("output", _used(receipt).output_tokens)):
            if count is not None:
                tokens.record(count, {**labels, "gen_ai.token.type": kind})

    kit.on_receipt.append(told)

    def stop() -> None:
        if told in kit.on_receipt:
            kit.on_receipt.remove(told)

    return stop


_LABELS = frozenset(
    {"gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.request.model", "gen_ai.response.model", "error.type"}
)
"""What the metrics are told apart by: nothing that grows with the number of calls or users."""


def attributes_of(receipt: Receipt) -> Attributes:
    """Return a receipt as span attributes; what is unknown is left out."""
    last = receipt.attempts[-1] if receipt.attempts else None
    asked = receipt.plan.max_output_tokens if receipt.plan is not None else None
    return _known(
        {
            "gen_ai.operation.name": receipt.operation,
            "gen_ai.provider.name": receipt.provider,
            "gen_ai.request.model": receipt.requested_model,
            "gen_ai.request.max_tokens": asked,
            "gen_ai.response.model": last.response_model if last is not None else None,
            "gen_ai.response.finish_reasons": [receipt.finish_reason] if receipt.finish_reason else None,
            "gen_ai.conversation.id": receipt.session,
            "user.id": receipt.user,
            "error.type": receipt.error_type,
            **_of_usage(receipt.usage),
            "tokenkit.receipt": receipt.id,
            "tokenkit.model": receipt.model,
            # Exact, so text: a float cannot hold every billionth of a dollar.
            "tokenkit.cost_usd": None if receipt.cost is None else f"{receipt.cost:f}",
            "tokenkit.saved_tokens": receipt.saved_tokens or None,
            "tokenkit.cached": receipt.cached or None,
            "tokenkit.endpoint": receipt.endpoint_name,
        }
    )


def _of_attempt(operation: str, attempt: Attempt) -> Attributes:
    return _known(
        {
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": attempt.provider,
            "gen_ai.request.model": attempt.model.partition("/")[2],
            "gen_ai.response.model": attempt.response_model,
            "gen_ai.response.id": attempt.request_id,
            "gen_ai.response.finish_reasons": [attempt.finish_reason] if attempt.finish_reason else None,
            "http.response.status_code": attempt.http_status,
            "error.type": attempt.error_type,
            **_of_usage(attempt.usage),
        }
    )


def _of_usage(usage: Usage | None) -> Attributes:
    if usage is None:
        return {}
    return {
        "gen_ai.usage.input_tokens": usage.input_tokens,
        "gen_ai.usage.output_tokens": usage.output_tokens,
        "gen_ai.usage.cache_read.input_tokens": usage.cache_read_input_tokens,
        "gen_ai.usage.cache_creation.input_tokens": usage.cache_creation_input_tokens,
        "gen_ai.usage.reasoning.output_tokens": usage.reasoning_output_tokens,
    }


def _contents(receipt: Receipt) -> Attributes:
    return _known({"gen_ai.input.messages": receipt.prompt, "gen_ai.output.messages": receipt.answer})


def _known(attributes: Mapping[str, Any]) -> Attributes:
    return {name: value for name, value in attributes.items() if value is not None}


def _used(receipt: Receipt) -> Usage:
    return receipt.usage or Usage()


def _fail(span: Any, status: str, error: str | None) -> None:
    from opentelemetry.trace import Status, StatusCode

    if status == "error":
        span.set_status(Status(StatusCode.ERROR, error))
