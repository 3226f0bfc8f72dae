"""What pictures and sound add to the items' vectors: the tree's coherence, and the match with co-consumption.

    python benchmarks/modalities.py W

For words alone, words and pictures, words and sound, and all three, on a workspace that `byway run` has taken to
05-descriptions. Coherence is the mean cosine of an item to its cluster's centroid, in the variant's own vectors and
in those of words alone (a yardstick that is the same for all). The match: of pairs of items that one person enjoyed
one after the other, the share whose second is nearer to the first than to a random item of the same traffic (an
area under the curve; 0.5 is chance). No pair is used in making the vectors, so all of the log is held out.
"""

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from byway.base import config
from byway.base.artifact import Work
from byway.data import catalog, events, media
from byway.data.events import Events
from byway.interests import embed, graph, tree
from byway.interests.partition import centroids

VARIANTS = {"words": (0.0, 0.0), "pictures": (1.0, 0.0), "sound": (0.0, 1.0), "all": (1.0, 1.0)}
PAIRS = 200_000


def match(vectors: NDArray[np.float32], log: Events, rng: np.random.Generator) -> float:
    """Share of enjoyed pairs whose second item is likelier than one that somebody else went on to."""
    good = np.flatnonzero(log.good())
    follows = good[1:][(log.user[good][1:] == log.user[good][:-1]) & (log.item[good][1:] != log.item[good][:-1])]
    before = good[:-1][(log.user[good][1:] == log.user[good][:-1]) & (log.item[good][1:] != log.item[good][:-1])]
    chosen = rng.choice(len(follows), min(PAIRS, len(follows)), replace=False)
    first, second = log.item[before[chosen]], log.item[follows[chosen]]
    other = rng.permutation(second)
    near, far = ((vectors[first] * vectors[last]).sum(axis=1) for last in (second, other))
    keep = (other != second) & (other != first)
    return float((near[keep] > far[keep]).mean() + 0.5 * (near[keep] == far[keep]).mean())


def coherence(vectors: NDArray[np.float32], labels: NDArray[np.int32], size: int) -> float:
    """Mean cosine of an item to its cluster's centroid."""
    middle = centroids(vectors, labels, size)
    return float((vectors * middle[labels]).sum(axis=1).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workspace", type=Path)
    given = parser.parse_args()
    settings = config.load(given.workspace / "byway.toml")
    items, log = catalog.load(given.workspace / "01-catalog"), events.load(given.workspace / "01-catalog")
    seen = media.load(given.workspace / "01-media")
    words: NDArray[np.float32] | None = None
    found: dict[str, dict[str, float]] = {}
    for name, (pictures, sound) in VARIANTS.items():
        own = settings.embeddings
        joined = replace(own, pictures=pictures * own.pictures, sound=sound * own.sound)
        with tempfile.TemporaryDirectory() as folder:
            for part in ("a", "b"):
                (Path(folder) / part).mkdir()
            work = Work(Path(folder) / "a", Path(folder) / "b", np.random.default_rng(0))
            embed.build(work, joined, items, seen)
            vectors = np.array(embed.load(work.out))
            graph.build(work, vectors)
            grown = tree.build(work, settings.tree, vectors, graph.load(work.out), log).metrics
            labels = np.array(tree.load(work.out).assign(2))
        words = vectors if words is None else words
        size = int(labels.max()) + 1
        found[name] = {
            "coherence": round(coherence(vectors, labels, size), 4),
            "coherence_in_words": round(coherence(words, labels, size), 4),
            "balance": grown["tree.balance_blended"][1],
            "match": round(match(vectors, log, np.random.default_rng(0)), 4),
        }
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
