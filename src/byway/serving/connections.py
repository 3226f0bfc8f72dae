"""One connection to a worker, within bounds: what a head may hold and how long anything may take.

Owns what uvicorn leaves open: with httptools it bounds neither the head nor the time until one is read, and no
connection is closed while somebody else needs its descriptor. What is not about HTTP/1.1 on a socket is `guard`'s.
Granian has the first two as settings and was as fast; under it one worker that fails twice ends the service.
"""

import asyncio
import heapq
import http
import resource
from typing import Any

import structlog
import uvicorn
from litestar.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from byway.serving import meters
from byway.serving.messages import PROBLEM, Problem

HEAD_BYTES = 32_768
"""Bytes of a request's line and headers."""
HEAD_FIELDS = 100
"""Headers of a request."""
HEAD_SECONDS = 10.0
"""From a connection, or the first byte of a later request on it, to the end of the head."""
MESSAGE_BYTES = 4_000_000
"""Bytes of a whole request on the wire: a body that is refused for its size is read so far and no further."""
STALLED_SECONDS = 30.0
"""How long somebody may not read what is sent."""
FLUSH_SECONDS = 5.0
"""How long a connection that is closed may take for what is still to be sent."""
CONNECTIONS = 4000
"""Connections of one worker, where its descriptors allow as many."""
SPARE = 128
"""Descriptors that are kept for files."""

log = structlog.get_logger()


def room() -> int:
    """How many connections this process may have; it takes as many descriptors as it is allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS + SPARE
    if soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return max(min(CONNECTIONS, soft - SPARE), 16)


class Connection(HttpToolsProtocol):
    """A protocol for uvicorn: its own on httptools, with bounds."""

    limit = CONNECTIONS

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a head."""
        super().connection_made(transport)
        self._head_read, self._whole = False, True
        self._taken, self._refusal = 0, 400
        self._since = self.loop.time()
        self._deadline: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None
        if len(self.connections) > self.limit:
            make_room(self.connections)
        self._await_rest()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        for timer in (self._deadline, self._stalled):
            if timer is not None:
                timer.cancel()

    @property
    def waiting(self) -> float | None:
        """Since when it waits for a request, in the loop's time; None while one is answered."""
        cycle: Any = self.cycle  # None before the first request, whatever its annotation says
        return self._since if cycle is None or cycle.response_complete else None

    def data_received(self, data: bytes) -> None:
        """Read on, within the bounds of the head and of the whole."""
        self._taken += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._taken > (MESSAGE_BYTES if self._head_read else HEAD_BYTES):
            self._refuse(413 if self._head_read else 431, "large")
        elif self.waiting is not None and self._deadline is None:
            self._await_rest()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head_read, self._whole, self._taken = False, False, 0

    def on_headers_complete(self) -> None:
        """Start the request, unless its head is too large: what arrives at once was not counted until now."""
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > HEAD_BYTES or len(self.headers) > HEAD_FIELDS:
            self._refusal = 431
            raise ValueError("the head is too large")
        self._head_read = True
        super().on_headers_complete()
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._head_read, self._whole, self._taken = False, True, 0

    def on_response_complete(self) -> None:
        """Wait for the next request, or for the rest of this one where it was answered before it was whole."""
        super().on_response_complete()
        self._since = self.loop.time()
        if not self._whole and not self.transport.is_closing():
            self._await_rest()

    def pause_writing(self) -> None:
        """Nobody reads what is sent; not for ever."""
        super().pause_writing()
        self._stalled = self.loop.call_later(STALLED_SECONDS, self._drop, "stalled")

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def timeout_keep_alive_handler(self) -> None:
        """Close, whether or not what was sent is read."""
        super().timeout_keep_alive_handler()
        self.loop.call_later(FLUSH_SECONDS, self.transport.abort)

    def send_400_response(self, msg: str) -> None:
        """What the parser refuses, in the form of every other error."""
        self._refuse(self._refusal, "malformed" if self._refusal == 400 else "large")

    def _await_rest(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_SECONDS, self._late)

    def _late(self) -> None:
        self._deadline = None
        if self.waiting is None or self.transport.is_closing():
            return
        if self._whole and not self._taken:
            self._drop("late")
        else:
            self._refuse(408, "late")

    def _drop(self, reason: str) -> None:
        meters.dropped.labels(reason).inc()
        self.transport.abort()

    def _refuse(self, status: int, reason: str) -> None:
        meters.dropped.labels(reason).inc()
        details = {
            400: "This is no HTTP request.",
            408: f"The request was not whole after {HEAD_SECONDS:g} seconds.",
            413: "The body is too large.",
            431: f"The head may have {HEAD_BYTES} bytes and {HEAD_FIELDS} headers.",
        }
        body = Problem.body(status, details[status])
        # Where an answer is under way this would stand in the middle of it.
        if self.waiting is not None:
            head = (
                f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}\r\n"
                f"content-type: {PROBLEM}\r\ncontent-length: {len(body)}\r\n"
                "cache-control: no-store\r\nconnection: close\r\n\r\n"
            )
            self.transport.write(head.encode() + body)
        self.transport.close()
        self.loop.call_later(FLUSH_SECONDS, self.transport.abort)


def make_room(connections: set[Any]) -> None:
    """Drop the twentieth part of the connections that has waited longest for a request."""
    idle = [(c.waiting, id(c), c) for c in connections if c.waiting is not None]
    gone = heapq.nsmallest(max(len(connections) // 20, 1), idle)
    for _, _, connection in gone:
        connections.discard(connection)
        connection._drop("room")
    log.warning("connections dropped to make room", dropped=len(gone), left=len(connections))


def configured(made: ASGIApp) -> uvicorn.Config:
    """How an application is served here."""
    return uvicorn.Config(
        made,
        http=Connection,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=10,
        backlog=1024,
    )
