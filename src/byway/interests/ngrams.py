"""Rows for texts that no encoder reads: which groups of letters they share.

Character n-grams are hashed into columns, weighed by how rare they are, and brought to few dimensions by truncated
singular value decomposition (latent semantic analysis). It knows letters, and no language.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

COLUMNS = 1 << 15
SHORTEST, LONGEST = 2, 4
"""Characters of a group. It may go over a blank: the same words in another order are another text."""
DIMENSIONS = 128
FITTED = 20_000
"""Texts, evenly spaced, to which the decomposition is fitted."""
BLOCK = 4096


@dataclass(frozen=True, slots=True)
class Ngrams:
    """From texts to rows."""

    rarity: NDArray[np.float32]
    """[COLUMNS] weight of each group of letters."""
    axes: NDArray[np.float32]
    """[COLUMNS, kept] at most `DIMENSIONS` directions."""

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """float32 [len(texts), kept]."""
        parts = [
            np.asarray(_weighed(_counted(texts[start : start + BLOCK]), self.rarity) @ self.axes, np.float32)
            for start in range(0, len(texts), BLOCK)
        ]
        return np.concatenate(parts) if parts else np.zeros((0, self.axes.shape[1]), np.float32)

    def write(self, folder: Path) -> None:
        """As `ngrams_rarity.npy` and `ngrams_axes.npy`."""
        np.save(folder / "ngrams_rarity.npy", self.rarity)
        np.save(folder / "ngrams_axes.npy", self.axes)


def load(folder: Path) -> Ngrams:
    """What `write` left in `folder`."""
    return Ngrams(np.load(folder / "ngrams_rarity.npy"), np.load(folder / "ngrams_axes.npy"))


def fit(texts: Sequence[str]) -> Ngrams:
    """The n-grams of these texts and the directions in which they differ most; the same for the same texts."""
    from sklearn.utils.extmath import randomized_svd  # seconds to import, as all of it

    counted = _counted(texts[:: max(1, -(-len(texts) // FITTED))])
    held = np.bincount(counted.indices, minlength=COLUMNS)
    rarity = (np.log((1 + counted.shape[0]) / (1 + held)) + 1).astype(np.float32)
    kept = min(DIMENSIONS, counted.shape[0])
    # The mean text is the first direction, which the projection that follows removes: hence one more.
    decompose: Any = randomized_svd
    _, _, axes = decompose(
        _weighed(counted, rarity), n_components=min(kept + 1, *counted.shape), n_iter=5, random_state=0
    )
    return Ngrams(rarity, np.ascontiguousarray(axes.T, np.float32))


def _counted(texts: Sequence[str]) -> Any:
    """Sparse [len(texts), COLUMNS]: how often a text holds each group of letters."""
    from sklearn.feature_extraction.text import HashingVectorizer

    vectorizer: Any = HashingVectorizer
    hashed = vectorizer(
        analyzer="char",
        ngram_range=(SHORTEST, LONGEST),
        n_features=COLUMNS,
        norm=None,
        alternate_sign=False,
        lowercase=False,
    )
    return sparse.csr_matrix(
        hashed.transform([f" {unicodedata.normalize('NFKC', text).casefold()} " for text in texts])
    )


def _weighed(counted: Any, rarity: NDArray[np.float32]) -> Any:
    """Rows of unit length: the logarithm of the count times the rarity."""
    weighed = counted.astype(np.float32)
    weighed.data = (1 + np.log(weighed.data)) * rarity[weighed.indices]
    lengths = np.sqrt(np.asarray(weighed.multiply(weighed).sum(axis=1)).ravel())
    return sparse.diags_array(1 / np.where(lengths > 0, lengths, 1)).astype(np.float32) @ weighed
