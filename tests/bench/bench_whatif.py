"""How far what-if replay can be trusted, on real outcomes: coverage, widths, false advice, strong calls needed.

Every model answered every prompt, so any log can be drawn and its estimates held against the truth. Needs the
evaluation data (environment variable TOKENKIT_EVALUATION_DATA); takes some four minutes.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from tokenkit.analysis.advice import advise
from tokenkit.analysis.estimates import Estimate, doubly_robust, ips, snips
from tokenkit.analysis.learning import fit, held_out
from tokenkit.analysis.wording import features_of

DATA = Path(os.environ.get("TOKENKIT_EVALUATION_DATA") or Path(__file__).parents[3] / "shared" / "data") / "routing"
LOGS, SIZES = 400, (300, 1000, 5000)


@dataclass(frozen=True)
class World:
    """All outcomes of a data set [prompts, models], best model first, and each prompt's plain measures."""

    prompts: list[str]
    outcomes: Any
    measures: Any

    @classmethod
    def read(cls, name: str) -> World:
        query = (
            f"select any_value(prompt), list(quality order by model) from '{DATA}/{name}.parquet' "
            "group by sample_id, prompt order by sample_id"
        )
        rows = duckdb.sql(query).fetchall()
        most = max(len(qualities) for _, qualities in rows)
        rows = [row for row in rows if len(row[1]) == most]
        outcomes = np.array([qualities for _, qualities in rows])
        outcomes = outcomes[:, np.argsort(-outcomes.mean(axis=0))]
        measures = np.array([features_of(prompt, 1)[2] for prompt, _ in rows])
        return cls([prompt for prompt, _ in rows], outcomes, measures)


@dataclass(frozen=True)
class Design:
    """A way to log and a target: probabilities [prompts, models] of each."""

    name: str
    world: World
    logging: Any
    target: Any

    def log(self, chance: Any, n: int) -> tuple[Any, tuple[Any, Any, Any, Any]]:
        """Draw ``n`` prompts, a model for each, and return their rows beside what an estimator is given."""
        rows = chance.integers(0, len(self.target), n)
        drawn = chance.random((n, 1)) > self.logging[rows].cumsum(axis=1)
        actions = np.minimum(drawn.sum(axis=1), self.target.shape[1] - 1)
        logged = self.logging[rows, actions]
        return rows, (actions, logged, self.target[rows], self.world.outcomes[rows, actions])


def designs() -> Iterator[Design]:
    """Yield ways to log from the easy to the hard, over all four data sets."""
    for name, label in (("routellm", "RouteLLM"), ("routerarena", "RouterArena")):
        world = World.read(name)
        n = len(world.prompts)
        best, weak = np.tile([1.0, 0.0], (n, 1)), np.tile([0.0, 1.0], (n, 1))
        long = world.measures[:, 0] > np.median(world.measures[:, 0])
        yield Design(f"{label}, p = .5, always the best", world, np.full((n, 2), 0.5), best)
        if name != "routellm":
            continue
        yield Design(f"{label}, p = .5, always the other", world, np.full((n, 2), 0.5), weak)
        yield Design(f"{label}, p = .5, best if long", world, np.full((n, 2), 0.5), np.where(long[:, None], best, weak))
        yield Design(f"{label}, p = .1, always the best", world, np.tile([0.1, 0.9], (n, 1)), best)
        share = np.clip(1 / (1 + np.exp(-1.5 * (world.measures[:, 0] - 6) / 0.7)), 0.03, 0.97)
        yield Design(f"{label}, p by length, always the best", world, np.stack([share, 1 - share], axis=1), best)
    for name, label in (("dcrouter", "DCRouter, 9 models"), ("routerbench", "RouterBench, 11 models")):
        world = World.read(name)
        n, k = world.outcomes.shape
        yield Design(f"{label}, p = 1/k, always the best", world, np.full((n, k), 1 / k), np.tile(np.eye(k)[0], (n, 1)))


def coverage() -> None:
    """Print coverage and mean width of each method, and how narrow the doubly robust one is beside IPS."""
    print(f"coverage % (mean width) of 95 % intervals over {LOGS} logs; DR/IPS = ratio of their widths")
    print(
        f"{'':50}{'N':>5} {'refused':>8} {'ips':>14} {'snips':>14} {'dr, means':>14} {'dr, features':>14} {'DR/IPS':>7}"
    )
    for design in designs():
        truth = float((design.target * design.world.outcomes).sum(axis=1).mean())
        for size in SIZES:
            made: dict[str, list[Estimate]] = {"ips": [], "snips": [], "dr, means": [], "dr, features": []}
            for seed in range(LOGS):
                rows, log = design.log(np.random.default_rng(seed), size)
                for method, one in (
                    ("ips", ips(*log)),
                    ("snips", snips(*log)),
                    ("dr, means", doubly_robust(*log)),
                    ("dr, features", doubly_robust(*log, features=design.world.measures[rows])),
                ):
                    made[method].append(one)
            known = {method: [one for one in ones if one.value is not None] for method, ones in made.items()}
            cells = {method: _cell(ones, truth) for method, ones in known.items()}
            ratio = _width(known["dr, features"]) / _width(known["ips"])
            refused = LOGS - len(known["ips"])
            print(f"{design.name:50}{size:5} {refused:8} {' '.join(f'{c:>14}' for c in cells.values())} {ratio:7.2f}")


def _width(ones: list[Estimate]) -> float:
    return float(np.mean([one.high - one.low for one in ones if one.high is not None and one.low is not None]))


def _cell(ones: list[Estimate], truth: float) -> str:
    hits = [one.low <= truth <= one.high for one in ones if one.high is not None and one.low is not None]
    return f"{100 * float(np.mean(hits)):.1f} ({_width(ones):.3f})"


def advice() -> None:
    """Print how often a switch is advised on shuffled outcomes, to a router learned out of fold from that log."""
    world = World.read("routellm")
    k = world.outcomes.shape[1]
    print("\n'switch' advised, router learned out of fold from each log (1,000 calls): shuffled, then true outcomes")
    shuffled = true = 0
    runs = 100
    for seed in range(runs):
        chance = np.random.default_rng(seed)
        rows, actions = chance.integers(0, len(world.prompts), 1000), chance.integers(0, k, 1000)
        outcomes = world.outcomes[rows, actions]
        for y in (chance.permutation(outcomes), outcomes):
            asked, names = [world.prompts[row] for row in rows], [str(action) for action in actions]
            expected = held_out(asked, names, y.tolist())
            target = np.eye(k)[[int(max(one, key=lambda name: one[name])) for one in expected]]
            verdict = advise(actions, np.full(1000, 1 / k), target, y, bounds=(0, 1)).verdict
            shuffled += verdict == "switch" and y is not outcomes
            true += verdict == "switch" and y is outcomes
    print(f"  shuffled {shuffled / runs:.1%}, true {true / runs:.1%} (the best single model is hard to beat there)")
    oracle = np.eye(k)[world.outcomes.argmax(axis=1)]
    for size in SIZES:
        found = 0
        for seed in range(runs):
            chance = np.random.default_rng(seed)
            rows, actions = chance.integers(0, len(world.prompts), size), chance.integers(0, k, size)
            y = world.outcomes[rows, actions]
            found += advise(actions, np.full(size, 1 / k), oracle[rows], y, bounds=(0, 1)).verdict == "switch"
        print(f"  to a router that is never wrong, N = {size}: {found / runs:.0%}")


def strong_calls() -> None:
    """Print the share of strong calls that keeps 95 % of the strong model's quality, held out."""
    world = World.read("routellm")
    strong, weak, n = world.outcomes[:, 0], world.outcomes[:, 1], len(world.prompts)

    def share(gains: Any) -> float:
        got = weak.sum() + np.cumsum((strong - weak)[np.argsort(-gains, kind="stable")])
        return float(np.argmax(got >= 0.95 * strong.sum()) + 1) / n

    print("\nstrong calls for 95 % of the strong model's quality, RouteLLM outcomes, 5-fold by prompt")
    print(f"  at random {np.mean([share(np.random.default_rng(i).random(n)) for i in range(20)]):.1%}, ", end="")
    print(f"oracle {share(strong - weak):.1%}")
    both = held_out(world.prompts * 2, ["s"] * n + ["w"] * n, [*strong, *weak])[:n]
    print(f"  both models rated     {share(np.array([one['s'] - one['w'] for one in both])):.1%}")
    coin = np.random.default_rng(0).integers(0, 2, n)
    one_each = held_out(world.prompts, ["sw"[c] for c in coin], np.where(coin == 0, strong, weak).tolist())
    print(f"  one rating a prompt   {share(np.array([one['s'] - one['w'] for one in one_each])):.1%}")
    _with_a_threshold(world)


def _with_a_threshold(world: World) -> None:
    """Print share and quality when the threshold too is chosen without the prompts it is judged on."""
    order = list(range(len(world.prompts)))
    random.Random(0).shuffle(order)
    third = len(order) // 3
    learn, choose, judge = order[:third], order[third : 2 * third], order[2 * third :]
    strong, weak = world.outcomes[:, 0], world.outcomes[:, 1]
    asked = [world.prompts[i] for i in learn]
    learned = fit(asked * 2, ["s"] * third + ["w"] * third, [*strong[learn], *weak[learn]])

    def gains(rows: list[int]) -> Any:
        found = [learned.predict(world.prompts[i]) for i in rows]
        return np.array([one["s"] - one["w"] for one in found])

    tried = gains(choose)
    ranked = np.argsort(-tried)
    got = weak[choose].sum() + np.cumsum((strong - weak)[choose][ranked])
    limit = tried[ranked][np.argmax(got >= 0.95 * strong[choose].sum())]
    up = gains(judge) >= limit
    kept = np.where(up, strong[judge], weak[judge]).mean() / strong[judge].mean()
    print(f"  learned, threshold chosen and judged on a third each: {up.mean():.1%} strong keep {kept:.1%} of quality")


if __name__ == "__main__":
    if not (DATA / "routellm.parquet").exists():
        sys.exit(f"No evaluation data in {DATA}: set TOKENKIT_EVALUATION_DATA to the folder that holds routing/.")
    strong_calls()
    advice()
    coverage()
