"""What a request may look like, and what is replied. What each field means stands in `openapi.FIELDS`."""

import http
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

    @classmethod
    def body(cls, status: int, detail: str) -> bytes:
        """The body of a reply of this status."""
        return msgspec.json.encode(cls(http.HTTPStatus(status).phrase, status, detail))


class Met(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One item of a history."""

    item: Id
    time: Micros | None = None
    satisfaction: Share = 1.0


class RecommendRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who is asking, and for what. With neither user nor history: what is popular."""

    user: Id | None = None
    history: Annotated[list[Met], Meta(max_length=500)] | None = None
    k: Annotated[int, Meta(ge=1, le=100)] | None = None
    context: Id | None = None
    mix: Share = 1.0
    exclude: Annotated[list[Id], Meta(max_length=500)] = []
    watching: Id | None = None
    """Where what is seen in it leads nowhere it is `context`."""


Strategy = Literal[
    "person", "table", "popular_cluster", "unrestricted", "popular_items", "context", "masked", "control"
]  # fmt: skip
"""How the answer was found."""
MEANING: dict[Strategy, str] = {
    "person": "the best items of interests that are new to this person, by all that is known of them",
    "table": "the first interest in the pair's ranking that is new to this person and has items left",
    "context": "a surprise after the item that is being watched",
    "masked": "an arm of an experiment: the item model, known interests hidden",
    "control": "an arm of an experiment: nothing",
    "popular_cluster": "none such in the ranking: the new interest that most people turned to",
    "unrestricted": "no interest is new: the item model over the whole catalog",
    "popular_items": "nothing is known of the person: popular items, one an interest",
}


class Item(msgspec.Struct, frozen=True):
    """One item of an answer, with why it stands there and how likely that was."""

    item: str
    title: str
    thumbnail: str
    cluster: str
    interests: list[str]
    found_by: str
    propensity: float
    experiment: str
    score: float


class Reply(msgspec.Struct, frozen=True):
    """An answer."""

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
    share: float = 1.0


class Next(msgspec.Struct, frozen=True):
    """A cluster that an answer can lead to."""

    cluster: str
    chance: float
    pairs: list[list[str]]
    """At most ten."""


class Interest(msgspec.Struct, frozen=True):
    """A recent interest."""

    cluster: str
    weight: float


class Explanation(msgspec.Struct, frozen=True):
    """Everything that an answer to this history is drawn from."""

    interests: list[Interest]
    next: list[Next]
    reasons: list[str]


class ShownIn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An answer was shown to a person."""

    answer: Annotated[str, Meta(min_length=1, max_length=64)]
    user: Id | None = None
    """Without one the answer was for a guest."""


class EventIn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A person met an item."""

    event: Id
    user: Id
    item: Id
    time: Micros | None = None
    satisfaction: Share = 1.0
    watch_seconds: Annotated[float, Meta(ge=0, le=1e9)] | None = None
    source: Annotated[str, Meta(max_length=256)] = ""
    answer: Annotated[str, Meta(max_length=64)] = ""


class Taken(msgspec.Struct, frozen=True):
    """What became of the events that were sent."""

    stored: int
    known: int
    expired: int


class Deleted(msgspec.Struct, frozen=True):
    """How much is gone."""

    deleted: int


class Cluster(msgspec.Struct, frozen=True):
    """A cluster of the planning level."""

    cluster: int
    description: str
    items: int
    traffic: float
    next: list[str]
    """For somebody with this interest alone."""


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


class Alive(msgspec.Struct, frozen=True):
    """That a process runs."""

    status: str = "ok"


class Health(msgspec.Struct, frozen=True):
    """How a worker is."""

    status: str
    bundle: str = ""
    workers: int = 1
    wanted: int = 1
    problems: list[str] = []
