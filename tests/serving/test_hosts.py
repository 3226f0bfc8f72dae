"""Several hosts over one server: allowances that they share, and a bundle that is published for all of them."""

import asyncio
import shutil
import subprocess
import time
from collections.abc import Generator
from pathlib import Path

import httpx
import pytest
import redis

from byway.base import artifact, config
from byway.base.errors import UserError
from byway.serving import hosts, publish
from tests.serving import house, running, valkey_server


@pytest.fixture
def url(tmp_path: Path) -> Generator[str]:
    (tmp_path / "server").mkdir()
    with valkey_server.running(tmp_path / "server", running.free_port()) as found:
        yield found


def test_hosts_share_an_allowance(url: str) -> None:
    async def main() -> None:
        one, other = hosts.Allowances(url, 2.0, 5), hosts.Allowances(url, 2.0, 5)
        waits = [await host.wait("a") for _ in range(4) for host in (one, other)]
        assert waits[:5] == [0.0] * 5
        assert all(0 < wait <= 0.5 for wait in waits[5:])
        assert await one.wait("b") == 0.0
        await asyncio.sleep(max(waits[5:]))
        assert await other.wait("a") == 0.0
        await one.close()
        await other.close()

    asyncio.run(main())


def test_nobody_is_refused_or_held_up_for_a_server_that_is_gone() -> None:
    async def main() -> None:
        gone = hosts.Allowances(f"redis://127.0.0.1:{running.free_port()}/0", 1.0, 1)
        began = time.monotonic()
        assert [await gone.wait("a") for _ in range(50)] == [0.0] * 50
        assert time.monotonic() - began < hosts.AGAIN
        await gone.close()

    asyncio.run(main())


def published(workspace: Path, settings: config.Serving, seed: int = 0) -> str:
    records = house.build(workspace, seed)
    folder = workspace / "13-bundle"
    return publish.publish(workspace, folder, settings, records, tell=hosts.telling(settings))


def test_what_one_host_publishes_all_serve(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "PIECE", 1000)
    settings = config.Serving(history=url, publication="server")
    a, b = tmp_path / "a", tmp_path / "b"
    (b / "published").mkdir(parents=True)
    assert not hosts.take(b, settings)
    names = [published(a, settings, seed) for seed in (0, 1)]
    assert hosts.take(b, settings)
    assert not hosts.take(b, settings)
    assert not hosts.take(a, settings)
    there = b / "published" / names[1]
    record = artifact.read_record(there)
    assert record is not None
    assert artifact.edited(there, record) == []
    assert (there / publish.FIGURES).read_bytes() == (a / "published" / names[1] / publish.FIGURES).read_bytes()
    # Back on one host is back on all; what this one never had comes over too.
    assert publish.rollback(a, hosts.telling(settings)) == names[0]
    assert hosts.take(b, settings)
    assert publish.current(b) == publish.Current(names[0], [])
    published(a, settings, 2)
    kept = {key.decode() for key in redis.Redis.from_url(url).scan_iter("byway:bundle:*")}
    current = publish.current(a)
    assert current is not None
    assert kept == {f"byway:bundle:{name}" for name in (current.bundle, *current.before)}


@pytest.mark.parametrize("fault", ["missing", "changed", "path"])
def test_what_comes_over_damaged_is_not_served(tmp_path: Path, url: str, fault: str) -> None:
    settings = config.Serving(history=url, publication="server")
    name = published(tmp_path / "a", settings)
    server, key = redis.Redis.from_url(url), f"byway:bundle:{name}"
    if fault == "missing":
        server.delete(key)
    elif fault == "changed":
        server.hset(key, "vectors.npy:0", b"other")
    else:
        server.hset(key, "files", b'{"../../stolen": 4}')
    with pytest.raises(UserError, match="publish it again"):
        hosts.take(tmp_path / "b", settings)
    assert publish.current(tmp_path / "b") is None
    assert not [path for path in (tmp_path / "b" / "published").iterdir() if path.is_dir()]


def test_where_hosts_cannot_be_told_nothing_changes_here(tmp_path: Path) -> None:
    gone = config.Serving(history=f"redis://127.0.0.1:{running.free_port()}/0", publication="server")
    with pytest.raises(UserError, match="nothing is published"):
        published(tmp_path, gone)
    assert publish.current(tmp_path) is None
    with pytest.raises(UserError, match=r"serving\.history"):
        hosts.telling(config.Serving(publication="server"))


@pytest.mark.slow
def test_a_running_host_takes_up_what_another_publishes(tmp_path: Path, url: str) -> None:
    settings = config.Serving(history=url, publication="server")
    published(tmp_path / "a", settings)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "byway.toml").write_text(f'[serving]\nhistory = "{url}"\npublication = "server"\n', "utf-8")
    with running.processes(tmp_path / "b", 2) as (_, address), httpx.Client(base_url=address) as client:
        wanted = published(tmp_path / "a", settings, 1)
        until = time.monotonic() + 20
        while {client.get("/readyz").json()["bundle"] for _ in range(6)} != {wanted}:
            assert time.monotonic() < until
            time.sleep(0.2)


@pytest.mark.skipif(shutil.which("haproxy") is None, reason="HAProxy is not installed")
def test_the_proxy_takes_its_configuration() -> None:
    path = Path(__file__).parents[2] / "deploy" / "haproxy.cfg"
    checked = subprocess.run(["haproxy", "-c", "-f", str(path)], capture_output=True, text=True, timeout=30)
    assert checked.returncode == 0, checked.stderr
