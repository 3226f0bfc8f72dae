"""The whole request over HTTP: `byway serve` on a made workspace, asked from this machine.

    python benchmarks/request.py [--small] [--json] [--history redis://...] [--workers 2]

A million items in 761 clusters with an item policy of the default size (a small run: 20,000 in 41). Everybody has a
history of 20 events in the store. A reply holds 10 items and its exposures are logged. Closed loops of 1, 8 and 32
connections give the rates; an open loop at 500 requests a second gives `p99_ms_at_500`: its requests are due at
fixed times and a late start counts as waiting. `start_seconds` is from the command to the first request that is
answered. Everything is bounded by `--seconds` a step.
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

import msgspec
import numpy as np
from numpy.typing import NDArray

from byway.base import artifact, config
from byway.base.artifact import Outcome
from byway.serving import pack, publish, stores
from byway.serving.bundle import Level, Manifest
from byway.serving.history import DAY, Event

HISTORY = 20


def make(workspace: Path, items: int, clusters: int, users: int) -> None:
    """A workspace with a published bundle, as far as the service reads it."""
    import torch
    from restrict import DIM, world

    from byway.items import export, sequence
    from byway.items.transformer import SequenceModel

    (workspace / "byway.toml").write_text("[serving]\nmin_match_rate = 0\n", "utf-8")
    rng = np.random.default_rng(0)
    vectors, starts = world(items, clusters)
    settings = config.ItemPolicy()
    torch.manual_seed(0)
    model = SequenceModel(items, DIM, sequence.LAYERS, sequence.HEADS, settings.history, sequence.DROPOUT).eval()
    export.write(model, workspace / "policy.onnx")
    names = [f"interest {c}, made up" for c in range(clusters)]
    texts = {
        "ids": [f"item-{i}" for i in range(items)],
        "titles": [f"Title of item {i}, made up" for i in range(items)],
        "thumbnails": [""] * items,
    }
    arrays = {
        "vectors": vectors,
        "rows": np.arange(items, dtype=np.int32),
        "starts": starts,
        "traffic": rng.zipf(1.6, items).clip(max=100_000).astype(np.float32),
        "quality": rng.random(items, dtype=np.float32),
        "created": np.full(items, np.iinfo(np.int64).max),
        "table": rankings(clusters, rng),
        "popularity": rng.permutation(clusters).astype(np.int32),
    }
    manifest = Manifest(2, names, settings.history, True, msgspec.to_builtins(config.Bundle()))
    levels = [Level(names, starts.tolist())] * 4
    path = workspace / "13-bundle"
    with artifact.part(path, "bundle", {}, {}) as work:
        pack.write(work.out, texts, arrays, manifest, levels, workspace / "policy.onnx", rng=work.rng)
    record = artifact.commit(path, "bundle", {}, {}, Outcome(timings={"seconds": 0.0}))
    publish.publish(workspace, path, config.Serving(min_match_rate=0), {"bundle": record})


def rankings(clusters: int, rng: np.random.Generator, top: int = 20) -> NDArray[np.int32]:
    """[M, M, top] different clusters for each ordered pair, none of them of the pair."""
    found = np.empty((clusters, clusters, top), dtype=np.int32)
    for a in range(clusters):
        order = np.argsort(rng.random((clusters, clusters), dtype=np.float32), axis=1)[:, : top + 2]
        for b in range(clusters):
            row = order[b]
            found[a, b] = row[(row != a) & (row != b)][:top]
    return found


async def people(url: str, workspace: Path, users: int, items: int) -> None:
    """Give everybody a history, straight into the store."""
    store = stores.open(url, workspace / "serving")
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
    parser.add_argument("--history", default="", help="redis://host:port/number instead of files")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--port", type=int, default=18_431)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each step")
    parser.add_argument("--rate", type=float, default=500.0, help="requests a second of the open loop")
    parser.add_argument("--folder", type=Path, default=Path("benchmark-data"))
    given = parser.parse_args()
    items, clusters, users = (20_000, 41, 200) if given.small else (1_000_000, 761, 5_000)
    workspace = given.folder / f"request-{items}"
    if not (workspace / publish.FOLDER / "current.json").exists():
        shutil.rmtree(workspace, ignore_errors=True)
        workspace.mkdir(parents=True)
        make(workspace, items, clusters, users)
    shutil.rmtree(workspace / "serving", ignore_errors=True)
    asyncio.run(people(given.history, workspace, users, items))
    began = time.perf_counter()
    server = start(workspace, given.port, given.workers, given.history)
    try:
        result: dict[str, object] = {"items": items, "workers": given.workers, "history": given.history or "sqlite"}
        result["start_seconds"] = time.perf_counter() - began
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
    if given.json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name:28} {value:.4g}" if isinstance(value, float) else f"{name:28} {value}")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
