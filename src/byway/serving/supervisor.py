"""The process above the workers: starts them, starts them again, and tells them how all of them are.

Owns processes and nothing of HTTP. Each worker has a link to it: the worker says that it is ready and then beats,
and is told how many there are; the end of the link is the end of the supervisor, and a worker ends with it.
A worker that ends is started again after a pause that doubles; the others answer meanwhile. Where none answers and
every place has failed `TRIES` times in a row, the service cannot be given and the supervisor says so by its result.
"""

import os
import selectors
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
import structlog

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 60.0
"""Seconds until a worker is started again, and at most."""
STEADY = 10.0
"""A worker that was ready for so many seconds has not failed to start."""
TRIES = 3
PATIENCE = 60.0
"""Seconds of silence after which a worker hangs: one that starts on a busy machine is silent for long."""
DRAIN_SECONDS = 2.0
"""How long the service says that it is not ready, and answers, before it stops: a proxy in front that looks twice a
second (`deploy/haproxy.cfg`) has seen it by then."""
STOPPING = 15.0
"""Seconds that a worker has to end what it has begun: more than the ten that it gives itself."""
READY, BEAT = b"r", b"b"

log = structlog.get_logger()


class Fleet(msgspec.Struct):
    """How the workers of a service are, as each of them is told."""

    ready: int = 1
    wanted: int = 1
    restarts: int = 0
    draining: bool = False


@dataclass(eq=False)
class Worker:
    """One process."""

    number: int
    process: "subprocess.Popen[bytes]"
    link: socket.socket
    heard: float
    ready_at: float | None = None
    told_to_stop: float | None = None


@dataclass(eq=False)
class Place:
    """Where a worker is wanted: who is there, who is to follow, and how often starting failed in a row."""

    worker: Worker | None = None
    next: Worker | None = None
    failures: int = 0
    due: float = 0.0
    renew: bool = False

    def workers(self) -> list[Worker]:
        """Whoever is there."""
        return [w for w in (self.worker, self.next) if w is not None]


@dataclass(eq=False)
class Supervisor:
    """Keeps `wanted` workers, each the process `command` with a link and a number in its environment."""

    command: Sequence[str]
    environment: Mapping[str, str]
    wanted: int
    places: list[Place] = field(default_factory=list)
    restarts: int = 0
    _signals: list[int] = field(default_factory=list)
    _stop_at: float | None = None
    _told: Fleet | None = None
    _selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)

    def run(self) -> bool:
        """Until told to stop: whether it could serve."""
        self.places = [Place() for _ in range(self.wanted)]
        kept = {
            number: signal.signal(number, lambda given, _: self._signals.append(given))
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        }
        try:
            while True:
                self._obey()
                now = time.monotonic()
                if self._stop_at is not None and now >= self._stop_at:
                    return True
                self._look(now)
                if self._stop_at is None and self._hopeless():
                    log.error("no worker can be started", tries=TRIES)
                    return False
                self._tell()
                self._listen()
        finally:
            notify("STOPPING=1")
            self._end()
            for number, handler in kept.items():
                signal.signal(number, handler)

    def _all(self) -> list[Worker]:
        return [w for place in self.places for w in place.workers()]

    def _hopeless(self) -> bool:
        return all(place.failures >= TRIES for place in self.places) and not any(w.ready_at for w in self._all())

    def _obey(self) -> None:
        while self._signals:
            given = self._signals.pop(0)
            if given == signal.SIGHUP:
                log.info("workers are renewed")
                for place in self.places:
                    place.renew, place.due, place.failures = True, 0.0, 0
                continue
            # A person at the keyboard and whoever asks twice wait for no proxy to notice.
            now = time.monotonic()
            hurried = given == signal.SIGINT or self._stop_at is not None
            left = 0.0 if hurried else DRAIN_SECONDS
            self._stop_at = now + left
            log.info("service stops", drain_seconds=left)

    def _look(self, now: float) -> None:
        for place in self.places:
            for worker in place.workers():
                code = worker.process.poll()
                if code is not None:
                    self._ended(place, worker, code, now)
                elif now - worker.heard > PATIENCE or (worker.told_to_stop or now) < now - STOPPING:
                    log.error("worker hangs and is killed", process=worker.process.pid)
                    worker.process.kill()
                elif worker.ready_at is not None and worker is place.worker and now - worker.ready_at > STEADY:
                    place.failures = 0
            if place.worker is None and self._stop_at is None and now >= place.due:
                place.worker, place.renew = self._start(now), False
        # One after the other, so that there are always as many that answer as before.
        if self._stop_at is None and not any(place.next for place in self.places):
            for place in self.places:
                if place.renew and place.worker is not None and place.worker.ready_at is not None:
                    place.next, place.renew = self._start(now), False
                    break

    def _start(self, now: float) -> Worker:
        number = min(set(range(2 * self.wanted + 1)) - {w.number for w in self._all()})
        mine, its = socket.socketpair()
        with its:
            own = {"BYWAY_LINK": str(its.fileno()), "BYWAY_WORKER": str(number)}
            process = subprocess.Popen(
                self.command,
                env={**self.environment, **own},
                stdin=subprocess.DEVNULL,
                pass_fds=(its.fileno(),),
                # A Ctrl-C at the keyboard reaches the supervisor alone, which says what is to be done.
                start_new_session=True,
            )
        mine.setblocking(False)
        worker = Worker(number, process, mine, now)
        self._selector.register(mine, selectors.EVENT_READ, worker)
        self._told = None
        return worker

    def _ended(self, place: Place, worker: Worker, code: int, now: float) -> None:
        self._selector.unregister(worker.link)
        worker.link.close()
        if worker is place.next:
            place.next = None
            log.error("worker could not be renewed; the old one goes on", code=code)
            for other in self.places:
                other.renew = False
            return
        place.worker, place.next = place.next, None
        if worker.told_to_stop is not None:
            return
        place.failures += 1
        pause = min(FIRST_PAUSE * 2 ** (place.failures - 1), LONGEST_PAUSE)
        place.due = now + pause
        self.restarts += 1
        how = {"signal": signal.Signals(-code).name} if code < 0 else {"code": code}
        log.error("worker ended", process=worker.process.pid, failures=place.failures, again_in=pause, **how)

    def _tell(self) -> None:
        ready = sum(w.ready_at is not None and w.told_to_stop is None for w in self._all())
        fleet = Fleet(ready, self.wanted, self.restarts, self._stop_at is not None)
        if fleet == self._told:
            return
        self._told = fleet
        line = msgspec.json.encode(fleet) + b"\n"
        for worker in self._all():
            try:
                worker.link.send(line)
            except OSError:
                continue  # it has ended, or hangs: either is seen by other means
        log.info("workers", ready=ready, wanted=self.wanted)

    def _listen(self) -> None:
        for key, _ in self._selector.select(0.1):
            worker: Worker = key.data
            try:
                said = worker.link.recv(4096)
            except OSError:
                continue
            if not said:
                time.sleep(0.01)  # it is ending, which the next look at its process says
                continue
            worker.heard = time.monotonic()
            if READY in said and worker.ready_at is None:
                worker.ready_at = worker.heard
                for place in self.places:
                    if place.next is worker and place.worker is not None:
                        self._stop(place.worker)
                if self._told is None or self._told.ready == 0:
                    notify("READY=1")

    def _stop(self, worker: Worker) -> None:
        if worker.told_to_stop is None and worker.process.poll() is None:
            worker.told_to_stop = time.monotonic()
            worker.process.send_signal(signal.SIGTERM)

    def _end(self) -> None:
        for worker in self._all():
            self._stop(worker)
        end = time.monotonic() + STOPPING
        for worker in self._all():
            try:
                worker.process.wait(max(end - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()
            worker.link.close()
        self._selector.close()


def notify(state: str) -> None:
    """Tell systemd, where it started this (`Type=notify`)."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        try:
            s.sendto(state.encode(), "\0" + address[1:] if address[0] == "@" else address)
        except OSError as error:
            log.warning("systemd was not told", reason=str(error))
