"""The log in pages and at a cost in proportion to it, beside answers that do not wait."""

import csv
import io
import threading
import time
from collections.abc import Iterator

import httpx
import numpy as np
import pytest

from byway.serving import exports, history, service
from byway.serving.history import Answered, Event, Exposure
from byway.serving.service import now
from tests.serving import house, running
from tests.serving.test_app import is_problem


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    workspace = tmp_path_factory.mktemp("exports") / "w"
    house.published(workspace)
    with running.thread(workspace) as found:
        yield found


def test_pages_together_are_the_whole_log(client: httpx.Client) -> None:
    people = [f"p{n}" for n in range(30)] + ["🎬 with a name", 'quoted "name", too', "é"]
    for n, user in enumerate(people):
        rows = [{"event": f"{k}", "user": user, "item": f"c{k % 12}-{k}"} for k in range(1 + n % 9)]
        client.post("/v1/events", json=rows)
    for user in ("p3", "only shown"):
        client.post("/v1/recommend", json={"user": user, "k": 3})
    whole = client.get("/v1/log")
    assert "byway-next" not in whole.headers
    for limit in (1, 7, 50, 1_000_000):
        after, pages = "", list[str]()
        while True:
            reply = client.get("/v1/log", params={"after": after, "limit": limit})
            head, _, body = reply.text.partition("\r\n")
            assert head == ",".join(exports.COLUMNS)
            assert reply.headers["content-type"].startswith("text/csv")
            pages.append(body)
            after = reply.headers.get("byway-next", "")
            if not after:
                break
            assert len(list(csv.reader(io.StringIO(body)))) >= limit
        assert head + "\r\n" + "".join(pages) == whole.text
        assert (len(pages) > 1) == (limit < 100)
    assert {row["user"] for row in csv.DictReader(io.StringIO(whole.text))} >= {*people, "only shown"}


@pytest.mark.parametrize("after", ["%", "a", "/w==", "_w", "é", "a" * 1401])
def test_a_cursor_that_is_none_is_said(client: httpx.Client, after: str) -> None:
    assert is_problem(client.get("/v1/log", params={"after": after, "limit": 1}), 400)


def plainly(events: list[Event], answers: list[Answered]) -> list[tuple[str, str, str]]:
    """Which exposure each event belongs to, as it is defined: answer, item, event."""
    shown = {(a.answer, e.item) for a in answers for e in a.shown}
    led: dict[tuple[str, str], str] = {}
    for event in events:
        before = [a.answer for a in answers if a.time <= event.time and (a.answer, event.item) in shown]
        key = (event.answer or (before[-1] if before else ""), event.item)
        if key in shown and key not in led:
            led[key] = event.event
    return sorted((*key, event) for key, event in led.items())


def test_events_are_joined_to_what_was_shown_as_it_is_defined() -> None:
    rng = np.random.default_rng(5)
    for _ in range(50):
        answers = [
            Answered(f"a{n}", "u", int(t), "x", "b", [], [Exposure(f"i{i}", f"a{n}", 0.5, "c") for i in some])
            for n, (t, some) in enumerate(
                zip(np.sort(rng.integers(20, size=15)), rng.integers(6, size=(15, 2)), strict=True)
            )
        ]
        events = [
            Event(f"e{n}", "u", f"i{rng.integers(6)}", int(t), n / 100, answer="a3" if rng.random() < 0.1 else "")
            for n, t in enumerate(np.sort(rng.integers(25, size=40)))
        ]
        # Satisfaction names the event, and how it was found the answer.
        rows = [row for row in history.as_rows(events, answers) if row["propensity"] is not None]
        found = [
            (row["source"].split(":")[2], row["item"], f"e{round(100 * row['satisfaction'])}")
            for row in rows
            if row["satisfaction"] > 0
        ]
        assert sorted(found) == [row for row in plainly(events, answers) if row[2] != "e0"]


def test_twice_the_log_takes_twice_as_long() -> None:
    def seconds(n: int) -> float:
        events = [Event(f"e{i}", "u", "one", 1000 * i) for i in range(n)]
        answers = [Answered(f"a{i}", "u", 1000 * i, "", "", [], [Exposure("one", "t", 1.0, "c")]) for i in range(n)]
        began = time.process_time()
        assert len(history.as_rows(events, answers)) == n
        return time.process_time() - began

    seconds(1000)
    # Where it is quadratic, sixteen times as long and more.
    assert min(seconds(16_000) for _ in range(3)) < 10 * min(seconds(4000) for _ in range(3))


def test_others_are_answered_while_a_long_log_is_read(client: httpx.Client) -> None:
    at = now() - 10**9
    for start in range(0, 40_000, 1000):
        events = [
            {"event": f"{n}", "user": "long", "item": f"c{n % 12}-{n % 20}", "time": at + n}
            for n in range(start, start + 1000)
        ]
        assert client.post("/v1/events", json=events).status_code == 200
    longest, stop = [0.0], threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=client.base_url, timeout=30) as other:
            while not stop.is_set():
                began = time.perf_counter()
                assert other.get("/healthz").status_code == 200
                longest[0] = max(longest[0], time.perf_counter() - began)

    asking = threading.Thread(target=ask)
    asking.start()
    began = time.perf_counter()
    text = client.get("/v1/log").text
    took = time.perf_counter() - began
    stop.set()
    asking.join()
    assert text.count("\r\nlong,") == 40_000
    assert longest[0] < max(0.25, took / 3)


def test_others_are_answered_while_somebody_is_explained(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    explain, going = service.explain, threading.Event()

    def slowly(*given: object) -> object:
        going.set()
        time.sleep(0.5)
        return explain(*given)

    monkeypatch.setattr(service, "explain", slowly)
    asked = threading.Thread(target=lambda: httpx.get(f"{client.base_url}/v1/explain?user=a", timeout=30))
    asked.start()
    assert going.wait(10)
    began = time.perf_counter()
    assert client.post("/v1/recommend", json={"user": "a"}).status_code == 200
    assert time.perf_counter() - began < 0.4
    assert asked.is_alive()
    asked.join()


def test_the_page_of_the_experiment_is_counted_once_for_many_and_for_so_long(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(20):
        client.post("/v1/events", json={"event": "e", "user": f"seen-{n}", "item": "c0-0"})
        client.post("/v1/recommend", json={"user": f"seen-{n}", "k": 2})
    counted = list[float]()
    as_rows = history.as_rows

    def slowly(*given: list[object]) -> list[dict[str, object]]:
        counted.append(time.monotonic())
        time.sleep(0.02)
        return as_rows(*given)

    monkeypatch.setattr(exports, "SECONDS", 0.1)
    monkeypatch.setattr(history, "as_rows", slowly)
    pages = [client.get("/experiment").text for _ in range(5)]
    assert 1 <= len(counted) <= 7
    assert f"The latest {len(counted)} people are counted." in pages[0]
    assert len(set(pages)) == 1
