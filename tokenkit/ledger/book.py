"""What a user asks of the ledger: frames, SQL, spend, verification, export; every answer includes every written call.

Asking copies waiting rows in first. Where the file is held by somebody else, they are added in memory instead, or,
when it cannot even be read, the answer comes from a standby copy beside it; ``note`` then says so.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeVar

from tokenkit.errors import LedgerError, UserError, did_you_mean
from tokenkit.journal import Journal, let_go
from tokenkit.ledger import chain, copying, files, imports, life
from tokenkit.ledger.files import Busy, Unavailable
from tokenkit.ledger.imports import Imported
from tokenkit.ledger.instances import lent, opened
from tokenkit.ledger.life import Retained
from tokenkit.ledger.questions import Damaged, Parameters, ask, why

if TYPE_CHECKING:
    import duckdb
    import pandas

T = TypeVar("T")

FIRST = (
    "started_at", "model", "provider", "status", "input_tokens", "output_tokens", "cost_usd", "seconds",
    "endpoint_name", '"user"', '"session"', "saved_tokens", "cached", "tries", "finish_reason", "error_type", "error",
)  # fmt: skip

BY = {
    "model": "model", "provider": "provider", "user": '"user"', "session": '"session"', "endpoint": "endpoint_name",
    "endpoint_name": "endpoint_name", "status": "status", "day": "CAST(started_at AS DATE)",
    "month": "CAST(date_trunc('month', started_at) AS DATE)",
}  # fmt: skip

FORMATS = {
    ".parquet": "FORMAT parquet, COMPRESSION zstd",
    ".csv": "FORMAT csv, HEADER",
    ".jsonl": "FORMAT json",
}

_AGO = re.compile(r"(\d{1,5})\s*(m|min|h|d|w)")
_UNITS = {"m": "minutes", "min": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class Ledger:
    """The calls written to ``journal``, as tables in the DuckDB file ``path``; several kernels may share both.

    ``patience`` is how many seconds to wait for another kernel. ``note`` is None, or a sentence on how the last answer
    was made when the file could not be used the plain way. Failures are :class:`LedgerError`, in one line.
    """

    def __init__(self, journal: Journal, path: str | os.PathLike[str], *, patience: float = 5) -> None:
        self.journal, self.patience = journal, patience
        self.path = Path(path).expanduser().resolve()  # one file, one lock, by whatever way it is reached
        self.standby = self.path.with_suffix(f".standby{self.path.suffix}")
        self.note: str | None = None
        self._copied = 0

    def __repr__(self) -> str:
        return f"Ledger({str(self.path)!r})"

    def _repr_html_(self) -> str:
        lines = [f"<b>tokenkit ledger</b> {escape(str(self.path))}"]
        try:
            total = self.sql("SELECT count(*) AS calls, sum(cost_usd) AS cost, min(started_at) AS first FROM calls")
            calls, cost, first = total.iloc[0]
            since = f" since {first:%Y-%m-%d}" if calls else ""
            lines.append(f"{calls:,} call{'' if calls == 1 else 's'}, ${0 if cost != cost else cost:,.4f}{since}")
        except LedgerError as error:
            lines.append(escape(str(error)))
        if self.note:
            lines.append(escape(self.note))
        return "<div>" + "<br>".join(lines) + "</div>"

    def df(self, last: int | None = None) -> pandas.DataFrame:
        """Return one row a call, newest last; with ``last`` only so many. ``schema.sql`` explains every column."""
        columns = ", ".join(FIRST)
        query = f"SELECT {columns}, * EXCLUDE ({columns}) FROM calls ORDER BY seq"  # noqa: S608 (our own names)
        if last is None:
            return self.sql(query)
        return self.sql(f"FROM (FROM ({query}) ORDER BY seq DESC LIMIT ?) ORDER BY seq", [last])

    def sql(self, query: str, params: Parameters = ()) -> pandas.DataFrame:
        """Answer a DuckDB query over the tables and views of ``schema.sql``; nothing it says can change the ledger.

        ``params`` fill ``?`` (a sequence) or ``$name`` (a mapping). Files and network are out of its reach. Raises
        LedgerError with DuckDB's own words.
        """
        try:
            with self._opened() as connection:
                answer = ask(connection, query, params)
        except Damaged as error:
            self.note = (
                f"The ledger {self.path} is damaged ({why(error)}). It is a copy: move it away and it is made anew."
            )
            with ExitStack() as stack:
                answer = ask(self._complete(stack, (self.standby,)), query, params)
        if self.note:
            answer.attrs["note"] = self.note
        return answer

    def spend(self, by: str | Sequence[str] = "model", since: str | date | datetime | None = None) -> pandas.DataFrame:
        """Return calls, tokens and USD by one or more of model, provider, user, session, endpoint, status, day, month.

        ``since`` is ``"today"``, ``"week"``, ``"month"``, an age such as ``"7d"``, ``"24h"`` or ``"30m"``, a date or a
        datetime (local where it names no zone). ``cost_usd`` leaves out the ``unpriced_calls``. Dearest first, or in
        order of time where the first ``by`` is one.
        """
        names = [by] if isinstance(by, str) else list(by)
        unknown = [name for name in names if name not in BY]
        if unknown or not names:
            name = unknown[0] if unknown else ""
            raise UserError(f"Spend cannot be grouped by {name!r}. {did_you_mean(name, sorted(BY))}")
        keys = ", ".join(f'{BY[name]} AS "{name}"' for name in names)
        condition, parameters = since_clause(since)
        order = "1" if names[0] in ("day", "month") else "cost_usd DESC NULLS LAST, calls DESC"
        return self.sql(
            f"SELECT {keys}, count(*) AS calls, count(*) FILTER (status <> 'ok') AS failed_calls, "  # noqa: S608
            "sum(input_tokens)::BIGINT AS input_tokens, sum(output_tokens)::BIGINT AS output_tokens, "
            "sum(total_tokens)::BIGINT AS tokens, sum(cost_usd)::DOUBLE AS cost_usd, "
            f"count(*) FILTER (cost_nanos IS NULL) AS unpriced_calls FROM calls {condition} "
            f"GROUP BY ALL ORDER BY {order}",
            parameters,
        )

    def verify(self, head: str | None = None) -> chain.Verification:
        """Check that the journal is what was written, and still has all that was copied; names the first bad row.

        ``head`` is one noted earlier (``verify().head``, 64 hex digits) and kept where nobody who can write the journal
        can: that row must still be there, so that neither a cut end nor a chain written anew goes unseen.
        """
        known = self._watermark()
        return chain.verify(self.journal, [known] if known else (), head)

    def _watermark(self) -> tuple[int, bytes] | None:
        """Return the number and hash of the journal's last row that is in the file; None where that cannot be read."""
        journal_id = self.journal.meta("journal_id")
        with suppress(Unavailable), files.reading(self.path, self.patience, turn=self.path) as connection:
            mark = copying.mark_of(connection, str(journal_id), "ledger.main")
            return mark.seq, mark.hash
        return None

    def export(self, path: str | os.PathLike[str], *, form: str | None = None) -> Path:
        """Write the table of calls, oldest first, to a ``.parquet``, ``.csv`` or ``.jsonl`` file (0600); name it.

        A path without an ending is a folder, and gets Parquet files by month. ``form="otel"`` writes OpenTelemetry
        spans (OTLP/JSON, one object a line).
        """
        import duckdb  # here, because importing tokenkit must not import it

        target = Path(path).expanduser().absolute()
        copied = FORMATS.get(target.suffix.lower())
        if form not in (None, "otel") or (copied is None and target.suffix and form is None):
            raise UserError(
                f"Cannot export to {target.name!r}: name a file that ends in {', '.join(FORMATS)}, or a folder."
            )
        if not target.parent.is_dir():
            raise UserError(f"Cannot export to {target}: there is no folder {target.parent}.")
        try:
            # In a folder that is only ours, because DuckDB makes files with the umask's mode.
            with (
                self._opened(exports=True) as connection,
                TemporaryDirectory(dir=target.parent, prefix=".tokenkit-") as folder,
            ):
                draft = Path(folder, target.name)
                if form == "otel":
                    life.as_spans(connection, draft)
                elif copied is None:
                    life.by_month(connection, target)
                    return target
                else:
                    files.save(connection, "SELECT * FROM calls ORDER BY seq", draft, copied)
                draft.chmod(0o600)
                draft.replace(target)
        except (duckdb.Error, OSError) as error:
            raise LedgerError(f"Cannot export the ledger to {target}: {why(error)}") from error
        return target

    def import_(
        self, source: str | os.PathLike[str] | Iterable[Mapping[str, Any]], form: str | None = None
    ) -> Imported:
        """Take in calls that were logged elsewhere: a file, a folder, or rows.

        The file is JSON, JSON lines, CSV (any of them also as ``.gz``), Parquet, or a folder of Parquet as
        :meth:`export` writes it; a data frame will do, too. ``form`` is ``litellm`` (spend logs, or what its callbacks
        get), ``otel`` (OpenTelemetry GenAI spans), ``langfuse`` (its exports), ``llm`` (the ``logs.db`` of that tool),
        or ``table`` (our own column names); without it, it is guessed. Rows are known by their id; the faults of those
        left out are in the result. Raises UserError where nothing can be read.
        """
        faults: list[str] = []
        rows = imports.read(Path(source) if isinstance(source, str | os.PathLike) else source, form, faults)
        new, known = self._changed(lambda connection: life.take_in(connection, rows), "take in calls")
        return Imported(new, known, tuple(faults))

    def retain(self, days: float, *, texts_only: bool = False, keep_journal: bool = False) -> Retained:
        """Drop what is older than ``days``, or only its prompts and answers; the ledger then has no more of it.

        The journal lets go of the same old rows, whole, and keeps the rest as one chain (``keep_journal``, and a
        team's journal, keep all of it: a ledger made anew has the dropped calls again). What is left of a call whose
        texts were dropped is then in the ledger alone. The disk gets the space back with :meth:`compact`.
        """
        if not days >= 0:
            raise UserError(f"days must be at least 0, not {days!r}.")
        before = datetime.now(UTC) - timedelta(days=days)
        self.ingest()  # so that nothing old comes in afterwards
        done = self._changed(lambda connection: life.retain(connection, before, texts_only=texts_only), "drop calls")
        if keep_journal or not isinstance(self.journal, Journal):
            return done
        known = self._watermark()
        # Copied in between, so that the watermark stands on a row that stays.
        rows = let_go(self.journal, int(before.timestamp() * 10**9), known[0], self.ingest) if known else 0
        return replace(done, journal_rows=rows)

    def compact(self) -> int:
        """Give the disk back what dropped rows took, and return how many bytes; other kernels wait meanwhile."""
        before = self.path.stat().st_size if self.path.exists() else 0
        with files.taking_turns(self.path, exclusive=True, patience=self.patience):
            files.rewritten(self.path)
        after = self.path.stat().st_size if self.path.exists() else 0
        return before - after + (self.journal.compact() if isinstance(self.journal, Journal) else 0)

    def _changed(self, change: Callable[[duckdb.DuckDBPyConnection], T], what: str) -> T:
        import duckdb  # as in export

        try:
            with files.writing(self.path, self.patience, turn=self.path) as connection:
                return change(connection)
        except Unavailable as error:
            raise LedgerError(f"Cannot {what} now: {error}") from error
        except (duckdb.Error, OSError) as error:
            raise LedgerError(f"Cannot {what} in {self.path}: {why(error)}") from error

    def ingest(self) -> int:
        """Copy waiting rows from the journal into the file; return how many. Whoever asks does this by itself.

        Where the file cannot be written now, the rows stay in the journal, which loses nothing, and ``note`` says why.
        """
        self.note = None
        try:
            copied = self._copy_into(self.path, self.patience)
        except Unavailable as error:
            self.note = str(error)
            return 0
        self._retire_standby()
        return copied

    def _copy_into(self, path: Path, patience: float) -> int:
        """Copy all that waits, in turns of about a second so that other kernels get theirs."""
        import duckdb  # as in export

        journal_id, copied, done = str(self.journal.meta("journal_id")), 0, False
        while not done:
            until = time.monotonic() + 1
            try:
                with files.writing(path, patience, turn=self.path) as connection:
                    mark = copying.mark_of(connection, journal_id, "ledger.main")
                    start = mark = copying.true_mark(connection, self.journal, mark, "ledger.main")
                    done = True
                    for count, reached in copying.copy(connection, self.journal, journal_id, start):
                        copied, mark = copied + count, reached
                        if time.monotonic() > until:
                            done = False
                            break
            except (duckdb.Error, OSError) as error:
                raise Unavailable(
                    f"New calls cannot be copied into {path} ({why(error)}). They wait in the journal."
                ) from error
            if not done:
                time.sleep(0.02)  # longer than other kernels' polling: they come in between
        if path == self.path:
            self._copied = mark.seq
        return copied

    @contextmanager
    def _opened(self, exports: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
        """Yield a connection in which ``calls`` and the rest are complete: the file, the standby, or memory alone.

        It reaches nothing else, unless it ``exports``.
        """
        self.note = None
        if self.journal.head()[0] != self._copied or not self.path.exists() or self.standby.exists():
            try:
                # A reader can do without, see _complete; but not without a file, which another kernel may be making.
                self._copy_into(self.path, min(self.patience, 0.25) if self.path.exists() else self.patience)
                self._retire_standby()
            except Busy:
                pass  # nothing to tell: what waits is laid over the file in memory
            except Unavailable as error:
                self.note = str(error)
        with ExitStack() as stack:
            yield self._complete(stack, (self.path, self.standby), exports)

    def _complete(self, stack: ExitStack, paths: Sequence[Path], exports: bool = False) -> duckdb.DuckDBPyConnection:
        import duckdb  # as in export

        journal_id = str(self.journal.meta("journal_id"))
        for path in paths:
            try:
                if path == self.standby:
                    self._copy_into(path, self.patience)
                with ExitStack() as attempt:
                    held = files.reading(path, self.patience, turn=self.path, exports=exports)
                    connection = attempt.enter_context(held)
                    mark = copying.mark_of(connection, journal_id, "ledger.main")
                    mark = copying.true_mark(connection, self.journal, mark, "ledger.main")
                    copying.overlay(connection, self.journal, journal_id, mark)
                    stack.push(attempt.pop_all())
                    return connection
            except (Unavailable, duckdb.Error) as error:
                self.note = self.note or why(error)
        connection = stack.enter_context((opened if exports else lent)(self.path))
        copying.overlay(connection, self.journal, journal_id, None)
        return connection

    def _retire_standby(self) -> None:
        if not self.standby.exists():
            return
        with suppress(Unavailable), files.taking_turns(self.path, exclusive=True, patience=0):
            for leftover in (self.standby, Path(f"{self.standby}.wal")):
                leftover.unlink(missing_ok=True)


def since_clause(since: str | date | datetime | None) -> tuple[str, list[object]]:
    """Return a WHERE clause for calls since then, and its parameters; the charts ask with it too."""
    if since is None:
        return "", []
    if isinstance(since, datetime):
        return "WHERE started_at >= CAST(? AS TIMESTAMPTZ)", [since.astimezone().isoformat()]
    if isinstance(since, date):
        return "WHERE started_at >= CAST(CAST(? AS TIMESTAMP) AS TIMESTAMPTZ)", [since.isoformat()]
    word = since.strip().lower()
    if word in ("today", "week", "month", "year"):
        return f"WHERE started_at >= date_trunc('{'day' if word == 'today' else word}', now())", []
    age = _AGO.fullmatch(word)
    if age is None:
        with suppress(ValueError):
            return since_clause(datetime.fromisoformat(word))
        raise UserError(f"since={since!r} is not understood: write 'today', 'month', '7d', '24h' or a date.")
    return f"WHERE started_at >= now() - INTERVAL {int(age[1])} {_UNITS[age[2]]}", []
