"""Receipts as OpenTelemetry spans and metrics: the conventions' names, the receipt's times, and no call harmed."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tokenkit as tk
from tokenkit.otel import instrument
from tokenkit.providers.simulated import Fault

pytest.importorskip("opentelemetry.sdk", reason="the OpenTelemetry SDK is not installed")

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter


class Seen:
    """What an OpenTelemetry backend was sent."""

    def __init__(self) -> None:
        self.exporter, self.reader = InMemorySpanExporter(), InMemoryMetricReader()
        self.tracers = TracerProvider(shutdown_on_exit=False)
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.meters = MeterProvider([self.reader], shutdown_on_exit=False)

    @property
    def spans(self) -> list[Any]:
        return list(self.exporter.get_finished_spans())

    def points(self, name: str) -> list[Any]:
        data = self.reader.get_metrics_data()
        found = [m for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics if m.name == name]
        return [point for metric in found for point in metric.data.data_points]


@pytest.fixture
def seen() -> Iterator[Seen]:
    found = Seen()
    yield found
    found.tracers.shutdown()
    found.meters.shutdown()


def listening(kit: tk.Kit, seen: Seen, **more: Any) -> Any:
    return instrument(kit, tracer_provider=seen.tracers, meter_provider=seen.meters, **more)


def test_a_call_is_a_span_with_the_receipt_s_own_times_and_each_try_is_its_child(tmp_path: Path, seen: Seen) -> None:
    fault = Fault(model="swift", calls=(1,), status=500)
    with tk.Kit.simulated(pace=0, home=tmp_path, faults=(fault,)) as kit:
        listening(kit, seen)
        receipt = kit.call("Hello", model="swift", max_tokens=9, user="ann", session="s1").receipt
    first, second, whole = seen.spans
    assert whole.name == "chat swift"
    assert whole.kind.name == "CLIENT"
    assert whole.start_time == receipt.started_at
    assert whole.end_time == receipt.started_at + int(receipt.seconds * 10**9)
    assert whole.status.status_code.name == "UNSET"
    said = dict(whole.attributes)
    assert said["gen_ai.operation.name"] == "chat"
    assert said["gen_ai.provider.name"] == "simulated"
    assert said["gen_ai.request.model"] == "swift"
    assert said["gen_ai.usage.input_tokens"] == receipt.usage.input_tokens
    assert said["gen_ai.usage.output_tokens"] == receipt.usage.output_tokens == 9
    assert said["gen_ai.response.finish_reasons"] == ("length",)
    assert (said["gen_ai.conversation.id"], said["user.id"]) == ("s1", "ann")
    assert said["tokenkit.cost_usd"] == f"{receipt.cost:f}"
    assert "gen_ai.input.messages" not in said
    assert {first.parent.span_id, second.parent.span_id} == {whole.context.span_id}
    assert first.status.status_code.name == "ERROR"
    assert first.attributes["http.response.status_code"] == 500
    assert second.status.status_code.name == "UNSET"


def test_a_failed_call_is_an_error_with_its_type(tmp_path: Path, seen: Seen) -> None:
    with tk.Kit.simulated(pace=0, home=tmp_path, faults=(Fault(status=401, code="invalid_api_key"),)) as kit:
        listening(kit, seen)
        with pytest.raises(tk.errors.TokenkitError):
            kit.call("Hello", model="tiny")
    whole = seen.spans[-1]
    assert whole.status.status_code.name == "ERROR"
    assert whole.attributes["error.type"]


def test_texts_go_along_only_where_asked_for_and_kept(tmp_path: Path, seen: Seen) -> None:
    with tk.Kit.simulated(pace=0, home=tmp_path) as kit:
        stop = listening(kit, seen, content=True)
        answer = kit.call("Hello", max_tokens=9)
        assert seen.spans[-1].attributes["gen_ai.input.messages"] == "Hello"
        assert seen.spans[-1].attributes["gen_ai.output.messages"] == answer.text
        stop()
        stop()
        before = len(seen.spans)
        kit.call("Hello", max_tokens=9)
        assert len(seen.spans) == before
    file = tmp_path / "tokenkit.toml"
    file.write_text("[ledger]\nstore_prompts = false\n")
    with tk.Kit(file, home=tmp_path, environ={"TOKENKIT_SIMULATED": "1"}) as kit:
        listening(kit, seen, content=True)
        kit.call("Hello", max_tokens=9)
    assert "gen_ai.input.messages" not in seen.spans[-1].attributes


def test_the_two_metrics_are_counted_by_model_and_by_nothing_that_grows(tmp_path: Path, seen: Seen) -> None:
    with tk.Kit.simulated(pace=0, home=tmp_path) as kit:
        listening(kit, seen)
        for n in range(3):
            kit.call("Hello", model="tiny", max_tokens=9, user=f"user {n}", session=f"s{n}")
    tokens = {point.attributes["gen_ai.token.type"]: point for point in seen.points("gen_ai.client.token.usage")}
    assert (tokens["output"].count, tokens["output"].sum) == (3, 27)
    assert tokens["input"].sum > 0
    (seconds,) = seen.points("gen_ai.client.operation.duration")
    assert seconds.count == 3
    assert set(seconds.attributes) <= {
        "gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.request.model", "gen_ai.response.model", "error.type"
    }  # fmt: skip


def test_a_listener_that_fails_costs_no_answer(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with tk.Kit.simulated(pace=0, home=tmp_path) as kit:
        kit.on_receipt.append(lambda receipt: 1 / 0)
        kit.on_receipt.append(heard := [].append)  # type: ignore[arg-type]
        with caplog.at_level(logging.WARNING, "tokenkit"):
            answer = kit.call("Hello", max_tokens=9)
        assert answer.text
        assert heard.__self__ == [answer.receipt]  # type: ignore[attr-defined]
        assert "A listener for receipts failed" in caplog.text
        assert len(kit.ledger.df()) == 1
