"""An hour of mixed load with everything that goes wrong: who is let in, what is answered, what is lost.

    sudo python benchmarks/hour.py [--seconds 3600] [--rate 40] [--json PATH]

Requests and events come at a steady rate from four connections with a token; one in twenty comes with a wrong
token or none. Meanwhile, one after the other and again: a worker is killed, the disk is full (the workspace lies on
a small tmpfs, which root mounts), the history is locked by another process, the bundle that is to be served lacks a
file, hundreds of connections send half a head, tokens are read again (SIGHUP), the master is killed and, as a
supervisor would, the service started again. Bundles are switched while nothing is wrong. Counted: replies that no
one bundle could have given, acknowledged events that the history does not have at the end, strangers who were
answered, and what was refused or lost outside of the times at which it had to be.
"""

import argparse
import asyncio
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import time
from collections import Counter
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from mixed import ITEMS, SETTINGS, USERS, Truth, missing, prepared, workers
from request import start

from byway.serving import publish

TOKEN = "a-token-that-reads-and-writes"
PORT = 18_434
CONNECTIONS, K = 4, 6
DISK = 192
"""Megabytes of the tmpfs."""
HALF_OPEN = 300
EVENT = {"worker killed": 5.0, "disk full": 12.0, "history locked": 8.0, "bundle without a file": 8.0,
         "half-open": 15.0, "tokens read again": 3.0, "master killed": 15.0}  # fmt: skip
"""Seconds that a fault lasts, or after which it must be over."""
GRACE = 3.0
"""Seconds after a fault in which what had begun may still fail."""
PAUSE = 8.0
"""Seconds between two faults."""


@dataclass
class Tally:
    """What happened."""

    asked: Counter[str] = field(default_factory=Counter)
    during: Counter[str] = field(default_factory=Counter)
    """What was not done, by the fault that went on."""
    unexplained: list[str] = field(default_factory=list)
    """What was not done while nothing was wrong."""
    let_in: int = 0
    wrong: list[str] = field(default_factory=list)
    acknowledged: dict[str, str] = field(default_factory=dict)
    faults: Counter[str] = field(default_factory=Counter)
    switches: int = 0
    orphans: int = 0
    slowest: float = 0.0
    now: str = ""
    over: float = 0.0

    def fault(self, at: float) -> str:
        """What was wrong at this time."""
        return self.now if self.now and at <= self.over + GRACE else ""


async def post(port: int, path: str, body: dict[str, Any], token: str) -> tuple[int, bytes]:
    """One request on a connection of its own; raises OSError or asyncio.IncompleteReadError."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    sent = json.dumps(body).encode()
    allowed = f"Authorization: Bearer {token}\r\n" if token else ""
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{allowed}Connection: close\r\n"
    try:
        writer.write(f"{head}Content-Length: {len(sent)}\r\n\r\n".encode() + sent)
        said = await reader.readuntil(b"\r\n\r\n")
        length = int(said.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        return int(said.split(b" ", 2)[1]), await reader.readexactly(length)
    finally:
        writer.close()


async def ask(tally: Tally, truths: dict[str, Truth], rng: np.random.Generator, name: str) -> None:
    """A stranger's request, an event or a question."""
    stranger, event = rng.random() < 0.05, rng.random() < 0.5
    user, kind = f"user-{rng.integers(USERS)}", "stranger" if stranger else "event" if event else "question"
    body: dict[str, Any] = {"user": user, "k": K}
    if event:
        body = {"event": name, "user": user, "item": f"item-{rng.integers(ITEMS)}"}
    token = rng.choice(["", "a-token-that-nobody-gave"]) if stranger else TOKEN
    tally.asked[kind] += 1
    began = time.monotonic()
    try:
        path = "/v1/events" if event else "/v1/recommend"
        status, given = await asyncio.wait_for(post(PORT, path, body, str(token)), 10)
    except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
        status, given = 0, type(error).__name__.encode()
    ended = time.monotonic()
    if not tally.fault(began):
        tally.slowest = max(tally.slowest, ended - began)
    if stranger:
        tally.let_in += status == 200
    if status in ((401, 429) if stranger else (200,)):
        if kind == "event":
            tally.acknowledged[name] = user
        elif kind == "question":
            reply = json.loads(given)
            if fault := truths[reply["bundle"]].fault(reply, K):
                tally.wrong.append(fault)
        return
    if fault := tally.fault(began) or tally.fault(ended):
        tally.during[f"{fault}: {kind} {status or 'lost'}"] += 1
    else:
        tally.unexplained.append(f"{kind} {status} {given[:200]!r}")


async def load(tally: Tally, truths: dict[str, Truth], number: int, until: float, rate: float) -> None:
    rng, n, due = np.random.default_rng(number), 0, time.monotonic()
    while time.monotonic() < until:
        await ask(tally, truths, rng, f"{number}-{n}")
        n, due = n + 1, max(due + CONNECTIONS / rate, time.monotonic() - 1)
        await asyncio.sleep(max(0.0, due - time.monotonic()))


class Service:
    """The service, and what is done to it."""

    def __init__(self, workspace: Path):
        self.workspace = workspace
        self.process = start(workspace, PORT, 2, "")
        self.publishing = asyncio.Lock()

    def worker_killed(self, rng: np.random.Generator) -> None:
        alive = workers(self.process.pid)
        if len(alive) > 1:
            os.kill(alive[int(rng.integers(len(alive)))], signal.SIGKILL)

    async def disk_full(self, seconds: float) -> None:
        filler = self.workspace / "filler"
        with suppress(OSError), filler.open("wb", buffering=0) as out:
            while True:
                out.write(bytes(1 << 16))
        await asyncio.sleep(seconds)
        filler.unlink()

    async def history_locked(self, seconds: float) -> None:
        with closing(
            sqlite3.connect(self.workspace / "serving" / "events.db", 20, check_same_thread=False)
        ) as other:
            other.isolation_level = None
            await asyncio.to_thread(other.execute, "BEGIN EXCLUSIVE")
            await asyncio.sleep(seconds)
            other.execute("ROLLBACK")

    async def bundle_without_a_file(self, seconds: float) -> None:
        async with self.publishing:
            await self._broken(seconds)

    async def _broken(self, seconds: float) -> None:
        found = publish.current(self.workspace)
        assert found is not None
        folder = self.workspace / publish.FOLDER
        shutil.copytree(folder / found.bundle, folder / "broken", dirs_exist_ok=True)
        (folder / "broken" / "vectors.npy").unlink()
        path, before = folder / "current.json", (folder / "current.json").read_bytes()
        path.with_suffix(".new").write_bytes(json.dumps({"bundle": "broken", "before": [found.bundle]}).encode())
        path.with_suffix(".new").replace(path)
        await asyncio.sleep(seconds / 2)
        # A worker that starts now finds nothing it can serve.
        self.worker_killed(np.random.default_rng(0))
        await asyncio.sleep(seconds / 2)
        path.write_bytes(before)
        shutil.rmtree(folder / "broken")

    async def half_open(self, seconds: float) -> None:
        links = [await asyncio.open_connection("127.0.0.1", PORT) for _ in range(HALF_OPEN)]
        for _, writer in links:
            writer.write(b"POST /v1/events HTTP/1.1\r\nHost: x\r\nX-Endless: ")
        await asyncio.sleep(seconds)
        for _, writer in links:
            writer.close()

    async def master_killed(self, tally: Tally) -> None:
        children = psutil.Process(self.process.pid).children(recursive=True)
        self.process.kill()
        self.process.wait()
        await asyncio.sleep(4)
        tally.orphans += sum(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children)
        self.process = await asyncio.to_thread(start, self.workspace, PORT, 2, "")

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)


async def trouble(service: Service, tally: Tally, until: float) -> None:
    """Fault after fault, until there is no time for another."""
    rng, names = np.random.default_rng(5), list(EVENT)
    n = 0
    while time.monotonic() + PAUSE + EVENT[names[n % len(names)]] + GRACE < until:
        await asyncio.sleep(PAUSE)
        name = names[n % len(names)]
        tally.now, tally.over = name, time.monotonic() + EVENT[name]
        tally.faults[name] += 1
        n += 1
        if name == "worker killed":
            service.worker_killed(rng)
        elif name == "tokens read again":
            service.process.send_signal(signal.SIGHUP)
        elif name == "master killed":
            await service.master_killed(tally)
        else:
            await getattr(service, name.replace(" ", "_").replace("-", "_"))(EVENT[name] - GRACE)
        tally.over = max(tally.over, time.monotonic()) if name == "master killed" else tally.over
        await asyncio.sleep(max(0.0, tally.over + GRACE - time.monotonic()))
        tally.now = ""


async def switch(service: Service, second: Path, tally: Tally, until: float) -> None:
    """Publish the second bundle and go back, every four seconds, while nothing is wrong."""
    while time.monotonic() < until:
        await asyncio.sleep(4)
        if tally.now:
            continue
        async with service.publishing:
            if tally.switches % 2:
                await asyncio.to_thread(publish.publish, service.workspace, second, SETTINGS, {})
            else:
                publish.rollback(service.workspace)
        tally.switches += 1


async def hour(service: Service, made: dict[str, Path], seconds: float, rate: float) -> Tally:
    tally, until = Tally(), time.monotonic() + seconds
    truths = {name: Truth(folder) for name, folder in made.items()}
    jobs = [load(tally, truths, i, until, rate) for i in range(CONNECTIONS)]
    await asyncio.gather(
        *jobs, trouble(service, tally, until), switch(service, list(made.values())[1], tally, until)
    )
    return tally


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--rate", type=float, default=40, help="requests a second")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    os.environ["BYWAY_TOKENS"] = f"{TOKEN} read,write"
    with tempfile.TemporaryDirectory() as folder:
        workspace, aside = Path(folder) / "w", Path(folder) / "aside"
        workspace.mkdir()
        aside.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}m", "tmpfs", str(workspace)], check=True)
        try:
            made = prepared(workspace, aside)
            service = Service(workspace)
            try:
                tally = asyncio.run(hour(service, made, given.seconds, given.rate))
            finally:
                service.stop()
            lost = asyncio.run(missing(workspace, tally.acknowledged))
        finally:
            subprocess.run(["umount", str(workspace)], check=True)
    result = {
        "seconds": given.seconds,
        "asked": dict(tally.asked),
        "faults": dict(tally.faults),
        "switches": tally.switches,
        "not done during faults": dict(sorted(tally.during.items())),
        "not done while nothing was wrong": len(tally.unexplained),
        "first": tally.unexplained[:5],
        "wrong replies": len(tally.wrong),
        "strangers let in": tally.let_in,
        "orphans": tally.orphans,
        "slowest answer while nothing was wrong, s": round(tally.slowest, 3),
        "acknowledged": len(tally.acknowledged),
        "acknowledged and lost": lost,
    }
    text = json.dumps(result, indent=2)
    print(text)
    if given.json:
        given.json.write_text(text + "\n")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
