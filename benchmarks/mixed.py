"""An hour's worth of mixed load: requests and events, while bundles are switched and workers are killed.

    python benchmarks/mixed.py [--requests 180000] [--switch 3] [--kill 20] [--json]

180,000 requests are fifty a second for an hour; they are asked as fast as eight connections can, one request in two
an event. Two bundles that put every item into another cluster take turns. Counted: replies that no one bundle could
have given; acknowledged events that the store does not have; requests that failed although no worker was killed
while they were under way. A request on an idle connection whose worker has died meanwhile is sent once more, as any
client of HTTP does.
"""

import argparse
import asyncio
import json
import os
import shutil
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from made import make
from request import start

from byway.base import config
from byway.serving import bundle, publish, stores

ITEMS, CLUSTERS, USERS = 20_000, 41, 2_000
SETTINGS = config.Serving(min_match_rate=0)


@dataclass
class Tally:
    """What happened."""

    requests: int = 0
    in_flight: int = 0
    failed: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    acknowledged: dict[str, str] = field(default_factory=dict)
    """User of each event that the service said it had."""
    killed: list[float] = field(default_factory=list)
    switches: int = 0
    by_bundle: dict[str, int] = field(default_factory=dict)


class Truth:
    """What a bundle may say."""

    def __init__(self, folder: Path):
        opened = bundle.load(folder)
        self.names = list(opened.manifest.names)
        home = np.repeat(np.arange(len(self.names)), np.diff(opened.starts))
        self.cluster = {opened.ids[i]: self.names[c] for i, c in enumerate(home)}
        self.table = np.asarray(opened.table)
        self.number = {name: c for c, name in enumerate(self.names)}

    def fault(self, reply: dict[str, Any], k: int) -> str:
        """Why this bundle cannot have given the reply, or nothing."""
        if len({item["item"] for item in reply["items"]}) != k:
            return "not as many items as asked for"
        for item in reply["items"]:
            if self.cluster.get(item["item"]) != item["cluster"]:
                return f"{item['item']} is not in {item['cluster']}"
        if reply["strategy"] == "table":
            a, b = self.number[reply["interests"][0]], self.number[reply["interests"][-1]]
            if self.number[reply["cluster"]] not in self.table[a, b]:
                return f"{reply['cluster']} does not follow {a}, {b}"
        return ""


class Link:
    """One kept-alive connection."""

    def __init__(self, port: int):
        self.port = port
        self.streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, path: bytes, body: bytes) -> tuple[int, bytes]:
        """Status and body; raises ConnectionError where the other side went away."""
        if self.streams is None:
            self.streams = await asyncio.open_connection("127.0.0.1", self.port)
        reader, writer = self.streams
        writer.write(
            b"POST %b HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
            % (path, len(body), body)
        )
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            return int(head.split(b" ", 2)[1]), await reader.readexactly(length)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            self.close()
            raise ConnectionError(str(error)) from error

    def close(self) -> None:
        if self.streams is not None:
            self.streams[1].close()
            self.streams = None


async def ask(link: Link, tally: Tally, path: bytes, body: bytes) -> tuple[int, bytes] | None:
    """Post; None where it was lost with a worker that was killed while it was under way."""
    for attempt in range(2):
        began, fresh = time.monotonic(), link.streams is None
        try:
            return await link.post(path, body)
        except ConnectionError as error:
            killed = any(began - 0.05 <= at for at in tally.killed)
            if killed:
                tally.in_flight += 1
                return None
            if attempt or fresh:
                tally.failed.append(str(error))
                return None
    return None


async def one(number: int, port: int, count: int, tally: Tally, truths: dict[str, Truth]) -> None:
    """So many requests, one after the other."""
    rng, link, k = np.random.default_rng(number), Link(port), 6
    for n in range(count):
        user = f"user-{rng.integers(USERS)}"
        tally.requests += 1
        if n % 2:
            event = f"{number}-{n}"
            body = json.dumps({"event": event, "user": user, "item": f"item-{rng.integers(ITEMS)}"}).encode()
            found = await ask(link, tally, b"/v1/events", body)
            if found is not None and found[0] == 200:
                tally.acknowledged[event] = user
            elif found is not None:
                tally.failed.append(f"{found[0]} {found[1][:200]!r}")
            continue
        found = await ask(link, tally, b"/v1/recommend", json.dumps({"user": user, "k": k}).encode())
        if found is None:
            continue
        if found[0] != 200:
            tally.failed.append(f"{found[0]} {found[1][:200]!r}")
            continue
        reply = json.loads(found[1])
        tally.by_bundle[reply["bundle"]] = tally.by_bundle.get(reply["bundle"], 0) + 1
        fault = truths[reply["bundle"]].fault(reply, k)
        if fault:
            tally.wrong.append(fault)
    link.close()


def workers(server: int) -> list[int]:
    """The service's children that hold a bundle."""
    found: list[int] = []
    for child in Path(f"/proc/{server}/task/{server}/children").read_text().split():
        try:
            if publish.FOLDER in Path(f"/proc/{child}/maps").read_text():
                found.append(int(child))
        except OSError:
            continue
    return found


async def trouble(workspace: Path, server: int, second: Path, given: Any, tally: Tally) -> None:
    """Publish the second bundle, go back to the first, and so on; kill workers; until cancelled."""
    began, rng = time.monotonic(), np.random.default_rng(9)
    switch, kill = began + given.switch, began + given.kill
    while True:
        await asyncio.sleep(0.1)
        if time.monotonic() >= switch:
            if tally.switches % 2:
                await asyncio.to_thread(publish.publish, workspace, second, SETTINGS, {})
            else:
                publish.rollback(workspace)
            tally.switches += 1
            switch = time.monotonic() + given.switch
        if time.monotonic() >= kill and len(alive := workers(server)) > 1:
            tally.killed.append(time.monotonic())
            os.kill(alive[int(rng.integers(len(alive)))], signal.SIGKILL)
            kill = time.monotonic() + given.kill


async def load(workspace: Path, server: int, made: dict[str, Path], given: Any) -> Tally:
    """All of it."""
    tally = Tally()
    truths = {name: Truth(folder) for name, folder in made.items()}
    each = given.requests // given.connections
    disturbing = asyncio.create_task(trouble(workspace, server, list(made.values())[1], given, tally))
    jobs = [asyncio.create_task(one(i, given.port, each, tally, truths)) for i in range(given.connections)]
    try:
        await asyncio.gather(*jobs)
    finally:
        disturbing.cancel()
    return tally


async def missing(workspace: Path, acknowledged: dict[str, str]) -> int:
    """Of acknowledged events, by id with their user, how many the history does not have."""
    store = stores.open("", workspace / "serving", 30)
    users = dict[str, set[str]]()
    for event, user in acknowledged.items():
        users.setdefault(user, set()).add(event)
    lost = 0
    for user, events in users.items():
        lost += len(events - {e.event for e in await store.of(user, 0, 10**6)})
    await store.close()
    return lost


def prepared(workspace: Path, aside: Path) -> dict[str, Path]:
    """Two published bundles that put every item into another cluster; by their names, where copies of them lie."""
    made: dict[str, Path] = {}
    for clusters in (CLUSTERS, CLUSTERS + 2):
        make(workspace, ITEMS, clusters, 8 * clusters)
        now = publish.current(workspace)
        assert now is not None
        made[now.bundle] = aside / f"made-{clusters}"
        shutil.copytree(workspace / publish.FOLDER / now.bundle, made[now.bundle])
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=180_000)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--switch", type=float, default=3.0, help="seconds between switches")
    parser.add_argument("--kill", type=float, default=20.0, help="seconds between kills")
    parser.add_argument("--port", type=int, default=18_433)
    parser.add_argument("--folder", type=Path, default=Path("benchmark-data"))
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    workspace = given.folder / "mixed"
    shutil.rmtree(workspace, ignore_errors=True)
    workspace.mkdir(parents=True)
    made = prepared(workspace, workspace)
    server = start(workspace, given.port, 2, "")
    began = time.perf_counter()
    try:
        tally = asyncio.run(load(workspace, server.pid, made, given))
    finally:
        server.terminate()
        server.wait(30)
    seconds = time.perf_counter() - began
    result = {
        "requests": tally.requests,
        "seconds": round(seconds, 1),
        "requests_per_second": round(tally.requests / seconds, 1),
        "switches": tally.switches,
        "killed": len(tally.killed),
        "answers_by_bundle": list(tally.by_bundle.values()),
        "lost_in_flight": tally.in_flight,
        "failed": len(tally.failed),
        "wrong": len(tally.wrong),
        "acknowledged": len(tally.acknowledged),
        "acknowledged_and_lost": asyncio.run(missing(workspace, tally.acknowledged)),
        "first": (tally.failed + tally.wrong)[:3],
    }
    print(json.dumps(result) if given.json else json.dumps(result, indent=2))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
