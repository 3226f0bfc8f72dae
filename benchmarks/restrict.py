"""Restricted retrieval beside the full scan, faiss and an HNSW index, in one run on one made catalog.

    python benchmarks/restrict.py [--small] [--json]

A million items of 64 dimensions lie around the centres of 761 clusters (a small run: 20,000 in 41). Every method
answers the same questions: the 50 best items of one cluster for one vector. The full scan scores all items and
looks at those of the cluster; faiss searches the inverted list of the cluster, its own way of restricting; hnswlib
is given the cluster as a filter. Ratios are of median times of one question on one thread.
"""

import argparse
import json
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

import numpy as np
from numpy.typing import NDArray

from byway.items.restrict import top_in_slice

K = 50
DIM = 64


def world(items: int, clusters: int, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Item vectors in the tree's order, [n, d], and where each cluster starts, [M + 1]; sizes vary by half."""
    rng = np.random.default_rng(seed)
    share = rng.uniform(0.5, 1.5, clusters)
    inner = np.round(np.cumsum(share)[:-1] / share.sum() * items)
    starts = np.concatenate([[0], inner, [items]]).astype(np.int64)
    centres = rng.normal(size=(clusters, DIM)).astype(np.float32)
    vectors = np.repeat(centres, np.diff(starts), axis=0)
    vectors += 0.7 * rng.normal(size=vectors.shape).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), starts


def timed(ask: Callable[[int], NDArray[np.int64]], count: int) -> tuple[list[NDArray[np.int64]], float]:
    """Answers to questions 0 to count - 1 and the median seconds of one."""
    ask(0)
    answers, seconds = list[NDArray[np.int64]](), list[float]()
    for i in range(count):
        started = time.perf_counter()
        answers.append(ask(i))
        seconds.append(time.perf_counter() - started)
    return answers, float(np.median(seconds))


def recall(found: list[NDArray[np.int64]], exact: list[NDArray[np.int64]]) -> float:
    """Mean share of the exact answers that were found."""
    return float(
        np.mean([len(set(f.tolist()) & set(e.tolist())) / len(e) for f, e in zip(found, exact, strict=False)])
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument(
        "--folder", type=Path, default=Path("benchmark-data"), help="where the vectors are mapped from"
    )
    given = parser.parse_args()
    items, clusters, questions = (20_000, 41, 50) if given.small else (1_000_000, 761, 200)
    vectors, starts = world(items, clusters)
    given.folder.mkdir(parents=True, exist_ok=True)
    np.save(given.folder / "restrict.npy", vectors)
    mapped = np.load(given.folder / "restrict.npy", mmap_mode="r")
    rng = np.random.default_rng(1)
    users = rng.normal(size=(questions, DIM)).astype(np.float32)
    asked = rng.integers(clusters, size=questions)
    owner = np.repeat(np.arange(clusters), np.diff(starts))

    def by_slice(i: int) -> NDArray[np.int64]:
        c = asked[i]
        return top_in_slice(mapped, users[i], int(starts[c]), int(starts[c + 1]), K)[0]

    def by_full(i: int) -> NDArray[np.int64]:
        # Given the tree's order too: scores of everything, and then only the cluster's are looked at.
        start, stop = int(starts[asked[i]]), int(starts[asked[i] + 1])
        scores = (vectors @ users[i])[start:stop]
        best = np.argpartition(-scores, min(K, len(scores) - 1))[:K]
        return best[np.lexsort((best, -scores[best]))] + start

    exact, slice_s = timed(by_slice, questions)
    full, full_s = timed(by_full, min(questions, 50))
    result: dict[str, object] = {
        "items": items,
        "clusters": clusters,
        "slice_ms": slice_s * 1e3,
        "full_ms": full_s * 1e3,
        "ratio.slice_over_full": full_s / slice_s,
        "same_answers": all(np.array_equal(a, b) for a, b in zip(full, exact, strict=False)),
    }
    result |= faiss_times(vectors, owner, users, asked, exact, slice_s)
    result |= hnsw_times(vectors, owner, users, asked, exact, slice_s, 5 if not given.small else 20)
    result["lookup_us"] = lookup(clusters, rng)
    result["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    if given.json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name:24} {value:.4g}" if isinstance(value, float) else f"{name:24} {value}")


def faiss_times(
    vectors: NDArray[np.float32],
    owner: NDArray[np.int64],
    users: NDArray[np.float32],
    asked: NDArray[np.int64],
    exact: list[NDArray[np.int64]],
    slice_s: float,
) -> dict[str, object]:
    """An index with one inverted list a cluster, asked for one list."""
    import faiss

    faiss.omp_set_num_threads(1)
    clusters = int(owner.max()) + 1
    quantizer = faiss.IndexFlatIP(DIM)
    quantizer.add(np.zeros((clusters, DIM), np.float32))
    index = faiss.IndexIVFFlat(quantizer, DIM, clusters, faiss.METRIC_INNER_PRODUCT)
    index.is_trained = True
    # The pointers do not keep their arrays alive.
    ids, lists = np.arange(len(vectors), dtype=np.int64), owner.astype(np.int64)
    index.add_core(len(vectors), faiss.swig_ptr(vectors), faiss.swig_ptr(ids), faiss.swig_ptr(lists))

    def ask(i: int) -> NDArray[np.int64]:
        at = np.array([[asked[i]]], dtype=np.int64)
        _, found = index.search_preassigned(users[i : i + 1], K, at, np.zeros((1, 1), np.float32))
        return found[0]

    found, seconds = timed(ask, len(users))
    return {
        "faiss_ms": seconds * 1e3,
        "ratio.slice_over_faiss": seconds / slice_s,
        "recall_faiss": recall(found, exact),
    }


def hnsw_times(
    vectors: NDArray[np.float32],
    owner: NDArray[np.int64],
    users: NDArray[np.float32],
    asked: NDArray[np.int64],
    exact: list[NDArray[np.int64]],
    slice_s: float,
    questions: int,
) -> dict[str, object]:
    """A graph of neighbours over all items, walked with the cluster as a filter."""
    import hnswlib

    index = hnswlib.Index(space="ip", dim=DIM)
    index.init_index(len(vectors), ef_construction=100, M=16)
    started = time.perf_counter()
    index.add_items(vectors, num_threads=os.cpu_count() or 1)
    built = time.perf_counter() - started
    index.set_ef(200)

    def ask(i: int) -> NDArray[np.int64]:
        inside = asked[i]
        found, _ = index.knn_query(users[i : i + 1], K, num_threads=1, filter=lambda label: owner[label] == inside)
        return found[0].astype(np.int64)

    found, seconds = timed(ask, questions)
    return {
        "hnsw_ms": seconds * 1e3,
        "ratio.slice_over_hnsw": seconds / slice_s,
        "recall_hnsw": recall(found, exact),
        "hnsw_build_s": built,
    }


def lookup(clusters: int, rng: np.random.Generator) -> float:
    """Microseconds to find the first novel cluster of a pair in the table, at the median of many."""
    table = rng.integers(clusters, size=(clusters, clusters, 20), dtype=np.int32)
    is_open = rng.random(clusters) < 0.9
    pairs = rng.integers(clusters, size=(20_000, 2)).tolist()
    seconds: list[float] = []
    for a, b in pairs:
        started = time.perf_counter()
        row = table[a, b]
        row[is_open[row].argmax()]
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds)) * 1e6


if __name__ == "__main__":
    main()
