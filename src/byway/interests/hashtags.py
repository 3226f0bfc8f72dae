"""Hashtags that are several words run together, and the words they are.

`#tradingcardopenings` is *trading card openings* where the catalog's texts write it apart. It knows numbered words,
no items.
"""

from itertools import pairwise
from math import log

import numpy as np
from numpy.typing import NDArray

SHORTEST = 6
"""Letters of a hashtag that may be several words."""
FEWEST = 2
"""Times that a hashtag and each of its words by itself must be written."""
PARTS = 6
"""Words of a hashtag at the most."""
WAYS = 4
"""Best ways to split the beginning of a hashtag that are followed."""


def split(
    words: list[str], telling: NDArray[np.bool_], stream: NDArray[np.int64], tagged: NDArray[np.bool_]
) -> dict[int, list[int]]:
    """Numbers of the words that run together in a hashtag, by its number.

    `stream` [tokens] holds numbers of `words`, -1 where a text or a hashtag ends; `tagged` says which stand in
    hashtags, and `telling` [words] which words say something: both words of two must. A way to split counts only
    where texts write its words side by side, short ones more than once, and the whole as one word less often. Of
    several the likeliest counts, each word as likely as it is frequent.
    """
    if not len(stream):
        return {}
    closed = stream < 0
    alone = tagged & ~closed & np.append(True, closed[:-1]) & np.append(closed[1:], True)
    written = np.bincount(stream[~alone & ~closed], minlength=len(words))
    total = max(int(written.sum()), 1)
    # The more frequent last: of `open-world` and `openworld` it is what a hashtag means.
    usable = [i for i in np.argsort(written, kind="stable").tolist() if written[i] >= FEWEST]
    number = {words[i].replace("-", ""): i for i in usable if len(words[i]) > 1 or words[i] in "ai"}
    weight = {word: log(written[i] / total) for word, i in number.items()}
    offered: dict[int, list[list[int]]] = {}
    longest = max(map(len, weight), default=0)
    for tag in np.flatnonzero(np.bincount(stream[alone], minlength=len(words)) >= FEWEST).tolist():
        if len(words[tag]) >= SHORTEST and words[tag].isalpha():
            split_ways = [[number[part] for part in way] for way in ways(words[tag], weight, longest)]
            offered[tag] = [way for way in split_ways if telling[way].sum() >= (2 if len(way) == 2 else 1)]
    pairs = {pair for several in offered.values() for way in several for pair in pairwise(way)}
    size = len(words)
    wanted = np.array(sorted(a * size + b for a, b in pairs), np.int64)
    both = stream[:-1] * size + stream[1:]
    both = both[(stream[:-1] >= 0) & (stream[1:] >= 0)]
    seen, times = np.unique(both[np.isin(both, wanted)], return_counts=True)
    apart = dict(zip(seen.tolist(), times.tolist(), strict=True))
    chosen: dict[int, list[int]] = {}
    for tag, several in offered.items():
        for way in several:
            least = min(apart.get(a * size + b, 0) for a, b in pairwise(way))
            surely = least > 1 or len(way) > 2 or min(len(words[i]) for i in way) >= SHORTEST - 1
            if surely and least > written[tag]:
                chosen[tag] = way
                break
    return chosen


def ways(joined: str, weight: dict[str, float], longest: int) -> list[list[str]]:
    """The likeliest ways to cut a word into two or more of those that have a weight, best first.

    >>> ways("repaircafes", {"repair": -5.0, "cafes": -6.0, "pair": -4.0}, 6)
    [['repair', 'cafes']]
    >>> ways("minecraft", {"craft": -5.0}, 5)
    []
    """
    best: list[list[tuple[float, list[str]]]] = [[(0.0, [])]]
    for end in range(1, len(joined) + 1):
        here: list[tuple[float, list[str]]] = []
        for start in range(max(0, end - longest), end):
            part = joined[start:end]
            if part in weight and part != joined:
                here += [(s + weight[part], [*way, part]) for s, way in best[start] if len(way) < PARTS]
        best.append(sorted(here, key=lambda way: (-way[0], way[1]))[:WAYS])
    return [way for _, way in best[-1]]


def expand(stream: NDArray[np.int64], parts: dict[int, list[int]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The stream with each split number's parts in its place, and how many tokens stand for each of it.

    >>> expand(np.array([3, 7, -1]), {7: [1, 2]})
    (array([ 3,  1,  2, -1]), array([1, 2, 1]))
    """
    lengths = np.ones(len(stream), np.int64)
    at = np.flatnonzero(np.isin(stream, list(parts)))
    lengths[at] = [len(parts[word]) for word in stream[at].tolist()]
    longer = np.repeat(stream, lengths)
    first = np.cumsum(lengths) - lengths
    for place, word in zip(first[at].tolist(), stream[at].tolist(), strict=True):
        longer[place : place + len(parts[word])] = parts[word]
    return longer, lengths
