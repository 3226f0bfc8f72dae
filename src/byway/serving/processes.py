"""`byway serve`: several workers on one port, each started again if it dies.

Owns how workers are started; what they do is `app`'s. A worker learns what to serve from the environment, since it
is started anew as a process of its own. Each listens on a socket of its own, so that the system spreads connections
evenly: from a shared one whoever wakes first takes several at a time.
"""

import json
import logging
import os
import shutil
import socket
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import structlog
import uvicorn
from uvicorn.supervisors import Multiprocess

from byway.base import config
from byway.base.errors import UserError
from byway.serving import security

if TYPE_CHECKING:
    from litestar.types import ASGIApp

SPACE, SETTINGS, FILE = "BYWAY_WORKSPACE", "BYWAY_SERVING", "BYWAY_TOKENS_FILE"


def serve(workspace: Path, settings: config.Serving, host: str, port: int, tokens: Path | None) -> None:
    """Answer until the process is told to stop."""
    if not security.tokens(tokens) and not security.is_loopback(host):
        raise UserError(
            "Without tokens only this machine may ask: serve on 127.0.0.1, or give --tokens FILE or "
            f"{security.VARIABLE}."
        )
    try:
        socket.getaddrinfo(host, port)
    except socket.gaierror as error:
        raise UserError(f"There is no address {host!r} ({error.strerror}); give another --host.") from error
    try:
        # Sockets that share a port would also share it with another service: first see that there is none.
        listening(host, port, shared=False).close()
        mine = listening(host, port)
    except OSError as error:
        raise UserError(
            f"Port {port} of {host} cannot be taken ({error.strerror}); choose another --port."
        ) from error
    counts = workspace.resolve() / "serving" / "metrics"
    shutil.rmtree(counts, ignore_errors=True)
    counts.mkdir(parents=True)
    os.environ |= {
        SPACE: str(workspace.resolve()),
        SETTINGS: json.dumps(asdict(settings)),
        FILE: str(tokens.resolve()) if tokens else "",
        "PROMETHEUS_MULTIPROC_DIR": str(counts),
    }
    # A worker answers one request at a time: threads of numpy's would take the cores of the other workers.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    _log()
    print(f"Serving {workspace} on http://{host}:{port}", file=sys.stderr)
    server = uvicorn.Config(
        "byway.serving.processes:worker",
        factory=True,
        host=host,
        port=port,
        workers=max(settings.workers, 1),
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=10,
        # A worker that starts on a busy machine is silent for longer than the five seconds that are the default.
        timeout_worker_healthcheck=60,
        h11_max_incomplete_event_size=65536,
        backlog=1024,
    )
    with mine:
        Multiprocess(server, sockets=[mine]).run()


class Listening(socket.socket):
    """A socket that becomes another one on the same port when it is handed to another process."""

    def __reduce__(self) -> tuple[Any, ...]:
        host, port = self.getsockname()[:2]
        return listening, (host, port)


def listening(host: str, port: int, shared: bool = True) -> Listening:
    """A socket bound to a port, which others of the same user may bind too if it is `shared`."""
    found = Listening(socket.AF_INET6 if ":" in host else socket.AF_INET)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        found.bind((host, port))
    except OSError:
        found.close()
        raise
    return found


def worker() -> "ASGIApp":
    """The application of one worker, as the environment says."""
    from byway.serving import app
    from byway.serving.keyring import Keyring

    _log()
    # A thread that writes the history asks for the interpreter several times an answer; each time it would wait for
    # up to five milliseconds, the default, while a request is computed.
    sys.setswitchinterval(0.0005)
    settings = msgspec.json.decode(os.environ[SETTINGS], type=config.Serving)
    file = os.environ.get(FILE)
    return app.create(Path(os.environ[SPACE]), settings, Keyring.of(Path(file) if file else None))


def _log() -> None:
    """Lines of JSON on standard error. Requests are counted, not logged: no token and no name stands in a log."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s %(message)s")
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(ensure_ascii=False),
        ],
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
    )
