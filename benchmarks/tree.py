"""The tree at scale: balance, coherence and time, beside k-means, balanced k-means and random parts.

    python benchmarks/tree.py [--sizes 10000 100000 1000000] [--rivals-up-to 1000000] [--json]

Every size runs in a process of its own. `seconds` is the growing of all four levels without the neighbour graph,
whose time is `graph_seconds` (beyond 200,000 items the tree does not need it). `exponent` is the slope of log
seconds over log size, `graph_exponent` that of the graph between the two largest sizes. Coherence is the mean
cosine of an item to its level-2 centroid; NMI is against the planted topics.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray


def balanced_kmeans(
    vectors: NDArray[np.float32],
    weights: NDArray[np.float64],
    parts: int,
    start: NDArray[np.int64],
    rounds: int = 3,
) -> NDArray[np.int64]:
    """The usual way: in every round rows choose the nearest centroid with room, those first that care most."""
    import faiss

    from byway.interests.partition import centroids

    labels, cap, near_many = start, 1.05 * weights.sum() / parts, min(parts, 64)
    for _ in range(rounds):
        index = faiss.IndexFlatIP(vectors.shape[1])
        index.add(centroids(vectors, labels, parts))
        scores, near = index.search(vectors, near_many)
        order = np.argsort(scores[:, min(1, near_many - 1)] - scores[:, 0], kind="stable")
        load = [0.0] * parts
        found = np.empty(len(vectors), np.int64)
        options, heavy = near.tolist(), weights.tolist()
        for row in order.tolist():
            for part in options[row]:
                if load[part] + heavy[row] <= cap:
                    break
            else:
                part = min(range(parts), key=load.__getitem__)
            load[part] += heavy[row]
            found[row] = part
        labels = found
    return labels


def one(n: int, rivals: bool, seed: int) -> dict[str, Any]:
    """All figures of one size."""
    import faiss
    import planted
    from sklearn.metrics import normalized_mutual_info_score as nmi

    from byway.base import config
    from byway.interests import graph as graphs
    from byway.interests import partition, tree

    rng = np.random.default_rng(seed)
    vectors, truth = planted.topics(n, rng)
    traffic = planted.zipf(n, rng)
    sizes = tree.level_sizes(n, config.Tree())
    weights = tree.blended_weights(traffic, sizes, 2)

    def figures(labels: NDArray[np.int64], seconds: float) -> dict[str, Any]:
        parts = sizes[1]
        return {
            "balance_blended": round(tree.balance(partition.loads_of(labels, weights, parts)), 4),
            "balance_raw": round(tree.balance(partition.loads_of(labels, traffic, parts)), 2),
            "coherence": round(partition.coherence(vectors, labels, parts), 4),
            "empty": int((np.bincount(labels, minlength=parts) == 0).sum()),
            "nmi_subtopics": round(float(nmi(truth[1], labels)), 4),
            "seconds": round(seconds, 1),
        }

    def timed() -> tuple[graphs.Graph, float]:
        began = time.perf_counter()
        graph = graphs.nearest(vectors, graphs.NEIGHBOURS, exact=n <= graphs.EXACT_UP_TO, seed=seed)
        return graph, time.perf_counter() - began

    # The tree reads the graph up to so many items; beyond, its time is taken when the tree's memory was.
    needed = n <= partition.DIRECT
    graph, graph_seconds = timed() if needed else (None, 0.0)
    began = time.perf_counter()
    grown = tree.grow(vectors, graph, traffic, sizes, np.random.default_rng(seed))
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    if not needed:
        _, graph_seconds = timed()
    result = figures(grown.assign(2).astype(np.int64), seconds)
    result |= {
        "items": n,
        "levels": list(sizes),
        "graph_seconds": round(graph_seconds, 1),
        "peak_gb": round(peak, 2),
        "empty": int(sum((np.diff(start) == 0).sum() for start in grown.starts)),
        "nmi_topics": round(float(nmi(truth[0], grown.assign(1))), 4),
        "measured": tree.measure(grown, vectors, traffic),
    }
    began = time.perf_counter()
    kmeans = faiss.Kmeans(
        vectors.shape[1], sizes[1], niter=20, spherical=True, seed=seed, min_points_per_centroid=1
    )
    kmeans.train(vectors)
    labels = kmeans.index.search(vectors, 1)[1][:, 0]
    result["kmeans"] = figures(labels, time.perf_counter() - began)
    result["ratio.coherence_over_kmeans"] = round(result["coherence"] / result["kmeans"]["coherence"], 4)
    if rivals:
        began = time.perf_counter()
        balanced = balanced_kmeans(vectors, weights, sizes[1], labels)
        result["balanced_kmeans"] = figures(balanced, time.perf_counter() - began)
        result["random"] = figures(np.random.default_rng(seed).integers(sizes[1], size=n), 0.0)
    return result


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--rivals-up-to", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(options.one, options.one <= options.rivals_up_to, options.seed)))
        return
    runs: list[dict[str, Any]] = []
    for n in sorted(options.sizes):
        command = [sys.executable, __file__, "--one", str(n), "--seed", str(options.seed)]
        command += ["--rivals-up-to", str(options.rivals_up_to)]
        runs.append(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))
    result = {**runs[-1], "runs": runs}
    if len(runs) > 1:
        sizes, seconds = (np.log([run[name] for run in runs]) for name in ("items", "seconds"))
        result["exponent"] = round(float(np.polyfit(sizes, seconds, 1)[0]), 3)
        graph = np.log([max(1e-3, run["graph_seconds"]) for run in runs[-2:]])
        result["graph_exponent"] = round(float(np.diff(graph)[0] / np.diff(sizes[-2:])[0]), 3)
    print(json.dumps(result) if options.json else json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
