"""What one connection may do to a worker, and what each reply carries."""

import json
import re
import socket
import sqlite3
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
import structlog

from byway.base import config
from byway.serving import connections, logs, readiness
from byway.serving.supervisor import Fleet
from tests.serving import running


def connect(client: httpx.Client) -> socket.socket:
    return socket.create_connection((client.base_url.host, client.base_url.port or 0), 10)


def rest(link: socket.socket, seconds: float = 5) -> bytes | None:
    """All that comes until the other side closes; None where it does not."""
    link.settimeout(seconds)
    said = b""
    try:
        while more := link.recv(65536):
            said += more
    except TimeoutError:
        return None
    except ConnectionError:
        pass
    return said


# Bounds in bytes

MEGABYTE = 1_000_000


@pytest.mark.parametrize("one_header", [False, True])
def test_a_head_has_a_bound_in_bytes(client: httpx.Client, one_header: bool) -> None:
    """Before: 300 MiB of headers were taken in a second, and one that did not end was copied for each piece."""
    sent, piece = 0, b"a" * 60_000
    with connect(client) as link:
        link.sendall(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nx: ")
        try:
            for n in range(500):
                link.sendall(piece if one_header else b"a\r\nx-%d: " % n + piece)
                sent += len(piece)
        except ConnectionError:
            pass
        assert sent < 20 * MEGABYTE  # what two sockets hold between them, and no more
    assert client.get("/healthz").status_code == 200


@pytest.mark.parametrize(
    "head",
    [
        b"x: " + b"a" * 40_000 + b"\r\n",
        b"".join(b"x-%d: 1\r\n" % n for n in range(200)),
    ],
)
def test_a_head_that_is_too_large_is_said_to_be(client: httpx.Client, head: bytes) -> None:
    with connect(client) as link:
        link.sendall(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n" + head + b"\r\n")
        said = rest(link)
    assert said is not None
    assert said.startswith(b"HTTP/1.1 431 ")
    assert json.loads(said.partition(b"\r\n\r\n")[2])["status"] == 431


def test_heads_up_to_the_bound_are_answered(client: httpx.Client) -> None:
    headers = {f"x-{n}": "a" * 300 for n in range(80)}
    for _ in range(3):  # what was counted is counted anew for each request
        assert client.get("/healthz", headers=headers).status_code == 200


def test_a_body_that_is_refused_is_not_read_for_ever(client: httpx.Client) -> None:
    sent = 0
    with connect(client) as link:
        head = b"POST /v1/events HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        link.sendall(head + b"content-length: 900000000\r\n\r\n")
        try:
            for _ in range(400):
                link.sendall(b" " * 100_000)
                sent += 100_000
        except ConnectionError:
            pass
    assert sent < 30 * MEGABYTE


def test_what_is_no_http_is_a_problem(client: httpx.Client) -> None:
    with connect(client) as link:
        link.sendall(b"\x16\x03\x01 no http\r\n\r\n")
        said = rest(link) or b""
    assert said.startswith(b"HTTP/1.1 400 ")
    assert b"application/problem+json" in said


# Bounds in time

HALF = {
    "silent": b"",
    "half a line": b"GET /hea",
    "half a head": b"GET /healthz HTTP/1.1\r\nhost: lo",
    "only ends of lines": b"\r\n",
    "the second half": b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\nGET /heal",
    "a body after its answer": b"POST /healthz HTTP/1.1\r\nhost: localhost\r\ncontent-length: 50\r\n\r\n{",
}


@pytest.mark.parametrize("name", HALF)
def test_half_a_request_is_ended(client: httpx.Client, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Before: the timer started once a head was read, and 20 of 20 were open after ten minutes."""
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.4)
    with connect(client) as link:
        link.sendall(HALF[name])
        time.sleep(0.2)
        started = time.perf_counter()
        if name in ("half a head", "only ends of lines"):

            def drip() -> None:
                try:
                    for _ in range(40):
                        link.sendall(HALF[name][-1:])
                        time.sleep(0.05)
                except OSError:
                    pass

            threading.Thread(target=drip, daemon=True).start()
        said = rest(link)
    assert said is not None
    assert time.perf_counter() - started < 3
    if name in ("half a line", "half a head", "the second half"):
        assert b"HTTP/1.1 408 " in said


def test_who_does_not_read_is_left(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "STALLED_SECONDS", 0.3)
    with connect(client) as link:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        ask = b"GET /v1/clusters HTTP/1.1\r\nhost: localhost\r\n\r\n"
        link.settimeout(5)
        with pytest.raises(ConnectionError):  # noqa: PT012
            for _ in range(400):
                link.sendall(ask * 20)
                time.sleep(0.01)
    assert client.get("/healthz").status_code == 200


def test_half_open_connections_keep_nobody_out(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before: as many as there are descriptors, and nobody was answered."""
    monkeypatch.setattr(connections.Connection, "limit", 40)
    with ExitStack() as stack:
        half = [stack.enter_context(connect(client)) for _ in range(200)]
        for link in half:
            try:
                link.sendall(b"GET /healthz HTTP/1.1\r\nho")
            except ConnectionError:
                continue
        for _ in range(10):
            # Each time on a connection of its own.
            assert httpx.get(f"{str(client.base_url).rstrip('/')}/healthz", timeout=5).status_code == 200
        gone = sum(rest(link, 0.01) is not None for link in half)
    assert gone >= 150


# What replies carry


@pytest.mark.parametrize("path", ["/healthz", "/v1/clusters", "/", "/static/byway.css", "/v1/items/c0-0"])
def test_head_is_get_without_a_body(client: httpx.Client, path: str) -> None:
    whole, head = client.get(path), client.head(path)
    assert (head.status_code, head.content) == (whole.status_code, b"")
    assert head.headers["content-type"] == whole.headers["content-type"]


def test_options_say_nothing(client: httpx.Client) -> None:
    for path in ("/v1/log", "/v1/recommend", "/nothing"):
        reply = client.options(path)
        assert (reply.status_code, reply.json()["status"]) == (405, 405)


def test_nothing_is_kept_by_a_cache_on_the_way(client: httpx.Client) -> None:
    for path in (
        "/healthz",
        "/v1/clusters",
        "/v1/explain?user=a",
        "/",
        "/metrics",
        "/nothing",
        "/schema/openapi.json",
    ):
        assert client.get(path).headers["cache-control"] == "no-store", path
    assert "max-age" in client.get("/static/byway.css").headers["cache-control"]


def test_ids_of_a_request_come_back(client: httpx.Client) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    reply = client.get("/healthz", headers={"x-request-id": "mine-1", "traceparent": trace})
    assert (reply.headers["x-request-id"], reply.headers["traceparent"]) == ("mine-1", trace)
    plain = client.get("/nothing")
    assert re.fullmatch("[0-9a-f]{32}", plain.headers["x-request-id"])
    assert "traceparent" not in plain.headers


@pytest.mark.parametrize(
    "headers",
    [
        [(b"x-request-id", b"a b"), (b"traceparent", b"00-1-2-3")],
        [(b"x-request-id", b"x" * 129), (b"traceparent", b"00-" + b"0" * 32 + b"-b7ad6b7169203331-01")],
        [
            (b"x-request-id", b'a\xe4"'),
            (b"traceparent", b"ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ],
    ],
)
def test_ids_that_are_none_are_not_taken(headers: list[tuple[bytes, bytes]]) -> None:
    found, back = logs.ids(headers)
    assert set(found) == {"request_id"}
    assert back == [(b"x-request-id", found["request_id"].encode())]
    assert re.fullmatch("[0-9a-f]{32}", found["request_id"])


def test_the_log_knows_routes_and_no_names(client: httpx.Client) -> None:
    with structlog.testing.capture_logs(processors=[structlog.contextvars.merge_contextvars]) as said:
        client.get("/v1/items/a-private-name", headers={"x-request-id": "mine-2"})
        client.delete("/v1/users/a-private-name")
        client.get("/v1/explain", params={"user": "a-private-name"})
    requests = [line for line in said if line["event"] == "request"]
    assert [(r["method"], r["status"]) for r in requests] == [("GET", 404), ("DELETE", 200), ("GET", 200)]
    assert requests[0]["request_id"] == "mine-2"
    assert requests[1]["route"] == "/v1/users/{user}"
    assert all(r["ms"] > 0 for r in requests)
    assert "a-private-name" not in repr(said)


# Readiness


def test_readiness_covers_writes(client: httpx.Client, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "FRESH", 0.0)
    monkeypatch.setattr(readiness, "PATIENCE", 0.5)
    assert client.get("/readyz").json()["status"] == "ready"
    for name in ("events.db", "answers.db"):
        holder = sqlite3.connect(workspace / "serving" / name, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        reply = client.get("/readyz")
        assert (reply.status_code, client.get("/healthz").status_code) == (503, 200)
        assert "history" in reply.json()["detail"]
        holder.execute("ROLLBACK")
        holder.close()
        for _ in range(50):
            if client.get("/readyz").status_code == 200:
                break
            time.sleep(0.1)
        else:
            raise AssertionError("it did not come back")


def test_the_probe_writes_once_a_second_at_most(client: httpx.Client, workspace: Path) -> None:
    journal = workspace / "serving" / "events.db-wal"
    for _ in range(5):
        client.get("/readyz")
    before = journal.stat().st_size
    started = time.monotonic()
    for _ in range(100):
        assert client.get("/readyz").status_code == 200
    pages = (journal.stat().st_size - before) / 4096
    assert pages <= 2 * (time.monotonic() - started + 1)


def test_the_figures_of_the_moment(client: httpx.Client) -> None:
    said = client.get("/metrics").text
    for line in (
        r'byway_build_info{python="3[.\d]+",version="[.\d]+"} 1.0',
        r'byway_bundle_info{bundle="[0-9a-f]{16}"} 1.0',
        r"byway_bundle_loaded_timestamp_seconds 1\.\d+e\+09",
        r"byway_bundle_items 240.0",
        r'byway_store_size_bytes{file="events.db"} \d+',
        r"byway_workers 1.0",
        r"byway_worker_restarts_total 0.0",
    ):
        assert re.search(line, said), line
    types = dict(re.findall(r"# TYPE (\S+) (\S+)", said))
    assert len(re.findall("# TYPE", said)) == len(types)
    ours = {name: kind for name, kind in types.items() if name.startswith("byway_") and "_created" not in name}
    assert len(ours) > 15
    for name, kind in ours.items():
        assert name.endswith("_total") == (kind == "counter"), name


def test_readiness_turns_before_the_end(workspace: Path) -> None:
    fleet = Fleet()
    with running.thread(workspace, fleet=fleet) as client:
        assert client.get("/readyz").status_code == 200
        fleet.draining = True
        assert client.get("/readyz").status_code == 503
        assert client.post("/v1/recommend", json={"k": 2}).status_code == 200


DEPLOY = Path(__file__).parents[2] / "deploy"


def test_the_dashboard_asks_for_figures_that_there_are(client: httpx.Client) -> None:
    client.post("/v1/recommend", json={"k": 2})
    there = set(re.findall(r"# TYPE (\S+) ", client.get("/metrics").text))
    dashboard = json.loads((DEPLOY / "grafana.json").read_text("utf-8"))
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    names = {re.sub("_bucket$", "", name) for expr in asked for name in re.findall(r"byway_\w+", expr)}
    assert len(names) >= 14
    assert names <= there
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)


def test_the_unit_starts_a_verb_that_there_is() -> None:
    unit = (DEPLOY / "byway.service").read_text("utf-8")
    assert "ExecStart=/opt/byway/bin/byway serve " in unit
    named = dict.fromkeys(re.findall(r"BYWAY_SERVING_[A-Z_]+", unit), "1")
    assert named
    config.from_environment(named)
