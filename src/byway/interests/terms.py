"""The words and phrases of items' texts, countable and readable.

Turns texts in any language into an items × terms matrix. A term is counted by its stem and shown in its most
frequent form. It does not know clusters.
"""

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from byway.interests import hashtags
from byway.interests.words import alike, runs, stem, telling, unspaced

FEWEST_FOR_A_PHRASE = 3
"""Items that must hold two words side by side before they count as a phrase."""


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

    def __len__(self) -> int:
        """How many items were read."""
        return len(self.matrix.indptr) - 1


def read(rows: Iterable[tuple[str, Sequence[str]]], most: float, drop: Iterable[str] = ()) -> Terms:
    """Words and phrases of each row (its text, its hashtags) that at least two items hold, and at most `most`
    of all. Words in `drop` are read as if they said nothing.
    """
    text = _number(rows, frozenset(word.lower() for word in drop))
    stems = {stem(word): 0 for word in text.words}
    stems = {name: i for i, name in enumerate(stems)}
    stem_of = np.fromiter((stems[stem(word)] for word in text.words), np.int64, len(text.words))
    n, size = text.rows, len(stems)

    said = np.flatnonzero(text.word >= 0)
    single = _occurrences(stem_of[text.word[said]], text.row[said], text.tagged[said], n, 2, most)
    # Neighbours in one part of a row: a token that says nothing, or closes the part, stands between others.
    pair = said[:-1][np.diff(said) == 1]
    left, right = text.word[pair], text.word[pair + 1]
    phrase = stem_of[left] != stem_of[right]
    pair, left, right = pair[phrase], left[phrase], right[phrase]
    both = stem_of[left] * size + stem_of[right]
    double = _occurrences(both, text.row[pair], text.tagged[pair], n, FEWEST_FOR_A_PHRASE, most)
    names = list(stems)
    double = double.only([not alike((names[k // size],), (names[k % size],)) for k in double.keys.tolist()])

    word_forms = _commonest(stem_of[text.word[said]], text.word[said], text.words)
    kept = np.isin(both, double.keys)
    surfaces = left[kept] * len(text.words) + right[kept]
    distinct, surface = np.unique(surfaces, return_inverse=True)
    spelt = [_joined(*(text.words[i] for i in divmod(int(key), len(text.words)))) for key in distinct]
    phrase_forms = _commonest(both[kept], surface, spelt)
    return Terms(
        matrix=sparse.csr_array(sparse.hstack([single.matrix, double.matrix], format="csr")),
        forms=[word_forms[k] for k in single.keys.tolist()] + [phrase_forms[k] for k in double.keys.tolist()],
        stems=[(names[k],) for k in single.keys.tolist()]
        + [(names[k // size], names[k % size]) for k in double.keys.tolist()],
        tagged=np.concatenate([single.tagged, double.tagged]),
    )


def _joined(one: str, other: str) -> str:
    """A phrase as its script writes it.

    >>> _joined("street", "food"), _joined("红烧", "肉")
    ('street food', '红烧肉')
    """
    return one + other if unspaced(one) and unspaced(other) else f"{one} {other}"


@dataclass(frozen=True, slots=True)
class _Text:
    """All rows' tokens in one line."""

    words: list[str]
    """Distinct words."""
    word: NDArray[np.int64]
    """[tokens]: number of the word, -1 for what says nothing, and where no phrase goes on."""
    row: NDArray[np.int64]
    """[tokens]: row of the token."""
    tagged: NDArray[np.bool_]
    """[tokens]: whether it stands in a hashtag."""
    rows: int


def _number(rows: Iterable[tuple[str, Sequence[str]]], drop: frozenset[str]) -> _Text:
    numbers: dict[str, int] = {}
    word, tagged, ends = array("i"), array("b"), array("q")
    for text, tags in rows:
        for at, part in enumerate((text, *tags)):
            for run in runs(part):
                word.extend([numbers.setdefault(token, len(numbers)) for token in run])
                word.append(-1)
            tagged.extend([at > 0] * (len(word) - len(tagged)))
        ends.append(len(word))
    words = list(numbers)
    stream = np.frombuffer(word, np.int32).astype(np.int64) if word else np.zeros(0, np.int64)
    in_tag = np.frombuffer(tagged, np.int8).astype(bool) if tagged else np.zeros(0, bool)
    lengths = np.diff(np.frombuffer(ends, np.int64), prepend=0) if ends else np.zeros(0, np.int64)
    row = np.repeat(np.arange(len(ends)), lengths)
    # The last is for -1.
    said = np.array([telling(token) and token not in drop for token in words] + [False])
    stream, times = hashtags.expand(stream, hashtags.split(words, said[:-1], stream, in_tag))
    return _Text(
        words, np.where(said[stream], stream, -1), np.repeat(row, times), np.repeat(in_tag, times), len(ends)
    )


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
