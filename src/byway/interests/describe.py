"""05-descriptions: each cluster in a few words of its own items (paper 1, section 2.1).

Owns the choice of keywords and the outline that shows the tree to a person. It does not know vectors or
events: only which item is in which cluster and which terms it holds (`words`).
"""

import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import min_weight_full_bipartite_matching

from byway import config
from byway.artifact import Gate, Outcome, Work
from byway.data.catalog import Catalog
from byway.interests.naming import coherence, npmi, precision
from byway.interests.tree import LEVELS, Tree
from byway.interests.words import Terms, alike, read

FILE = "descriptions.parquet"
CONSIDERED = 40
"""Best terms of a cluster from which its keywords are chosen."""
SIBLINGS = 1.0
"""How much being rarer in the parent counts beside being rarer in the catalog."""
COMMON = 0.9
"""Power of the share of items that hold a term."""
OWN = 0.5
"""Power of the share of a term's items that are the cluster's: at 0 the clusters of a broad topic are all named
after it."""
HASHTAG = 0.3
"""How much a term gains that people write as a hashtag."""
PHRASE = 1.3
"""How much a phrase gains over a word: it is rarer than its words, but says more."""
NEW_ITEMS = 0.5
"""Part of a further keyword's score that depends on items that no chosen keyword covers yet."""
TOGETHER = 3.0
"""How much a further keyword gains that always stands beside those chosen."""
ONE_LETTER = 0.5
"""What is left of the score of a single Han letter: most are parts of words."""
FIRST_AT_LEAST = 0.25
"""A word that was not chosen may stand first if it scores at least this share of the cluster's best: unique, but
not far-fetched. The chosen ones may in any case, since they are in the name."""
Begin = Callable[[list[str]], list[tuple[int, ...]]]
"""What names that begin with these terms begin with, to a language model."""


@dataclass(frozen=True, slots=True)
class Descriptions:
    """The name of every cluster."""

    names: tuple[list[str], ...]
    """Four lists: `names[l-1][c]` describes cluster c of level l; unique over all levels."""


def build(work: Work, knobs: config.Descriptions, catalog: Catalog, tree: Tree) -> Outcome:
    """Describe every cluster of every level; write `descriptions.parquet`."""
    started = time.perf_counter()
    # Where level 1 has few clusters, a word that tells them apart stands in many items: half of all for two.
    most = max(knobs.max_document_share, 1.5 / tree.size(1))
    terms = read(_rows(catalog), most, knobs.drop)
    counted = time.perf_counter()
    keywords = describe(terms, tree, knobs.words, begin_with(knobs.tokenizer))
    levels = [level for level, names in enumerate(keywords, 1) for _ in names]
    clusters = [cluster for names in keywords for cluster in range(len(names))]
    flat = [words for names in keywords for words in names]
    names = [[", ".join(words) for words in level] for level in keywords]
    if knobs.writer:
        names = _written(knobs, names, keywords, terms, tree, catalog.titles())
    table = pa.table(
        {
            "level": pa.array(levels, pa.int8()),
            "cluster": pa.array(clusters, pa.int32()),
            "description": pa.array([name for level in names for name in level], pa.string()),
            "keywords": pa.array(flat, pa.list_(pa.string())),
        }
    )
    pq.write_table(table, work.out / FILE)
    unique = min(len(set(level)) / len(level) for level in names)
    firsts = [words[0] for words in keywords[1]]
    number = {form: i for i, form in enumerate(terms.forms)}
    held = [[[number[word] for word in words if word in number] for words in level] for level in keywords]
    return Outcome(
        counts={"descriptions": len(flat), "terms": len(terms.forms)},
        metrics={
            "descriptions.unique": unique,
            "descriptions.unique_first": round(len(set(firsts)) / len(firsts), 4),
            "descriptions.coverage": [
                round(coverage(terms, tree, level, words), 4) for level, words in enumerate(keywords, 1)
            ],
            "descriptions.coherence": [round(coherence(terms.matrix, ids), 4) for ids in held[:2]],
            "descriptions.precision": [
                round(precision(terms.matrix, ids, tree.assign(level)), 4) for level, ids in enumerate(held[:2], 1)
            ],
        },
        gates={"descriptions.unique": Gate(unique, 1.0)},
        timings={"count": counted - started, "choose": time.perf_counter() - counted},
    )


def _written(
    knobs: config.Descriptions,
    names: list[list[str]],
    keywords: list[list[list[str]]],
    terms: Terms,
    tree: Tree,
    titles: list[str],
) -> list[list[str]]:
    """The names with those of `written_levels` in a language model's words; still no two alike.

    The writer sees the titles that hold most of a cluster's keywords.
    """
    from byway.interests import write

    number = {form: i for i, form in enumerate(terms.forms)}
    levels = [level for level in range(1, LEVELS + 1) if level in knobs.written_levels]
    taken = {name.lower() for i, level in enumerate(names, 1) if i not in levels for name in level}
    written = list(names)
    for level in levels:
        shown: list[list[str]] = []
        for cluster, words in enumerate(keywords[level - 1]):
            items = tree.items(level, cluster)
            held = terms.matrix[items][:, [number[w] for w in words if w in number]].sum(axis=1)
            best = np.argsort(-np.asarray(held).ravel(), kind="stable")[: write.TITLES]
            shown.append([titles[i] for i in items[best]])
        written[level - 1] = write.write(knobs.writer, shown, keywords[level - 1], taken)
    return written


def load(path: Path) -> Descriptions:
    """The names in the artifact at `path`."""
    table = pq.read_table(path / FILE, columns=["level", "cluster", "description"])
    names: tuple[list[str], ...] = tuple([] for _ in range(LEVELS))
    for level, name in zip(table["level"].to_pylist(), table["description"].to_pylist(), strict=True):
        names[level - 1].append(name)
    return Descriptions(names)


def _rows(catalog: Catalog) -> Iterator[tuple[str, list[str]]]:
    for batch in catalog.items.select(["title", "description", "hashtags"]).to_batches(max_chunksize=65536):
        columns = (batch.column(i).to_pylist() for i in range(3))
        for title, description, hashtags in zip(*columns, strict=True):
            # A full stop, so that no phrase spans title and description.
            yield f"{title or ''} . {description or ''}", [tag for tag in hashtags or [] if tag]


def begin_with(model: str) -> Begin:
    """The first tokens of each term as a model reads it in a name, up to its first whole letter.

    Mostly that is one token. Scripts that a model reads in bytes have several a letter, the first of them the same
    for all: told apart by that alone, no two names would begin differently.
    """
    if not model:
        return lambda forms: [(i,) for i in range(len(forms))]
    from byway.language import models  # seconds to import: only where it is used

    tokenizer = models.load_tokenizer(model)

    def begin(forms: list[str]) -> list[tuple[int, ...]]:
        found: list[tuple[int, ...]] = []
        for ids in tokenizer([f" {form}" for form in forms], add_special_tokens=False).input_ids if forms else []:
            size = 1
            while size < len(ids) and not _whole(tokenizer.decode(ids[:size])):
                size += 1
            found.append(tuple(ids[:size]))
        return found

    return begin


def _whole(text: str) -> bool:
    """Whether some letters are there, and all of them whole."""
    return bool(text.strip()) and "\ufffd" not in text


def describe(terms: Terms, tree: Tree, words: int, begin: Begin | None = None) -> list[list[list[str]]]:
    """Keywords of every cluster of every level, most distinctive first; no two clusters have the same set.

    A cluster without words of its own takes its parent's, and a number that tells it from the others.
    """
    begin = begin or begin_with("")
    columns = sparse.csc_array(terms.matrix)
    taken: set[frozenset[str]] = set()
    found: list[list[list[str]]] = []
    for level in range(1, LEVELS + 1):
        counts = _counts(terms, tree, level)
        scores = _scores(terms, tree, level, counts)
        chosen = [_choose(terms, columns, tree.items(level, c), *scores[c], words) for c in range(tree.size(level))]
        first = _first_words(chosen, terms.forms, begin)
        names: list[list[str]] = []
        for cluster, picked in enumerate(chosen):
            # A first word from among the spare ones takes the place of the last.
            others = [term for term in picked.keywords if term != first[cluster]]
            ordered = [first[cluster], *others][:words] if others else picked.keywords
            spare = [term for term in picked.spare if term not in ordered]
            own = _unique([terms.forms[t] for t in ordered], [terms.forms[t] for t in spare], taken)
            if not own:
                parent = found[-1][int(tree.parent(level)[cluster])] if level > 1 else ["items"]
                own = _numbered(parent[: max(1, words - 1)], taken)
            taken.add(frozenset(own))
            names.append(own)
        found.append(names)
    return [_parted(names) for names in found]


@dataclass(frozen=True, slots=True)
class _Choice:
    keywords: list[int]
    """Terms chosen, best first."""
    firsts: list[tuple[float, int]]
    """Scores and terms that may stand first."""
    spare: list[int]
    """Further terms, best first, for a cluster whose keywords are another's."""


def _counts(terms: Terms, tree: Tree, level: int) -> sparse.csr_array:
    """int [M_level, terms]: how many of a cluster's items hold a term."""
    n = len(tree.order)
    members = sparse.csr_array(
        (np.ones(n, np.int32), (tree.assign(level), np.arange(n))), shape=(tree.size(level), n)
    )
    return sparse.csr_array(members @ terms.matrix)


def _scores(
    terms: Terms, tree: Tree, level: int, counts: sparse.csr_array
) -> list[tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """For each cluster its best terms and their scores, best first: TF-IDF with a cluster as the document.

    A term that share s of a cluster's items hold, share g of the catalog's and share q of the parent's, scores
    s^0.9·o^0.5·(log(s/g) + log(s/q)), where o is the share of the term's items that are in the cluster; a little
    more for phrases and hashtags. s counts one item less than there is, so that a word in one item only scores
    nothing.
    """
    sizes = np.diff(tree.starts[level - 1])
    everywhere = np.asarray(terms.matrix.sum(axis=0)).ravel()
    catalog_share = everywhere / len(tree.order)
    gain = (1 + HASHTAG * terms.tagged) * np.where([len(s) > 1 for s in terms.stems], PHRASE, 1.0)
    gain = gain * np.where([len(form) == 1 for form in terms.forms], ONE_LETTER, 1.0)
    parents = tree.parent(level) if level > 1 else None
    above = _counts(terms, tree, level - 1) if level > 1 else None
    above_sizes = np.diff(tree.starts[level - 2]) if level > 1 else None
    found: list[tuple[NDArray[np.int64], NDArray[np.float64]]] = []
    for cluster in range(tree.size(level)):
        row = slice(counts.indptr[cluster], counts.indptr[cluster + 1])
        held, inside = counts.indices[row], counts.data[row].astype(np.float64)
        share = (inside - 1.0) / sizes[cluster]
        share = np.where(share > 0, share, 1e-6)
        score = np.log(share / catalog_share[held])
        if parents is not None and above is not None and above_sizes is not None:
            up = int(parents[cluster])
            dense = np.zeros(len(terms.forms))
            span = slice(above.indptr[up], above.indptr[up + 1])
            dense[above.indices[span]] = above.data[span]
            score = score + SIBLINGS * np.log(share / (dense[held] / above_sizes[up]))
        own = inside / everywhere[held]
        score = share**COMMON * own**OWN * np.maximum(score, 0.0) * gain[held]
        best = np.lexsort((held, -score))[:CONSIDERED]
        found.append((held[best].astype(np.int64), score[best]))
    return found


def _choose(
    terms: Terms,
    columns: sparse.csc_array,
    items: NDArray[np.int32],
    held: NDArray[np.int64],
    scores: NDArray[np.float64],
    words: int,
) -> _Choice:
    """Up to `words` terms, each the best that repeats none before it, covers further items and goes with them.

    `columns` is the matrix of the terms by columns.
    """
    inside = terms.matrix[items][:, held].toarray() > 0
    together = np.maximum(npmi(columns[:, held]), 0.0)
    covered, fit = np.zeros(len(items), bool), np.zeros(len(held))
    chosen: list[int] = []
    left = [i for i in range(len(held)) if scores[i] > 0]
    while left and len(chosen) < words:
        fresh = inside[~covered].sum(axis=0) / np.maximum(inside.sum(axis=0), 1)
        if chosen:
            fit = together[:, chosen].mean(axis=1)
        worth = scores * (1 - NEW_ITEMS + NEW_ITEMS * fresh) * (1 + TOGETHER * fit)
        pick = max(left, key=lambda i: (worth[i], -i))
        chosen.append(pick)
        covered |= inside[:, pick]
        left = [i for i in left if not alike(terms.stems[held[i]], terms.stems[held[pick]])]
    top = scores[chosen[0]] if chosen else 0.0
    return _Choice(
        keywords=[int(held[i]) for i in chosen],
        firsts=[(float(scores[i]), int(held[i])) for i in chosen]
        + [(float(scores[i]), int(held[i])) for i in left if scores[i] >= FIRST_AT_LEAST * top],
        spare=[int(held[i]) for i in left],
    )


def _first_words(choices: list[_Choice], forms: list[str], begin: Begin) -> list[int]:
    """For each cluster the term to begin with, so that as many names as possible begin differently.

    To a language model: names that share a first token have to be told apart by reading on, for which the bulk
    inference would need nearly all of its time. Where there are too few tokens, as in a script that a model reads
    in bytes, a first word of one's own is the next best: its name parts from others after a token or two, and not
    after whole words. Among all ways to do it the one in which first words score most.
    """
    offered = sorted({term for choice in choices for _, term in choice.firsts})
    begins = dict(zip(offered, begin([forms[term] for term in offered]), strict=True))
    first: dict[int, int] = {}
    for own in (begins, {term: term for term in offered}):
        taken = set(first.values())
        open_ = [c for c in range(len(choices)) if c not in first]
        firsts = [[(score, t) for score, t in choices[c].firsts if t not in taken] for c in open_]
        first |= {open_[at]: term for at, term in _matched(firsts, own).items()}
    return [first.get(c, choice.keywords[0] if choice.keywords else -1) for c, choice in enumerate(choices)]


def _matched(firsts: list[list[tuple[float, int]]], own: Mapping[int, Hashable]) -> dict[int, int]:
    """The terms of as many clusters as can have one whose `own` is no other's; among all ways the best scored."""
    if not firsts:
        return {}
    column_of = {key: i for i, key in enumerate(dict.fromkeys(own[t] for some in firsts for _, t in some))}
    # One of its own outweighs any score; where there is none, a cluster stays with its own empty place.
    best: dict[tuple[int, int], tuple[float, int]] = {
        (c, len(column_of) + c): (1e-3, -1) for c in range(len(firsts))
    }
    for c, some in enumerate(firsts):
        top = max((score for score, _ in some), default=1.0)
        for score, term in some:
            cell = c, column_of[own[term]]
            best[cell] = max(best.get(cell, (0.0, 0)), (10 + score / top, term))
    row, column = np.array(list(best), dtype=np.int64).T
    gain = np.array([score for score, _ in best.values()])
    offers = sparse.csr_array((gain, (row, column)), shape=(len(firsts), len(column_of) + len(firsts)))
    _, chosen = min_weight_full_bipartite_matching(offers, maximize=True)
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


def coverage(terms: Terms, tree: Tree, level: int, keywords: list[list[str]]) -> float:
    """Mean over the clusters of `level` of the share of their items that hold one of their keywords."""
    number = {form: i for i, form in enumerate(terms.forms)}
    shares: list[float] = []
    for cluster, words in enumerate(keywords):
        columns = [number[word] for word in words if word in number]
        held = terms.matrix[tree.items(level, cluster)][:, columns].sum(axis=1)
        shares.append(float((np.asarray(held) > 0).mean()))
    return float(np.mean(shares))


def outline(
    tree: Tree, descriptions: Descriptions, traffic: NDArray[np.float64], depth: int = 2, width: int = 100
) -> str:
    """The tree as indented lines: a cluster's name, its items, its share of the traffic.

    `depth` is the finest level shown; names are cut so that a line has at most `width` characters.
    """
    total = max(float(traffic.sum()), 1e-12)
    along = np.concatenate([[0.0], np.cumsum(traffic[tree.order])])
    lines: list[tuple[int, int, str]] = []
    for level in range(1, depth + 1):
        starts = tree.starts[level - 1]
        for cluster, name in enumerate(descriptions.names[level - 1]):
            start, end = int(starts[cluster]), int(starts[cluster + 1])
            figures = f"{end - start:>8,} items {100 * (along[end] - along[start]) / total:>6.2f} %"
            label = "  " * (level - 1) + name
            room = width - len(figures)
            label = label if len(label) <= room else label[: room - 1] + "…"
            lines.append((start, level, f"{label:<{room}}{figures}"))
    return "\n".join(line for _, _, line in sorted(lines, key=lambda line: line[:2]))
