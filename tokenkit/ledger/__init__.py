"""The ledger: the columnar copy of the journal that everybody queries.

``schema.sql`` documents every table and view; ``ingest.sql`` turns the journal's JSON into columns, which ``copying``
does exactly once; ``files`` knows who may open the DuckDB file, and when; ``questions`` what a user's SQL may do;
``chain`` whether the journal is what was written; ``book`` is what users hold in their hands.
"""

from tokenkit.ledger.book import Ledger
from tokenkit.ledger.chain import Verification

__all__ = ["Ledger", "Verification"]
