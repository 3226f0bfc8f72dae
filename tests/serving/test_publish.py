"""What is published has passed its checks; workers take it up, and go back."""

import asyncio
import contextlib
import os
import signal
import threading
import time
from collections.abc import Generator
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest

from byway.base import artifact, config
from byway.base.artifact import Record
from byway.base.errors import UserError
from byway.serving import bundle, publish, service
from tests.serving import house, running
from tests.serving.planted import policy_file


def put(workspace: Path, records: dict[str, Record], **settings: object) -> str:
    return publish.publish(workspace, workspace / "13-bundle", config.Serving(**settings), records)


def test_what_is_published_is_a_whole_copy(tmp_path: Path) -> None:
    records = house.build(tmp_path)
    name = put(tmp_path, records)
    assert publish.current(tmp_path) == publish.Current(name, [])
    folder = tmp_path / "published" / name
    assert artifact.edited(folder, records["bundle"]) == []
    assert bundle.load(folder).manifest == bundle.load(tmp_path / "13-bundle").manifest
    # Again it is the same, and nothing to go back to.
    assert put(tmp_path, records) == name
    with pytest.raises(UserError, match="no earlier bundle"):
        publish.rollback(tmp_path)


def test_what_is_served_already_is_checked_all_the_same(tmp_path: Path) -> None:
    records = house.build(tmp_path)
    name = put(tmp_path, records)
    with pytest.raises(UserError, match="The bundle is served, and would stay out"):
        put(tmp_path, records, min_match_rate=0.99)
    (tmp_path / "published" / name / "policy.onnx").unlink()
    served = publish.current(tmp_path)
    assert served is not None
    with pytest.raises(UserError, match=r"published bundle is damaged .*publish"):
        publish.require_whole(tmp_path, served)
    assert put(tmp_path, records) == name
    publish.require_whole(tmp_path, served)
    assert artifact.edited(tmp_path / "published" / name, records["bundle"]) == []
    assert publish.current(tmp_path) == publish.Current(name, [])


def test_the_way_back(tmp_path: Path) -> None:
    names = [put(tmp_path, house.build(tmp_path, seed)) for seed in range(5)]
    assert len(set(names)) == 5
    assert publish.current(tmp_path) == publish.Current(names[4], [names[3], names[2]])
    assert {p.name for p in (tmp_path / "published").iterdir() if p.is_dir()} == set(names[2:])
    assert [publish.rollback(tmp_path), publish.rollback(tmp_path)] == [names[3], names[2]]
    with pytest.raises(UserError, match="no earlier bundle"):
        publish.rollback(tmp_path)
    # The newest can be published again, with a way back to where one is.
    assert put(tmp_path, house.build(tmp_path, 4)) == names[4]
    assert publish.rollback(tmp_path) == names[2]


def broken_file(folder: Path) -> None:
    with (folder / "vectors.npy").open("r+b") as f:
        f.seek(500)
        f.write(b"\x00\x01\x02\x03")


def saved(name: str, change: object) -> object:
    """A fault that replaces one array and is then recorded as if the run had made it so."""

    def fault(folder: Path) -> None:
        array = np.load(folder / f"{name}.npy")
        np.save(folder / f"{name}.npy", change(array))

    return fault


def entry(value: int) -> object:
    def change(table: np.ndarray) -> np.ndarray:
        table[2, 3, 1] = value
        return table

    return change


def triples(keys: list[int], clusters: list[list[int]]) -> object:
    """Rankings of triples among twelve clusters; 140 is (0, 11, 8)."""

    def fault(folder: Path) -> None:
        np.save(folder / "triple_keys.npy", np.array(keys))
        np.save(folder / "triple_clusters.npy", np.array(clusters, np.int32))

    return fault


def other_dimension(folder: Path) -> None:
    policy_file(folder / "policy.onnx", np.ones((240, 5), np.float32))


def other_policy(folder: Path) -> None:
    policy_file(folder / "policy.onnx", np.random.default_rng(0).normal(size=(240, 8)).astype(np.float32))


def no_policy(folder: Path) -> None:
    (folder / "policy.onnx").write_bytes(b"no model")


FAULTS = {
    "an entry of the table is no cluster": saved("table", entry(12)),
    "an entry of the table is one of its pair": saved("table", entry(2)),
    "vectors are not one a item": saved("vectors", lambda a: a[:-1]),
    "vectors are not finite": saved("vectors", lambda a: np.where(a == a.max(), np.nan, a)),
    "clusters are not slices": saved("starts", lambda a: np.where(a == 20, 0, a)),
    "ids are not a permutation": saved("id_positions", lambda a: np.zeros_like(a)),
    "a row names no item": saved("policy_rows", lambda a: a + 1),
    "triples are not in order": triples([140, 3], [[5], [6]]),
    "or lead to no cluster": triples([3, 140], [[5], [12]]),
    "or one of their own": triples([3, 140], [[5], [8]]),
    "the index of ids is not sorted": saved("id_hashes", lambda a: a[::-1]),
    "popularity does not order": saved("popularity", lambda a: a[:-1]),
    "items have": other_dimension,
    "is not answered as it was": other_policy,
    "cannot be opened": no_policy,
}


@pytest.mark.parametrize("said", FAULTS)
def test_a_bundle_with_a_fault_stays_out(tmp_path: Path, said: str) -> None:
    first = put(tmp_path, house.build(tmp_path))
    records = house.build(tmp_path, 1)
    path = tmp_path / "13-bundle"
    with artifact.part(path, "bundle", {}, {"transition_table": "t"}) as work:
        for file in path.iterdir():
            if file.name != artifact.RECORD:
                (work.out / file.name).write_bytes(file.read_bytes())
        FAULTS[said](work.out)
    outcome = artifact.Outcome(timings={"seconds": 1.0})
    records["bundle"] = artifact.commit(path, "bundle", {}, {"transition_table": "t"}, outcome)
    with pytest.raises(UserError, match=f"stays out: .*{said}"):
        put(tmp_path, records)
    assert publish.current(tmp_path) == publish.Current(first, [])
    assert [p.name for p in (tmp_path / "published").iterdir() if p.is_dir()] == [first]


def test_a_rollback_goes_back_from_what_is_served_once_it_has_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (put(tmp_path, house.build(tmp_path, seed)) for seed in (0, 1))
    home, held = tmp_path / publish.FOLDER, artifact.locked

    @contextlib.contextmanager
    def just_after_another(folder: Path) -> Generator[None]:
        """Another process publishes between the call and the lock."""
        publish.settle(home, publish.Current(first, [second]))
        with held(folder):
            yield

    monkeypatch.setattr(artifact, "locked", just_after_another)
    assert publish.rollback(tmp_path) == second
    assert publish.current(tmp_path) == publish.Current(second, [])


def test_a_file_that_was_changed_by_hand_stays_out(tmp_path: Path) -> None:
    records = house.build(tmp_path)
    broken_file(tmp_path / "13-bundle")
    with pytest.raises(UserError, match=r"vectors\.npy is not what its record says"):
        put(tmp_path, records)
    assert publish.current(tmp_path) is None


def test_figures_below_their_bars_stay_out(tmp_path: Path) -> None:
    records = house.build(tmp_path, match_rate=0.85)
    with pytest.raises(UserError, match=r"match rate 0\.850 is below 0\.9") as error:
        put(tmp_path, records)
    assert "recall" not in str(error.value)
    poor = house.build(tmp_path / "poor", recall=0.05)
    with pytest.raises(UserError, match=r"recall at 10 is 0\.050, below popularity's"):
        put(tmp_path / "poor", poor, min_match_rate=0.8)
    metrics = records.pop("metrics")
    with pytest.raises(UserError, match="figures are missing"):
        put(tmp_path, records)
    other = {
        "metrics": artifact.Record(**{f: getattr(metrics, f) for f in metrics.__struct_fields__} | {"inputs": {}})
    }
    with pytest.raises(UserError, match="of another table"):
        put(tmp_path, records | other)
    assert put(tmp_path, records | {"metrics": metrics}, min_match_rate=0.8)


# Running workers


def children(process: int) -> list[int]:
    """Workers of a server: its children that hold the bundle."""
    found: list[int] = []
    for child in psutil.Process(process).children():
        with contextlib.suppress(psutil.Error):
            if any("published" in part.path for part in child.memory_maps()):
                found.append(child.pid)
    return found


@pytest.mark.slow
def test_workers_take_a_bundle_up_and_one_is_killed(tmp_path: Path) -> None:
    """Requests and events in a row while bundles are switched and a worker dies: nothing wrong, nothing lost."""
    workspace = tmp_path / "w"
    names = [put(workspace, house.build(workspace, seed)) for seed in (0, 1)]
    tables = [bundle.load(workspace / "published" / name).table for name in names]
    stop, seen, acknowledged, lost = threading.Event(), set[str](), list[str](), list[str]()
    wrong: list[object] = []

    def ask(url: str, who: int) -> None:
        client = httpx.Client(base_url=url, timeout=30)
        n = 0
        while not stop.is_set():
            n += 1
            event = {"event": f"{who}-{n}", "user": f"all-{who}", "item": f"c{n % 12}-{n % 20}"}
            try:
                if client.post("/v1/events", json=event).status_code == 200:
                    acknowledged.append(event["event"])
                reply = client.post("/v1/recommend", json={"history": [{"item": "c0-0"}, {"item": "c1-0"}], "k": 2})
            except httpx.TransportError:
                # In flight in the worker that was killed.
                lost.append(f"{who}-{n}")
                client.close()
                client = httpx.Client(base_url=url, timeout=30)
                continue
            found = reply.json() if reply.status_code == 200 else {}
            if found.get("bundle") not in names:
                wrong.append(reply.text)
                continue
            seen.add(found["bundle"])
            expected = house.NAMES[tables[names.index(found["bundle"])][0, 1, 0]]
            if found["cluster"] != expected or len(found["items"]) != 2:
                wrong.append(found)
        client.close()

    with running.processes(workspace, 2) as (server, url):
        threads = [threading.Thread(target=ask, args=(url, who)) for who in range(4)]
        for thread in threads:
            thread.start()
        try:
            for turn in range(4):
                time.sleep(0.6)
                if turn % 2:
                    put(workspace, house.build(workspace, 1))
                else:
                    publish.rollback(workspace)
            # One worker may still be starting.
            for _ in range(600):
                if len(alive := children(server.pid)) == 2:
                    break
                time.sleep(0.1)
            else:
                raise AssertionError("there were never two workers")
            victim = alive[0]
            os.kill(victim, signal.SIGKILL)
            time.sleep(1.5)
        finally:
            stop.set()
            for thread in threads:
                thread.join(30)
        for _ in range(600):
            if len(alive := children(server.pid)) == 2 and victim not in alive:
                break
            time.sleep(0.1)
        else:
            raise AssertionError("the killed worker was not started again")
        with httpx.Client(base_url=url) as client:
            log = client.get("/v1/log").text
    assert wrong == []
    assert seen == set(names)
    # At most the requests that each thread had in flight.
    assert len(lost) <= 4
    assert len(acknowledged) > 20
    # Every acknowledged event is in the log: one row each, since no answer was for these users.
    rows = sum(line.startswith("all-") for line in log.splitlines())
    assert rows >= len(acknowledged)


def test_a_bundle_that_could_not_be_taken_up_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever goes wrong, a worker serves the old one and goes on looking."""
    workspace = tmp_path / "w"
    put(workspace, house.build(workspace, 0))
    opened, tries = service.open_current, list[str]()

    def breaks(folder: Path) -> service.Live:
        tries.append("")
        if len(tries) <= 2:
            raise (OSError("too many open files"), RuntimeError("a model that does not load"))[len(tries) - 1]
        return opened(folder)

    async def main() -> None:
        worker = service.Service(workspace, config.Serving())
        first = worker.live.name
        second = put(workspace, house.build(workspace, 1))
        assert second != first
        monkeypatch.setattr(service, "open_current", breaks)
        following = asyncio.create_task(worker.follow())
        for _ in range(100):
            await asyncio.sleep(0.1)
            if worker.live.name == second:
                break
        assert (worker.live.name, len(tries)) == (second, 3)
        assert not following.done()
        following.cancel()
        await worker.close()

    asyncio.run(main())
