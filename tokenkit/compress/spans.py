"""What no compression may alter: the places of code, links, quantities, JSON, quotations, citations and kept text.

Every scanner reads the text a bounded number of times, whatever is in it: a million backticks, brackets or quotation
marks take as long as a million letters. Where it is unclear whether something is, say, a quotation, it is protected.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

Span = tuple[int, int]


def protected(text: str, keep: Sequence[str] = ()) -> list[Span]:
    """Return where ``text`` must not be altered: sorted, disjoint ``(start, end)`` in characters.

    Fenced and inline code, URLs, numbers with units, JSON objects and arrays, quotations, citations (``[12]``,
    ``(Smith 2020)``), what stands between ``<keep>`` and ``</keep>``, and every literal string of ``keep``. A stage
    that shortens by choosing may leave a span out as a whole, except one of :func:`kept`; none may cut or change one.
    """
    return list(_protected(text, tuple(keep)))


def forget() -> None:
    """Forget the spans remembered of the last few texts, as one does before measuring how long finding them takes."""
    _protected.cache_clear()
    _always.cache_clear()


@lru_cache(maxsize=4)
def _protected(text: str, keep: tuple[str, ...]) -> tuple[Span, ...]:
    return tuple(merged([*_always(text), *kept(text, keep)])) if keep else _always(text)


@lru_cache(maxsize=4)  # what one stage makes is looked at when it is checked, and again by the next, whatever they keep
def _always(text: str) -> tuple[Span, ...]:
    code = fences(text)
    found = [*code, *kept(text)]
    for start, end in gaps(code, len(text)):
        found += _inline_code(text, start, end)
        for pattern in _PATTERNS:
            found += (match.span() for match in pattern.finditer(text, start, end))
        found += _links(text, start, end)
        found += _citations(text, start, end)
        found += objects(text, start, end)
    return tuple(merged(found))


def kept(text: str, keep: Sequence[str] = ()) -> list[Span]:
    """Return the spans that must survive any stage: ``<keep>…</keep>``, marks included, and strings of ``keep``."""
    found = []
    start = text.find("<keep>")
    while start >= 0 and (end := text.find("</keep>", start)) >= 0:
        found.append((start, end + 7))
        start = text.find("<keep>", end)
    for literal in filter(None, dict.fromkeys(keep)):
        start = text.find(literal)
        while start >= 0:
            found.append((start, start + len(literal)))
            start = text.find(literal, start + len(literal))
    return merged(found)


def fences(text: str) -> list[Span]:
    """Return the fenced code blocks, fences included. As in CommonMark, one that is never closed runs to the end."""
    found: list[Span] = []
    opened, mark = -1, ""
    for match in _fence_lines(text):
        run, rest = match["run"], match["rest"]
        if opened < 0:
            if not (run[0] == "`" and "`" in rest) and not _underline(text, match.start(), run, rest):
                opened, mark = match.start(), run
        elif run[0] == mark[0] and len(run) >= len(mark) and not match["item"] and not rest.strip():
            found.append((opened, match.end()))
            opened = -1
    if opened >= 0:
        found.append((opened, len(text)))
    return found


def objects(text: str, start: int = 0, end: int | None = None) -> list[Span]:
    """Return the outermost JSON objects and arrays within ``text[start:end]``, valid ones only.

    A token that does not fit spoils every object that is open, and none that is closed: so nothing is read twice,
    where trying each bracket by itself would take quadratic time.
    """
    end = len(text) if end is None else end
    found: list[Span] = []
    opened: list[tuple[int, str, int]] = []  # place, bracket, how many spans were found before it
    at, state = start, "value"
    while at < end:
        if not opened:
            match = _OPEN.search(text, at, end)
            if match is None:
                break
            at, state = match.start(), "value"
        elif (run := _run(text, at, end, state, opened[-1][1])) > at:
            at, state = run, "name" if opened[-1][1] == "{" else "value"
        read = _TOKEN.match(text, at, end)
        word = read["word"] if read else ""
        follows = _follows(state, word[:1], opened[-1][1] if opened else "")
        if read is None or not follows:
            at = read.start("word") if read else at
            opened.clear()
            continue
        at, state = read.end(), follows
        if word in "{[":
            opened.append((read.start("word"), word, len(found)))
        elif word in "}]":
            place, _, count = opened.pop()
            del found[count:]
            found.append((place, at))
    return found


def merged(spans: Iterable[Span]) -> list[Span]:
    """Return ``spans`` sorted, those that overlap joined into one, empty ones left out."""
    joined: list[Span] = []
    for start, end in sorted(spans):
        if start >= end:
            continue
        if joined and start < joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined


def gaps(spans: Sequence[Span], length: int) -> Iterator[Span]:
    """Yield what lies before, between and after sorted disjoint ``spans`` in a text of ``length`` characters."""
    edges = [0, *(place for span in spans for place in span), length]
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        if start < end:
            yield start, end


_MARKS = re.compile(r"```|~~~")
_FENCE = re.compile(r"[ \t>]*+(?P<item>(?:[-*+]|[0-9]{1,9}[.)])[ \t]++)?(?P<run>`{3,}+|~{3,}+)(?P<rest>[^\n]*+)")


def _fence_lines(text: str) -> Iterator[re.Match[str]]:
    """Find the lines that open or close a fence; only those with three marks in a row are read."""
    done = 0
    while marks := _MARKS.search(text, done):
        line = text.rfind("\n", 0, marks.start()) + 1
        match = _FENCE.match(text, line)
        if match:
            yield match
        done = text.find("\n", marks.end())
        if done < 0:
            return


def _underline(text: str, start: int, run: str, rest: str) -> bool:
    """Say whether tildes underline a title, as reStructuredText has it, rather than open a fence."""
    if run[0] != "~" or len(run) < 4 or rest.strip():
        return False
    above = text[max(text.rfind("\n", 0, start - 1) + 1, start - len(run) - 2) : max(start - 1, 0)].strip()
    return 0 < len(above) <= len(run)


_BREAK = re.compile(r"\n[^\S\n]*+\n")


def _inline_code(text: str, start: int, end: int) -> list[Span]:
    """Find runs of backticks closed by an equal run within their paragraph, as CommonMark pairs them."""
    runs = [match.span() for match in _TICKS.finditer(text, start, end)]
    if len(runs) < 2:
        return []
    # A run's partner is the next of its length, unless a blank line parts them: walk backwards, remembering the last.
    partner: list[int] = [-1] * len(runs)
    latest: dict[int, int] = {}
    for i in range(len(runs) - 1, -1, -1):
        if i + 1 < len(runs) and _BREAK.search(text, runs[i][1], runs[i + 1][0]):
            latest.clear()
        length = runs[i][1] - runs[i][0]
        partner[i] = latest.get(length, -1)
        latest[length] = i
    found, i = [], 0
    while i < len(runs):
        if partner[i] < 0:
            i += 1
        else:
            found.append((runs[i][0], runs[partner[i]][1]))
            i = partner[i] + 1
    return found


_TICKS = re.compile(r"``*+")  # begins with a plain sign, so that the search can skip to it

# Units that stand apart from their number or right behind it. Letters that are also words ("a", "in", "as") are left
# out, or taken only where they touch the number.
_NAMES = """
    % ‰ ° °C °F µg µl µL µm µs μg μm μs Ω kΩ MΩ ℃ ℉ K
    ng mg g kg t lb lbs oz tonne tonnes ton tons gram grams kilogram kilograms pound pounds ounce ounces
    nm mm cm dm m km ft yd mi inch inches foot feet yard yards mile miles meter meters metre metres kilometer
    kilometers kilometre kilometres m² m³ km² cm² cm³ m2 m3 km2 ha acre acres hectare hectares
    ml mL cl dl l L liter liters litre litres gallon gallons ns ms s sec secs second seconds min mins minute minutes
    h hr hrs hour hours d day days week weeks month months year years decade decades century centuries
    am pm a.m. p.m. Hz kHz MHz GHz THz bit bits byte bytes b B kB KB MB GB TB PB KiB MiB GiB TiB kbps Mbps Gbps
    MB/s GB/s km/h kph mph m/s rpm fps bpm dpi px pt em rem W kW MW GW TW Wh kWh MWh GWh TWh V mV kV A mA Ah mAh
    J kJ MJ cal kcal eV keV MeV GeV N kN Pa hPa kPa MPa GPa bar psi atm mol mmol dB lux
    USD EUR GBP JPY CNY INR CHF AUD CAD dollar dollars cent cents euro euros pence yen yuan rupee rupees
    percent pp bps k M bn mn thousand million millions billion billions trillion trillions dozen
    token tokens x × times people persons items users calls requests points degrees
"""
_UNITS = "|".join(map(re.escape, sorted({"per cent", *_NAMES.split()}, key=lambda unit: (-len(unit), unit))))

_DIGITS = r"[0-9]*+(?:[.,'\u2009\u202f][0-9]++){0,8}+(?:[eE][-+]?[0-9]++)?"
_PATTERNS = (
    re.compile(
        # The look-behind stands behind what it looks behind of, so that the search can skip to the next digit.
        rf"[0-9](?<![\w.].){_DIGITS}(?:[-–/×][0-9]{_DIGITS})?"
        rf"[^\S\n]{{0,4}}+(?:{_UNITS})(?![^\W\d_])"
    ),
    re.compile(
        rf"[$€£¥₹](?<![$€£¥₹].)[^\S\n]?+[0-9]{_DIGITS}(?:[^\S\n]?+(?:k|m|M|bn|million|billion|trillion)(?!\w))?"
    ),
    # Straight quotation marks open after a sign or blank and close before one; none reaches past a blank line.
    re.compile(r"\"(?<!\w.)(?=\S)(?:[^\"\n]|\n(?![^\S\n]*+\n))*+\"(?!\w)"),
    re.compile(r"[“„](?:[^“”„\n]|\n(?![^\S\n]*+\n))*+[”“]"),
    re.compile(r"«(?:[^«»\n]|\n(?![^\S\n]*+\n))*+»"),
    re.compile(r"‘(?<!\w.)(?:[^‘’\n]|’(?=\w)|\n(?![^\S\n]*+\n))*+’(?!\w)"),
    re.compile(r"\[(?:\^[\w-]{1,40}+|@[^\]\[\n]{1,120}+|[0-9]{1,4}(?:[^\S\n]?[,;–-][^\S\n]?[0-9]{1,4}){0,40})\]"),
)

_LINK = re.compile(r"://[^\s<>\"`]++")  # begins with a sign, so that the search can skip to it
_BARE_LINK = re.compile(r"\.(?<=[wW]{3}\.)[^\s<>\"`]++")
_SCHEMES = ("https", "http", "ftps", "ftp", "file", "wss", "ws", "ssh", "git", "s3", "gs")


def _links(text: str, start: int, end: int) -> Iterator[Span]:
    """Find addresses by their scheme, and those that begin with www."""
    for match in _LINK.finditer(text, start, end):
        before = text[max(match.start() - 5, start) : match.start()].lower()
        scheme = next((scheme for scheme in _SCHEMES if before.endswith(scheme)), "")
        if scheme:
            yield match.start() - len(scheme), match.end()
    for match in _BARE_LINK.finditer(text, start + 3, end):
        yield match.start() - 3, match.end()


_PARENTHESES = re.compile(r"\((?P<inside>[^()\n]{4,200}+)\)")
_YEAR = re.compile(r"\b(?:1[5-9]|20)[0-9]{2}[a-z]?\b|\bn\.d\.")
_NAME = re.compile(r"[^\W\d_]{2}")
_AUTHORS = re.compile(r"(?:[^\W\d_][\w'’-]*+(?:,? (?:and|&|et) )?){0,3}[^\W\d_][\w'’-]*+(?: et al\.?| al\.)?[^\S\n]?\Z")


def _citations(text: str, start: int, end: int) -> Iterator[Span]:
    """Find parentheses that hold a name and a year, and years in parentheses with the authors before them."""
    for match in _PARENTHESES.finditer(text, start, end):
        inside = match["inside"]
        if _YEAR.search(inside) is None:
            continue
        if _NAME.search(inside):
            yield match.span()
        else:
            begin = max(start, match.start() - 60)
            names = _AUTHORS.search(text[begin : match.start()])
            yield (begin + names.start() if names else match.start()), match.end()


_OPEN = re.compile(r"[{\[](?=[ \t\r\n]*+[-0-9\"{}\[\]tfn])")  # with what may follow it, or it need not be tried
_SCALAR = r"(?:\"(?:[^\"\\\x00-\x1f]|\\.)*+\"|-?[0-9]++(?:\.[0-9]++)?(?:[eE][-+]?[0-9]++)?|true|false|null)"
_TOKEN = re.compile(rf"[ \t\r\n]*+(?P<word>{_SCALAR}|[{{}}\[\],:])")
_ITEMS = re.compile(rf"(?:[ \t\r\n]*+{_SCALAR}[ \t\r\n]*+,)++")
_PAIRS = re.compile(rf"(?:[ \t\r\n]*+\"(?:[^\"\\\x00-\x1f]|\\.)*+\"[ \t\r\n]*+:[ \t\r\n]*+{_SCALAR}[ \t\r\n]*+,)++")


def _run(text: str, at: int, end: int, state: str, inside: str) -> int:
    """Read as many plain items, or pairs of a name and a plain value, as follow at once; return where they end."""
    if inside == "[" and state in ("item", "value"):
        run = _ITEMS.match(text, at, end)
    elif inside == "{" and state in ("key", "name"):
        run = _PAIRS.match(text, at, end)
    else:
        return at
    return run.end() if run else at


def _follows(state: str, first: str, inside: str) -> str:
    """Return the state after a token that begins with ``first``, or nothing where it does not fit.

    States: ``value``, ``item`` (a value or the end of a list), ``key`` (or the end of an object), ``name`` (a key,
    after a comma), ``colon``, ``next`` (a comma or the end).
    """
    if not first:
        return ""
    closes = first == ("}" if inside == "{" else "]") and bool(inside)
    if state in ("value", "item"):
        if state == "item" and closes:
            return "next"
        return "key" if first == "{" else "item" if first == "[" else "" if first in "}],:" else "next"
    if state in ("key", "name"):
        return "colon" if first == '"' else "next" if state == "key" and closes else ""
    if state == "colon":
        return "value" if first == ":" else ""
    return "next" if closes else "" if first != "," else "name" if inside == "{" else "value"
