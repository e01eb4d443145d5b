"""The drivers: the only place that does I/O. One loop for sync code, one for async, over the same flows.

drive(flow, World())          stream(flow, World())
await adrive(flow, AsyncWorld())   astream(flow, AsyncWorld())
"""

from tokenkit.drivers.loops import adrive, astream, drive, stream
from tokenkit.drivers.worlds import AsyncWorld, World

__all__ = ["AsyncWorld", "World", "adrive", "astream", "drive", "stream"]
