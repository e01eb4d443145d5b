"""The simulated provider: four models in this process, deterministic by seed, priced, with failures you can script.

It speaks OpenAI's dialect in real bytes, so everything between a call and the wire is exercised; its tokens are
counted with a real tokenizer, its prices are invented, and every text it gives says that it is simulated.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any

from tokenkit.catalog import EVERYTHING, Model
from tokenkit.compress.align import shared_start
from tokenkit.effects import LocalAnswer, WireRequest
from tokenkit.errors import TransportError, UnknownModel, UserError
from tokenkit.pricing import PriceRule, flat
from tokenkit.providers import openai
from tokenkit.providers.base import Provider
from tokenkit.tokens import count_messages, decode, encode
from tokenkit.types import Message, Tool, messages_of

NAME = "simulated"


@dataclass(frozen=True, slots=True)
class Character:
    """What makes one simulated model differ: prices in USD per million tokens, speeds in seconds, length in tokens."""

    weight: float
    price: tuple[float, float]
    context_window: int
    max_output_tokens: int
    first_token: float
    per_token: float
    length: tuple[int, int]


CHARACTERS: Mapping[str, Character] = {
    "tiny": Character(2.0, (0.0, 0.0), 4_096, 1_024, 0.02, 0.0005, (20, 60)),
    "swift": Character(5.0, (0.15, 0.60), 16_384, 4_096, 0.05, 0.0008, (40, 120)),
    "steady": Character(7.0, (2.50, 10.0), 128_000, 16_384, 0.10, 0.0015, (80, 220)),
    "sage": Character(9.0, (15.0, 75.0), 200_000, 8_192, 0.20, 0.0030, (160, 400)),
}


@dataclass(frozen=True, slots=True)
class Fault:
    """A failure to act out: on which model (``None`` any), at its which calls (1 is the first; empty is every one).

    ``status`` answers with that HTTP status, ``code`` and ``retry_after`` seconds; ``cut_after`` and ``break_after``
    end a stream after so many chunks, silently or with an error event; ``refuse`` never connects; ``delay`` adds
    seconds before the headers, of an error too; ``mute`` leaves the usage out.
    """

    model: str | None = None
    calls: Sequence[int] = ()
    status: int | None = None
    code: str | None = None
    retry_after: float | None = None
    cut_after: int | None = None
    break_after: int | None = None
    refuse: bool = False
    delay: float = 0.0
    mute: bool = False


Faults = Sequence[Fault] | Callable[[str, int], "Fault | None"]
"""A script, or a function from model name and the number of the call to that model (from 1) to a fault."""


def models(*, prompt_cache: bool = False) -> tuple[Model, ...]:
    """Return the four simulated models. Their prices are invented, and say so in their layer.

    With ``prompt_cache``, what the provider has in its cache costs a tenth.
    """

    def price(name: str, one: Character) -> PriceRule:
        read = one.price[0] / 10 if prompt_cache else None
        return flat("simulated", f"{NAME}/{name}", input=one.price[0], output=one.price[1], cache_read=read)

    return tuple(
        Model(
            NAME,
            name,
            one.weight,
            price(name, one),
            one.context_window,
            one.max_output_tokens,
            EVERYTHING,
        )
        for name, one in CHARACTERS.items()
    )


def vectors() -> tuple[Model, ...]:
    """Return the simulated embedding model: it compares words, not meanings."""
    price = flat("simulated", f"{NAME}/lexicon", input=0.02, output=0)
    return (Model(NAME, "lexicon", 1.0, price, 8_192, capabilities=frozenset({"embed"})),)


STAND_INS = {"large": "sage", "medium": "steady", "small": "swift"}
"""Who answers for the models of a synthetic history."""


def provider(
    seed: int = 0, *, name: str = NAME, pace: float = 1.0, faults: Faults = (), prompt_cache: bool = False
) -> Provider:
    """Return the simulated provider. ``pace`` scales every wait (0 is instant); equal seeds give equal answers.

    With ``prompt_cache`` it keeps the beginnings of prompts as OpenAI does: from 1,024 tokens on, in steps of 128.
    """
    world = Simulation(seed, pace, faults, Kept() if prompt_cache else None)
    # An address of its own, so that several simulations with their own faults can live in one kit.
    return replace(openai.provider(name=name, base_url=f"simulated://{name}"), local=world, key_env=())


class Kept:
    """A prompt cache: of the latest prompts to each model, how much of a new one begins alike."""

    def __init__(self, most: int = 100) -> None:
        self._prompts: deque[str] = deque(maxlen=most)

    def tokens(self, name: str, messages: Sequence[Message]) -> int:
        """Return how many tokens of this prompt were kept, and keep it."""
        prompt = f"{name}\0" + "\0".join(f"{message.role}\0{message.text}" for message in messages)
        alike = max((shared_start(prompt, before) for before in tuple(self._prompts)), default=0)
        self._prompts.append(prompt)
        found = len(encode(prompt[len(name) + 1 : alike]))
        return found // 128 * 128 if found >= 1024 else 0


class Simulation:
    """Answers wire requests in this process; counts the calls to each model, so that faults can be scripted."""

    def __init__(self, seed: int = 0, pace: float = 1.0, faults: Faults = (), kept: Kept | None = None) -> None:
        if not pace >= 0:
            raise UserError(f"pace must be at least 0, not {pace!r}.")
        for fault in () if callable(faults) else faults:
            if fault.model is not None and _plain(fault.model) not in CHARACTERS:
                raise UnknownModel(fault.model, tuple(CHARACTERS), what="simulated model")
        self.seed, self.pace, self.faults, self.kept = seed, pace, faults, kept
        self.calls: Counter[str] = Counter()
        self._lock = Lock()

    def __call__(self, wire: WireRequest) -> LocalAnswer:
        body = json.loads(wire.body)
        name = str(body.get("model"))
        if wire.url.endswith("/embeddings"):
            return self._vectors(name, body["input"], body.get("dimensions") or 256)
        name = STAND_INS.get(name, name)
        one = CHARACTERS.get(name)
        if one is None:
            return self._error(
                404, "model_not_found", f"The model {name!r} does not exist; simulated are {', '.join(CHARACTERS)}."
            )
        with self._lock:
            self.calls[name] += 1
            number = self.calls[name]
        fault = self._fault(name, number)
        if fault.refuse:
            raise TransportError("simulated: the connection was refused", sent=False)
        if fault.status is not None:
            return self._error(fault.status, fault.code or "simulated_fault", "A failure as scripted.", fault)
        try:
            messages, tools, asked = messages_of(body["messages"]), _tools(body), _most(body)
        except (UserError, LookupError, TypeError, AttributeError):
            return self._error(400, "invalid_request", "The messages, the tools or max_tokens are malformed.", fault)
        used = count_messages(messages, f"{NAME}/{name}", tools).tokens
        limit = one.context_window
        if used + 1 > limit:
            text = f"maximum context length is {limit} tokens. However, your messages resulted in {used} tokens."
            return self._error(400, "context_length_exceeded", f"This model's {text}", fault)
        room = min(asked or one.max_output_tokens, one.max_output_tokens, limit - used)
        return self._answer(body, messages, name, used, room, fault)

    def _vectors(self, name: str, texts: Sequence[str], dimensions: int) -> LocalAnswer:
        """Embed texts by hashing their words and letter triples: what shares words lies near, without any meaning."""
        rows = [{"index": i, "embedding": lexical(text, dimensions)} for i, text in enumerate(texts)]
        used = sum(len(encode(text)) for text in texts)
        done = {"object": "list", "model": f"{name} (simulated)", "data": rows, "usage": {"prompt_tokens": used}}
        return LocalAnswer(200, {"content-type": "application/json"}, 0.02 * self.pace, [(0.0, openai.dumps(done))])

    def _fault(self, name: str, number: int) -> Fault:
        if callable(self.faults):
            return self.faults(name, number) or Fault()
        for fault in self.faults:
            if (fault.model is None or _plain(fault.model) == name) and (not fault.calls or number in fault.calls):
                return fault
        return Fault()

    def _answer(
        self, body: Mapping[str, Any], messages: Sequence[Message], name: str, used: int, room: int, fault: Fault
    ) -> LocalAnswer:
        one = CHARACTERS[name]
        asked = json.dumps([self.seed, name, body["messages"]], sort_keys=True)
        chance = random.Random(hashlib.sha256(asked.encode("utf-8", "surrogatepass")).digest())
        whole = encode(_until(compose(messages, name, one, chance), body.get("stop")))
        ids = whole[:room]
        text = decode(ids)
        finish = "stop" if len(ids) == len(whole) else "length"
        usage: dict[str, Any] | None = None if fault.mute else {
            "prompt_tokens": used, "completion_tokens": len(ids), "total_tokens": used + len(ids),
        }  # fmt: skip
        if usage is not None and self.kept is not None:
            cached = min(self.kept.tokens(name, messages), used)
            usage["prompt_tokens_details"] = {"cached_tokens": cached}
        head = {"id": f"simulated-{chance.getrandbits(48):012x}", "created": 0, "model": f"{name} (simulated)"}
        before = (one.first_token + fault.delay) * self.pace
        if not body.get("stream"):
            message = {"role": "assistant", "content": text}
            done = head | {
                "object": "chat.completion",
                "choices": [{"index": 0, "message": message, "finish_reason": finish}],
                **({"usage": usage} if usage else {}),
            }
            seconds = before + one.per_token * len(ids) * self.pace
            return LocalAnswer(200, {"content-type": "application/json"}, seconds, [(0.0, openai.dumps(done))])
        chunks = self._chunks(head, ids, finish, usage, one.per_token * self.pace, fault)
        return LocalAnswer(200, {"content-type": "text/event-stream"}, before, chunks)

    def _chunks(
        self, head: Mapping[str, Any], ids: list[int], finish: str, usage: Any, per_token: float, fault: Fault
    ) -> Iterator[tuple[float, bytes]]:
        """Yield the stream: a few tokens a chunk, cut where characters end, then finish reason, usage and [DONE]."""
        size = 4
        shown = ""
        total = -(-len(ids) // size)
        for sent in range(total + 1):
            if sent == fault.cut_after:
                return
            if sent == fault.break_after:
                broken = {"error": {"message": "It broke, as scripted.", "code": 500}}
                yield 0.0, b"data: " + openai.dumps(broken) + b"\n\n"
                return
            if sent == total:
                break
            end = (sent + 1) * size
            # Tokens may end inside a character: only what decodes whole is shown.
            text = decode(ids[:end]) if end >= len(ids) else decode(ids[:end]).rstrip("\ufffd")
            yield size * per_token, _event(head, {"content": text[len(shown) :]})
            shown = text
        yield 0.0, _event(head, {}, finish)
        if usage:
            yield 0.0, b"data: " + openai.dumps({**head, "object": _CHUNK, "choices": [], "usage": usage}) + b"\n\n"
        yield 0.0, b"data: [DONE]\n\n"

    def _error(self, status: int, code: str, message: str, fault: Fault | None = None) -> LocalAnswer:
        headers = {"content-type": "application/json"}
        if fault is not None and fault.retry_after is not None:
            headers["retry-after"] = str(fault.retry_after)
        kind = (
            "insufficient_quota"
            if code == "insufficient_quota"
            else "invalid_request_error"
            if 400 <= status < 429
            else "error"
        )
        body = openai.dumps({"error": {"message": f"simulated: {message}", "type": kind, "code": code}})
        delay = 0.0 if fault is None else fault.delay
        return LocalAnswer(status, headers, (0.02 + delay) * self.pace, [(0.0, body)])


_CHUNK = "chat.completion.chunk"


def _plain(model: str) -> str:
    return model.removeprefix(f"{NAME}/")


def _tools(body: Mapping[str, Any]) -> tuple[Tool, ...]:
    functions = [tool["function"] for tool in body.get("tools") or ()]
    return tuple(Tool(f["name"], f.get("description", ""), f.get("parameters", {})) for f in functions)


def _most(body: Mapping[str, Any]) -> int | None:
    """Return the tokens asked for at most. Raises TypeError for what is no number of them."""
    asked = body.get("max_completion_tokens") or body.get("max_tokens")
    if asked is not None and (not isinstance(asked, int) or asked < 1):
        raise TypeError
    return asked


def _until(text: str, stop: Any) -> str:
    """Return the text before the first of the stop sequences, which is left out, as OpenAI leaves it out."""
    sequences = [stop] if isinstance(stop, str) else stop or ()
    return text[: min((at for s in sequences if s and (at := text.find(s)) >= 0), default=len(text))]


def _event(head: Mapping[str, Any], delta: Mapping[str, str], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return b"data: " + openai.dumps({**head, "object": _CHUNK, "choices": [choice]}) + b"\n\n"


_OPENINGS = (
    "The short answer first: it depends on what is held fixed.",
    "There are two parts to this, and they are best taken one at a time.",
    "The usual explanation skips a step, so here it is with the step left in.",
    "Begin with the thing that is easiest to check.",
)
_MIDDLES = (
    "In practice {topic} matters most where the inputs change often.",
    "A small example of {topic} shows why the order of the steps counts.",
    "Most mistakes about {topic} come from counting the same thing twice.",
    "Compared with the alternatives, {topic} costs little and tells much.",
    "It helps to write down what {topic} assumes before relying on it.",
    "Where {topic} fails, it fails quietly, so measure it.",
    "Two people asked about {topic} would draw the line in different places.",
    "The evidence on {topic} is mixed, and the honest summary says so.",
)
_OBJECTIONS = (
    "The answer names {topic} but never says how it would be measured.",
    "It leaves out what happens when {topic} is empty or missing.",
    "The claim about {topic} has no figure and no source behind it.",
    "Nothing is said about the cost of {topic}, which decides whether it is worth doing.",
)
_DULL_WORDS = """about above after answer below could does explain from give have into like make more most should some
such than that their them then there these they this three through what when where which while with would write your
sentences"""
_DULL = frozenset(_DULL_WORDS.split())


def compose(messages: Sequence[Message], name: str, one: Character, chance: random.Random) -> str:
    """Write a text of this model's usual length about the words of the prompt, saying that it is simulated."""
    prompt = " ".join(message.text for message in messages)
    topics = _topics(messages[-1].text, chance)
    wanted = chance.randint(*one.length)
    if "You are the critic" in prompt:
        picked = chance.sample(_OBJECTIONS, k=min(len(_OBJECTIONS), 1 + wanted // 60))
        points = [f"{i}. {text.format(topic=chance.choice(topics))}" for i, text in enumerate(picked, 1)]
        return f"[simulated by {name}] Objections, the gravest first:\n" + "\n".join(points)
    if "You are the judge" in prompt:
        letters = [chr(65 + i) for i in range(prompt.count("\n\nAnswer "))] or ["A"]
        best = chance.choice(letters)
        return f"[simulated by {name}] Each answer has its merits; this choice is drawn by lot.\nBEST: {best}"
    parts = [f"[simulated by {name}: no model was asked]", chance.choice(_OPENINGS)]
    length = 30
    while length < wanted:
        parts.append(chance.choice(_MIDDLES).format(topic=chance.choice(topics)))
        length += 14
    return " ".join(parts)


def lexical(text: str, dimensions: int) -> list[float]:
    """Return a vector of unit length whose places count the words and letter triples that hash there."""
    words = text.lower().split()
    pieces = words + [word[i : i + 3] for word in (f" {w} " for w in words) for i in range(len(word) - 2)]
    counts = [0.0] * dimensions
    for piece in pieces or [text]:
        digest = hashlib.blake2b(piece.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        place = int.from_bytes(digest, "big")
        counts[place % dimensions] += 1.0 if place >> 63 else -1.0
    length = math.hypot(*counts) or 1.0
    return [value / length for value in counts]


def _topics(text: str, chance: random.Random) -> list[str]:
    words = dict.fromkeys(word.strip(".,:;!?()[]{}\"'").lower() for word in text[:4000].split())
    telling = [word for word in words if word.isalpha() and len(word) > 3 and word not in _DULL]
    return chance.sample(telling, k=min(4, len(telling))) or ["the question"]
