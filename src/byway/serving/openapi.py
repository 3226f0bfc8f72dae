"""The service in OpenAPI: what each field means, and an example of each request.

A name means the same wherever it stands, so it is described once; kinds of `messages` by their docstrings. It knows
the names and none of the handlers.
"""

from typing import Any

import msgspec
from litestar import Request
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, Reference, SecurityScheme

from byway.base.artifact import VERSION
from byway.serving import messages

FIELDS = {
    "after": "The last user of the page before; the header Byway-Next of a page has it.",
    "answer": "Id of an answer: name it in the events that follow.",
    "arm": "The arm of a live experiment to which the user was dealt, empty without one.",
    "share": "The chance to be dealt to the reply's arm.",
    "bundle": "The bundle that answered, by the first letters of its digest.",
    "chance": "Probability that an answer leads there.",
    "cluster": "An interest: by its description in answers, by its number in the list of clusters.",
    "clusters": "The clusters of this page.",
    "context": "Id of the item being watched, as the last of the interests that are looked up.",
    "deleted": "Events and answers that are gone.",
    "description": "The words that describe a cluster.",
    "detail": "What was wrong with this request, in a sentence.",
    "event": "Id of the event. Sent again under the same id and user it changes nothing.",
    "exclude": "Ids of items that are not to be shown.",
    "expired": "Events that were too old to be taken in.",
    "experiment": "Name of the experiment under which this was answered.",
    "found_by": "How an item was found: by a strategy, or `known` for what does not explore.",
    "history": "What the person met, the most recent last; taken instead of the stored history.",
    "interests": "The interests from which this was drawn.",
    "item": "Id of an item of the catalog.",
    "items": "The items, best first; of a cluster, how many it has.",
    "k": "Items in the answer; 10 without it.",
    "known": "Events that were known by their id.",
    "limit": "At most so many; of the log, at least so many rows of whole people.",
    "mix": "Share of the k places that explore.",
    "next": "Where somebody can be led, the likeliest first.",
    "offset": "So many are left out at the beginning.",
    "pairs": "The pairs or triples of interests that lead there, the likeliest first.",
    "problems": "What is wrong, though requests are answered.",
    "propensity": "Exact probability that this request is answered with the item.",
    "q": "Letters that the description holds.",
    "quality": "Mean satisfaction with the item, drawn towards that of all.",
    "rank": "Place of the cluster in the ranking that was looked up; null where none was.",
    "reasons": "Why this was answered, in sentences.",
    "satisfaction": "How content the person was, from 0 (a skip) to 1.",
    "score": "Score of the item, comparable within one answer alone.",
    "source": "Where the person met the item, in words of the platform's own.",
    "status": "Status of the HTTP reply; of a worker, whether it is ready.",
    "stored": "Events that are new.",
    "strategy": "How the answer was found.",
    "thumbnail": "Address or path of a picture; empty where there is none.",
    "time": "Microseconds since 1970; of an event, now where it is not given, and at most a day ahead.",
    "title": "Title of the item; of a problem, the name of its status.",
    "total": "How many there are over all pages.",
    "traffic": "Events in the log from which the bundle was made.",
    "type": "Kind of the problem; about:blank where its status says all.",
    "user": "Id of a person: whose history counts, and under whom exposures are logged.",
    "wanted": "Processes that should answer.",
    "watch_seconds": "Seconds for which the item was watched.",
    "watching": "Id of the item being watched, where what is seen in it should lead on.",
    "weight": "Share of the draw.",
    "workers": "Processes that answer.",
}
_ASKED: dict[str, Any] = {"user": "ann", "k": 5}
EXAMPLES: dict[str, Any] = {
    "/v1/recommend": _ASKED,
    "/v1/recommend:batch": [_ASKED, {"history": [{"item": "v1", "satisfaction": 0.9}, {"item": "v2"}], "mix": 0.5}],
    "/v1/events": {"event": "e1", "user": "ann", "item": "v1", "satisfaction": 0.9, "watch_seconds": 31.5},
    "/v1/shown": {"answer": "0123456789abcdef01234567", "user": "ann"},
}
"""A body of each route that takes one."""
SCHEMAS = {
    name: kind.__doc__
    for name, kind in vars(messages).items()
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct)
}


class Described(JsonRenderPlugin):
    """The schema with its descriptions and examples."""

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        for name, schema in openapi_schema.get("components", {}).get("schemas", {}).items():
            _describe(schema, SCHEMAS.get(name))
            for field, one in schema.get("properties", {}).items():
                _describe(one, FIELDS.get(field))
        for path, operations in openapi_schema.get("paths", {}).items():
            for operation in operations.values():
                for parameter in operation.get("parameters", ()):
                    _describe(parameter, FIELDS.get(parameter["name"]))
                if path in EXAMPLES and "requestBody" in operation:
                    operation["requestBody"]["content"]["application/json"]["example"] = EXAMPLES[path]
        return super().render(request, openapi_schema)


def _describe(part: dict[str, Any], text: str | None) -> None:
    if text is not None:
        part.setdefault("description", text)


def configured(open_to_all: bool) -> OpenAPIConfig:
    """What litestar makes the schema from."""
    schemes: dict[str, SecurityScheme | Reference] = {"token": SecurityScheme(type="http", scheme="bearer")}
    return OpenAPIConfig(
        title="Byway",
        version=VERSION,
        path="/schema",
        render_plugins=[Described()],
        components=Components(security_schemes=schemes),
        security=None if open_to_all else [{"token": []}],
        use_handler_docstrings=True,
    )
