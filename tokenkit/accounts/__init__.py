"""Accounts: what every budget has spent and holds, so that no two kernels can spend the same money.

``entries`` are holds and purses, ``books`` the statements that move amounts within one transaction of the journal,
``keeping`` what the budgeted layer and users hold in their hands.
"""

from tokenkit.accounts.entries import Cap, capped, standing_of
from tokenkit.accounts.keeping import LEASE_SECONDS, Accounts

__all__ = ["LEASE_SECONDS", "Accounts", "Cap", "capped", "standing_of"]
