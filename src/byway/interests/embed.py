"""02-embeddings: one unit vector an item, from its words, and from what is seen and heard of it where there is any.

Owns how texts become rows, how modalities are joined, and the projection to `dim` dimensions; which encoder reads
texts, `encoders` knows. It does not know events, graphs or clusters. Encoding is the only slow part, so it is cut
into shards that are kept in the scratch directory: a build that was killed goes on at the next shard, and ends in
the same bytes.

What the encoder does not read (letters of a script that it was not taught; texts that differ and that it gives one
row) gets a row of character n-grams. A text that is read in part has something of both.
"""

import io
import re
import time
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from byway.base import artifact, config, engine
from byway.base.artifact import Gate, Outcome, Work
from byway.base.errors import UserError
from byway.base.progress import bar, say
from byway.data import media
from byway.data.catalog import Catalog
from byway.data.media import Media
from byway.interests import ngrams
from byway.interests.encoders import MAX_TOKENS, NGRAMS, Choice, Encoder, choose, sentence_encoder, unread
from byway.interests.ngrams import Ngrams
from byway.interests.projection import Projection, group_equal, project, sketch

VECTORS = "vectors.npy"
ENCODER = "encoder.json"
SHARD = 2048
"""Texts between two checkpoints: under 20 seconds with MiniLM on two cores."""
CHARACTERS_A_TOKEN = 16
"""Text beyond this many characters a token is cut before the tokenizer sees it; words are shorter."""
CAPTIONS = 0.5
"""Weight of what `media.captioner` says is seen, beside 1 of the words: half, as of the pictures that it tells
of."""
DISTINCT = 0.9
"""Least share of different vectors among different texts. MiniLM makes 1 vector of 36 Thai titles and 3 of as many
in Telugu; of English, Russian or Greek ones 36."""


def build(work: Work, settings: config.Embeddings, catalog: Catalog, seen: Media | None = None) -> Outcome:
    """Encode the catalog's texts, project them to `settings.dim`, join what was seen, write `vectors.npy`."""
    distinct, row_of = _distinct(_shortened(catalog.texts()))
    started = time.perf_counter()
    choice, shards = _encoded(distinct, settings, work.scratch)
    say(f"  texts are read by {choice.model}: {choice.why}")
    encoded = time.perf_counter()
    fitted = fit(distinct, np.bincount(row_of), choice, shards, settings.dim)
    fitted.encoding.write(work.out)
    group = group_equal(fitted.rows)
    metrics: dict[str, Any] = {
        "embeddings.model": fitted.encoding.choice.model,
        "embeddings.why": fitted.encoding.choice.why,
        "embeddings.variance": round(fitted.variance, 4),
    }
    vectors = fitted.rows[row_of]
    if seen is not None:
        captions = captioned(seen, settings, work.scratch) if seen.captions else None
        vectors, joined_variance, projection = join(vectors, seen, settings, captions)
        if projection is not None:
            projection.write(work.out, "joined_")
        metrics |= {"embeddings.joined_variance": round(joined_variance, 4), "embeddings.seen": len(seen.item)}
    np.save(work.out / VECTORS, vectors)
    return Outcome(
        counts={
            "items": len(vectors),
            "distinct_texts": len(distinct),
            "distinct_vectors": len(np.unique(group)),
            "spelled_texts": fitted.by_letters,
        },
        metrics=metrics,
        gates={"embeddings.distinct": Gate(share_distinct(group, distinct), DISTINCT)},
        timings={"encode": encoded - started, "project": time.perf_counter() - encoded},
    )


def load(path: Path) -> NDArray[np.float32]:
    """The vectors of the artifact at `path`: [n, dim], unit rows in catalog order, memory-mapped."""
    return np.load(path / VECTORS, mmap_mode="r")


def embed_new(path: Path, settings: config.Embeddings, texts: list[str]) -> NDArray[np.float32]:
    """Unit rows [len(texts), dim] for texts of new items, in the space of the artifact at `path`.

    They are read by the encoder that the artifact was built with, whatever they are written in.

    Raises UserError where the artifact does not hold its encoder and projection.
    """
    encoding = Encoding.load(path, settings.dim)
    distinct, row_of = _distinct(_shortened(texts))
    model = encoding.choice.model
    share = unread(distinct, model)
    if (lost := int((share == 1).sum())) and encoding.letters is None:
        say(
            f"[yellow]{lost:,} of {len(distinct):,} new texts are in letters that {model} does not read[/], and "
            "the catalog had none like them: add them to the sources and run."
        )
    if model == NGRAMS:
        parts = [np.zeros((len(distinct), 1), np.float32)]
    else:
        encoder = sentence_encoder(replace(settings, model=model))
        parts = [encoder(distinct[start : start + SHARD]) for start in range(0, len(distinct), SHARD)]
    rows = encoding.apply(distinct, np.concatenate(parts), share)
    joined = Projection.load(path, settings.dim, "joined_")
    if joined is not None:  # as an item that has words alone
        wide = np.zeros((len(rows), len(joined.mean)))
        wide[:, : rows.shape[1]] = rows
        rows = joined.apply(wide)
    return rows[row_of]


def chosen(settings: config.Embeddings, catalog: Catalog) -> str:
    """The name of the encoder that `build` would read the catalog with."""
    return choose(_distinct(_shortened(catalog.texts()))[0], settings.model).model


def _shortened(texts: Iterable[str]) -> list[str]:
    return [text[: MAX_TOKENS * CHARACTERS_A_TOKEN] for text in texts]


def _distinct(texts: Sequence[str]) -> tuple[list[str], NDArray[np.int64]]:
    """The different texts, shortest first, and which of them each text is: [len(texts)]."""
    distinct = sorted(set(texts), key=lambda text: (len(text), text))
    number = {text: i for i, text in enumerate(distinct)}
    return distinct, np.fromiter((number[text] for text in texts), np.int64, len(texts))


def _encoded(distinct: list[str], settings: config.Embeddings, scratch: Path) -> tuple[Choice, list[Path]]:
    """The encoder and the shards of its rows, none where letters alone are read.

    Once chosen it is kept with the shards, so that a build that goes on has no two.
    """
    path = scratch / ENCODER
    if not path.exists():
        artifact.write_atomic(path, msgspec.json.encode(choose(distinct, settings.model)))
    choice = msgspec.json.decode(path.read_bytes(), type=Choice)
    if choice.model == NGRAMS:
        return choice, []
    return choice, encode(distinct, partial(sentence_encoder, replace(settings, model=choice.model)), scratch)


def captioned(seen: Media, settings: config.Embeddings, scratch: Path) -> NDArray[np.float32]:
    """[m, dim] unit rows of what a model says is seen in each item, read as the catalog's texts are."""
    folder = scratch / "captions"
    folder.mkdir(exist_ok=True)
    distinct, row_of = _distinct(seen.captions)
    choice, shards = _encoded(distinct, settings, folder)
    return fit(distinct, np.bincount(row_of), choice, shards, settings.dim).rows[row_of]


def join(
    words: NDArray[np.float32],
    seen: Media,
    settings: config.Embeddings,
    captions: NDArray[np.float32] | None = None,
) -> tuple[NDArray[np.float32], float, Projection | None]:
    """Words [n, dim], pictures, sound and `captions` [m, dim] as one: [n, dim] unit rows, the share of the variance
    that was kept, and the last projection; None where there were words alone.

    Each modality is brought to unit rows of `dim` by its own principal components, so that none weighs more for
    having larger numbers; they are laid side by side by their weights, nothing where an item lacks one, and brought
    to `dim` again. (Paper 1 takes a ready 256-dimensional embedding of all modalities and does not say how.)
    """
    heard = np.flatnonzero(~np.isnan(seen.sounds[:, 0]))
    sounds = np.asarray(seen.sounds)[heard]
    if len(heard):
        deviation = sounds.std(axis=0)
        sounds = (sounds - sounds.mean(axis=0)) / np.where(deviation > 0, deviation, 1.0)
    nothing = np.zeros((0, 1), np.float32)
    pictures = media.vectors(seen) if settings.pictures else nothing
    modalities = [words]
    for weight, items, features in (
        (settings.pictures, seen.item, pictures),
        (settings.sound, seen.item[heard], sounds),
        (CAPTIONS, seen.item, nothing if captions is None else captions),
    ):
        if weight and len(features):
            rows = np.zeros((len(words), settings.dim), np.float32)
            rows[items] = weight * project([features], np.ones(len(items)), settings.dim)[0]
            modalities.append(rows)
    if len(modalities) == 1:
        return words, 1.0, None
    return project([np.concatenate(modalities, axis=1)], np.ones(len(words)), settings.dim)


def encode(distinct: Sequence[str], make: Callable[[], Encoder], scratch: Path) -> list[Path]:
    """Encode texts, all different and shortest first, and leave the rows in shards under `scratch`.

    Texts of like length share a batch, so little is spent on padding. A shard is written whole or not at
    all, and holds the same texts in every run: what a killed run left is taken as it is.

    Returns the shards' paths in order.
    """
    parts = [list(distinct[start : start + SHARD]) for start in range(0, len(distinct), SHARD)]
    shards = [scratch / f"encoded-{i:06d}.npy" for i in range(len(parts))]
    left = [i for i, path in enumerate(shards) if not path.exists()]
    done = len(distinct) - sum(len(parts[i]) for i in left)
    with bar("encode texts", len(distinct), done) as advance:
        for i, rows in engine.spread(make, [parts[i] for i in left]):
            buffer = io.BytesIO()
            np.save(buffer, rows)
            artifact.write_atomic(shards[left[i]], buffer.getvalue())
            advance(len(parts[left[i]]))
    return shards


@dataclass(frozen=True, slots=True)
class LetterEncoder:
    """From texts to unit rows, by their letters alone."""

    ngrams: Ngrams
    projection: Projection

    def apply(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """float32 [len(texts), dim]."""
        return self.projection.apply(self.ngrams(texts))


@dataclass(frozen=True, slots=True)
class Encoding:
    """From texts and the encoder's rows of them to vectors."""

    choice: Choice
    words: Projection | None
    """Of the encoder's rows; None where it reads no text."""
    letters: LetterEncoder | None = None
    """Of the texts' n-grams; None where the encoder reads every text."""
    both: Projection | None = None
    """Of the two side by side, where there are both."""

    def apply(
        self, texts: Sequence[str], rows: NDArray[np.float32], unread_share: NDArray[np.float64]
    ) -> NDArray[np.float32]:
        """Unit rows [n, dim] of texts; `rows` [n, width] are the encoder's, `unread_share` [n] is what it does not
        read."""
        if self.words is not None and self.letters is not None and self.both is not None:
            return self.both.apply(side_by_side(self.words.apply(rows), self.letters, texts, unread_share))
        if self.letters is not None:
            return self.letters.apply(texts)
        assert self.words is not None  # an encoder, or letters, or both
        return self.words.apply(rows)

    def write(self, folder: Path) -> None:
        """As `encoder.json` and arrays."""
        (folder / ENCODER).write_bytes(msgspec.json.encode(self.choice))
        if self.words is not None:
            self.words.write(folder)
        if self.letters is not None:
            self.letters.ngrams.write(folder)
            self.letters.projection.write(folder, "ngrams_")
        if self.both is not None:
            self.both.write(folder, "both_")

    @classmethod
    def load(cls, folder: Path, dim: int) -> Self:
        """What `write` left in `folder`. Raises UserError where that is not enough to place new texts."""
        words, of_ngrams, both = (Projection.load(folder, dim, prefix) for prefix in ("", "ngrams_", "both_"))
        if not (folder / ENCODER).exists() or (words is None and of_ngrams is None):
            raise UserError(
                f"{folder} was made by a version that kept no projection for new items; delete it and run again."
            )
        choice = msgspec.json.decode((folder / ENCODER).read_bytes(), type=Choice)
        letters = None if of_ngrams is None else LetterEncoder(ngrams.load(folder), of_ngrams)
        return cls(choice, words, letters, both)


def side_by_side(
    words: NDArray[np.float32], letters: LetterEncoder, texts: Sequence[str], unread_share: NDArray[np.float64]
) -> NDArray[np.float32]:
    """[n, 2 dim] of unit length: the rows `words` [n, dim], and those of letters by the share that is not read."""
    dim = words.shape[1]
    rows = np.zeros((len(words), 2 * dim), np.float32)
    rows[:, :dim] = words * np.sqrt(1 - unread_share)[:, None]
    if spelled := np.flatnonzero(unread_share).tolist():
        weight = np.sqrt(unread_share[spelled])[:, None]
        rows[spelled, dim:] = letters.apply([texts[i] for i in spelled]) * weight
    return rows


@dataclass(frozen=True, slots=True)
class Fitted:
    """The vectors of some texts, and how they were made."""

    rows: NDArray[np.float32]
    """[texts, dim] of unit length."""
    variance: float
    """Share of the variance that was kept."""
    encoding: Encoding
    by_letters: int
    """Texts of which the encoder does not read the whole."""


def fit(distinct: Sequence[str], counts: NDArray[np.int64], choice: Choice, shards: list[Path], dim: int) -> Fitted:
    """Fit the projections to texts that were encoded into `shards`; `counts` says how many items have each text.

    Letters alone are read where the encoder reads no text, and where it gives more than half of the texts a vector
    that another has too.
    """
    unread_share = unread(distinct, choice.model)
    if (unread_share < 1).any() and len(twins := _twins(distinct, shards, unread_share)):
        why = f"{choice.model} gives {len(twins):,} of {len(distinct):,} different texts the vector of another."
        say(f"  [yellow]{why}[/] Their letters are read instead")
        unread_share[twins] = 1.0
        if len(twins) > len(distinct) / 2:
            choice, unread_share = Choice(NGRAMS, why), np.ones(len(distinct))
    spelled = np.flatnonzero(unread_share).tolist()
    words, of_words = np.zeros((0, dim), np.float32), None
    if (unread_share < 1).any():
        words, variance, of_words = project(shards, counts * (1 - unread_share), dim)
        if not spelled:
            return Fitted(words, variance, Encoding(choice, of_words), 0)
        say(
            f"  {len(spelled):,} of {len(distinct):,} texts have letters that {choice.model} does not read: n-grams"
        )
    texts = [distinct[i] for i in spelled]
    of_texts = ngrams.fit(texts)
    rows, variance, of_ngrams = project([of_texts(texts)], counts[spelled] * unread_share[spelled], dim)
    letters, both = LetterEncoder(of_texts, of_ngrams), None
    if of_words is not None:
        rows, variance, both = project([side_by_side(words, letters, distinct, unread_share)], counts, dim)
    return Fitted(rows, variance, Encoding(choice, of_words, letters, both), len(spelled))


def share_distinct(group: NDArray[np.int64], texts: Sequence[str]) -> float:
    """Different vectors, by their `group` [n], over texts that differ in more than case, accents and signs."""
    wanted = len({_bare(text) for text in texts})
    return min(1.0, len(np.unique(group)) / wanted) if wanted else 1.0


def _twins(distinct: Sequence[str], shards: list[Path], unread_share: NDArray[np.float64]) -> NDArray[np.int64]:
    """Of the texts that are read at all those with the vector of another that differs in more than case, accents
    and punctuation; none where few of the vectors are of several texts."""
    readable = np.flatnonzero(unread_share < 1)
    texts = [distinct[i] for i in readable.tolist()]
    group = group_equal(sketch(shards)[readable])
    if share_distinct(group, texts) >= DISTINCT:
        return readable[:0]
    bare: dict[int, set[str]] = {}
    for number, text in zip(group.tolist(), texts, strict=True):
        bare.setdefault(number, set()).add(_bare(text))
    return readable[[len(bare[number]) > 1 for number in group.tolist()]]


def _bare(text: str) -> str:
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKD", text).casefold()) or text
