"""compressed: fold the stages a caller asked for over the messages, before anything is planned, held or sent.

Where the beginning of the messages was sent moments ago, the provider has it in its prompt cache at a lower price, and
a compression that changes it pays the full one: it is left undone where that costs more than it saves.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from threading import Lock
from typing import Any

from tokenkit.compress.asked import Asked, question_of
from tokenkit.compress.pipeline import STAGES, Aim, Compressed, Stage, compress, texts_of, touchable, with_texts
from tokenkit.effects import Call, Effect, Flow, Layer
from tokenkit.errors import TokenkitError, UserError
from tokenkit.money import show_usd
from tokenkit.receipts import PriceReceipt, StageReport, Trail
from tokenkit.tokens import count_messages, count_text
from tokenkit.types import Message, Request

CACHE_SECONDS = 300.0
"""How long providers keep a prompt at least (OpenAI, Anthropic: five minutes of no use)."""

CACHE_TOKENS = 1024
"""The shortest prompt they keep (OpenAI; Anthropic's larger models)."""


LLM = "llm"
"""The stage that asks a cheap model to write the text shorter; it is a call like any other, so it lives here."""

SHORTER = (
    "Write the text below again in at most {words} words, so that everything stays that matters{purpose}. Use its own "
    "words where you can. Copy names, numbers, code, quotations and links exactly. Add nothing that is not in it, and "
    "say nothing about it: answer with the shorter text alone."
)

Ask = Callable[[Request, Trail], Flow]
"""Asks the model that abstracts, as a recorded and budgeted call."""


def compressed(
    price_of: Callable[[Request], PriceReceipt | None],
    *,
    stages: Callable[[], Mapping[str, Stage]] = lambda: STAGES,
    ask: Ask | None = None,
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
            made = yield from shortening(request, stages(), ask, trail)
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


def shortening(
    request: Request, known: Mapping[str, Stage] = STAGES, ask: Ask | None = None, trail: Trail | None = None
) -> Generator[Effect, Any, Compressed]:
    """Compress a request's messages as it asks, counting as its model does. Only the stage ``llm`` needs the world.

    A prompt alone is what is to be shortened, though it is the last user turn; the question it ends with stays, and is
    what the rest is read for. Versions of a text that came earlier are what ``diff`` compares with. Without ``ask``,
    ``llm`` is skipped.
    """
    asked: Asked = request.compress
    counter = "gpt-4o" if request.model == "auto" else request.model
    part, question, aim = _task(request.messages, asked, counter)
    before = sum(map(aim.count, (message.text for message in part)))
    reports: tuple[StageReport, ...] = ()
    made: Compressed | None = None
    for steps in _runs(asked.stages):
        if steps == (LLM,) and LLM not in known:
            steps = ((yield from _abstract(part, aim, before, ask, request, trail)),)
        made = compress(part, steps, aim, known)
        part, reports = made.messages, (*reports, *made.reports)
        left = sum(map(aim.count, (message.text for message in part)))
        if aim.tokens is None and aim.recall is None and left:
            aim = replace(aim, target=min(max(asked.aim().target * before / left, 1e-6), 1.0))
    messages = list(request.messages)
    if question is not None:
        place = next(i for i, message in enumerate(messages) if message.role not in ("system", "developer"))
        messages[place] = replace(messages[place], content=part[0].text + question)
    else:
        messages = list(part)
    return Compressed(tuple(messages), reports)


def _task(messages: Sequence[Message], asked: Asked, counter: str) -> tuple[tuple[Message, ...], str | None, Aim]:
    """Return what to shorten, the question that follows it (None: these are all the messages), and the aim."""

    def count(text: str) -> int:
        return count_text(text, counter).tokens

    more: dict[str, Any] = {"model": counter, "count": count, "seen": tuple(m.text for m in messages[:-1])}
    turns = [message for message in messages if message.role not in ("system", "developer")]
    if len(turns) == 1 and isinstance(turns[0].content, str) and not asked.everything:
        body, question = (turns[0].text, "") if asked.query else question_of(turns[0].text)
        aim = asked.aim(**{**more, "query": asked.query or question.strip() or None, "everything": True})
        return (replace(turns[0], content=body),), question, aim
    query = asked.query or (turns[-1].text if len(turns) > 1 else None)
    return tuple(messages), None, asked.aim(**{**more, "query": query})


def _runs(stages: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Split stages where one of them has to be asked of a model."""
    runs: list[tuple[Any, ...]] = []
    for stage in stages:
        if stage == LLM or not runs or runs[-1] == (LLM,):
            runs.append((stage,))
        else:
            runs[-1] = (*runs[-1], stage)
    return runs


@dataclass(frozen=True, slots=True)
class _Written:
    """A stage whose texts a model has written already, or that says why there are none."""

    texts: tuple[str, ...]
    why: str = ""
    name: str = LLM
    lossless: bool = False

    def __call__(self, messages: tuple[Message, ...], aim: Aim) -> tuple[Message, ...]:
        if self.why:
            raise UserError(self.why)
        return with_texts(messages, self.texts, touchable(messages, everything=aim.everything))


def _abstract(
    messages: tuple[Message, ...], aim: Aim, before: int, ask: Ask | None, request: Request, trail: Trail | None
) -> Generator[Effect, Any, _Written]:
    """Ask a model for each text that may be touched, as calls of their own with this one as their parent."""
    if ask is None:
        return _Written((), "a plan asks no model")
    texts = []
    purpose = f" for the question {aim.query!r}" if aim.query else ""
    for text in texts_of(messages, touchable(messages, everything=aim.everything)):
        size = aim.count(text)
        goal = max(int(aim.target * size), 1) if aim.tokens is None else max(aim.tokens * size // max(before, 1), 1)
        wanted = Request(
            (Message("system", SHORTER.format(words=max(goal * 3 // 4, 8), purpose=purpose)), Message("user", text)),
            max_tokens=goal + 16,
            user=request.user,
            session=request.session,
            endpoint_name=request.endpoint_name,
            budget=request.budget,
        )
        try:
            reply = yield from ask(wanted, Trail(parent=trail.id if trail is not None else None, operation="compress"))
        except TokenkitError as error:
            return _Written((), f"the model did not answer: {error}")
        texts.append(reply.text)
    return _Written(tuple(texts))


class Sent:
    """Which beginnings of conversations went out lately, by digest: what a provider may still have in its cache."""

    def __init__(self, most: int = 2_000) -> None:
        self._most, self._lock = most, Lock()
        self._seen: OrderedDict[bytes, float] = OrderedDict()

    def remember(self, messages: Sequence[Message], now: float) -> None:
        """Note that these messages were sent at ``now`` (monotonic seconds)."""
        if sum(len(message.text) for message in messages) < CACHE_TOKENS:
            return  # not a token is shorter than a character, or nearly so: no provider keeps this
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
