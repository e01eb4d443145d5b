"""The ledger against a provider's own usage or cost export, by day and model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from tokenkit import _html
from tokenkit.analysis.tables import table
from tokenkit.errors import UserError
from tokenkit.ledger.book import Ledger
from tokenkit.money import usd

if TYPE_CHECKING:
    import pandas

# What providers call these columns in the CSV files of their consoles (OpenAI usage and cost exports, Anthropic usage
# and cost exports, Google Cloud billing), lower-cased with everything but letters and digits taken out.
_NAMES: Mapping[str, tuple[str, ...]] = {
    "day": ("date", "day", "usagedate", "usagedateutc", "starttimeiso", "starttime", "usagestarttime", "timestamp"),
    "model": ("model", "modelversion", "modelname", "snapshotid", "lineitem", "skudescription"),
    "input_tokens": ("inputtokens", "ncontexttokenstotal", "prompttokens", "usageinputtokens"),
    "uncached_tokens": ("usageinputtokensnocache", "uncachedinputtokens", "inputuncachedtokens"),
    "read_tokens": ("usageinputtokenscacheread", "cachereadinputtokens"),
    "made_tokens": (
        "usageinputtokenscachewrite5m", "usageinputtokenscachewrite1h", "usageinputtokenscachewrite",
        "cachecreationinputtokens",
    ),
    "output_tokens": ("outputtokens", "ngeneratedtokenstotal", "completiontokens", "usageoutputtokens"),
    "cost": ("cost", "costusd", "amount", "amountvalue", "costinusd", "spend", "totalcost"),
}  # fmt: skip


@dataclass(frozen=True)
class Reconciled:
    """The ledger beside a provider's export, a row for each day and model; ``differences`` are the rows that differ."""

    rows: pandas.DataFrame
    source: str

    @property
    def differences(self) -> pandas.DataFrame:
        """The rows on which the two do not agree."""
        return self.rows[self.rows["verdict"] != "agrees"].reset_index(drop=True)

    def df(self) -> pandas.DataFrame:
        """Return every row."""
        return self.rows

    def __bool__(self) -> bool:
        return not len(self.differences)

    def __repr__(self) -> str:
        count = len(self.differences)
        said = "all agree" if not count else f"{count} of them differ"
        return f"Reconciled({self.source}: {len(self.rows)} rows of a day and a model, {said})"

    def _repr_html_(self) -> str:
        return _html.table_card(table(repr(self), self.differences if len(self.differences) else self.rows))


def reconcile(
    ledger: Ledger, csv: Any, *, columns: Mapping[str, str] | None = None, provider: str | None = None
) -> Reconciled:
    """Compare the ledger with a provider's usage or cost export, by day (UTC) and model.

    ``csv`` is a path or file; ``columns`` maps ``day``, ``model``, ``input_tokens``, ``output_tokens`` and ``cost``
    (USD) to the file's own names where they are not recognised. ``provider`` keeps to its calls. Raises UserError,
    naming what the file lacks.
    """
    theirs, source = _read_export(csv, columns or {})
    days = (theirs["day"].min(), theirs["day"].max())
    ours = ledger.sql(
        """SELECT CAST(a.started_at AT TIME ZONE 'UTC' AS DATE) AS day,
             coalesce(a.response_model, a.model) AS named, a.model, sum(a.input_tokens)::BIGINT AS input_tokens,
             sum(a.output_tokens)::BIGINT AS output_tokens, sum(a.cost_nanos)::BIGINT AS nanos
           FROM attempts a WHERE a.input_tokens IS NOT NULL AND (? IS NULL OR a.provider = ?)
             AND CAST(a.started_at AT TIME ZONE 'UTC' AS DATE) BETWEEN ? AND ? GROUP BY ALL""",
        [provider, provider, *days],
    )
    known = set(theirs["model"])
    ours["model"] = [_same(named, model, known) for named, model in zip(ours["named"], ours["model"], strict=True)]
    ours["day"] = [value.date() if isinstance(value, datetime) else value for value in ours["day"]]
    mine = ours.groupby(["day", "model"], as_index=False)[["input_tokens", "output_tokens", "nanos"]].sum()
    both = mine.merge(theirs, on=["day", "model"], how="outer", suffixes=("", "_theirs"), indicator=True)
    both["verdict"] = [
        _verdict(row, [c for c in theirs if c not in ("day", "model")]) for row in both.to_dict("records")
    ]
    both["cost_usd"] = [None if value != value else usd(int(value)) for value in both.pop("nanos")]
    return Reconciled(both.drop(columns="_merge").sort_values(["day", "model"], ignore_index=True), source)


def _read_export(csv: Any, columns: Mapping[str, str]) -> tuple[pandas.DataFrame, str]:
    import pandas  # heavy: only where a frame is made

    source = getattr(csv, "name", None) or str(csv)
    source = source.rpartition("/")[2]
    try:
        raw = pandas.read_csv(csv, dtype=str, keep_default_na=False)
    except FileNotFoundError:
        raise UserError(f"There is no file {csv}.") from None
    except (ValueError, OSError) as error:  # pandas' own parser errors are ValueErrors
        raise UserError(f"{source} cannot be read as CSV: {error}") from None
    found = {what: [columns[what]] if what in columns else _named(raw.columns, names) for what, names in _NAMES.items()}
    for what, names in found.items():
        for name in names:
            if name not in raw.columns:
                raise UserError(f"{source} has no column {name!r}, which columns= gives for {what}.")
    lacking = [what for what in ("day", "model") if not found[what]]
    figures = [w for w in ("input_tokens", "uncached_tokens", "output_tokens", "cost") if found[w]]
    if lacking or not figures:
        what = lacking[0] if lacking else "input_tokens, output_tokens or cost"
        raise UserError(
            f"{source} has no column for {what} that is known here; it has {', '.join(raw.columns[:12])}. Say which "
            f"with columns={{{(lacking or ['cost'])[0]!r}: ...}}."
        )
    frame = pandas.DataFrame({
        "day": [_day(value, source, n) for n, value in enumerate(raw[found["day"][0]], 2)],
        "model": raw[found["model"][0]],
    })  # fmt: skip
    sums = {what: _sum(raw, names, source) for what, names in found.items() if names and what not in ("day", "model")}
    if "input_tokens" not in sums and "uncached_tokens" in sums:
        parts = [sums.get(name) for name in ("uncached_tokens", "read_tokens", "made_tokens")]
        sums["input_tokens"] = [sum(row) for row in zip(*(part for part in parts if part is not None), strict=True)]
    for what in ("input_tokens", "output_tokens", "cost"):
        if what in sums:
            frame[what] = sums[what]
    totals = [column for column in frame if column not in ("day", "model")]
    frame = frame.groupby(["day", "model"], as_index=False)[totals].sum()
    return frame.rename(columns={name: f"{name}_theirs" for name in totals}), source


def _named(columns: Iterable[str], names: Sequence[str]) -> list[str]:
    return [c for c in columns if "".join(ch for ch in c.lower() if ch.isalnum()) in names]


def _day(value: str, source: str, line: int) -> date:
    text = value.strip()
    try:
        if text.isdigit():
            return datetime.fromtimestamp(int(text), tz=UTC).date()
        return datetime.fromisoformat(text.replace(" UTC", "")).date()
    except (ValueError, OverflowError):
        raise UserError(
            f"{source}, line {line}: {value!r} is not a date. ISO dates and Unix seconds are read."
        ) from None


def _sum(raw: pandas.DataFrame, names: Sequence[str], source: str) -> list[Decimal]:
    totals = [Decimal(0)] * len(raw)
    for name in names:
        for n, value in enumerate(raw[name]):
            text = value.replace(",", "").replace("$", "").strip()
            try:
                totals[n] += Decimal(text or 0)
            except ArithmeticError:
                raise UserError(f"{source}, line {n + 2}: {name} is {value!r}, which is no number.") from None
    return totals


def _same(named: str, model: str, known: set[str]) -> str:
    """Return the name under which the export knows this model: what answered, what was asked for, or itself."""
    short = model.partition("/")[2] or model
    return next((name for name in (named, short, model) if name in known), short if named == model else named)


def _verdict(row: Mapping[str, Any], theirs: Sequence[str]) -> str:
    if row["_merge"] != "both":
        return "not in the export" if row["_merge"] == "left_only" else "not in the ledger"
    off = []
    for name in theirs:
        what = name.removesuffix("_theirs")
        mine = Decimal(int(row["nanos"])) / 10**9 if what == "cost" else Decimal(int(row[what]))
        # Exports round money to cents or less; tokens are whole and must be the same.
        off_by = Decimal(str(row[name])) - mine
        if abs(off_by) > (max(Decimal("0.005"), abs(mine) / 1000) if what == "cost" else 0):
            off.append(f"{what.replace('_', ' ')} by {off_by.normalize():+f}")
    return "differs: " + ", ".join(off) if off else "agrees"
