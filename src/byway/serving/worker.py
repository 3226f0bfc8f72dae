"""One worker: a process that answers on a socket of its own until it is told to stop or its supervisor is gone.

What it serves it learns from the environment; how the other workers are, from its link to the `supervisor`.
"""

import asyncio
import os
import shutil
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import structlog

from byway.serving import logs
from byway.serving.supervisor import BEAT, READY, STOPPING, Fleet

if TYPE_CHECKING:
    import uvicorn

SPACE, SETTINGS, FILE, ADDRESS = "BYWAY_WORKSPACE", "BYWAY_WORKER_SETTINGS", "BYWAY_TOKENS_FILE", "BYWAY_ADDRESS"
COUNTS = "PROMETHEUS_MULTIPROC_DIR"
COUNTED = 1 << 20
"""Bytes of each file of counts: a fifth would do for every route with every status."""

log = structlog.get_logger()


def count_together(folder: Path, number: int) -> None:
    """Share counts with the other workers by files in `folder`, under a number that the next one here goes on with.

    The files are filled before they are mapped: a page of a mapped file for which there is no room ends the process
    that touches it. Where there is no room for them, each worker counts for itself.
    """
    from prometheus_client import values

    try:
        for kind in ("counter", "histogram"):
            path = folder / f"{kind}_{number}.db"
            if not path.exists():
                part = path.with_suffix(".part")
                part.write_bytes(bytes(COUNTED))
                part.rename(path)
    except OSError as error:
        for kind in ("counter", "histogram"):
            (folder / f"{kind}_{number}.part").unlink(missing_ok=True)
        del os.environ[COUNTS]
        log.error("workers count each for itself", reason=str(error))
        return
    values.ValueClass = values.MultiProcessValue(lambda: number)  # pyright: ignore[reportAttributeAccessIssue]


def follow(link: socket.socket, fleet: Fleet) -> None:
    """Take in how the others are; end with the supervisor."""
    with link.makefile("rb") as lines:
        try:
            for line in lines:
                told = msgspec.json.decode(line, type=Fleet)
                for name in Fleet.__struct_fields__:
                    setattr(fleet, name, getattr(told, name))
        except OSError:
            pass
    fleet.draining = True
    log.error("the supervisor is gone; this worker ends", process=os.getpid())
    if os.environ.get(COUNTS):
        shutil.rmtree(os.environ[COUNTS], ignore_errors=True)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(STOPPING)
    os._exit(1)


async def answer(server: "uvicorn.Server", mine: socket.socket, link: socket.socket) -> None:
    """Serve, and tell the supervisor so."""

    async def beat() -> None:
        while not server.started:
            await asyncio.sleep(0.02)
        say = READY
        while True:
            try:
                link.send(say, socket.MSG_DONTWAIT)
                say = BEAT
            except BlockingIOError:
                pass  # the supervisor stands still; what was not said is said next time
            except OSError:
                return  # it is gone, which `follow` sees
            await asyncio.sleep(1.0)

    beating = asyncio.create_task(beat())
    try:
        await server.serve([mine])
    finally:
        beating.cancel()


def listening(host: str, port: int, shared: bool = True) -> socket.socket:
    """A socket bound to a port, which others of the same user may bind too if it is `shared`."""
    found = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        found.bind((host, port))
    except OSError:
        found.close()
        raise
    return found


def main() -> None:
    """Answer until told to stop."""
    logs.configure()
    # A thread that writes the history asks for the interpreter several times an answer; each time it would wait for
    # up to five milliseconds, the default, while a request is computed.
    sys.setswitchinterval(0.0005)
    # Before anything is imported that counts.
    count_together(Path(os.environ[COUNTS]), int(os.environ["BYWAY_WORKER"]))
    import uvicorn

    from byway.base import config
    from byway.base.errors import UserError
    from byway.serving import app, connections
    from byway.serving.keyring import Keyring

    link = socket.socket(fileno=int(os.environ["BYWAY_LINK"]))
    os.set_inheritable(link.fileno(), False)
    fleet = Fleet()
    threading.Thread(target=follow, args=(link, fleet), daemon=True, name="follows the supervisor").start()
    settings = msgspec.json.decode(os.environ[SETTINGS], type=config.Serving)
    file = os.environ.get(FILE)
    host, _, port = os.environ[ADDRESS].rpartition(":")
    connections.Connection.limit = connections.room()
    try:
        keyring = Keyring.of(Path(file) if file else None)
        made = app.create(Path(os.environ[SPACE]), settings, keyring, fleet)
        server = uvicorn.Server(connections.configured(made))
        with (
            listening(host, int(port)) as mine,
            asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner,
        ):
            runner.run(answer(server, mine, link))
    except (UserError, OSError) as error:
        log.error("worker cannot start", reason=str(error))
        raise SystemExit(3) from error


if __name__ == "__main__":
    main()
