"""Stand-ins for somebody else's objects: whatever is asked of one, the object within answers, its class included."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from tokenkit.wrap.shapes import BY_PATH, RAW, Way, leads_on

_OURS = "_tk_"

Counted = Callable[[Callable[..., Any], Way, tuple[Any, ...], dict[str, Any]], Any]
"""Calls a client's method of this way with these arguments, and sees to the books."""


class Proxy:
    """One stand-in. Names that begin with ``_tk_`` are its own; all others are those of the object within."""

    def __init__(self, inner: Any) -> None:
        self._tk_inner = inner

    @property  # type: ignore[misc]
    def __class__(self) -> type:  # what checks for the client's own class is to find it
        return type(self._tk_inner)

    def __getattr__(self, name: str) -> Any:
        if name.startswith(_OURS):
            raise AttributeError(name)  # not there yet, or no more
        return getattr(self._tk_inner, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith(_OURS):
            object.__setattr__(self, name, value)
        else:
            setattr(self._tk_inner, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._tk_inner, name)

    def __dir__(self) -> list[str]:
        return dir(self._tk_inner)

    def __repr__(self) -> str:
        return repr(self._tk_inner)


class Place(NamedTuple):
    """Where one stands within a client: the names that lead there, and what counts the calls made from there."""

    counted: Counted
    path: tuple[str, ...] = ()

    def within(self, name: str, found: Any) -> Any:
        """Return what is found under a name, or what stands in for it where there is something to count."""
        if not self.path and name in ("with_options", "copy") and callable(found):
            return lambda *args, **kw: Client(found(*args, **kw), self)
        path = (*self.path, *(() if name in RAW else (name,)))
        if path in BY_PATH and callable(found):
            return Method(found, BY_PATH[path], self.counted)
        return Client(found, self._replace(path=path)) if leads_on(path) else found


class Client(Proxy):
    """A client, or a part of one, whose methods that cost money are counted."""

    def __init__(self, inner: Any, place: Place) -> None:
        super().__init__(inner)
        self._tk_place = place

    def __getattr__(self, name: str) -> Any:
        found = super().__getattr__(name)
        return self._tk_place.within(name, found)

    def __enter__(self) -> Client:
        self._tk_inner.__enter__()
        return self

    def __exit__(self, *error: Any) -> Any:
        return self._tk_inner.__exit__(*error)

    async def __aenter__(self) -> Client:
        await self._tk_inner.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> Any:
        return await self._tk_inner.__aexit__(*error)


class Method(Proxy):
    """A method that is counted when it is called."""

    def __init__(self, inner: Any, way: Way, counted: Counted) -> None:
        super().__init__(inner)
        self._tk_way, self._tk_counted = way, counted
        object.__setattr__(self, "__doc__", getattr(inner, "__doc__", None))

    def __call__(self, *args: Any, **kw: Any) -> Any:
        return self._tk_counted(self._tk_inner, self._tk_way, args, kw)
