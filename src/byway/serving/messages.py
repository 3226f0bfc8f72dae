"""What a request may look like, and what is replied."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Id = Annotated[str, Meta(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f-\x9f]+(?!\n)$")]


Share = Annotated[float, Meta(ge=0, le=1)]


Micros = Annotated[int, Meta(ge=0, le=2**53)]


PROBLEM = "application/problem+json"
"""The media type of an error."""


class Problem(msgspec.Struct, frozen=True):
    """What went wrong, as RFC 9457 has it."""

    title: str
    status: int
    detail: str
    type: str = "about:blank"


class Met(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One item of a history, the most recent last."""

    item: Id
    time: Micros | None = None
    """Microseconds since 1970."""
    satisfaction: Share = 1.0


class RecommendRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who is asking, and for what. With neither user nor history the answer is what is popular."""

    user: Id | None = None
    """Whose stored history counts; exposures are logged under this name."""
    history: Annotated[list[Met], Meta(max_length=500)] | None = None
    """Taken instead of the stored history."""
    k: Annotated[int, Meta(ge=1, le=100)] | None = None
    """Items in the answer."""
    context: Id | None = None
    """The item being watched, as the last of the interests that are looked up; without it the surface is the home
    page."""
    mix: Share = 1.0
    """Share of the k places that explore."""
    exclude: Annotated[list[Id], Meta(max_length=500)] = []
    """Items that are not to be shown."""
    watching: Id | None = None
    """The item being watched, where what is seen in it should lead on; where it leads nowhere it is `context`."""


Strategy = Literal[
    "person", "table", "popular_cluster", "unrestricted", "popular_items", "context", "masked", "control"
]  # fmt: skip
"""How the answer was found, from the first choice to the last resort:

`person`: the items of new interests that score highest by all that is known of somebody (`serving.plan`);
`table`: the first cluster in the pair's ranking that is novel to this person and has enough unseen items;
`popular_cluster`: no such cluster in the ranking, so the one most people turned to, with the same two conditions;
`unrestricted`: every cluster is known or used up, so the item policy over the whole catalog;
`popular_items`: nothing is known of the person, so the most popular items, at most one a cluster;
`context`: the item being watched led there (`serving.context`);
`masked`, `control`: what two arms of a live experiment show (`serving.arms`), the second nothing.
"""


class Item(msgspec.Struct, frozen=True):
    """One item of a reply, with why it stands there and how likely that was."""

    item: str
    title: str
    thumbnail: str
    cluster: str
    interests: list[str]
    arm: str
    propensity: float
    experiment: str
    score: float


class Reply(msgspec.Struct, frozen=True):
    """An answer. `answer` is the id under which its exposures are logged; name it in the events that follow."""

    answer: str
    experiment: str
    bundle: str
    strategy: Strategy
    interests: list[str]
    cluster: str | None
    rank: int | None
    reasons: list[str]
    items: list[Item]
    arm: str = ""
    """Of a live experiment of one's own, to which the user was dealt; empty without one."""
    share: float = 1.0
    """The chance to be dealt to that arm."""


class Next(msgspec.Struct, frozen=True):
    """A cluster that an answer can lead to."""

    cluster: str
    chance: float
    pairs: list[list[str]]
    """The pairs (or triples) of interests that lead there, the likeliest first; at most ten."""


class Interest(msgspec.Struct, frozen=True):
    """A recent interest."""

    cluster: str
    weight: float
    """Share of the draw."""


class Explanation(msgspec.Struct, frozen=True):
    """Everything that an answer to this history is drawn from."""

    interests: list[Interest]
    next: list[Next]
    reasons: list[str]


class ShownIn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An answer was shown to a person."""

    answer: Annotated[str, Meta(min_length=1, max_length=64)]
    """Its id."""
    user: Id | None = None
    """For whom it was asked; without one it was for a guest."""


class EventIn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A person met an item."""

    event: Id
    """Sent again under the same id and user, an event changes nothing."""
    user: Id
    item: Id
    time: Micros | None = None
    """Microseconds since 1970; now where it is not given. At most a day ahead."""
    satisfaction: Share = 1.0
    """How content; 0 is a skip."""
    watch_seconds: Annotated[float, Meta(ge=0, le=1e9)] | None = None
    source: Annotated[str, Meta(max_length=256)] = ""
    answer: Annotated[str, Meta(max_length=64)] = ""
    """Id of the answer that showed the item."""


class Taken(msgspec.Struct, frozen=True):
    """What became of the events that were sent."""

    stored: int
    known: int
    expired: int


class Deleted(msgspec.Struct, frozen=True):
    """How many events and answers are gone."""

    deleted: int


class Cluster(msgspec.Struct, frozen=True):
    """A cluster of the planning level."""

    cluster: int
    description: str
    items: int
    traffic: float
    next: list[str]
    """Where somebody with this interest alone is led, the likeliest first."""


class Clusters(msgspec.Struct, frozen=True):
    """A page of clusters."""

    total: int
    clusters: list[Cluster]


class ItemFacts(msgspec.Struct, frozen=True):
    """What is known of an item."""

    item: str
    title: str
    thumbnail: str
    cluster: str
    traffic: float
    quality: float


class Health(msgspec.Struct, frozen=True):
    """How a worker is."""

    status: str
    bundle: str = ""
    workers: int = 1
    """Processes that answer."""
    wanted: int = 1
    """Processes that should."""
    problems: list[str] = []
    """What is wrong, though requests are answered."""
