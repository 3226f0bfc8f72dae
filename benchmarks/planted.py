"""Catalogs and logs with known truth, of any size: topics in a hierarchy, Zipf traffic, people with interests.

Used by the benchmarks of scale; nothing here is a claim. Everything is drawn from the generator that is given, a
part at a time, so that a hundred million events need no more memory than a part of them.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

SHAPE = (24, 32, 4)
"""Topics, subtopics of each, and kinds of each subtopic: 24, 768 and 3,072."""
PART = 1 << 16


def topics(n: int, rng: np.random.Generator, dim: int = 256) -> tuple[NDArray[np.float32], list[NDArray[np.int32]]]:
    """Unit vectors [n, dim] of n items, and their topic, subtopic and kind, [n] each.

    Kinds have unequal sizes (log-normal), as real interests have. An item lies at cosine 0.55 to 0.75 to its kind's
    centre: about what sentence vectors of short titles show.
    """
    centres = np.zeros((1, dim))
    for depth, branches in enumerate(SHAPE):
        centres = np.repeat(centres, branches, axis=0)
        centres += rng.normal(size=centres.shape) * 0.8**depth / dim**0.5
    share = rng.lognormal(0.0, 0.8, len(centres))
    kind = rng.choice(len(centres), n, p=share / share.sum()).astype(np.int32)
    vectors = np.empty((n, dim), np.float32)
    for start in range(0, n, PART):
        own = kind[start : start + PART]
        rows = centres[own] + 1.5 * rng.normal(size=(len(own), dim)) / dim**0.5
        vectors[start : start + PART] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    below = SHAPE[1] * SHAPE[2], SHAPE[2], 1
    return vectors, [(kind // each).astype(np.int32) for each in below]


def zipf(n: int, rng: np.random.Generator, events: int | None = None) -> NDArray[np.float64]:
    """Traffic [n]: the k-th item has a share of 1/k, in random order; `events` in all, 20 an item by default."""
    share = 1.0 / np.arange(1, n + 1)
    return rng.permutation(np.floor((events or 20 * n) * share / share.sum()))


def events(
    n: int, users: int, cluster_of: NDArray[np.integer], rng: np.random.Generator, size: int = 1 << 21
) -> Iterator[dict[str, NDArray[np.generic]]]:
    """About n events of `users` people, in parts of whole people: user, item, time (microseconds), satisfaction.

    A person has three to six interests, stays with one from event to event with probability 0.6, and meets another
    cluster altogether once in ten events; inside a cluster items follow Zipf. Sorted by user and time.
    """
    clusters = int(cluster_of.max()) + 1
    by_cluster = np.argsort(cluster_of, kind="stable").astype(np.int32)
    starts = np.append(0, np.cumsum(np.bincount(cluster_of, minlength=clusters)))
    mean = n / users
    done = 0
    while done < users:
        some = min(users - done, max(1, int(size / mean)))
        length = 1 + rng.poisson(max(0.0, mean - 1), some)
        total = int(length.sum())
        user = np.repeat(np.arange(done, done + some, dtype=np.int32), length)
        likes = rng.integers(clusters, size=(some, 6))
        choice = rng.integers(3 + np.repeat(np.arange(some) % 4, length))
        fresh = rng.random(total) < 0.4
        fresh[np.append(0, np.cumsum(length)[:-1])] = True
        # An interest holds until the next fresh draw.
        choice = choice[np.maximum.accumulate(np.where(fresh, np.arange(total), 0))]
        cluster = likes[user - done, choice]
        away = rng.random(total) < 0.1
        cluster[away] = rng.integers(clusters, size=int(away.sum()))
        room = np.diff(starts)[cluster]
        place = np.minimum((np.maximum(room, 1) ** rng.random(total)).astype(np.int64) - 1, room - 1)
        item = by_cluster[starts[cluster] + np.maximum(place, 0)]
        step = rng.integers(60_000_000, 86_400_000_000, total)
        clock = np.cumsum(step)
        first = np.append(0, np.cumsum(length)[:-1])
        time = 1_600_000_000_000_000 + clock - np.repeat(clock[first] - step[first], length)
        good = rng.random(total) < 0.7
        yield {"user": user, "item": item, "time": time, "satisfaction": good.astype(np.float32)}
        done += some


def write_raw(path: Path, n: int, users: int, cluster_of: NDArray[np.integer], rng: np.random.Generator) -> int:
    """The events as a platform would export them, ids as text, into one parquet file; returns how many."""
    schema = pa.schema([("user", pa.string()), ("item", pa.string()), ("time", pa.int64()),
                        ("satisfaction", pa.float32())])  # fmt: skip
    written = 0
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for part in events(n, users, cluster_of, rng):
            ids = {
                "user": pa.array(part["user"]).cast(pa.string()),
                "item": pa.array(part["item"]).cast(pa.string()),
            }
            writer.write_table(pa.table({**part, **ids}, schema=schema))
            written += len(part["user"])
    return written
