"""The words and phrases of items' texts, countable and readable.

Turns texts in any language into an items × terms matrix. A term is counted by its stem and shown in its most
frequent form. It does not know clusters.
"""

import re
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from byway.interests.tokens import UNSPACED, telling, tokens

FEWEST_FOR_A_PHRASE = 3
"""Items that must hold two words side by side before they count as a phrase."""
SHORTEST_RUN, MOST_PARTS = 7, 4
"""Letters of a hashtag that may be several words, and how many it may be."""
SAID_AS_ONE = 0.1
"""A hashtag that texts say more often than this, for each time it is a tag, is a word as it stands."""

_ENDING = re.compile(r"(?<=...)(ing|ed|er|e)$")


@dataclass(frozen=True, slots=True)
class Terms:
    """Which item holds which term."""

    matrix: sparse.csr_array
    """int32 [n, terms], 1 where the item holds the term."""
    forms: list[str]
    """How each term is written: lower case, one or two words."""
    stems: list[tuple[str, ...]]
    """The stems of each term's words."""
    tagged: NDArray[np.float64]
    """[terms]: share of the term's occurrences that stand in hashtags."""


def read(rows: Iterable[tuple[str, Sequence[str]]], most: float, drop: Iterable[str] = ()) -> Terms:
    """Words and phrases of each row (its text, its hashtags) that at least two items hold, and at most `most`
    of all. Words in `drop` are read as if they said nothing.
    """
    text = _number(rows, frozenset(word.lower() for word in drop))
    stems = {stem(word): 0 for word in text.words}
    stems = {name: i for i, name in enumerate(stems)}
    stem_of = np.fromiter((stems[stem(word)] for word in text.words), np.int64, len(text.words))
    unspaced = np.fromiter((bool(UNSPACED.search(word)) for word in text.words), bool, len(text.words))
    n, size = text.rows, len(stems)

    said = np.flatnonzero(text.word >= 0)
    single = _occurrences(stem_of[text.word[said]], text.row[said], text.tagged[said], n, 2, most)
    # Neighbours in one part of a row: parts are closed by a token that says nothing.
    pair = said[:-1][np.diff(said) == 1]
    left, right = text.word[pair], text.word[pair + 1]
    # Where words stand side by side without a space, a mixed pair was parted by one.
    phrase = (stem_of[left] != stem_of[right]) & (unspaced[left] == unspaced[right])
    pair, left, right = pair[phrase], left[phrase], right[phrase]
    both = stem_of[left] * size + stem_of[right]
    double = _occurrences(both, text.row[pair], text.tagged[pair], n, FEWEST_FOR_A_PHRASE, most)
    names = list(stems)
    double = double.only([not _words_alike(names[k // size], names[k % size]) for k in double.keys.tolist()])

    word_forms = _commonest(stem_of[text.word[said]], text.word[said], text.words)
    kept = np.isin(both, double.keys)
    surfaces = left[kept] * len(text.words) + right[kept]
    distinct, surface = np.unique(surfaces, return_inverse=True)
    parts = [divmod(int(key), len(text.words)) for key in distinct]
    spelt = [("" if unspaced[a] else " ").join((text.words[a], text.words[b])) for a, b in parts]
    phrase_forms = _commonest(both[kept], surface, spelt)
    return Terms(
        matrix=sparse.csr_array(sparse.hstack([single.matrix, double.matrix], format="csr")),
        forms=[word_forms[k] for k in single.keys.tolist()] + [phrase_forms[k] for k in double.keys.tolist()],
        stems=[(names[k],) for k in single.keys.tolist()]
        + [(names[k // size], names[k % size]) for k in double.keys.tolist()],
        tagged=np.concatenate([single.tagged, double.tagged]),
    )


@dataclass(frozen=True, slots=True)
class _Text:
    """All rows' tokens in one line."""

    words: list[str]
    """Distinct words that say something."""
    word: NDArray[np.int64]
    """[tokens]: number of the word, -1 for a token that says nothing and after each part."""
    row: NDArray[np.int64]
    """[tokens]: row of the token."""
    tagged: NDArray[np.bool_]
    """[tokens]: whether it stands in a hashtag."""
    rows: int


def _number(rows: Iterable[tuple[str, Sequence[str]]], drop: frozenset[str]) -> _Text:
    numbers: dict[str, int] = {}
    said, in_tag, ends = array("i"), array("b"), array("q")
    for text, hashtags in rows:
        for at, part in enumerate((text, *hashtags)):
            said.extend(numbers.setdefault(token, len(numbers)) for token in tokens(part))
            said.append(-1)
            in_tag.extend([at > 0] * (len(said) - len(in_tag)))
        ends.append(len(said))
    token = np.array(said, np.int64)
    tagged, row = (
        np.array(in_tag, bool),
        np.repeat(np.arange(len(ends)), np.diff(np.array(ends, np.int64), prepend=0)),
    )
    names = list(numbers)
    # A tag that is several words becomes them, side by side.
    split = _run_together(names, token, row, tagged)
    pieces = np.ones(len(token), np.int64)
    for key, parts in split.items():
        pieces[(token == key) & tagged] = len(parts)
    first = np.cumsum(pieces) - pieces
    was, row, tagged = token, np.repeat(row, pieces), np.repeat(tagged, pieces)
    token = np.repeat(token, pieces)
    for key, parts in split.items():
        for at, part in enumerate(parts):
            token[first[(was == key) & (pieces > 1)] + at] = part
    kept = np.array([telling(name) and name not in drop for name in names], bool)
    number = np.append(np.where(kept, np.cumsum(kept) - 1, -1), -1)
    return _Text(
        [name for name, keep in zip(names, kept, strict=True) if keep], number[token], row, tagged, len(ends)
    )


def _run_together(
    names: list[str], token: NDArray[np.int64], row: NDArray[np.int64], tagged: NDArray[np.bool_]
) -> dict[int, list[int]]:
    """Tokens of hashtags that are several words written as one, as these words: `#tradingcardopenings`.

    The words are those that the catalog's texts say; of all ways to part a tag the most probable one (a unigram
    model). A tag that texts say as one word stays one, and so does one whose items never say any of the words.
    """
    plain = np.bincount(token[(token >= 0) & ~tagged], minlength=len(names))
    tags = np.bincount(token[(token >= 0) & tagged], minlength=len(names))
    total = max(1, int(plain.sum()))
    known = {
        name: (float(np.log(plain[i] / total)), i)
        for i, name in enumerate(names)
        if plain[i] >= 2 and name.isalpha() and (len(name) >= 3 or (len(name) == 2 and not telling(name)))
    }
    longest = max(map(len, known), default=0)
    by_token = np.argsort(token, kind="stable")
    starts = np.searchsorted(token[by_token], np.arange(len(names) + 1))

    def rows_of(key: int) -> NDArray[np.int64]:
        return row[by_token[starts[key] : starts[key + 1]]]

    found: dict[int, list[int]] = {}
    for key in np.flatnonzero((tags > 0) & (plain <= SAID_AS_ONE * tags)).tolist():
        name = names[key]
        if len(name) < SHORTEST_RUN or not name.isalpha():
            continue
        best: list[tuple[float, list[int]] | None] = [(0.0, []), *[None] * len(name)]
        for end in range(2, len(name) + 1):
            for start in range(max(0, end - longest), end - 1):
                before, word = best[start], known.get(name[start:end])
                if before is None or word is None or word[1] == key or len(before[1]) == MOST_PARTS:
                    continue
                offer, known_best = before[0] + word[0], best[end]
                if known_best is None or offer > known_best[0]:
                    best[end] = (offer, [*before[1], word[1]])
        parts = (best[-1] or (0.0, []))[1]
        meant = [part for part in parts if telling(names[part])]
        if len(parts) < 2 or not meant:
            continue
        own = np.unique(rows_of(key))
        if any(np.isin(own, rows_of(part)).any() for part in meant):
            found[key] = parts
    return found


@dataclass(frozen=True, slots=True)
class _Occurrences:
    keys: NDArray[np.int64]
    """[kept]: what was counted, ascending."""
    matrix: sparse.csr_array
    """int32 [n, kept]."""
    tagged: NDArray[np.float64]
    """[kept]: share of the rows that hold it in a hashtag."""

    def only(self, wanted: list[bool]) -> "_Occurrences":
        kept = np.flatnonzero(wanted)
        return _Occurrences(self.keys[kept], sparse.csr_array(self.matrix[:, kept]), self.tagged[kept])


def _occurrences(
    keys: NDArray[np.int64],
    rows: NDArray[np.int64],
    tagged: NDArray[np.bool_],
    n: int,
    fewest: int,
    most: float,
) -> _Occurrences:
    """Which row holds which key, for keys that from `fewest` rows to share `most` of all rows hold."""
    distinct, key = np.unique(keys, return_inverse=True)
    cells, first = np.unique(rows * max(1, len(distinct)) + key, return_inverse=True)
    in_tag = np.bincount(first, tagged, len(cells)) > 0
    row, column = np.divmod(cells, max(1, len(distinct)))
    held = np.bincount(column, minlength=len(distinct))
    kept = np.flatnonzero((held >= fewest) & (held <= most * n))
    full = sparse.csr_array((np.ones(len(cells), np.int32), (row, column)), shape=(n, len(distinct)))
    share = np.bincount(column, in_tag, len(distinct))[kept] / held[kept]
    return _Occurrences(distinct[kept], sparse.csr_array(full[:, kept]), share)


def _commonest(keys: NDArray[np.int64], forms: NDArray[np.int64], spelt: list[str]) -> dict[int, str]:
    """For each key its most frequent form; of equals the first in the alphabet."""
    cells, counts = np.unique(keys * max(1, len(spelt)) + forms, return_counts=True)
    found: dict[int, tuple[int, str]] = {}
    for cell, count in zip(cells.tolist(), counts.tolist(), strict=True):
        key, form = divmod(cell, len(spelt))
        best = found.get(key)
        offer = (-count, spelt[form])
        if best is None or offer < best:
            found[key] = offer
    return {key: form for key, (_, form) in found.items()}


def stem(word: str) -> str:
    """The word without its English plural (Harman 1991, the S stemmer, with f and v as one); never shown.

    >>> [stem(w) for w in ("noodles", "puppies", "puppy", "movie", "movies", "knife", "knives", "boss", "buses")]
    ['noodle', 'puppy', 'puppy', 'movy', 'movy', 'knif', 'knif', 'boss', 'bus']
    """
    if len(word) >= 4 and word.endswith("s") and not word.endswith(("us", "ss", "is")):
        word = word[:-2] if word.endswith(("ches", "shes", "xes", "sses", "zes", "uses")) else word[:-1]
    if len(word) >= 4:
        word = word.removesuffix("e") if word.endswith(("fe", "ve")) else word
        word = word[:-1] + "f" if word.endswith("v") else word
        word = word[:-2] + "y" if word.endswith("ie") else word
    return word


def alike(a: tuple[str, ...], b: tuple[str, ...]) -> bool:
    """Whether two terms (by their stems) would repeat each other in one description.

    They share a word, one word is inside another, two words begin alike, or one is the other misspelt.

    >>> alike(("street", "food"), ("food",)), alike(("animation",), ("animated",)), alike(("cat",), ("dog",))
    (True, True, False)
    >>> alike(("minecraft",), ("minectaft",)), alike(("king", "glory"), ("kingsglory",))
    (True, True)
    """
    if len(a) + len(b) > 2 and _words_alike("".join(a), "".join(b)):
        return True
    return any(_words_alike(x, y) for x in a for y in b)


def _words_alike(a: str, b: str) -> bool:
    short, long = sorted((a.replace("-", ""), b.replace("-", "")), key=len)
    if short == long or _ENDING.sub("", short) == _ENDING.sub("", long):
        return True
    if len(short) < 4:
        return False
    if short in long:
        return True
    common = next((i for i, (x, y) in enumerate(zip(short, long, strict=False)) if x != y), len(short))
    if common >= 5 and common >= 0.7 * len(short):
        return True
    # Seven letters, of which one may be wrong: 2·6/14 = 0.857.
    return len(short) >= 6 and short[0] == long[0] and SequenceMatcher(None, short, long).ratio() >= 0.85
