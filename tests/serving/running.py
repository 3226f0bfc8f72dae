"""A service on a port of this machine: in a thread for quick tests, as real processes where they matter."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import httpx
import uvicorn

from byway.base import config
from byway.serving import app, connections, security
from byway.serving.keyring import Keyring
from byway.serving.supervisor import Fleet


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@contextmanager
def thread(
    workspace: Path,
    tokens: dict[bytes, security.Token] | Keyring | None = None,
    fleet: Fleet | None = None,
    **settings: object,
) -> Generator[httpx.Client]:
    """One worker in a thread of this process, and a client of it."""
    keyring = tokens if isinstance(tokens, Keyring) else Keyring(tokens or {})
    made = app.create(workspace, config.Serving(**settings), keyring, fleet)
    port = free_port()
    given = connections.configured(made)
    given.host, given.port = "127.0.0.1", port
    server = uvicorn.Server(given)
    runner = threading.Thread(target=server.run, daemon=True)
    runner.start()
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            wait(client, runner.is_alive)
            yield client
    finally:
        server.should_exit = True
        runner.join(20)


@contextmanager
def processes(workspace: Path, workers: int = 2, **more: str) -> Generator[tuple[subprocess.Popen[bytes], str]]:
    """`byway serve`, and its address."""
    port = free_port()
    command = [sys.executable, "-m", "byway", "serve", str(workspace)]
    command += ["--port", str(port), "--set", f"serving.workers={workers}"]
    with (workspace / "serve.log").open("wb") as log:
        server = subprocess.Popen(command, stderr=log, stdout=log, env=os.environ | more)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            wait(client, lambda: server.poll() is None)
        yield server, f"http://127.0.0.1:{port}"
    finally:
        server.send_signal(signal.SIGINT)  # which waits for no proxy to notice
        server.wait(30)


def wait(client: httpx.Client, alive: object) -> None:
    """Until it is ready."""
    for _ in range(600):
        try:
            client.get("/healthz")
        except httpx.TransportError:
            assert alive(), "the service ended"
            time.sleep(0.1)
        else:
            return
    raise AssertionError("the service did not start")
