"""Who is let in: tokens that come and go with their file, wrong ones, sessions of browsers, other sites."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from byway.serving import keyring, security
from byway.serving.keyring import Keyring, Sessions
from tests.serving import house, running
from tests.serving.test_app import is_problem

FORM = {"content-type": "application/x-www-form-urlencoded"}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("guard") / "w"
    house.published(folder)
    return folder


@pytest.fixture
def client(workspace: Path) -> Iterator[httpx.Client]:
    with running.thread(workspace) as found:
        yield found


def known(**scopes: str) -> dict[bytes, security.Token]:
    text = "\n".join(f"{name.replace('_', '-')} {some}" for name, some in scopes.items())
    return security.tokens(None, {"BYWAY_TOKENS": text})


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def later(path: Path, text: str) -> None:
    """Write a file as somebody does who does it long after the start."""
    path.write_text(text, "utf-8")
    os.utime(path, (time.time() - 10, time.time() - 10 + len(text) / 1000))


# Tokens and their file


def test_a_token_taken_from_the_file_stops_working_without_a_signal(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyring, "LOOK", 0.05)
    path = tmp_path / "tokens"
    later(path, "first-of-the-tokens read\nsecond-of-the-tokens read\n")

    def status(token: str) -> int:
        time.sleep(0.1)
        return client.get("/v1/clusters", headers=bearer(token)).status_code

    with running.thread(workspace, Keyring.of(path)) as client:
        assert (status("first-of-the-tokens"), status("third-of-the-tokens!")) == (200, 401)
        later(path, "second-of-the-tokens read\nthird-of-the-tokens! read\n")
        assert (status("first-of-the-tokens"), status("third-of-the-tokens!")) == (401, 200)
        # A slip of the hand locks nobody out, and lets nobody in.
        later(path, "second-of-the-tokens raed\n")
        assert (status("second-of-the-tokens"), status("first-of-the-tokens")) == (200, 401)
        path.unlink()
        assert (status("second-of-the-tokens"), status("first-of-the-tokens")) == (200, 401)
        # An emptied file knows nobody: it does not open the door.
        path.write_text("", "utf-8")
        assert (status("second-of-the-tokens"), client.get("/v1/clusters").status_code) == (401, 401)


def test_two_changes_within_a_tick_of_the_clock_are_both_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyring, "LOOK", 0.0)
    path = tmp_path / "tokens"
    at = time.time_ns()
    path.write_text("token-of-the-start! read\n", "utf-8")
    os.utime(path, ns=(at, at))
    ring = Keyring.of(path)
    for n in range(3):
        path.write_text(f"token-of-the-turn-{n} read\n", "utf-8")
        os.utime(path, ns=(at, at))
        assert list(ring.known()) == [security.digest(f"token-of-the-turn-{n}")]


def test_wrong_tokens_are_limited_and_others_are_not(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyring, "WRONG_BURST", 5)
    monkeypatch.setattr(keyring, "WRONG_RATE", 0.01)
    (workspace / "serving" / "wrong.bin").unlink(missing_ok=True)
    with running.thread(workspace, known(the_right_token_is="read")) as client:
        right = bearer("the-right-token-is")
        # Who sends none is told so, as often as he likes, and who sends a right one is answered.
        assert [client.get("/v1/clusters").status_code for _ in range(10)] == [401] * 10
        assert [client.get("/v1/clusters", headers=right).status_code for _ in range(10)] == [200] * 10
        tries = [client.get("/v1/clusters", headers=bearer(f"guess-{n}")) for n in range(8)]
        assert [r.status_code for r in tries] == [401] * 5 + [429] * 3
        assert is_problem(tries[-1], 429)
        assert int(tries[-1].headers["retry-after"]) > 0
        # The sign-in and cookies are no way around, and a right guess is not told from a wrong one.
        assert client.post("/sign-in", data={"token": "guess-9"}).status_code == 429
        assert client.get("/v1/clusters", headers={"cookie": "byway=guess"}).status_code == 429
        assert client.get("/v1/clusters", headers=right).status_code == 429
    (workspace / "serving" / "wrong.bin").unlink()


def test_addresses_are_told_apart_and_networks_are_not(tmp_path: Path) -> None:
    sessions = Sessions(tmp_path)
    places = {sessions.place(f"10.0.{n}.1") for n in range(100)}
    assert len(places) > 90
    assert sessions.place("2001:db8::1") == sessions.place("2001:db8::ffff") != sessions.place("2001:db9::1")
    assert 0 <= sessions.place("") < keyring.PLACES


# Sessions


def test_the_cookie_is_a_session_that_ends(tmp_path: Path) -> None:
    tokens = known(a_token_of_somebody="read", another_token_here="write")
    sessions, other = Sessions(tmp_path), Sessions(tmp_path)
    value = sessions.make("a-token-of-somebody", now=1000.0)
    assert "a-token" not in value
    assert value != sessions.make("a-token-of-somebody", now=1000.0)
    # Workers share the key; what is changed, late or of a token that is gone is worth nothing.
    assert other.find(value, tokens, now=1001.0) is tokens[security.digest("a-token-of-somebody")]
    assert sessions.find(value, tokens, now=1001.0 + 3600 * keyring.HOURS) is None
    assert sessions.find(value, known(another_token_here="write"), now=1001.0) is None
    for wrong in (value[:-4], "A" * len(value), "", "é", "a-token-of-somebody", value[:40] + "AAAA" + value[44:]):
        assert sessions.find(wrong, tokens, now=1001.0) is None
    assert Sessions(tmp_path / "elsewhere").find(value, tokens, now=1001.0) is None
    assert (tmp_path / "sessions.key").stat().st_mode & 0o077 == 0


def test_a_session_is_no_token_and_a_token_no_session(workspace: Path) -> None:
    with running.thread(workspace, known(the_right_token_is="read")) as client:
        reply = client.post("/sign-in", data={"token": "the-right-token-is"})
        value = reply.headers["set-cookie"].split(";")[0].partition("=")[2]
        client.cookies.clear()
        assert client.get("/v1/clusters", headers=bearer(value)).status_code == 401
        assert client.get("/v1/clusters", headers={"cookie": "byway=the-right-token-is"}).status_code == 401
        assert client.get("/v1/clusters", headers={"cookie": f"byway={value}"}).status_code == 200


# Scopes of pages, and what writes


def test_pages_follow_the_scopes_of_what_they_show(workspace: Path) -> None:
    tokens = known(a_token_that_reads="read", a_token_that_writes="write", a_token_of_both_scopes="read,write")
    with running.thread(workspace, tokens, rate=0) as client:
        event = {"event": "e", "user": "watched", "item": "c0-0"}
        assert client.post("/v1/events", json=event, headers=bearer("a-token-that-writes")).status_code == 200
        form = {"user": "watched", "item": "c1-0", "satisfaction": "1"}
        for headers in ({}, {"hx-request": "true"}):
            reply = client.post("/walk/react", data=form, headers=headers | bearer("a-token-that-writes"))
            assert is_problem(reply, 403)
            assert is_problem(client.post("/walk/react", data=form, headers=bearer("a-token-that-reads")), 403)
        both = client.post(
            "/walk/react", data=form, headers={"hx-request": "true"} | bearer("a-token-of-both-scopes")
        )
        assert both.status_code == 200
        assert house.title(0, 0) in both.text
        for path in ("/", "/?user=watched", "/experiment", "/health", "/atlas", "/v1/explain?user=watched"):
            assert is_problem(client.get(path, headers=bearer("a-token-that-writes")), 403)


def rows(client: httpx.Client) -> int:
    return client.get("/v1/log").text.count("\n")


def test_nothing_is_written_by_opening_a_page(client: httpx.Client) -> None:
    client.post("/v1/events", json={"event": "e", "user": "opened", "item": "c0-0"})
    before = rows(client)
    paths = ["/", "/?user=opened", "/walk/next?user=opened", "/atlas", "/health", "/experiment", "/sign-in"]
    for path in [*paths, "/v1/explain?user=opened", "/v1/clusters", "/walk/react?user=opened&item=c0-1"]:
        client.get(path)
    assert rows(client) == before
    # Who asks for another draw has seen it.
    drawn = client.post("/walk/next", data={"user": "opened"}, headers={"hx-request": "true"})
    assert drawn.status_code == 200
    assert rows(client) == before + 6


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
@pytest.mark.parametrize("path", ["/walk/next", "/walk/react", "/walk/make", "/sign-in", "/v1/recommend"])
def test_other_sites_write_nothing(client: httpx.Client, path: str, site: str) -> None:
    before = rows(client)
    given = {"content": "user=a&item=c0-0&interest=1", "headers": FORM | {"sec-fetch-site": site}}
    assert is_problem(client.post(path, **given), 403)
    given["headers"] = FORM | {"origin": "null"}
    assert is_problem(client.post(path, **given), 403)
    assert rows(client) == before


def test_our_own_pages_write(client: httpx.Client) -> None:
    for site in ("same-origin", "none"):
        headers = FORM | {"sec-fetch-site": site, "hx-request": "true"}
        assert client.post("/walk/next", content="user=a", headers=headers).status_code == 200


# What is no text, and numbers without end

NINES = b"9" * 5000


@pytest.mark.parametrize(
    ("method", "path", "body", "kind"),
    [
        ("POST", "/v1/events", b'{"event":"a\xff","user":"u","item":"c0-0"}', "application/json"),
        ("POST", "/v1/events", b'{"event\xff":"a","user":"u","item":"c0-0"}', "application/json"),
        ("POST", "/v1/recommend", b'{"user":"\xc3\x28"}', "application/json"),
        ("POST", "/v1/recommend", b'{"user":"\xed\xa0\x80"}', "application/json"),
        ("POST", "/v1/recommend", b'{"user":"\\ud800"}', "application/json"),
        ("GET", "/v1/explain?user=%ff", b"", ""),
        ("GET", "/v1/clusters?q=%c3%28", b"", ""),
        ("GET", "/?user=%ed%a0%80", b"", ""),
        ("DELETE", "/v1/users/%ff", b"", ""),
        ("GET", "/v1/items/%ff", b"", ""),
        ("POST", "/v1/recommend", b'{"k":' + NINES + b"}", "application/json"),
        ("POST", "/v1/recommend", b'{"mix":-' + NINES + b"}", "application/json"),
        ("POST", "/v1/recommend", b'{"history":[{"item":"a","time":' + NINES + b"}]}", "application/json"),
        ("POST", "/v1/recommend", b'{"mix":1e' + NINES + b"}", "application/json"),
        ("GET", "/v1/clusters?limit=" + NINES.decode(), b"", ""),
        ("GET", "/atlas?level=" + NINES.decode(), b"", ""),
        ("POST", "/walk/make", b"interest=" + NINES, FORM["content-type"]),
        ("POST", "/walk/make", b"interest=1&interest=" + NINES, FORM["content-type"]),
    ],
)
def test_what_is_no_text_and_endless_numbers_are_the_clients_fault(
    client: httpx.Client, method: str, path: str, body: bytes, kind: str
) -> None:
    reply = client.request(method, path, content=body, headers={"content-type": kind} if kind else {})
    assert is_problem(reply, 400), (reply.status_code, reply.text)
