"""Calls that were logged elsewhere: by LiteLLM, OpenTelemetry, Langfuse, the tool ``llm``, or in a plain table.

Each row becomes a call with one try, says where it comes from in ``imported``, and is known by its id, so that reading
a file twice changes nothing. A cost that is not in the log is charged by the published prices of its day, and left
unknown where there are none. A row that cannot be read is named by its place; the others are taken in.

A format is a module with ``recognised(record)`` and ``calls(record)``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import InvalidOperation
from itertools import chain, islice
from pathlib import Path
from types import ModuleType
from typing import Any

from tokenkit import pricing
from tokenkit.errors import UserError, did_you_mean
from tokenkit.ledger.imports import langfuse, litellm, llm, otel, tables
from tokenkit.ledger.imports.sources import records
from tokenkit.ledger.imports.values import Row
from tokenkit.types import Usage

FORMS: dict[str, ModuleType] = {
    "otel": otel, "litellm": litellm, "langfuse": langfuse, "llm": llm, "table": tables,
}  # fmt: skip
"""By the name that ``form`` has; the first that recognises a record reads a log whose form was not named."""

AT_ONCE = 10_000
"""Records read before they are passed on, so that a long log needs no more memory than a short one."""

_LOOKED_AT = 50
_FAULTS = (KeyError, ValueError, TypeError, InvalidOperation, AttributeError, OverflowError, RecursionError)


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import did: calls taken in, calls that were there already, and the faults of rows left out."""

    rows: int
    known: int
    faults: tuple[str, ...] = ()

    def __repr__(self) -> str:
        known = f", {self.known:,} were there already" if self.known else ""
        faults = f"; {len(self.faults):,} rows left out, such as {self.faults[0]}" if self.faults else ""
        return f"Imported({self.rows:,} calls{known}{faults})"


def read(source: Path | Iterable[Any], form: str | None, faults: list[str]) -> Iterator[list[Row]]:
    """Yield the calls of a file, folder or rows, batch by batch; add to ``faults`` why others were left out.

    Raises UserError where the whole cannot be read, or its form is not clear.
    """
    if form is not None and form not in FORMS:
        raise UserError(f"There is no import format {form!r}. {did_you_mean(form, sorted(FORMS))}")
    name, found = records(source)
    begun = list(islice(found, _LOOKED_AT))
    form = form or _form_of(name, [record for _, record in begun])
    whole = chain(begun, found)
    while some := list(islice(whole, AT_ONCE)):
        rows: list[Row] = []
        for place, record in some:
            if isinstance(record, str):
                faults.append(f"{name}, {place}: {record}")
                continue
            try:
                rows += [_finished(row, form) for row in FORMS[form].calls(record)]
            except _FAULTS as error:
                what = f"it has no {error}" if isinstance(error, KeyError) else str(error)
                faults.append(f"{name}, {place}: {what}")
        yield rows


def _form_of(name: str, begun: list[Any]) -> str:
    for record in begun:
        for form, module in FORMS.items():
            if not isinstance(record, str) and module.recognised(record):
                return form
    if begun and all(isinstance(record, str) for record in begun):
        raise UserError(f"{name} has no records: {begun[0]}.")
    if not begun:
        raise UserError(f"{name} is empty: there is nothing to take in.")
    raise UserError(f"It is not clear what {name} is. Say form={' or '.join(map(repr, FORMS))}.")


def _finished(row: Row, form: str) -> Row:
    began = row["started_at_ns"]
    if began is None or not 0 <= began < 2**63:
        raise ValueError("it does not say when it began" if began is None else "it began at no time there is")
    row["imported"] = row.get("imported") or form  # what was synthetic or imported before stays so
    _priced(row)
    return row


def _priced(row: Row) -> None:
    """Fill a cost that is not in the log, by the published prices of its day."""
    if row.get("cost_nanos") is not None or row.get("cached") or row.get("status") == "error":
        return
    if row.get("input_tokens") is None or row.get("output_tokens") is None or not row.get("provider"):
        return
    name = str(row["model"]).removeprefix(f"{row['provider']}/")
    rule = pricing.resolve(str(row["provider"]), name, at=row.get("started_at_ns"))
    if rule is not None:
        usage = Usage(
            row["input_tokens"], row["output_tokens"], row.get("cache_read_input_tokens"),
            row.get("cache_creation_input_tokens"), row.get("reasoning_output_tokens"),
        )  # fmt: skip
        row["cost_nanos"] = rule.receipt(usage.input_tokens, row.get("started_at_ns")).cost(usage)
