"""`byway serve`: several workers on one port, under a supervisor.

Owns what is checked before they start and what they are given; each is a `worker`, and the `supervisor` keeps them.
Each listens on a socket of its own, so that the system spreads connections evenly: from a shared one whoever wakes
first takes several at a time.
"""

import fcntl
import json
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import structlog

from byway.base import config
from byway.base.errors import UserError
from byway.serving import logs, security
from byway.serving.supervisor import Supervisor
from byway.serving.worker import ADDRESS, COUNTS, FILE, SETTINGS, SPACE, listening

MEMORY = Path("/dev/shm")
UNABLE = 1
"""Exit code where no worker can be started; 2 is a mistake in what was asked, 0 the end that was asked for."""

log = structlog.get_logger()


def serve(workspace: Path, settings: config.Serving, host: str, port: int, tokens: Path | None) -> None:
    """Answer until the process is told to stop; SystemExit with `UNABLE` where it cannot."""
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
    logs.configure()
    log.info("serving", workspace=str(workspace), address=f"http://{host}:{port}", process=os.getpid())
    if sys.stderr.isatty():
        print(f"Serving {workspace} on http://{host}:{port}", file=sys.stderr)
    with mine, together() as counts:
        own = {
            SPACE: str(workspace.resolve()),
            SETTINGS: json.dumps(asdict(settings)),
            FILE: str(tokens.resolve()) if tokens else "",
            ADDRESS: f"{host}:{port}",
            COUNTS: str(counts),
        }
        # A worker answers one request at a time: threads of numpy's would take the cores of the other workers.
        environment = {"OMP_NUM_THREADS": "1", **os.environ, **own}
        command = [sys.executable, "-m", "byway.serving.worker"]
        able = Supervisor(command, environment, max(settings.workers, 1)).run()
    log.info("service ended", able=able)
    if not able:
        raise SystemExit(UNABLE)


@contextmanager
def together() -> Generator[Path]:
    """A folder for what workers count together, in memory where the system has a file system there.

    One for each service. Those of services that were killed are cleared away.
    """
    root = MEMORY if os.access(MEMORY, os.W_OK) else Path(tempfile.gettempdir())
    for other in root.glob(f"byway-{os.getuid()}-*/lock"):
        try:
            with other.open("r+b") as f:
                fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(other.parent, ignore_errors=True)
        except OSError:
            continue  # it is in use, or another's
    folder = Path(tempfile.mkdtemp(prefix=f"byway-{os.getuid()}-", dir=root))
    try:
        with (folder / "lock").open("wb") as f:
            fcntl.flock(f, fcntl.LOCK_EX)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
