"""The Kit: one object that keeps the memory and turns what a caller says into calls, one or many."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from tokenkit import drivers, layers
from tokenkit.adversarial import Adversarial, adversarial
from tokenkit.asking import Asking
from tokenkit.assembly import temporary_home
from tokenkit.catalog import Model
from tokenkit.checkup import Checkup, check_all
from tokenkit.compress.asked import asked
from tokenkit.compress.pipeline import Compressed
from tokenkit.effects import Effect
from tokenkit.embeddings import Embeddings, Near, embed_all, nearest
from tokenkit.errors import AllFailed, UserError
from tokenkit.fanout import JUDGE, Batch, Comparison, Panel, Progress, judged, named_best, run_all, run_all_async
from tokenkit.layers.compressed import LLM, shortening
from tokenkit.layers.recorded import transcript
from tokenkit.options import Options
from tokenkit.providers.base import Provider
from tokenkit.receipts import Receipt, Trail, new_id
from tokenkit.route import Policy
from tokenkit.types import Delta, Message, Prompt, Request, Response, messages_of

if TYPE_CHECKING:
    from datetime import date, datetime

    import pandas

    from tokenkit.analysis.reconciling import Reconciled
    from tokenkit.analysis.replay import Replay
    from tokenkit.analysis.repricing import Prices, Repriced
    from tokenkit.analysis.totals import Summary
    from tokenkit.analysis.training import Training

    Since = str | date | datetime | None


class Kit(Asking):
    """Providers, models, routing, memory: everything a notebook needs to call language models and know the cost.

    ``config`` is the path of a ``tokenkit.toml`` (else it is searched for); ``home`` the folder of journal and ledger;
    ``providers`` and ``models`` replace what configuration and environment would give; ``policy`` says how to route.
    ``client`` and ``async_client`` may be httpx-compatible clients of your own; ``redact`` sees every receipt before it
    is written. Where no provider is configured the kit falls back to the simulated one and says so. A kit is safe to
    share between threads; close it, or use ``with``.

    Raises ConfigError, naming every problem at once.
    """

    @classmethod
    def simulated(
        cls, seed: int = 0, *, home: str | Path | None = None, prompt_cache: bool = False, **simulation: Any
    ) -> Kit:
        """Return an offline kit whose four models are simulated, deterministic by ``seed`` and priced.

        Its memory lives in a temporary folder unless ``home`` names one. ``simulation`` goes to the simulated provider:
        ``pace`` scales its waiting (0 is instant), ``faults`` scripts failures. With ``prompt_cache`` it keeps long
        prompts, and reads them at a tenth of the price.
        """
        from tokenkit.providers import simulated

        home = home or temporary_home()
        return cls(
            home=home,
            providers=[simulated.provider(seed=seed, prompt_cache=prompt_cache, **simulation)],
            models=simulated.models(prompt_cache=prompt_cache) + simulated.vectors(),
            environ={},
        )

    @classmethod
    def synthetic(cls, calls: int = 100_000, *, seed: int = 0, home: str | Path | None = None) -> Kit:
        """Return an offline kit with a history that never happened, to try analysis and what-if on.

        Its calls, models and ratings are synthetic and say so; new calls are answered by the simulated provider. A
        ``home`` that has a history, such as one that ``tokenkit demo --history`` made, is opened as it is.
        """
        from tokenkit.ledger.synthetic import models, write_history
        from tokenkit.providers import simulated

        folder = Path(home) if home is not None else temporary_home()
        if not (folder / "ledger.duckdb").exists():
            write_history(folder, calls, seed=seed)
        provider = simulated.provider(seed=seed, name="synthetic", pace=0)
        return cls(home=folder, providers=[provider], models=models(), environ={})

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
        return drivers.drive(self._arguing(prompt, planner, critic, rounds, show, options), self._world, show)

    async def aadversarial(
        self,
        prompt: Prompt,
        *,
        planner: str | None = None,
        critic: str | None = None,
        rounds: int = 1,
        show: Callable[[Delta], None] | None = None,
        **options: Unpack[Options],
    ) -> Adversarial:
        """Do as ``adversarial``, in async code: cancelling it ends the call under way at once."""
        flow = self._arguing(prompt, planner, critic, rounds, show, options)
        return await drivers.adrive(flow, self._async_world, show)

    def _arguing(
        self,
        prompt: Prompt,
        planner: str | None,
        critic: str | None,
        rounds: int,
        show: Callable[[Delta], None] | None,
        options: Options,
    ) -> Generator[Effect, Any, Adversarial]:
        if rounds < 1:
            raise UserError(f"rounds must be at least 1, not {rounds}.")
        request, trail = self._begin(prompt, options)
        best = [candidate.model for candidate in self.plan_request(request).eligible]
        planner = planner or next(iter(best), "auto")
        critic = critic or next((model for model in best if model != planner), planner)
        for name in (planner, critic):
            self._eligible(replace(request, model=name))
        asked = replace(request, stream=show is not None)
        return adversarial(self._asking, asked, planner=planner, critic=critic, rounds=rounds, deadline=trail.deadline)

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
        progress = self.on_progress if progress is True and self.on_progress is not None else progress
        return run_all(self._called, self._stored, requests, concurrency=concurrency, progress=progress, id=id)

    async def abatch(
        self,
        requests: Iterable[Prompt | Mapping[str, Any]],
        *,
        concurrency: int = 32,
        progress: bool | Progress = False,
        id: str | None = None,  # noqa: A002 - the word for it
    ) -> Batch:
        """Make many calls in async code; otherwise as ``batch``, which resumes it, and the other way round."""
        progress = self.on_progress if progress is True and self.on_progress is not None else progress
        return await run_all_async(
            self._acalled, self._stored, requests, concurrency=concurrency, progress=progress, id=id
        )

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
        layer = layers.compose(self._recorded, layers.retrying(3, budget=self._watch.retry_budget), self._budgeted)
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

    def compress(
        self,
        text_or_messages: Prompt,
        stages: str | Sequence[Any] = ("normalize", "dedupe", "summarize"),
        *,
        query: str | None = None,
        target: float | None = None,
        target_tokens: int | None = None,
        target_recall: float | None = None,
        keep: str | Sequence[str] = (),
        model: str = "gpt-4o",
        compress_all: bool = False,
    ) -> Compressed:
        """Shorten a text or messages, without a call: ``.text``, ``.messages``, ``.saved`` tokens, ``.reports``.

        ``target`` is the share of tokens to keep (0.5 without any), ``target_tokens`` a budget instead,
        ``target_recall`` the share of evidence that must stay instead. A text is shortened as a whole; of messages, not
        the system prompt nor the last user turn unless ``compress_all``. The stage ``llm`` asks the cheapest model
        that has room, and pays for it; the others ask nobody. Raises UserError.
        """
        wanted = asked(
            stages,
            target=target,
            query=query,
            keep=keep,
            tokens=target_tokens,
            recall=target_recall,
            everything=compress_all or isinstance(text_or_messages, str),
            known=(LLM, *self.stages),
        )
        if not isinstance(model, str):
            raise UserError(f"model must be text, not {model!r}.")
        if wanted is None:
            raise UserError("Say which stages compress, as in stages=['normalize', 'summarize'].")
        if isinstance(text_or_messages, str):  # an empty one too: it is not sent
            text_or_messages = Message("user", text_or_messages)
        messages = messages_of(text_or_messages)
        request = Request(messages, model=model, compress=wanted)
        flow = shortening(request, self.stages, self._abstracting)
        return drivers.drive(flow, self._world)

    def rate(self, call: Receipt | Response | str, rating: float, comment: str | None = None) -> None:
        """Say how good an answer was, from 0 to 1: what a policy learns from, and what-if is judged by.

        ``call`` is a receipt, a response, or an id or its end. It is written to the journal, so it is never lost; a
        second rating of the same call replaces the first. Raises UserError.
        """
        if isinstance(rating, bool) or not isinstance(rating, int | float) or not 0 <= rating <= 1:
            raise UserError(f"A rating is a number from 0 (bad) to 1 (good), not {rating!r}.")
        receipt = call.receipt if isinstance(call, Response) else call
        if isinstance(receipt, str):
            receipt = self.receipt(receipt)
        if receipt is None:
            raise UserError(f"There is no call {call!r} to rate.")
        now = time.time_ns()
        self.journal.write(
            Receipt(
                new_id(), now, 0.0, "ok", receipt.requested_model, receipt.model, receipt.provider,
                operation="rating", parent=receipt.id, rating=float(rating), answer=comment, user=receipt.user,
            )
        )  # fmt: skip

    # Looking back. Frames come from pandas, which is only imported when asked for one.

    def summary(self) -> Summary:
        """Return what was spent today and this month, by provider, model, user and endpoint."""
        from tokenkit.analysis.totals import summary

        return summary(self.ledger)

    def spikes(self, *, by: str = "hour", z: float = 5.0, since: Since = None) -> pandas.DataFrame:
        """Return the hours or days whose spend is far above the usual, by robust z-score of at least ``z``."""
        from tokenkit.analysis.totals import spikes

        return spikes(self.ledger, by=by, z=z, since=since)

    def reprice(self, *, at: datetime | None = None, prices: Prices = None, since: Since = None) -> Repriced:
        """Recompute history: at today's prices, at the published ones of a moment, or at ``prices`` of your own.

        ``prices`` is a profile such as ``"seed-2024"``, or maps ``provider/name`` to a PriceRule.
        """
        from tokenkit.analysis.repricing import reprice

        return reprice(self.ledger, self.catalog, at=at, prices=prices, since=since)

    def replay(
        self,
        *,
        weights: Mapping[str, float] | None = None,
        policy: Policy | None = None,
        models: Sequence[str] | None = None,
        since: Since = None,
    ) -> Replay:
        """Replay another policy over the log: choices and list prices exactly, outcomes estimated with an interval.

        ``weights`` are by model id or name, ``policy`` is this kit's without one, ``models`` the only ones it may take.
        Raises UserError for a policy whose choice depends on more than the log holds, such as latency.
        """
        from tokenkit.analysis.replay import replay

        now = self.policy
        chosen = now if policy is None else policy
        return replay(self.ledger, self.catalog, chosen, weights=weights, models=models, since=since, current=now)

    def learn(self, *, trade_off: float = 1.0, since: Since = None) -> Training:
        """Learn a routing policy from the log's ratings: ``.advice`` says whether to switch, ``.policy`` is the switch.

        It weighs the rating expected for a prompt against ``trade_off`` times the model's USD per 1,000 input tokens.
        Nothing routes by it until told to: ``kit.policy = kit.learn().policy``. Raises UserError without ratings.
        """
        from tokenkit.analysis.training import train

        return train(self.ledger, self.catalog, trade_off=trade_off, since=since)

    def compare_prices(self) -> pandas.DataFrame:
        """Return where this kit's prices and the published ones disagree, in USD per million tokens."""
        from tokenkit.analysis.repricing import compare_prices

        return compare_prices(self.catalog)

    def reconcile(
        self, csv: Any, *, columns: Mapping[str, str] | None = None, provider: str | None = None
    ) -> Reconciled:
        """Compare the ledger with a provider's usage or cost export, by day (UTC) and model.

        ``columns`` maps ``day``, ``model``, ``input_tokens``, ``output_tokens`` and ``cost`` to the file's own names
        where they are not recognised.
        """
        from tokenkit.analysis.reconciling import reconcile

        return reconcile(self.ledger, csv, columns=columns, provider=provider)

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

    async def _acalled(self, prompt: Prompt, parent: str, options: Options) -> Response:
        request, trail = self._begin(prompt, options)
        trail.parent = parent
        return await drivers.adrive(self._asking(request, trail), self._async_world)

    def _stored(self, run: str) -> dict[int, Receipt]:
        """Return the answered receipts of an earlier run of this batch, by place."""
        rows = self.ledger.sql("select id, parent from calls where parent like ? and status = 'ok'", (f"{run}:%",))
        receipts = {int(parent.rpartition(":")[2]): self.receipt(one) for one, parent in rows.itertuples(index=False)}
        return {place: r for place, r in receipts.items() if r is not None and r.answer is not None}
