"""The pages: walk, atlas, health, experiment. Rendered here, served by the same process, with nothing from outside.

Owns what a page shows. Titles, descriptions and users are other people's words: the templates escape all of them,
and what goes to the plots is escaped as well, since those read some markup.
"""

import importlib.util
import secrets
import zlib
from functools import cache
from html import escape
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import numpy as np
from jinja2 import Environment, FileSystemLoader, select_autoescape
from litestar import Request, Response, get, post
from litestar.datastructures import State
from litestar.exceptions import NotFoundException, ValidationException
from litestar.params import FromPath, FromQuery, QueryParameter, URLEncodedBody

from byway.serving import arms, exports, history, meters
from byway.serving.guard import Asking, admitted, needs, service_of, when_delivered
from byway.serving.history import Event
from byway.serving.keyring import HOURS
from byway.serving.messages import MEANING, RecommendRequest
from byway.serving.service import Live, Service, now

PAGES = Path(__file__).parent / "pages"
K = 6
"""Items on a page."""
FALLBACKS = ("popular_cluster", "unrestricted", "popular_items")
PLOTLY = "plotly.min.js"
"""The script that draws; its package is the extra `pages`."""
TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}

Form = URLEncodedBody[dict[str, Any]]
Word = Annotated[str, QueryParameter(max_length=256)]

_templates = Environment(loader=FileSystemLoader(PAGES), autoescape=select_autoescape(default=True))
_templates.filters["hue"] = lambda text: zlib.crc32(str(text).encode("utf-8", "replace")) % 360
_templates.filters["initial"] = lambda text: next((c.upper() for c in str(text) if c.isalnum()), "·")


def _page(request: Asking, template: str, **given: Any) -> Response[str]:
    drawn = PLOTLY in _files()
    given = {"live": service_of(request).live, "here": request.url.path, "drawn": drawn} | given
    return Response(_templates.get_template(template).render(given), media_type="text/html")


def _see(path: str) -> Response[bytes]:
    return Response(b"", status_code=303, headers={"Location": path})


# Walk


@get("/", guards=[needs("read")], include_in_schema=False)
async def walk(request: Asking, user: Word = "") -> Response[str]:
    """Pick or make a person, or the first step of one."""
    service = service_of(request)
    if user:
        # A page that is merely opened writes nothing: a link on another site may open it.
        return _page(request, "walk.html", user=user, **await _step(service, user, []))
    names = service.live.bundle.manifest.names
    some = service.rng.permutation(len(names))[:18].tolist()
    offered = sorted(((c, names[c]) for c in some), key=lambda pair: pair[1])
    return _page(request, "walk.html", offered=offered, users=await service.history.recent_users(12))


@post("/walk/next", status_code=200, guards=[needs("read")], include_in_schema=False)
async def walk_next(request: Asking, data: Form) -> Response[Any]:
    """Another draw for the same person, which is logged as shown."""
    return await _next(request, _named(data, "user"))


@post("/walk/make", guards=[needs("write")], include_in_schema=False)
async def walk_make(request: Asking, data: Form) -> Response[bytes]:
    """Make a person who has met a few popular items of the ticked interests."""
    service = service_of(request)
    opened, at = service.live.bundle, now()
    given = data.get("interest", [])
    ticked = [str(c) for c in (given if isinstance(given, list) else [given])][:6]
    if any(len(c) > 9 for c in ticked):
        raise ValidationException("There is no such interest.")
    chosen = [int(c) for c in ticked if c.isdecimal()]
    if any(c >= len(opened.manifest.names) for c in chosen):
        raise ValidationException("There is no such interest.")
    user = f"walker-{secrets.token_hex(3)}"
    met: list[int] = []
    for c in chosen:
        start, stop = opened.span(c)
        met += (start + np.argsort(-opened.traffic[start:stop])[:3]).tolist()
    order = service.rng.permutation(len(met)).tolist()
    hour = 3_600_000_000
    events = [
        Event(f"made-{i}", user, opened.ids[met[m]], at - (len(met) - i) * 5 * hour, source="walk")
        for i, m in enumerate(order)
    ]
    if events:
        await service.store(events)
    return _see(f"/?user={quote(user)}")


@post("/walk/react", status_code=200, guards=[needs("read", "write")], include_in_schema=False)
async def walk_react(request: Asking, data: Form) -> Response[Any]:
    """Like or skip an item, and the next answer."""
    user, item, answer = (_named(data, name) for name in ("user", "item", "answer"))
    liked = data.get("satisfaction") == "1"
    service = service_of(request)
    position = service.live.bundle.position(item)
    if not user or position is None:
        raise ValidationException("Name a user and an item of the catalog.")
    event = Event(secrets.token_hex(8), user, item, now(), 1.0 if liked else 0.0, None, "walk", answer)
    await service.store([event])
    title = service.live.bundle.titles[position] or item
    said = f"“{title}” was {'liked' if liked else 'skipped'}. It counts already: this is the next answer."
    return await _next(request, user, said=said)


def _named(data: dict[str, Any], name: str) -> str:
    return str(data.get(name, ""))[:256]


async def _next(request: Asking, user: str, **given: Any) -> Response[Any]:
    """The next step: a part for the page that asks for one, and else the whole page."""
    if "hx-request" not in request.headers:
        return _see(f"/?user={quote(user)}")
    step = await _step(service_of(request), user, when_delivered(request))
    return _page(request, "step.html", user=user, **given, **step)


async def _step(service: Service, user: str, shown: list[history.Answered]) -> dict[str, Any]:
    """Everything that one step of a walk shows; the answer is added to `shown`."""
    opened = service.live.bundle
    reply = await service.answer(RecommendRequest(user=user, k=K), experiment="walk", shown=shown)
    events = await service.history.of(user, service.oldest(), 30)
    met: list[dict[str, Any]] = []
    for event in reversed(events):
        p = opened.position(event.item)
        title = event.item if p is None else opened.titles[p] or event.item
        cluster = "" if p is None else opened.manifest.names[opened.cluster(p)]
        met.append({"title": title, "cluster": cluster, "satisfaction": event.satisfaction})
    explained = await service.explain(user)
    return {
        "reply": reply,
        "events": met,
        "met": {e["cluster"] for e in met},
        "nexts": explained.next[:5],
        "usual": await service.usual(user, K),
    }


# Atlas


@get("/atlas", guards=[needs("read")], include_in_schema=False)
async def atlas(
    request: Asking, q: Word = "", level: FromQuery[int] = 0, cluster: FromQuery[int] = 0
) -> Response[str]:
    """The map, and beside it what was found or one cluster."""
    live = service_of(request).live
    beside = {"cluster": _cluster(live, level, cluster)} if level else _found(live, q)
    return _page(request, "atlas.html", **({"q": q} | beside))


@get("/atlas/find", guards=[needs("read")], include_in_schema=False)
async def atlas_find(request: Asking, q: Word = "") -> Response[str]:
    """Clusters whose description holds some words."""
    return _page(request, "found.html", **_found(service_of(request).live, q))


@get("/atlas/cluster", guards=[needs("read")], include_in_schema=False)
async def atlas_cluster(request: Asking, level: FromQuery[int], cluster: FromQuery[int]) -> Response[str]:
    """One cluster."""
    return _page(request, "found.html", cluster=_cluster(service_of(request).live, level, cluster))


@get("/atlas/tree.json", guards=[needs("read")], include_in_schema=False)
async def atlas_tree(request: Asking) -> dict[str, list[Any]]:
    """The levels down to one below the planning level, as a treemap wants them."""
    live = service_of(request).live
    running = np.concatenate([[0.0], np.cumsum(live.bundle.traffic, dtype=np.float64)])
    tree: dict[str, list[Any]] = {
        "ids": ["all"],
        "labels": ["All interests"],
        "parents": [""],
        "values": [float(running[-1])],
        "colors": ["#ffffff"],
    }
    for depth, level in enumerate(live.levels[: live.bundle.manifest.level + 1], 1):
        starts = np.array(level.starts)
        traffic = np.diff(running[starts])
        above = np.searchsorted(live.levels[depth - 2].starts, starts[:-1], side="right") - 1
        top = np.searchsorted(live.levels[0].starts, starts[:-1], side="right") - 1
        tree["ids"] += [f"{depth}-{c}" for c in range(len(level.names))]
        tree["labels"] += [escape(name) for name in level.names]
        tree["parents"] += ["all" if depth == 1 else f"{depth - 1}-{a}" for a in above.tolist()]
        tree["values"] += traffic.tolist()
        # The golden angle keeps the hues of neighbours apart.
        tree["colors"] += [f"hsl({t * 137.5 % 360:.0f}, 45%, {84 - 5 * depth}%)" for t in top.tolist()]
    return tree


def _found(live: Live, q: str) -> dict[str, Any]:
    names, starts = live.bundle.manifest.names, live.bundle.starts
    traffic = np.add.reduceat(live.bundle.traffic, starts[:-1])
    found = [c for c in np.argsort(-traffic, kind="stable").tolist() if q.casefold() in names[c].casefold()]
    level = live.bundle.manifest.level
    return {"total": len(found), "found": [(level, c, names[c], float(traffic[c])) for c in found[:40]], "q": q}


def _cluster(live: Live, number: int, c: int) -> dict[str, Any]:
    if not 1 <= number <= len(live.levels) or not 0 <= c < len(live.levels[number - 1].names):
        raise NotFoundException("There is no such cluster.")
    level, opened = live.levels[number - 1], live.bundle
    start, stop = level.starts[c], level.starts[c + 1]
    traffic = opened.traffic[start:stop]
    path: list[tuple[int, int, str]] = []
    for above in range(1, number):
        at = int(np.searchsorted(live.levels[above - 1].starts, start, side="right")) - 1
        path.append((above, at, live.levels[above - 1].names[at]))
    parts: list[tuple[int, int, str]] = []
    if number < len(live.levels):
        below = live.levels[number]
        first, last = np.searchsorted(below.starts, [start, stop])
        parts = [(number + 1, i, below.names[i]) for i in range(int(first), int(last))][:30]
    leads, reached = list[tuple[int, int, str]](), list[tuple[int, int, str]]()
    if number == opened.manifest.level:
        names = opened.manifest.names
        leads = [(number, n, names[n]) for n in opened.table[c, c].tolist()[:6] if n >= 0]
        # Interests that, together with some other, lead here first, by how many such pairs there are.
        pairs = (opened.table[:, :, 0] == c).sum(axis=1)
        reached = [(number, n, names[n]) for n in np.argsort(-pairs, kind="stable")[:6].tolist() if pairs[n]]
    best = np.argsort(-traffic, kind="stable")[:8].tolist()
    return {
        "name": level.names[c],
        "level": number,
        "size": stop - start,
        "traffic": float(traffic.sum()),
        "share": float(traffic.sum()) / max(float(opened.traffic.sum()), 1.0),
        "path": path,
        "parts": parts,
        "leads": leads,
        "reached": reached,
        "top": [(opened.titles[start + i] or opened.ids[start + i], float(traffic[i])) for i in best],
    }


# Health and experiment


@get("/health", guards=[needs("read")], include_in_schema=False)
async def health(request: Asking) -> Response[str]:
    """Gates, coverage, how first answers fall on the clusters, latency, fallbacks."""
    live = service_of(request).live
    names = live.bundle.manifest.names
    counts = np.bincount(live.bundle.table[:, :, 0].ravel().clip(min=0), minlength=len(names))
    order = np.argsort(-counts, kind="stable")
    strategies = meters.total("byway_answers_total", "strategy")
    asked = sum(strategies.values())
    fallen = sum(strategies.get(strategy, 0.0) for strategy in FALLBACKS)
    reached = int((counts > 0).sum())
    quick = [meters.quantile(share, "/v1/recommend") for share in (0.5, 0.99)]
    times = " / ".join("–" if t is None else f"{1e3 * t:.1f}" for t in quick)
    cards = [
        ("Match rate", _figure(live, "language.match_rate"), "free answers of the model that are an interest"),
        ("Recall at 10", _figure(live, "language.recall_at_10.heldout"), "held-out turns found by the table"),
        ("Coverage", f"{reached / len(names):.0%}", f"{reached} of {len(names)} interests are some pair's first"),
        ("Answers", f"{asked:,.0f}", "since the service was started"),
        ("As planned", f"{1 - fallen / asked:.0%}" if asked else "–", "of these; the rest are fallbacks"),
        ("Milliseconds", times, "median / 99th of 100, answers over the interface"),
    ]
    labels = {
        "place": list(range(1, len(names) + 1)),
        "count": counts[order].tolist(),
        "name": [escape(names[c]) for c in order.tolist()],
    }
    figures = sorted((k, v) for k, v in live.figures.metrics.items() if isinstance(v, int | float | str))
    return _page(
        request,
        "health.html",
        cards=cards,
        gates=sorted(live.figures.gates.items()),
        strategies=[(strategy, strategies.get(strategy, 0.0), meaning) for strategy, meaning in MEANING.items()],
        labels=labels,
        reached=reached,
        total=len(names),
        figures=figures,
    )


def _figure(live: Live, name: str) -> str:
    value = live.figures.metrics.get(name)
    return "–" if value is None else f"{value:.3f}"


@get("/experiment", guards=[needs("read")], include_in_schema=False)
async def experiment(request: Asking) -> Response[str]:
    """What was shown and liked, by how it was found; and the figures of the simulated experiment."""
    service = service_of(request)
    live = service.live
    counted = await exports.counts(service)
    figures = sorted((k, v) for k, v in live.figures.metrics.items() if k.startswith("experiment."))
    cut = counted.people if counted.cut else 0
    lifted = arms.lifted(service.workspace)
    return _page(request, "experiment.html", rows=counted.rows, figures=figures, cut=cut, lifted=lifted)


# What pages are made of


@get("/static/{name:str}", include_in_schema=False)
async def static(name: FromPath[str]) -> Response[bytes]:
    """A file of the package."""
    files = _files()
    if name not in files:
        raise NotFoundException("There is no such file.")
    body, kind = files[name]
    return Response(body, media_type=kind, headers={"Cache-Control": "max-age=3600"})


@cache
def _files() -> dict[str, tuple[bytes, str]]:
    """The files that may be asked for. Plotly's script is read from its package, which is not imported."""
    found = {p.name: (p.read_bytes(), TYPES[p.suffix]) for p in (PAGES / "static").iterdir() if p.suffix in TYPES}
    spec = importlib.util.find_spec("plotly")
    if spec is not None and spec.submodule_search_locations:
        script = Path(spec.submodule_search_locations[0]) / "package_data" / PLOTLY
        found[PLOTLY] = (script.read_bytes(), TYPES[".js"])
    return found


@get("/sign-in", include_in_schema=False)
async def sign_in(request: Request[Any, Any, State]) -> Response[str]:
    """Ask for a token."""
    return _page(request, "sign-in.html")


@post("/sign-in", include_in_schema=False)
async def signed_in(request: Request[Any, Any, State], data: Form) -> Response[Any]:
    """Keep a known token in a cookie that only this site's pages send."""
    given = str(data.get("token", "")).strip()
    if admitted(request, given) is None:
        reply = _page(request, "sign-in.html", wrong=True)
        reply.status_code = 401
        return reply
    reply = _see("/")
    value, secure = request.app.state.sessions.make(given), request.url.scheme == "https"
    reply.set_cookie("byway", value, httponly=True, samesite="strict", secure=secure, max_age=3600 * HOURS)
    return reply


HANDLERS = [
    walk,
    walk_next,
    walk_make,
    walk_react,
    atlas,
    atlas_find,
    atlas_cluster,
    atlas_tree,
    health,
    experiment,
    static,
    sign_in,
    signed_in,
]
