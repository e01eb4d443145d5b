"""The ledger: the columnar copy of the journal that everybody queries.

schema.sql   every table and view, documented       files.py   who may open the DuckDB file, and when
ingest.sql   from the journal's JSON to columns     copying.py from the journal into the tables, exactly once
chain.py     is the journal what was written?       book.py    what a user asks: df, sql, spend, verify, export
"""

from tokenkit.ledger.book import Ledger
from tokenkit.ledger.chain import Verification

__all__ = ["Ledger", "Verification"]
