"""A user's SQL, and what it may do: ask. It cannot change the ledger, nor reach files, network or settings.

``enable_external_access = false`` alone is not enough: DuckDB then still lets the attached file itself be detached,
attached again for writing, or copied over. So only statements that ask are let through.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tokenkit.errors import LedgerError

if TYPE_CHECKING:
    import duckdb
    import pandas

Parameters = Sequence[object] | Mapping[str, object]


class Damaged(LedgerError):
    """The file itself could not be read while answering, whatever the question."""


def ask(connection: duckdb.DuckDBPyConnection, query: str, parameters: Parameters = ()) -> pandas.DataFrame:
    """Answer a query on a connection of a sealed instance. Raises LedgerError in one line."""
    import duckdb  # here, because importing tokenkit must not import it

    try:
        statements = connection.extract_statements(query)
        if not statements:
            raise LedgerError("There is no query: write one such as 'SELECT * FROM calls'.")
        for statement in statements:
            _asks(statement)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # DuckDB's own use of pandas, not ours to mend
            connection.execute(query, parameters) if parameters else connection.execute(query)
            return connection.df()
    except duckdb.Error as error:
        broken = (duckdb.IOException, duckdb.InternalException, duckdb.FatalException, duckdb.SerializationException)
        if isinstance(error, broken) or "Corrupt database file" in str(
            error
        ):  # a failed checksum has no class of its own
            raise Damaged(why(error)) from error
        raise LedgerError(f"The ledger cannot answer that: {why(error)}") from error


def _asks(statement: duckdb.Statement) -> None:
    kind, text = statement.type.name, statement.query
    if kind == "SELECT" or kind == "MULTI":  # MULTI is what DuckDB 2 makes of PIVOT
        return
    if kind == "CREATE" and not text:  # what DuckDB 1 makes of PIVOT, beside a SELECT; nobody wrote it
        return
    if kind == "EXPLAIN" and not re.search(r"\bcopy\b", text, re.IGNORECASE):  # EXPLAIN ANALYZE COPY would write
        return
    raise LedgerError(
        f"The ledger only answers questions, and {kind.replace('_', ' ')} is none: "
        "SELECT, FROM, WITH, PIVOT, DESCRIBE, SUMMARIZE, SHOW and EXPLAIN are."
    )


def why(error: BaseException) -> str:
    """Return DuckDB's message as one line, without its class, its stack and its drawing of the place."""
    text = str(error).split("\n\nLINE ", 1)[0].split("\n\nStack Trace", 1)[0]
    return " ".join(re.sub(r"^[A-Za-z ]+ Error: ", "", text).split())
