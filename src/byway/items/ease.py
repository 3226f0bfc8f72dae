"""EASE: a linear model of the whole person, in closed form (Steck, WWW 2019).

Every unit (an item, or a leaf of the tree where there are too many items) is predicted from all others that
somebody liked: B = argmin ‖X − XB‖² + λ‖B‖² with a zero diagonal, X [people, units] being what was liked. A
person's score of unit j is the sum of B[i, j] over what they liked. `SparseMatrix` keeps of each row only the
entries that are largest. This module knows units and people by number, and needs numpy alone to score.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from scipy import sparse

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

KEPT = 400
"""Entries that are kept of a row."""


@dataclass(frozen=True, slots=True)
class SparseMatrix:
    """B by row, sparse: what liking unit i says of the others."""

    to: NDArray[np.int32]
    """[n, kept] units."""
    weight: Floats
    """[n, kept] B[i, to]; 0 where fewer are kept."""

    @property
    def n(self) -> int:
        return len(self.to)

    def scores(self, units: Ints, times: Floats | None = None) -> Floats:
        """[n] scores of all units for somebody who liked `units`, each as often as `times` says."""
        weight = self.weight[units] if times is None else self.weight[units] * times[:, None]
        return np.bincount(self.to[units].ravel(), weight.ravel(), self.n).astype(np.float32)

    def save(self, path: Path, name: str) -> None:
        np.save(path / f"{name}_to.npy", self.to)
        np.save(path / f"{name}_weight.npy", self.weight)


def load(path: Path, name: str) -> SparseMatrix:
    """Read what `save` wrote, mapped into memory."""
    return SparseMatrix(*(np.load(path / f"{name}_{end}.npy", mmap_mode="r") for end in ("to", "weight")))


def interaction_matrix(
    user: NDArray[np.integer], unit: NDArray[np.integer], value: NDArray[np.floating], shape: tuple[int, int]
) -> "sparse.csr_array":
    """X [users, units] of events: the mean value of somebody's events with a unit; 0 where there is none.

    With a value of 1 for what was liked, and of nothing else, this is EASE as published. Values that are negative
    for what displeased say more (`planner.fit.neutral`).
    """
    from scipy import sparse

    key, at = np.unique(user.astype(np.int64) * shape[1] + unit, return_inverse=True)
    mean = np.bincount(at, value, len(key)) / np.bincount(at, minlength=len(key))
    return sparse.csr_array((mean.astype(np.float32), (key // shape[1], key % shape[1])), shape=shape)


def solve(x_UN: "sparse.csr_array", ridge: float) -> Floats:
    """B [n, n], dense, with a zero diagonal.

    B = −P / diag P off the diagonal, with P = (G + λI)⁻¹ and G = XᵀX. Raises ValueError where that has no inverse.
    """
    from scipy import linalg

    gram = np.asarray((x_UN.T @ x_UN).todense(), np.float64)
    n = len(gram)
    at = np.diag_indices(n)
    gram[at] += ridge
    potrf, potri = linalg.get_lapack_funcs(("potrf", "potri"), (gram,))
    factor, failed = potrf(gram, lower=1, overwrite_a=1)
    inverse, bad = potri(factor, lower=1, overwrite_c=1)
    if failed or bad:
        raise ValueError(f"the Gram matrix of {n} units with ridge {ridge} is not positive definite")
    inverse = np.tril(inverse)
    inverse += np.tril(inverse, -1).T
    inverse /= -inverse[at]
    inverse[at] = 0
    return inverse.astype(np.float32)


def largest(b_NN: Floats, kept: int = KEPT) -> SparseMatrix:
    """The entries of each row that are largest in size, in order of unit."""
    kept = min(kept, max(len(b_NN) - 1, 1))
    to = np.sort(np.argpartition(-np.abs(b_NN), kept - 1, axis=1)[:, :kept], axis=1)
    return SparseMatrix(to.astype(np.int32), np.take_along_axis(b_NN, to, axis=1))
