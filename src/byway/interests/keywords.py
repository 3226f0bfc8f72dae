"""The keywords of every cluster, chosen from the terms of its items, and which of them stands first.

It does not know vectors or events: only which item is in which cluster and which terms it holds (`terms`).
"""

from collections import Counter
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import min_weight_full_bipartite_matching

from byway.interests.clarity import npmi
from byway.interests.terms import Terms
from byway.interests.tree import LEVELS, Tree
from byway.interests.words import alike

CONSIDERED = 40
"""Best terms of a cluster from which its keywords are chosen."""
COMMON = 0.85
"""Power of the share of items that hold a term: at 1 the clusters of a broad topic are all named after it."""
OWN = 0.3
"""Power of the share of a term's holders that are the cluster's: a name should lead to its items."""
BREADTH = 0.2
"""Power of the share of a cluster's children in which a term is at home: a broad name sums up its children's."""
HASHTAG = 0.3
"""How much a term gains that people write as a hashtag."""
PHRASE = 1.15
"""How much a phrase gains over a word: it is rarer than its words, but says more."""
ABSORBED = 0.9
"""A word that from this share of its items stands in one phrase is no keyword: *kung fu* is, *kung* is not."""
NEW_ITEMS = 0.8
"""Part of a further keyword's score that depends on items that no chosen keyword covers yet."""
COHERE = 0.4
"""How much a further keyword gains that stands in the chosen ones' items (NPMI 1), or loses (-1)."""
FIRST_AT_LEAST = 0.25
"""A word that was not chosen may stand first if it scores at least this share of the cluster's best: unique, but
not far-fetched. The chosen ones may in any case, since they are in the name."""
DEEPEST = 6
"""Tokens by which names should part: a script that a model reads in bytes has two or three to a letter."""
Spell = Callable[[list[str]], list[tuple[Hashable, ...]]]
"""The tokens of each term to a language model, as a name begins with it."""


def spell_with(model: str) -> Spell:
    """The tokens of each term as a model reads a name; a first one that is but a space counts with the next."""
    if not model:
        return lambda forms: [(form,) for form in forms]
    from byway.base import models

    tokenizer = models.load_tokenizer(model)
    space = tokenizer(" ", add_special_tokens=False).input_ids

    def spell(forms: list[str]) -> list[tuple[Hashable, ...]]:
        read = tokenizer([f" {form}" for form in forms], add_special_tokens=False).input_ids if forms else []
        return [(tuple(ids[:at]), *ids[at:]) for ids in read for at in [1 + (ids[: len(space)] == space)]]

    return spell


def choose(
    terms: Terms, tree: Tree, words: int, spell: Spell | None = None, longest: int = 32
) -> list[list[list[str]]]:
    """Keywords of every cluster of every level, most distinctive first; no two clusters have the same set.

    A cluster has up to `words`, and of several no more than `longest` tokens spell. One without words of its own
    takes its parent's, and a number that tells it from the others.
    """
    spell = spell or spell_with("")
    taken: set[frozenset[str]] = set()
    levels: list[list[list[str]]] = []
    holders = np.asarray(terms.matrix.sum(axis=0)).ravel()
    for level in range(1, LEVELS + 1):
        choices = [
            _choose(terms, tree.items(level, cluster), candidates, scores, holders, words)
            for cluster, (candidates, scores) in enumerate(_scores(terms, tree, level, holders))
        ]
        offered = sorted({term for choice in choices for _, term in choice.firsts})
        spelt = dict(zip(offered, spell([terms.forms[term] for term in offered]), strict=True))
        names: list[list[str]] = []
        for cluster, (choice, first) in enumerate(zip(choices, _first_words(choices, spelt), strict=True)):
            keywords, spare = _ordered(choice, first, words, spelt, longest)
            name = _unique([terms.forms[t] for t in keywords], [terms.forms[t] for t in spare], taken)
            if not name:
                parent = levels[-1][int(tree.parent(level)[cluster])] if level > 1 else ["items"]
                name = _numbered(parent[: max(1, words - 1)], taken)
            taken.add(frozenset(name))
            names.append(name)
        levels.append(names)
    return [_parted(names) for names in levels]


@dataclass(frozen=True, slots=True)
class _Choice:
    keywords: list[int]
    """Terms chosen, best first."""
    firsts: list[tuple[float, int]]
    """Scores and terms that may stand first."""
    spare: list[int]
    """Further terms, best first, for a cluster whose keywords are another's."""


def _ordered(
    choice: _Choice, first: int, words: int, spelt: Mapping[int, tuple[Hashable, ...]], longest: int
) -> tuple[list[int], list[int]]:
    """Up to `words` keywords, `first` in front, that `longest` tokens spell, and what may replace the last."""
    if not choice.keywords:
        return [], choice.spare
    # A first word from among the spare ones takes the place of the last.
    ordered = [first, *(term for term in choice.keywords if term != first)][:words]
    # A comma stands between two; one keyword there is in any case.
    ends = np.cumsum([len(spelt[term]) + 1 for term in ordered]) - 1
    kept = max(1, int((ends <= longest).sum()))
    return ordered[:kept], [*ordered[kept:], *(term for term in choice.spare if term not in ordered)]


def _counts(terms: Terms, tree: Tree, level: int) -> sparse.csr_array:
    """int [M_level, terms]: how many of a cluster's items hold a term."""
    n = len(tree.order)
    members = sparse.csr_array(
        (np.ones(n, np.int32), (tree.assign(level), np.arange(n))), shape=(tree.size(level), n)
    )
    counts = sparse.csr_array(members @ terms.matrix)
    counts.sort_indices()
    return counts


def _scores(
    terms: Terms, tree: Tree, level: int, holders: NDArray[np.integer]
) -> list[tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """For each cluster its best terms and their scores, best first: TF-IDF with a cluster as the document.

    A term that share s of a cluster's items hold, share g of the catalog's and share q of the parent's, scores
    s^0.85·(log(s/g) + log(s/q)), more where few other clusters and many of its children hold it, and a little more
    for phrases and hashtags. s counts one item less than there is, so that a word in one item only scores nothing.
    """
    counts = _counts(terms, tree, level)
    held, cluster = counts.indices, np.repeat(np.arange(tree.size(level)), np.diff(counts.indptr))
    inside = counts.data.astype(np.float64)
    share = (inside - 1.0) / np.diff(tree.starts[level - 1])[cluster]
    share = np.where(share > 0, share, 1e-6)
    rarity = np.log(share / (holders / len(tree.order))[held])
    home = (inside / holders[held]) ** OWN
    if level > 1:
        parent = tree.parent(level)[cluster]
        above = _counts(terms, tree, level - 1)
        beside = above.data[_cells(above, parent, held)].astype(np.float64)
        rarity += np.log(share / (beside / np.diff(tree.starts[level - 2])[parent]))
    if level < LEVELS:
        home *= _breadth(terms, tree, level, counts) ** BREADTH
    gain = (1 + HASHTAG * terms.tagged) * np.where([len(s) > 1 for s in terms.stems], PHRASE, 1.0)
    gain[_absorbed(terms, holders)] = 0.0
    score = share**COMMON * np.maximum(rarity, 0.0) * gain[held] * home
    ranked = np.split(np.lexsort((held, -score, cluster)), counts.indptr[1:-1])
    return [(held[cells[:CONSIDERED]].astype(np.int64), score[cells[:CONSIDERED]]) for cells in ranked]


def _absorbed(terms: Terms, holders: NDArray[np.integer]) -> list[int]:
    """Words that hardly stand outside of one phrase."""
    number = {words[0]: i for i, words in enumerate(terms.stems) if len(words) == 1}
    parts = [(number[w], i) for i, words in enumerate(terms.stems) if len(words) > 1 for w in words if w in number]
    return [word for word, phrase in parts if holders[phrase] >= ABSORBED * holders[word]]


def _breadth(terms: Terms, tree: Tree, level: int, counts: sparse.csr_array) -> NDArray[np.float64]:
    """For each cell of `counts` the share of the cluster's children in which the term is at home: e to the entropy
    of its items over them, of how many there are."""
    below = _counts(terms, tree, level + 1)
    parent = tree.parent(level + 1)
    at = _cells(counts, np.repeat(parent, np.diff(below.indptr)), below.indices)
    share = below.data.astype(np.float64) / counts.data.astype(np.float64)[at]
    entropy = np.bincount(at, -share * np.log(share), len(counts.data))
    children = np.bincount(parent, minlength=tree.size(level))
    return np.exp(entropy) / np.repeat(children, np.diff(counts.indptr))


def _cells(counts: sparse.csr_array, row: NDArray[np.integer], column: NDArray[np.integer]) -> NDArray[np.int64]:
    """Where the cells of these rows and columns stand in the data of `counts`."""
    several = np.diff(counts.indptr)
    cells = (np.repeat(np.arange(len(several)), several) << 32) + counts.indices
    return np.searchsorted(cells, (row.astype(np.int64) << 32) + column)


def _choose(
    terms: Terms,
    items: NDArray[np.int32],
    candidates: NDArray[np.int64],
    scores: NDArray[np.float64],
    holders: NDArray[np.int64],
    words: int,
) -> _Choice:
    """Up to `words` of the scored candidates, each the best that repeats none before it, goes with them and covers
    further items."""
    inside = terms.matrix[items][:, candidates].toarray() > 0
    covered = np.zeros(len(items), bool)
    chosen: list[int] = []
    left = [i for i in range(len(candidates)) if scores[i] > 0]
    together = inside.T.astype(np.int32) @ inside.astype(np.int32)
    bond = npmi(together, holders[candidates], len(terms))
    while left and len(chosen) < words:
        fresh = inside[~covered].sum(axis=0) / np.maximum(inside.sum(axis=0), 1)
        worth = scores * (1 - NEW_ITEMS + NEW_ITEMS * fresh)
        if chosen:
            worth = worth * (1 + COHERE * bond[chosen].mean(axis=0))
        pick = max(left, key=lambda i: (worth[i], -i))
        chosen.append(pick)
        covered |= inside[:, pick]
        left = [i for i in left if not alike(terms.stems[candidates[i]], terms.stems[candidates[pick]])]
    top = scores[chosen[0]] if chosen else 0.0
    firsts = [*chosen, *(i for i in left if scores[i] >= FIRST_AT_LEAST * top)]
    return _Choice(
        keywords=candidates[chosen].tolist(),
        firsts=list(zip(scores[firsts].tolist(), candidates[firsts].tolist(), strict=True)),
        spare=candidates[left].tolist(),
    )


def _first_words(choices: list[_Choice], spelt: Mapping[int, tuple[Hashable, ...]]) -> list[int]:
    """For each cluster the term to begin with, so that as many names as possible begin differently.

    To a language model: names that share a first token have to be told apart by reading on, for which the bulk
    inference would need nearly all of its time. Where there are too few tokens, as in a script that a model reads
    in bytes, the two first are to differ, else the three first, and so on: a name parts from the others as early as
    it can. Among all ways to do it the one in which first words score most.
    """
    first: dict[int, int] = {}
    for depth in [*range(1, DEEPEST + 1), None]:
        begins = {term: tokens[:depth] if depth else term for term, tokens in spelt.items()}
        taken = {begins[term] for term in first.values()}
        left = [c for c in range(len(choices)) if c not in first]
        firsts = [[(score, t) for score, t in choices[c].firsts if begins[t] not in taken] for c in left]
        first |= {left[at]: term for at, term in _matched(firsts, begins).items()}
    return [first.get(c, choice.keywords[0] if choice.keywords else -1) for c, choice in enumerate(choices)]


def _matched(firsts: list[list[tuple[float, int]]], begins: Mapping[int, Hashable]) -> dict[int, int]:
    """The terms of as many clusters as can have one that `begins` like no other's; of all ways the best scored."""
    if not firsts:
        return {}
    column_of = {key: i for i, key in enumerate(dict.fromkeys(begins[t] for some in firsts for _, t in some))}
    # One of its own outweighs any score; where there is none, a cluster stays with its own empty place.
    best: dict[tuple[int, int], tuple[float, int]] = {
        (c, len(column_of) + c): (1e-3, -1) for c in range(len(firsts))
    }
    for c, offers in enumerate(firsts):
        top = max((score for score, _ in offers), default=1.0)
        for score, term in offers:
            cell = c, column_of[begins[term]]
            best[cell] = max(best.get(cell, (0.0, 0)), (10 + score / top, term))
    row, column = np.array(list(best), dtype=np.int64).T
    gain = np.array([score for score, _ in best.values()])
    gains = sparse.csr_array((gain, (row, column)), shape=(len(firsts), len(column_of) + len(firsts)))
    _, chosen = min_weight_full_bipartite_matching(gains, maximize=True)
    return {c: best[c, int(j)][1] for c, j in enumerate(chosen) if j < len(column_of)}


def _parted(names: list[list[str]]) -> list[list[str]]:
    """Where names have a first word in common, the words after it that fewest of them hold come first.

    A model then has a word or two to read before they part; numbers stay at the end.

    >>> _parted([["news", "life", "stories", "pets"], ["news", "life", "stories", "cars"], ["food", "life"]])
    [['news', 'pets', 'life', 'stories'], ['news', 'cars', 'life', 'stories'], ['food', 'life']]
    """
    held: dict[str, Counter[str]] = {}
    for words in names:
        held.setdefault(words[0], Counter()).update(set(words))

    def parted(words: list[str]) -> list[str]:
        of = held[words[0]]
        if of[words[0]] == 1:
            return words
        return [words[0], *sorted(words[1:], key=lambda word: (word.isdigit(), of[word]))]

    return [parted(words) for words in names]


def _unique(words: list[str], spare: list[str], taken: set[frozenset[str]]) -> list[str]:
    """`words`, with the last one exchanged for the first spare that makes the set new; a number if none does."""
    if not words or frozenset(words) not in taken:
        return words
    for other in spare:
        trial = [*words[:-1], other] if len(words) > 1 else [*words, other]
        if frozenset(trial) not in taken:
            return trial
    return _numbered(words, taken)


def _numbered(words: list[str], taken: set[frozenset[str]]) -> list[str]:
    number = 2
    while frozenset([*words, str(number)]) in taken:
        number += 1
    return [*words, str(number)]
