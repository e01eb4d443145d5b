"""How long one exact count takes, beside bpe_openai counting the same text in the same run.

Run it as ``python tests/bench/bench_tokens.py``. Ratios are to be trusted, microseconds belong to one machine. The
three counts of a row are taken in turns, and each figure is the median of its rounds.
"""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable

from tokenkit import tokens

PARAGRAPH = (
    "The committee met on 14 March to review the figures: revenue rose by 3.7 %, costs by 2.1 %. Nobody had expected "
    "it; 'we'll see,' said the chair. def total(rows): return sum(r['amount'] for r in rows)  # naïve, but enough\n"
)
SIZES = (900, 3_600, 14_000)  # tokens
ROUNDS = 41
ADVERSARIAL = {"one letter": "a", "spaces": " ", "emoji": "😀", "no spaces": "的一是不了在人有我他"}


def seconds(work: Callable[[], object], repeat: int = 1) -> float:
    """Time one call, in seconds."""
    start = time.perf_counter()
    for _ in range(repeat):
        work()
    return (time.perf_counter() - start) / repeat


def text_of(size: int) -> str:
    """A text of about ``size`` tokens of o200k_base."""
    ids = tokens.encode(PARAGRAPH * (size // 40 + 1))
    return tokens.decode(ids[:size])


def sizes_table(reference: Callable[[str], int]) -> None:
    print(
        f"{'tokens':>8} {'count':>10} {'counts/s':>10} {'bpe_openai':>11} {'ratio':>7} {'remembered':>11} {'ratio':>7}"
    )
    for size in SIZES:
        text = text_of(size)
        assert tokens.count(text) == reference(text)
        rounds = [
            (
                seconds(lambda text=text: len(tokens.encode(text))),
                seconds(lambda text=text: reference(text)),
                seconds(lambda text=text: tokens.count(text), repeat=20),
            )
            for _ in range(ROUNDS)
        ]
        ours, theirs, known = (statistics.median(column) for column in zip(*rounds, strict=True))
        print(
            f"{tokens.count(text):8,} {ours * 1e6:7.0f} µs {1 / ours:10,.0f} {theirs * 1e6:8.0f} µs "
            f"{ours / theirs:6.2f}x {known * 1e6:8.2f} µs {known / ours:6.4f}x"
        )


def adversarial_table(reference: Callable[[str], int]) -> None:
    print(f"\n{'1,000,000 of':>14} {'tokens':>10} {'count':>10} {'bpe_openai':>11} {'ratio':>7} {'per doubling':>13}")
    for name, piece in ADVERSARIAL.items():
        text = piece * (1_000_000 // len(piece))
        half = text[: len(text) // 2]
        rounds = [
            (
                seconds(lambda half=half: tokens.encode(half)),
                seconds(lambda text=text: tokens.encode(text)),
                seconds(lambda text=text: reference(text)),
            )
            for _ in range(3)
        ]
        small, ours, theirs = (statistics.median(column) for column in zip(*rounds, strict=True))
        print(
            f"{name:>14} {len(tokens.encode(text)):10,} {ours * 1e3:7.0f} ms {theirs * 1e3:8.0f} ms "
            f"{ours / theirs:6.2f}x {ours / small:12.2f}x"
        )


def main() -> None:
    """Print both tables for o200k_base."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from bpe_openai._bindings import tokenizer_for_encoding

        reference = tokenizer_for_encoding("o200k_base").count
    first = seconds(lambda: tokens.count("warm"))
    reference("warm")
    print(f"o200k_base; the first count of a process, which reads the vocabulary: {first * 1e3:.0f} ms\n")
    sizes_table(reference)
    adversarial_table(reference)


if __name__ == "__main__":
    main()
