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


def count(rows: Iterable[tuple[str, Sequence[str]]], most: float, drop: Iterable[str] = ()) -> Terms:
    """Words and phrases of each row (its text, its hashtags) that at least two items hold, and at most `most`
    of all. Words in `drop` are read as if they said nothing.
    """
    text = _tokens(rows, frozenset(word.lower() for word in drop))
    stems = list(dict.fromkeys(stem(word) for word in text.words))
    number = {name: i for i, name in enumerate(stems)}
    stem_of = np.fromiter((number[stem(word)] for word in text.words), np.int64, len(text.words))
    size = len(stems)

    telling_at = np.flatnonzero(text.word >= 0)
    word = text.word[telling_at]
    single = _occurrences(stem_of[word], text.row[telling_at], text.tagged[telling_at], text.rows, 2, most)
    # Neighbours in one part of a row: a token that says nothing, or closes the part, stands between others.
    left_at = telling_at[:-1][np.diff(telling_at) == 1]
    left_at = left_at[stem_of[text.word[left_at]] != stem_of[text.word[left_at + 1]]]
    left, right = text.word[left_at], text.word[left_at + 1]
    pair = stem_of[left] * size + stem_of[right]
    double = _occurrences(pair, text.row[left_at], text.tagged[left_at], text.rows, FEWEST_FOR_A_PHRASE, most)
    double = double.only([not alike((stems[k // size],), (stems[k % size],)) for k in double.keys.tolist()])

    word_forms = _commonest(stem_of[word], word, text.words)
    kept = np.isin(pair, double.keys)
    surfaces = left[kept] * len(text.words) + right[kept]
    distinct, surface = np.unique(surfaces, return_inverse=True)
    spelt = [_joined(*(text.words[i] for i in divmod(int(key), len(text.words)))) for key in distinct]
    phrase_forms = _commonest(pair[kept], surface, spelt)
    return Terms(
        matrix=sparse.csr_array(sparse.hstack([single.matrix, double.matrix], format="csr")),
        forms=[word_forms[k] for k in single.keys.tolist()] + [phrase_forms[k] for k in double.keys.tolist()],
        stems=[(stems[k],) for k in single.keys.tolist()]
        + [(stems[k // size], stems[k % size]) for k in double.keys.tolist()],
        tagged=np.concatenate([single.tagged, double.tagged]),
    )


def _joined(one: str, other: str) -> str:
    """A phrase as its script writes it.

    >>> _joined("street", "food"), _joined("红烧", "肉")
    ('street food', '红烧肉')
    """
    return one + other if unspaced(one) and unspaced(other) else f"{one} {other}"


@dataclass(frozen=True, slots=True)
class _Tokens:
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


def _tokens(rows: Iterable[tuple[str, Sequence[str]]], drop: frozenset[str]) -> _Tokens:
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
    tells = np.array([telling(token) and token not in drop for token in words] + [False])
    stream, times = hashtags.expand(stream, hashtags.split(words, tells[:-1], stream, in_tag))
    return _Tokens(
        words, np.where(tells[stream], stream, -1), np.repeat(row, times), np.repeat(in_tag, times), len(ends)
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
    best: dict[int, tuple[int, str]] = {}
    for cell, n in zip(cells.tolist(), counts.tolist(), strict=True):
        key, form = divmod(cell, len(spelt))
        offer = (-n, spelt[form])
        best[key] = min(best.get(key, offer), offer)
    return {key: form for key, (_, form) in best.items()}
