"""One call by somebody else's client: held before, heard along, and written down once, whatever ends it.

Nothing here raises but a budget that refuses, and the interrupts that are not errors.
"""

from __future__ import annotations

import atexit
import hashlib
import logging
import os
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

from tokenkit import catalog, config
from tokenkit.accounts import Accounts
from tokenkit.budget import ask, from_tables, who, worst_usage
from tokenkit.catalog import CHAT, Model
from tokenkit.errors import BudgetExceeded, LedgerError
from tokenkit.journal import Journal
from tokenkit.layers.recorded import redacted, transcript
from tokenkit.receipts import Attempt, Receipt, Status, new_id
from tokenkit.standing import refused
from tokenkit.tokens import count_text
from tokenkit.types import Request, Usage
from tokenkit.wrap import asked, failing
from tokenkit.wrap.reading import Hearing, is_raw
from tokenkit.wrap.shapes import Way, model_of, provider_of

if TYPE_CHECKING:
    from tokenkit.kit import Kit

SUPPOSED_TOKENS = 4096
"""How long an answer is supposed to get, for a reservation, where the caller sets no bound."""

PATIENCE = 0.5
"""Seconds that letting go of a stream waits for its receipt to be written."""

_said: set[str] = set()
_open: weakref.WeakSet[Call] = weakref.WeakSet()


@atexit.register
def _leave_open_streams() -> None:
    """Write down what is still being read when the interpreter ends: after that, threads and modules are gone."""
    for call in list(_open):
        call.left()


def warn(what: str, error: BaseException) -> None:
    """Say a failure of ours once for each kind; the caller's own work goes on."""
    if what in _said:
        return
    _said.add(what)
    said = f"tokenkit could not {what}: {type(error).__name__}: {error}"
    try:
        warnings.warn(said, RuntimeWarning, stacklevel=4)
    except RuntimeWarning:  # where warnings are errors, this one is still not the caller's
        logging.getLogger("tokenkit").warning("%s", said)


class Books:
    """Where a call is written: a kit's, or those of the default home for calls without one."""

    def __init__(self, kit: Kit | None) -> None:
        self.kit = kit
        self.config, self.accounts = (kit.config, kit.accounts) if kit is not None else _default(_home())

    def write(self, receipt: Receipt) -> None:
        """Write a receipt, with what it takes from its budgets, as the caller's configuration wants it kept."""
        receipt = self.accounts.charged(receipt)
        if not self.config.store_prompts:
            receipt = replace(receipt, prompt=None, answer=None)
        if self.kit is not None:
            self.kit._write(redacted(receipt, self.kit._redact))
            return
        try:
            self.accounts.write(receipt)
        except LedgerError:
            self.accounts.forget(receipt)
            raise


def _home() -> str:
    return os.environ.get("TOKENKIT_HOME", "")


@cache
def _default(home: str) -> tuple[config.Config, Accounts]:
    said = config.load(None, os.environ)
    journal = Journal(said.home / "journal.sqlite3", durability=said.durability)
    return said, Accounts(lambda: journal, from_tables(said.budgets))


@dataclass(eq=False)
class Call:
    """One tracked call, from before it is made until its receipt is written. ``kw`` is what the client is told."""

    way: Way
    client: Any
    kw: Mapping[str, Any]
    kit: Kit | None = None
    endpoint_name: str | None = None
    session: str | None = None
    streamed: bool = False
    id: str = field(default_factory=new_id)
    pid: int = field(default_factory=os.getpid)
    started_at: int = field(default_factory=time.time_ns)
    began: float = field(default_factory=time.perf_counter)
    first_chunk: float | None = None
    done: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)
    heard: Hearing = field(init=False)
    beside: Usage | None = None  # what the client's own further requests used, as far as can be told

    def __post_init__(self) -> None:
        self.heard = Hearing(self.way.dialect)

    # Before.

    @cached_property
    def books(self) -> Books:
        """Where it is written."""
        return Books(self.kit)

    @property
    def model(self) -> Model:
        """The model, as it is priced today; where the caller names none, the one that answered."""
        provider = provider_of(self.client, self.way)
        name = model_of(self.kw.get("model") or self.heard.response.model, self.way.vendor)
        made = Model(provider, name, capabilities=frozenset({"embed"}) if self.way.dialect == "embeddings" else CHAT)
        return catalog.filled(made, overrides=self.books.config.overrides)

    @cached_property
    def request(self) -> Request:
        """What is asked, as far as the books need to know it."""
        provider, name = provider_of(self.client, self.way), model_of(self.kw.get("model"), self.way.vendor)
        more: dict[str, Any] = {"session": self.session, "endpoint_name": self.endpoint_name}
        try:
            return asked.request_of(self.kw, self.way.asked, name, provider, **more)
        except Exception as error:
            warn("read what a client is asked", error)
            return Request((), f"{provider}/{name}", provider, **more)

    def reserve(self) -> None:
        """Hold the most the call can cost on every budget. Raises BudgetExceeded; nothing else may stop the call."""
        self.started_at, self.began = time.time_ns(), time.perf_counter()
        try:
            self._reserve()
        except BudgetExceeded:
            self.done = True
            raise
        except Exception as error:
            warn("reserve a budget for a tracked call", error)
        except BaseException as stop:  # Ctrl-C before anything was sent
            self._settled("cancelled", None, stop)
            raise

    def _reserve(self) -> None:
        accounts = self.books.accounts
        rules = accounts.rules()
        if not rules:
            return
        request, model = self.request, self.model
        bounded = request if request.max_tokens is not None else replace(request, max_tokens=SUPPOSED_TOKENS)
        most = ask(bounded, model, asked.size_of(request, self.kw, self.way.asked), self.started_at)
        if most is None:
            return
        price = None if model.price is None else model.price.receipt(most.input_tokens, self.started_at)
        usage = worst_usage(price, most.input_tokens, most.output_tokens)
        lost = self._receipt("unknown", usage, None)
        if short := accounts.reserve(rules, who(request), self.id, most, lambda: lost):
            raise refused(short)

    # After.

    def answered(self, answer: Any) -> None:
        """Write down a call that was answered at once."""
        self._noted(lambda: self.heard.whole(answer.parse() if is_raw(answer) else answer))
        if self.way.vendor == "google":
            self._noted(lambda: self._reckon(answer))
        self.written("ok", None)

    def opened(self) -> None:
        """Note that a stream has begun, which may still be open when everything ends."""
        _open.add(self)

    def chunk(self, part: Any) -> None:
        """Take in one part of a stream."""
        if self.first_chunk is None:
            self.first_chunk = time.perf_counter() - self.began
        self._noted(lambda: self.heard.part(part))

    def failed(self, stop: BaseException) -> None:
        """Write down a call that did not end well."""
        if (answer := failing.answer_in(stop)) is not None:
            self._noted(lambda: self.heard.whole(answer))
        self.written("error" if isinstance(stop, Exception) else "cancelled", stop)

    def left(self) -> None:
        """Write down a stream that is read no further: all of it, where its end had come."""
        whole = self.heard.finished
        self.written("ok" if whole else "cancelled", None if whole else GeneratorExit())

    def forgotten(self) -> None:
        """Write down a stream that was let go of.

        Garbage is collected anywhere, in the middle of a write to the books too, where this thread would wait for
        itself: another one writes.
        """
        if self.done or os.getpid() != self.pid or sys.is_finalizing():  # at the end no thread would start
            return
        writer = threading.Thread(target=self.left, name="tokenkit-forgotten", daemon=True)
        writer.start()
        writer.join(PATIENCE)

    def written(self, status: Status, stop: BaseException | None) -> None:
        """Write the receipt, once."""
        with self.lock:
            if self.done or os.getpid() != self.pid:  # a forked child has not made this call
                return
            self.done = True
        try:
            usage = self._usage(status, stop)
        except Exception as error:
            warn("count a tracked call", error)
            usage = Usage()
        if status == "ok" and self.heard.refused is not None:
            status, stop = "error", self.heard.refused
        self._settled(status, usage, stop)

    def _settled(self, status: Status, usage: Usage | None, stop: BaseException | None) -> None:
        self.done = True
        try:
            receipt = self._receipt(status, usage, stop)
            try:
                self.books.write(receipt)
            except KeyboardInterrupt:
                self.books.write(receipt)  # writing it twice writes it once
                raise
        except Exception as error:
            warn("write down a tracked call", error)

    def _noted(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:
            warn("read a client's answer", error)

    def _reckon(self, answer: Any) -> None:
        self.beside = asked.called_by_itself(answer, self.kw.get(self.way.asked), self.request.model)

    # What was used.

    def _usage(self, status: Status, stop: BaseException | None) -> Usage | None:
        heard = self.heard.response
        told = heard.usage
        if self.heard.refused is not None and told is None and not heard.text:
            return None  # refused by the provider, who billed nothing
        if stop is not None and not self.heard.begun and not failing.billed(stop):
            return None
        usage = self._complete(told or Usage(), sure=status == "ok" or self.heard.finished)
        if stop is not None and failing.unread(stop) and told is None:
            usage = replace(usage, output_tokens=None)  # there was an answer, and nobody here has seen it
        return usage if self.beside is None else usage + self.beside

    def _complete(self, told: Usage, sure: bool) -> Usage:
        """Return the usage that was told, with what is missing counted by us and marked as an estimate.

        Where the answer is not ``sure`` to have ended, what it told of its length so far is the least it can be.
        """
        size, written = told.input_tokens or None, told.output_tokens
        if size is not None and written is not None and sure:
            return told
        if size is None:
            size = asked.size_of(self.request, self.kw, self.way.asked).tokens
        if written is None or not sure or not told.input_tokens:
            written = max(written or 0, self._counted())
        return replace(told, input_tokens=size, output_tokens=written, source="estimated")

    def _counted(self) -> int:
        heard = self.heard.response
        text = heard.text + heard.reasoning + "".join(call.name + call.arguments for call in heard.tool_calls)
        return count_text(text, self.request.model).tokens * max(self.request.extra.values(), default=1)

    def _receipt(self, status: Status, usage: Usage | None, stop: BaseException | None) -> Receipt:
        model, request = self.model, self.request
        price = None
        if model.price is not None and usage is not None:
            price = model.price.receipt(usage.input_tokens, self.started_at)
        cost = 0 if usage is None else None if price is None else price.cost(usage)
        seconds, kind = time.perf_counter() - self.began, type(stop).__name__ if stop is not None else None
        heard, prompt = self.heard.response, transcript(request.messages)
        attempt = Attempt(
            model.id, model.provider, self.started_at, seconds, self.first_chunk, status=status,
            http_status=failing.status_of(stop), error_type=kind, response_model=heard.model,
            finish_reason=heard.finish_reason, usage=usage, cost_nanos=cost, price=price,
        )  # fmt: skip
        return Receipt(
            self.id, self.started_at, seconds, status, request.model, model.id, model.provider,
            operation="embeddings" if self.way.dialect == "embeddings" else "chat",
            finish_reason=heard.finish_reason, usage=usage, cost_nanos=cost, price=price, attempts=(attempt,),
            error_type=kind, streamed=self.streamed, user=request.user, session=self.session,
            endpoint_name=self.endpoint_name, prompt=prompt, answer=heard.text or None, notes=self._notes(),
            prompt_sha256=hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).hexdigest(),
        )  # fmt: skip

    def _notes(self) -> tuple[str, ...]:
        called = ", ".join(call.name for call in self.heard.response.tool_calls)
        return (
            *((f"called tools: {called}",) if called else ()),
            *(
                ("the client called tools by itself: its requests before the last are estimated",)
                if self.beside
                else ()
            ),
        )
