"""compressed: fold the stages a caller asked for over the messages, before anything is planned, held or sent.

Where the beginning of the messages was sent moments ago, the provider has it in its prompt cache at a lower price, and
a compression that changes it pays the full one: it is left undone where that costs more than it saves.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from threading import Lock
from typing import Any

from tokenkit.compress.asked import Asked, question_of
from tokenkit.compress.pipeline import STAGES, Compressed, Stage, compress
from tokenkit.effects import Call, Flow, Layer
from tokenkit.money import show_usd
from tokenkit.receipts import PriceReceipt, StageReport, Trail
from tokenkit.tokens import count_messages, count_text
from tokenkit.types import Message, Request

CACHE_SECONDS = 300.0
"""How long providers keep a prompt at least (OpenAI, Anthropic: five minutes of no use)."""

CACHE_TOKENS = 1024
"""The shortest prompt they keep (OpenAI; Anthropic's larger models)."""


def compressed(
    price_of: Callable[[Request], PriceReceipt | None],
    *,
    stages: Callable[[], Mapping[str, Stage]] = lambda: STAGES,
    sent: Sent | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Layer:
    """Compress the messages of requests that ask for it; ``price_of`` gives the price such a request would pay."""
    sent = sent or Sent()

    def layer(call: Call) -> Call:
        def flow(request: Request, trail: Trail) -> Flow:
            if request.compress is None:
                response = yield from call(request, trail)
                sent.remember(request.messages, clock())
                return response
            made = shorten(request.messages, request.compress, request.model, stages())
            reports, messages = made.reports, made.messages
            why = _dearer(request, messages, sent.known(request.messages, clock()), price_of)
            if why:
                reports, messages = tuple(_undone(report, why) for report in reports), request.messages
            trail.stages.extend(reports)
            response = yield from call(replace(request, messages=messages), trail)
            sent.remember(messages, clock())
            return response

        return flow

    return layer


def shorten(messages: Sequence[Message], asked: Asked, model: str, known: Mapping[str, Stage] = STAGES) -> Compressed:
    """Compress messages as asked, counting as ``model`` does.

    A prompt alone is what is to be shortened, though it is the last user turn; the question it ends with stays, and is
    what the rest is read for. Versions of a text that came earlier are what ``diff`` compares with.
    """
    counter = "gpt-4o" if model == "auto" else model

    def count(text: str) -> int:
        return count_text(text, counter).tokens

    texts = [message.text for message in messages]
    turns = [i for i, message in enumerate(messages) if message.role not in ("system", "developer")]
    alone = len(turns) == 1 and isinstance(messages[turns[0]].content, str)
    more: dict[str, Any] = {"model": counter, "count": count, "seen": tuple(texts[:-1])}
    if alone and not asked.everything:
        place = turns[0]
        body, question = (texts[place], "") if asked.query else question_of(texts[place])
        aim = asked.aim(**{**more, "query": asked.query or question.strip() or None})
        made = compress(body, asked.stages, aim, known)
        whole = replace(messages[place], content=made.messages[0].text + question)
        return Compressed((*messages[:place], whole, *messages[place + 1 :]), made.reports)
    query = asked.query or (texts[turns[-1]] if turns else None)
    aim = asked.aim(**{**more, "query": query})
    return compress(messages, asked.stages, aim, known)


class Sent:
    """Which beginnings of conversations went out lately, by digest: what a provider may still have in its cache."""

    def __init__(self, most: int = 2_000) -> None:
        self._most, self._lock = most, Lock()
        self._seen: OrderedDict[bytes, float] = OrderedDict()

    def remember(self, messages: Sequence[Message], now: float) -> None:
        """Note that these messages were sent at ``now`` (monotonic seconds)."""
        with self._lock:
            for digest in _digests(messages):
                self._seen[digest] = now
                self._seen.move_to_end(digest)
            while len(self._seen) > self._most:
                self._seen.popitem(last=False)

    def known(self, messages: Sequence[Message], now: float) -> int:
        """Return how many of the first messages went out just so within the time providers keep them."""
        found = 0
        with self._lock:
            for n, digest in enumerate(_digests(messages), 1):
                if now - self._seen.get(digest, -CACHE_SECONDS) < CACHE_SECONDS:
                    found = n
        return found


def _digests(messages: Sequence[Message]) -> list[bytes]:
    running, found = sha256(), []
    for message in messages:
        running.update(f"\0{message.role}\0{message.tool_calls or ''}\0".encode("utf-8", "surrogatepass"))
        for part in (message.content,) if isinstance(message.content, str) else message.content:
            running.update((part if isinstance(part, str) else repr(part)).encode("utf-8", "surrogatepass"))
        found.append(running.copy().digest())
    return found


def _dearer(
    request: Request, messages: Sequence[Message], known: int, price_of: Callable[[Request], PriceReceipt | None]
) -> str:
    """Return why the prompt as it was is cheaper than the shorter one, because of what is cached; else nothing."""
    same = 0
    for old, new in zip(request.messages[:known], messages, strict=False):
        if old != new:
            break
        same += 1
    if same == known:  # nothing of what is cached was changed
        return ""
    price = price_of(request)
    if price is None or price.cache_read is None:
        return ""

    def count(part: Sequence[Message]) -> int:
        return count_messages(tuple(part), request.model if request.model != "auto" else "gpt-4o").tokens

    cached = count(request.messages[:known])
    if cached < CACHE_TOKENS:
        return ""
    kept = count(request.messages[:same]) if same else 0
    kept = kept if kept >= CACHE_TOKENS else 0
    before = cached * price.cache_read + (count(request.messages) - cached) * price.input
    after = kept * price.cache_read + (count(messages) - kept) * price.input
    if after <= before:
        return ""
    more = show_usd(round((after - before) / 10**6))
    return f"{cached:,} tokens are in the provider's cache by now: changing them would cost {more} more than it saves"


def _undone(report: StageReport, why: str) -> StageReport:
    return replace(report, after=report.before, skipped=report.skipped or why)
