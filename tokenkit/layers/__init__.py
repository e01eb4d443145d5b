"""The layers: each is one feature, written as a function from call to call.

Stacked in the order a request meets them, they read as a sentence:

    compose(recorded(journal), routed(decide), falling_back(), retrying(3))(send(...))
"""

from tokenkit.effects import compose
from tokenkit.layers.falling_back import falling_back
from tokenkit.layers.recorded import recorded
from tokenkit.layers.retrying import retrying
from tokenkit.layers.routed import routed
from tokenkit.layers.sending import send

__all__ = ["compose", "falling_back", "recorded", "retrying", "routed", "send"]
