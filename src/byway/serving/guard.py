"""Who may ask, how much and from where: scopes of tokens, limits, requests of other sites, time."""

import asyncio
import http
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import structlog
from litestar import Request
from litestar.connection import ASGIConnection
from litestar.datastructures import State
from litestar.exceptions import (
    NotAuthorizedException,
    PermissionDeniedException,
    TooManyRequestsException,
)
from litestar.handlers import BaseRouteHandler
from litestar.types import ASGIApp, Message, Receive, Send
from litestar.types import Scope as AsgiScope

from byway.serving import logs, meters, security
from byway.serving.messages import PROBLEM, Problem
from byway.serving.service import Service

log = structlog.get_logger()

Asking = Request[Any, Any, State]


def service_of(connection: ASGIConnection[Any, Any, Any, Any] | Request[Any, Any, Any]) -> Service:
    """The worker's state."""
    return connection.app.state.service


def needs(
    scope: security.Scope,
) -> Callable[[ASGIConnection[Any, Any, Any, Any], BaseRouteHandler], Awaitable[None]]:
    """A guard: the token has this scope and an allowance left. Without any tokens everything is allowed."""

    # Not because it waits for anything: a plain function would be called in another thread.
    async def guard(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
        known: dict[bytes, security.Token] = connection.app.state.tokens
        if not known:
            return
        kind, _, given = connection.headers.get("authorization", "").partition(" ")
        given = given.strip() if kind.lower() == "bearer" else connection.cookies.get("byway", "")
        token = known.get(security.digest(given))
        if token is None:
            raise NotAuthorizedException("Send a known token: Authorization: Bearer ...")
        if scope not in token.scopes:
            raise PermissionDeniedException(f"This token lacks the scope {scope}.")
        wait = connection.app.state.limits.wait(token.place)
        if wait > 0:
            headers = {"Retry-After": str(int(wait) + 1)}
            raise TooManyRequestsException("Too many requests with this token.", headers=headers)

    return guard


def bounded(inner: ASGIApp, seconds: float, open_to_all: bool, access_log: bool = False) -> ASGIApp:
    """Around everything: time, counts, ids, the log, and what a browser on another site may not do."""

    async def app(scope: AsgiScope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await inner(scope, receive, send)
            return
        started, status = time.perf_counter(), 0
        limit = asyncio.timeout(seconds)
        named, back = logs.ids(scope["headers"])
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(**named)
        method = scope["method"]
        # A HEAD is a GET of which the server sends the head.
        asked: Any = {**scope, "method": "GET"} if method == "HEAD" else scope

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [*message["headers"], *back]
                if not any(name.lower() == b"cache-control" for name, _ in headers):
                    headers.append((b"cache-control", b"no-store"))
                message = {**message, "headers": headers}
            elif method == "HEAD" and message["type"] == "http.response.body":
                message = {**message, "body": b""}
            elif asked.get("path_template") == LOG and message.get("more_body") and limit.when() is not None:
                limit.reschedule(None)  # however long it is, it is read to its end
            await send(message)

        refusal = _foreign(scope, open_to_all)
        try:
            if refusal:
                await _send(counted, 403, refusal)
            elif method == "OPTIONS":
                # Nothing is shared with other sites, and which routes there are is in the schema.
                await _send(
                    counted, 405, "This service has no use for OPTIONS.", (b"allow", b"GET, HEAD, POST, DELETE")
                )
            else:
                async with limit:
                    await inner(asked, receive, counted)
        except TimeoutError:
            if status:
                raise
            await _send(counted, 503, f"This took longer than {seconds:g} seconds.")
        finally:
            route = asked.get("path_template") or "unmatched"
            took = time.perf_counter() - started
            meters.requests.labels(route, method, str(status)).inc()
            meters.seconds.labels(route).observe(took)
            if access_log:
                log.info("request", method=method, route=route, status=status, ms=round(took * 1e3, 3))

    return app


async def _send(send: Callable[[Any], Any], status: int, detail: str, *more: tuple[bytes, bytes]) -> None:
    body = msgspec.json.encode(Problem(http.HTTPStatus(status).phrase, status, detail))
    headers = [(b"content-type", PROBLEM.encode()), (b"content-length", str(len(body)).encode()), *more]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def _foreign(scope: Any, open_to_all: bool) -> str:
    """Why a request is refused as coming from somewhere else; empty where it is not.

    A page of another site may send forms here, and with a name that it makes point here it may read replies.
    """
    headers = {name: value.decode("latin-1") for name, value in scope["headers"] if name in (b"host", b"origin")}
    host = headers.get(b"host", "")
    name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
    if open_to_all and host and not security.is_loopback(name):
        return "Without tokens this service answers on the loopback alone."
    origin = headers.get(b"origin")
    if origin is not None and scope["method"] not in ("GET", "HEAD") and origin.partition("://")[2] != host:
        return "This request comes from a page of another site."
    return ""


LOG = "/v1/log"
