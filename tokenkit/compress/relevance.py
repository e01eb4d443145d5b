"""How much each piece of a text matters, for a question or, without one, for the text itself; words only, no model.

A piece matters by its own words (BM25: Robertson and Zaragoza, "The Probabilistic Relevance Framework", 2009), by the
passage and the section it stands in, by its neighbours, and because a passage that matters names what it is about.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise

from tokenkit.compress.outline import BLANK, INLINE, LINE, SECTION, Outline
from tokenkit.compress.spans import Span

Scores = list[float]
Spread = Callable[[Scores, Outline, Sequence[int]], Scores]
"""From each piece's own score, the outline and the pieces' sizes in characters to scores that neighbours share."""

# Shares of the parts of a score, each scaled to at most 1. Measured on public question-answering, meeting and
# documentation sets; halving or doubling any of them moves the share of evidence kept by a few per cent.
OWN, PASSAGE, NEARBY, HEADING, SINGLE = 0.2, 1.0, 1.0, 2.0, 1.0
NAMED = 1.0
FOLLOW, HOPS = 0.7, 2
"""A passage named by one that matters is worth this share of it; how many times that is followed."""

K1, B = 1.2, 0.75
MOST_POSTINGS = 24
POSITION = 0.1

LIKE, BEGINNING, ENDING = 0.5, 5, 2
"""For a question's word that the text has not, those that begin like it count, for this share: they have at least so
many letters in common, and differ in at most so many at the end."""

SENTENCE, AGAIN = 15, 0.1
"""Without a question, a piece of so many characters that repeats an earlier one keeps this share of its score."""

_WORD = re.compile(r"[^\W_]+")
_STOP = frozenset(
    """a about above after again all also am an and any are as at be because been before being below between both but
    by can could did do does doing down during each few for from further had has have having he her here hers him his
    how i if in into is it its just like may me more most my no nor not now of off on once only or other our out over
    own same shall she should so some such than that the their them then there these they this those through to too
    under until up us very was we were what when where which while who whom why will with would yeah yes you your uh um
    okay ok oh mm hmm gonna wanna got get go know really right think well""".split()  # noqa: SIM905 - reads as prose
)


def relevance(made: Outline, query: str | None, spread: Spread) -> Scores:
    """Return a score for each piece, higher is more relevant; ``spread`` shares scores between neighbours."""
    pieces = made.pieces
    written, known = [_words(piece) for piece in pieces], _Stems()
    words = [known.of(row) for row in written]
    counts = [Counter(row) for row in words]
    wanted = _wanted(query, counts)
    centre = not wanted
    if centre:
        wanted = _central(counts)
    rarity = _rarity(counts, wanted)
    own = scaled(_bm25(counts, wanted, rarity))
    nearby = scaled(spread(own, made, [len(piece) for piece in pieces]))
    scores = [OWN * a + NEARBY * b for a, b in zip(own, nearby, strict=True)]
    if centre:
        return _once(_early(scores), pieces)
    for part, share in (
        (_headings(made, wanted, rarity), HEADING),
        (_passages(made, written, words, wanted, query or ""), PASSAGE),
        (_answers(counts, wanted, rarity), SINGLE),
    ):
        scores = [score + share * more for score, more in zip(scores, part, strict=True)]
    return scores


class _Stems(dict[str, str]):
    """Words to their stems, and to nothing where they say nothing: each is looked at once."""

    unspaced = False  # whether there was one of a script that sets no blanks between words

    def __missing__(self, word: str) -> str:
        self.unspaced = self.unspaced or word[0] >= _UNSPACED
        stem = self[word] = _stem(word) if len(word) > 1 and word not in _STOP else ""
        return stem

    def of(self, words: Sequence[str]) -> list[str]:
        """Return the stems of those words that say something; of Chinese, pairs of signs."""
        found = list(filter(None, map(self.__getitem__, words)))
        if not self.unspaced:
            return found
        return [part for word in found for part in (_pairs(word) if word[0] >= _UNSPACED else (word,))]


def stems(text: str) -> list[str]:
    """Return the content words of a text, lower-case, without their endings; of Chinese, pairs of signs."""
    return _Stems().of(_words(text))


def _words(text: str) -> list[str]:
    """Return the words in lower case; of plain ASCII by a table, which is several times as fast."""
    low = text.lower()
    return low.encode().translate(_SPACED).decode().split() if low.isascii() else _WORD.findall(low)


_SPACED = bytes(code if chr(code).isalnum() else 32 for code in range(128)).ljust(256)
_UNSPACED = "\u2e80"  # where the scripts begin that set no blanks between words


def _pairs(word: str) -> list[str]:
    return [word[i : i + 2] for i in range(len(word) - 1)] or [word]


def _stem(word: str) -> str:
    for ending in ("ings", "ing", "edly", "ed", "ies", "es", "s", "ly"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word


def _wanted(query: str | None, counts: Sequence[Counter[str]]) -> dict[str, float]:
    """Return the question's words that the text has, and for those it has not, what begins like them: weighted."""
    words = list(dict.fromkeys(stems(query or "")))
    there = set[str]().union(*(count.keys() & set(words) for count in counts)) if words else set[str]()
    found = {word: 1.0 for word in words if word in there}
    begins = {word[: max(BEGINNING, len(word) - ENDING)]: len(word) + ENDING
              for word in words if word not in there and len(word) > BEGINNING}  # fmt: skip
    sizes = sorted({len(begin) for begin in begins})
    for word in sorted(set[str]().union(*counts)) if begins else ():
        if any(len(word) <= begins.get(word[:size], 0) for size in sizes):
            found.setdefault(word, LIKE)
    return found


def _central(counts: Sequence[Counter[str]]) -> dict[str, float]:
    """Return the words a text is about, weighted: often in it, but not everywhere."""
    often = Counter(word for count in counts for word in count)
    worth = {word: n * math.log(1 + len(counts) / n) for word, n in often.items() if n > 1}
    best = sorted(worth, key=lambda word: (-worth[word], word))[:64]
    return {word: worth[word] / worth[best[0]] for word in best}


def _rarity(counts: Sequence[Counter[str]], wanted: Mapping[str, float]) -> dict[str, float]:
    holding = Counter(word for count in counts for word in count.keys() & wanted.keys())
    return {word: math.log(1 + (len(counts) - holding[word] + 0.5) / (holding[word] + 0.5)) for word in wanted}


def _bm25(counts: Sequence[Counter[str]], wanted: Mapping[str, float], rarity: Mapping[str, float]) -> Scores:
    sizes = [count.total() for count in counts]
    usual = sum(sizes) / max(sum(size > 0 for size in sizes), 1) or 1.0
    scores = []
    for count, size in zip(counts, sizes, strict=True):
        shared = wanted.keys() & count.keys()
        room = K1 * (1 - B + B * size / usual)
        scores.append(
            math.fsum(wanted[word] * rarity[word] * count[word] * (K1 + 1) / (count[word] + room) for word in shared)
            if shared
            else 0.0
        )
    return scores


def scaled(scores: Scores) -> Scores:
    """Return scores with the highest at 1."""
    top = max(scores, default=0.0)
    return [score / top for score in scores] if top > 0 else scores


def _early(scores: Scores) -> Scores:
    """Without a question, what stands first says more: a mild bonus that fades over the text."""
    last = max(len(scores) - 1, 1)
    return [score + POSITION * (1 - place / last) for place, score in enumerate(scores)]


def _once(scores: Scores, pieces: Sequence[str]) -> Scores:
    """Let a sentence that was there before count for little: it says nothing that is new."""
    seen: set[str] = set()
    made = []
    for score, piece in zip(scores, pieces, strict=True):
        words = " ".join(piece.split())
        again = len(words) >= SENTENCE and words in seen
        seen.add(words)
        made.append(score * AGAIN if again else score)
    return made


def _answers(counts: Sequence[Counter[str]], wanted: Mapping[str, float], rarity: Mapping[str, float]) -> Scores:
    """Return how nearly a piece alone has every word of the question: such a one is likely the answer."""
    all_of_it = math.fsum(rarity[word] for word in wanted) or 1.0
    share = min(len(wanted) - 1, 2) / 2  # one word proves nothing
    if not share:
        return [0.0] * len(counts)
    there = (wanted.keys() & count.keys() for count in counts)
    return [share * (math.fsum(rarity[w] for w in some) / all_of_it) ** 8 if some else 0.0 for some in there]


def _headings(made: Outline, wanted: Mapping[str, float], rarity: Mapping[str, float]) -> Scores:
    """Return how well the heading above a piece matches; what stands under a heading inherits from those above it."""
    total = math.fsum(rarity.values()) or 1.0
    worth: Scores = []
    for number, title in enumerate(made.titles):
        words = set(stems(title))
        found = math.fsum(rarity[word] for word in sorted(words & wanted.keys())) / total
        found /= 1 + 0.3 * len(words - wanted.keys())
        worth.append(max(found, 0.8 * worth[made.parents[number]] if number else 0.0))
    return [worth[section] for section in made.sections]


def _passages(
    made: Outline,
    written: Sequence[list[str]],
    words: Sequence[list[str]],
    wanted: Mapping[str, float],
    query: str,
) -> Scores:
    """Return the worth of the passage a piece stands in: its own words, and being named by a passage of worth.

    ``written`` are the pieces' words as they are, ``words`` their stems.
    """
    together = [Counter(row) for row in _by_passage(made, words)]
    if sum(1 for count in together if count) <= 3:
        return [0.0] * len(words)
    worth = scaled(_bm25(together, wanted, _rarity(together, wanted)))
    names = _Names([tuple(_words(subject)) for subject in made.subjects])
    asked = names.within(_words(query))
    worth = [score + NAMED * (place in asked) for place, score in enumerate(worth)]
    linked = _links(names, _by_passage(made, written), together)
    reached = worth
    for _ in range(HOPS):
        following = list(worth)
        for place, named in linked.items():
            passed = FOLLOW * reached[place] / math.sqrt(len(named))
            for other, share in named.items():
                found = worth[other] + share * passed
                if found > following[other]:
                    following[other] = found
        reached = following
    reached = scaled(reached)
    return [reached[passage] for passage in made.passages]


def _by_passage(made: Outline, rows: Sequence[list[str]]) -> list[list[str]]:
    together: list[list[str]] = [[] for _ in made.subjects]
    for passage, row in zip(made.passages, rows, strict=True):
        together[passage] += row
    return together


class _Names:
    """Finds names, given as words, in a row of words: each place is looked at a bounded number of times.

    A name is looked for where its longest word is, which is rarely one that every text is full of.
    """

    def __init__(self, names: Sequence[tuple[str, ...]]) -> None:
        self.all = names
        self._places: dict[tuple[str, ...], list[int]] = {}
        shapes: dict[str, set[Span]] = defaultdict(set)
        for place, name in enumerate(names):
            if sum(map(len, name)) >= 4:
                self._places.setdefault(name, []).append(place)
                longest = max(name, key=len)
                shapes[longest].add((len(name), name.index(longest)))
        self._shapes = {word: sorted(known, reverse=True)[:8] for word, known in shapes.items()}

    def within(self, words: Sequence[str]) -> set[int]:
        """Return the places of the names that occur in ``words``."""
        found: set[int] = set()
        for at in [at for at, word in enumerate(words) if word in self._shapes]:
            for size, before in self._shapes[words[at]]:
                places = self._places.get(tuple(words[at - before : at - before + size])) if at >= before else None
                if places:
                    found.update(places[:MOST_POSTINGS])
        return found


def _links(names: _Names, texts: Sequence[list[str]], together: Sequence[Counter[str]]) -> dict[int, dict[int, float]]:
    """Return for each passage the ones it names, whole (1) or by their rare words alone (at most 0.5)."""
    linked: dict[int, dict[int, float]] = defaultdict(dict)
    for place, words in enumerate(texts):
        for other in sorted(names.within(words)):
            if other != place:
                linked[place][other] = 1.0
    rare = max(2, min(len(texts) // 5, MOST_POSTINGS))
    stemmed = [[word for word in map(_stem, name) if len(word) > 3] for name in names.all]
    postings: dict[str, list[int]] = {word: [] for name in stemmed for word in name}
    for place, count in enumerate(together):
        for word in postings.keys() & count.keys():
            postings[word].append(place)
    for other, name in enumerate(names.all):
        telling = [word for word in stemmed[other] if 0 < len(postings[word]) <= rare]
        if telling:
            holders = set.intersection(*(set(postings[word]) for word in telling))
            for place in sorted(holders - {other}):
                linked[place].setdefault(other, 0.5 * len(telling) / len(name))
    return linked


def along(scores: Scores, made: Outline, sizes: Sequence[int]) -> Scores:
    """Share scores along the text: less with every character between, little across blank lines and headings."""
    return spread_along(scores, made, sizes, STEPS)


def spread_along(scores: Scores, made: Outline, sizes: Sequence[int], steps: Mapping[int, float]) -> Scores:
    """Share scores by ``exp(-distance)``; ``steps`` says how far apart a separator puts two pieces. Linear time."""
    reach = [math.exp(-far) for far in distances(made, sizes, steps)]
    forward = _carried(scores, reach)
    backward = _carried(scores[::-1], reach[::-1])[::-1]
    return [a + b - own for a, b, own in zip(forward, backward, scores, strict=True)]


def distances(made: Outline, sizes: Sequence[int], steps: Mapping[int, float]) -> Iterator[float]:
    """Yield how far each piece but the first is from the one before it: the text between, and what parts them.

    An empty line between two short passages parts them less, by the square of how short of a paragraph they are. In a
    small text everything is nearer, so that what counts as far and as a paragraph shrinks with it.
    """
    whole = passage_sizes(made, sizes)
    total = sum(sizes) or 1
    far, paragraph = min(FAR, total / FEWEST_FAR), min(PARAGRAPH, total / FEWEST_PARAGRAPHS)
    for i, (kind, (a, b)) in enumerate(zip(made.separators[1:], pairwise(sizes), strict=True), 1):
        step = steps[kind]
        if kind == BLANK:
            length = (whole[made.passages[i - 1]] + whole[made.passages[i]]) / 2
            step = steps[LINE] + (step - steps[LINE]) * min(length / paragraph, 1.0) ** 2
        yield step + (a + b) / 2 / far


def passage_sizes(made: Outline, sizes: Sequence[int]) -> list[int]:
    """Return the characters of each passage."""
    whole = [0] * len(made.subjects)
    for passage, size in zip(made.passages, sizes, strict=True):
        whole[passage] += size
    return whole


PARAGRAPH = 500
"""Characters of a passage that stands for itself; shorter ones (turns, items, captions) belong with what is around."""

FAR = 4_000.0
"""Characters over which what is nearby fades to a third."""

FEWEST_FAR, FEWEST_PARAGRAPHS = 8, 20
"""A text is at least so many times as long as what is far, and as a paragraph, in it."""

STEPS = {INLINE: 0.0, LINE: 0.02, BLANK: 1.0, SECTION: 2.0}
"""How far apart two pieces are because of what stands between them; a third is left over a distance of 1."""


def _carried(scores: Scores, reach: Scores) -> Scores:
    carried = scores[:1]
    for score, share in zip(scores[1:], reach, strict=True):
        carried.append(score + carried[-1] * share)
    return carried
