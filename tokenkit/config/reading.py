"""A configuration file read table by table, every fault noted and none of its secrets shown."""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from tokenkit.errors import ConfigError, did_you_mean

# Names under which people keep secrets; ``key_env`` and ``max_tokens`` are not among them.
_SECRET_NAME = re.compile(
    r"(?:^|[_.-])(?:api-?)?(?:key|token|secret|password|passwd|passphrase|credentials?|authorization|auth|cookie)$",
    re.IGNORECASE,
)
# What vendors' keys look like, keys inside addresses included; for the public prefixes see each vendor's own pages.
_SECRET_VALUE = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"(?:sk|pk|rk)[-_][\w-]{12,}|(?:gsk_|hf_|gh[a-z]_|github_pat_|glpat-|r8_|nvapi-)[\w-]{12,}"
    r"|(?:xai|pplx|tgp|fw)[-_][A-Za-z0-9]{20,}|(?:AKIA|ASIA|AIza)[\w-]{12,}|ya29\.[\w.-]{12,}"
    r"|(?:Bearer|Basic)\s+[\w.+/=-]{8,}|eyJ[\w-]{12,}\.[\w.-]+)"
    r"|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)|(?<=[?&])(?:api_?key|key|token|access_token)=[^&\s\"]+"
)
_DENSE = re.compile(r"[A-Za-z0-9]{28,}")

KEEP_OUT = (
    "keep keys out of this file: put the key into an environment variable and name that, as in "
    'key_env = "OPENAI_API_KEY", or store it with `tokenkit vault set`'
)


def names_a_secret(key: str) -> bool:
    """Return whether a setting of this name holds a secret, such as ``api_key`` or ``authorization``."""
    return _SECRET_NAME.search(key) is not None


def holds_a_secret(value: object) -> bool:
    """Return whether a value looks like a vendor's API key, or carries one."""
    return isinstance(value, str) and _SECRET_VALUE.search(value) is not None


def scrub(text: str) -> str:
    """Return ``text`` with everything that looks like a key taken out."""
    return _SECRET_VALUE.sub("…", text)


class Report:
    """The faults found in one file so far."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.problems: list[str] = []

    def fault(self, where: str, what: str) -> None:
        """Note a fault at a place of the file, such as ``model[2].weight``."""
        self.problems.append(scrub(f"{self.file}: {where}: {what}"))

    def refuse(self, where: str, key: str, value: object, advice: str) -> None:
        """Note a value that cannot be, showing it unless it may be a secret."""
        self.fault(where, f"value {shown(key, value)}: {advice}")

    def settle(self) -> None:
        """Raise ConfigError with every fault noted, if there is any."""
        if self.problems:
            raise ConfigError(self.problems)


def shown(key: str, value: object) -> str:
    """Return a value as one writes it in the file, shortened; ``(hidden)`` where it may be a secret."""
    if isinstance(value, Mapping):
        return "{…}"
    text = repr(value) if isinstance(value, float) else json.dumps(value, ensure_ascii=False, default=str)
    dense = any(_has_both(match[0]) for match in _DENSE.finditer(text))
    if names_a_secret(key) or _SECRET_VALUE.search(text) or dense:
        return "(hidden)"
    return text if len(text) <= 60 else f"{text[:59]}…"


def _has_both(text: str) -> bool:
    return any(c.isdigit() for c in text) and any(c.isalpha() for c in text)


class Table:
    """One table of the file: hands out its values by type, notes what is wrong, remembers what was asked for.

    Every accessor returns ``None`` (or the default) for a value that is missing or wrong.
    """

    def __init__(self, data: Mapping[str, Any], where: str, report: Report) -> None:
        self.data, self.where, self.report = data, where, report
        self._known: set[str] = set()

    def place(self, key: str) -> str:
        """Return where a key of this table stands, as messages say it."""
        return f"{self.where}.{key}" if self.where else key

    def refuse(self, key: str, advice: str) -> None:
        """Note that the value of ``key`` cannot be, and what to do instead."""
        self.report.refuse(self.place(key), key, self.data.get(key), advice)

    def missing(self, key: str, advice: str) -> None:
        """Note that ``key`` has to be said, unless it was said wrongly and that is noted already."""
        if key not in self.data:
            self.report.fault(self.place(key), f"missing: {advice}")

    def take(self, key: str) -> Any:
        """Return the bare value of ``key``, or ``None``."""
        self._known.add(key)
        return self.data.get(key)

    def text(self, key: str, *, choices: Collection[str] = (), like: str = "", advice: str = "") -> str | None:
        """Return a text that is one of ``choices`` and matches the pattern ``like``, where these are given."""
        value = self.take(key)
        if value is None or holds_a_secret(value):
            return None
        if not isinstance(value, str) or not value.strip():
            self.refuse(key, advice or "give a text in quotes")
        elif choices and value not in choices:
            self.refuse(key, did_you_mean(value, sorted(choices)))
        elif like and re.fullmatch(like, value) is None:
            self.refuse(key, advice)
        else:
            return value
        return None

    def number(self, key: str, *, low: float = 0, high: float = math.inf) -> float | None:
        """Return a finite number from ``low`` to ``high``."""
        value = self.take(key)
        if value is None:
            return None
        if (
            isinstance(value, int | float)
            and not isinstance(value, bool)
            and low <= value <= high
            and value != math.inf
        ):
            return value
        upto = f" and at most {high:g}" if math.isfinite(high) else ""
        self.refuse(key, f"give a finite number of at least {low:g}{upto}")
        return None

    def count(self, key: str) -> int | None:
        """Return a whole number above 0."""
        value = self.take(key)
        if value is None or (isinstance(value, int) and not isinstance(value, bool) and value > 0):
            return value
        self.refuse(key, "give a whole number above 0")
        return None

    def price(self, key: str) -> Decimal | None:
        """Return an amount of USD of at least 0, written as a number or as a numeral in quotes."""
        value = self.take(key)
        if value is None:
            return None
        try:
            amount = Decimal("NaN" if isinstance(value, bool | list | Mapping) else str(value))
        except InvalidOperation:
            amount = Decimal("NaN")
        # No price is a thousand USD a token: such a number is a slip, and a very large one would fill the memory.
        if amount.is_finite() and 0 <= amount <= 10**9:
            return amount
        self.refuse(key, "give a finite price in USD of at least 0, such as 2.50")
        return None

    def flag(self, key: str, *, default: bool) -> bool:
        """Return true or false."""
        value = self.take(key)
        if value is None or isinstance(value, bool):
            return default if value is None else value
        self.refuse(key, "give true or false")
        return default

    def texts(self, key: str, *, like: str, advice: str) -> tuple[str, ...]:
        """Return one text or a list of them, as a tuple; each must match ``like`` in full."""
        value = self.data.get(key)
        if not isinstance(value, list):
            one = self.text(key, like=like, advice=advice)
            return () if one is None else (one,)
        self.take(key)
        if not all(isinstance(each, str) and re.fullmatch(like, each) for each in value):
            self.refuse(key, advice)
            return ()
        return tuple(value)

    def words(self, key: str, choices: Collection[str]) -> frozenset[str] | None:
        """Return a list of words, each one of ``choices``."""
        value = self.take(key)
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
            self.refuse(key, f"give a list of words out of {', '.join(sorted(choices))}")
            return None
        for word in value:
            if word not in choices:
                self.report.refuse(self.place(key), key, word, did_you_mean(word, sorted(choices)))
        return frozenset(value) & frozenset(choices)

    def table(self, key: str) -> Table:
        """Return a table inside this one; an empty one where there is none."""
        value = self.take(key)
        if value is not None and not isinstance(value, Mapping):
            self.refuse(key, f"make it a table, as in [{self.place(key)}]")
            value = None
        return Table(value or {}, self.place(key), self.report)

    def tables(self, key: str) -> Iterator[Table]:
        """Yield the tables written under ``[[key]]``, in order; messages count them from 1."""
        value = self.take(key)
        if value is None:
            return
        if not isinstance(value, list) or not all(isinstance(row, Mapping) for row in value):
            self.refuse(key, f"write each one as a table under [[{self.place(key)}]]")
            return
        for number, row in enumerate(value, 1):
            yield Table(row, f"{self.place(key)}[{number}]", self.report)

    def finish(self) -> None:
        """Note every key that nobody asked for."""
        for key in self.data:
            if key not in self._known and not _is_refused(key, self.data[key]):
                self.report.fault(self.place(key), f"unknown key: {did_you_mean(key, sorted(self._known))}")


def parse(file: Path) -> tuple[str, dict[str, Any]]:
    """Return the text of a TOML file and what it says. Raises ConfigError, with line and column where it is broken."""
    try:
        # A byte order mark is an editor's doing, not the user's: drop it rather than complain.
        text = file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        why = f"byte {error.start} is not UTF-8: save the file as UTF-8"
    except OSError as error:
        why = f"cannot be read: {error.strerror or type(error).__name__}"
    else:
        try:
            return text, tomllib.loads(text)
        except RecursionError:
            why = "broken TOML: nested too deeply"
        except ValueError as error:
            # tomllib's own wording, minus where: "Invalid value (at line 3, column 7)"
            what, _, place = str(error).rstrip(")").partition(" (at ")
            why = f"{place or 'somewhere'}: broken TOML: {what}"
    # Raised out here, so that the error carries no other one whose frames hold the text of the file.
    raise ConfigError(scrub(f"{file}: {why}."))


def refuse_secrets(data: Mapping[str, Any], report: Report, where: str = "") -> None:
    """Note every key in plain text, anywhere in the file, without showing it."""
    for key, value in data.items():
        place = f"{where}.{key}" if where else key
        if isinstance(value, Mapping):
            refuse_secrets(value, report, place)
        elif isinstance(value, list) and any(isinstance(row, Mapping) for row in value):
            for number, row in enumerate(value, 1):
                if isinstance(row, Mapping):
                    refuse_secrets(row, report, f"{place}[{number}]")
        elif _is_refused(key, value):
            report.fault(place, f"value (hidden): {KEEP_OUT}")


def _is_refused(key: str, value: object) -> bool:
    if isinstance(value, Mapping):
        return False
    return names_a_secret(key) or any(map(holds_a_secret, value if isinstance(value, list) else [value]))
