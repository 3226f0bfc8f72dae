"""Who may ask, how much and from where: scopes of tokens, limits, requests of other sites, time."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import unquote_to_bytes

import structlog
from litestar import Request
from litestar.connection import ASGIConnection
from litestar.datastructures import State
from litestar.exceptions import NotAuthorizedException, PermissionDeniedException, TooManyRequestsException
from litestar.handlers import BaseRouteHandler
from litestar.types import ASGIApp, Message, Receive, Send
from litestar.types import Scope as AsgiScope

from byway.serving import logs, meters, security
from byway.serving.history import Answered
from byway.serving.keyring import PLACES, Keyring
from byway.serving.messages import PROBLEM, Problem
from byway.serving.service import Service

log = structlog.get_logger()
SHOWN = "byway.shown"

Asking = Request[Any, Any, State]


def service_of(connection: ASGIConnection[Any, Any, Any, Any] | Request[Any, Any, Any]) -> Service:
    """The worker's state."""
    return connection.app.state.service


def needs(
    *scopes: security.Scope,
) -> Callable[[ASGIConnection[Any, Any, Any, Any], BaseRouteHandler], Awaitable[None]]:
    """A guard: the token has these scopes and an allowance left. Without any tokens everything is allowed."""

    # Not because it waits for anything: a plain function would be called in another thread.
    async def guard(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
        keyring: Keyring = connection.app.state.keyring
        if keyring.open:
            return
        kind, _, given = connection.headers.get("authorization", "").partition(" ")
        sent = given.strip() if kind.lower() == "bearer" else ""
        token = admitted(connection, sent, connection.cookies.get("byway", ""))
        if token is None:
            raise NotAuthorizedException("Send a known token: Authorization: Bearer ...")
        for scope in scopes:
            if scope not in token.scopes:
                raise PermissionDeniedException(f"This token lacks the scope {scope}.")
        state = connection.app.state
        wait = state.limits.wait(token.place % PLACES) or await state.allowances.wait(token.name)
        _refuse(wait, "Too many requests with this token.")

    return guard


def admitted(connection: ASGIConnection[Any, Any, Any, Any], sent: str, session: str = "") -> security.Token | None:
    """The token that was sent, or that a session stands for; None where it is not known.

    Raises TooManyRequestsException where this address has sent too many wrong ones: then none of its is looked at.
    """
    if not sent and not session:
        return None
    state = connection.app.state
    place = state.sessions.place(connection.client.host if connection.client else "")
    _refuse(state.wrong.wait(place, take=False), "Too many wrong tokens from this address.")
    known = state.keyring.known()
    token = known.get(security.digest(sent)) if sent else state.sessions.find(session, known)
    if token is None:
        state.wrong.wait(place)
    return token


def when_delivered(request: Asking) -> list[Answered]:
    """What the reply to this request shows: what is added counts as shown when the client has taken the reply."""
    return request.scope.setdefault(SHOWN, [])  # pyright: ignore


def _refuse(wait: float, why: str) -> None:
    if wait > 0:
        raise TooManyRequestsException(why, headers={"Retry-After": str(int(wait) + 1)})


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
            last = message["type"] == "http.response.body" and not message.get("more_body")
            shown: list[Answered] = scope.pop(SHOWN, []) if last else []  # pyright: ignore
            delivered = status == 200 and bool(shown) and not await _gone(receive)
            await send(message)
            for answered in shown:
                if delivered:
                    asked["litestar_app"].state.service.exposures.put(answered)
                else:
                    meters.exposures.labels("undelivered").inc()

        refusal = _foreign(scope, open_to_all)
        try:
            if not _is_text(scope["query_string"]):
                await _send(counted, 400, "The query is not UTF-8 text.")
            elif refusal:
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


async def _gone(receive: Receive) -> bool:
    """Whether the client has closed the connection. The request must have been read to its end."""
    asked = asyncio.ensure_future(receive())
    # Once for the loop to see what the socket says, once for the server to hear it.
    for _ in range(3):
        await asyncio.sleep(0)
    if not asked.done():
        asked.cancel()
        return False
    return asked.result()["type"] == "http.disconnect"


async def _send(send: Callable[[Any], Any], status: int, detail: str, *more: tuple[bytes, bytes]) -> None:
    body = Problem.body(status, detail)
    headers = [(b"content-type", PROBLEM.encode()), (b"content-length", str(len(body)).encode()), *more]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def _is_text(query: bytes) -> bool:
    try:
        unquote_to_bytes(query).decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _foreign(scope: Any, open_to_all: bool) -> str:
    """Why a request is refused as coming from somewhere else; empty where it is not.

    A page of another site may send forms here, and with a name that it makes point here it may read replies.
    """
    wanted = (b"host", b"origin", b"sec-fetch-site")
    headers = {name: value.decode("latin-1") for name, value in scope["headers"] if name in wanted}
    host = headers.get(b"host", "")
    name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
    if open_to_all and host and not security.is_loopback(name):
        return "Without tokens this service answers on the loopback alone."
    if scope["method"] in ("GET", "HEAD"):  # nothing is written by these
        return ""
    origin, site = headers.get(b"origin"), headers.get(b"sec-fetch-site", "none")
    # A neighbour of the same site is another site too.
    if site not in ("same-origin", "none") or (origin is not None and origin.partition("://")[2] != host):
        return "This request comes from a page of another site."
    return ""


LOG = "/v1/log"
