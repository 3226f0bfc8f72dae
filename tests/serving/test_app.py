"""What the service replies over HTTP."""

import csv
import io
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import httpx
import msgspec
import numpy as np
import pytest

from byway.base import config
from byway.base.errors import UserError
from byway.serving import app, history, processes, security, stores, worker
from byway.serving.history import DAY
from byway.serving.service import now
from tests.serving import house, running

TOKENS = {"reader-of-things": "read", "writer-of-things": "write", "the-administrator": "read,write,admin"}


def known(tmp: Path) -> dict[bytes, security.Token]:
    (tmp / "tokens").write_text("# ours\n" + "".join(f"{t} {s}\n" for t, s in TOKENS.items()), "utf-8")
    return security.tokens(tmp / "tokens")


@pytest.fixture(scope="module")
def guarded(workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with running.thread(workspace, known(tmp_path_factory.mktemp("t")), rate=0) as found:
        yield found


def send(client: httpx.Client, user: str, *items: str, satisfaction: float = 1.0) -> dict[str, int]:
    events = [{"event": f"{user}-{i}", "user": user, "item": i, "satisfaction": satisfaction} for i in items]
    reply = client.post("/v1/events", json=events)
    assert reply.status_code == 200, reply.text
    return reply.json()


def is_problem(reply: httpx.Response, status: int) -> bool:
    body = reply.json()
    return (
        reply.status_code == status == body["status"]
        and reply.headers["content-type"] == "application/problem+json"
        and bool(body["title"] and body["detail"])
    )


def log_of(client: httpx.Client, user: str) -> list[dict[str, str]]:
    reply = client.get("/v1/log")
    return [row for row in csv.DictReader(io.StringIO(reply.text)) if row["user"] == user]


# Answers


def test_an_answer_says_why_for_each_item(client: httpx.Client) -> None:
    history = [{"item": "c0-1"}, {"item": "c6-1"}]
    reply = client.post("/v1/recommend", json={"history": history, "k": 3}).json()
    assert reply["strategy"] == "table"
    assert reply["interests"] == [house.NAMES[0], house.NAMES[6]]
    assert reply["cluster"] not in reply["interests"]
    assert len(reply["items"]) == 3
    for item in reply["items"]:
        assert item["cluster"] == reply["cluster"] == house.NAMES[int(item["item"][1:].split("-")[0])]
        assert item["interests"] == reply["interests"]
        assert (item["found_by"], item["propensity"], item["experiment"]) == ("table", 1.0, "byway")
    assert reply["reasons"]


def test_what_somebody_did_counts_in_the_next_request(client: httpx.Client) -> None:
    assert client.post("/v1/recommend", json={"user": "next"}).json()["strategy"] == "popular_items"
    for n, (item, name) in enumerate([("c0-0", 0), ("c3-0", 3), ("c7-0", 7)]):
        assert send(client, "next", item) == {"stored": 1, "known": 0, "expired": 0}
        reply = client.post("/v1/recommend", json={"user": "next"}).json()
        assert house.NAMES[name] in client.get("/v1/explain", params={"user": "next"}).text
        assert reply["cluster"] not in [house.NAMES[c] for c in (0, 3, 7)[: n + 1]]
        assert item not in [i["item"] for i in reply["items"]]


def test_exposures_are_in_the_log_with_what_came_of_them(client: httpx.Client) -> None:
    send(client, "logged", "c0-0", "c1-0", "c2-0")
    reply = client.post("/v1/recommend", json={"user": "logged", "k": 2}).json()
    first, second = (item["item"] for item in reply["items"])
    liked = {"event": "r", "user": "logged", "item": second, "satisfaction": 0.75, "answer": reply["answer"]}
    assert client.post("/v1/events", json=liked).json()["stored"] == 1
    rows = {row["item"]: row for row in log_of(client, "logged")}
    assert set(rows) == {"c0-0", "c1-0", "c2-0", first, second}
    assert rows["c0-0"]["propensity"] == ""
    chance = reply["items"][0]["propensity"]
    assert 0 < chance < 1
    for item, satisfaction in ((first, 0.0), (second, 0.75)):
        assert rows[item]["source"] == "byway:byway:table"
        assert float(rows[item]["propensity"]) == chance
        assert float(rows[item]["satisfaction"]) == satisfaction


def test_the_log_is_an_input_of_the_pipeline(client: httpx.Client, tmp_path: Path) -> None:
    from byway.data import catalog as module
    from byway.data import events

    send(client, "again, “quoted”", "c4-1", "c5-0")
    client.post("/v1/recommend", json={"user": "again, “quoted”", "k": 4})
    with (tmp_path / "items.csv").open("w", newline="", encoding="utf-8") as f:
        writer = csv.writer(f)
        writer.writerows(
            [("item", "title"), *((f"c{c}-{i}", f"title {c} {i}") for c in range(12) for i in range(20))]
        )
    (tmp_path / "events.csv").write_bytes(client.get("/v1/log").content)
    for name in ("out", "scratch"):
        (tmp_path / name).mkdir()
    settings = config.Catalog(source="csv", items=str(tmp_path / "items.csv"), events=str(tmp_path / "events.csv"))
    from byway.base.artifact import Work

    outcome = module.build(
        Work(tmp_path / "out", tmp_path / "scratch", np.random.default_rng(0)), settings, tmp_path
    )
    log, users = events.load(tmp_path / "out"), events.load_users(tmp_path / "out")
    assert outcome.counts["events"] == len(log) > 0
    assert "again, “quoted”" in users
    assert (log.user == users.index("again, “quoted”")).sum() == 6
    assert log.clock


def test_exclude_context_and_mix(client: httpx.Client) -> None:
    history = [{"item": "c0-1"}, {"item": "c6-1"}]
    asked = {"history": history, "k": 4}
    plain = client.post("/v1/recommend", json=asked).json()
    out = [item["item"] for item in plain["items"][:2]]
    without = client.post("/v1/recommend", json=asked | {"exclude": out}).json()
    assert [i["item"] for i in without["items"]][:2] == [i["item"] for i in plain["items"]][2:]
    watched = client.post("/v1/recommend", json={"history": history[:1], "context": "c6-2"}).json()
    assert watched["interests"] == [house.NAMES[0], house.NAMES[6]]
    mixed = client.post("/v1/recommend", json=asked | {"mix": 0.5}).json()
    assert sorted(item["found_by"] for item in mixed["items"]) == ["known", "known", "table", "table"]
    assert {i["cluster"] for i in mixed["items"] if i["found_by"] == "known"} <= set(mixed["interests"])


def test_events_are_taken_in_once(client: httpx.Client) -> None:
    event = {"event": "1", "user": "once", "item": "c0-0"}
    assert client.post("/v1/events", json=event).json() == {"stored": 1, "known": 0, "expired": 0}
    old = {"event": "2", "user": "once", "item": "c0-1", "time": now() - 31 * DAY}
    assert client.post("/v1/events", json=[event, old]).json() == {"stored": 0, "known": 1, "expired": 1}
    ahead = {"event": "3", "user": "once", "item": "c0-1", "time": now() + 2 * DAY}
    assert is_problem(client.post("/v1/events", json=ahead), 400)
    assert len(log_of(client, "once")) == 1


def test_a_user_is_deleted_by_one_call(client: httpx.Client) -> None:
    name = "gone/with a ünusual name"
    send(client, name, "c0-0", "c1-0")
    client.post("/v1/recommend", json={"user": name})
    assert len(log_of(client, name)) > 2
    assert client.delete(f"/v1/users/{name}").json() == {"deleted": 3}
    assert log_of(client, name) == []
    assert client.post("/v1/recommend", json={"user": name}).json()["strategy"] == "popular_items"


@pytest.mark.parametrize("name", ["ann/", "ann//x", "/ann", "https://x.org/a/", "a%2Fb", "ann?x=1#y", "aGk//w=="])
def test_whoever_is_deleted_is_who_was_named(client: httpx.Client, name: str) -> None:
    others = ["ann", "ann/x", "https:/x.org/a", "a/b", "aGk/w=="]
    for user in (name, *others):
        send(client, user, "c0-0")
    # As a client has to write an id that a path cannot hold, and as most write it.
    path = quote(name, safe="") if set(name) & set("%?#") else quote(name, safe="/:")
    assert client.delete(f"/v1/users/{path}").json() == {"deleted": 1}
    assert log_of(client, name) == []
    assert all(len(log_of(client, user)) == 1 for user in others)
    for user in others:
        client.delete(f"/v1/users/{quote(user, safe='')}")


def test_clusters_and_items(client: httpx.Client) -> None:
    found = client.get("/v1/clusters", params={"q": "JAZZ"}).json()
    assert found["total"] == 1
    assert found["clusters"][0]["description"] == "jazz, piano"
    assert (found["clusters"][0]["items"], len(found["clusters"][0]["next"])) == (20, 5)
    pages = [client.get("/v1/clusters", params={"offset": o, "limit": 5}).json()["clusters"] for o in (0, 5, 10)]
    assert [c["description"] for page in pages for c in page] == house.NAMES
    facts = client.get("/v1/items/c4-0").json()
    assert (facts["title"], facts["cluster"]) == (house.HOSTILE[0], house.NAMES[4])
    assert is_problem(client.get("/v1/items/nothing/of the kind"), 404)


def test_health(client: httpx.Client, workspace: Path) -> None:
    assert client.get("/healthz").json()["status"] == "ok"
    ready = client.get("/readyz").json()
    assert (workspace / "published" / ready["bundle"]).is_dir()
    said = client.get("/metrics").text
    assert 'byway_answers_total{strategy="table"}' in said
    assert 'byway_requests_total{method="GET",route="/healthz",status="200"}' in said


# Who may ask


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("POST", "/v1/recommend", "read"),
        ("POST", "/v1/events", "write"),
        ("GET", "/v1/explain?user=a", "read"),
        ("GET", "/v1/clusters", "read"),
        ("GET", "/v1/items/c0-0", "read"),
        ("DELETE", "/v1/users/a", "admin"),
        ("GET", "/v1/log", "admin"),
        ("GET", "/metrics", "read"),
        ("GET", "/", "read"),
        ("GET", "/atlas/tree.json", "read"),
        ("GET", "/health", "read"),
        ("GET", "/experiment", "read"),
        ("POST", "/walk/make", "write"),
    ],
)
def test_every_route_asks_for_its_scope(guarded: httpx.Client, method: str, path: str, scope: str) -> None:
    bodies: dict[str, dict[str, object]] = {
        "/walk/make": {"content": b"", "headers": {"content-type": "application/x-www-form-urlencoded"}},
        "/v1/events": {"json": {"event": "e", "user": "u", "item": "c0-0"}},
        "/v1/recommend": {"json": {}},
    }
    given = bodies.get(path, {})

    def ask(**headers: str) -> httpx.Response:
        more = {**given, "headers": {**given.get("headers", {}), **headers}}
        return guarded.request(method, path, **more)

    unknown = ask()
    assert is_problem(unknown, 401)
    assert unknown.headers["www-authenticate"] == "Bearer"
    assert is_problem(ask(authorization="Bearer reader-of-thing"), 401)
    assert is_problem(ask(authorization="Basic reader-of-things"), 401)
    for token, scopes in TOKENS.items():
        reply = ask(authorization=f"Bearer {token}")
        if scope in scopes.split(","):
            assert reply.status_code in (200, 303)
        else:
            assert is_problem(reply, 403)


def test_browsers_are_led_to_the_sign_in(guarded: httpx.Client) -> None:
    reply = guarded.get("/", headers={"accept": "text/html,*/*"})
    assert (reply.status_code, reply.headers["location"]) == (303, "/sign-in")
    wrong = guarded.post("/sign-in", data={"token": "not-a-known-token"})
    assert wrong.status_code == 401
    assert "not known" in wrong.text
    assert "set-cookie" not in wrong.headers
    right = guarded.post("/sign-in", data={"token": "reader-of-things"})
    cookie = right.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert "reader-of-things" not in cookie
    assert guarded.get("/", headers={"cookie": cookie.split(";")[0]}).status_code == 200
    guarded.cookies.clear()


def test_a_token_has_a_rate_that_workers_share(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = known(tmp_path)
    monkeypatch.setattr(app, "BURST", 5)
    with running.thread(workspace, tokens, rate=0.01) as client:
        headers = {"authorization": "Bearer reader-of-things"}
        found = [client.get("/v1/clusters", headers=headers) for _ in range(8)]
        assert [r.status_code for r in found] == [200] * 5 + [429] * 3
        assert is_problem(found[-1], 429)
        assert 0 < int(found[-1].headers["retry-after"]) <= 101
        # Another token has its own, and the allowance is in a file that another worker maps too.
        other = {"authorization": "Bearer the-administrator"}
        assert client.get("/v1/clusters", headers=other).status_code == 200
        limits = security.Limits(workspace / "serving" / "limits.bin", len(tokens), 0.01, 5)
        place = tokens[security.digest("reader-of-things")].place
        assert limits.wait(place) > 0
        limits.close()
    (workspace / "serving" / "limits.bin").unlink()


@pytest.mark.parametrize(("rate", "burst"), [(200, 1), (7, 1), (3, 2)])
def test_whoever_keeps_to_the_rate_is_never_refused(tmp_path: Path, rate: float, burst: int) -> None:
    limits = security.Limits(tmp_path / "l", 1, rate=rate, burst=burst)
    start = 1_795_000_000.1  # a clock's number today has fewer digits behind the point than one near 0
    assert [limits.wait(0, start + n / rate) for n in range(100)] == [0.0] * 100
    limits.close()


def test_an_allowance_that_other_settings_used_up_is_no_longer_than_these(tmp_path: Path) -> None:
    limits = security.Limits(tmp_path / "l", 1, rate=1, burst=600)
    assert [limits.wait(0, 100.0) for _ in range(600)] == [0.0] * 600
    limits.close()
    limits = security.Limits(tmp_path / "l", 1, rate=200, burst=400)
    assert limits.wait(0, 100.0) == pytest.approx(1 / 200)
    assert limits.wait(0, 100.01) == 0.0
    limits.close()


def test_the_allowance_comes_back(tmp_path: Path) -> None:
    limits = security.Limits(tmp_path / "l", 2, rate=10, burst=3)
    assert [limits.wait(1, 100.0) for _ in range(3)] == [0.0] * 3
    assert limits.wait(1, 100.0) == pytest.approx(0.1)
    assert limits.wait(1, 100.11) == 0.0
    assert limits.wait(1, 100.11) > 0
    assert [limits.wait(1, 200.0) for _ in range(4)][:3] == [0.0] * 3
    assert limits.wait(0, 100.0) == 0.0
    limits.close()


@pytest.mark.parametrize(
    "text", ["short read", "a-long-enough-token", "a-long-enough-token root", "a-long-enough-token read write"]
)
def test_a_wrong_line_of_tokens_is_one_sentence_without_the_token(tmp_path: Path, text: str) -> None:
    (tmp_path / "tokens").write_text(f"\n{text}\n", "utf-8")
    with pytest.raises(UserError, match="line 2") as error:
        security.tokens(tmp_path / "tokens")
    assert text.split()[0] not in str(error.value)


def test_tokens_from_the_environment() -> None:
    found = security.tokens(None, {"BYWAY_TOKENS": "a-long-enough-token read,write"})
    assert found[security.digest("a-long-enough-token")].scopes == {"read", "write"}
    assert security.tokens(None, {}) == {}


def test_without_tokens_it_answers_this_machine_alone(client: httpx.Client, workspace: Path) -> None:
    with pytest.raises(UserError, match="Without tokens"):
        processes.serve(workspace, config.Serving(), "0.0.0.0", 1, None)
    assert is_problem(client.get("/v1/clusters", headers={"host": "evil.example"}), 403)
    assert client.get("/v1/clusters", headers={"host": "localhost:99"}).status_code == 200


def test_a_port_that_is_taken_is_one_sentence(workspace: Path) -> None:
    """Workers share a port, but not with another service."""
    with worker.listening("127.0.0.1", 0) as taken:
        taken.listen()
        with pytest.raises(UserError, match="cannot be taken"):
            processes.serve(workspace, config.Serving(), "127.0.0.1", taken.getsockname()[1], None)


def test_pages_of_other_sites_may_not_write(client: httpx.Client) -> None:
    form = {"data": {"interest": "1"}, "headers": {"origin": "http://evil.example"}}
    assert is_problem(client.post("/walk/make", **form), 403)
    form["headers"] = {"origin": str(client.base_url).rstrip("/")}
    assert client.post("/walk/make", **form).status_code == 303


def test_no_token_and_no_name_stands_in_the_log(tmp_path: Path) -> None:
    house.published(tmp_path / "w")
    secret = "a-token-that-is-secret"
    with running.processes(tmp_path / "w", 1, BYWAY_TOKENS=f"{secret} read,write,admin") as (_, url):
        headers = {"authorization": f"Bearer {secret}"}
        with httpx.Client(base_url=url, headers=headers) as client:
            send(client, "a-private-name", "c0-0")
            assert client.post("/v1/recommend", json={"user": "a-private-name"}).status_code == 200
            assert client.post("/v1/recommend", content=b"{").status_code == 400
            assert client.get(
                f"/v1/clusters?token={secret}", headers={"authorization": f"Bearer x{secret}"}
            ).is_error
    said = (tmp_path / "w" / "serve.log").read_text("utf-8")
    assert "worker ready" in said
    assert secret not in said
    assert "a-private-name" not in said


# What is malformed


def malformed(rng: np.random.Generator) -> tuple[str, str, bytes, dict[str, str]]:
    """A request with something wrong: method, path, body, headers."""
    good: dict[str, dict[str, object]] = {
        "/v1/recommend": {"user": "m", "k": 2},
        "/v1/events": {"event": "m", "user": "m", "item": "c0-0"},
    }
    path = str(rng.choice(list(good)))
    wrong: list[object] = [None, -1, 101, 1e99, [], {}, True, "x" * 300, "\n", "", [[]], {"a": 1}]
    value = wrong[int(rng.integers(len(wrong)))]
    head = {"content-type": "application/json"}
    match int(rng.integers(10)):
        case 0:
            return "POST", path, rng.bytes(int(rng.integers(1, 200))), head
        case 1:
            body = msgspec.json.encode(good[path])
            return "POST", path, body[: int(rng.integers(1, len(body) - 1))], head
        case 2:
            field = {"/v1/recommend": "mix", "/v1/events": "satisfaction"}[path]
            return (
                "POST",
                path,
                msgspec.json.encode(good[path] | {field: "x" if value is True else value}),
                head,
            )
        case 3:
            return "POST", path, msgspec.json.encode(good[path] | {str(rng.integers(1000)): 1}), head
        case 4:
            return str(rng.choice(["PUT", "PATCH", "DELETE", "GET"])), path, b"", {}
        case 5:
            name = "".join(map(chr, rng.integers(97, 123, 6)))
            return str(rng.choice(["GET", "POST"])), f"/{name}/%ff%00{name}", b"", {}
        case 6:
            query = str(rng.choice(["limit=x", "limit=0", "offset=-1", "limit=9999999999999", "q=" + "y" * 300]))
            return "GET", f"/v1/clusters?{query}", b"", {}
        case 7:
            return "POST", path, b"\xff\xfe" + msgspec.json.encode(good[path]), head
        case 8:
            some = {"/v1/recommend": {"history": [value]}, "/v1/events": {"event": None}}[path]
            return "POST", path, msgspec.json.encode(good[path] | some), head
        case _:
            return "POST", path, b"[" * int(rng.integers(1, 5000)), head


@pytest.mark.parametrize("count", [1000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_malformed_requests_are_told_what_is_wrong(client: httpx.Client, count: int) -> None:
    rng = np.random.default_rng(count)
    for _ in range(count):
        method, path, body, headers = malformed(rng)
        reply = client.request(method, path, content=body, headers=headers)
        assert 400 <= reply.status_code < 500, (method, path, body[:200], reply.status_code)
        assert is_problem(reply, reply.status_code), (method, path, body[:200], reply.text)
    assert client.get("/readyz").status_code == 200


@pytest.mark.parametrize("unit", [1, 1000])
def test_a_time_in_seconds_or_milliseconds_is_refused(client: httpx.Client, unit: int) -> None:
    at = int(time.time() * unit)
    event = {"event": "e", "user": "of-another-unit", "item": "c0-1", "time": at}
    replies = [
        client.post("/v1/events", json=[{**event, "event": "good", "time": now()}, event]),
        client.post("/v1/recommend", json={"history": [{"item": "c0-1", "time": at}]}),
    ]
    for reply in replies:
        assert is_problem(reply, 400)
        assert "microseconds" in reply.json()["detail"]
    assert log_of(client, "of-another-unit") == []


def test_a_list_is_told_which_of_it_is_wrong(client: httpx.Client) -> None:
    good = {"event": "e", "user": "ann", "item": "c0-1"}
    reply = client.post("/v1/events", json=[good, {**good, "item": 7}])
    assert is_problem(reply, 400)
    assert "data[1].item: Expected `str`, got `int`" in reply.json()["detail"]
    assert "data[1].k: " in client.post("/v1/recommend:batch", json=[{}, {"k": 0}]).json()["detail"]


def test_a_body_has_a_bound(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "MAX_BODY", 2000)
    with running.thread(workspace) as client:
        for chunks in ([b" " * 3000], iter([b" " * 500] * 6)):
            head = {"content-type": "application/json"}
            assert is_problem(client.post("/v1/events", content=chunks, headers=head), 413)


def test_a_request_has_a_bound_in_time(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "MAX_SECONDS", 0.3)
    import socket

    with running.thread(workspace) as client:
        with socket.create_connection((client.base_url.host, client.base_url.port or 0), 10) as slow:
            head = b"POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            slow.sendall(head + b"Content-Length: 100\r\n\r\n{")
            assert slow.recv(100).startswith(b"HTTP/1.1 503")
        assert client.get("/readyz").status_code == 200


def test_the_log_may_take_longer_and_others_are_answered_meanwhile(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred people on a disk that takes ten milliseconds for each: a second, where a request has a third."""
    read = stores.Files.of

    async def slowly(store: stores.Files, user: str, since: int, limit: int = history.LIMIT) -> list[history.Event]:
        time.sleep(0.01)
        return await read(store, user, since, limit)

    monkeypatch.setattr(app, "MAX_SECONDS", 0.3)
    with running.thread(workspace) as client:
        for n in range(100):
            assert send(client, f"reader-{n:03}", "c0-0", "c0-1")["stored"] == 2
        monkeypatch.setattr(stores.Files, "of", slowly)
        answered: list[float] = []

        def ask() -> None:
            with httpx.Client(base_url=client.base_url) as other:
                for _ in range(5):
                    assert other.get("/healthz").status_code == 200
                    answered.append(time.perf_counter())

        with client.stream("GET", "/v1/log") as reply:
            asking = threading.Thread(target=ask)
            asking.start()
            lines = list(reply.iter_lines())
        ended = time.perf_counter()
        asking.join()
        assert sum(line.startswith("reader-") for line in lines) == 200
        assert len(answered) == 5
        assert max(answered) < ended


def test_the_schema_is_kept(client: httpx.Client) -> None:
    """schemathesis on every operation: no 5xx, and no reply that the schema does not have."""
    program = Path(sys.executable).with_name("schemathesis")
    url = f"{client.base_url}/schema/openapi.json".replace("//schema", "/schema")
    checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
    command = [str(program), "run", url, "--max-examples", "10", "--no-color", "--checks", checks, "--seed", "1"]
    done = subprocess.run([*command, "--phases", "coverage,fuzzing"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    assert client.get("/schema").json()["openapi"].startswith("3.")


# Its weight

HEAVY = {"torch", "transformers", "daft", "ray", "pandas", "pyarrow", "sklearn", "scipy", "plotly", "faker"}


def test_what_serves_is_light() -> None:
    modules = "byway.serving, byway.serving.app, byway.serving.processes, byway.serving.web, byway.serving.publish"
    code = f"import sys, {modules}; print(*sys.modules, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert {"onnxruntime", "litestar"} <= loaded
    assert loaded & HEAVY == set()
