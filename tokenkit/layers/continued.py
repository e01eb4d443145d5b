"""continued: within a session, send what has changed since a text the model was given, where that costs less.

Models remember nothing, so "has in context" means that the earlier text goes along again, from the provider's prompt
cache at its lower price; behind it come its answer and the edits. Without a warm cache the whole text is cheaper, and
goes alone. The edits are applied here first, and sent only if they give exactly the new text.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from threading import Lock

from tokenkit.compress.align import shared_start
from tokenkit.compress.diff import apply, delta
from tokenkit.effects import Call, Flow, Layer
from tokenkit.layers.compressed import CACHE_TOKENS, Sent
from tokenkit.money import FEMTOS_PER_NANO, show_usd
from tokenkit.receipts import PriceReceipt, Trail
from tokenkit.tokens import count_messages, count_text
from tokenkit.types import Message, Request

ASKS = (
    "Apply these edits to my first message, and answer the edited message as if it were the first. A line with @ names "
    "lines of that message (with +, the place after one) and how many of the lines beneath it take their place."
)

Likely = Callable[[Request], tuple[str, PriceReceipt | None]]
"""The model that would be tried first, and the price it would be paid at."""


def continued(sessions: Sessions) -> Layer:
    """Turn a request that says ``changes`` into the cheaper of its text and the edits to an earlier one."""

    def layer(call: Call) -> Call:
        def flow(request: Request, trail: Trail) -> Flow:
            if not request.changes:
                return (yield from call(request, trail))
            sent, why = sessions.shorter(request)
            if why:
                trail.notes.append(why)
            response = yield from call(sent, trail)
            if trail.attempts and response.text:
                answer = Message("assistant", response.text)
                sessions.remember(request, sent, answer, trail.attempts[-1].model)
            return response

        return flow

    return layer


@dataclass(frozen=True, slots=True)
class _Earlier:
    """A text that was sent whole, with what stood before it, the answer it got, and the model that has seen it."""

    messages: tuple[Message, ...]
    answer: Message
    model: str

    @property
    def text(self) -> str:
        return self.messages[-1].text


class Sessions:
    """The texts that went out whole, by session: a few of each, of as many sessions as one kernel may have open."""

    def __init__(self, likely: Likely, sent: Sent, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._likely, self._sent, self._clock = likely, sent, clock
        self._texts: OrderedDict[tuple[str | None, str], list[_Earlier]] = OrderedDict()
        self._lock = Lock()

    def shorter(self, request: Request) -> tuple[Request, str]:
        """Return the request to send, and what to tell of it; nothing is told of the first text of a session."""
        with self._lock:
            known = list(self._texts.get((request.user, request.session or ""), ()))
        earlier = _nearest(request, known)
        if earlier is None:
            return request, ""
        edits = delta(earlier.text, request.messages[-1].text)
        if edits == request.messages[-1].text or apply(earlier.text, edits) != request.messages[-1].text:
            return request, "sent whole: edits to the session's earlier text would be longer"
        turns = (*earlier.messages, earlier.answer, Message("user", f"{ASKS}\n{edits}"))
        changed = replace(request, messages=turns)
        why = self._declined(request, changed, earlier)
        if why:
            return request, f"sent whole: {why}"
        return changed, self._told(request, changed, edits)

    def remember(self, request: Request, sent: Request, answer: Message, model: str) -> None:
        """Keep a text that was sent whole, for the next ones of its session."""
        if sent is not request:
            return
        with self._lock:
            texts = self._texts.setdefault((request.user, request.session or ""), [])
            texts[:] = [one for one in texts if one.text != request.messages[-1].text][-_TEXTS + 1 :]
            texts.append(_Earlier(request.messages, answer, model))
            self._texts.move_to_end((request.user, request.session or ""))
            while len(self._texts) > _SESSIONS:
                self._texts.popitem(last=False)

    def _declined(self, request: Request, changed: Request, earlier: _Earlier) -> str:
        """Return why the whole text is the better one to send; nothing where the edits are."""
        for one in (request, changed):
            model, price = self._likely(one)
            if model != earlier.model:
                return f"{model or 'no model'} would answer, and it is {earlier.model} that was given the earlier text"
            if price is None:
                return f"{model} has no known price, so nobody can tell which is cheaper"
        whole, edits = self._costs(request), self._costs(changed)
        if edits >= whole:
            cached = self._cached(changed)
            where = f"only {cached:,} tokens of the earlier text are" if cached else "the earlier text is not"
            return (
                f"{where} in the provider's cache now, so edits to it would cost {_usd(edits)}, the text {_usd(whole)}"
            )
        return ""

    def _told(self, request: Request, changed: Request, edits: str) -> str:
        whole, cost = self._costs(request), self._costs(changed)
        size, cached = count_text(edits, _name(request)).tokens, self._cached(changed)
        return (
            f"sent as {size:,} tokens of edits to the session's earlier text, of which {cached:,} tokens should come "
            f"from the provider's cache: {_usd(cost)} of input expected instead of {_usd(whole)}"
        )

    def _costs(self, request: Request) -> int:
        """Return what its input would cost in femto-USD, with what the provider should have in its cache."""
        price = self._likely(request)[1]
        if price is None:
            return 0
        tokens, cached = _count(request.messages, request), self._cached(request)
        read = price.input if price.cache_read is None else price.cache_read
        return cached * read + (tokens - cached) * price.input

    def _cached(self, request: Request) -> int:
        """Return how many tokens of its beginning went out lately, and would be read from a cache if there is one."""
        price = self._likely(request)[1]
        if price is None or price.cache_read is None:
            return 0
        known = self._sent.known(request.messages, self._clock())
        found = _count(request.messages[:known], request) if known else 0
        if found == 0 and request.session is not None:
            with self._lock:
                texts = list(self._texts.get((request.user, request.session), ()))
            now = self._clock()
            warm = [one for one in texts if self._sent.known(one.messages, now) == len(one.messages)]
            shared = max((shared_start(one.text, request.messages[-1].text) for one in warm), default=0)
            found = count_text(request.messages[-1].text[:shared], _name(request)).tokens
        return found if found >= CACHE_TOKENS else 0


_TEXTS, _SESSIONS = 4, 64


def _nearest(request: Request, known: Sequence[_Earlier]) -> _Earlier | None:
    """Return the text with most lines of the new one; None unless all that stands before it is the same."""
    *before, last = request.messages
    mine = set(last.text.split("\n")) if isinstance(last.content, str) else set()
    found: tuple[int, _Earlier | None] = (0, None)
    for one in known:
        same = list(one.messages[:-1]) == before and isinstance(one.messages[-1].content, str)
        size = sum(map(len, mine & set(one.text.split("\n")))) if same else 0
        if size > found[0] or (size and size == found[0]):  # the later of equals
            found = (size, one)
    return found[1]


def _count(messages: Sequence[Message], request: Request) -> int:
    return count_messages(tuple(messages), _name(request)).tokens


def _name(request: Request) -> str:
    return "gpt-4o" if request.model == "auto" else request.model


def _usd(femtos: int) -> str:
    return show_usd(round(femtos / FEMTOS_PER_NANO))
