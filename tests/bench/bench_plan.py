"""What ``plan`` costs over 1 to 200 models: microseconds, and growth per doubling."""

from __future__ import annotations

import statistics
import time

from tokenkit.catalog import Model
from tokenkit.money import rate_per_million
from tokenkit.pricing import PriceRule
from tokenkit.route import Policy, plan
from tokenkit.types import Message, Request, TokenCount


def main(rounds: int = 400) -> None:
    """Print the median time of a plan for each number of models."""
    rates = (rate_per_million("0.15"), rate_per_million("0.6"))
    rule = PriceRule("user", "m", ((0, *rates, None, None, None),))
    count = TokenCount(1000, True, "o200k_base")
    asked = Request((Message("user", "hello"),))
    for strategy in ("score", "random"):
        before = 0.0
        for size in (1, 25, 50, 100, 200):
            models = [Model("p", f"m{i}", float(i % 10), rule, 128_000, 16_000) for i in range(size)]
            times = []
            for seed in range(rounds):
                began = time.perf_counter()
                plan(asked, models, count=lambda model: count, policy=Policy(strategy), seed=seed)
                times.append(time.perf_counter() - began)
            middle = statistics.median(times) * 1e6
            growth = f"{middle / before:5.2f} x" if before else ""
            print(f"{strategy:8} {size:4} models {middle:8.1f} us  {growth}")
            before = middle


if __name__ == "__main__":
    main()
