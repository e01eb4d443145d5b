"""The line of a magic: options and words, split as a shell would, never evaluated; a mistake is told in a sentence."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from typing import Any

from tokenkit.errors import UserError, did_you_mean


@dataclass(frozen=True, slots=True)
class Option:
    """One option: its name without dashes, what it takes (``str``, ``int``, ``float`` or ``bool`` for a flag), help."""

    name: str
    kind: type = str
    about: str = ""
    word: str = ""

    @property
    def key(self) -> str:
        """The option as a Python name."""
        return self.name.replace("-", "_")


class Wants(Exception):
    """Raised by ``read`` when the line asks for help; carries the text."""


def read(magic: str, line: str, options: Sequence[Option], about: str) -> tuple[dict[str, Any], str]:
    """Split a line into options and the rest of it, which is kept word for word.

    Options end at the first word that is none, or after ``--``. Raises UserError, with the nearest known option, and
    Wants for ``-h`` or ``--help``.
    """
    known = {f"--{option.name}": option for option in options}
    said: dict[str, Any] = {}
    rest = line.strip()
    while rest.startswith("-"):
        word, rest = _word(magic, rest)
        if word in ("-h", "--help"):
            raise Wants(usage(magic, options, about))
        if word == "--":
            break
        name, joined, value = word.partition("=")
        option = known.get(name)
        if option is None:
            raise UserError(
                f"{magic} has no option {name}. {did_you_mean(name, list(known))} `{magic} -h` explains them."
            )
        if option.kind is bool:
            if joined:
                raise UserError(f"{magic} {name} is a flag and takes no value.")
            said[option.key] = True
            continue
        if not joined:
            if not rest:
                raise UserError(f"{magic} {name} needs {option.word or 'a value'} after it.")
            value, rest = _word(magic, rest)
        said[option.key] = _typed(magic, option, value)
    return said, rest


def _word(magic: str, text: str) -> tuple[str, str]:
    """Take the first word off a line, quotes undone; the rest stays as it is."""
    stream = StringIO(text)
    lexer = shlex.shlex(stream, posix=True, punctuation_chars=False)
    lexer.whitespace_split, lexer.commenters = True, ""
    try:
        word = lexer.get_token()
    except ValueError:
        raise UserError(f"{magic}: a quote opens in this line and never closes.") from None
    return word or "", stream.read().strip()


def _typed(magic: str, option: Option, value: str) -> Any:
    try:
        return option.kind(value)
    except ValueError:
        kind = "a whole number" if option.kind is int else "a number"
        raise UserError(f"{magic} --{option.name} needs {kind}, not {value!r}.") from None


def usage(magic: str, options: Sequence[Option], about: str) -> str:
    """Return the help of a magic: what it does, then its options in two columns."""
    rows = [(f"--{o.name} {o.word}".rstrip(), o.about) for o in options]
    width = max(len(left) for left, _ in rows)
    return f"{about}\n\n" + "\n".join(f"  {left:{width}}  {right}" for left, right in rows)


TEMPLATE = "{name} in the cell is replaced by the variable of that name; nothing is evaluated"


def filled(text: str, names: Mapping[str, Any]) -> str:
    """Replace each ``{name}`` by the variable of that name; ``{{`` and ``}}`` are braces. Nothing is evaluated.

    Raises UserError for a name that is not there, and for anything but a bare name between the braces.
    """
    from string import Formatter

    out = []
    try:
        for literal, field, spec, conversion in Formatter().parse(text):
            out.append(literal)
            if field is None:
                continue
            if spec or conversion or not field.isidentifier():
                raise UserError(
                    f"--template takes plain names in braces, such as {{topic}}; {{{field}}} is more than that."
                )
            if field not in names:
                raise UserError(
                    f"--template: there is no variable {field!r} here. Write {{{{ and }}}} for plain braces."
                )
            out.append(str(names[field]))
    except ValueError:
        raise UserError("--template: a brace stands alone. Write {{ and }} for plain braces.") from None
    return "".join(out)
