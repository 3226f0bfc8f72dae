"""A service of real processes that stays up: workers that cannot start, a full disk, a killed supervisor."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import msgspec
import psutil
import pytest

from byway.base import config
from byway.base.errors import UserError
from byway.serving import processes, worker
from tests.serving import house, running

SERVE = [sys.executable, "-m", "byway", "serve"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("house") / "w"
    house.published(folder)
    return folder


@pytest.fixture
def workspace(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "w"))


def until(true: Callable[[], bool], what: str, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if true():
            return
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} seconds: {what}")


def health(url: str) -> dict[str, object]:
    try:
        return httpx.get(f"{url}/readyz", timeout=5).json()
    except httpx.TransportError:
        return {}


def children(process: int) -> list[int]:
    return [child.pid for child in psutil.Process(process).children()]


def lines(workspace: Path) -> list[dict[str, object]]:
    """The log; every line of it is JSON."""
    return [msgspec.json.decode(line) for line in (workspace / "serve.log").read_bytes().splitlines()]


def events(workspace: Path, name: str) -> list[dict[str, object]]:
    return [line for line in lines(workspace) if line["event"] == name]


def test_one_worker_that_cannot_start_takes_nobody_with_it(workspace: Path) -> None:
    """Before: the parent stopped all others, with code 0."""
    current = next((workspace / "published").glob("*/vectors.npy"))
    with running.processes(workspace, 2) as (server, url):
        until(lambda: health(url).get("workers") == 2, "two workers")
        current.rename(current.with_suffix(".away"))
        os.kill(children(server.pid)[0], signal.SIGKILL)
        until(lambda: len(events(workspace, "worker ended")) >= 4, "a worker that fails again and again")
        said = health(url)
        assert (said["status"], said["workers"], said["wanted"]) == ("ready", 1, 2)
        assert said["problems"] == ["1 of 2 workers answer."]
        assert httpx.post(f"{url}/v1/recommend", json={"k": 2}).status_code == 200
        assert "byway_workers 1.0" in httpx.get(f"{url}/metrics").text
        pauses = [line["again_in"] for line in events(workspace, "worker ended")]
        assert pauses[:4] == [0.5, 0.5, 1.0, 2.0] or pauses[:4] == [0.5, 1.0, 2.0, 4.0]
        current.with_suffix(".away").rename(current)
        until(lambda: health(url).get("workers") == 2, "two workers again")
        assert server.poll() is None
    assert server.returncode == 0


def test_a_service_that_cannot_be_given_ends_with_a_code(workspace: Path) -> None:
    """Before: healthy for a minute, then the end with code 0."""
    (workspace / "serving").mkdir(exist_ok=True)
    (workspace / "serving" / "events.db").write_bytes(os.urandom(8192))
    command = [*SERVE, str(workspace), "--port", str(running.free_port())]
    done = subprocess.run(command, capture_output=True, timeout=120, check=False)
    assert done.returncode == processes.UNABLE
    said = [msgspec.json.decode(line) for line in done.stderr.splitlines()]
    assert any(line["event"] == "no worker can be started" for line in said)
    assert any("not a database" in str(line) for line in said)


def test_a_worker_that_hangs_is_replaced(workspace: Path) -> None:
    code = "from byway import cli; from byway.serving import supervisor; supervisor.PATIENCE = 15.0; cli.main()"
    port = running.free_port()
    command = [sys.executable, "-c", code, "serve", str(workspace), "--port", str(port)]
    with (workspace / "serve.log").open("wb") as log:
        server = subprocess.Popen(command, stderr=log)
    try:
        url = f"http://127.0.0.1:{port}"
        until(lambda: health(url).get("workers") == 2, "two workers")
        stopped = children(server.pid)[0]
        os.kill(stopped, signal.SIGSTOP)
        until(lambda: stopped not in children(server.pid), "the end of the one that hangs")
        assert events(workspace, "worker hangs and is killed")
    finally:
        server.send_signal(signal.SIGINT)
        assert server.wait(30) == 0


def test_a_killed_supervisor_leaves_no_orphans(workspace: Path) -> None:
    with running.processes(workspace, 2) as (server, url):
        until(lambda: health(url).get("workers") == 2, "two workers")
        workers = children(server.pid)
        counts = Path(psutil.Process(workers[0]).environ()[worker.COUNTS])
        assert counts.is_dir()
        os.kill(server.pid, signal.SIGKILL)
        until(lambda: not any(map(psutil.pid_exists, workers)), "the end of the workers", 20)
        assert health(url) == {}
        assert not counts.exists()
        worker.listening("127.0.0.1", int(url.rpartition(":")[2]), shared=False).close()


def test_a_second_service_leaves_the_counts_of_the_first(workspace: Path) -> None:
    with running.processes(workspace, 1) as (_, url):
        for _ in range(5):
            assert httpx.get(f"{url}/v1/clusters").status_code == 200
        count = 'byway_requests_total{method="GET",route="/v1/clusters",status="200"} 5.0'
        assert count in httpx.get(f"{url}/metrics").text
        with running.processes(workspace, 1) as (_, other):
            assert count in httpx.get(f"{url}/metrics").text
            assert count not in httpx.get(f"{other}/metrics").text
        assert count in httpx.get(f"{url}/metrics").text


def test_counts_outlive_a_worker(workspace: Path) -> None:
    with running.processes(workspace, 1) as (server, url):
        for _ in range(5):
            assert httpx.get(f"{url}/v1/clusters").status_code == 200
        (first,) = children(server.pid)
        os.kill(first, signal.SIGKILL)
        until(lambda: health(url).get("workers") == 1 and children(server.pid) != [first], "a new worker")
        said = httpx.get(f"{url}/metrics").text
        assert 'byway_requests_total{method="GET",route="/v1/clusters",status="200"} 5.0' in said
        assert "byway_worker_restarts_total 1.0" in said


def test_renewed_workers_know_other_tokens_and_lose_no_request(workspace: Path) -> None:
    file = workspace / "tokens"
    file.write_text("the-first-of-two-tokens read\nthe-token-that-stays read\n", "utf-8")
    with running.processes(workspace, 2, BYWAY_TOKENS_FILE=str(file), BYWAY_SERVING_RATE="0") as (server, url):
        until(lambda: health(url).get("workers") == 2, "two workers")
        old, stop, wrong = children(server.pid), threading.Event(), list[object]()
        asked = [0]

        def ask() -> None:
            with httpx.Client(headers={"authorization": "Bearer the-token-that-stays"}) as client:
                while not stop.is_set():
                    try:
                        reply = client.get(f"{url}/v1/clusters?limit=1")
                    except httpx.TransportError as error:
                        wrong.append(error)
                        continue
                    asked[0] += 1
                    if reply.status_code != 200:
                        wrong.append(reply.status_code)

        asking = threading.Thread(target=ask)
        asking.start()
        file.write_text("the-token-that-stays read\n", "utf-8")
        server.send_signal(signal.SIGHUP)
        until(lambda: not set(old) & set(children(server.pid)), "two other workers")
        until(lambda: health(url).get("workers") == 2, "two workers")
        stop.set()
        asking.join()
        assert asked[0] > 10
        # A connection that closes while a request is on its way to it; one for each worker that went.
        assert len(wrong) <= 2, wrong
        headers = {"authorization": "Bearer the-first-of-two-tokens"}
        assert httpx.get(f"{url}/v1/clusters", headers=headers).status_code == 401


def test_it_drains_before_it_ends(workspace: Path) -> None:
    with running.processes(workspace, 1, BYWAY_SERVING_ACCESS_LOG="false") as (server, url):
        server.terminate()
        assert server.wait(30) == 0
    port = running.free_port()
    url = f"http://127.0.0.1:{port}"
    environment = os.environ | {"BYWAY_SERVING_PORT": str(port), "BYWAY_SERVING_WORKERS": "1"}
    code = "from byway import cli; from byway.serving import supervisor; supervisor.DRAIN_SECONDS = 3.0; cli.main()"
    with (workspace / "serve.log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-c", code, "serve", str(workspace)], stderr=log, env=environment
        )
    try:
        until(lambda: health(url).get("workers") == 1, "a worker")
        assert health(url)["wanted"] == 1
        server.terminate()
        until(lambda: httpx.get(f"{url}/readyz").status_code == 503, "not ready", 2)
        assert httpx.get(f"{url}/readyz").json()["detail"] == "The service is stopping."
        assert httpx.post(f"{url}/v1/recommend", json={"k": 2}).status_code == 200
        assert server.wait(30) == 0
    finally:
        server.kill()
    assert [line["event"] for line in lines(workspace)][-1] == "service ended"


def test_what_ends_a_process_is_a_line_of_json() -> None:
    code = "from byway.serving import logs; logs.configure(); import logging, warnings; warnings.warn('a'); "
    code += "logging.getLogger('x').error('b %s', 1); raise ValueError('c')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    said = [msgspec.json.decode(line) for line in done.stderr.splitlines()]
    assert [line["level"] for line in said] == ["warning", "error", "critical"]
    assert (said[1]["event"], "ValueError: c" in said[2]["exception"]) == ("b 1", True)


def test_settings_from_the_environment() -> None:
    given = {
        "BYWAY_SERVING_PORT": "1",
        "BYWAY_SERVING_RATE": "5",
        "BYWAY_SERVING_HISTORY": "redis://h:1/0",
        "PATH": "",
    }
    assert sorted(config.from_environment(given)) == ["serving.history=redis://h:1/0", "serving.rate=5"]
    with pytest.raises(UserError, match="BYWAY_SERVING_WORKER is no setting"):
        config.from_environment({"BYWAY_SERVING_WORKER": "2"})


# A full disk

INSIDE = """
mount -t tmpfs -o size=4m none {disk} && cp -r {source}/. {disk}/ || exit 9
exec {python} -m byway serve {disk} --port {port} --set serving.workers=2 \
  2> {disk}/serve.log
"""


def can_mount(folder: Path) -> bool:
    try:
        command = ["unshare", "-Urm", "mount", "-t", "tmpfs", "none", str(folder)]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def test_a_full_disk_ends_nothing(workspace: Path, tmp_path: Path) -> None:
    """Before: SIGBUS in the mapped files of counts. The log stands on the same disk."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if not can_mount(disk):
        pytest.skip("no file system can be mounted here")
    port = running.free_port()
    script = INSIDE.format(disk=disk, source=workspace, python=sys.executable, port=port)
    server = subprocess.Popen(["unshare", "-Urm", "sh", "-c", script])
    url = f"http://127.0.0.1:{port}"
    try:
        until(lambda: health(url).get("workers") == 2, "two workers")
        workers, within = children(server.pid), Path(f"/proc/{server.pid}/root{disk}")

        def store(name: str) -> int:
            event = {"event": name, "user": "u" * 200, "item": "c0-0"}
            return httpx.post(f"{url}/v1/events", json=event, timeout=20).status_code

        assert store("before") == 200
        with (within / "filler").open("wb", buffering=0) as filler:
            try:
                while filler.write(bytes(65536)):
                    pass
            except OSError:
                pass
        codes = [store(f"full-{n}") for n in range(40)]
        assert codes[-1] == 503
        # Routes that were never counted: new pages of the files of counts.
        for path in (
            "/v1/clusters",
            "/v1/items/c0-0",
            "/v1/items/no",
            "/metrics",
            "/v1/explain?user=a",
            "/nothing",
        ):
            assert httpx.get(url + path).status_code in (200, 404)
        # A probe counts for a second, and on a fast machine the disk is full sooner.
        until(lambda: httpx.get(f"{url}/readyz").status_code == 503, "that it is not ready")
        assert httpx.get(f"{url}/healthz").status_code == 200
        assert children(server.pid) == workers
        (within / "filler").unlink()
        until(lambda: store("after") == 200, "writes again")
        until(lambda: httpx.get(f"{url}/readyz").status_code == 200, "readiness again")
        log = httpx.get(f"{url}/v1/log", timeout=20).text
        # Nothing that was acknowledged is lost.
        assert log.count("c0-0") == 2 + codes.count(200)
        assert children(server.pid) == workers
    finally:
        server.send_signal(signal.SIGINT)
        assert server.wait(30) == 0


def test_without_room_for_counts_each_worker_counts_for_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(worker.COUNTS, str(tmp_path / "nowhere"))
    worker.count_together(tmp_path / "nowhere", 0)
    assert worker.COUNTS not in os.environ
