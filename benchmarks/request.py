"""The whole request over HTTP: `byway serve` on a made workspace, asked from this machine.

    python benchmarks/request.py [--small] [--json] [--mode person|pair] [--history redis://...] [--workers 2]

A million items in 7,000 leaves of 761 clusters with an item policy of the default size and a planner (a small run:
20,000 items in 540 leaves of 41 clusters, and EASE over items too). Both modes of `bundle.mode` are measured, one
after the other, unless one is named. Everybody has a history of 20 events in the store. A reply holds 10 items and
its exposures are logged. Closed loops of 1, 8 and 32 connections give the rates; an open loop at 500 requests a
second gives `p99_ms_at_500`: its requests are due at fixed times and a late start counts as waiting.
`start_seconds` is from the command to the first request that is answered. Every step is bounded by `--seconds`.
"""

import argparse
import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
from made import HISTORY, SIZES, workspace_of

from byway.base import config
from byway.serving import publish, stores
from byway.serving.bundle import Manifest
from byway.serving.history import DAY, Event

Mode = Literal["person", "pair"]


def take(workspace: Path, mode: Mode) -> None:
    """Have the published bundle answer in this mode, from the next start on."""
    now = publish.current(workspace)
    assert now is not None
    path = workspace / publish.FOLDER / now.bundle / "manifest.json"
    manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
    manifest.settings["mode"] = mode
    path.write_bytes(msgspec.json.encode(manifest))


async def people(url: str, workspace: Path, users: int, items: int) -> None:
    """Give everybody a history, straight into the store."""
    store = stores.open(url, workspace / "serving", config.Serving().forget_days)
    rng = np.random.default_rng(2)
    now = time.time_ns() // 1000
    for first in range(0, users, 50):
        events = [
            Event(f"e{i}", f"user-{u}", f"item-{rng.integers(items)}", now - DAY + i, float(rng.random()))
            for u in range(first, min(first + 50, users))
            for i in range(HISTORY)
        ]
        await store.add(events)
    await store.close()


class Connection:
    """One kept-alive connection that asks and measures; it reads just as much HTTP as this service speaks."""

    def __init__(self, port: int):
        self.port = port
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter

    async def open(self) -> "Connection":
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        return self

    async def ask(self, user: int) -> int:
        body = b'{"user":"user-%d","k":10}' % user
        self.writer.write(
            b"POST /v1/recommend HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        reply = await self.reader.readexactly(length)
        if not head.startswith(b"HTTP/1.1 200") or b'"items":[{' not in reply:
            raise RuntimeError(head.decode() + reply.decode())
        return len(reply)

    def close(self) -> None:
        self.writer.close()


async def closed(port: int, connections: int, seconds: float, users: int) -> dict[str, float]:
    """As fast as so many connections can ask one after the other."""
    rng = np.random.default_rng(connections)
    times: list[float] = []
    end = time.perf_counter() + seconds

    async def one() -> None:
        link = await Connection(port).open()
        while (started := time.perf_counter()) < end:
            await link.ask(int(rng.integers(users)))
            times.append(time.perf_counter() - started)
        link.close()

    started = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(connections)))
    took = time.perf_counter() - started
    return {
        "p50_ms": float(np.percentile(times, 50)) * 1e3,
        "p99_ms": float(np.percentile(times, 99)) * 1e3,
        "requests_per_second": len(times) / took,
    }


async def steady(port: int, rate: float, seconds: float, users: int, connections: int = 32) -> dict[str, float]:
    """Requests that are due at fixed times, whoever is free takes the next."""
    rng = np.random.default_rng(0)
    start = time.perf_counter() + 0.1
    due = iter(start + np.arange(int(rate * seconds)) / rate)
    times: list[float] = []

    async def one() -> None:
        link = await Connection(port).open()
        for at in due:
            wait = at - time.perf_counter()
            if wait > 0:
                await asyncio.sleep(wait)
            await link.ask(int(rng.integers(users)))
            times.append(time.perf_counter() - at)
        link.close()

    await asyncio.gather(*(one() for _ in range(connections)))
    return {f"p{p}_ms": float(np.percentile(times, p)) * 1e3 for p in (50, 99)} | {
        "requests_per_second": len(times) / (time.perf_counter() - start)
    }


def start(workspace: Path, port: int, workers: int, url: str) -> subprocess.Popen[bytes]:
    """`byway serve`, once it is ready."""
    settings = [f"serving.workers={workers}", "serving.rate=0"] + ([f'serving.history="{url}"'] if url else [])
    sets = [word for setting in settings for word in ("--set", setting)]
    command = [
        sys.executable,
        "-m",
        "byway",
        "serve",
        str(workspace),
        "--port",
        str(port),
    ]
    # Its own session, so that what it started ends with it.
    server = subprocess.Popen([*command, *sets], start_new_session=True)
    for _ in range(3000):
        time.sleep(0.02)
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2):
                return server
        except OSError:
            if server.poll() is not None:
                break
    server.terminate()
    raise SystemExit("The service did not start.")


def memory(parent: int) -> dict[str, int]:
    """Megabytes of the service's processes: private, and as they share (PSS)."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
    mine = {parent}
    while more := {p for p, of in parents.items() if of in mine} - mine:
        mine |= more
    total = {"pss_mb": 0, "private_mb": 0}
    for process in mine:
        text = Path(f"/proc/{process}/smaps_rollup").read_text()
        found = {line.split()[0]: int(line.split()[1]) for line in text.splitlines()[1:]}
        total["pss_mb"] += found["Pss:"] // 1024
        total["private_mb"] += (found["Private_Clean:"] + found["Private_Dirty:"]) // 1024
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--mode", choices=("person", "pair"), help="both without it")
    parser.add_argument("--history", default="", help="redis://host:port/number instead of files")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--port", type=int, default=18_431)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each step")
    parser.add_argument("--rate", type=float, default=500.0, help="requests a second of the open loop")
    parser.add_argument("--folder", type=Path, default=Path("benchmark-data"))
    given = parser.parse_args()
    items, clusters, leaves, users = SIZES["small" if given.small else "large"]
    workspace = workspace_of(given.folder, items, clusters, leaves)
    result: dict[str, object] = {"items": items, "workers": given.workers, "history": given.history or "sqlite"}
    modes: list[Mode] = [given.mode] if given.mode else ["person", "pair"]
    for mode in modes:
        found = measured(workspace, mode, given, items, users)
        result |= {f"{mode}.{name}": value for name, value in found.items()}
    if given.json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name:36} {value:.4g}" if isinstance(value, float) else f"{name:36} {value}")


def measured(workspace: Path, mode: Mode, given: argparse.Namespace, items: int, users: int) -> dict[str, float]:
    """All figures of one mode."""
    take(workspace, mode)
    shutil.rmtree(workspace / "serving", ignore_errors=True)
    asyncio.run(people(given.history, workspace, users, items))
    began = time.perf_counter()
    server = start(workspace, given.port, given.workers, given.history)
    try:
        result: dict[str, float] = {"start_seconds": time.perf_counter() - began}
        result |= {f"at_rest.{name}": value for name, value in memory(server.pid).items()}
        asyncio.run(closed(given.port, 8, 2, users))
        for connections in (1, 8, 32):
            found = asyncio.run(closed(given.port, connections, given.seconds, users))
            result |= {f"{name}.{connections}": value for name, value in found.items()}
        found = asyncio.run(steady(given.port, given.rate, given.seconds, users))
        result |= {f"{name}_at_{given.rate:g}": value for name, value in found.items()}
        result |= {f"after.{name}": value for name, value in memory(server.pid).items()}
    finally:
        server.terminate()
        server.wait(30)
    return result


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
