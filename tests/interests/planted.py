"""Planted worlds for the interests layer: hierarchies of topics whose answer is known."""

from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from byway.base.artifact import Work
from byway.data.catalog import SCHEMA, Catalog
from byway.data.events import Events


def work(path: Path, name: str = "stage", seed: int = 0) -> Work:
    """An empty place to build in; the scratch is kept between calls with the same name."""
    out, scratch = path / name, path / f"{name}.scratch"
    out.mkdir(exist_ok=True)
    scratch.mkdir(exist_ok=True)
    return Work(out, scratch, np.random.default_rng(seed))


def catalog(titles: list[str], hashtags: list[list[str]] | None = None) -> Catalog:
    """A catalog of titles and hashtags alone."""
    n = len(titles)
    columns = {
        "item": [str(i) for i in range(n)],
        "title": titles,
        "hashtags": hashtags or [[] for _ in titles],
    }
    return Catalog(
        pa.table({f.name: pa.array(columns.get(f.name, [None] * n), f.type) for f in SCHEMA}, schema=SCHEMA)
    )


def hierarchy(
    shape: tuple[int, ...], items: int, rng: np.random.Generator, noise: float = 0.5, dim: int = 64
) -> tuple[NDArray[np.float32], list[NDArray[np.int64]]]:
    """Unit vectors [n, dim] around topics that branch as `shape` says, shuffled, and the labels of each level."""
    centres = np.zeros((1, dim))
    for depth, branches in enumerate(shape):
        centres = np.repeat(centres, branches, axis=0)
        centres += rng.normal(size=centres.shape) * 0.8**depth / dim**0.5
    leaf = rng.permutation(np.repeat(np.arange(len(centres)), items))
    vectors = centres[leaf] + noise * rng.normal(size=(len(leaf), dim)) / dim**0.5
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    below = np.cumprod((1, *shape[::-1]))[:-1][::-1]
    return vectors.astype(np.float32), [leaf // int(b) for b in below]


def zipf(n: int, rng: np.random.Generator, exponent: float = 1.0) -> NDArray[np.float64]:
    """Traffic [n] as logs have it: a few heads and a long tail, in random order."""
    return rng.permutation(np.floor(20 * n / np.arange(1, n + 1) ** exponent))


def events(traffic: NDArray[np.float64]) -> Events:
    """A log of one user in which each item occurs as often as `traffic` says."""
    item = np.repeat(np.arange(len(traffic)), traffic.astype(int)).astype(np.int32)
    return Events(
        user=np.zeros(len(item), np.int32),
        item=item,
        time=np.arange(len(item), dtype=np.int64),
        satisfaction=np.ones(len(item), np.float32),
        clock=False,
        n_users=1,
        n_items=len(traffic),
    )
