"""Budgets in a kit: what each action does, before anything is sent, and that every kind of call is accounted."""

from __future__ import annotations

import asyncio
import importlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import biller
import pytest
from faults import FaultServer, error, events, hang, reply, streamed

import tokenkit as tk
from tokenkit import Kit
from tokenkit.accounts.keeping import FRESH_SECONDS
from tokenkit.budget import Budget
from tokenkit.catalog import Model
from tokenkit.errors import BudgetExceeded, ConfigError, DeadlineExceeded, ServerError, UserError
from tokenkit.journal import Journal
from tokenkit.pricing import flat
from tokenkit.providers import openai
from tokenkit.standing import Alert

PROMPT = "Name three rivers."
PRICE = flat("user", "m", input=1, output=5)


@pytest.fixture
def kit() -> Iterator[Kit]:
    with Kit.simulated(seed=0, pace=0) as made:
        made.budgets.listeners.clear()
        yield made


def at(server: FaultServer, **model: Any) -> Kit:
    """A kit whose one model is asked at this server; a prompt of 19 tokens in, 1 USD; out, 5 USD per million."""
    fields: dict[str, Any] = {"price": PRICE, "context_window": 128_000, "encoding": "o200k_base", **model}
    provider = openai.provider(name="p", base_url=f"{server.url}/v1", key=None)
    return Kit(home=server.home, providers=[provider], models=[Model("p", "gpt-4o", **fields)], environ={})


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FaultServer]:
    with FaultServer() as made:
        made.home = tmp_path
        yield made


def sent(kit: Kit) -> int:
    return int(kit.ledger.sql("select coalesce(sum(tries), 0) as n from calls").iloc[0]["n"])


def test_block_refuses_before_anything_is_sent_and_names_the_budget(kit: Kit) -> None:
    kit.budgets.set("0.001 USD", window="day", name="daily")
    plan = kit.plan(PROMPT, max_tokens=500)
    assert plan.choice is None
    assert "budget 'daily' has $0.0010 left" in str(plan)
    assert "blocks rather than reroutes" in str(plan)
    with pytest.raises(BudgetExceeded, match=r"budget 'daily' has .* left of .* could take") as refusal:
        kit.call(PROMPT, max_tokens=500)
    assert refusal.value.receipt is not None
    assert refusal.value.receipt.attempts == ()
    assert [v.outcome for v in refusal.value.receipt.verdicts] == ["block"]
    assert sent(kit) == 0
    assert kit.budgets.status()[0].spent == 0


def test_reroute_takes_what_still_fits_and_the_plan_says_why(kit: Kit) -> None:
    first = kit.plan(PROMPT, max_tokens=500).choice
    kit.budgets.set("0.006 USD", window="day", name="daily", action="reroute")
    plan = kit.plan(PROMPT, max_tokens=500)
    assert plan.choice is not None
    assert first is not None
    assert plan.choice.model != first.model
    why = next(c.rejected for c in plan.candidates if c.model == first.model)
    assert why is not None
    assert "budget 'daily'" in why
    answer = kit.call(PROMPT, max_tokens=500)
    assert answer.receipt.model == plan.choice.model
    assert answer.receipt.cost_nanos == kit.budgets.status()[0].spent


def test_shrink_lowers_max_tokens_to_what_is_affordable_and_says_so(kit: Kit) -> None:
    kit.budgets.set("0.01 USD", action="shrink")
    answer = kit.call(PROMPT, model="sage", max_tokens=5000)
    (verdict,) = answer.receipt.verdicts
    assert verdict.outcome == "shrink"
    assert "max_tokens was 5,000 and is now" in verdict.message
    assert answer.usage.output_tokens < 5000
    assert answer.receipt.cost_nanos <= 10_000_000


def test_without_max_tokens_the_largest_affordable_is_set(kit: Kit) -> None:
    answer = kit.call(PROMPT, model="sage", budget="0.01 USD")
    assert answer.receipt.verdicts[0].message.startswith("max_tokens was not set and is now")
    assert answer.receipt.cost_nanos <= 10_000_000


def test_less_than_a_stump_of_an_answer_is_refused(kit: Kit) -> None:
    with pytest.raises(BudgetExceeded):
        kit.call(PROMPT, model="sage", budget="0.0005 USD")


def test_warn_lets_it_go_and_counts_it(kit: Kit) -> None:
    kit.budgets.set("0.0001 USD", action="warn", name="soft")
    answer = kit.call(PROMPT, model="sage", max_tokens=50)
    assert [v.outcome for v in answer.receipt.verdicts] == ["warn"]
    (stands,) = kit.budgets.status()
    assert stands.spent == answer.receipt.cost_nanos > stands.budget.amount


def test_throttle_waits_for_a_running_call_to_give_back_what_it_holds(kit: Kit) -> None:
    kit.budgets.set("0.02 USD", action="throttle")
    first = kit.stream(PROMPT, model="sage", max_tokens=250)
    next(first)
    done: list[Any] = []
    waiting = threading.Thread(target=lambda: done.append(kit.call(PROMPT, model="sage", max_tokens=250)))
    waiting.start()
    time.sleep(0.2)
    assert not done
    first.close()
    waiting.join(timeout=10)
    assert [v.outcome for v in done[0].receipt.verdicts] == ["throttle"]
    assert done[0].receipt.attempts[0].waited > 0


def test_throttle_gives_up_at_the_deadline(kit: Kit) -> None:
    kit.budgets.set("0.02 USD", action="throttle")
    first = kit.stream(PROMPT, model="sage", max_tokens=250)
    next(first)
    began = time.monotonic()
    with pytest.raises(BudgetExceeded, match="held by calls still running"):
        kit.call(PROMPT, model="sage", max_tokens=250, deadline=0.3)
    assert time.monotonic() - began < 5
    first.close()
    assert kit.budgets.status()[0].held == 0


def test_block_waits_for_running_calls_while_they_settle_and_no_longer(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.import_module("tokenkit.layers.budgeted"), "STALL", 0.3)
    kit.budgets.set("0.02 USD")
    first = kit.stream(PROMPT, model="sage", max_tokens=250)
    next(first)
    with pytest.raises(BudgetExceeded, match="throttle"):
        kit.call(PROMPT, model="sage", max_tokens=250)
    first.close()


def test_a_cap_holds_for_threads_and_other_kits_and_ends_with_its_block(kit: Kit) -> None:
    with Kit.simulated(seed=1, pace=0) as other, kit.budgets.cap("0.008 USD") as cap:
        batch = kit.batch([PROMPT] * 6 + ["And seas?"] * 6, concurrency=4)
        errors = [result.error for result in batch]
        with pytest.raises(BudgetExceeded, match="this cell"):
            other.call(PROMPT, model="sage", max_tokens=2000)
        stands = kit.budgets.standing(cap)
        assert 0 < stands.spent <= 8_000_000
        assert stands.held == 0
        assert stands.spent == sum(r.receipt.cost_nanos for r in batch if r.receipt is not None)
        assert all(e is None or isinstance(e, BudgetExceeded) for e in errors)
        embedded = other.embed(["rivers", "seas"])
        assert kit.budgets.standing(cap).spent == stands.spent + sum(r.cost_nanos for r in embedded.receipts)
    assert kit.call(PROMPT, max_tokens=2000).text


def test_every_step_of_an_argument_is_accounted(kit: Kit) -> None:
    kit.budgets.set("1 USD")
    run = kit.adversarial(PROMPT, rounds=1, max_tokens=60)
    assert kit.budgets.status()[0].spent == sum(receipt.cost_nanos for receipt in run.receipts)
    assert kit.budgets.status()[0].calls == len(run.receipts)


def test_retries_hold_once_and_pay_for_each_billed_try(server: FaultServer) -> None:
    server.script(error(500), error(429, retry_after="0"), reply())
    with at(server) as kit:
        kit.budgets.set("0.0006 USD")  # room for one worst case of 100 tokens, not for two
        answer = kit.call(biller.prompt(), max_tokens=100)
        assert len(answer.receipt.attempts) == 3
        (stands,) = kit.budgets.status()
        assert stands.spent == answer.receipt.cost_nanos == 9 * 1_000 + 3 * 5_000
        assert stands.held == 0
        assert stands.violations == 0


def test_a_try_that_may_have_been_billed_is_charged_in_full(server: FaultServer) -> None:
    server.script(hang)
    with at(server) as kit:
        kit.budgets.set("1 USD")
        with pytest.raises(DeadlineExceeded) as stop:
            kit.call(biller.prompt(), max_tokens=100, deadline=0.2)
        (stands,) = kit.budgets.status()
        most = kit.plan(biller.prompt(), max_tokens=100).candidates[0].input_tokens.upper_bound
        assert stands.spent == most * 1_000 + 100 * 5_000
        assert stop.value.receipt.cost_nanos == stands.spent
        assert stop.value.receipt.reprice() == stands.spent
        assert "charged in full" in stop.value.receipt.attempts[0].notes[0]


def test_a_refused_try_costs_nothing(server: FaultServer) -> None:
    server.script(error(500))
    with at(server) as kit:
        kit.budgets.set("1 USD")
        with pytest.raises(ServerError):
            kit.call(biller.prompt(), max_tokens=100)
        assert kit.budgets.status()[0].spent == kit.budgets.status()[0].held == 0


def test_a_stopped_stream_is_charged_for_what_came(server: FaultServer) -> None:
    server.script(streamed(events(*[" the"] * 50), size=400, delay=0.01))
    with at(server) as kit:
        kit.budgets.set("1 USD")
        stream = kit.stream(biller.prompt(), max_tokens=100)
        got = ""
        for delta in stream:
            got += delta.text
            if len(got) >= 40:
                stream.close()
                break
        (stands,) = kit.budgets.status()
        assert stands.spent == stream.receipt.cost_nanos == 19_000 + 5_000 * len(got) // len(" the")
        assert stands.held == 0


def test_a_stream_past_its_bound_is_cut_by_us(server: FaultServer) -> None:
    server.script(streamed(events(*[" the"] * 2000), size=4000))
    with at(server) as kit:
        kit.budgets.set("1 USD")
        stream = kit.stream(biller.prompt(), max_tokens=40)
        text = "".join(delta.text for delta in stream)
        assert 40 <= len(text) // len(" the") < 300
        assert stream.receipt.finish_reason == "length"
        assert "cut: the provider went on past max_tokens=40" in stream.receipt.attempts[0].notes
        assert stream.receipt.status == "ok"
        assert stream.response.text == text


def test_a_provider_that_bills_more_than_it_may_is_a_violation_and_shown(server: FaultServer) -> None:
    server.script(reply(body=biller_body(500)))
    with at(server) as kit:
        kit.budgets.set("0.002 USD")
        kit.call(biller.prompt(), max_tokens=10)
        (stands,) = kit.budgets.status()
        assert stands.violations == 1
        assert stands.spent == 19_000 + 500 * 5_000
        assert "1 call cost more than was held" in str(kit.budgets.status())


def biller_body(output_tokens: int) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": "the"}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 19, "completion_tokens": output_tokens}
    return json.dumps({"id": "c", "model": "m", "choices": [choice], "usage": usage}).encode()


def test_what_cannot_be_bounded_is_refused_under_a_hard_budget(server: FaultServer) -> None:
    server.script(reply())
    with at(server, price=None) as kit:
        kit.budgets.set("1 USD")
        with pytest.raises(BudgetExceeded, match=r"no price|no known price"):
            kit.call(biller.prompt(), max_tokens=10)
        kit.budgets.remove("USD in total")
        kit.budgets.set("1000 tokens")
        assert kit.call(biller.prompt(), max_tokens=10).text
        assert kit.budgets.status()[0].spent == 12
    with at(server) as kit:
        with pytest.raises(BudgetExceeded, match="service_tier"):
            kit.call(biller.prompt(), max_tokens=10, extra={"service_tier": "priority"})
        assert len(server.requests) == 1


def test_a_journal_that_cannot_be_written_fails_closed_under_a_hard_budget(tmp_path: Path) -> None:
    (tmp_path / "tokenkit.toml").write_text('[[budget]]\nlimit = "5 USD"\nwindow = "day"\n')
    with Kit(tmp_path / "tokenkit.toml", home=tmp_path / "home", environ={"TOKENKIT_SIMULATED": "1"}) as kit:
        assert kit.call(PROMPT, max_tokens=20).text
        ruin(kit)
        with pytest.raises(BudgetExceeded, match="cannot be checked"):
            kit.call(PROMPT, max_tokens=20)
    with Kit.simulated(pace=0) as kit:
        ruin(kit)
        assert kit.call(PROMPT, max_tokens=20).text


def ruin(kit: Kit) -> None:
    kit.journal.close()
    for file in kit.home.glob("journal.sqlite3*"):
        file.unlink()
    (kit.home / "journal.sqlite3").write_bytes(b"not a database at all, for sure" * 100)


def test_budgets_are_shared_by_kernels_and_kept_and_replaced(tmp_path: Path) -> None:
    with Kit.simulated(pace=0, home=tmp_path) as one, Kit.simulated(pace=0, home=tmp_path) as two:
        one.budgets.set("1 USD", window="day")
        spent = one.call(PROMPT, max_tokens=20).receipt.cost_nanos
        assert two.budgets.status()[0].spent == spent
        two.budgets.set("0.00000001 USD", window="day")
        time.sleep(FRESH_SECONDS)  # by then every kernel knows
        with pytest.raises(BudgetExceeded):
            one.call(PROMPT, max_tokens=20)
        assert len(one.budgets) == 1
        one.budgets.remove("USD a day")
        assert two.call(PROMPT, max_tokens=20).text
        with pytest.raises(UserError, match="no budget 'USD a dya'"):
            two.budgets.remove("USD a dya")


@pytest.mark.parametrize("bad", ["much", "5 EUR", -1])
def test_a_bad_limit_is_one_clear_error_and_nothing_is_sent(kit: Kit, bad: Any) -> None:
    with pytest.raises(ConfigError, match="limit"):
        kit.call(PROMPT, budget=bad)
    with pytest.raises(ConfigError, match="limit"):
        kit.budgets.set(bad)
    with pytest.raises(UserError, match=r"no 'windw'.*window"):
        kit.budgets.set("1 USD", windw="day")
    assert sent(kit) == 0


def test_notices_come_once_each_whoever_spends(tmp_path: Path) -> None:
    heard: list[Alert] = []
    with Kit.simulated(pace=0, home=tmp_path) as one, Kit.simulated(pace=0, home=tmp_path) as two:
        for kit in (one, two):
            kit.budgets.listeners[:] = [heard.append]
        cost = one.call(PROMPT, model="sage", max_tokens=40).receipt.cost_nanos
        one.budgets.set(f"{cost * 10 / 10**9:.9f} USD", name="ten", action="warn")
        for n in range(12):
            (one if n % 2 else two).call(PROMPT, model="sage", max_tokens=40)
    assert [round(a.standing.spent / a.standing.budget.amount, 1) for a in heard] == [0.8, 1.0]
    assert str(heard[0]).startswith("Budget 'ten' has spent")


def test_a_listener_that_fails_costs_no_answer(kit: Kit, capsys: pytest.CaptureFixture[str]) -> None:
    def broken(alert: Alert) -> None:
        raise RuntimeError("no such channel")

    kit.budgets.listeners[:] = [broken]
    kit.budgets.set("0.00000001 USD", action="warn")
    assert kit.call(PROMPT, model="sage", max_tokens=20).text
    assert "A budget listener failed: RuntimeError" in capsys.readouterr().err


def test_a_webhook_is_told(server: FaultServer) -> None:
    server.script(reply(200, b"{}"))
    (server.home / "tokenkit.toml").write_text('[alerts]\nwebhook_env = "HOOK"\n')
    environ = {"TOKENKIT_SIMULATED": "1", "HOOK": f"{server.url}/hook"}
    with Kit(server.home / "tokenkit.toml", home=server.home, environ=environ) as kit:
        kit.budgets.listeners.clear()
        kit.budgets.set("0.00000001 USD", action="warn", name="tiny")
        kit.call(PROMPT, model="sage", max_tokens=20)
        until = time.monotonic() + 5
        while not server.requests and time.monotonic() < until:
            time.sleep(0.01)
    told = json.loads(server.requests[0].body)
    assert told["account"] == "tiny"
    assert told["unit"] == "nano-USD"


def test_async_calls_are_held_to_the_same_books(kit: Kit) -> None:
    kit.budgets.set("0.01 USD")

    async def crowd() -> list[Any]:
        calls = [kit.acall(PROMPT, model="sage", max_tokens=40) for _ in range(30)]
        return await asyncio.gather(*calls, return_exceptions=True)

    answers = asyncio.run(crowd())
    good = [one for one in answers if not isinstance(one, BaseException)]
    assert good
    assert all(isinstance(one, BudgetExceeded) for one in answers if isinstance(one, BaseException))
    (stands,) = kit.budgets.status()
    assert stands.spent == sum(one.receipt.cost_nanos for one in good) <= 10_000_000
    assert stands.held == 0


def test_a_hostile_name_stays_text(kit: Kit) -> None:
    kit.budgets.set("1 USD", user="<script>alert(1)</script>", name="<img src=x onerror=alert(1)>")
    shown = kit.budgets.status()._repr_html_()
    assert "<script>" not in shown
    assert "<img" not in shown


def test_budgets_read_as_configured(tmp_path: Path) -> None:
    (tmp_path / "tokenkit.toml").write_text('[[budget]]\nlimit = "5 USD"\nwindow = "day"\nuser = "alice"\n')
    with Kit(tmp_path / "tokenkit.toml", home=tmp_path, environ={"TOKENKIT_SIMULATED": "1"}) as kit:
        assert list(kit.budgets) == [Budget("5 USD", window="day", user="alice")]
        with pytest.raises(UserError, match=r"stands in tokenkit\.toml"):
            kit.budgets.remove("USD a day for user alice")
    (tmp_path / "tokenkit.toml").write_text("[[budget]]\nlimit = 1\n[[budget]]\nlimit = 2\n")
    with pytest.raises(ConfigError, match="are the same"):
        Kit(tmp_path / "tokenkit.toml", home=tmp_path, environ={"TOKENKIT_SIMULATED": "1"})


def test_a_version_2_journal_gets_its_books(tmp_path: Path) -> None:
    import sqlite3

    from tokenkit.journal import APPLICATION_ID, MIGRATIONS

    rows = sqlite3.connect(tmp_path / "journal.sqlite3")
    for statements in MIGRATIONS[:2]:
        for statement in statements:
            rows.execute(statement)
    rows.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    rows.execute("PRAGMA user_version = 2")
    rows.commit()
    rows.close()
    journal = Journal(tmp_path / "journal.sqlite3")
    assert journal.ask("SELECT count(*) FROM budgets") == [(0,)]
    journal.close()


def test_a_receipt_of_the_unknown_shows_itself(tmp_path: Path) -> None:
    with Kit.simulated(pace=0, home=tmp_path) as kit:
        kit.budgets.set("1 USD")
        stream = kit.stream(PROMPT, max_tokens=30)
        next(stream)
        assert kit.budgets.sweep(everything=True) == 1
        (lost,) = kit.budgets.unknown()
        assert lost.status == "unknown"
        assert replace(lost, id="x").to_json()
        assert "unknown" in lost._repr_html_()
        stream.close()
        assert kit.budgets.unknown() == ()
        assert tk.Receipt.from_json(lost.to_json()) == lost


def test_a_limit_of_nothing_lets_nothing_through(kit: Kit) -> None:
    kit.budgets.set(0, window="day")
    for model in ("tiny", "sage"):  # tiny is free, and still
        with pytest.raises(BudgetExceeded):
            kit.call(PROMPT, model=model, max_tokens=5)
    assert sent(kit) == 0
    with pytest.raises(ConfigError, match="not an amount"):
        kit.budgets.set("1,000")
