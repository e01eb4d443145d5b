"""The journal: one SQLite file, shared by every kernel of a home, in which money and receipts are durable.

``chained`` is the list of receipts, each chained to the one before; ``files`` how the file is made and opened;
``retention`` how old rows are let go.
"""

from tokenkit.journal.chained import CALLS, GENESIS, Entry, Journal, append, written
from tokenkit.journal.files import APPLICATION_ID, MIGRATIONS, Durability, make_private
from tokenkit.journal.retention import beginning, let_go, vouched

__all__ = [
    "APPLICATION_ID",
    "CALLS",
    "GENESIS",
    "MIGRATIONS",
    "Durability",
    "Entry",
    "Journal",
    "append",
    "beginning",
    "let_go",
    "make_private",
    "vouched",
    "written",
]
