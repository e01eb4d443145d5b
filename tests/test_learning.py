"""A learned policy: it finds which model is good at what, says the same everywhere, and saves strong calls held out."""

from __future__ import annotations

import json
import math
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tokenkit as tk
from tokenkit.analysis.learning import Learned, fit, held_out
from tokenkit.analysis.wording import DENSE, READ_AT_EACH_END, features_of
from tokenkit.catalog import Model
from tokenkit.errors import UserError
from tokenkit.money import rate_per_million
from tokenkit.pricing import PriceRule
from tokenkit.route import Policy, plan
from tokenkit.types import Message, Request, TokenCount

DATA = Path(os.environ.get("TOKENKIT_EVALUATION_DATA") or Path(__file__).parents[2] / "shared" / "data")
THINGS = ["river", "stone", "market", "garden", "winter", "letter", "window", "bridge", "engine", "coffee", "paper"]


def prompts(n, seed=0):
    """Half ask for sums, half for poems, about things at random."""
    chance = random.Random(seed)
    made = []
    for i in range(n):
        thing, other = chance.sample(THINGS, 2)
        sums = i % 2 == 0
        made.append(f"Compute {chance.randrange(99)} + {chance.randrange(99)} for the {thing}" if sums else
                    f"Write a poem of the {thing} and the {other}")  # fmt: skip
    return made


def rated(n, seed=0):
    """`counts` is good at sums, `sings` at poems: 0.9 against 0.3, drawn as thumbs up or down."""
    chance, rows = random.Random(seed), []
    for prompt in prompts(n, seed):
        for model in ("lab/counts", "lab/sings"):
            good = prompt.startswith("Compute") == (model == "lab/counts")
            rows.append((prompt, model, float(chance.random() < (0.9 if good else 0.3))))
    return [list(column) for column in zip(*rows, strict=True)]


def model(name, usd_per_million):
    price = None
    if usd_per_million is not None:
        rates = (rate_per_million(str(usd_per_million)), rate_per_million(str(usd_per_million)))
        price = PriceRule("user", name, ((0, *rates, None, None, None),))
    return Model("lab", name, 5.0, price, 128_000, 4_000)


def first(learned, prompt, models, trade_off=1.0):
    request = Request((Message("user", prompt),))
    made = plan(request, models, count=lambda m: TokenCount(9, True, "x"), policy=Policy(learned.policy(trade_off)))
    return made.candidates[0].model


def test_it_learns_which_model_is_good_at_what():
    learned = fit(*rated(300))
    sums, poem = learned.predict("Compute 3 + 44 for the train"), learned.predict("Write a poem of the train")
    assert sums["lab/counts"] - sums["lab/sings"] > 0.2
    assert poem["lab/sings"] - poem["lab/counts"] > 0.2
    assert learned.ratings == (300, 300)


def test_it_routes_and_weighs_cost():
    learned = fit(*rated(300))
    both = [model("counts", 500), model("sings", 1)]
    assert first(learned, "Compute 1 + 1 for the bridge", both, 0) == "lab/counts"
    assert first(learned, "Write a poem of the bridge", both, 0) == "lab/sings"
    # 0.5 USD per 1,000 tokens at a trade-off of 2 costs a whole point of rating: more than any answer is better.
    assert first(learned, "Compute 1 + 1 for the bridge", both, 2) == "lab/sings"
    assert Policy(learned.policy()).name == "learned"


def test_what_it_does_not_know_comes_last():
    learned = fit(*rated(100))
    assert first(learned, "Compute 1 + 1", [model("stranger", 1), model("sings", 1)]) == "lab/sings"
    assert first(learned, "Compute 1 + 1", [model("counts", None), model("sings", 1)]) == "lab/sings"
    assert first(learned, "Compute 1 + 1", [model("counts", None), model("sings", 1)], 0) == "lab/counts"


def test_models_may_be_rated_by_name_alone():
    asked, models, qualities = rated(200)
    learned = fit(asked, [name.split("/")[1] for name in models], qualities)
    assert first(learned, "Compute 1 + 1 for the bridge", [model("sings", 1), model("counts", 1)]) == "lab/counts"


def test_three_thumbs_up_do_not_win_the_day():
    asked, models, qualities = rated(300)
    learned = fit([*asked, "a", "b", "c"], [*models, *["new"] * 3], [*qualities, 1, 1, 1])
    expected = learned.predict("Compute 3 + 44 for the train")
    assert expected["new"] < expected["lab/counts"]


def test_unrated_calls_teach_nothing():
    asked, models, qualities = rated(50)
    more = fit([*asked, "x", "y"], [*models, "lab/counts", "other"], [*qualities, None, math.nan])
    less = fit(asked, models, qualities)
    assert more.models == less.models
    assert more.predict("Compute it") == less.predict("Compute it")


def test_saved_and_loaded_it_predicts_the_same_to_the_last_bit(tmp_path):
    learned = fit(*rated(100))
    path = learned.save(tmp_path / "policy.json")
    loaded = Learned.load(path)
    assert repr(loaded) == repr(learned)
    for prompt in prompts(20, seed=9):
        assert loaded.predict(prompt) == learned.predict(prompt)
    assert list(tmp_path.iterdir()) == [path]
    assert not any(thing in path.read_text() for thing in THINGS)


def test_another_process_learns_the_same(tmp_path):
    ours = fit(*rated(60)).save(tmp_path / "ours.json")
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from test_learning import fit, rated; "
        "fit(*rated(60)).save(sys.argv[2])"
    )
    theirs = tmp_path / "theirs.json"
    environment = {**os.environ, "PYTHONHASHSEED": "77"}
    subprocess.run([sys.executable, "-c", code, str(Path(__file__).parent), str(theirs)], check=True, env=environment)
    a, b = json.loads(ours.read_text()), json.loads(theirs.read_text())
    assert a["models"] == b["models"]
    # A sum may be taken in another order on another number of cores: the sixth digit may differ.
    assert (
        max(abs(x - y) for m, n in zip(a["weights"], b["weights"], strict=True) for x, y in zip(m, n, strict=True))
        < 1e-5
    )


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "does not hold"),
        ("[]", "does not hold"),
        ('{"format": "other"}', "its format is 'other'"),
        ('{"format": "tokenkit learned policy 1"}', "missing"),
        ("shape", "wrong shape"),
        ("nan", "not finite"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, content, said):
    path = tmp_path / "policy.json"
    if content in ("shape", "nan"):
        whole = json.loads(fit(*rated(20), dim=8).save(path).read_text())
        whole["weights"][0] = whole["weights"][0][1:] if content == "shape" else [math.nan] * (8 + DENSE)
        whole["weights"] = whole["weights"][:1] if content == "shape" else whole["weights"]
        content = json.dumps(whole)
    path.write_text(content)
    with pytest.raises(UserError, match=said) as caught:
        Learned.load(path)
    assert "policy.json" in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match="could not be read"):
        Learned.load(tmp_path / "nowhere.json")


@pytest.mark.parametrize(
    ("arguments", "options", "said"),
    [
        ((["a"], ["m"], []), {}, "equally many"),
        (([], [], []), {}, "Nothing is rated"),
        ((["a"], ["m"], [None]), {}, "Nothing is rated"),
        ((["a"], ["m"], [math.inf]), {}, "finite"),
        ((["a"], ["m"], [1.0]), {"l2": 0}, "l2 above 0"),
        ((["a"], ["m"], [1.0]), {"dim": 0}, "dim must be"),
    ],
)
def test_what_cannot_be_learned_from_is_said(arguments, options, said):
    with pytest.raises(UserError, match=said):
        fit(*arguments, **options)


@pytest.mark.parametrize("trade_off", [-1, math.nan, math.inf])
def test_a_trade_off_makes_sense_or_is_refused(trade_off):
    with pytest.raises(UserError, match="trade_off"):
        fit(["a"], ["m"], [1.0]).policy(trade_off)


@given(st.text(max_size=300), st.integers(1, 5000))
@settings(max_examples=200, deadline=None)
def test_any_text_has_features(text, dim):
    places, values, dense = features_of(text, dim)
    assert len(places) == len(set(places)) == len(values)
    assert all(0 <= place < dim for place in places)
    assert len(dense) == DENSE
    assert all(math.isfinite(measure) for measure in dense)
    assert math.fsum(value * value for value in values) == pytest.approx(1 if values else 0)


@given(st.lists(st.tuples(st.text(max_size=20), st.sampled_from("abc"), st.floats(0, 1)), min_size=1, max_size=30))
@settings(max_examples=60, deadline=None)
def test_predictions_stay_near_the_ratings(rows):
    learned = fit(*(list(column) for column in zip(*rows, strict=True)), dim=64)
    for prompt, _, _ in rows:
        assert all(-1 <= value <= 2 for value in learned.predict(prompt).values())


def test_strange_text_is_no_trouble():
    learned = fit(["\ud800 broken", "量子計算を説明して", "", "x" * 100_000], ["m"] * 4, [0, 1, 0, 1])
    assert math.isfinite(learned.predict("\udfff 量子")["m"])


def test_a_long_prompt_is_read_at_its_ends():
    end = READ_AT_EACH_END
    short, long = features_of("a " * end + "b " * end, 64), features_of("a " * end + "c " * 10**6 + "b " * end, 64)
    assert short[0] == long[0]
    assert long[2][0] > short[2][0]


def test_the_ridge_is_the_ridge():
    import numpy as np

    asked = [*dict.fromkeys(prompts(60)), "b a a", "?"]
    y = np.random.default_rng(0).normal(size=len(asked))
    learned = fit(asked, ["m"] * len(asked), list(y), dim=16, l2=2.0)
    full = np.zeros((len(asked), 16 + DENSE))
    for row, prompt in enumerate(asked):
        places, values, dense = features_of(prompt, 16)
        full[row, places] = values
        full[row, 16:] = dense
    spread = full[:, 16:].std(axis=0)
    full[:, 16:] *= 0.1 / np.where(spread > 0, spread, np.inf)
    centred = full - full.mean(axis=0)
    solved = np.linalg.solve(centred.T @ centred + 2.0 * np.eye(16 + DENSE), centred.T @ (y - y.mean()))
    expected = y.mean() + centred @ solved
    assert [learned.predict(prompt)["m"] for prompt in asked] == pytest.approx(list(expected), abs=1e-4)


def test_held_out_predictions_have_not_seen_their_own_prompt():
    chance = random.Random(4)
    asked = [f"{chr(97 + i % 26)}{chr(97 + i // 26)}" for i in range(300)] * 2
    qualities = [float(chance.random() < 0.5) for _ in range(300)] * 2
    made = [one["m"] for one in held_out(asked, ["m"] * 600, qualities, l2=0.01)]
    seen = fit(asked, ["m"] * 600, qualities, l2=0.01)

    def told(predicted):
        up = [p for p, q in zip(predicted, qualities, strict=True) if q]
        down = [p for p, q in zip(predicted, qualities, strict=True) if not q]
        return sum(up) / len(up) - sum(down) / len(down)

    assert told([seen.predict(prompt)["m"] for prompt in asked]) > 0.8
    assert told(made) < 0.1


def strong_share(gains, strong, weak, wanted=0.95):
    """Share of calls the strong model must get, the most promising first, for ``wanted`` of its quality."""
    goal, got = wanted * sum(strong), sum(weak)
    for taken, i in enumerate(sorted(range(len(gains)), key=lambda i: -gains[i])):
        if got >= goal:
            return taken / len(gains)
        got += strong[i] - weak[i]
    return 1.0


def test_the_router_saves_strong_calls_on_real_outcomes():
    table = DATA / "routing" / "routellm.parquet"
    if not table.exists():
        pytest.skip(f"no evaluation data at {table}; set TOKENKIT_EVALUATION_DATA")
    import duckdb

    rows = duckdb.sql(
        f"select prompt, list(quality order by model) from '{table}' group by sample_id, prompt order by sample_id"
    ).fetchall()[::3]
    asked, strong, weak = [row[0] for row in rows], [row[1][0] for row in rows], [row[1][1] for row in rows]
    n = len(rows)
    made = held_out(asked * 2, ["strong"] * n + ["weak"] * n, strong + weak)[:n]
    share = strong_share([one["strong"] - one["weak"] for one in made], strong, weak)
    chance = random.Random(0)
    blind = strong_share([chance.random() for _ in range(n)], strong, weak)
    assert share <= 0.58  # of a third of the prompts; the bench learns from all of them
    assert share < blind - 0.08


def explored(tmp_path, rate, calls=500):
    """A kit whose log was made by a policy that tries every model, each call rated by ``rate(kind, model)``."""
    chance = random.Random(7)
    kit = tk.Kit.simulated(pace=0, home=tmp_path)
    kit.policy = tk.Policy(temperature=1.0, weights=dict.fromkeys(("tiny", "swift", "steady"), 5.0) | {"sage": 5.2})
    for n in range(calls):
        kind = chance.choice(("prove the theorem about", "say hello nicely to"))
        receipt = kit.call(f"Please {kind} case number {n}.", max_tokens=1).receipt
        kit.rate(receipt, rate(kind, receipt.model, chance))
    return kit


def test_a_kit_learns_whom_to_ask_from_its_own_ratings_and_says_when_to_switch(tmp_path):
    def rate(kind, model, chance):
        right = model.endswith("steady") if kind.startswith("prove") else model.endswith("tiny")
        return float(chance.random() < (0.9 if right else 0.3))

    with explored(tmp_path, rate) as kit:
        before = kit.policy
        training = kit.learn(trade_off=0)
        assert training.advice.verdict == "switch"
        assert kit.policy is before, "it is off until it is switched on"
        assert "kit.policy = training.policy" in training._repr_html_()
        kit.policy = training.policy
        assert kit.plan("Please prove the theorem about case number 9.").choice.model == "simulated/steady"
        assert kit.plan("Please say hello nicely to case number 9.").choice.model == "simulated/tiny"
        dear = kit.learn(trade_off=1_000)
        kit.policy = dear.policy
        assert kit.plan("Please prove the theorem about case number 9.").choice.model == "simulated/tiny"


def test_ratings_that_say_nothing_are_no_reason_to_switch(tmp_path):
    with explored(tmp_path, lambda kind, model, chance: chance.choice((0.0, 1.0)), calls=300) as kit:
        assert kit.learn(trade_off=0).advice.verdict == "stay"


def test_a_policy_that_never_explored_gives_no_ground_to_advise(tmp_path):
    with tk.Kit.simulated(pace=0, home=tmp_path) as kit:
        with pytest.raises(UserError, match="nothing to learn from"):
            kit.learn()
        kit.rate(kit.call("Hello", max_tokens=1), 1)
        with pytest.raises(UserError, match="1 rated calls are too few"):
            kit.learn()
        for n in range(12):
            kit.rate(kit.call(f"Hello {n}", max_tokens=1), 1)
        training = kit.learn()
        assert training.advice.verdict == "stay"
        assert "13 rated calls" in repr(training)
