"""A prompt reaches its magic as it was typed: IPython reads cells as Python, and a prompt is not Python.

Left alone, IPython takes a question mark at the end of ``%route`` for a request for help, strips ``>>>`` from a cell
that begins with it, ends every cell with a newline, and refuses an empty cell before its magic could answer ``-h``.
"""

from __future__ import annotations

import re
from typing import Any

from IPython.core.inputtransformer2 import EscapedCommand

NAMES = ("route", "tokens", "budget")

_FIRST_LINE = re.compile(rf"%%({'|'.join(NAMES)})(?:[ \t]+(.*))?")


def keep_as_typed(shell: Any) -> None:
    """Teach a shell to hand prompts over untouched; doing it again changes nothing."""
    manager = shell.input_transformer_manager
    manager.cleanup_transforms[:] = [t for t in manager.cleanup_transforms if not hasattr(t, "is_tokenkit")]
    manager.cleanup_transforms.insert(0, whole_cell)  # before the ones that strip prompts and indents
    manager.token_transformers[:] = [t for t in manager.token_transformers if not hasattr(t, "is_tokenkit")]
    manager.token_transformers.append(OneLine)


def whole_cell(lines: list[str]) -> list[str]:
    """Turn a cell of ours into the call of its magic, at once; give every other cell back unchanged."""
    first, _, body = "".join(lines).lstrip("\n").partition("\n")
    found = _FIRST_LINE.fullmatch(first.rstrip("\r"))
    if found is None:
        return lines
    # An empty body would never reach the magic, which has something better to say about it.
    return [f"get_ipython().run_cell_magic({found[1]!r}, {found[2] or ''!r}, {body or chr(10)!r})\n"]


whole_cell.is_tokenkit = True  # type: ignore[attr-defined]
# A terminal asks whether a cell is complete by transforming it; a cell magic must then still look like one.
whole_cell.has_side_effects = True  # type: ignore[attr-defined]


class OneLine(EscapedCommand):  # type: ignore[misc]  # IPython is untyped here
    """``%route`` and ``%tokens`` lines, taken before a ``?`` at their end could mean help."""

    priority = 1
    is_tokenkit = True

    @classmethod
    def find(cls, tokens_by_line: list[list[Any]]) -> OneLine | None:
        """Return the first line of the cell that is one of our magics."""
        for line in tokens_by_line:
            words = [token for token in line if token.string.strip()]
            if len(words) > 1 and words[0].string == "%" and words[1].string in NAMES:
                return cls(words[0].start)
        return None


def as_typed(shell: Any, cell: str) -> str:
    """Return a cell's body without the newline IPython added to its end; one that was typed stays."""
    code = shell.get_parent().get("content", {}).get("code", "") if hasattr(shell, "get_parent") else ""
    if not code:  # a terminal: the line end there is the key that sent the cell
        return cell.removesuffix("\n")
    added = cell.endswith("\n") and not code.endswith("\n") and code.endswith(cell[:-1])
    return cell[:-1] if added else cell
