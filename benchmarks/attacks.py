"""Attacks on the service over the loopback: what was tried, what was measured, and whether it held.

    sudo python benchmarks/attacks.py [--source CHECKOUT/src] [--json PATH]

Starts `byway serve` of a source tree (this one unless another is named) on a small made workspace in a temporary
folder, and attacks it: heads without an end, half-open connections, killed workers and master, a full disk (on a
small tmpfs, which root mounts), tokens, deletion, bundles that answer nothing. Every step is bounded; all together
takes three to four minutes. Whatever is started is ended by its id. The thresholds are far from what an idle
machine measures, so that a busy one gives the same rows.
"""

import argparse
import http.client
import json
import os
import re
import secrets
import select
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import psutil

HERE = Path(__file__).resolve().parents[1] / "src"
MADE = "import sys, pathlib; from made import make; make(pathlib.Path(sys.argv[1]), 2000, 25, 75)"
READ_WRITE, WRITE, SPARE = ("a-token-that-may-read-all", "a-token-that-only-writes", "a-token-that-is-taken-out")
TOKENS = f"{READ_WRITE} read,write,admin\n{WRITE} write\n"
FORM = "application/x-www-form-urlencoded"
MB = 1 << 20


@dataclass(frozen=True)
class Row:
    """One attack, by its number among all."""

    number: int
    attack: str
    measured: str
    held: bool


@dataclass(frozen=True)
class Reply:
    """What came back; a status of 0 where nothing did."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict[str, str])
    seconds: float = 0.0


@dataclass(frozen=True)
class Place:
    """A source tree, a folder for what it is tried in, and a workspace there that is copied for each service."""

    source: Path
    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        own = {name: value for name, value in os.environ.items() if not name.startswith("BYWAY_")}
        return {**own, "PYTHONPATH": f"{self.source}:{self.source.parent / 'benchmarks'}", "OMP_NUM_THREADS": "1"}

    def make(self) -> None:
        (self.folder / "made").mkdir()
        found = self.python(MADE, str(self.folder / "made"))
        if found.returncode:
            raise SystemExit(found.stderr)

    def copy(self, to: Path | None = None) -> Path:
        to = to or self.folder / f"w-{secrets.token_hex(3)}"
        shutil.copytree(self.folder / "made", to)
        return to

    def python(self, code: str, *given: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-c", code, *given]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=120)

    def serve(self, workspace: Path, port: int, *more: str) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "byway", "serve", str(workspace), "--port", str(port), *more]
        with (self.folder / f"{port}.log").open("ab") as log:
            return subprocess.Popen(
                command, env=self.environment, stdout=log, stderr=log, start_new_session=True, umask=0o022
            )


@dataclass
class Service:
    """One that runs."""

    place: Place
    workspace: Path
    port: int
    process: "subprocess.Popen[bytes]"
    known: list[psutil.Process] = field(default_factory=list[psutil.Process])
    """Processes that it has started, so that they can be ended."""

    def workers(self) -> list[psutil.Process]:
        """Its processes that answer."""
        try:
            found = psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []
        self.known += [process for process in found if process not in self.known]
        return [process for process in found if "resource_tracker" not in _command(process)]

    def ask(self, method: str, path: str, body: object = None, token: str = "", **headers: str) -> Reply:
        """One request on a connection of its own. A body of bytes is sent as it is."""
        said = {name.replace("_", "-"): value for name, value in headers.items()}
        if token:
            said["Authorization"] = f"Bearer {token}"
        sent = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        if sent is not None:
            said.setdefault("Content-Type", "application/json")
        began = time.monotonic()
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)) as link:
            try:
                link.request(method, path, sent, said)
                got = link.getresponse()
                found = {name.lower(): value for name, value in got.getheaders()}
                return Reply(got.status, got.read(), found, time.monotonic() - began)
            except (OSError, http.client.HTTPException):
                return Reply(0, seconds=time.monotonic() - began)

    def form(self, path: str, given: dict[str, str], token: str = "", **headers: str) -> Reply:
        return self.ask("POST", path, urlencode(given).encode(), token, Content_Type=FORM, **headers)

    def answer(self) -> Reply:
        """An answer to somebody who brings a history."""
        return self.ask("POST", "/v1/recommend", {"history": [{"item": f"item-{i}"} for i in range(5)], "k": 5})

    def events(self, user: str, count: int) -> Reply:
        """So many events of somebody, up to 1,000."""
        name = secrets.token_hex(4)
        made = [{"event": f"{name}-{i}", "user": user, "item": f"item-{i % 2000}"} for i in range(count)]
        return self.ask("POST", "/v1/events", made)

    def health(self) -> Reply:
        return self.ask("GET", "/healthz")

    def slowest(self, until: Callable[[], bool], bound: float) -> float:
        """Seconds that the slowest /healthz takes while something goes on."""
        end, slowest = time.monotonic() + bound, self.health().seconds
        while not until() and time.monotonic() < end:
            slowest = max(slowest, self.health().seconds)
            time.sleep(0.01)
        return slowest

    def log(self) -> str:
        """What it has said so far."""
        return (self.place.folder / f"{self.port}.log").read_text("utf-8", "replace")

    def stop(self) -> None:
        """End it, and every process that it started."""
        self.workers()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for process in self.known:
            with suppress(psutil.NoSuchProcess):
                process.kill()


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _bundle(workspace: Path) -> Path:
    home = workspace / "published"
    return home / json.loads((home / "current.json").read_text())["bundle"]


def _alive(processes: list[psutil.Process]) -> int:
    alive = 0
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            alive += process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return alive


def _wait(process: "subprocess.Popen[bytes]", seconds: float) -> int | None:
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None


def _tally(statuses: list[int]) -> str:
    said = Counter("none" if status == 0 else str(status) for status in statuses)
    return ", ".join(f"{status}: {n}" for status, n in sorted(said.items()))


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@contextmanager
def served(place: Place, workers: int = 1, tokens: str = "", workspace: Path | None = None) -> Generator[Service]:
    """`byway serve`, once all of it answers."""
    workspace, port = workspace or place.copy(), free_port()
    more = ["--set", f"serving.workers={workers}", "--set", "serving.rate=0"]
    if tokens:
        (workspace / "tokens").write_text(tokens)
        more += ["--tokens", str(workspace / "tokens")]
    service = Service(place, workspace, port, place.serve(workspace, port, *more))
    try:
        end = time.monotonic() + 60
        # Each says so once: over the port that they share it cannot be told which of them has answered.
        while service.log().count("worker ready") < workers or service.ask("GET", "/readyz").status != 200:
            if service.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"The service did not start: {service.log()[-500:]}")
            time.sleep(0.1)
        service.workers()
        yield service
    finally:
        service.stop()


# On one worker without tokens


def flood(port: int, piece: Callable[[int], bytes], megabytes: int, until: Callable[[], bool]) -> tuple[int, str]:
    """Send pieces of one head until it is refused, much was sent, or it is time; the bytes, and what was said."""
    sent, n = 0, 0
    with socket.create_connection(("127.0.0.1", port), timeout=10) as link:
        try:
            link.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n")
            while sent < megabytes * MB and not until():
                block = piece(n)
                link.sendall(block)
                sent, n = sent + len(block), n + 1
                if select.select([link], [], [], 0.002)[0]:
                    return sent, link.recv(100).split(b"\r\n")[0].decode("latin-1") or "closed"
        except OSError as error:
            return sent, type(error).__name__
    return sent, "not refused"


def endless_head(service: Service) -> list[Row]:
    """60 MB of headers on one connection, then five seconds of a header that never ends."""
    worker = service.workers()[0]
    before = most = worker.memory_info().rss

    def look() -> bool:
        nonlocal most
        most = max(most, worker.memory_info().rss)
        return False

    headers = b"".join(b"X-%d: %s\r\n" % (i, b"a" * 1000) for i in range(64))
    sent, said = flood(service.port, lambda _: headers, 60, look)
    grew = (most - before) / MB
    first = f"{sent / MB:.1f} MB taken ({said}), the worker grew by {grew:.0f} MB"
    begun = time.monotonic()

    def over() -> bool:
        return time.monotonic() > begun + 5

    def again() -> None:
        with suppress(OSError):  # it need not even be let in
            while not over():
                flood(service.port, lambda n: b"X-Endless: " if n == 0 else b"a" * 65_536, 1000, over)

    thread = threading.Thread(target=again)
    thread.start()
    slowest = service.slowest(over, 20)
    thread.join(30)
    return [
        Row(1, "60 MB of headers on one connection, without a token", first, sent < 8 * MB and grew < 20),
        Row(1, "/healthz while a head never ends (5 s)", f"slowest {slowest:.2f} s", slowest < 1),
    ]


def half_open(service: Service) -> list[Row]:
    """200 connections that send half a head, for 20 seconds."""
    answered, end = 0, time.monotonic() + 20
    with ExitStack() as stack:
        links = [stack.enter_context(socket.create_connection(("127.0.0.1", service.port))) for _ in range(200)]
        for link in links:
            link.sendall(b"POST /v1/events HTTP/1.1\r\nHost: x\r\nX-Half: ")
        for n in range(10):
            time.sleep(max(0.0, end - 20 + 2 * (n + 1) - time.monotonic()))
            answered += service.health().status == 200
        left = sum(map(_is_open, links))
    said = f"{left} still open after 20 s, /healthz answered {answered} of 10"
    return [Row(2, "200 half-open connections", said, left == 0 and answered == 10)]


def _is_open(link: socket.socket) -> bool:
    link.setblocking(False)
    try:
        while link.recv(4096):
            pass
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def deletion(service: Service) -> list[Row]:
    """Delete 200 of 400 people while others write, and look for their ids in every file of the history.

    Names of many lengths, and times in any order, split pages, which leaves copies of rows behind.
    """
    people = [f"{secrets.token_hex(4)}-{'x' * (n % 40)}!" for n in range(400)]
    gone, at = people[::2], time.time_ns() // 1000
    made = [
        {"event": f"{n}-{k}", "user": user, "item": f"i{k}" * (1 + n * k % 9), "time": at - (7919 * n + k) % 9973}
        for k in range(6)
        for n, user in enumerate(people)
    ]
    for start in range(0, len(made), 50):
        service.ask("POST", "/v1/events", made[start : start + 50])
    for user in gone[:60]:
        service.ask("POST", "/v1/recommend", {"user": user, "k": 5})
    time.sleep(1)
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(service.ask, "DELETE", f"/v1/users/{quote(user)}") for user in gone]
        asked += [pool.submit(service.events, people[1], 10) for _ in range(20)]
        statuses = [each.result().status for each in asked]
    began, found = time.monotonic(), _left(service, gone)
    at_once = len(found)
    while found and time.monotonic() < began + 60:
        time.sleep(1)
        found = _left(service, gone)
    seconds = time.monotonic() - began
    said = f"{_tally(statuses)}; ids that are left: {at_once} at once, {len(found)} after {seconds:.0f} s"
    held = not found and set(statuses) == {200}
    return [Row(5, "200 people deleted; their ids, byte by byte, in the files", said, held)]


def _left(service: Service, people: list[str]) -> list[str]:
    found = b""
    for path in sorted((service.workspace / "serving").rglob("*")):
        with suppress(OSError):
            if path.is_file():
                found += path.read_bytes()
    return [user for user in people if user.encode() in found]


def writing_get(service: Service) -> list[Row]:
    """GET requests as a page of another site has a browser send them: what do they write?"""
    user = f"visitor-{secrets.token_hex(4)}"
    pages = [f"/walk/next?user={user}", f"/?user={user}"]
    statuses = [service.ask("GET", path, Sec_Fetch_Site="cross-site").status for path in pages]
    time.sleep(2)
    rows = service.ask("GET", "/v1/log").body.decode().count(user)
    said = f"{_tally(statuses)}; {rows} rows in the log"
    return [Row(6, "GET of pages from another site", said, rows == 0)]


def long_reads(service: Service) -> list[Row]:
    """A person with 50,000 events in the log, and 2,000 people behind the page of the experiment."""
    for _ in range(50):
        service.events("collector", 1000)
    rows = [_meanwhile(service, "/v1/log", "50,000 events of one person")]
    for first in range(0, 2000, 20):
        users = range(first, first + 20)
        made = [{"event": f"e{i}", "user": f"user-{u}", "item": f"item-{i}"} for u in users for i in range(50)]
        service.ask("POST", "/v1/events", made)
    return [*rows, _meanwhile(service, "/experiment", "what 2,000 people did")]


def _meanwhile(service: Service, path: str, what: str) -> Row:
    thread = threading.Thread(target=service.ask, args=("GET", path))
    thread.start()
    slowest = service.slowest(lambda: not thread.is_alive(), 30)
    thread.join(30)
    said = f"slowest {slowest:.2f} s"
    return Row(7, f"/healthz of the one worker while GET {path} reads {what}", said, slowest < 0.25)


def locked(service: Service) -> list[Row]:
    """Another process holds the history for three seconds; somebody who brings a history asks."""
    service.events("reader", 1)
    replies: list[Reply] = []
    with ExitStack() as stack:
        for name in ("events.db", "answers.db"):
            path = service.workspace / "serving" / name
            other = stack.enter_context(closing(sqlite3.connect(path, 10, isolation_level=None)))
            other.execute("BEGIN EXCLUSIVE")
        end = time.monotonic() + 3
        while time.monotonic() < end:
            replies.append(service.answer())
    slowest = max(reply.seconds for reply in replies)
    said = f"{_tally([reply.status for reply in replies])}; slowest {slowest:.2f} s"
    held = slowest < 1 and all(reply.status == 200 for reply in replies)
    return [Row(8, "an answer to a history that is brought, while the store is locked (3 s)", said, held)]


def rights(service: Service) -> list[Row]:
    """Who else on the machine may read the history."""
    modes = {path.name: path.stat().st_mode & 0o777 for path in (service.workspace / "serving").glob("*.db*")}
    said = ", ".join(f"{name} {mode:o}" for name, mode in sorted(modes.items()))
    held = bool(modes) and not any(mode & 0o077 for mode in modes.values())
    return [Row(11, "rights of the history's files, with umask 022", said, held)]


def malformed(service: Service) -> list[Row]:
    """Bytes that are no text, and numbers of 5,000 digits."""
    digits = "1" * 5000
    replies = {
        "a body that is no UTF-8": service.ask("POST", "/v1/recommend", b'{"user": "\xff"}'),
        "k of 5,000 digits": service.ask("POST", "/v1/recommend", b'{"user": "a", "k": %b}' % digits.encode()),
        "a query that is no UTF-8": service.ask("GET", "/v1/clusters?q=%ff"),
        "a path that is no UTF-8": service.ask("GET", "/v1/items/%ff"),
        "a form that is no UTF-8": service.ask("POST", "/walk/make", b"interest=%ff", Content_Type=FORM),
        "an interest of 5,000 digits": service.form("/walk/make", {"interest": digits}),
    }
    said = ", ".join(f"{what}: {reply.status}" for what, reply in replies.items())
    return [Row(14, "malformed requests", said, all(0 < reply.status < 500 for reply in replies.values()))]


def manners(service: Service) -> list[Row]:
    """HEAD, OPTIONS, caches, and what stands in the log of requests."""
    head = service.ask("HEAD", "/healthz")
    options = service.ask("OPTIONS", "/v1/users/somebody")
    kept = service.answer().headers.get("cache-control", "nothing")
    user = f"named-{secrets.token_hex(4)}"
    service.ask("GET", f"/v1/explain?user={user}", X_Request_Id="asked-for-this")
    service.ask("DELETE", f"/v1/users/{user}")
    time.sleep(0.5)
    log = service.log()
    said = f"{'a line' if 'asked-for-this' in log else 'no line'} with its id, {log.count(user)} with the user"
    return [
        Row(16, "HEAD /healthz", str(head.status), head.status == 200 and not head.body),
        Row(
            16, "OPTIONS of a route for admins, without a token", str(options.status), options.status in (401, 405)
        ),
        Row(16, "Cache-Control of an answer", kept, "no-store" in kept),
        Row(16, "requests in the log", said, "asked-for-this" in log and user not in log),
    ]


# On one worker with a file of tokens


def write_only(service: Service) -> list[Row]:
    """React as somebody else, with a token that may not read."""
    service.ask("POST", "/v1/events", {"event": "e", "user": "ann", "item": "item-77"}, READ_WRITE)
    given = {"user": "ann", "item": "item-5", "satisfaction": "1", "answer": ""}
    reply = service.form("/walk/react", given, WRITE, HX_Request="true")
    told = b"Title of item 77," in reply.body
    said = f"{reply.status}, {'with' if told else 'without'} the history"
    return [Row(6, "a token that only writes reacts for somebody", said, not told and reply.status == 403)]


def sign_in(service: Service) -> list[Row]:
    """What a browser is given."""
    wrong = service.form("/sign-in", {"token": "a-token-that-nobody-gave"})
    right = service.form("/sign-in", {"token": READ_WRITE})
    cookie = right.headers.get("set-cookie", "")
    what = "the token itself" if READ_WRITE in cookie else "a session" if cookie else "nothing"
    return [
        Row(12, "sign-in with a wrong token", str(wrong.status), wrong.status == 401),
        Row(12, "the cookie of who signs in", what, what == "a session"),
    ]


def taken_out(service: Service) -> list[Row]:
    """A token goes on working after its line is gone: for how long?"""
    what, path = "a token that is taken out of its file", service.workspace / "tokens"
    path.write_text(TOKENS)
    began = time.monotonic()
    while time.monotonic() < began + 10:
        if service.ask("GET", "/v1/clusters", token=SPARE).status == 401:
            took = time.monotonic() - began
            return [Row(12, what, f"works for {took:.1f} s more", took < 4)]
        time.sleep(0.2)
    return [Row(12, what, "works after 10 s", False)]


def wrong_tokens(service: Service) -> list[Row]:
    """Thirty wrong tokens a second, for four seconds. The last attack here: this address is refused then."""
    statuses: list[int] = []
    began = time.monotonic()
    for n in range(120):
        time.sleep(max(0.0, began + n / 30 - time.monotonic()))
        statuses.append(service.ask("GET", "/v1/clusters", token=f"guessed-{secrets.token_hex(8)}").status)
    return [Row(12, "30 wrong tokens a second, 4 s", _tally(statuses), 429 in statuses)]


# On services of their own


def killed_workers(place: Place) -> list[Row]:
    """The bundle loses a file, then one of two workers is killed, then all."""
    with served(place, workers=2) as service:
        (_bundle(service.workspace) / "vectors.npy").unlink()
        service.workers()[0].kill()
        # A supervisor may need a minute to see that the next one has failed.
        code = _wait(service.process, 65)
        statuses = [service.answer().status for _ in range(10)]
        held = statuses == [200] * 10 and code is None
        said = f"after 65 s {_tally(statuses)}; {'it runs' if code is None else f'it ended with {code}'}"
        for worker in service.workers():
            with suppress(psutil.NoSuchProcess):
                worker.kill()
        code = _wait(service.process, 70)
    ended = "runs on after 70 s" if code is None else f"exit code {code}"
    return [
        Row(3, "one worker of two is killed and cannot start again", said, held),
        Row(3, "no worker can start", ended, code not in (None, 0)),
    ]


def broken_from_the_start(place: Place) -> list[Row]:
    """`serve` where the bundle lacks a file."""
    workspace, port = place.copy(), free_port()
    (_bundle(workspace) / "vectors.npy").unlink()
    service = Service(place, workspace, port, place.serve(workspace, port))
    code = _wait(service.process, 30)
    service.stop()
    said = "runs on after 30 s" if code is None else f"exit code {code}"
    return [Row(3, "serve of a bundle without a file", said, code not in (None, 0))]


def full_disk(place: Place) -> list[Row]:
    """The workspace lies on a tmpfs that gets full, and has room again."""
    if os.geteuid():
        return [Row(4, "full disk", "not tried: mounting a tmpfs needs root", False)]
    disk = place.folder / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(disk)], check=True)
    try:
        with served(place, workers=2, workspace=place.copy(disk / "w")) as service:
            return _on_full_disk(service, disk / "filler")
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def _on_full_disk(service: Service, filler: Path) -> list[Row]:
    service.events("ann", 10)
    before = service.workers()
    with suppress(OSError), filler.open("wb", buffering=0) as out:
        while True:
            out.write(bytes(4096))
    writes: list[int] = []
    answers: list[int] = []
    # Routes that were not asked before are counted anew: where counts are files, these grow.
    for path in ("/v1/clusters", "/atlas", "/health", "/v1/items/item-1", "/v1/explain?user=ann", "/nowhere") * 2:
        service.ask("GET", path)
        writes.append(service.events("bob", 1000).status)
        answers.append(service.answer().status)
    time.sleep(1)
    alive = _alive(before)
    filler.unlink()
    time.sleep(2)
    again = [service.events("eve", 10).status for _ in range(5)]
    return [
        Row(4, "full disk: workers", f"{alive} of {len(before)} alive", alive == len(before)),
        Row(4, "full disk: 1,000 events", _tally(writes), set(writes) <= {200, 503} and 503 in writes),
        Row(4, "full disk: an answer to a history that is brought", _tally(answers), set(answers) == {200}),
        Row(4, "full disk: events after there is room again", _tally(again), set(again) == {200}),
    ]


def many_workers(place: Place) -> list[Row]:
    """The setting alone is read: nobody wants to see what would be started."""
    code = "import sys, pathlib; from byway.base import config; config.load(pathlib.Path('none'), sys.argv[1:])"
    found = place.python(code, "serving.workers=100000")
    said = "refused" if "UserError" in found.stderr else "taken" if found.returncode == 0 else "not tried"
    return [Row(9, "serving.workers = 100000", said, said == "refused")]


PUBLISH = """
import shutil, sys, pathlib
import msgspec, numpy as np
from byway.base import artifact, config
from byway.base.artifact import Outcome
from byway.base.errors import UserError
from byway.serving import bundle, publish
from byway.serving.person import Seen
from byway.serving.recommend import recommend
workspace, changed = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
opened, smoke = bundle.load(changed), []
for asked in bundle.load_smoke(changed):
    given = recommend(opened, [Seen(item) for item in asked.history], np.random.default_rng(asked.seed))
    said = {"strategy": given.strategy, "cluster": given.cluster, "items": [shown.item for shown in given.items]}
    smoke.append(msgspec.structs.replace(asked, **said))
(changed / "smoke.json").write_bytes(msgspec.json.encode(smoke))
path = workspace / "13-bundle"
with artifact.part(path, "bundle", {}, {}) as work:
    shutil.copytree(changed, work.out, dirs_exist_ok=True)
record = artifact.commit(path, "bundle", {}, {}, Outcome(timings={"seconds": 0.0}))
try:
    publish.publish(workspace, path, config.Serving(min_match_rate=0), {"bundle": record})
    print("published")
except UserError as error:
    print("refused:", str(error).replace(str(workspace), "W"))
"""
"""Publish a changed bundle as if it had been built so: its record and the answers that it carries are its own."""


def bad_bundles(place: Place) -> list[Row]:
    """Bundles whose records are right, and that answer nothing or cannot be drawn."""
    return [
        _published(place, "in which no item is good enough (min_quality = 2)", _no_item),
        _published(place, "whose levels.json is garbage", _no_levels),
    ]


def _no_item(bundle: Path) -> None:
    path = bundle / "manifest.json"
    said = json.loads(path.read_text())
    said["settings"]["min_quality"] = 2.0
    path.write_text(json.dumps(said))


def _no_levels(bundle: Path) -> None:
    (bundle / "levels.json").write_text('{"no": "levels"')


def _published(place: Place, what: str, change: Callable[[Path], None]) -> Row:
    workspace = place.copy()
    changed = place.folder / f"changed-{secrets.token_hex(3)}"
    shutil.copytree(_bundle(workspace), changed)
    for name in ("record.json", "figures.json"):
        (changed / name).unlink(missing_ok=True)
    change(changed)
    found = place.python(PUBLISH, str(workspace), str(changed))
    said = (found.stdout or found.stderr).strip().splitlines()[-1]
    return Row(10, f"publish of a bundle {what}", said[:200], said.startswith("refused"))


def second_serve(place: Place) -> list[Row]:
    """A second service beside the first, on the same workspace."""
    with served(place) as first:
        for _ in range(20):
            first.ask("GET", "/v1/clusters")
        before = _counted(first)
        with served(place, workspace=first.workspace) as second:
            second.ask("GET", "/v1/clusters")
            after = _counted(first)
        taken = Service(place, first.workspace, first.port, place.serve(first.workspace, first.port))
        code = _wait(taken.process, 30)
        taken.stop()
        left = _counted(first)
    counts = f"{before:.0f} before the second, {after:.0f} beside it, {left:.0f} after it"
    same = "runs" if code is None else f"exit code {code}"
    return [
        Row(13, "requests that the first of two services has counted", counts, before == after == left == 20),
        Row(13, "a second service on the same port", same, code not in (None, 0)),
    ]


def _counted(service: Service) -> float:
    text = service.ask("GET", "/metrics").body.decode()
    return sum(map(float, re.findall(r'^byway_requests_total\{.*"/v1/clusters".*\} (\S+)$', text, re.M)))


def killed_master(place: Place) -> list[Row]:
    """kill -9 of the supervisor: who answers on the port afterwards?"""
    with served(place, workers=2) as service:
        workers = service.workers()
        service.process.kill()
        service.process.wait()
        time.sleep(3)
        left, status = _alive(workers), service.health().status
    said = f"{left} orphans after 3 s; the port {'answers' if status else 'is free'}"
    return [Row(15, "kill -9 of the master", said, left == 0 and status == 0)]


OPEN = (
    endless_head, half_open, writing_get, locked, rights, malformed, manners, deletion, long_reads,
)  # fmt: skip
CLOSED = (write_only, sign_in, taken_out, wrong_tokens)
OWN = (
    killed_workers, broken_from_the_start, full_disk, many_workers, bad_bundles, second_serve, killed_master,
)  # fmt: skip
FAILURES = (OSError, RuntimeError, IndexError, subprocess.SubprocessError, psutil.Error, sqlite3.Error)


def tried(attack: Callable[[Any], list[Row]], on: Place | Service) -> list[Row]:
    """The rows of one attack, which are printed; one that cannot be carried out has not held."""
    try:
        rows = attack(on)
    except FAILURES as error:
        rows = [Row(99, attack.__name__, f"not carried out: {type(error).__name__}: {error}", False)]
    for row in rows:
        print(f"{'held' if row.held else 'BROKE':6}{row.number:3}  {row.attack}: {row.measured}", flush=True)
    return rows


def attacked(place: Place) -> list[Row]:
    """All attacks, in the order of their numbers: the worst first."""
    place.make()
    rows: list[Row] = []
    for attack in OWN:
        rows += tried(attack, place)
    with served(place) as service:
        for attack in OPEN:
            rows += tried(attack, service)
    with served(place, tokens=f"{TOKENS}{SPARE} read\n") as service:
        for attack in CLOSED:
            rows += tried(attack, service)
    return sorted(rows, key=lambda row: row.number)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, default=HERE, help="the folder src of a checkout")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        rows = attacked(Place(given.source.resolve(), Path(folder)))
    print(f"{sum(row.held for row in rows)} of {len(rows)} held, in {time.monotonic() - began:.0f} s")
    if given.json:
        given.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")


if __name__ == "__main__":
    main()
