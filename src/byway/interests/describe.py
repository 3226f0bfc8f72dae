"""05-descriptions: each cluster in a few words of its own items (paper 1, section 2.1).

Owns the artifact, the figures of its record and the outline that shows the tree to a person. What a cluster is
called is chosen in `keywords`, how much that says is measured in `clarity`.
"""

import time
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from byway.base import config
from byway.base.artifact import Gate, Outcome, Work
from byway.data.catalog import Catalog
from byway.interests.clarity import coherence, coverage, precision
from byway.interests.keywords import choose, spell_with
from byway.interests.terms import Terms, count
from byway.interests.tree import LEVELS, Tree

MAX_DOCUMENT_SHARE = 0.5
"""A word in more than this share of the catalog's items says nothing of any of them."""
WORDS = 4
"""Keywords a description: the model reads and writes each of them in every prompt."""
MAX_TOKENS = 32
"""Tokens of a description, to the model that names are told apart for: where a word costs a dozen, as in Tamil, it
has fewer keywords, since the model reads and writes every one of them."""
WRITTEN_LEVELS = (1, 2)
"""Levels of the tree whose descriptions the writer writes: those that people read, and plan over."""
FILE = "descriptions.parquet"


@dataclass(frozen=True, slots=True)
class Descriptions:
    """The name of every cluster."""

    names: tuple[list[str], ...]
    """Four lists: `names[l-1][c]` describes cluster c of level l; unique over all levels."""


def build(work: Work, settings: config.Descriptions, catalog: Catalog, tree: Tree, tokenizer: str) -> Outcome:
    """Describe every cluster of every level; write `descriptions.parquet`.

    Names begin with different tokens of the model `tokenizer`, where they can: to tell apart what begins alike is
    what bulk inference spends its time on.
    """
    started = time.perf_counter()
    # Where level 1 has few clusters, a word that tells them apart stands in many items: half of all for two.
    most = max(MAX_DOCUMENT_SHARE, 1.5 / tree.size(1))
    terms = count(_rows(catalog), most, settings.drop)
    counted = time.perf_counter()
    keywords = choose(terms, tree, WORDS, spell_with(tokenizer), MAX_TOKENS)
    levels = [level for level, names in enumerate(keywords, 1) for _ in names]
    clusters = [cluster for names in keywords for cluster in range(len(names))]
    flat = [words for names in keywords for words in names]
    names = [[", ".join(words) for words in level] for level in keywords]
    if settings.writer:
        names = _written(settings, names, keywords, terms, tree, catalog.titles())
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
    read_levels = list(enumerate(keywords[:2], 1))
    leads = [precision(terms, tree, level, words) for level, words in read_levels]
    return Outcome(
        counts={"descriptions": len(flat), "terms": len(terms.forms)},
        metrics={
            "descriptions.unique": unique,
            "descriptions.unique_first": round(len(set(firsts)) / len(firsts), 4),
            "descriptions.coverage": [
                round(coverage(terms, tree, level, words), 4) for level, words in enumerate(keywords, 1)
            ],
            # Of the two levels that people read.
            "descriptions.coherence": [round(coherence(terms, words), 4) for _, words in read_levels],
            "descriptions.precision": [round(share, 4) for share, _ in leads],
            "descriptions.precision.chance": [round(chance, 4) for _, chance in leads],
        },
        gates={"descriptions.unique": Gate(unique, 1.0)},
        timings={"count": counted - started, "choose": time.perf_counter() - counted},
    )


def _written(
    settings: config.Descriptions,
    names: list[list[str]],
    keywords: list[list[list[str]]],
    terms: Terms,
    tree: Tree,
    titles: list[str],
) -> list[list[str]]:
    """The names with those of `WRITTEN_LEVELS` in a language model's words; still no two alike.

    The writer sees the titles that hold most of a cluster's keywords.
    """
    from byway.interests import write

    number = {form: i for i, form in enumerate(terms.forms)}
    taken = {name.lower() for i, level in enumerate(names, 1) if i not in WRITTEN_LEVELS for name in level}
    written = list(names)
    for level in WRITTEN_LEVELS:
        shown: list[list[str]] = []
        for cluster, words in enumerate(keywords[level - 1]):
            items = tree.items(level, cluster)
            held = terms.matrix[items][:, [number[w] for w in words if w in number]].sum(axis=1)
            best = np.argsort(-np.asarray(held).ravel(), kind="stable")[: write.TITLES]
            shown.append([titles[i] for i in items[best]])
        written[level - 1] = write.write(settings.writer, shown, keywords[level - 1], taken)
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
            label = label if len(label) <= room else _cut(label, room - 1) + "…"
            lines.append((start, level, f"{label:<{room}}{figures}"))
    return "\n".join(line for _, _, line in sorted(lines, key=lambda line: line[:2]))


def _cut(text: str, longest: int) -> str:
    """The text's beginning, of at most so many characters; no letter is parted from its marks."""
    while longest and unicodedata.category(text[longest])[0] == "M":
        longest -= 1
    return text[:longest]
