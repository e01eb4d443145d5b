"""Teams: the journal of many machines on PostgreSQL, with the same tables, the same chain and the same atomic budgets.

``journal`` is what kits hold in their hands; ``lines`` the few connections of one process; ``server`` how the server is
reached and what is said when it is not; ``tables`` the tables by version, and SQLite's SQL in PostgreSQL's words.
"""

from tokenkit.team.journal import TeamJournal

__all__ = ["TeamJournal"]
