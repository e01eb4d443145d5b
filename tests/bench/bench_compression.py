"""Compression measured: what each stage keeps of the evidence, what it breaks, and how fast, beside cheap baselines.

    python tests/bench/bench_compression.py [--limit N]

Public sets with annotated evidence are read from the folder that TOKENKIT_EVALUATION_DATA names (else a shared/data
folder beside the project). ``kept`` is the share of evidence sentences that stand word for word in the output,
``recall`` the share of the evidence's words, ``harm`` outputs with a cut or invented protected span, ``speed`` input
tokens a second of the processor's time (others may be at work on the machine), and beside it as a multiple of the time
it takes to tokenise the same texts.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tokenkit.compress import Aim, apply, compress, delta, spans
from tokenkit.compress.damage import damage, units
from tokenkit.compress.hyperbolic import hyperbolic
from tokenkit.compress.outline import outline
from tokenkit.compress.recall import words
from tokenkit.compress.relevance import stems
from tokenkit.compress.summarize import summarize
from tokenkit.tokens import count, decode, encode

Compressor = Callable[[str, str, float], str]
TARGETS = (0.5, 0.35, 0.2)


# Baselines: what anybody would try first. They share one way of filling the budget, so that only the scores differ.


def head(text: str, query: str, target: float) -> str:
    tokens = encode(text)
    return decode(tokens[: int(target * len(tokens))])


def filled(scores: Sequence[float], pieces: Sequence[str], text: str, target: float) -> str:
    budget, taken = int(target * count(text)), set()
    for i in sorted(range(len(pieces)), key=lambda i: (-scores[i], i)):
        size = count(pieces[i])
        if pieces[i].strip() and size <= budget:
            taken.add(i)
            budget -= size
    return "".join(piece for i, piece in enumerate(pieces) if i in taken or not piece.strip())


def at_random(text: str, query: str, target: float) -> str:
    pieces = outline(text).pieces
    chance = random.Random(len(text))
    return filled([chance.random() for _ in pieces], pieces, text, target)


def bm25_scores(pieces: Sequence[str], query: str) -> list[float]:
    counts = [Counter(stems(piece)) for piece in pieces]
    usual = sum(c.total() for c in counts) / max(len(counts), 1) or 1
    holding = Counter(word for c in counts for word in c)
    wanted = [w for w in dict.fromkeys(stems(query)) if w in holding]
    rarity = {w: math.log(1 + (len(counts) - holding[w] + 0.5) / (holding[w] + 0.5)) for w in wanted}
    return [
        sum(rarity[w] * c[w] * 2.2 / (c[w] + 1.2 * (0.25 + 0.75 * c.total() / usual)) for w in wanted if w in c)
        for c in counts
    ]


def bm25(text: str, query: str, target: float, *, neighbours: float = 0.0) -> str:
    pieces = outline(text).pieces
    own = [0.0, *bm25_scores(pieces, query), 0.0]
    return filled(
        [b + neighbours * (a + c) for a, b, c in zip(own, own[1:], own[2:], strict=False)], pieces, text, target
    )


def textrank(text: str, query: str, target: float) -> str:
    """Mihalcea and Tarau, "TextRank: Bringing Order into Texts", 2004; at most 600 pieces, since it is quadratic."""
    pieces = outline(text).pieces
    bags = [set(stems(piece)) for piece in pieces[:600]]
    edges = [
        [
            (j, len(a & b) / (math.log(len(a) + 1) + math.log(len(b) + 1)))
            for j, b in enumerate(bags)
            if i != j and a and b and a & b
        ]
        for i, a in enumerate(bags)
    ]
    out = [sum(w for _, w in row) or 1.0 for row in edges]
    rank = [1.0] * len(bags)
    for _ in range(15):
        rank = [0.15 + 0.85 * sum(rank[j] * w / out[j] for j, w in row) for row in edges]
    return filled([*rank, *([0.0] * (len(pieces) - len(rank)))], pieces, text, target)


def ours(stages: Sequence[str], text: str, query: str, target: float) -> str:
    return compress(text, stages, Aim(target=target, query=query, count=count)).text


CONTESTANTS: dict[str, Compressor] = {
    "head": head,
    "random": at_random,
    "bm25": bm25,
    "bm25 + neighbours": partial(bm25, neighbours=0.5),
    "textrank": textrank,
    "summarize": lambda t, q, r: summarize(t, q, r, count),
    "hyperbolic (tree)": lambda t, q, r: hyperbolic(t, q, r, count),
    "- poincare": lambda t, q, r: hyperbolic(t, q, r, count, geometry="poincare"),
    "- euclidean": lambda t, q, r: hyperbolic(t, q, r, count, geometry="euclidean"),
    "- flat": lambda t, q, r: hyperbolic(t, q, r, count, geometry="flat"),
    "normalize, dedupe, summarize, hyperbolic": partial(ours, ("normalize", "dedupe", "summarize", "hyperbolic")),
    "normalize, dedupe, hyperbolic": partial(ours, ("normalize", "dedupe", "hyperbolic")),
}


# Measures.


def sentences(text: str) -> list[str]:
    return [text[a:b] for a, b in units(text)]


def evidence_kept(row: dict[str, Any], out: str) -> tuple[float, float]:
    """The share of evidence sentences that are there word for word, and of evidence words."""
    there = set(sentences(out))
    wanted = [s for evidence in row["evidence"] for s in sentences(evidence) if len(words(s)) >= 3]
    exact = sum(s in there or s in out for s in wanted) / len(wanted) if wanted else 1.0
    need = Counter(w for s in wanted for w in words(s))
    got = Counter(w for s in there if sum(w in need for w in words(s)) * 2 >= len(words(s)) > 0 for w in words(s))
    recall = sum(min(n, got[w]) for w, n in need.items()) / need.total() if need else 1.0
    return exact, recall


def measure(rows: list[dict[str, Any]], made: Compressor, target: float) -> dict[str, float]:
    totals = Counter[str]()
    for row in rows:
        began = time.process_time()
        out = made(row["context"], row["query"], target)
        totals["seconds"] += time.process_time() - began  # type: ignore[assignment]
        exact, recall = evidence_kept(row, out)
        totals["exact"] += exact  # type: ignore[assignment]
        totals["recall"] += recall  # type: ignore[assignment]
        totals["in"] += count(row["context"])
        totals["out"] += count(out)
        totals["harm"] += bool(damage(row["context"], out))
        totals["grown"] += count(out) > count(row["context"])
    began = time.process_time()
    for row in rows:
        encode(row["context"])  # count() remembers what it has counted
    counting = time.process_time() - began
    return {
        "saved": 1 - totals["out"] / totals["in"],
        "kept": totals["exact"] / len(rows),
        "recall": totals["recall"] / len(rows),
        "harm": totals["harm"],
        "grown": totals["grown"],
        "speed": totals["in"] / totals["seconds"],
        "x counting": totals["seconds"] / counting,
    }


def folder() -> Path:
    named = os.environ.get("TOKENKIT_EVALUATION_DATA")
    found = (Path(named) if named else Path(__file__).parents[3] / "shared" / "data") / "compression"
    if not found.is_dir():
        sys.exit("The evaluation data is not here: set TOKENKIT_EVALUATION_DATA to the folder that holds it.")
    return found


def same_everywhere(row: dict[str, Any]) -> bool:
    """Whether another process with another hash seed gives the same outputs."""
    code = (
        "import json, sys; from tokenkit.compress import Aim, compress; row = json.load(sys.stdin);"
        "print([compress(row['context'], [s], Aim(target=.3, query=row['query'])).text for s in "
        "('normalize', 'dedupe', 'summarize', 'hyperbolic')])"
    )
    outs = {
        subprocess.run(
            [sys.executable, "-c", code], input=json.dumps(row), capture_output=True, text=True, check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    return len(outs) == 1


def differences(rows: list[dict[str, Any]]) -> str:
    import difflib

    new = ours_size = plain = dearer = 0
    exact = True
    for row in rows:
        made = delta(row["old"], row["context"])
        exact &= apply(row["old"], made) == row["context"]
        unified = "\n".join(difflib.unified_diff(row["old"].split("\n"), row["context"].split("\n"), n=0, lineterm=""))
        dearer += count(made) > min(count(unified), count(row["context"]))
        new, ours_size = new + count(row["context"]), ours_size + count(made)
        plain += min(count(unified), count(row["context"]))
    return (
        f"diff: {len(rows)} pairs, reconstruction {'exact' if exact else 'BROKEN'}; saved {1 - ours_size / new:.1%} "
        f"(unified diff without context: {1 - plain / new:.1%}), dearer than that in {dearer} pairs"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--limit", type=int, default=None, help="texts of each set")
    said = parser.parse_args()
    count("warm up")
    for name in ("2wiki", "qmsum", "docs", "squad"):
        lines = (folder() / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines][: said.limit]
        print(f"\n{name}: {len(rows)} texts, the same output in every process: {same_everywhere(rows[0])}")
        heads = ("kept at 50 / 35 / 20 %", "recall", "saved, %")
        print(f"  {'':41} {''.join(f'{head:>24}' for head in heads)} harm  tokens/s x counting")
        for label, made in CONTESTANTS.items():
            found = [measure(rows, made, target) for target in TARGETS]
            told = (" / ".join(f"{scale * one[key]:.{places}f}" for one in found)
                    for key, scale, places in (("kept", 1, 2), ("recall", 1, 2), ("saved", 100, 0)))  # fmt: skip
            last = found[-1]
            harm = sum(int(one["harm"]) for one in found)
            print(
                f"  {label:41} {''.join(f'{cells:>24}' for cells in told)} {harm:4} "
                f"{last['speed']:9,.0f} {last['x counting']:10.1f}"
            )
    rows = [json.loads(line) for line in (folder() / "diff.jsonl").read_text(encoding="utf-8").splitlines()]
    print(f"\n{differences(rows[: said.limit])}")
    on_long_texts()


def on_long_texts() -> None:
    """Speed on one long document of each set, with nothing remembered of it."""
    print("\ntokens/s on one long document (multiples of tokenising it)")
    for name in ("qmsum", "docs", "2wiki", "squad"):
        lines = (folder() / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        text = "\n\n".join(json.loads(line)["context"] for line in lines)[:1_500_000]
        size, counting = len(encode(text)), least(lambda text=text: encode(text))  # type: ignore[misc]
        told = []
        for stage in ("normalize", "dedupe", "summarize", "hyperbolic"):
            aim = Aim(count=len, query=json.loads(lines[0])["query"], target=0.3)
            seconds = least(lambda text=text, stage=stage, aim=aim: compress(text, [stage], aim))  # type: ignore[misc]
            told.append(f"{stage} {size / seconds:,.0f} ({seconds / counting:.1f})")
        print(f"  {name:6} {size:8,} tokens: {', '.join(told)}")


def least(work: Callable[[], Any]) -> float:
    """The least of three times, in processor seconds."""
    best = math.inf
    for _ in range(3):
        spans.forget()
        began = time.process_time()
        work()
        best = min(best, time.process_time() - began)
    return best


if __name__ == "__main__":
    main()
