"""Asking: how one call is put together, driven, written down, and planned before it is sent.

Every face (magics, command line, Python) goes through ``call``, ``stream``, ``acall``, ``astream`` or ``plan``; each of
them is the same request through the same layers, driven by the sync or the async driver.
"""

from __future__ import annotations

import itertools
import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, Unpack, cast

from tokenkit import drivers, layers
from tokenkit.accounts import Accounts
from tokenkit.accounts.foresight import after, shut
from tokenkit.assembly import assemble, team_address, unlisted, vault_of
from tokenkit.budget import from_tables
from tokenkit.catalog import Catalog, Model
from tokenkit.checkup import Checkup
from tokenkit.compress.pipeline import STAGES, Stage
from tokenkit.effects import Call, Flow, Layer, Sleep
from tokenkit.errors import LedgerError, UnknownModel, UserError
from tokenkit.layers.budgeted import own_budget
from tokenkit.layers.compressed import LLM, shortening
from tokenkit.options import Options, request_of
from tokenkit.providers.base import Provider
from tokenkit.providers.completions import completing
from tokenkit.receipts import Plan, PriceReceipt, Receipt, Trail
from tokenkit.route import HEALTHY, Health, Policy, plan
from tokenkit.sharing import SharedBucket
from tokenkit.spending import Budgets
from tokenkit.standing import Alert
from tokenkit.streams import AsyncStream, Stream
from tokenkit.tokens import count_messages, count_text, counts_like
from tokenkit.types import Prompt, Request, Response, Secret, TokenCount, messages_of

if TYPE_CHECKING:
    from tokenkit.cache import Cache
    from tokenkit.journal import Journal
    from tokenkit.ledger import Ledger
    from tokenkit.vault import Vault


class Asking:
    """Providers, models, routing, memory, and one call through all of it; a Kit is this and what is built on it."""

    def __init__(
        self,
        config: str | Path | None = None,
        *,
        home: str | Path | None = None,
        providers: Iterable[Provider] | None = None,
        models: Iterable[Model] | None = None,
        policy: Policy | None = None,
        environ: Mapping[str, str] | None = None,
        client: Any = None,
        async_client: Any = None,
        redact: Callable[[Receipt], Receipt] | None = None,
    ) -> None:
        self._environ: Mapping[str, str] = os.environ if environ is None else environ
        found = assemble(config, self._environ, providers, models, home)
        self.config, self.home, self.notice = found.config, found.home, found.notice
        self._providers = {provider.name: provider for provider in found.providers}
        self._keys = {p.name: layers.Keys((p.key, *p.spare_keys)) for p in found.providers if p.key and p.spare_keys}
        self.catalog = Catalog(found.models)
        self.policy = policy or found.config.routing
        self.stages: Mapping[str, Stage] = STAGES
        self.on_sleep: Callable[[Sleep], None] | None = None
        self.on_progress: Callable[[int, int], None] | None = None
        self.on_receipt: list[Callable[[Receipt], None]] = []
        self._turns = itertools.count()
        self._sent = layers.Sent()
        self._sessions = layers.Sessions(self._likely, self._sent)
        self._checkups: dict[str, Checkup] = {}
        self._watch = layers.Watch(found.limits(lambda name, rate: SharedBucket(name, rate, lambda: self.journal)))
        local = {p.base_url: p.local for p in found.providers if p.local is not None}
        self._world = drivers.World(locals=local, client=client, on_sleep=self._slept)
        self._async_world = drivers.AsyncWorld(locals=local, client=async_client, on_sleep=self._slept)
        self._redact = redact
        shared = found.config.journal_env is not None
        if found.config.journal_env is not None:
            team_address(found.config.journal_env, self._environ)  # refused now rather than at the first call
        self.accounts = Accounts(lambda: self.journal, from_tables(found.config.budgets), shared=shared)
        if self.notice:
            print(self.notice, file=sys.stderr)

    # Asking: one request, one stack of layers, two drivers.

    def call(self, prompt: Prompt, **options: Unpack[Options]) -> Response:
        """Ask once and wait for the answer: ``.text``, ``.usage``, ``.receipt``.

        ``prompt`` is text, a message, or a list of them. Raises NoRoute before anything is sent, AllFailed after
        every candidate was tried, and the ProviderError itself where there was only one.
        """
        request, trail = self._begin(prompt, options)
        return drivers.drive(self._asking(request, trail), self._world)

    def stream(self, prompt: Prompt, **options: Unpack[Options]) -> Stream:
        """Ask, and iterate the answer as it comes; afterwards ``.text``, ``.response`` and ``.receipt`` are there."""
        request, trail = self._begin(prompt, options)
        flow = self._asking(replace(request, stream=True), trail)
        return Stream(drivers.stream(flow, self._world), trail)

    async def acall(self, prompt: Prompt, **options: Unpack[Options]) -> Response:
        """Ask once, in async code."""
        request, trail = self._begin(prompt, options)
        return await drivers.adrive(self._asking(request, trail), self._async_world)

    def astream(self, prompt: Prompt, **options: Unpack[Options]) -> AsyncStream:
        """Ask, and iterate the answer with ``async for``."""
        request, trail = self._begin(prompt, options)
        flow = self._asking(replace(request, stream=True), trail)
        return AsyncStream(drivers.astream(flow, self._async_world), trail)

    def plan(self, prompt: Prompt, **options: Unpack[Options]) -> Plan:
        """Decide without sending: every candidate with its score and upper-bound cost, or why it was rejected.

        ``.notes`` say what would be sent instead of the prompt, or that the answer is in the cache.
        """
        request = request_of(prompt, options, self.config.defaults, (LLM, *self.stages))
        notes = [layers.remembered(request, self.cache, self._routing_said(request))]
        if request.changes:
            request, told = self._sessions.shorter(request)
            notes.append(told.replace("sent ", "it would be sent ", 1))
        if request.compress is not None:
            made = drivers.drive(shortening(request, self.stages), self._world)  # without a model: nothing is sent
            request = replace(request, messages=made.messages)
            if made.after < made.before:
                notes.append(f"{made.before:,} tokens of it would be compressed to {made.after:,}")
        return replace(self.plan_request(request), notes=tuple(filter(None, notes)))

    def count(self, text_or_messages: Prompt, model: str = "gpt-4o") -> TokenCount:
        """Count tokens for ``model`` offline; text is counted bare, messages with their chat overhead."""
        if isinstance(text_or_messages, str):
            return count_text(text_or_messages, model)
        return count_messages(messages_of(text_or_messages), model)

    # What the kit knows.

    @property
    def providers(self) -> tuple[Provider, ...]:
        """The configured providers."""
        return tuple(self._providers.values())

    @property
    def models(self) -> tuple[Model, ...]:
        """The models that routing chooses from."""
        return self.catalog.models

    @cached_property
    def journal(self) -> Journal:
        """Where each receipt is written durably, the moment its call ends: this home's file, or the team's server."""
        from tokenkit.journal import Journal

        if self.config.journal_env is not None:
            from tokenkit.team import TeamJournal

            return cast("Journal", TeamJournal(team_address(self.config.journal_env, self._environ)))
        return Journal(self.home / "journal.sqlite3", durability=self.config.durability)

    @cached_property
    def ledger(self) -> Ledger:
        """Every call in DuckDB: ``.df()``, ``.sql("select ...")``, ``.spend(by="model")``, ``.verify()``."""
        from tokenkit.ledger import Ledger

        return Ledger(self.journal, self.home / "ledger.duckdb")

    @cached_property
    def cache(self) -> Cache:
        """Answers given before, for calls that say ``cache=True``: ``len(kit.cache)``, ``.clear()``."""
        from tokenkit.cache import Cache

        return Cache(self.home / "answers.sqlite3")

    @cached_property
    def budgets(self) -> Budgets:
        """Limits on what may be spent: ``.set("5 USD", window="day")``, ``.status()``, ``.remove(...)``."""
        return Budgets(self.accounts, webhook=self._environ.get(self.config.webhook_env or ""), world=self._world)

    @cached_property
    def vault(self) -> Vault:
        """Where keys rest: ``.set("openai")`` asks for one, ``.names()`` lists them; a new kit finds them there."""
        return vault_of(self.config, self._environ)

    def receipt(self, part: str = "") -> Receipt | None:
        """Return the latest receipt, or the latest whose id begins or ends with ``part``."""
        return self.journal.receipt(part)

    def close(self) -> None:
        """Close connections and memory; open streams are cancelled by their own ``close``."""
        self._world.close()
        self._async_world.close()
        if "journal" in self.__dict__:
            self.journal.close()

    async def aclose(self) -> None:
        """Close the connections of async calls, from the event loop that made them; the rest stays open."""
        await self._async_world.aclose()

    def standing(self) -> Mapping[str, Health]:
        """Return how each model stands now, as routing sees it: barred, busy, how fast; nothing is sent."""
        return self._watch.health(time.monotonic())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        names = ", ".join(self._providers) or "no provider"
        return f"{type(self).__name__}({names}; {len(self.models)} models; {self.home})"

    # How a call is put together.

    @cached_property
    def _recorded(self) -> Layer:
        return layers.recorded(
            self._write, charged=self.accounts.charged, store_prompts=self.config.store_prompts, redact=self._redact
        )

    def _write(self, receipt: Receipt) -> None:
        try:
            self._told(self.accounts.write(receipt))
        except LedgerError:
            self.accounts.forget(receipt)
            self._shown(receipt)
            raise
        self._shown(receipt)

    def _shown(self, receipt: Receipt) -> None:
        """Tell whoever listens for receipts; what they do wrong is theirs, and costs nobody an answer."""
        for listener in tuple(self.on_receipt):
            try:
                listener(receipt)
            except Exception as error:
                logging.getLogger("tokenkit").warning("A listener for receipts failed: %r", error)

    def _told(self, alerts: list[Alert]) -> None:
        if alerts:
            self.budgets.tell(alerts)

    def _routing_said(self, request: Request) -> str:
        """Return what decides, beside the request, which model answers it; nothing where it names one."""
        return "" if request.model != "auto" else f"{self.policy!r} {[model.id for model in self.models]}"

    @cached_property
    def _compressed(self) -> Layer:
        def price(request: Request) -> PriceReceipt | None:
            return self._likely(request)[1]

        return layers.compressed(price, stages=lambda: self.stages, ask=self._abstracting, sent=self._sent)

    def _abstracting(self, request: Request, trail: Trail) -> Flow:
        """Ask the cheapest model that takes the request: what the compression stage ``llm`` writes with."""
        fits = [candidate for candidate in self.plan_request(request).eligible if candidate.bound is not None]
        if not fits:
            raise UserError("no priced model has room for it")
        best = min(fits, key=lambda candidate: (candidate.bound or 0, candidate.model))
        return (yield from self._asking(replace(request, model=best.model), trail))

    def _likely(self, request: Request) -> tuple[str, PriceReceipt | None]:
        """Return the model that would be tried first and its price, without one for a cache that nobody asked for."""
        choice = self.plan_request(request).choice
        if choice is None or choice.input_tokens is None:
            return "", None
        provider, model = self._target(replace(request, model=choice.model), None)
        price = None if model.price is None else model.price.receipt(choice.input_tokens.tokens)
        if price is not None and provider.cache_field and provider.cache_field not in request.extra:
            price = replace(price, cache_read=None)
        return choice.model, price

    @cached_property
    def _budgeted(self) -> Layer:
        return layers.budgeted(self.accounts, lambda request: self._target(request, None)[1], told=self._told)

    @cached_property
    def _asking(self) -> Call:
        layer = layers.compose(
            self._recorded,
            layers.cached(self.cache, self._routing_said),
            layers.continued(self._sessions),
            self._compressed,
            layers.routed(self.plan_request),
            layers.falling_back(),
            layers.limited(self._watch.limits),
            layers.watched(self._watch),
            layers.broken_off(self._watch.breaker),
            layers.retrying(3, budget=self._watch.retry_budget),
            self._budgeted,
        )
        return layer(layers.keyed(self._keys.get, lambda key: layers.send(lambda request: self._target(request, key))))

    def _begin(self, prompt: Prompt, options: Options) -> tuple[Request, Trail]:
        request = request_of(prompt, options, self.config.defaults, (LLM, *self.stages))
        if request.cache is not None and not (self.config.store_prompts and self._redact is None):
            raise UserError("cache keeps answers as they came, and store_prompts = false or a redact hook forbids it.")
        self._eligible(request)  # a name that means no model is the caller's mistake: nothing to record
        deadline = None if request.deadline is None else time.monotonic() + request.deadline
        return request, Trail(deadline=deadline)

    def plan_request(self, request: Request) -> Plan:
        """Decide for a request that is built already: what the routed layer calls."""

        counts: dict[object, TokenCount] = {}
        pictured = any(message.images for message in request.messages)

        def count(model: Model) -> TokenCount:
            name = model.encoding or model.id
            key = name if pictured else counts_like(name)
            if key not in counts:
                counts[key] = count_messages(request.messages, name, request.tools)
            return counts[key]

        models, health = self._eligible(request), self._watch.health(time.monotonic())
        decide = partial(plan, request, models, count=count, policy=self.policy, seed=next(self._turns))
        try:
            rules = self.accounts.rules(own_budget(request))
            if not rules:
                return decide(health=health)
            closed = shut(self.accounts, rules, request, models, count, time.time_ns())
        except LedgerError:
            return decide(health=health)  # nobody can look now; the try itself asks again, and refuses
        barred = {
            model: replace(health.get(model, HEALTHY), barred=why)
            for model, (action, why) in closed.items()
            if action == "reroute"
        }
        return after(decide(health={**health, **barred}), closed)

    def _eligible(self, request: Request) -> tuple[Model, ...]:
        """Return the models a request may mean: all for ``auto``, else those of that name, else an unlisted one."""
        if request.provider is not None and request.provider not in self._providers:
            raise UnknownModel(request.provider, sorted(self._providers), what="provider")
        try:
            found = self.catalog.find(request.model, request.provider)
            return tuple(m for m in found if "chat" in m.capabilities) if request.model == "auto" else found
        except UnknownModel:
            prefix, _, name = request.model.partition("/")
            provider = prefix if prefix in self._providers else request.provider
            if provider is None or not (name or request.provider):
                raise
            return (unlisted(provider, name if prefix == provider else request.model, self.config),)

    def _target(self, request: Request, key: Secret | None) -> tuple[Provider, Model]:
        provider, _, name = request.model.partition("/")
        try:
            model = self.catalog.get(request.model)
        except UnknownModel:
            model = unlisted(provider, name, self.config)
        found = self._providers[provider]
        if "chat" not in model.capabilities:
            found = completing(found)
        return (found if key is None else replace(found, key=key)), model

    def _slept(self, sleep: Sleep) -> None:
        if self.on_sleep is not None:
            self.on_sleep(sleep)
