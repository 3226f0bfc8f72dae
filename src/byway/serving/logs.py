"""What the processes of the service say: lines of JSON on standard error, with the ids of the request.

Owns the form of a line and the ids (`X-Request-Id`, `traceparent` of W3C Trace Context). No token, no user and no
path with an id in it is logged: a request is known by its route.
"""

import logging
import os
import re
import secrets
import sys
from collections.abc import Iterable
from types import TracebackType
from typing import Any

import msgspec
import structlog

REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")
TRACEPARENT = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


class Lines:
    """Standard error by lines. A disk that is full loses lines, and ends nothing."""

    def msg(self, line: bytes) -> None:
        try:
            os.write(2, line + b"\n")
        except OSError:
            return

    debug = info = warning = error = critical = exception = log = msg


class _Handler(logging.Handler):
    """What libraries say by the standard library, in the same form."""

    def emit(self, record: logging.LogRecord) -> None:
        line = self.format(record)
        Lines().msg(line.encode("utf-8", "replace"))


def _encoded(event: Any, **_: Any) -> bytes:
    return msgspec.json.encode(event, enc_hook=repr)


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """What ends the process, as one line too."""
    structlog.get_logger().critical("process ended by an error", exc_info=(kind, error, trace))


def configure() -> None:
    """Have this process speak JSON."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer(serializer=_encoded)],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=lambda *_: Lines(),
        cache_logger_on_first_use=True,
    )
    handler = _Handler()
    rendered = structlog.processors.JSONRenderer(serializer=lambda event, **k: _encoded(event).decode())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, rendered],
        )
    )
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.captureWarnings(True)
    sys.excepthook = _uncaught


def ids(headers: Iterable[tuple[bytes, bytes]]) -> tuple[dict[str, str], list[tuple[bytes, bytes]]]:
    """The ids of a request for its log lines, and the headers of the reply that carry them back."""
    asked, parent = b"", b""
    for name, value in headers:
        if name == b"x-request-id" and REQUEST_ID.fullmatch(value):
            asked = value
        elif name == b"traceparent" and TRACEPARENT.fullmatch(value):
            parent = value
    asked = asked or secrets.token_hex(16).encode()
    found, back = {"request_id": asked.decode()}, [(b"x-request-id", asked)]
    if parent:
        _, trace, span, *_ = parent.decode("latin-1").split("-")
        found |= {"trace_id": trace, "span_id": span}
        back.append((b"traceparent", parent))
    return found, back
