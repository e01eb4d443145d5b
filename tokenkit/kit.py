"""The Kit: one object that stacks the layers, keeps the memory, and turns what a caller says into a call.

Every face (magics, command line, Python) goes through ``call``, ``stream``, ``acall``, ``astream`` or ``plan``; each of
them is the same request through the same layers, driven by the sync or the async driver.
"""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from tokenkit import drivers, layers
from tokenkit.adversarial import Adversarial, adversarial
from tokenkit.assembly import assemble, temporary_home, unlisted, vault_of
from tokenkit.catalog import Catalog, Model
from tokenkit.checkup import Checkup, check_all
from tokenkit.effects import Call, Layer, Sleep
from tokenkit.embeddings import Embeddings, Near, embed_all, nearest
from tokenkit.errors import AllFailed, UnknownModel, UserError
from tokenkit.fanout import JUDGE, Batch, Comparison, Panel, Progress, judged, named_best, run_all
from tokenkit.layers.recorded import transcript
from tokenkit.options import Options, request_of
from tokenkit.providers.base import Provider
from tokenkit.providers.completions import completing
from tokenkit.receipts import Plan, Receipt, Trail
from tokenkit.route import Policy, plan
from tokenkit.sharing import SharedBucket
from tokenkit.streams import AsyncStream, Stream
from tokenkit.tokens import count_messages, count_text, counts_like
from tokenkit.types import Delta, Message, Prompt, Request, Response, Secret, TokenCount, messages_of

if TYPE_CHECKING:
    from tokenkit.journal import Journal
    from tokenkit.ledger import Ledger
    from tokenkit.vault import Vault


class Kit:
    """Providers, models, routing, memory: everything a notebook needs to call language models and know the cost.

    ``config`` is the path of a ``tokenkit.toml`` (else it is searched for); ``home`` the folder of journal and ledger;
    ``providers`` and ``models`` replace what configuration and environment would give; ``policy`` says how to route.
    ``client`` and ``async_client`` may be httpx-compatible clients of your own; ``redact`` sees every receipt before it
    is written. Where no provider is configured the kit falls back to the simulated one and says so. A kit is safe to
    share between threads; close it, or use ``with``.

    Raises ConfigError, naming every problem at once.
    """

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
        self.on_sleep: Callable[[Sleep], None] | None = None
        self._turns = itertools.count()
        self._checkups: dict[str, Checkup] = {}
        self._watch = layers.Watch(found.limits(lambda name, rate: SharedBucket(name, rate, lambda: self.journal)))
        local = {p.base_url: p.local for p in found.providers if p.local is not None}
        self._world = drivers.World(locals=local, client=client, on_sleep=self._slept)
        self._async_world = drivers.AsyncWorld(locals=local, client=async_client, on_sleep=self._slept)
        self._redact = redact
        if self.notice:
            print(self.notice, file=sys.stderr)

    @classmethod
    def simulated(cls, seed: int = 0, *, home: str | Path | None = None, **simulation: Any) -> Kit:
        """Return an offline kit whose four models are simulated, deterministic by ``seed`` and priced.

        Its memory lives in a temporary folder unless ``home`` names one. ``simulation`` goes to the simulated provider:
        ``pace`` scales its waiting (0 is instant), ``faults`` scripts failures.
        """
        from tokenkit.providers import simulated

        home = home or temporary_home()
        return cls(
            home=home,
            providers=[simulated.provider(seed=seed, **simulation)],
            models=simulated.models() + simulated.vectors(),
            environ={},
        )

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
        """Decide without sending: every candidate with its score and upper-bound cost, or why it was rejected."""
        return self.plan_request(request_of(prompt, options, self.config.defaults))

    def count(self, text_or_messages: Prompt, model: str = "gpt-4o") -> TokenCount:
        """Count tokens for ``model`` offline; text is counted bare, messages with their chat overhead."""
        if isinstance(text_or_messages, str):
            return count_text(text_or_messages, model)
        return count_messages(messages_of(text_or_messages), model)

    # Asking more than once.

    def adversarial(
        self,
        prompt: Prompt,
        *,
        planner: str | None = None,
        critic: str | None = None,
        rounds: int = 1,
        show: Callable[[Delta], None] | None = None,
        **options: Unpack[Options],
    ) -> Adversarial:
        """Let ``planner`` answer, ``critic`` attack the answer, and the planner refine it, for ``rounds`` rounds.

        By default the plan's first two models. ``show`` is given every delta as it comes; one with a ``phase`` opens
        that phase. The result has ``.initial_plan``, ``.critique``, ``.refined_plan``, ``.rounds`` and ``.cost``.
        """
        if rounds < 1:
            raise UserError(f"rounds must be at least 1, not {rounds}.")
        request, trail = self._begin(prompt, options)
        best = [candidate.model for candidate in self.plan_request(request).eligible]
        planner = planner or next(iter(best), "auto")
        critic = critic or next((model for model in best if model != planner), planner)
        for name in (planner, critic):
            self._eligible(replace(request, model=name))
        asked = replace(request, stream=show is not None)
        flow = adversarial(self._asking, asked, planner=planner, critic=critic, rounds=rounds, deadline=trail.deadline)
        return drivers.drive(flow, self._world, show)

    def batch(
        self,
        requests: Iterable[Prompt | Mapping[str, Any]],
        *,
        concurrency: int = 32,
        progress: bool | Progress = False,
        id: str | None = None,  # noqa: A002 - the word for it
    ) -> Batch:
        """Make many calls, at most ``concurrency`` at once: results in order, failures among them, resumable by ``id``.

        A request is a prompt, or ``{"prompt": ..., "model": ..., ...}``. After a crash, the same requests with the same
        ``id`` ask only for what has no answer in the journal yet.
        """
        return run_all(self._called, self._stored, requests, concurrency=concurrency, progress=progress, id=id)

    def compare(self, prompt: Prompt, models: Sequence[str], **options: Unpack[Options]) -> Comparison:
        """Ask several models the same, at once, and see the answers side by side."""
        requests = [{**options, "prompt": prompt, "model": model} for model in models]
        text = transcript(messages_of(prompt))
        return Comparison(text, tuple(models), self.batch(requests, concurrency=len(models) or 1))

    def panel(self, prompt: Prompt, models: Sequence[str], judge: str, **options: Unpack[Options]) -> Panel:
        """Let several models answer and ``judge`` say which answer is best. Raises AllFailed when none answers."""
        answers = self.compare(prompt, models, **options)
        texts = [result.text for result in answers.results if result.text is not None]
        if not texts:
            raise AllFailed([(m, r.error) for m, r in zip(models, answers.results, strict=True) if r.error is not None])
        places = [result.place for result in answers.results if result.text is not None]
        verdict = self.call(judged(answers.prompt, texts), model=judge, system=JUDGE)
        best = named_best(verdict.text, len(texts))
        return Panel(answers, verdict, None if best is None else places[best])

    def embed(
        self,
        texts: str | Sequence[str],
        *,
        model: str | None = None,
        dimensions: int | None = None,
        user: str | None = None,
        endpoint_name: str | None = None,
    ) -> Embeddings:
        """Turn texts into vectors, in as few requests as the provider allows, each with its receipt.

        ``model`` is by default the first embedding model there is; ``dimensions`` shortens the vectors of models that
        can. Raises UnknownModel, or what the provider answers.
        """
        chosen = self._embedding_model(model)
        layer = layers.compose(self._recorded, layers.retrying(3, budget=self._watch.retry_budget))
        asked = Request((), chosen.id, chosen.provider, user=user, endpoint_name=endpoint_name)

        def ask(asks: Provider, messages: tuple[Message, ...]) -> Response:
            call = layer(layers.send(lambda _: (asks, chosen)))
            return drivers.drive(call(replace(asked, messages=messages), Trail(operation="embeddings")), self._world)

        return embed_all(texts, chosen, self._providers[chosen.provider], dimensions, ask)

    def similar(
        self, query: str, candidates: Sequence[str], *, top: int = 3, model: str | None = None
    ) -> tuple[Near, ...]:
        """Return the ``top`` candidates nearest to ``query`` by cosine similarity, each with score, text and place."""
        made = self.embed([query, *candidates], model=model)
        return nearest(made[0], made[1:], candidates, top)

    def health(self) -> dict[str, Checkup]:
        """Ask every provider, at once, whether it is there: latency, models or the error. Fresh for half a minute."""
        return check_all(self.providers, self._world, self._checkups)

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
        """Where each receipt is written durably, the moment its call ends."""
        from tokenkit.journal import Journal

        return Journal(self.home / "journal.sqlite3", durability=self.config.durability)

    @cached_property
    def ledger(self) -> Ledger:
        """Every call in DuckDB: ``.df()``, ``.sql("select ...")``, ``.spend(by="model")``, ``.verify()``."""
        from tokenkit.ledger import Ledger

        return Ledger(self.journal, self.home / "ledger.duckdb")

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

    def __enter__(self) -> Kit:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        names = ", ".join(self._providers) or "no provider"
        return f"Kit({names}; {len(self.models)} models; {self.home})"

    # How a call is put together.

    @cached_property
    def _recorded(self) -> Layer:
        return layers.recorded(self.journal.write, store_prompts=self.config.store_prompts, redact=self._redact)

    @cached_property
    def _asking(self) -> Call:
        layer = layers.compose(
            self._recorded,
            layers.routed(self.plan_request),
            layers.falling_back(),
            layers.limited(self._watch.limits),
            layers.watched(self._watch),
            layers.broken_off(self._watch.breaker),
            layers.retrying(3, budget=self._watch.retry_budget),
        )
        return layer(layers.keyed(self._keys.get, lambda key: layers.send(lambda request: self._target(request, key))))

    def _embedding_model(self, name: str | None) -> Model:
        able = [model for model in self.catalog.models if "embed" in model.capabilities]
        if name is None:
            if not able:
                raise UserError("No embedding model is configured: say model='openai/text-embedding-3-small', say.")
            return able[0]
        return self._eligible(Request((), model=name))[0]

    def _called(self, prompt: Prompt, parent: str, options: Options) -> Response:
        request, trail = self._begin(prompt, options)
        trail.parent = parent
        return drivers.drive(self._asking(request, trail), self._world)

    def _stored(self, run: str) -> dict[int, Receipt]:
        """Return the answered receipts of an earlier run of this batch, by place."""
        rows = self.ledger.sql("select id, parent from calls where parent like ? and status = 'ok'", (f"{run}:%",))
        receipts = {int(parent.rpartition(":")[2]): self.receipt(one) for one, parent in rows.itertuples(index=False)}
        return {place: r for place, r in receipts.items() if r is not None and r.answer is not None}

    def _begin(self, prompt: Prompt, options: Options) -> tuple[Request, Trail]:
        request = request_of(prompt, options, self.config.defaults)
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
        return plan(request, models, count=count, policy=self.policy, health=health, seed=next(self._turns))

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
