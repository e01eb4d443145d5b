"""Many calls at once: batches that keep their order and resume, models compared side by side, panels with a judge.

Fan-out stands above flows: a pool of threads, each driving an ordinary call. Every call leaves its own receipt, whose
parent names the run, so a batch that was killed goes on where it stopped.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from tokenkit.errors import TokenkitError, UserError
from tokenkit.money import show_usd, usd
from tokenkit.receipts import Receipt, new_id
from tokenkit.types import Prompt, Response, Usage

Progress = Callable[[int, int], None]
"""Told how many calls are done, and how many there are."""

JUDGE = """You are the judge. Below are a task and several answers to it, each under a letter. Say in a sentence what \
each does well and badly, then name the best one on a last line of its own, like this: BEST: A"""


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one request of a batch: its response or its error, and whether an earlier run had answered it."""

    place: int
    response: Response | None = None
    error: TokenkitError | None = None
    resumed: bool = False

    @property
    def text(self) -> str | None:
        """The answer's text; ``None`` where the call failed."""
        return None if self.response is None else self.response.text

    @property
    def receipt(self) -> Receipt | None:
        """The call's receipt, failed or not."""
        if self.response is not None:
            return self.response.receipt
        receipt: Receipt | None = self.error.receipt if self.error is not None else None
        return receipt


@dataclass(frozen=True, slots=True)
class Batch(Sequence[Result]):
    """The results of a batch in the order of its requests. ``id`` resumes it; ``failed`` lists what went wrong."""

    id: str
    results: tuple[Result, ...]

    def __len__(self) -> int:
        return len(self.results)

    def __getitem__(self, place: Any) -> Any:
        return self.results[place]

    def __iter__(self) -> Iterator[Result]:
        return iter(self.results)

    @property
    def failed(self) -> tuple[Result, ...]:
        """The results whose call failed."""
        return tuple(result for result in self.results if result.error is not None)

    @property
    def cost(self) -> Decimal | None:
        """What the whole batch cost in USD, earlier runs included; ``None`` when a price is unknown."""
        return usd(total(result.receipt for result in self.results))

    def __repr__(self) -> str:
        spent = show_usd(total(result.receipt for result in self.results))
        fine = len(self.results) - len(self.failed)
        return f"Batch({self.id!r}, {fine} of {len(self.results)} answered, {spent})"


@dataclass(frozen=True, slots=True)
class Comparison:
    """One prompt, several models: ``results`` in the order of ``models``."""

    prompt: str
    models: tuple[str, ...]
    results: Batch = field(repr=False)

    def __getitem__(self, model: str) -> Result:
        found: Result = self.results[self.models.index(model)]
        return found

    def _repr_html_(self) -> str:
        from tokenkit import _html

        return _html.columns([(model, _shown(result)) for model, result in zip(self.models, self.results, strict=True)])


@dataclass(frozen=True, slots=True)
class Panel:
    """Several answers and a judge's verdict; ``best`` is the place of the answer named best, ``None`` if none was."""

    answers: Comparison
    verdict: Response
    best: int | None

    @property
    def text(self) -> str:
        """The best answer; the judge's words where no answer was named."""
        if self.best is None:
            return self.verdict.text
        return str(self.answers.results[self.best].text)

    @property
    def cost(self) -> Decimal | None:
        """What answers and verdict cost together, in USD."""
        return usd(total([*(r.receipt for r in self.answers.results), self.verdict.receipt]))


def run_all(
    call: Callable[..., Response],
    stored: Callable[[str], Mapping[int, Receipt]],
    requests: Iterable[Prompt | Mapping[str, Any]],
    *,
    concurrency: int = 32,
    progress: bool | Progress = False,
    id: str | None = None,  # noqa: A002 - the word for it
) -> Batch:
    """Make every call, at most ``concurrency`` at once, and return the results in order.

    A request is a prompt, or a mapping with ``prompt`` and options. ``call`` also takes ``parent``; ``stored`` gives
    the receipts that an earlier run of this ``id`` left, by place. One failure does not end the rest; a mistake in a
    request (an unknown option, an empty prompt) is that request's failure.
    """
    run, asked, found = _begun(stored, requests, concurrency, id)
    tell = progress if callable(progress) else _line if progress else None
    done = len(found)
    with ThreadPoolExecutor(min(concurrency, max(len(asked), 1)), "tokenkit-batch") as threads:
        waiting = [
            threads.submit(_one, call, place, prompt, options, f"{run}:{place}")
            for place, (prompt, options) in enumerate(asked)
            if place not in found
        ]
        try:
            for future in as_completed(waiting):
                result = future.result()
                found[result.place] = result
                done += 1
                if tell is not None:
                    tell(done, len(asked))
        except BaseException:
            # Ctrl-C: what is under way ends and keeps its receipt, nothing new begins, and the id resumes the rest.
            threads.shutdown(wait=False, cancel_futures=True)
            raise
    return Batch(run, tuple(found[place] for place in range(len(asked))))


async def run_all_async(
    call: Callable[..., Awaitable[Response]],
    stored: Callable[[str], Mapping[int, Receipt]],
    requests: Iterable[Prompt | Mapping[str, Any]],
    *,
    concurrency: int = 32,
    progress: bool | Progress = False,
    id: str | None = None,  # noqa: A002 - the word for it
) -> Batch:
    """Do as ``run_all`` does, in async code: one task a call, and cancelling the batch cancels what is under way."""
    import asyncio  # late: whoever awaits this has it already

    run, asked, found = _begun(stored, requests, concurrency, id)
    tell = progress if callable(progress) else _line if progress else None
    gate, done = asyncio.Semaphore(concurrency), len(found)

    async def one(place: int, prompt: Prompt, options: dict[str, Any]) -> None:
        nonlocal done
        async with gate:
            try:
                found[place] = Result(place, await call(prompt, f"{run}:{place}", options))
            except TokenkitError as error:
                found[place] = Result(place, error=error)
        done += 1
        if tell is not None:
            tell(done, len(asked))

    async with asyncio.TaskGroup() as tasks:
        for place, (prompt, options) in enumerate(asked):
            if place not in found:
                tasks.create_task(one(place, prompt, options))
    return Batch(run, tuple(found[place] for place in range(len(asked))))


def _begun(
    stored: Callable[[str], Mapping[int, Receipt]],
    requests: Iterable[Prompt | Mapping[str, Any]],
    concurrency: int,
    id: str | None,  # noqa: A002 - the word for it
) -> tuple[str, list[tuple[Prompt, dict[str, Any]]], dict[int, Result]]:
    """Return the run's id, what to ask, and the results that an earlier run of it left."""
    asked = [_asked(place, request) for place, request in enumerate(requests)]
    if concurrency < 1:
        raise UserError(f"concurrency must be at least 1, not {concurrency}.")
    run = id or new_id()
    earlier = stored(run) if id else {}
    return run, asked, {place: _again(place, receipt) for place, receipt in earlier.items() if place < len(asked)}


def judged(task: str, answers: Sequence[str]) -> str:
    """Write what the judge reads: the task, and each answer under its letter."""
    lettered = "\n\n".join(f"Answer {chr(65 + i)}:\n\n{text}" for i, text in enumerate(answers))
    return f"The task:\n\n{task}\n\n{lettered}"


def named_best(verdict: str, answers: int) -> int | None:
    """Return the place of the answer a verdict's last ``BEST:`` line names; ``None`` where it names none."""
    for line in reversed(verdict.strip().splitlines()):
        word, _, letter = line.strip().strip("*").partition(":")
        if word.strip("* ").upper() == "BEST":
            place = ord(letter.strip(" *.")[:1].upper() or "?") - 65
            return place if 0 <= place < answers else None
    return None


def total(receipts: Iterable[Receipt | None]) -> int | None:
    """Add up what receipts cost in nano-USD; one unknown cost makes the sum unknown, a call never made is free."""
    costs = [receipt.cost_nanos for receipt in receipts if receipt is not None]
    return None if None in costs else sum(cost for cost in costs if cost is not None)


def _asked(place: int, request: Prompt | Mapping[str, Any]) -> tuple[Prompt, dict[str, Any]]:
    if isinstance(request, Mapping) and "prompt" in request:
        return request["prompt"], {key: value for key, value in request.items() if key != "prompt"}
    if isinstance(request, Mapping) and "role" not in request:
        raise UserError(f"Request {place} of the batch has no 'prompt'.")
    return request, {}


def _one(call: Callable[..., Response], place: int, prompt: Prompt, options: dict[str, Any], parent: str) -> Result:
    try:
        return Result(place, call(prompt, parent, options))
    except TokenkitError as error:
        return Result(place, error=error)


def _again(place: int, receipt: Receipt) -> Result:
    response = Response(
        receipt.answer or "",
        model=receipt.attempts[-1].response_model if receipt.attempts else None,
        provider=receipt.provider,
        finish_reason=receipt.finish_reason,
        usage=receipt.usage or Usage(),
        receipt=receipt,
    )
    return Result(place, response, resumed=True)


def _shown(result: Result) -> str:
    if result.error is not None:
        return f"{type(result.error).__name__}: {result.error}"
    spent = "" if result.receipt is None else f"\n\n{result.receipt!r}"
    return f"{result.text}{spent}"


def _line(done: int, of: int) -> None:
    bar = "█" * (20 * done // max(of, 1))
    print(f"\r{bar:░<20} {done} of {of} calls done", end="\n" if done == of else "", file=sys.stderr, flush=True)
