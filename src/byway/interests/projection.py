"""Principal components: from rows of any width to unit rows of `dim` dimensions.

It knows numbers alone; what the rows stand for is known by who brings them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

EQUAL = 1e-4
"""Distance of unit rows up to which they are one: a text encoded twice, in other company, differs by about 1e-6."""
SKETCH = 64
"""Directions along which rows are compared before they are projected."""
BLOCK = 4096
"""Rows compared at a time."""
Shard = Path | NDArray[np.floating]
"""Rows in memory, or the file that holds them."""


@dataclass(frozen=True, slots=True)
class Projection:
    """From rows to unit rows of `dim` dimensions."""

    mean: NDArray[np.float64]
    """[width]"""
    directions: NDArray[np.float64]
    """[width, kept] columns of unit length; kept is at most `dim`, and what is missing to it is zero."""
    dim: int

    def apply(self, rows: NDArray[np.floating]) -> NDArray[np.float32]:
        """Unit rows float32 [n, dim] of rows [n, width]. A row on the mean gets the first direction."""
        projected = np.zeros((len(rows), self.dim), np.float32)
        projected[:, : self.directions.shape[1]] = (np.asarray(rows, np.float64) - self.mean) @ self.directions
        lengths = np.linalg.norm(projected, axis=1)
        # Rounding leaves about 1e-7 of a row that lies on the mean: noise, not a direction.
        empty = lengths < 1e-6
        projected[empty] = np.eye(1, self.dim, dtype=np.float32)
        return projected / np.where(empty, 1.0, lengths)[:, None].astype(np.float32)

    def write(self, folder: Path, prefix: str = "") -> None:
        """As `<prefix>mean.npy` and `<prefix>directions.npy`."""
        np.save(folder / f"{prefix}mean.npy", self.mean)
        np.save(folder / f"{prefix}directions.npy", self.directions)

    @classmethod
    def load(cls, folder: Path, dim: int, prefix: str = "") -> Self | None:
        """What `write` left in `folder`, or None where there is none."""
        if not (folder / f"{prefix}directions.npy").exists():
            return None
        return cls(np.load(folder / f"{prefix}mean.npy"), np.load(folder / f"{prefix}directions.npy"), dim)


def project(
    shards: Sequence[Shard], counts: NDArray[np.number], dim: int
) -> tuple[NDArray[np.float32], float, Projection]:
    """Principal components: mean removed, `dim` directions of largest variance, unit rows.

    `counts` [n] says how many items share each row, or what it weighs. A direction's sign is fixed so that its
    largest entry is positive. Where rows are narrower than `dim` the missing dimensions are zero. A row that lies
    exactly on the mean gets the first direction.

    Returns float32 [n, dim], the share of the variance that was kept, and the projection itself.
    """
    total: NDArray[np.float64] | float = 0.0
    product: NDArray[np.float64] | float = 0.0
    start = 0
    for rows in _rows(shards):
        weight = counts[start : start + len(rows)].astype(np.float64)
        total += weight @ rows
        product += (rows * weight[:, None]).T @ rows
        start += len(rows)
    mean = total / counts.sum()
    covariance = product / counts.sum() - np.outer(mean, mean)
    values, directions = np.linalg.eigh(covariance)
    kept = min(dim, len(mean))
    values, directions = np.maximum(values[::-1], 0.0), directions[:, ::-1][:, :kept]
    largest = directions[np.abs(directions).argmax(axis=0), np.arange(kept)]
    directions = directions * np.where(largest < 0, -1.0, 1.0)

    projection = Projection(mean, directions, dim)
    projected = np.concatenate([projection.apply(rows) for rows in _rows(shards)])
    variance = float(values[:kept].sum() / values.sum()) if values.sum() > 0 else 1.0
    return projected, variance, projection


def _rows(shards: Sequence[Shard]) -> Iterator[NDArray[np.float64]]:
    for shard in shards:
        yield (np.load(shard) if isinstance(shard, Path) else shard).astype(np.float64)


def sketch(shards: Sequence[Shard]) -> NDArray[np.float32]:
    """float32 [n, `SKETCH`]: unit rows along random directions, about as far from one another as they were."""
    parts: list[NDArray[np.float32]] = []
    for rows in _rows(shards):
        directions = np.random.default_rng(0).normal(size=(rows.shape[1], SKETCH)) / SKETCH**0.5
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        parts.append((rows / np.where(lengths > 0, lengths, 1) @ directions).astype(np.float32))
    return np.concatenate(parts)


def group_equal(rows: NDArray[np.float32]) -> NDArray[np.int64]:
    """[n]: a number for each different row; unit rows within `EQUAL` of one another have one.

    Sorted along one direction, rows that are equal but for rounding lie side by side.
    """
    if not len(rows):
        return np.zeros(0, np.int64)
    direction = np.random.default_rng(0).normal(size=rows.shape[1])
    # In float64, where rows that are equal come to one number; a block at a time, since a copy of all is large.
    along = [rows[start : start + BLOCK].astype(np.float64) @ direction for start in range(0, len(rows), BLOCK)]
    order = np.argsort(np.concatenate(along), kind="stable")
    fresh = np.ones(len(rows), bool)
    for start in range(1, len(rows), BLOCK):
        part = order[start - 1 : start + BLOCK]
        fresh[start : start + BLOCK] = np.linalg.norm(rows[part[1:]] - rows[part[:-1]], axis=1) > EQUAL
    group = np.empty(len(rows), np.int64)
    group[order] = np.cumsum(fresh) - 1
    return group
