"""Answers before writes: what was shown waits for the log in a bounded queue, and counts when it was delivered."""

import asyncio
import contextlib
import csv
import io
import socket
import sqlite3
import time
from pathlib import Path

import httpx
import pytest

from byway.base import config
from byway.serving import arms, meters, stores
from byway.serving.exposures import Exposures
from byway.serving.history import LATE, Answered, Unavailable
from tests.serving import house, running, valkey_server
from tests.serving.test_history import answered

HISTORY = [{"item": "c0-1"}, {"item": "c6-1"}]


class Broken:
    """A log that can be switched off."""

    def __init__(self) -> None:
        self.works, self.rows = False, list[Answered]()

    async def expose(self, *answered: Answered) -> None:
        await asyncio.sleep(0)
        if not self.works:
            raise Unavailable("switched off")
        self.rows += answered


def counted(result: str) -> float:
    return meters.exposures.labels(result)._value.get()


def test_what_has_no_room_is_dropped_and_counted_and_the_rest_is_written_in_order() -> None:
    async def main() -> None:
        store, before = Broken(), counted("dropped")
        queue = Exposures(store, room=5, now=lambda: answered(0).time / 1e6)
        task = asyncio.create_task(queue.run())
        for n in range(8):
            queue.put(answered(n))
            await asyncio.sleep(0)
        assert counted("dropped") - before == 3
        assert not await queue.flush(0.3)
        store.works = True
        assert await queue.flush(10)
        assert [a.answer for a in store.rows] == ["a0", "a1", "a2", "a3", "a4"]
        queue.put(answered(9))
        assert await queue.flush(10)
        assert store.rows[-1].answer == "a9"
        task.cancel()

    asyncio.run(main())


def test_what_waits_too_long_is_dropped_and_the_deleted_are_not_written() -> None:
    async def main() -> None:
        store, before, clock = Broken(), counted("dropped"), [answered(0).time / 1e6]
        queue = Exposures(store, now=lambda: clock[0])
        task = asyncio.create_task(queue.run())
        queue.put(answered(1))
        assert not await queue.flush(0.05)
        clock[0] += LATE / 1e6 + 1
        assert await queue.flush(10)
        assert (store.rows, counted("dropped") - before) == ([], 1)
        queue.put(answered(2, user="bo", time=answered(0).time + 2 * LATE))
        queue.put(answered(3, user="ann", time=answered(0).time + 2 * LATE))
        queue.forget("bo")
        store.works = True
        assert await queue.flush(10)
        assert [a.user for a in store.rows] == ["ann"]
        task.cancel()

    asyncio.run(main())


def shown_to(client: httpx.Client, user: str) -> int:
    rows = csv.DictReader(io.StringIO(client.get("/v1/log").text))
    return sum(row["user"] == user and row["propensity"] != "" for row in rows)


def test_with_the_history_locked_requests_are_answered_and_logged_later(tmp_path: Path) -> None:
    house.published(tmp_path / "w")
    with running.thread(tmp_path / "w") as client:
        client.post("/v1/events", json={"event": "e", "user": "known", "item": "c0-0"})
        locks = [sqlite3.connect(tmp_path / "w" / "serving" / f"{n}.db") for n in ("events", "answers")]
        for lock in locks:
            lock.execute("BEGIN EXCLUSIVE")
        began = time.monotonic()
        for asked in ({"history": HISTORY, "user": "locked"}, {"history": HISTORY}, {"user": "known"}):
            reply = client.post("/v1/recommend", json=asked | {"k": 2})
            assert reply.status_code == 200
            assert len(reply.json()["items"]) == 2
        assert time.monotonic() - began < 2
        for lock in locks:
            lock.rollback()
            lock.close()
        assert shown_to(client, "locked") == shown_to(client, "known") == 2


def test_with_the_server_down_requests_that_bring_their_history_are_answered(tmp_path: Path) -> None:
    house.published(tmp_path / "w")
    port = running.free_port()
    with (
        valkey_server.running(tmp_path, port) as url,
        running.thread(tmp_path / "w", history=url) as client,
    ):
        assert client.post("/v1/recommend", json={"user": "before", "k": 2}).status_code == 200
        assert shown_to(client, "before") == 2
    with running.thread(tmp_path / "w", history=url) as client:
        began = time.monotonic()
        reply = client.post("/v1/recommend", json={"history": HISTORY, "user": "down", "k": 2})
        assert (reply.status_code, len(reply.json()["items"])) == (200, 2)
        assert time.monotonic() - began < 2
        # Who has to be looked up cannot be answered, and is told so.
        assert client.post("/v1/recommend", json={"user": "down"}).status_code == 503
        assert client.post("/v1/events", json={"event": "e", "user": "u", "item": "c0-0"}).status_code == 503
        with valkey_server.running(tmp_path, port):
            end = time.monotonic() + 20
            while time.monotonic() < end and not (client.get("/readyz").is_success and shown_to(client, "down")):
                time.sleep(0.1)
            assert shown_to(client, "down") == 2


def test_an_answer_that_nobody_waited_for_is_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    house.published(tmp_path / "w")
    answer = arms.answer

    def slowly(*args: object, **more: object) -> object:
        time.sleep(0.3)
        return answer(*args, **more)

    with running.thread(tmp_path / "w") as client:
        monkeypatch.setattr(arms, "answer", slowly)
        before = counted("undelivered")
        body = b'{"user": "impatient", "k": 2}'
        head = b"POST /v1/recommend HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        with socket.create_connection((client.base_url.host, client.base_url.port or 0), 10) as gone:
            gone.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            time.sleep(0.1)
        assert client.post("/v1/recommend", json={"user": "patient", "k": 2}).status_code == 200
        assert (shown_to(client, "impatient"), shown_to(client, "patient")) == (0, 2)
        assert counted("undelivered") - before == 1


def test_what_was_shown_is_written_before_the_worker_ends(tmp_path: Path) -> None:
    house.published(tmp_path / "w")
    with running.thread(tmp_path / "w") as client:
        for _ in range(50):
            client.post("/v1/recommend", json={"user": "last", "k": 1})
    with running.thread(tmp_path / "w") as client:
        assert shown_to(client, "last") == 50


@pytest.mark.parametrize("where", ["files", "server"])
def test_where_the_client_says_so_only_confirmed_answers_count(tmp_path: Path, where: str) -> None:
    house.published(tmp_path / "w")
    with contextlib.ExitStack() as stack:
        url = ""
        if where == "server":
            url = stack.enter_context(valkey_server.running(tmp_path, running.free_port()))
        client = stack.enter_context(running.thread(tmp_path / "w", history=url, exposures="confirmed"))
        asked = [client.post("/v1/recommend", json={"user": "ann", "k": 2}).json() for _ in range(3)]
        nobody = client.post("/v1/recommend", json={"history": HISTORY, "k": 3}).json()
        assert client.get("/v1/log").text.count("\n") == 1
        for body in ({"answer": asked[1]["answer"], "user": "ann"}, {"answer": nobody["answer"]}):
            for _ in range(2):
                assert client.post("/v1/shown", json=body).status_code == 204
        # An answer to somebody else is confirmed by nobody.
        assert client.post("/v1/shown", json={"answer": asked[0]["answer"], "user": "bo"}).status_code == 204
        assert shown_to(client, "ann") == 2
        assert shown_to(client, f"guest:{nobody['answer']}") == 3
        assert client.delete("/v1/users/ann").json() == {"deleted": 3}
        assert shown_to(client, "ann") == 0


@pytest.mark.parametrize(("exposures", "read"), [("answered", ["a1", "a2"]), ("confirmed", ["a2"])])
def test_whoever_opens_the_history_by_the_settings_reads_what_the_service_reads(
    tmp_path: Path, exposures: str, read: list[str]
) -> None:
    async def main() -> None:
        async with stores.opened(config.Serving(exposures=exposures), tmp_path) as store:
            await store.expose(answered(1), answered(2))
            await store.confirm("ann", "a2")
            assert [a.answer for a in await store.answers("ann", -1)] == read

    asyncio.run(main())


def test_a_batch_is_each_answered_alone_and_logged(tmp_path: Path) -> None:
    house.published(tmp_path / "w")
    with running.thread(tmp_path / "w") as client:
        bodies = [{"history": HISTORY, "k": 2}, {"user": "x", "k": 1}, {"history": [{"item": "c3-0"}], "k": 4}]
        replies = client.post("/v1/recommend:batch", json=bodies).json()
        alone = [client.post("/v1/recommend", json=body).json() for body in bodies]
        for reply, one in zip(replies, alone, strict=True):
            assert [i["item"] for i in reply["items"]] == [i["item"] for i in one["items"]]
            assert reply["strategy"] == one["strategy"]
        assert len({reply["answer"] for reply in replies}) == 3
        assert shown_to(client, "x") == 2
        assert shown_to(client, f"guest:{replies[0]['answer']}") == 2
        for wrong in ([], [{}] * 101, [{"k": 0}], {}):
            assert client.post("/v1/recommend:batch", json=wrong).status_code == 400
