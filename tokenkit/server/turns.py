"""The turns of a conversation as OpenAI writes them: messages, their parts and pictures, calls of tools, tools.

A picture is an ``http`` address, which the provider fetches and this server never does, or data that came along.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any

from tokenkit.server import fields
from tokenkit.server.fields import Malformed
from tokenkit.types import Image, Message, Tool, ToolCall, image_from_url

ROLES = ("system", "developer", "user", "assistant", "tool")


def message_of(item: Any, where: str) -> Message:
    if not isinstance(item, dict):
        raise Malformed(f"{where} must be an object with a role and content.", where)
    role = item.get("role")
    if role not in ROLES:
        raise Malformed(f"{where}.role must be one of {', '.join(ROLES)}.", f"{where}.role")
    calls = tuple(
        _call(call, f"{where}.tool_calls[{i}]")
        for i, call in enumerate(fields.listed(item, "tool_calls", fields.MOST_TOOLS))
    )
    if calls and role != "assistant":
        raise Malformed(f"{where}.tool_calls belong to an assistant's message.", f"{where}.tool_calls")
    answered = fields.word(item, "tool_call_id", f"{where}.tool_call_id")
    if (answered is None) == (role == "tool"):
        raise Malformed(f"{where}.tool_call_id belongs to a tool's message, which needs it.", f"{where}.tool_call_id")
    content = item.get("content")
    if content is None and role == "assistant":
        content = item.get("refusal") or ""
    return Message(
        role, _content(content, f"{where}.content"), fields.word(item, "name", f"{where}.name"), calls, answered
    )


def _content(content: Any, where: str) -> str | tuple[str | Image, ...]:
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not content:
        raise Malformed(f"{where} must be a text or a list of parts.", where)
    return tuple(_part(part, f"{where}[{i}]") for i, part in enumerate(content))


def _part(part: Any, where: str) -> str | Image:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind in ("text", "refusal") and isinstance(part.get(kind), str):
        return str(part[kind])
    if kind == "image_url":
        return _image(part.get("image_url"), f"{where}.image_url")
    raise Malformed(f"{where} must be a part of type text or image_url.", where)


def _image(link: Any, where: str) -> Image:
    link = {"url": link} if isinstance(link, str) else link
    url = link.get("url") if isinstance(link, dict) else None
    detail = link.get("detail") if isinstance(link, dict) else None
    if not isinstance(url, str) or detail not in (None, "auto", "low", "high", "original"):
        raise Malformed(f"{where} must be an object with a url and, at most, a detail of auto, low or high.", where)
    if re.match(r"https?://[^\s]+\Z", url, re.IGNORECASE):
        return image_from_url(url, detail)
    kind, _, data = url.partition(";base64,")
    if not re.fullmatch(r"data:image/[-+.\w]+", kind, re.ASCII) or not _is_base64(data):
        raise Malformed(f"{where}.url must be an http address, or data:image/…;base64, and the picture.", where)
    return image_from_url(url, detail)


def _is_base64(data: str) -> bool:
    try:
        return bool(base64.b64decode(data, validate=True))
    except (binascii.Error, ValueError):
        return False


def _call(call: Any, where: str) -> ToolCall:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or call.get("type", "function") != "function":
        raise Malformed(f"{where} must be an object with an id, the type function and a function.", where)
    identity, name = fields.word(call, "id", f"{where}.id"), fields.word(function, "name", f"{where}.function.name")
    arguments = function.get("arguments")
    if identity is None or name is None or not isinstance(arguments, str):
        raise Malformed(f"{where} needs an id, a function.name, and function.arguments as text.", where)
    return ToolCall(identity, name, arguments)


def tool_of(tool: Any, where: str) -> Tool:
    function = tool.get("function") if isinstance(tool, dict) else None
    if not isinstance(function, dict) or tool.get("type") != "function":
        raise Malformed(f"{where} must be an object of type function, with a function.", where)
    name = fields.word(function, "name", f"{where}.function.name")
    about, shape = function.get("description"), function.get("parameters")
    if name is None or not isinstance(about, str | None) or not isinstance(shape, dict | None):
        raise Malformed(f"{where}.function needs a name; its description is text, its parameters a schema.", where)
    return Tool(name, about or "", shape or {})
