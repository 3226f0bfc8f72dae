"""The four prompts of paper 2's figure 2, in our own words, and the thoughts to learn from.

    text       Somebody watches a video. / Words: <title #tags> / Interest: <its cluster> / A surprise to follow:
    video      Somebody watches a video. / Pictures: <soft tokens> / A surprise to follow:
    both       the two one after the other
    thought    as video, and then: / Seen: <what is seen> / About: <its cluster> / A surprise to follow:

After `Seen:` the model speaks for itself. A thought to learn from is derived from what is known of the item: its
hashtags and the words of its title are what is seen, its cluster at levels l - δ and l is what it is about. With a
larger model at hand, that one says what is seen. Words of others are data: they only ever fill their place.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

from byway.language import prompts as language
from byway.language.prompts import Ending, Prompt

Kind = Literal["text", "video", "both", "thought"]
SEES: tuple[Kind, ...] = ("video", "both", "thought")
"""Kinds that are shown pictures."""
OPENING = "Somebody watches a video.\n"
SHOWN = "Pictures:"
SEEN = "\nSeen:"
CUE = "A surprise to follow:"
ASKED_OF_A_PICTURE = "Say in a few words what is seen."
"""What a larger model is asked for a caption."""
CAPTION_TOKENS = 40
MOST_WORDS = 160
"""Characters of a title and its hashtags that are read."""


@dataclass(frozen=True, slots=True)
class Item:
    """What may be said of one context item."""

    title: str
    hashtags: tuple[str, ...]
    cluster: str
    """Description of its cluster at level l."""
    parent: str
    """Description of its cluster at level l - δ."""
    shown: str = ""
    """What a larger model says is seen in it, where one was asked."""


def one_line(text: str) -> str:
    """Text of others in one line: a line break would end its place."""
    return " ".join(text.split())[:MOST_WORDS]


def words(kind: Kind, item: Item) -> str:
    """What a prompt says of the item: its own words and its cluster (paper 2, figure 3: the cluster alone)."""
    if kind not in ("text", "both"):
        return ""
    tags = " ".join(f"#{tag}" for tag in item.hashtags)
    shown = f"Shown: {one_line(item.shown)}\n" if item.shown else ""
    return f"Words: {one_line(f'{item.title} {tags}')}\nInterest: {one_line(item.cluster)}\n{shown}"


def before(kind: Kind, item: Item) -> str:
    """The prompt up to where the pictures stand."""
    return OPENING + words(kind, item) + (SHOWN if kind in SEES else "")


def after(kind: Kind) -> str:
    """The prompt from the pictures to where the model speaks."""
    if kind == "thought":
        return SEEN
    return ("\n" if kind in SEES else "") + CUE


def thought(item: Item) -> str:
    """What there is to think: what is seen (else the item's own words) and what it is about."""
    own = one_line(item.shown) or one_line(", ".join(item.hashtags)) or one_line(item.title)
    return f" {own[:60]}\nAbout: {about(item)}\n"


def about(item: Item) -> str:
    """What an item is about, in the words of its clusters at level l - δ and at level l."""
    return f"{one_line(item.parent)}; {one_line(item.cluster)}"


ENDS_THOUGHT = 2
"""Line breaks in a thought; after the last of them the answer is asked for."""


def tokenise(names: list[str], tokenizer: Any) -> Prompt:
    """The legal answers over clusters called `names`; these prompts have no slots for clusters."""
    return replace(language.tokenise(names, 0, tokenizer, Ending("", CUE)), instruction=[])
