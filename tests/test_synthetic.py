"""The synthetic history: the same for the same seed, labelled everywhere, and good to analyse."""

from __future__ import annotations

from pathlib import Path

import pytest

from tokenkit import Kit
from tokenkit.cli import main
from tokenkit.errors import UserError
from tokenkit.ledger.synthetic import write_history


def test_a_history_is_seeded_labelled_and_adds_up(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_history(tmp_path / name, 5_000, seed=seed, until=1_790_000_000)
    sums = []
    for name in "abc":
        with Kit.synthetic(home=tmp_path / name) as kit:
            found = kit.ledger.sql(
                "select count(*) as calls, sum(cost_nanos) as cost, sum(hash(calls))::varchar as all_of_it,"
                " count(*) filter (imported = 'synthetic' and model like 'synthetic/%') as labelled,"
                " count(*) filter (status = 'error') as failed, count(*) filter (tries = 2) as escalated from calls"
            ).iloc[0]
            assert found["calls"] == found["labelled"] == 5_000
            assert 0 < found["failed"] < 100
            assert found["escalated"] > 0
            sums.append((found["cost"], found["all_of_it"]))
            per_try = kit.ledger.sql("select sum(cost_nanos) as cost, count(*) as n from attempts").iloc[0]
            assert per_try["cost"] == found["cost"]
            assert per_try["n"] == 5_000 + found["escalated"]
    assert sums[0] == sums[1] != sums[2]


def test_it_can_be_replayed_and_its_truth_found(tmp_path: Path) -> None:
    with Kit.synthetic(20_000, home=tmp_path) as kit:
        same = kit.replay(policy=None)
        assert same.slider.cube.skipped == 0
        assert kit.replay(models=["large"]).estimate().value == pytest.approx(0.85, abs=0.06)
        assert kit.replay(models=["medium"]).estimate().value == pytest.approx(0.79, abs=0.06)
        rates = kit.reprice()
        assert rates.unknown == 0
        assert kit.call("Hello", max_tokens=5).text
        assert len(kit.ledger.sql("select seq from calls")) == 20_001
        assert kit.ledger.verify()


def test_the_command_writes_one_and_never_over_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["demo", "--history", "2e3"]) == 0
    assert "2,000 synthetic calls" in capsys.readouterr().out
    assert main(["demo", "--history", "10"]) == 2
    assert "is there already" in capsys.readouterr().err
    for bad in ("many", "0.5", "0", "1e99"):
        assert main(["demo", "--history", bad, "--home", "other"]) == 2
    with Kit.synthetic(home=tmp_path / "tokenkit-history") as kit:
        assert len(kit.ledger.df()) == 2_000
    with pytest.raises(UserError, match="is there already"):
        write_history(tmp_path / "tokenkit-history", 5)
