"""What a caller asked of compression: which stages, how far, and what it is to be read for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from tokenkit.compress.pipeline import STAGES, Aim
from tokenkit.errors import UserError, did_you_mean

LONGEST_QUESTION = 600
"""Characters: what ends a prompt and is longer than this is taken for content, not for the question about it."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Stages in order, and the aim they have; ``None`` is left to the defaults.

    ``target`` is the share of tokens to keep; ``tokens`` a budget instead; ``recall`` the share of evidence to keep
    instead; ``everything`` lets the stages touch the system prompt and the last user turn too.
    """

    stages: tuple[Any, ...]
    target: float | None = None
    query: str | None = None
    keep: tuple[str, ...] = ()
    tokens: int | None = None
    recall: float | None = None
    everything: bool = False

    def aim(self, **more: Any) -> Aim:
        """Return the aim, completed by what only the call itself knows."""
        said = {"query": self.query, "keep": self.keep, "tokens": self.tokens, "recall": self.recall}
        target = {} if self.target is None else {"target": self.target}
        return Aim(**{**said, **target, "everything": self.everything, **more})


def asked(
    stages: str | Sequence[Any] | None,
    *,
    target: float | None = None,
    query: str | None = None,
    keep: str | Sequence[str] = (),
    tokens: int | None = None,
    recall: float | None = None,
    everything: bool = False,
    known: Sequence[str] = (),
) -> Asked | None:
    """Read what a caller wrote: ``"normalize,summarize"``, a name, a function, or a list of them.

    ``known`` are names of stages beyond the built-in ones. Raises UserError for a name that is none, for more than one
    way of saying how far, and for a target outside 0 to 1.
    """
    stages = _listed(stages)
    if not stages:
        if target is not None or tokens is not None or recall is not None or query is not None:
            raise UserError("Say which stages compress, as in compress=['normalize', 'summarize'].")
        return None
    names = sorted({*STAGES, *known})
    for stage in stages:
        if isinstance(stage, str) and stage not in names:
            raise UserError(f"There is no compression stage {stage!r}. {did_you_mean(stage, names)}")
        if not isinstance(stage, str) and not callable(stage):
            raise UserError(f"A stage is a name or a function of messages and aim, not {type(stage).__name__}.")
    if sum(value is not None for value in (target, tokens, recall)) > 1:
        raise UserError("Say one of target (share to keep), tokens (budget) and recall (share of evidence to keep).")
    if query is not None and not isinstance(query, str):
        raise UserError(f"query must be text, not {query!r}.")
    if not isinstance(keep, str) and not (isinstance(keep, list | tuple) and all(isinstance(k, str) for k in keep)):
        raise UserError(f"keep is a text or a list of texts that survive, not {keep!r}.")
    made = Asked(stages, target, query, (keep,) if isinstance(keep, str) else tuple(keep), tokens, recall, everything)
    made.aim()  # refuses what is out of range now, not when the call is under way
    return made


def _listed(stages: Any) -> tuple[Any, ...]:
    if stages is None:
        return ()
    if isinstance(stages, str):
        return tuple(name.strip() for name in stages.split(",") if name.strip())
    if callable(stages):
        return (stages,)
    if isinstance(stages, Iterable) and not isinstance(stages, bytes | Set | Mapping):  # no order, or no names
        return tuple(stages)
    advice = "Stages are a list of names or functions, or one text such as 'normalize,summarize'"
    raise UserError(f"{advice}, not {stages!r}.")


def question_of(text: str) -> tuple[str, str]:
    """Split a prompt into what is to be read and the question about it: its last paragraph, where that is short.

    The two joined are the text; the question is empty where nothing looks like one.
    """
    body = text.rstrip()
    cut = body.rfind("\n\n") + 2
    if cut < 2 or len(body) - cut > LONGEST_QUESTION or len(body) - cut > cut:
        return text, ""
    return text[:cut], text[cut:]
