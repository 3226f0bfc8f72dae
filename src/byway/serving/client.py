"""A client of the service for a backend in Python: typed requests and replies, one connection that is kept.

It needs nothing but msgspec. One `Client` is for one thread.
"""

import http.client
from collections.abc import Sequence
from typing import Any, Self, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from byway.serving.messages import (
    PROBLEM,
    Clusters,
    Deleted,
    EventIn,
    Explanation,
    ItemFacts,
    Problem,
    RecommendRequest,
    Reply,
    ShownIn,
    Taken,
)

T = TypeVar("T")


class Refused(Exception):
    """The service did not do it; `status` is HTTP's, the text says why. 429 and 503 can be tried again."""

    def __init__(self, status: int, detail: str):
        super().__init__(f"{status}: {detail}")
        self.status = status


class Client:
    """The service at `url`. What was sent and not answered is sent once more over a new connection: nothing that is
    sent does harm twice. Raises Refused, and OSError where nobody answers within `timeout` seconds."""

    def __init__(self, url: str = "http://127.0.0.1:8000", token: str = "", timeout: float = 5.0):
        at = urlsplit(url)
        kind = http.client.HTTPSConnection if at.scheme == "https" else http.client.HTTPConnection
        self._connection, self._path = kind(at.hostname or "", at.port, timeout=timeout), at.path.rstrip("/")
        self._headers = {"Content-Type": "application/json"} | (
            {"Authorization": f"Bearer {token}"} if token else {}
        )

    def recommend(self, request: RecommendRequest) -> Reply:
        """New interests for one person."""
        return self._ask("POST", "/v1/recommend", Reply, request)

    def recommend_many(self, requests: Sequence[RecommendRequest]) -> list[Reply]:
        """Up to 100 answers, in order."""
        return self._ask("POST", "/v1/recommend:batch", list[Reply], requests)

    def events(self, events: Sequence[EventIn]) -> Taken:
        """Hand in up to 1,000 events. They are stored when this returns."""
        return self._ask("POST", "/v1/events", Taken, events)

    def shown(self, answer: str, user: str | None = None) -> None:
        """Say that an answer was seen (`serving.exposures = "confirmed"`)."""
        self._ask("POST", "/v1/shown", type(None), ShownIn(answer, user))

    def explain(self, user: str) -> Explanation:
        """What this user's answers are drawn from."""
        return self._ask("GET", "/v1/explain?" + urlencode({"user": user}), Explanation)

    def clusters(self, q: str = "", offset: int = 0, limit: int = 100) -> Clusters:
        """The clusters whose description holds `q`."""
        query = urlencode({"q": q, "offset": offset, "limit": limit})
        return self._ask("GET", "/v1/clusters?" + query, Clusters)

    def item(self, item: str) -> ItemFacts:
        """What is known of an item."""
        return self._ask("GET", "/v1/items/" + quote(item, safe=""), ItemFacts)

    def forget(self, user: str) -> Deleted:
        """Delete everything of a user."""
        return self._ask("DELETE", "/v1/users/" + quote(user, safe=""), Deleted)

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, method: str, path: str, kind: type[T], body: Any = None) -> T:
        sent = None if body is None else msgspec.json.encode(body)
        kept = self._connection.sock is not None
        try:
            status, media, given = self._send(method, path, sent)
        except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
            if not kept:
                raise
            status, media, given = self._send(method, path, sent)
        if status >= 400:
            known = media.startswith(PROBLEM)
            raise Refused(status, msgspec.json.decode(given, type=Problem).detail if known else "")
        return msgspec.json.decode(given or b"null", type=kind)

    def _send(self, method: str, path: str, sent: bytes | None) -> tuple[int, str, bytes]:
        try:
            self._connection.request(method, self._path + path, sent, self._headers)
            reply = self._connection.getresponse()
            return reply.status, reply.headers.get("Content-Type", ""), reply.read()
        except (OSError, http.client.HTTPException):
            self._connection.close()
            raise
