"""Frames behind the charts: each one question to the ledger, added up in DuckDB, at most a few hundred rows back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tokenkit.errors import UserError, did_you_mean
from tokenkit.ledger.book import BY, Ledger, since_clause

if TYPE_CHECKING:
    import pandas

MOST = 40
"""Rows of a frame that a chart can show; what is beyond is the least of it."""


def _asked(source: Any) -> Ledger:
    """Return the ledger of a kit, or the ledger itself."""
    found: Ledger = getattr(source, "ledger", source)
    return found


def _where(since: Any, *more: str, prefix: str = "") -> tuple[str, list[object]]:
    clause, values = since_clause(since)
    parts = [clause.removeprefix("WHERE ").replace("started_at", f"{prefix}started_at")] if clause else []
    parts += more
    return (f"WHERE {' AND '.join(parts)}" if parts else ""), values


def latency(source: Any, since: Any = None) -> pandas.DataFrame:
    """Return cost against latency by model: successful tries, median and 95th percentile seconds, mean USD a call."""
    where, values = _where(since, "status = 'ok'", "model IS NOT NULL")
    return _asked(source).sql(
        f"""SELECT model, count(*) AS tries, quantile_cont(seconds, 0.5) AS p50_seconds,
              quantile_cont(seconds, 0.95) AS p95_seconds, avg(cost_nanos) / 1e9 AS mean_usd,
              sum(cost_nanos)::DOUBLE / 1e9 AS usd
            FROM attempts {where} GROUP BY model ORDER BY tries DESC, model LIMIT {MOST}""",  # noqa: S608 - our own words
        values,
    )


def compression(source: Any, since: Any = None) -> pandas.DataFrame:
    """Return how compression ratios are spread: the share kept, in twentieths, and how many runs of each stage."""
    where, values = _where(since, "skipped IS NULL", "tokens_before > 0", prefix="c.")
    return _asked(source).sql(
        f"""SELECT stage, least(floor(tokens_after / tokens_before * 20), 19) / 20 AS kept_from, count(*) AS runs,
              sum(tokens_before - tokens_after)::BIGINT AS saved_tokens
            FROM stages s JOIN calls c USING (seq) {where} GROUP BY ALL ORDER BY ALL""",  # noqa: S608
        values,
    )


def cache(source: Any, since: Any = None) -> pandas.DataFrame:
    """Return what providers' prompt caches saved, by model: tokens read, and USD less than the plain input rate."""
    where, values = _where(since, "a.cache_read_input_tokens > 0", prefix="a.")
    return _asked(source).sql(
        f"""SELECT a.model, count(*) AS tries, sum(a.cache_read_input_tokens)::BIGINT AS read_tokens,
              sum(a.input_tokens)::BIGINT AS input_tokens,
              sum(a.cache_read_input_tokens::HUGEINT * (p.input - coalesce(p.cache_read, p.input)))::DOUBLE / 1e15
                AS saved_usd
            FROM attempts a LEFT JOIN prices p USING (price) {where}
            GROUP BY a.model ORDER BY read_tokens DESC, a.model LIMIT {MOST}""",  # noqa: S608
        values,
    )


def counts(source: Any, since: Any = None) -> pandas.DataFrame:
    """Return our count of each prompt against what was billed, by model: the median and the extremes of the ratio."""
    where, values = _where(
        since, "usage_source = 'reported'", "input_tokens > 0", "counted_input_tokens IS NOT NULL", "model IS NOT NULL"
    )
    return _asked(source).sql(
        f"""WITH ratios AS (SELECT model, counted_input_tokens / input_tokens AS ratio FROM attempts {where})
            SELECT model, count(*) AS tries, min(ratio) AS least, quantile_cont(ratio, 0.05) AS low,
              median(ratio) AS middle, quantile_cont(ratio, 0.95) AS high, max(ratio) AS most
            FROM ratios GROUP BY model ORDER BY tries DESC, model LIMIT {MOST}""",  # noqa: S608
        values,
    )


def escalations(source: Any, since: Any = None) -> pandas.DataFrame:
    """Return the paths calls took that needed more than one try: the models in order, how many, what ended them."""
    where, values = _where(since, "c.tries > 1", prefix="c.")
    return _asked(source).sql(
        f"""WITH paths AS (SELECT c.seq, any_value(c.status) AS status, any_value(c.seconds) AS seconds,
                string_agg(a.model, ' → ' ORDER BY a.position) AS path, arg_min(a.error_type, a.position) AS first_error
              FROM calls c JOIN attempts a USING (seq) {where} GROUP BY c.seq)
            SELECT path, count(*) AS calls, count(*) FILTER (status = 'ok') AS answered,
              mode(first_error) AS first_error, median(seconds) AS median_seconds
            FROM paths GROUP BY path ORDER BY calls DESC, path LIMIT {MOST}""",  # noqa: S608
        values,
    )


def failures(source: Any, since: Any = None) -> pandas.DataFrame:
    """Return failed tries by model and kind of error, with the share of that model's tries."""
    where, values = _where(since, "model IS NOT NULL")
    return _asked(source).sql(
        f"""WITH tries AS (SELECT model, error_type, count(*) AS n FROM attempts {where} GROUP BY ALL)
            SELECT model, error_type, n AS tries, n / sum(n) OVER (PARTITION BY model) AS share
            FROM tries QUALIFY error_type IS NOT NULL ORDER BY tries DESC, model LIMIT {MOST}""",  # noqa: S608
        values,
    )


def prompts(source: Any, since: Any = None, *, top: int = 15) -> pandas.DataFrame:
    """Return the prompts that cost the most, equal ones together; only digests where prompts are not kept."""
    if top < 1:
        raise UserError(f"top must be at least 1, not {top}.")
    where, values = _where(since, "cost_nanos > 0")
    return _asked(source).sql(
        f"""SELECT coalesce(left(any_value(prompt), 200), left(any_value(prompt_sha256), 12),
                'call ' || right(any_value(id), 8)) AS prompt,
              count(*) AS calls, sum(cost_usd)::DOUBLE AS usd, max(input_tokens) AS input_tokens
            FROM calls {where} GROUP BY coalesce(prompt_sha256, id)
            ORDER BY usd DESC, prompt LIMIT {int(top)}""",  # noqa: S608
        values,
    )


def rounds(source: Any, since: Any = None) -> pandas.DataFrame:
    """Return adversarial runs: cost in USD of each phase, and how many calls it took; the latest runs first."""
    where, values = _where(since, "operation IN ('plan', 'critique', 'refine')", "parent IS NOT NULL")
    return _asked(source).sql(
        f"""WITH steps AS (SELECT parent, operation, cost_usd, seconds, started_at,
              row_number() OVER (PARTITION BY parent, operation ORDER BY seq) AS round FROM calls {where})
            SELECT parent AS run, operation AS phase, round, cost_usd::DOUBLE AS usd, seconds, started_at
            FROM steps ORDER BY max(started_at) OVER (PARTITION BY parent) DESC, started_at LIMIT {MOST * 5}""",  # noqa: S608
        values,
    )


def daily(source: Any, since: Any = None, *, by: str | None = None) -> pandas.DataFrame:
    """Return USD spent on each day (local time), and by ``by`` too, if it is said."""
    if by is not None and by not in BY:
        raise UserError(f"Spend cannot be grouped by {by!r}. {did_you_mean(by, sorted(BY))}")
    where, values = _where(since)
    key = "" if by is None else f', {BY[by]} AS "{by}"'
    return _asked(source).sql(
        f"""SELECT CAST(started_at AS DATE) AS day{key}, count(*) AS calls, coalesce(sum(cost_usd), 0)::DOUBLE AS usd
            FROM calls {where} GROUP BY ALL ORDER BY ALL""",  # noqa: S608
        values,
    )
