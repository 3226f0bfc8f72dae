"""The embedded world's topics, and what people write about them.

Owns `topics.toml`: areas, sub-areas, topics, keywords, appeals, and the templates of titles. It does not know
who watches, nor how good or popular an item is.
"""

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

TITLE_KINDS = ("clear", "plain", "personal", "clickbait", "vague")
"""How a title is written; an item's kind is an index into this."""

APPEAL_WEIGHTS = (1.0, 0.6, 0.35)
"""Weight of a topic's first, second and third appeal before the vector is brought to length one."""


@dataclass(frozen=True, slots=True)
class Topics:
    """T topics in S sub-areas in A areas, with K appeals. Index order is the file's."""

    names: tuple[str, ...]
    keywords: tuple[tuple[str, ...], ...]
    sub_area: NDArray[np.int32]
    """[T] sub-area of each topic."""
    appeals: NDArray[np.float32]
    """[T, K] unit rows; 0 where the topic does not have the appeal."""
    sub_areas: tuple[str, ...]
    voices: tuple[str, ...]
    """[S] how people speak of it: do, see or know."""
    area: NDArray[np.int32]
    """[S] area of each sub-area."""
    areas: tuple[str, ...]
    appeal_names: tuple[str, ...]
    appeal_phrases: tuple[tuple[str, ...], ...]
    templates: dict[str, Any]

    def __len__(self) -> int:
        return len(self.names)

    @property
    def topic_area(self) -> NDArray[np.int32]:
        """[T] area of each topic."""
        return self.area[self.sub_area]


@dataclass(frozen=True, slots=True)
class Text:
    """What the uploader wrote."""

    title: str
    hashtags: tuple[str, ...]
    description: str


@cache
def read() -> Topics:
    """The topics that ship with the package."""
    tables = tomllib.loads(Path(__file__).with_name("topics.toml").read_text("utf-8"))
    phrases: dict[str, list[str]] = tables.pop("appeals")
    templates: dict[str, Any] = tables.pop("titles")
    subs = [(a, name, rows) for a, of in enumerate(tables.values()) for name, rows in of.items()]
    voices = tuple(rows.pop("voice") for _, _, rows in subs)
    topics = [(s, name, *row) for s, (_, _, rows) in enumerate(subs) for name, row in rows.items()]
    appeal_names = tuple(phrases)
    return Topics(
        names=tuple(name for _, name, _, _ in topics),
        keywords=tuple(_listed(words) for _, _, words, _ in topics),
        sub_area=np.array([s for s, _, _, _ in topics], np.int32),
        appeals=np.stack([_appeal_row(_listed(appeals), appeal_names) for _, _, _, appeals in topics]),
        sub_areas=tuple(name for _, name, _ in subs),
        voices=voices,
        area=np.array([a for a, _, _ in subs], np.int32),
        areas=tuple(tables),
        appeal_names=appeal_names,
        appeal_phrases=tuple(tuple(lines) for lines in phrases.values()),
        templates=templates,
    )


def write_text(
    topics: Topics,
    topic: int,
    kind: int,
    rng: np.random.Generator,
    *,
    hashtag_share: float,
    appeal_share: float,
    typo_share: float,
    description_share: float,
) -> Text:
    """What somebody writes who uploads an item of `topic` with a title of `kind` (index into TITLE_KINDS).

    The shares are probabilities: of any hashtags, of words for an appeal in title or hashtags, of one spelling
    mistake in the title, of a description. A vague title says nothing of the topic; its hashtags may.
    """
    words = [topics.keywords[topic][i] for i in rng.permutation(len(topics.keywords[topic]))]
    fields = {
        "topic": topics.names[topic],
        "word": words[0],
        "word2": words[1],
        "word3": words[2],
        "n": int(rng.integers(2, 40)),
    }
    templates = topics.templates
    lines = templates[TITLE_KINDS[kind]]
    if isinstance(lines, dict):
        lines = lines[topics.voices[topics.sub_area[topic]]]
    title = _pick(lines, rng).format(**fields)
    with_appeal = TITLE_KINDS[kind] != "vague" and rng.random() < appeal_share
    appeals = np.flatnonzero(topics.appeals[topic])
    appeal = int(appeals[rng.integers(len(appeals))])
    if with_appeal:
        title = f"{title}, {_pick(topics.appeal_phrases[appeal], rng)}"
    hashtags: tuple[str, ...] = ()
    if rng.random() < hashtag_share:
        hashtags = _hashtags(topics, topic, appeal, words, rng, appeal_share)
    description = ""
    if rng.random() < description_share:
        description = _pick(templates["descriptions"], rng).format(**fields)
    return Text(_hurried(title, rng, typo_share, templates["endings"]), hashtags, description)


def creator_name(topics: Topics, index: int) -> str:
    """A made-up account name; different for every index."""
    first, second = (line.split() for line in topics.templates["creators"])
    round_, place = divmod(index, len(first) * len(second))
    turn, at = divmod(place, len(first))
    name = f"{first[at]}.{second[(turn + 5 * at) % len(second)]}"
    return f"{name}{round_ + 1}" if round_ else name


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(","))


def _appeal_row(appeals: tuple[str, ...], names: tuple[str, ...]) -> NDArray[np.float32]:
    row = np.zeros(len(names), np.float32)
    for appeal, weight in zip(appeals, APPEAL_WEIGHTS, strict=False):
        row[names.index(appeal)] = weight
    return (row / np.linalg.norm(row)).astype(np.float32)


def _pick(lines: list[str] | tuple[str, ...], rng: np.random.Generator) -> str:
    return lines[int(rng.integers(len(lines)))]


def _tag(text: str, rng: np.random.Generator) -> str:
    """A hashtag for a name: of "knots and ropes" one of the two, of "deep sea" deepsea."""
    parts = [part for part in re.split(r",| and ", text.lower()) if part.strip()]
    return "".join(c for c in _pick(parts, rng) if c.isalnum())


def _hashtags(
    topics: Topics, topic: int, appeal: int, words: list[str], rng: np.random.Generator, appeal_share: float
) -> tuple[str, ...]:
    """One to six: the topic, its words, its place, an appeal, and those that stand under everything."""
    sub_area = int(topics.sub_area[topic])
    offers = [
        (0.55, topics.names[topic]),
        (0.45, words[0]),
        (0.35, words[3]),
        (0.2, topics.sub_areas[sub_area]),
        (0.25, topics.areas[int(topics.area[sub_area])]),
        (appeal_share, topics.appeal_names[appeal]),
        (0.35, _pick(topics.templates["hashtags"], rng)),
        (0.15, _pick(topics.templates["hashtags"], rng)),
    ]
    drawn = [_tag(text, rng) for share, text in offers if rng.random() < share]
    return tuple(dict.fromkeys(drawn or [_tag(topics.names[topic], rng)]))


def _hurried(title: str, rng: np.random.Generator, typo_share: float, endings: list[str]) -> str:
    """The title as typed: a capital first or none, at times a spelling mistake, at times an ending."""
    if rng.random() < typo_share:
        words = title.split(" ")
        long = [i for i, word in enumerate(words) if len(word) >= 5 and word.isalpha()]
        if long:
            i = long[int(rng.integers(len(long)))]
            at = int(rng.integers(1, len(words[i]) - 2))
            word = words[i]
            mistakes = (
                word[:at] + word[at + 1] + word[at] + word[at + 2 :],
                word[:at] + word[at + 1 :],
                word[:at] + word[at] + word[at:],
            )
            words[i] = _pick(mistakes, rng)
            title = " ".join(words)
    style = rng.random()
    if style < 0.55:
        title = title[0].upper() + title[1:]
    elif style > 0.97:
        title = title.upper()
    return title + _pick(endings, rng) if rng.random() < 0.12 else title
