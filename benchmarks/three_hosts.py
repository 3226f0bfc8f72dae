"""Three hosts behind a proxy: network namespaces of this machine, a real HAProxy, a real Valkey.

    python -m benchmarks.three_hosts [--seconds 40] [--json]       (as root; needs ip and haproxy)

Each host is `byway serve` with a workspace and an address of its own, behind `deploy/haproxy.cfg` as it stands.
While eight connections send requests and events, a bundle is published on the first host, the second is killed with
all its processes and started again, the third loses its network for a while, and the first bundle is gone back to.
Nothing is sent twice by the client. Counted: requests that failed, acknowledged events that the history does not
have, answers of a bundle after the last host had left it. Then one token asks as fast as it can, through the proxy.
"""

import argparse
import asyncio
import ctypes
import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.serving import house, valkey_server

from byway.base import config
from byway.serving import hosts, publish, stores
from byway.serving.app import BURST

ROOT = Path(__file__).parents[1]
PROXY, STORE, HOSTS = "10.0.0.2", "10.0.0.5", {"a": "10.0.0.11", "b": "10.0.0.12", "c": "10.0.0.13"}
PORT, RATE, CONNECTIONS = 8000, 50.0, 8
URL = f"redis://{STORE}:6379/0"
SETTINGS = config.Serving(history=URL, publication="server")


def ip(*words: str, check: bool = True) -> str:
    found = subprocess.run(["ip", *words], capture_output=True, text=True, timeout=20)
    if check and found.returncode:
        raise SystemExit(f"ip {' '.join(words)}: {found.stderr.strip()}")
    return found.stdout


class Network:
    """A namespace for each machine, on a bridge in the proxy's."""

    def __init__(self) -> None:
        self.names = {name: f"byway-{os.getpid()}-{name}" for name in ("proxy", "store", *HOSTS)}

    def __enter__(self) -> "Network":
        try:
            self._make()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _make(self) -> None:
        proxy = self.names["proxy"]
        for name in self.names.values():
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        ip("-n", proxy, "link", "add", "bridge0", "type", "bridge")
        ip("-n", proxy, "addr", "add", f"{PROXY}/24", "dev", "bridge0")
        ip("-n", proxy, "link", "set", "bridge0", "up")
        for name, address in {"store": STORE, **HOSTS}.items():
            own = self.names[name]
            ip("-n", proxy, "link", "add", f"to-{name}", "type", "veth", "peer", "name", "eth0", "netns", own)
            ip("-n", proxy, "link", "set", f"to-{name}", "master", "bridge0", "up")
            ip("-n", own, "addr", "add", f"{address}/24", "dev", "eth0")
            ip("-n", own, "link", "set", "eth0", "up")

    def __exit__(self, *_: object) -> None:
        for name in self.names:
            self.kill(name)
        for name in self.names.values():
            ip("netns", "del", name, check=False)

    def kill(self, machine: str) -> int:
        """End every process of a machine at once."""
        pids = [int(pid) for pid in ip("netns", "pids", self.names[machine], check=False).split()]
        mine = [pid for pid in pids if pid != os.getpid()]
        for pid in mine:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        return len(mine)

    def on(self, machine: str, *command: str, log: Path, **more: str) -> subprocess.Popen[bytes]:
        with log.open("ab") as out:
            return subprocess.Popen(
                ["ip", "netns", "exec", self.names[machine], *command],
                stdout=out,
                stderr=out,
                env=os.environ | more,
            )

    def enter(self, machine: str) -> None:
        """Have this process, and what it starts, speak from a machine of the network."""
        with open(f"/run/netns/{self.names[machine]}", "rb") as there:
            if ctypes.CDLL(None, use_errno=True).setns(there.fileno(), 0x40000000):  # CLONE_NEWNET
                raise SystemExit(os.strerror(ctypes.get_errno()))


@dataclass
class Tally:
    """What happened."""

    requests: int = 0
    failed: list[tuple[float, str]] = field(default_factory=list)
    acknowledged: dict[str, str] = field(default_factory=dict)
    answers: list[tuple[float, float, str]] = field(default_factory=list)
    """When it was asked and answered, and by which bundle."""
    lock: threading.Lock = field(default_factory=threading.Lock)


def ask(
    link: http.client.HTTPConnection, method: str, path: str, token: str, body: Any = None
) -> tuple[int, dict[str, Any]]:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    link.request(method, path, None if body is None else json.dumps(body), headers)
    reply = link.getresponse()
    read = reply.read()
    return reply.status, json.loads(read) if read else {}


def one(number: int, stop: threading.Event, tally: Tally) -> None:
    """Requests and events in turn, until told to stop."""
    link, n = http.client.HTTPConnection(PROXY, PORT, timeout=20), 0
    while not stop.is_set():
        n += 1
        user, token, began = f"user-{number}-{n % 40}", f"load-token-number-{number}-{n % 2}", time.monotonic()
        try:
            if n % 2:
                event = {"event": f"{number}-{n}", "user": user, "item": f"c{n % 12}-{n % 20}"}
                status, found = ask(link, "POST", "/v1/events", token, event)
            else:
                status, found = ask(link, "POST", "/v1/recommend", token, {"user": user, "k": 5})
        except (OSError, http.client.HTTPException) as error:
            link.close()
            status, found = 0, {"detail": type(error).__name__}
        with tally.lock:
            tally.requests += 1
            if status != 200:
                tally.failed.append((time.monotonic(), f"{status} {found.get('detail', '')}"))
            elif n % 2:
                tally.acknowledged[f"{number}-{n}"] = user
            else:
                tally.answers.append((began, time.monotonic(), found["bundle"]))
    link.close()


def bundles(machines: list[str]) -> set[str]:
    """What these hosts serve, asked directly."""
    found: set[str] = set()
    for machine in machines:
        link = http.client.HTTPConnection(HOSTS[machine], PORT, timeout=3)
        try:
            found.add(ask(link, "GET", "/readyz", "")[1].get("bundle", "not ready"))
        except (OSError, http.client.HTTPException):
            found.add("no answer")
        link.close()
    return found


def until(machines: list[str], wanted: set[str], seconds: float = 60.0) -> float:
    """Seconds until these hosts serve that."""
    began = time.monotonic()
    while (found := bundles(machines)) != wanted:
        if time.monotonic() - began > seconds:
            raise SystemExit(f"hosts {machines} serve {found}, not {wanted}")
        time.sleep(0.05)
    return time.monotonic() - began


async def missing(tally: Tally) -> int:
    """Acknowledged events that the history does not have."""
    store, by_user = stores.open(URL, Path("unused"), SETTINGS.forget_days), dict[str, set[str]]()
    for event, user in tally.acknowledged.items():
        by_user.setdefault(user, set()).add(event)
    lost = 0
    for user, events in by_user.items():
        lost += len(events - {e.event for e in await store.of(user, 0, 10**6)})
    await store.close()
    return lost


def limited(seconds: float) -> dict[str, Any]:
    """One token, as fast as eight connections can."""
    taken, refused, lock, end = [0], [0], threading.Lock(), time.monotonic() + seconds

    def hurry() -> None:
        link = http.client.HTTPConnection(PROXY, PORT, timeout=20)
        while time.monotonic() < end:
            status, _ = ask(link, "GET", "/v1/clusters?limit=1", "one-token-in-a-hurry")
            with lock:
                (taken if status == 200 else refused)[0] += 1
        link.close()

    began = time.monotonic()
    run([threading.Thread(target=hurry) for _ in range(CONNECTIONS)])
    allowed = BURST + RATE * (time.monotonic() - began)
    return {"taken": taken[0], "refused": refused[0], "one allowance": round(allowed), "three": round(3 * allowed)}


def run(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def measure(network: Network, folder: Path, seconds: float) -> dict[str, Any]:
    tokens = folder / "tokens"
    names = [f"load-token-number-{i}-{j}" for i in range(CONNECTIONS) for j in range(2)] + ["one-token-in-a-hurry"]
    tokens.write_text("".join(f"{name} read,write\n" for name in names), "utf-8")
    for host in HOSTS:
        (folder / host).mkdir()
        (folder / host / "byway.toml").write_text(
            f'[serving]\nhistory = "{URL}"\npublication = "server"\nrate = {RATE}\nworkers = 1\n', "utf-8"
        )
    (folder / "data").mkdir()
    valkey = ["--bind", STORE, "--protected-mode", "no", "--appendonly", "yes", "--save", ""]
    network.on("store", valkey_server.program(), *valkey, "--dir", str(folder / "data"), log=folder / "store.log")
    network.enter("proxy")
    time.sleep(1)

    def put(seed: int) -> str:
        made = folder / f"made-{seed}"
        records = house.build(made, seed)
        for other in made.iterdir():
            if other.name != "byway.toml":
                target = folder / "a" / other.name
                subprocess.run(["rm", "-rf", str(target)], check=True)
                other.rename(target)
        return publish.publish(
            folder / "a", folder / "a" / "13-bundle", SETTINGS, records, tell=hosts.telling(SETTINGS)
        )

    def serve(host: str) -> None:
        command = [sys.executable, "-m", "byway", "serve", str(folder / host), "--host", HOSTS[host]]
        command += ["--tokens", str(tokens)]
        more = {"FORWARDED_ALLOW_IPS": PROXY, "PYTHONPATH": str(ROOT / "src")}
        network.on(host, *command, log=folder / f"{host}.log", **more)

    first = put(0)
    for host in HOSTS:
        serve(host)
    until(list(HOSTS), {first})
    network.on("proxy", "haproxy", "-f", str(ROOT / "deploy" / "haproxy.cfg"), log=folder / "proxy.log")
    time.sleep(2)
    if ask(http.client.HTTPConnection(PROXY, PORT, timeout=5), "GET", "/healthz", "")[0] != 200:
        raise SystemExit("the proxy does not answer")
    tally, stop, step = Tally(), threading.Event(), seconds / 8
    load = [threading.Thread(target=one, args=(i, stop, tally), daemon=True) for i in range(CONNECTIONS)]
    for thread in load:
        thread.start()
    found: dict[str, Any] = {}
    marks: dict[str, tuple[float, float]] = {}
    try:
        time.sleep(step)
        second = put(1)
        found["seconds until all serve what one published"] = round(until(list(HOSTS), {second}), 2)
        left = time.monotonic()
        time.sleep(step)
        killed_at = time.monotonic()
        found["processes killed"] = network.kill("b")
        time.sleep(step)
        serve("b")
        found["seconds until it is back"] = round(until(["b"], {second}), 2)
        marks["a host killed"] = (killed_at, time.monotonic())
        time.sleep(step)
        cut_at = time.monotonic()
        ip("-n", network.names["proxy"], "link", "set", "to-c", "down")
        time.sleep(step)
        ip("-n", network.names["proxy"], "link", "set", "to-c", "up")
        until(["c"], {second})
        time.sleep(1)
        marks["a host without network"] = (cut_at, time.monotonic())
        late = sum(name == first and began > left for began, _, name in tally.answers)
        publish.rollback(folder / "a", hosts.telling(SETTINGS))
        found["seconds until all have gone back"] = round(until(list(HOSTS), {first}), 2)
        back = time.monotonic()
        time.sleep(step)
    finally:
        stop.set()
        for thread in load:
            thread.join(30)
    late += sum(name == second and began > back for began, _, name in tally.answers)
    times = sorted(end for _, end, _ in tally.answers)
    found |= {
        "requests": tally.requests,
        "requests a second": round(tally.requests / (times[-1] - times[0]), 1),
        "acknowledged events": len(tally.acknowledged),
        "of them lost": asyncio.run(missing(tally)),
        "failed": len(tally.failed),
        "longest time without an answer, s": round(max(b - a for a, b in pairwise(times)), 2),
        "p50 ms": round(1e3 * sorted(b - a for a, b, _ in tally.answers)[len(times) // 2], 1),
        "p99 ms": round(1e3 * sorted(b - a for a, b, _ in tally.answers)[int(len(times) * 0.99)], 1),
        "answers of a bundle that all had left": late,
    }
    for name, (begin, end) in marks.items():
        found[f"failed: {name}"] = sum(begin <= at <= end + 1 for at, _ in tally.failed)
    found["first failures"] = [what for _, what in tally.failed[:3]]
    return {"three hosts": found, "one token through the proxy": limited(6.0)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=40.0, help="of load, about")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--folder", type=Path, help="where logs and workspaces stay")
    given = parser.parse_args()
    with ExitStack() as held:
        folder = given.folder or Path(held.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        result = measure(held.enter_context(Network()), folder, given.seconds)
    print(json.dumps(result) if given.json else json.dumps(result, indent=2))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
