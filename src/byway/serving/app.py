"""The service over HTTP: routes, errors as problem details (RFC 9457), scopes, limits.

Owns what a request may look like and what is replied. What to reply is decided in `service`.
"""

import asyncio
import os
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import unquote_to_bytes

import structlog
from litestar import Litestar, Request, Response, delete, get, post
from litestar.datastructures import ResponseHeader, State
from litestar.exceptions import HTTPException, ValidationException
from litestar.openapi import ResponseSpec
from litestar.params import FromPath, JSONBody, QueryParameter
from litestar.response import Stream
from litestar.types import ASGIApp
from msgspec import Meta

from byway.base import config
from byway.serving import exports, history, hosts, meters, openapi, security
from byway.serving.guard import LOG, Asking, bounded, needs, service_of, when_delivered
from byway.serving.history import DAY, Event
from byway.serving.keyring import PLACES, Keyring, Sessions, Wrong
from byway.serving.messages import (
    PROBLEM,
    Alive,
    Cluster,
    Clusters,
    Deleted,
    EventIn,
    Explanation,
    Health,
    ItemFacts,
    Problem,
    RecommendRequest,
    Reply,
    ShownIn,
    Taken,
)
from byway.serving.readiness import NotReady, Readiness
from byway.serving.service import Service, guest, now, settle
from byway.serving.supervisor import Fleet

log = structlog.get_logger()

AHEAD = DAY
"""How far a client's clock may be before ours."""
EARLIEST = 10**14
"""March 1973: an earlier time is in seconds or milliseconds."""


def _documented(*statuses: int) -> dict[int, ResponseSpec]:
    titles = {
        400: "The request is not as documented.",
        401: "No known token.",
        403: "The token lacks the scope, or the request comes from another site.",
        404: "There is no such thing.",
        413: "The body is too large.",
        415: "The body is not JSON.",
        429: "Too many requests with this token.",
        503: "The history does not answer, or not in time.",
    }
    some = (400, 401, 403, 429, 503, *statuses)
    return {
        s: ResponseSpec(Problem, description=titles[s], media_type=PROBLEM, generate_examples=False) for s in some
    }


BURST = 400
"""Requests that one token may make at once."""
MAX_BODY = 1_000_000
"""Bytes of a request's body."""
BATCH = 100
"""Answers in one request."""
MAX_SECONDS = 10.0
"""A request that takes longer is ended."""
BODY = (413, 415)


@post("/v1/recommend", status_code=200, guards=[needs("read")], responses=_documented(*BODY), tags=["serving"])
async def recommend_(request: Asking, data: JSONBody[RecommendRequest]) -> Reply:
    """Items of an interest that is new to this person, and why."""
    _check(data)
    return await service_of(request).answer(data, shown=when_delivered(request))


def _check(asked: RecommendRequest) -> None:
    for met in asked.history or ():
        if met.time is not None and met.time < EARLIEST:
            raise ValidationException(f"{met.item!r} was met in 1973 or before; send microseconds.")


@post("/v1/events", status_code=200, guards=[needs("write")], responses=_documented(*BODY), tags=["serving"])
async def events_(
    request: Asking, data: JSONBody[EventIn | Annotated[list[EventIn], Meta(min_length=1, max_length=1000)]]
) -> Taken:
    """Take in one event or up to 1,000. When this replies they are stored, and count in the very next request."""
    at, events = now(), [data] if isinstance(data, EventIn) else data
    rows: list[Event] = []
    for e in events:
        time = at if e.time is None else e.time
        if time > at + AHEAD:
            raise ValidationException(f"Event {e.event!r} lies more than a day ahead; send microseconds.")
        if time < EARLIEST:
            raise ValidationException(f"Event {e.event!r} lies in 1973 or before; send microseconds.")
        rows.append(Event(e.event, e.user, e.item, time, e.satisfaction, e.watch_seconds, e.source, e.answer))
    return await service_of(request).store(rows)


@post("/v1/shown", status_code=204, guards=[needs("write")], responses=_documented(*BODY), tags=["serving"])
async def shown_(request: Asking, data: JSONBody[ShownIn]) -> None:
    """Say that an answer was shown: only then it counts where `serving.exposures` is "confirmed"."""
    await service_of(request).history.confirm(data.user or guest(data.answer), data.answer)


@post(
    "/v1/recommend:batch", status_code=200, guards=[needs("read")], responses=_documented(*BODY), tags=["serving"]
)
async def recommend_batch(request: Asking, data: JSONBody[list[RecommendRequest]]) -> list[Reply]:
    """Up to 100 answers at once, in order, each as if asked for alone."""
    if not 1 <= len(data) <= BATCH:
        raise ValidationException(f"Send a list of 1 to {BATCH} requests.")
    replies: list[Reply] = []
    for one in data:
        _check(one)
    for one in data:
        replies.append(await service_of(request).answer(one, shown=when_delivered(request)))
        await asyncio.sleep(0)  # others are answered between two
    return replies


UserQuery = Annotated[str, QueryParameter(min_length=1, max_length=256)]


@get("/v1/explain", guards=[needs("read")], responses=_documented(), tags=["serving"])
async def explain_(
    request: Asking,
    user: UserQuery,
    context: Annotated[str | None, QueryParameter(min_length=1, max_length=256)] = None,
) -> Explanation:
    """What an answer to this user is drawn from: interests, pairs and where they lead, with their chances."""
    return await service_of(request).explain(user, context)


@get("/v1/clusters", guards=[needs("read")], responses=_documented(), tags=["catalog"])
async def clusters_(
    request: Asking,
    q: Annotated[str, QueryParameter(max_length=256)] = "",
    offset: Annotated[int, QueryParameter(ge=0, le=1_000_000)] = 0,
    limit: Annotated[int, QueryParameter(ge=1, le=1000)] = 100,
) -> Clusters:
    """The clusters of the planning level whose description holds `q`."""
    opened = service_of(request).live.bundle
    names = opened.manifest.names
    found = [c for c, name in enumerate(names) if q.casefold() in name.casefold()]
    shown: list[Cluster] = []
    for c in found[offset : offset + limit]:
        start, stop = opened.span(c)
        leads = [names[n] for n in opened.table[c, c].tolist()[:5] if n >= 0]
        shown.append(Cluster(c, names[c], stop - start, float(opened.traffic[start:stop].sum()), leads))
    return Clusters(len(found), shown)


@get("/v1/items/{item:path}", guards=[needs("read")], responses=_documented(404), tags=["catalog"])
async def item_(request: Asking, item: FromPath[str]) -> ItemFacts:
    """What is known of an item."""
    opened = service_of(request).live.bundle
    position = opened.position(_as_sent(request, "/v1/items/", item))
    if position is None:
        raise HTTPException("The catalog has no item of this id.", status_code=404)
    p = position
    return ItemFacts(
        opened.ids[p],
        opened.titles[p],
        opened.thumbnails[p],
        opened.manifest.names[opened.cluster(p)],
        float(opened.traffic[p]),
        round(float(opened.quality[p]), 6),
    )


@delete("/v1/users/{user:path}", status_code=200, guards=[needs("admin")], responses=_documented(), tags=["people"])
async def forget_(request: Asking, user: FromPath[str]) -> Deleted:
    """Delete everything of a user: history and log. Nothing knows of it when this replies.

    What is left of it in the history's files is overwritten soon after.
    """
    return Deleted(await service_of(request).delete(_as_sent(request, "/v1/users/", user)))


def _as_sent(request: Asking, before: str, routed: str) -> str:
    """The id at the end of a path as it was sent: what was routed has lost slashes that are doubled or last."""
    raw = request.scope.get("raw_path") or b""
    path = unquote_to_bytes(raw.partition(b"?")[0]).decode("utf-8")
    return path.removeprefix(before) if path.startswith(before) else routed.removeprefix("/")


@get(LOG, guards=[needs("admin")], responses=_documented(), tags=["people"], media_type="text/csv")
async def log_(
    request: Asking,
    after: Annotated[str, QueryParameter(max_length=1400)] = "",
    limit: Annotated[int | None, QueryParameter(ge=1, le=1_000_000)] = None,
) -> Response[Any]:
    """The log as a table of events (CSV) that the next `byway run` reads: every exposure, with what came of it.

    With a `limit` it comes in pages of whole people, of at least so many rows; the header `Byway-Next` is the
    `after` of the next page, and is missing on the last.
    """
    service = service_of(request)
    try:
        from_user = exports.user_of(after)
    except ValueError as error:
        raise ValidationException("`after` is not a value of the header Byway-Next.") from error
    if limit is not None:
        body, last = await exports.page(service, from_user, limit)
        headers = {"Byway-Next": exports.cursor(last)} if last else {}
        return Response(body, media_type="text/csv", headers=headers)

    async def lines() -> AsyncIterator[bytes]:
        yield exports.HEAD
        async for _, _, text in exports.pieces(service, from_user):
            yield text

    return Stream(lines(), media_type="text/csv")


@get("/healthz", tags=["health"])
async def healthz() -> Alive:
    """Whether the process runs."""
    return Alive()


NOT_READY = {503: ResponseSpec(Problem, description="Not ready.", media_type=PROBLEM, generate_examples=False)}


@get("/readyz", tags=["health"], responses=NOT_READY)
async def readyz(request: Asking) -> Health:
    """Whether the process can answer and goes on to: a bundle is open, and the history is read and written."""
    readiness: Readiness = request.app.state.readiness
    return await readiness.health()


@get("/metrics", guards=[needs("read")], media_type="text/plain", responses=_documented(), tags=["health"])
async def metrics_(request: Asking) -> Response[bytes]:
    """Counts and times in the Prometheus text format."""
    facts = request.app.state.readiness.facts()
    return Response(meters.exposition(facts), media_type="text/plain; version=0.0.4")


def problem(status: int, detail: str, headers: dict[str, str] | None = None) -> Response[bytes]:
    """A reply that says what went wrong."""
    return Response(Problem.body(status, detail), status_code=status, media_type=PROBLEM, headers=headers)


def _not_ready(_: Request[Any, Any, Any], error: NotReady) -> Response[Any]:
    log.warning("not ready", reason=str(error))
    return problem(503, str(error), {"Retry-After": "1"})


def _unavailable(_: Request[Any, Any, Any], error: history.Unavailable) -> Response[Any]:
    log.error("history unavailable", reason=str(error))
    return problem(503, "The history does not answer; try again.", {"Retry-After": "1"})


def _route(request: Request[Any, Any, Any]) -> str:
    """The route, and not the path: that may hold somebody's name."""
    return request.scope.get("path_template") or "unmatched"


def _refused(request: Request[Any, Any, Any], error: HTTPException) -> Response[Any]:
    headers = dict(error.headers or {})
    if error.status_code == 401:
        headers["WWW-Authenticate"] = "Bearer"
        if request.method == "GET" and "text/html" in request.headers.get("accept", ""):
            return Response(b"", status_code=303, headers={"Location": "/sign-in"})
    if error.status_code >= 500:
        log.error("request failed", route=_route(request), reason=error.detail)
        return problem(error.status_code, "The service could not do this.", headers)
    extra = error.extra if isinstance(error.extra, list) else []
    # Of a list Litestar says no place.
    place = re.search(r"`\$\.(data\[.+)`$", str(error.__cause__))
    said = "; ".join(
        f"{place[1] if place else e.get('key', '')}: {e.get('message', '')}" for e in extra if isinstance(e, dict)
    )
    return problem(error.status_code, " ".join(filter(None, (error.detail, said))), headers)


def _broken(request: Request[Any, Any, Any], error: Exception) -> Response[Any]:
    log.exception("request failed", route=_route(request), exc_info=error)
    return problem(500, "The service could not do this.")


CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


def create(workspace: Path, settings: config.Serving, keyring: Keyring, fleet: Fleet | None = None) -> ASGIApp:
    """The application for one worker of a `fleet`."""
    from byway.serving import web

    @asynccontextmanager
    async def life(app: Litestar) -> AsyncGenerator[None]:
        service = Service(workspace, settings)
        app.state.service = service
        app.state.readiness = Readiness(service, fleet or Fleet())
        (workspace / "serving").mkdir(exist_ok=True)
        limits = security.Limits(workspace / "serving" / "limits.bin", PLACES, settings.rate, BURST)
        app.state.limits, app.state.wrong = limits, Wrong(workspace / "serving")
        app.state.sessions = Sessions(workspace / "serving")
        app.state.allowances = hosts.Allowances(settings.history, settings.rate, BURST)
        work = (service.follow(), service.hear(), service.tidy(), service.scrub(), service.exposures.run())
        tasks = [asyncio.create_task(each) for each in work]
        settle()
        log.info("worker ready", process=os.getpid(), bundle=service.live.name)
        try:
            yield
        finally:
            await service.close(tasks)
            await app.state.allowances.close()
            limits.close()
            app.state.wrong.close()

    app = Litestar(
        route_handlers=[
            recommend_,
            recommend_batch,
            events_,
            shown_,
            explain_,
            clusters_,
            item_,
            forget_,
            log_,
            healthz,
            readyz,
            metrics_,
            *web.HANDLERS,
        ],
        lifespan=[life],
        state=State({"keyring": keyring}),
        exception_handlers={
            HTTPException: _refused,
            history.Unavailable: _unavailable,
            NotReady: _not_ready,
            # Brackets in brackets by the thousand: the decoder gives up on them.
            RecursionError: lambda *_: problem(400, "The body is nested too deeply."),
            UnicodeDecodeError: lambda *_: problem(400, "The request is not UTF-8 text."),
            Exception: _broken,
        },
        request_max_body_size=MAX_BODY,
        openapi_config=openapi.configured(keyring.open),
        response_headers=[
            ResponseHeader(name="X-Content-Type-Options", value="nosniff", documentation_only=False),
            # Not no-referrer: with that browsers send forms of our own pages as from nowhere.
            ResponseHeader(name="Referrer-Policy", value="same-origin", documentation_only=False),
            ResponseHeader(name="Content-Security-Policy", value=CSP, documentation_only=False),
        ],
        logging_config=None,
    )
    return bounded(app, MAX_SECONDS, keyring.open, settings.access_log)
