"""Estimates of another policy: they cover the truth, say when they cannot know, and do not mistake luck for gain."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenkit.analysis.advice import advise
from tokenkit.analysis.estimates import doubly_robust, ips, snips
from tokenkit.errors import UserError

DATA = Path(os.environ.get("TOKENKIT_EVALUATION_DATA") or Path(__file__).parents[2] / "shared" / "data")
METHODS = {"ips": ips, "snips": snips, "doubly_robust": doubly_robust}


def world(seed, n, *, propensity=0.5, effect=0.15):
    """Two models, a rating of 0 or 1 for both, one feature that tells a little of it; columns as a log has them."""
    chance = np.random.default_rng(seed)
    x = chance.normal(size=n)
    share = np.clip(0.6 + 0.15 * x[:, None] + np.array([effect, 0.0]), 0, 1)
    both = (chance.random((n, 2)) < share).astype(float)
    actions = (chance.random(n) >= propensity).astype(int)
    logged = np.where(actions == 0, propensity, 1 - propensity)
    return x, both, actions, logged


def always(model, n, k=2):
    return np.tile(np.eye(k)[model], (n, 1))


def coverage(estimate, truth, logs):
    made = [estimate(*log) for log in logs]
    known = [one for one in made if one.value is not None]
    assert len(known) > 0.9 * len(made)
    return np.mean([one.low <= truth <= one.high for one in known])


@pytest.mark.parametrize("propensity", [0.5, 0.1], ids=["even", "heavy weights"])
@pytest.mark.parametrize("name", METHODS)
def test_intervals_cover_the_truth(name, propensity):
    logs = []
    for seed in range(1000):
        _, both, actions, logged = world(seed, 300, propensity=propensity)
        logs.append((actions, logged, always(0, 300), both[np.arange(300), actions]))
    truth = world(10**6, 400_000)[1][:, 0].mean()
    # Of 1,000 logs a true 95 % gives 92.9 to 97.1 but for 2 runs in 1,000. Measured over 3,000 logs: 94.9 to 96.3.
    assert 0.92 <= coverage(METHODS[name], truth, logs) <= 0.98


def test_ips_covers_where_single_calls_weigh_much_in_a_small_log():
    """With a normal quantile 91.4 % here: a spread that rests on a few heavy calls is itself hardly known."""
    logs = []
    for seed in range(1500):
        chance = np.random.default_rng(seed)
        x, both, _, _ = world(seed, 300)
        share = np.clip(1 / (1 + np.exp(2 * x)), 0.03, 0.97)  # the prompts that the target does best at are tried least
        actions = (chance.random(300) >= share).astype(int)
        logged = np.where(actions == 0, share, 1 - share)
        logs.append((actions, logged, always(0, 300), both[np.arange(300), actions]))
    truth = world(10**6, 400_000)[1][:, 0].mean()
    assert 0.925 <= coverage(ips, truth, logs) <= 0.98


@pytest.mark.parametrize("name", METHODS)
def test_intervals_cover_the_mean_of_a_long_tailed_cost(name):
    logs = []
    for seed in range(300):
        chance = np.random.default_rng(seed)
        actions = chance.integers(0, 2, 1000)
        logs.append((actions, np.full(1000, 0.5), always(1, 1000), np.exp(chance.normal(size=1000))))
    assert 0.92 <= coverage(METHODS[name], np.exp(0.5), logs) <= 0.98


def test_outcomes_unknown_more_often_for_one_model_bias_nothing():
    values = {name: [] for name in METHODS}
    for seed in range(60):
        _, both, actions, logged = world(seed, 1000)
        y = both[np.arange(1000), actions]
        y[np.random.default_rng(seed).random(1000) > np.where(actions == 0, 0.7, 0.2)] = np.nan
        for name, method in METHODS.items():
            values[name].append(method(actions, logged, np.full((1000, 2), 0.5), y))
    truth = world(10**6, 400_000)[1].mean()
    for made in values.values():
        assert abs(np.mean([one.value for one in made]) - truth) < 0.015
        assert np.mean([one.low <= truth <= one.high for one in made]) >= 0.88  # of 60 logs
        assert all(one.n < 600 for one in made)


def test_doubly_robust_is_narrower_than_ips_and_features_help():
    x, both, actions, logged = world(3, 1000)
    log = (actions, logged, always(0, 1000), both[np.arange(1000), actions])
    wide, narrow = ips(*log), doubly_robust(*log, features=x[:, None])
    assert narrow.high - narrow.low <= 0.7 * (wide.high - wide.low)
    told = doubly_robust(*log, predictions=both)
    assert told.high - told.low < narrow.high - narrow.low


def test_a_wrong_prediction_costs_width_not_truth():
    off = []
    for seed in range(60):
        _, both, actions, logged = world(seed, 1000)
        y = both[np.arange(1000), actions]
        off.append(doubly_robust(actions, logged, always(0, 1000), y, predictions=np.full((1000, 2), -3.0)).value)
    assert abs(np.mean(off) - world(10**6, 400_000)[1][:, 0].mean()) < 0.03


@pytest.mark.parametrize("name", METHODS)
class TestRefusals:
    def test_a_model_never_tried_has_no_estimate(self, name):
        made = METHODS[name](np.zeros(500, int), np.ones(500), always(1, 500), np.ones(500))
        assert made.value is made.low is made.high is None
        assert made.n_eff == 0
        assert "N_eff 0.0" in made.reason
        assert "overlap" in made.reason

    def test_a_log_that_never_explored_refuses_what_it_chose_elsewhere(self, name):
        actions = np.arange(1000) % 2
        target = np.eye(2)[np.where(np.arange(1000) % 4 < 2, 0, 1)]
        made = METHODS[name](actions, np.ones(1000), target, np.linspace(0, 1, 1000))
        assert made.value is None
        assert "50%" in made.reason

    def test_too_few_effective_calls(self, name):
        actions = np.r_[np.zeros(4, int), np.ones(396, int)]
        made = METHODS[name](actions, np.where(actions == 0, 0.01, 0.99), always(0, 400), np.ones(400))
        assert made.value is None
        assert made.n_eff == pytest.approx(4)

    def test_wrong_propensities_are_noticed(self, name):
        actions = np.arange(1000) % 2
        made = METHODS[name](actions, np.full(1000, 0.2), always(0, 1000), np.linspace(0, 1, 1000))
        assert made.value is None
        assert "propensities are wrong" in made.reason

    def test_no_outcome_known(self, name):
        assert METHODS[name](np.zeros(9, int), np.ones(9), always(0, 9), np.full(9, np.nan)).value is None

    def test_an_empty_log(self, name):
        assert METHODS[name](np.zeros(0, int), np.ones(0), np.zeros((0, 3)), np.zeros(0)).value is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"actions": np.full(20, 2)}, "whole numbers from 0 to 1"),
        ({"actions": np.zeros(20)}, "whole numbers"),
        ({"propensities": np.zeros(20)}, "propensities must be above 0"),
        ({"propensities": np.full(20, np.nan)}, "propensities must be above 0"),
        ({"target": np.full((20, 2), 0.7)}, "sum 1"),
        ({"target": np.full(20, 1.0)}, "disagree"),
        ({"outcomes": np.full(20, np.inf)}, "finite"),
        ({"outcomes": np.full(20, 5.0), "bounds": (0, 1)}, "outside bounds"),
        ({"outcomes": np.ones(19)}, "disagree"),
    ],
)
def test_arrays_that_make_no_sense_are_named(change, said):
    sound = {
        "actions": np.zeros(20, int),
        "propensities": np.ones(20),
        "target": always(0, 20),
        "outcomes": np.ones(20),
    }
    with pytest.raises(UserError, match=said):
        snips(**(sound | change))


@given(
    st.integers(20, 80).flatmap(
        lambda n: st.tuples(
            st.lists(st.integers(0, 2), min_size=n, max_size=n),
            st.lists(st.floats(0.25, 0.4), min_size=n, max_size=n),
            st.lists(st.sampled_from([0.0, 0.25, 1.0, float("nan")]), min_size=n, max_size=n),
            st.lists(st.tuples(*[st.floats(0.01, 1)] * 3), min_size=n, max_size=n),
        )
    ),
    st.sampled_from(sorted(METHODS)),
)
@settings(max_examples=150, deadline=None)
def test_an_estimate_is_whole_or_refused_with_a_reason(arrays, name):
    actions, logged, outcomes, raw = (np.array(part) for part in arrays)
    made = METHODS[name](actions, logged, raw / raw.sum(axis=1, keepdims=True), outcomes, bounds=(0, 1))
    assert made.n == int((~np.isnan(outcomes)).sum())
    assert 0 <= made.n_eff <= made.n + 1e-9
    if made.value is None:
        assert made.low is made.high is None
        assert "N_eff" in made.reason
    else:
        assert 0 <= made.low <= made.value <= made.high <= 1


def test_all_alike_is_not_certain():
    made = snips(np.zeros(20, int), np.ones(20), always(0, 20), np.ones(20), bounds=(0, 1))
    assert made.value == made.high == 1
    assert 0.75 < made.low < 0.9  # Wilson's for 20 of 20 is 0.84; Student's quantile makes it a little wider


def test_snips_is_unmoved_by_a_constant():
    _, both, actions, logged = world(1, 400)
    y, target = both[np.arange(400), actions], np.tile([0.3, 0.7], (400, 1))
    assert snips(actions, logged, target, y + 7).value == pytest.approx(snips(actions, logged, target, y).value + 7)


class TestAdvice:
    def log(self, seed, gain, n=1000):
        """Model 0 is better where x is positive, model 1 elsewhere; the target knows it."""
        chance = np.random.default_rng(seed)
        x = chance.normal(size=n)
        right = (x <= 0).astype(int)
        actions = chance.integers(0, 2, n)
        y = (chance.random(n) < 0.5 + gain * np.where(actions == right, 1, -1)).astype(float)
        return actions, np.full(n, 0.5), np.eye(2)[right], y

    def test_a_real_gain_is_found(self):
        made = advise(*self.log(1, 0.2), names=["big", "small"])
        assert made.verdict == "switch"
        assert made.gain.low > 0
        assert made.gain.low <= 0.2 <= made.gain.high
        assert "It beats always" in made.reason
        assert [one.n for one in made.singles] == [1000, 1000]
        assert made.current.value == pytest.approx(self.log(1, 0.2)[3].mean())

    def test_shuffled_outcomes_are_not_a_gain(self):
        switched = 0
        for seed in range(150):
            actions, logged, target, y = self.log(seed, 0.3, 300)
            switched += advise(actions, logged, target, np.random.default_rng(seed).permutation(y)).verdict == "switch"
        assert switched <= 7  # 5 %

    def test_the_best_single_model_is_not_beaten_by_itself(self):
        _, both, actions, logged = world(2, 2000, effect=0.3)
        made = advise(actions, logged, always(0, 2000), both[np.arange(2000), actions], names=["big", "small"])
        assert made.verdict == "stay"
        assert made.best == 0
        assert "always big" in made.reason

    def test_better_than_every_model_but_not_than_today(self):
        chance = np.random.default_rng(5)
        x = chance.normal(size=4000)
        right, half = (x <= 0).astype(int), np.where(np.abs(x) > 0.3, (x <= 0), (x > 0)).astype(int)
        actions = np.where(chance.random(4000) < 0.9, right, 1 - right)
        logged = np.where(actions == right, 0.9, 0.1)
        y = (chance.random(4000) < np.where(actions == right, 0.9, 0.3)).astype(float)
        made = advise(actions, logged, np.eye(2)[half], y)
        assert made.gain.low > 0
        assert made.verdict == "stay"
        assert "the policy that made the log" in made.reason

    def test_many_targets_tried_ask_for_more(self):
        once, often = advise(*self.log(3, 0.2)), advise(*self.log(3, 0.2), tried=50)
        assert often.gain.low < once.gain.low

    def test_no_overlap_is_said(self):
        made = advise(np.zeros(100, int), np.ones(100), always(1, 100), np.linspace(0, 1, 100))
        assert made.verdict == "stay"
        assert made.gain.value is None
        assert "N_eff" in made.reason

    def test_a_model_hardly_logged_is_named(self):
        actions, logged, target, y = self.log(1, 0.3)
        target = np.c_[target, np.zeros(1000)]
        made = advise(actions, logged, target, y, names=["a", "b", "rare"])
        assert made.verdict == "switch"
        assert "too few calls in the log: rare" in made.reason


def test_real_outcomes_are_covered():
    table = DATA / "routing" / "routellm.parquet"
    if not table.exists():
        pytest.skip(f"no evaluation data at {table}; set TOKENKIT_EVALUATION_DATA")
    import duckdb

    rows = duckdb.sql(f"select list(quality order by model) from '{table}' group by sample_id order by sample_id")
    both = np.array([row[0] for row in rows.fetchall()])
    chance = np.random.default_rng(0)
    covered = dict.fromkeys(METHODS, 0)
    for _ in range(200):
        y = both[chance.integers(0, len(both), 1000)]
        actions = chance.integers(0, 2, 1000)
        for name, method in METHODS.items():
            made = method(actions, np.full(1000, 0.5), always(0, 1000), y[np.arange(1000), actions])
            covered[name] += made.low <= both[:, 0].mean() <= made.high
    assert all(182 <= hits <= 198 for hits in covered.values()), covered
