"""The fold of stages over messages: each may only shrink, must leave protected text whole, and reports what it did.

A stage is a callable from messages and an :class:`Aim` to messages, with a ``name`` and whether it is ``lossless``.
What a stage returns is taken only if it is smaller and harmless; else the messages stay as they were and the report
says why. So a stage may be wrong, and the prompt is still right.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import Any, Protocol

from tokenkit.compress.damage import damage
from tokenkit.compress.recall import recall
from tokenkit.errors import UserError, did_you_mean
from tokenkit.receipts import StageReport
from tokenkit.tokens import count, encoding_of
from tokenkit.types import Message


@dataclass(frozen=True, slots=True)
class Aim:
    """What a compression is for.

    ``target`` is the share of tokens to keep, above 0 and at most 1, of the text that may be touched; ``tokens``
    instead is a budget for all messages together; ``recall`` instead asks for as few tokens as keep that share of the
    evidence (see :func:`tokenkit.compress.recall.recall`). ``query`` is what the text will be asked; ``keep`` literal
    strings that survive; ``seen`` texts the model already has. ``count`` counts tokens as ``model`` does. Without
    ``everything``, the system prompt and the last user turn are not touched.
    """

    target: float = 0.5
    query: str | None = None
    keep: tuple[str, ...] = ()
    model: str = "gpt-4o"
    count: Callable[[str], int] = count
    seen: tuple[str, ...] = ()
    everything: bool = False
    tokens: int | None = None
    recall: float | None = None

    def __post_init__(self) -> None:
        for name, share in (("target", self.target), ("recall", self.recall)):
            number = isinstance(share, int | float) and not isinstance(share, bool)
            if share is not None and not (number and 0 < share <= 1):
                raise UserError(f"{name} is a share above 0 and at most 1, not {share!r}: 0.4 keeps 40 %.")
        if self.tokens is not None and not (isinstance(self.tokens, int) and self.tokens >= 1):
            raise UserError(f"A budget must be at least 1 token, and a whole number, not {self.tokens!r}.")


class Stage(Protocol):
    """One step of a compression.

    Two more attributes are read where they are there: ``aims`` (it shortens to ``aim.target``; by default every lossy
    stage does) and ``proves`` (it has proven by itself that nothing is lost, so its text may look quite different).
    """

    @property
    def name(self) -> str:
        """What reports and the ledger call it."""

    @property
    def lossless(self) -> bool:
        """Whether nothing that means anything is lost."""

    def __call__(self, messages: tuple[Message, ...], aim: Aim, /) -> tuple[Message, ...]:
        """Return the messages, shorter."""


@dataclass(frozen=True, slots=True)
class Rewriting:
    """A stage that shortens each text by itself with ``change(text, aim)``; a text that would not shrink stays."""

    name: str
    lossless: bool
    change: Callable[[str, Aim], str] = field(repr=False)

    def __call__(self, messages: tuple[Message, ...], aim: Aim) -> tuple[Message, ...]:
        """Shorten every text that may be touched; what one keeps beyond ``aim.target`` is taken from the next."""
        texts = list(texts_of(messages, touchable(messages, everything=aim.everything)))
        left = sum(map(aim.count, texts))
        budget = aim.target * left
        made = []
        for text in texts:
            size = aim.count(text)
            share = min(max(budget / left, 0.01), 1.0) if left else 1.0
            new = self.change(text, replace(aim, target=share)) if size else text
            now = aim.count(new) if new != text else size
            new, now = (new, now) if now < size and (new.strip() or not text.strip()) else (text, size)
            made.append(new)
            budget, left = budget - now, left - size
        return with_texts(messages, made, touchable(messages, everything=aim.everything))


@dataclass(frozen=True, slots=True)
class Compressed:
    """What a compression made of messages, and what each stage did to them."""

    messages: tuple[Message, ...]
    reports: tuple[StageReport, ...]

    @property
    def text(self) -> str:
        """The text of all messages, a blank line between them."""
        return "\n\n".join(message.text for message in self.messages)

    @property
    def before(self) -> int:
        """Tokens of the texts before the first stage."""
        return self.reports[0].before if self.reports else 0

    @property
    def after(self) -> int:
        """Tokens of the texts after the last stage."""
        return self.reports[-1].after if self.reports else 0

    @property
    def saved(self) -> int:
        """Tokens taken away by all stages."""
        return self.before - self.after

    @property
    def ratio(self) -> float | None:
        """Share of tokens kept; ``None`` where there were none."""
        return self.after / self.before if self.before else None

    def __repr__(self) -> str:
        share = "" if self.ratio is None else f", {self.ratio:.0%} kept"
        return (
            f"Compressed({self.before:,} to {self.after:,} tokens{share}; {', '.join(r.stage for r in self.reports)})"
        )

    def __str__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        from tokenkit._html import stages_card

        return stages_card(self.reports)


class _Stages(Mapping[str, Stage]):
    """The stages by name, each loaded when it is first asked for."""

    _names = ("normalize", "dedupe", "diff", "summarize", "hyperbolic")

    def __getitem__(self, name: str) -> Stage:
        if name not in self._names:
            raise KeyError(name)
        module = import_module(f"tokenkit.compress.{name}")
        made: Stage = module.STAGE
        return made

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


STAGES: Mapping[str, Stage] = _Stages()


def compress(
    messages: str | Sequence[Message],
    stages: Sequence[str | Stage | Callable[..., Any]],
    aim: Aim | None = None,
    known: Mapping[str, Stage] = STAGES,
) -> Compressed:
    """Apply ``stages`` in order: names of ``known``, stages, or plain functions of messages and aim.

    A lone text is compressed itself. Where several stages shorten to the target, each goes an equal part of the way.
    No stage may expand, fail, cut a protected span, or touch what is not to be touched: it is skipped, and its report
    says why. Raises UserError for a stage nobody knows.
    """
    aim = aim or Aim()
    if isinstance(messages, str):
        messages, aim = (Message("user", messages),), replace(aim, everything=True)
    steps = [_stage(stage, known) for stage in stages]
    given, aim = tuple(messages), replace(aim, count=_remembering(aim.count))
    if aim.recall is None:
        return _fold(given, steps, aim, ())
    # The stages that do not aim are the same for every target: the longest row of them in front runs once.
    first = next((i for i, step in enumerate(steps) if _aims(step)), len(steps))
    start = _fold(given, steps[:first], aim, ())
    done = start.reports[:first]
    best = _fold(start.messages, steps, replace(aim, target=1.0), done)
    low, high = 0.0, 1.0
    for _ in range(7):
        middle = (low + high) / 2
        tried = _fold(start.messages, steps, replace(aim, target=middle), done)
        if recall(_joined(given), tried.text, aim.query) >= aim.recall:
            high, best = middle, min(tried, best, key=lambda made: made.after)
        else:
            low = middle
    return best


def touchable(messages: Sequence[Message], *, everything: bool = False) -> tuple[bool, ...]:
    """Say of each message whether a stage may touch it: not the system prompt, nor the last user turn."""
    last = max((i for i, message in enumerate(messages) if message.role == "user"), default=-1)
    return tuple(everything or (m.role not in ("system", "developer") and i != last) for i, m in enumerate(messages))


def texts_of(messages: Sequence[Message], which: Sequence[bool] | None = None) -> Iterator[str]:
    """Yield every text of the messages, part by part, or of those that ``which`` says."""
    for message, wanted in zip(messages, which or (True,) * len(messages), strict=True):
        if wanted:
            parts = (message.content,) if isinstance(message.content, str) else message.content
            yield from (part for part in parts if isinstance(part, str))


def with_texts(messages: Sequence[Message], texts: Sequence[str], which: Sequence[bool]) -> tuple[Message, ...]:
    """Put ``texts`` in the places that :func:`texts_of` read them from; a message without a change stays the same."""
    left = iter(texts)
    made = []
    for message, wanted in zip(messages, which, strict=True):
        if not wanted:
            made.append(message)
        elif isinstance(message.content, str):
            text = next(left)
            made.append(message if text == message.content else replace(message, content=text))
        else:
            parts = tuple(next(left) if isinstance(part, str) else part for part in message.content)
            made.append(message if parts == message.content else replace(message, content=parts))
    return tuple(made)


def _fold(messages: tuple[Message, ...], steps: Sequence[Stage], aim: Aim, done: tuple[StageReport, ...]) -> Compressed:
    """Run the steps for which ``done`` has no report yet."""
    reports = list(done)
    exact = encoding_of(aim.model)[1]
    first = _size(messages, aim)
    goal = _goal(messages, aim)
    for i in range(len(done), len(steps)):
        step, share = steps[i], 1.0
        started = time.perf_counter()
        before = _size(messages, aim)
        if _aims(step):
            left = sum(map(_aims, steps[i:]))
            free = _size(messages, aim, touchable(messages, everything=aim.everything))
            share = min((goal / free) ** (1 / left), 1.0) if free else 1.0
        sealed = [r.stage for s, r in zip(steps, reports, strict=False) if _proves(s) and r.skipped is None]
        if sealed:
            made, why = messages, f"what {sealed[0]} made must stay as it is: put {sealed[0]} last"
        else:
            made, why = _tried(step, messages, replace(aim, target=max(share, 1e-6)), share)
        after = before if why else _size(made, aim)
        if not why and after >= before:
            made, after, why = messages, before, "it would not have saved a token"
        messages = messages if why else made
        seconds = time.perf_counter() - started
        reports.append(StageReport(step.name, before, after, seconds, step.lossless, exact, why or None))
    if not reports:
        reports.append(StageReport("none", first, first, 0.0, True, exact, "no stage was asked for"))
    return Compressed(messages, tuple(reports))


def _goal(messages: tuple[Message, ...], aim: Aim) -> float:
    """How many tokens the touchable texts shall have in the end."""
    free = _size(messages, aim, touchable(messages, everything=aim.everything))
    if aim.tokens is None:
        return aim.target * free
    return max(aim.tokens - (_size(messages, aim) - free), 1)


def _tried(step: Stage, messages: tuple[Message, ...], aim: Aim, share: float) -> tuple[tuple[Message, ...], str]:
    """Run one stage: what it made, or why that is not taken."""
    free = touchable(messages, everything=aim.everything)
    if not any(text.strip() for text in texts_of(messages, free)):
        return messages, "there is nothing it may touch"
    if _aims(step) and share >= 1:
        return messages, "the target is reached already"
    try:
        made = tuple(step(messages, aim))
        if not all(isinstance(message, Message) for message in made):
            return messages, "it did not return messages"
    except Exception as error:  # whatever a stage does, the prompt can still be sent as it was
        return messages, f"it failed: {type(error).__name__}: {error}"
    return (messages, why) if (why := _harm(step, messages, made, aim)) else (made, "")


def _harm(step: Stage, before: tuple[Message, ...], after: tuple[Message, ...], aim: Aim) -> str:
    fixed = [m for m, free in zip(before, touchable(before, everything=aim.everything), strict=True) if not free]
    if fixed != [m for m, free in zip(after, touchable(after, everything=aim.everything), strict=True) if not free]:
        return "it touched the system prompt or the last user turn"
    if [_shape(m) for m in before] == [_shape(m) for m in after]:
        pairs = list(zip(texts_of(before), texts_of(after), strict=True))
    else:
        pairs = [(_joined(before), _joined(after))]
    for old, new in pairs:
        if old == new:
            continue
        if old.strip() and not new.strip():
            return "it left nothing"
        why = damage(old, new, aim.keep, lossless=step.lossless, proven=_proves(step))
        if why:
            return why
    return ""


def _shape(message: Message) -> tuple[Any, ...]:
    parts = (
        ("",) if isinstance(message.content, str) else tuple("" if isinstance(p, str) else p for p in message.content)
    )
    return message.role, message.name, message.tool_calls, message.tool_call_id, parts


def _stage(stage: str | Stage | Callable[..., Any], known: Mapping[str, Stage]) -> Stage:
    if isinstance(stage, str):
        if stage not in known:
            raise UserError(f"There is no compression stage {stage!r}. {did_you_mean(stage, sorted(known))}")
        return known[stage]
    if not callable(stage):
        raise UserError(f"A stage is a name or a function of messages and aim, not {type(stage).__name__}.")
    if hasattr(stage, "name") and hasattr(stage, "lossless"):
        return stage
    return _Plain(getattr(stage, "__name__", type(stage).__name__), stage)


@dataclass(frozen=True, slots=True)
class _Plain:
    """A user's function as a stage: taken as lossy, since nothing is known of it."""

    name: str
    function: Callable[..., Any]
    lossless: bool = False

    def __call__(self, messages: tuple[Message, ...], aim: Aim) -> tuple[Message, ...]:
        return tuple(self.function(messages, aim))


def _remembering(function: Callable[[str], int]) -> Callable[[str], int]:
    """Count each text once a compression: sizes are asked before and after every stage."""
    known: dict[str, int] = {}

    def counted(text: str) -> int:
        if text not in known:
            known[text] = function(text)
        return known[text]

    return counted


def _aims(step: Stage) -> bool:
    return bool(getattr(step, "aims", not step.lossless))


def _proves(step: Stage) -> bool:
    return bool(getattr(step, "proves", False))


def _size(messages: Sequence[Message], aim: Aim, which: Sequence[bool] | None = None) -> int:
    return sum(map(aim.count, texts_of(messages, which)))


def _joined(messages: Sequence[Message]) -> str:
    return "\n\n".join(message.text for message in messages)
