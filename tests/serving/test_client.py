"""The client against a real worker: every operation, tokens, and a connection that the service closed meanwhile."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from byway.serving import security
from byway.serving.client import Client, Refused
from byway.serving.messages import EventIn, Met, RecommendRequest
from tests.serving import house, running

READER = "a-token-that-may-read"


@pytest.fixture(scope="module")
def url(workspace: Path) -> Iterator[str]:
    with running.thread(workspace) as found:
        yield str(found.base_url)


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client(url) as found:
        yield found


def test_what_was_told_counts_in_the_next_answer(client: Client) -> None:
    item = client.clusters("jazz").clusters[0].description
    asked = RecommendRequest(user="ann/b", k=5)
    before = client.recommend(asked)
    assert before.strategy == "popular_items"
    assert len(before.items) == 5
    taken = client.events([EventIn(f"e{i}", "ann/b", shown.item) for i, shown in enumerate(before.items)])
    assert (taken.stored, taken.known) == (5, 0)
    after = client.recommend(asked)
    met = {shown.cluster for shown in before.items}
    assert after.items
    assert not met & {shown.cluster for shown in after.items}
    assert client.explain("ann/b").interests
    assert item == "jazz, piano"
    assert client.forget("ann/b").deleted >= 5
    assert client.recommend(asked).strategy == "popular_items"


def test_many_at_once_are_answered_in_order(client: Client) -> None:
    first = client.item(client.recommend(RecommendRequest(k=1)).items[0].item)
    history = [Met(first.item, satisfaction=1.0)]
    alone, nobody = client.recommend_many([RecommendRequest(history=history, k=3), RecommendRequest(k=2)])
    assert len(alone.items) == 3
    assert first.cluster not in {shown.cluster for shown in alone.items}
    assert len(nobody.items) == 2
    client.shown(alone.answer)


def test_a_refusal_says_why(client: Client) -> None:
    with pytest.raises(Refused, match="no item of this id") as found:
        client.item("no/such?item")
    assert found.value.status == 404
    with pytest.raises(Refused, match="day ahead"):
        client.events([EventIn("e", "u", "i", time=2**53)])
    assert client.clusters().total == len(house.NAMES), "and the connection goes on"


def test_a_token_is_sent(tmp_path: Path) -> None:
    house.published(tmp_path)
    with running.thread(tmp_path, security.tokens(None, {"BYWAY_TOKENS": f"{READER} read"})) as found:
        with Client(str(found.base_url), READER) as client, Client(str(found.base_url), "other") as stranger:
            assert client.recommend(RecommendRequest(k=2)).items
            with pytest.raises(Refused) as scope:
                client.forget("ann")
            with pytest.raises(Refused) as wrong:
                stranger.recommend(RecommendRequest(k=2))
        assert (wrong.value.status, scope.value.status) == (401, 403)


def test_a_connection_that_ended_is_opened_again(url: str, client: Client) -> None:
    client.clusters()
    assert client._connection.sock is not None
    client._connection.sock.shutdown(2)
    assert client.clusters().total
    with pytest.raises(OSError):
        Client(f"http://127.0.0.1:{running.free_port()}", timeout=1).clusters()


def test_a_backend_needs_none_of_the_service_for_it() -> None:
    loaded = "import sys, byway.serving.client; print(*{m.split('.')[0] for m in sys.modules})"
    done = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True)
    assert not {"litestar", "onnxruntime", "torch", "redis", "httpx"} & set(done.stdout.split())
