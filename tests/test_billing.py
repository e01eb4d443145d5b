"""Billing truth: a mixed day to the nano-USD, history at other prices, exports, price tables, spikes."""

from __future__ import annotations

import io
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from faults import FaultServer, error, reply
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tokenkit import Kit, widgets
from tokenkit.catalog import Model
from tokenkit.errors import TokenkitError, UserError
from tokenkit.pricing import PriceRule, flat, resolve
from tokenkit.pricing.rules import Rates
from tokenkit.providers import anthropic, gemini, openai
from tokenkit.receipts import Attempt, Receipt, new_id
from tokenkit.types import Usage

TIERED = PriceRule(
    "user",
    "tiered",
    (Rates(0, 2_500_000_000, 10_000_000_000, 1_250_000_000), Rates(1000, 5_000_000_000, 20_000_000_000, 2_000_000_000)),
)
DEAR = flat("user", "dear", input=3, output=15, cache_read="0.3", cache_creation="3.75")
THINKS = flat("user", "thinks", input="0.3", output="2.5", cache_read="0.075", reasoning="3.5")


def write(kit: Kit, model: str, usage: Usage, price: PriceRule | None, at: int, **fields: Any) -> None:
    paid = None if price is None else price.receipt(usage.input_tokens, at)
    cost = None if paid is None else paid.cost(usage)
    provider = model.partition("/")[0]
    attempt = Attempt(model, provider, at, usage=usage, cost_nanos=cost, price=paid, **fields)
    kit.journal.write(
        Receipt(
            new_id(),
            at,
            0.1,
            "ok",
            model,
            model,
            provider,
            usage=usage,
            cost_nanos=cost,
            price=paid,
            attempts=(attempt,),
        )
    )


@pytest.fixture
def kit() -> Iterator[Kit]:
    with Kit.simulated(pace=0) as made:
        yield made


def test_a_mixed_day_is_the_billers_book_to_the_nano_usd(tmp_path: Path) -> None:
    """Three dialects; cached, written, reasoning, tiered, partial and failed: added up by hand in whole numbers."""
    with FaultServer() as server:
        providers = [
            openai.provider(name="a", base_url=f"{server.url}/v1", key=None),
            anthropic.provider(name="b", base_url=server.url, key=None),
            gemini.provider(name="c", base_url=server.url, key=None),
        ]
        models = [
            Model("a", "tiered", price=TIERED, context_window=100_000),
            Model("b", "dear", price=DEAR, context_window=100_000),
            Model("c", "thinks", price=THINKS, context_window=100_000),
        ]
        book = 0
        with Kit(home=tmp_path, providers=providers, models=models, environ={}) as kit:
            choice = '{"id":"x","model":"m","choices":[{"message":{"content":"Hi"},"finish_reason":"stop"}],"usage":%s}'

            def openai_says(usage: str) -> Any:
                return reply(body=(choice % usage).encode())

            server.script(
                openai_says('{"prompt_tokens":900,"completion_tokens":7,"prompt_tokens_details":{"cached_tokens":800}}')
            )
            kit.call("hi", model="a/tiered", max_tokens=20)
            book += 100 * 2_500 + 800 * 1_250 + 7 * 10_000
            server.script(openai_says('{"prompt_tokens":1200,"completion_tokens":3}'))
            kit.call("hi", model="a/tiered", max_tokens=20)
            book += 1200 * 5_000 + 3 * 20_000
            message = (
                '{"id":"m","type":"message","role":"assistant","model":"d","content":[{"type":"text","text":"Hi"}],'
                '"stop_reason":"end_turn","usage":{"input_tokens":11,"cache_read_input_tokens":2000,'
                '"cache_creation_input_tokens":300,"output_tokens":5}}'
            )
            server.script(error(500), reply(body=message.encode()))
            kit.call("hi", model="b/dear", max_tokens=20)
            book += 11 * 3_000 + 2000 * 300 + 300 * 3_750 + 5 * 15_000
            said = (
                '{"candidates":[{"content":{"parts":[{"text":"Hi"}]},"finishReason":"STOP"}],"usageMetadata":'
                '{"promptTokenCount":50,"cachedContentTokenCount":40,"candidatesTokenCount":4,"thoughtsTokenCount":6}}'
            )
            server.script(reply(body=said.encode()))
            kit.call("hi", model="c/thinks", max_tokens=20)
            book += 10 * 300 + 40 * 75 + 4 * 2_500 + 6 * 3_500
            server.script(error(400))
            with pytest.raises(TokenkitError):
                kit.call("hi", model="a/tiered", max_tokens=20)
            receipts = [entry.receipt for entry in kit.journal.rows()]
            assert sum(receipt.cost_nanos or 0 for receipt in receipts) == book
            total = kit.ledger.sql("select sum(cost_nanos) as nanos from attempts").iloc[0]["nanos"]
            assert total == book
            assert sum(receipt.reprice() or 0 for receipt in receipts) == book
            same = kit.reprice()
            assert same.now == same.was == Decimal(book) / 10**9


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.integers(0, 3000), st.integers(0, 500), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1)),
        min_size=1,
        max_size=12,
    ),
    st.sampled_from([TIERED, DEAR, THINKS]),
)
def test_a_repriced_history_is_exact_to_the_nano_usd(rows: list[Any], price: PriceRule) -> None:
    with Kit.simulated(pace=0) as kit:
        expected = 0
        for size, answer, read, made, thought in rows:
            reads = int(size * read)
            usage = Usage(size, answer, reads, int((size - reads) * made), int(answer * thought))
            write(kit, "x/m", usage, flat("user", "m", input=1, output=1), 1_790_000_000 * 10**9)
            cost = price.receipt(size).cost(usage)
            assert cost is not None
            expected += cost
        found = kit.reprice(prices={"x/m": price})
        assert found.now == Decimal(expected) / 10**9
        assert found.unknown == 0


def test_repricing_says_what_it_left_out_and_takes_profiles_and_moments(kit: Kit) -> None:
    now = 1_790_000_000 * 10**9
    write(kit, "openai/gpt-4o", Usage(1000, 1000), resolve("openai", "gpt-4o"), now)
    write(kit, "nobody/knows", Usage(1000, 1000), None, now)
    then = kit.reprice(at=datetime(2026, 1, 1, tzinfo=UTC))
    assert then.unknown == 1
    assert then.was is not None
    assert then.was > 0
    assert "1 tries without a price left out" in repr(then)
    assert "nobody/knows" in then._repr_html_()
    assert kit.reprice(prices="seed-2024").now is not None
    with pytest.raises(UserError, match="not both"):
        kit.reprice(at=datetime(2026, 1, 1, tzinfo=UTC), prices="seed-2024")
    assert len(then.df()) == 2


def test_a_cost_of_a_failed_try_stays_nothing(kit: Kit) -> None:
    kit.journal.write(
        Receipt(
            new_id(), 1, 0.1, "error", "x/m", "x/m", "x", cost_nanos=0,
            attempts=(Attempt("x/m", "x", 1, status="error", cost_nanos=0),),
        )
    )  # fmt: skip
    found = kit.reprice(prices={"x/m": DEAR})
    assert (found.now, found.unknown) == (Decimal(0), 0)


# Exports.

DAY = int(datetime(2026, 9, 22, 12, tzinfo=UTC).timestamp()) * 10**9


def logged(kit: Kit) -> None:
    price = flat("user", "m", input=3, output=15)
    write(kit, "openai/gpt-4o", Usage(1000, 100), price, DAY, response_model="gpt-4o-2024-08-06")
    write(kit, "openai/gpt-4o", Usage(500, 50), price, DAY + 10**9, response_model="gpt-4o-2024-08-06")
    write(kit, "anthropic/claude", Usage(2000, 10), price, DAY)


def test_an_export_that_agrees_agrees(kit: Kit) -> None:
    logged(kit)
    export = (
        "usage_date_utc,model_version,usage_input_tokens_no_cache,usage_input_tokens_cache_read,usage_output_tokens\n"
        "2026-09-22,gpt-4o-2024-08-06,1000,500,150\n2026-09-22,claude,2000,0,10\n"
    )
    found = kit.reconcile(io.StringIO(export))
    assert found, found.df()
    assert "all agree" in repr(found)


def test_every_difference_is_listed_and_named(kit: Kit) -> None:
    logged(kit)
    export = (
        "start_time,model,input_tokens,output_tokens,cost\n1790078400,gpt-4o,1500,170,1.00\n1790078400,o3,5,5,0.01\n"
    )
    found = kit.reconcile(io.StringIO(export))
    verdicts = dict(zip(found.df()["model"], found.df()["verdict"], strict=True))
    assert verdicts["gpt-4o"].startswith("differs: output tokens by +20, cost by +0.99")
    assert verdicts["o3"] == "not in the ledger"
    assert verdicts["claude"] == "not in the export"
    assert len(found.differences) == 3
    assert "differs" in found._repr_html_()
    assert kit.reconcile(io.StringIO(export), provider="openai").df()["model"].tolist() == ["gpt-4o", "o3"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b\n1,2\n", "no column for day"),
        ("date,model\n2026-09-22,x\n", "no column for input_tokens, output_tokens or cost"),
        ("date,model,cost\nyesterday,x,1\n", "line 2: 'yesterday' is not a date"),
        ("date,model,cost\n2026-09-22,x,lots\n", "line 2: cost is 'lots'"),
        ("", "cannot be read as CSV"),
    ],
)
def test_a_bad_export_is_one_clear_error(kit: Kit, text: str, said: str) -> None:
    logged(kit)
    with pytest.raises(UserError, match=said):
        kit.reconcile(io.StringIO(text))


def test_columns_may_be_named_and_a_missing_file_said(kit: Kit, tmp_path: Path) -> None:
    logged(kit)
    file = tmp_path / "export.csv"
    file.write_text("When,What,Dollars\n2026-09-22,gpt-4o,0.00675\n2026-09-22,claude,0.00615\n")
    assert kit.reconcile(file, columns={"day": "When", "model": "What", "cost": "Dollars"})
    with pytest.raises(UserError, match="no column 'Wann'"):
        kit.reconcile(file, columns={"day": "Wann", "model": "What", "cost": "Dollars"})
    with pytest.raises(UserError, match="no file"):
        kit.reconcile(tmp_path / "none.csv")


# Price tables, totals, spikes.


def test_price_tables_are_compared_rate_by_rate(tmp_path: Path) -> None:
    mine = flat("user", "gpt-4o", input=1, output=10, cache_read="1.25")
    provider = openai.provider(name="openai", base_url="http://127.0.0.1:9/v1", key=None)
    models = [Model("openai", "gpt-4o", price=mine), Model("openai", "house-model", price=mine)]
    with Kit(home=tmp_path, providers=[provider], models=models, environ={}) as kit:
        frame = kit.compare_prices()
    rows = {(row.model, row.rate): (row.here, row.published) for row in frame.itertuples()}
    assert rows["openai/gpt-4o", "input"] == (1.0, 2.5)
    assert ("openai/gpt-4o", "output") not in rows
    assert rows["openai/house-model", "input"][0] == 1.0


def test_the_summary_adds_up(kit: Kit) -> None:
    assert "$0 today" in repr(kit.summary())
    cost = kit.call("hello", max_tokens=20, user="<b>alice</b>").receipt.cost_nanos
    found = kit.summary()
    assert found.today == found.month == cost
    assert set(found.by) == {"provider", "model", "user", "endpoint"}
    assert "<b>alice" not in found._repr_html_()


def test_a_spike_is_flagged_and_ordinary_hours_are_not(kit: Kit) -> None:
    price = flat("user", "m", input=1, output=1)
    for hour in range(40):
        size = 1000 + 37 * (hour % 5) + (20_000 if hour == 30 else 0)
        write(kit, "x/m", Usage(size, 0), price, DAY + hour * 3600 * 10**9)
    flagged = kit.spikes()
    assert len(flagged) == 1
    assert flagged.iloc[0]["z"] > 50
    assert len(kit.spikes(z=0.5)) > 1
    assert len(kit.spikes(by="day")) == 0
    with pytest.raises(UserError, match="by 'hour' or by 'day'"):
        kit.spikes(by="minute")


def test_an_hour_of_unusual_spend_is_told_without_being_asked(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    rows = [
        {"id": f"r{hour}", "started_at": (now - timedelta(hours=hour)).isoformat(), "model": "p/m", "cost_usd": cost}
        for hour, cost in enumerate([0.011, 0.009, 4.2, 0.012, 0.01, 0.011, 0.01, 0.009, 0.012, 0.01])
    ]
    with Kit.simulated(pace=0, home=tmp_path) as kit:
        kit.ledger.import_(rows)
        said = kit.summary().unusual
        assert "Unusual spend in the last week: $4.2" in said
        assert "times the usual hour" in said
        assert "Unusual spend" in kit.summary()._repr_html_()
        assert "Unusual spend" in widgets.spend(kit).body
        kit.ledger.retain(0)
        assert kit.summary().unusual == ""
