"""From the body of an OpenAI request to a prompt and the kit's own options: strict about shapes, in one sentence.

Fields by OpenAI's API reference, "Create chat completion" and "Create completion". What a kit cannot carry is named in
``Asked.ignored`` where the answer is right without it, and refused where it would not be.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tokenkit.budget import Budget
from tokenkit.errors import UserError
from tokenkit.server import fields, turns
from tokenkit.server.fields import Malformed
from tokenkit.types import Message, Tool

FORWARDED = (
    "frequency_penalty", "presence_penalty", "logit_bias", "parallel_tool_calls", "reasoning_effort", "verbosity",
    "top_k", "min_p", "repetition_penalty",
)  # fmt: skip
"""Fields that go to the wire as they are, where every model that may answer is asked in OpenAI's own dialect."""

_READ = {
    "model", "messages", "prompt", "stream", "stream_options", "temperature", "top_p", "max_tokens", "stop", "seed",
    "max_completion_tokens", "tools", "tool_choice", "response_format", "user", "n", "best_of",
}  # fmt: skip
_PLAIN: Mapping[str, Any] = {
    "frequency_penalty": 0, "presence_penalty": 0, "logit_bias": {}, "logprobs": False, "parallel_tool_calls": True,
    "store": False, "echo": False, "modalities": ["text"], "service_tier": "auto", "repetition_penalty": 1,
}  # fmt: skip
"""What a field means when it is not said: saying just that asks for nothing."""

_REFUSED = {
    "functions": "functions are not taken: write them as tools",
    "function_call": "function_call is not taken: write it as tool_choice",
    "audio": "audio is not taken: this server answers in text",
    "echo": "echo is not taken: this server does not repeat the prompt",
    "suffix": "suffix is not taken: this server does not fill in the middle",
}


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as read. ``options`` are the kit's; ``extra`` may go to the wire, ``ignored`` goes nowhere."""

    prompt: str | tuple[Message, ...]
    options: dict[str, Any]
    stream: bool = False
    include_usage: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()


def body_of(data: bytes) -> dict[str, Any]:
    """Read a JSON object. Raises Malformed for anything else, and for what JSON has no word for (NaN)."""
    try:
        body = json.loads(data, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise Malformed("The body is not valid JSON.") from None
    if not isinstance(body, dict):
        raise Malformed("The body must be a JSON object.")
    return body


def _no_number(word: str) -> float:
    raise ValueError(word)


def chat(body: Mapping[str, Any]) -> Asked:
    """Read a chat completion request. Raises Malformed."""
    _one_answer(body)
    messages = fields.listed(body, "messages", fields.MOST_MESSAGES)
    if not messages:
        raise Malformed("messages must be a list of at least one message.", "messages")
    options = _common(body)
    tools = [
        turns.tool_of(tool, f"tools[{i}]") for i, tool in enumerate(fields.listed(body, "tools", fields.MOST_TOOLS))
    ]
    strict = [
        f"tools[{i}].function.strict"
        for i, tool in enumerate(body.get("tools") or ())
        if tool["function"].get("strict")
    ]
    if tools:
        options["tools"] = tools
    if (choice := _choice(body.get("tool_choice"), tools)) is not None:
        options["tool_choice"] = choice
    if (wanted := _format(body.get("response_format"))) is not None:
        options["response_format"] = wanted
    prompt = tuple(turns.message_of(message, f"messages[{i}]") for i, message in enumerate(messages))
    return _asked(body, prompt, options, strict)


def completion(body: Mapping[str, Any]) -> Asked:
    """Read a request of the older completions endpoint: one text. Raises Malformed."""
    _one_answer(body)
    prompt = body.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if not isinstance(prompt, str) or not prompt.strip():
        raise Malformed("prompt must be one text that is not empty: lists of texts and of tokens are not taken.",
                        "prompt")  # fmt: skip
    return _asked(body, prompt, _common(body), [])


def adversarial(body: Mapping[str, Any]) -> Asked:
    """Read a request for an adversarial run: a prompt, ``planner``, ``critic`` and ``rounds``. Raises Malformed."""
    prompt = body.get("prompt")
    read: str | tuple[Message, ...]
    if isinstance(prompt, list) and prompt:
        read = tuple(
            turns.message_of(message, f"prompt[{i}]") for i, message in enumerate(prompt[: fields.MOST_MESSAGES])
        )
    elif isinstance(prompt, str) and prompt.strip():
        read = prompt
    else:
        raise Malformed("prompt must be a text that is not empty, or a list of messages.", "prompt")
    options = _common({"model": "auto", **body})
    for name in ("planner", "critic"):
        if (model := fields.word(body, name)) is not None:
            options[name] = model
    if (rounds := fields.whole(body, "rounds", 1, 10)) is not None:
        options["rounds"] = rounds
    known = {*_READ, "planner", "critic", "rounds", *_PLAIN}
    return Asked(
        read, options, ignored=tuple(sorted(str(name)[: fields.LONGEST_NAME] for name in body if name not in known))
    )


def said_beside(headers: Mapping[str, str]) -> dict[str, Any]:
    """Read the headers that speak to the kit: session, endpoint, budget and compression. Raises Malformed."""
    options: dict[str, Any] = {}
    for header, name in (
        ("x-tokenkit-session", "session"),
        ("x-tokenkit-endpoint", "endpoint_name"),
        ("x-tokenkit-budget", "budget"),
        ("x-tokenkit-compress", "compress"),
    ):
        value = headers.get(header, "").strip()
        if len(value) > fields.LONGEST_NAME:
            raise Malformed(f"The header {header} is longer than {fields.LONGEST_NAME} characters.", header)
        if value:
            options[name] = value
    if "budget" in options:
        try:
            Budget(options["budget"], "request")
        except UserError:
            raise Malformed(
                "The header x-tokenkit-budget must be a limit such as '0.05 USD' or '10000 tokens'.",
                "x-tokenkit-budget",
            ) from None
    return options


def _asked(
    body: Mapping[str, Any], prompt: str | tuple[Message, ...], options: dict[str, Any], ignored: list[str]
) -> Asked:
    for name, why in _REFUSED.items():
        if not _unsaid(body, name):
            raise Malformed(f"{why[0].upper()}{why[1:]}.", name)
    stream = fields.flag(body, "stream")
    about = body.get("stream_options")
    if about is not None and not isinstance(about, dict):
        raise Malformed("stream_options must be an object.", "stream_options")
    if about and not stream:
        raise Malformed("stream_options needs stream to be true.", "stream_options")
    usage = fields.flag(about or {}, "include_usage", "stream_options.include_usage")
    more = [name for name in body if name not in _READ and not _unsaid(body, name)]
    extra = {name: body[name] for name in more if name in FORWARDED}
    rest = sorted(str(name)[: fields.LONGEST_NAME] for name in more if name not in FORWARDED)
    return Asked(prompt, options, stream, usage, extra, (*ignored, *rest))


def _unsaid(body: Mapping[str, Any], name: str) -> bool:
    value = body.get(name)
    return value is None or value == "" or (name in _PLAIN and value == _PLAIN[name])


def _common(body: Mapping[str, Any]) -> dict[str, Any]:
    model = fields.word(body, "model")
    if model is None:
        raise Malformed("model is missing: say 'auto', a model's name, or provider/name.", "model")
    options: dict[str, Any] = {"model": model}
    asked = {
        "temperature": fields.number(body, "temperature", 0, 2),
        "top_p": fields.number(body, "top_p", 0, 1),
        "seed": fields.whole(body, "seed", -fields.MOST_SEED, fields.MOST_SEED),
        "max_tokens": fields.whole(body, "max_tokens", 1, fields.MOST_TOKENS),
        "user": fields.word(body, "user"),
        "stop": _stop(body.get("stop")),
    }
    newer = fields.whole(body, "max_completion_tokens", 1, fields.MOST_TOKENS)
    if newer is not None:
        if asked["max_tokens"] not in (None, newer):
            raise Malformed("Say max_tokens or max_completion_tokens, not both.", "max_tokens")
        asked["max_tokens"] = newer
    return options | {name: value for name, value in asked.items() if value is not None}


def _one_answer(body: Mapping[str, Any]) -> None:
    for name in ("n", "best_of"):
        if body.get(name) is not None and (isinstance(body[name], bool) or body[name] != 1):
            raise Malformed(f"{name} must be 1: this server gives one answer to a request.", name)


def _stop(value: Any) -> list[str] | None:
    listed = [value] if isinstance(value, str) else value
    if not listed and (value is None or isinstance(value, str | list)):
        return None
    if not isinstance(listed, list) or len(listed) > 16 or not all(isinstance(s, str) and s for s in listed):
        raise Malformed("stop must be a text, or a list of at most 16 texts, none of them empty.", "stop")
    return listed


def _choice(choice: Any, tools: list[Tool]) -> str | None:
    if choice is None:
        return None
    function = choice.get("function") if isinstance(choice, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    named: Callable[[Any], bool] = {tool.name for tool in tools}.__contains__
    if choice in ("none", "auto", "required"):
        if not tools and choice == "required":
            raise Malformed("tool_choice is required, but there are no tools.", "tool_choice")
        return str(choice) if tools else None
    if not isinstance(name, str) or not named(name):
        raise Malformed("tool_choice must be none, auto, required, or name one of the tools.", "tool_choice")
    return name


def _format(wanted: Any) -> Mapping[str, Any] | None:
    if wanted is None:
        return None
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if kind == "json_schema":
        schema = wanted.get("json_schema")
        if not isinstance(schema, dict) or fields.word(schema, "name", "response_format.json_schema.name") is None:
            raise Malformed("response_format.json_schema must be an object with a name and a schema.",
                            "response_format")  # fmt: skip
    elif kind not in ("text", "json_object"):
        raise Malformed("response_format must be of type text, json_object or json_schema.", "response_format")
    return None if kind == "text" else dict(wanted)
