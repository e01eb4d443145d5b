"""The layers: each is one feature, written as a function from call to call.

Stacked in the order a request meets them, they read as a sentence:

    compose(recorded(journal), routed(decide), falling_back(), limited(...), broken_off(...), retrying(3))(send(...))
"""

from tokenkit.effects import compose
from tokenkit.layers.broken_off import broken_off
from tokenkit.layers.budgeted import budgeted
from tokenkit.layers.cached import cached, remembered
from tokenkit.layers.compressed import Sent, compressed
from tokenkit.layers.continued import Sessions, continued
from tokenkit.layers.falling_back import falling_back
from tokenkit.layers.keyed import Keys, keyed
from tokenkit.layers.limited import Limits, limited
from tokenkit.layers.recorded import recorded
from tokenkit.layers.retrying import retrying
from tokenkit.layers.routed import routed
from tokenkit.layers.sending import send
from tokenkit.layers.watched import Watch, watched

__all__ = [
    "Keys",
    "Limits",
    "Sent",
    "Sessions",
    "Watch",
    "broken_off",
    "budgeted",
    "cached",
    "compose",
    "compressed",
    "continued",
    "falling_back",
    "keyed",
    "limited",
    "recorded",
    "remembered",
    "retrying",
    "routed",
    "send",
    "watched",
]
