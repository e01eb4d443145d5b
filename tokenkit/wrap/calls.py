"""One call by somebody else's client: held before, heard along, and written down once, whatever ends it."""

from __future__ import annotations

import os
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Any

from tokenkit import config, pricing
from tokenkit.accounts import Accounts
from tokenkit.budget import ask, from_tables, who, worst_usage
from tokenkit.catalog import Model
from tokenkit.errors import LedgerError
from tokenkit.journal import Journal
from tokenkit.layers.recorded import transcript
from tokenkit.receipts import Attempt, Receipt, Status, new_id
from tokenkit.standing import refused
from tokenkit.tokens import count_messages, count_text
from tokenkit.types import Message, Request, Usage, messages_of
from tokenkit.wrap.reading import Hearing
from tokenkit.wrap.shapes import DIALECT, MESSAGES, is_answer, provider_of

if TYPE_CHECKING:
    from tokenkit.kit import Kit


@cache
def _default_books(home: str) -> tuple[Journal, Accounts, bool]:
    """Return the journal, accounts and whether prompts are kept, for calls without a kit."""
    said = config.load(None, os.environ)
    journal = Journal(said.home / "journal.sqlite3", durability=said.durability)
    return journal, Accounts(lambda: journal, from_tables(said.budgets)), said.store_prompts


_said: set[str] = set()


def _warn(what: str, error: BaseException) -> None:
    """Say a failure of ours once for each kind; the caller's own work goes on."""
    if what not in _said:
        _said.add(what)
        warnings.warn(f"tokenkit could not {what}: {type(error).__name__}: {error}", RuntimeWarning, stacklevel=4)


@dataclass
class Call:
    """One tracked call, from before it is made until its receipt is written."""

    shape: str
    client: Any
    model: str
    messages: Any
    kw: dict[str, Any]
    kit: Kit | None
    endpoint_name: str | None
    session: str | None
    id: str = field(default_factory=new_id)
    started_at: int = field(default_factory=time.time_ns)
    began: float = field(default_factory=time.perf_counter)
    first_chunk: float | None = None
    done: bool = False
    lock: Any = field(default_factory=threading.Lock)
    heard: Hearing = field(init=False)

    def __post_init__(self) -> None:
        self.heard = Hearing(DIALECT[self.shape])

    def arguments(self) -> dict[str, Any]:
        """Return what the client is called with: what the caller said, and nothing else."""
        return {"model": self.model, MESSAGES[self.shape]: self.messages, **self.kw}

    # Before.

    @property
    def user(self) -> str | None:
        """Whose call it is: what the caller tells the provider too."""
        said = self.kw.get("user")
        return said if isinstance(said, str) else None

    @property
    def books(self) -> tuple[Any, Accounts, bool]:
        """The journal, the accounts, and whether prompts are kept."""
        if self.kit is not None:
            return self.kit.journal, self.kit.accounts, self.kit.config.store_prompts
        return _default_books(os.environ.get("TOKENKIT_HOME", ""))

    @property
    def priced(self) -> Model:
        """The model, as it is priced today."""
        provider = provider_of(self.client, self.shape)
        return Model(provider, self.model, price=pricing.resolve(provider, self.model))

    @property
    def request(self) -> Request:
        """What is asked, as far as the books need to know it."""
        try:
            messages = messages_of(self.messages)
        except Exception:
            messages = (Message("user", str(self.messages)),)
        bounds = ("max_tokens", "max_completion_tokens", "max_output_tokens")
        most = next((self.kw[n] for n in bounds if isinstance(self.kw.get(n), int)), None)
        return Request(
            messages, f"{self.priced.provider}/{self.model}", self.priced.provider, most, user=self.user,
            session=self.session, endpoint_name=self.endpoint_name,
        )  # fmt: skip

    def reserve(self) -> None:
        """Hold the most the call can cost on every budget. Raises BudgetExceeded; nothing else may stop the call."""
        try:
            accounts = self.books[1]
            rules = accounts.rules()
            if not rules:
                return
            request, model = self.request, self.priced
            tokens = count_messages(request.messages, model.id)
            most = request if request.max_tokens is not None else replace(request, max_tokens=4096)
            asked = ask(most, model, tokens, self.started_at)
            if asked is None:
                return
            price = None if model.price is None else model.price.receipt(asked.input_tokens, self.started_at)
            usage = worst_usage(price, asked.input_tokens, asked.output_tokens)
            short = accounts.reserve(rules, who(request), self.id, asked, lambda: self._receipt("unknown", usage, None))
        except Exception as error:
            _warn("reserve a budget for a tracked call", error)
            return
        if short:
            raise refused(short)

    # After.

    def taken(self, result: Any) -> Any:
        """Return what the client returned: an answer, written down, or a stream that will be."""
        if self.kw.get("stream") or (not is_answer(result) and hasattr(result, "__next__")):
            return _Stream(result, self)
        self._noted(lambda: self.heard.whole(result))
        self.written("ok", None)
        return result

    async def awaited(self, result: Any) -> Any:
        """Do the same for an awaitable."""
        try:
            answer = await result
        except BaseException as stop:
            self.failed(stop)
            raise
        if self.kw.get("stream"):
            return _AsyncStream(answer, self)
        self._noted(lambda: self.heard.whole(answer))
        self.written("ok", None)
        return answer

    def failed(self, stop: BaseException) -> None:
        """Write down a call that did not end well."""
        self.written("error" if isinstance(stop, Exception) else "cancelled", stop)

    def chunk(self, part: Any) -> None:
        """Take in one part of a stream."""
        if self.first_chunk is None:
            self.first_chunk = time.perf_counter() - self.began
        self._noted(lambda: self.heard.part(part))

    def written(self, status: Status, stop: BaseException | None) -> None:
        """Write the receipt, once."""
        with self.lock:
            if self.done:
                return
            self.done = True
        try:
            accounts = self.books[1]
            usage = self.heard.response.usage
            # What a stream says at its beginning of its end is a placeholder: a stopped one is counted by us.
            if (usage is None and status == "ok") or (status != "ok" and self.heard.response.text):
                usage = self._estimated(usage)
            if status == "ok" and self.heard.refused is not None:
                status, stop = "error", self.heard.refused
            receipt = self._receipt(status, usage, stop)
            try:
                alerts = accounts.write(receipt)
            except LedgerError:
                accounts.forget(receipt)
                raise
            if alerts and self.kit is not None:
                self.kit.budgets.tell(alerts)
        except Exception as error:
            _warn("write down a tracked call", error)

    def _noted(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:
            _warn("read a client's answer", error)

    def _estimated(self, told: Usage | None) -> Usage:
        request = self.request
        size = None if told is None else told.input_tokens
        if size is None:
            size = count_messages(request.messages, request.model).tokens
        return Usage(size, count_text(self.heard.response.text, request.model).tokens, source="estimated")

    def _receipt(self, status: Status, usage: Usage | None, stop: BaseException | None) -> Receipt:
        model, request = self.priced, self.request
        price = None
        if model.price is not None and usage is not None:
            price = model.price.receipt(usage.input_tokens, self.started_at)
        cost = 0 if usage is None else None if price is None else price.cost(usage)
        seconds, kind = time.perf_counter() - self.began, type(stop).__name__ if stop is not None else None
        heard = self.heard.response
        called = ", ".join(call.name for call in heard.tool_calls)
        attempt = Attempt(
            model.id, model.provider, self.started_at, seconds, self.first_chunk, status=status, error_type=kind,
            response_model=heard.model, finish_reason=heard.finish_reason, usage=usage, cost_nanos=cost,
            price=price,
        )  # fmt: skip
        keep = self.books[2]
        made = Receipt(
            self.id, self.started_at, seconds, status, request.model, model.id, model.provider,
            finish_reason=heard.finish_reason, usage=usage, cost_nanos=cost, price=price, attempts=(attempt,),
            error_type=kind, streamed=bool(self.kw.get("stream")), user=self.user, session=self.session,
            endpoint_name=self.endpoint_name, prompt=transcript(request.messages) if keep else None,
            answer=heard.text if keep and heard.text else None,
            notes=(f"called tools: {called}",) if called else (),
        )  # fmt: skip
        redact = self.kit._redact if self.kit is not None else None
        return made if redact is None else redact(made)


class _Stream:
    """The client's stream, heard along: it is written down when it ends, is closed, or is let go of."""

    def __init__(self, inner: Any, call: Call) -> None:
        self._inner, self._call = inner, call
        self._parts = iter(inner)

    def __iter__(self) -> _Stream:
        return self

    def __next__(self) -> Any:
        try:
            part = next(self._parts)
        except StopIteration:
            self._call.written("ok", None)
            raise
        except BaseException as stop:
            self._call.failed(stop)
            raise
        self._call.chunk(part)
        return part

    def __enter__(self) -> _Stream:
        if hasattr(self._inner, "__enter__"):
            self._inner.__enter__()
        return self

    def __exit__(self, *error: Any) -> Any:
        self._call.written("cancelled", GeneratorExit())
        return self._inner.__exit__(*error) if hasattr(self._inner, "__exit__") else None

    def close(self) -> None:
        """Close the client's stream; what came is what is charged."""
        self._call.written("cancelled", GeneratorExit())
        if hasattr(self._inner, "close"):
            self._inner.close()

    def __del__(self) -> None:
        self._call.written("cancelled", GeneratorExit())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class _AsyncStream(_Stream):
    """The same for a stream of async code."""

    def __init__(self, inner: Any, call: Call) -> None:
        self._inner, self._call = inner, call
        self._parts = aiter(inner)

    def __aiter__(self) -> _AsyncStream:
        return self

    async def __anext__(self) -> Any:
        try:
            part = await anext(self._parts)
        except StopAsyncIteration:
            self._call.written("ok", None)
            raise
        except BaseException as stop:
            self._call.failed(stop)
            raise
        self._call.chunk(part)
        return part

    async def __aenter__(self) -> _AsyncStream:
        if hasattr(self._inner, "__aenter__"):
            await self._inner.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> Any:
        self._call.written("cancelled", GeneratorExit())
        return await self._inner.__aexit__(*error) if hasattr(self._inner, "__aexit__") else None
