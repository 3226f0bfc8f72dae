"""`byway seed`: people of the log are known to the service at once, each event once, and the log is not doubled."""

import asyncio
import time
from pathlib import Path

import pytest

from byway.base import config
from byway.base.errors import UserError
from byway.serving import exports, stores
from byway.serving.history import DAY, SEEDED, Event
from byway.serving.service import Service
from byway.workflow import pipeline, seeding
from tests.serving import house
from tests.workflow import test_refresh as small

NOW = int(time.time())


def workspace(folder: Path, start: int, toml: str = "") -> Path:
    small.write(folder / "items.csv", small.ITEM, small.titles(0, small.ITEMS))
    small.write(folder / "events.csv", small.EVENT, small.log(0, 5, small.ITEMS, start, 0))
    (folder / "byway.toml").write_text(small.TOML + toml, "utf-8")
    pipeline.run(folder, config.load(folder / "byway.toml"), until="catalog")
    return folder


def seeded(folder: Path) -> dict[str, object]:
    return seeding.seed(folder, config.load(folder / "byway.toml"))


def history(folder: Path, user: str) -> list[Event]:
    async def read() -> list[Event]:
        async with stores.opened(config.Serving(), folder / "serving") as store:
            return await store.of(user, -1)

    return asyncio.run(read())


def test_people_of_the_log_are_known_and_each_event_once(tmp_path: Path) -> None:
    folder = workspace(tmp_path, NOW - 20_000)
    rows = [line.split(",") for line in (folder / "events.csv").read_text().splitlines()[1:]]
    assert seeded(folder) == {"added": len(rows), "users": 5, "older": 0}
    assert seeded(folder)["added"] == 0
    known = [(e.user, e.item, e.time, e.satisfaction, e.source) for e in history(folder, "u3")]
    wanted = [(u, i, int(t) * 10**6, float(s), SEEDED) for u, i, t, s in rows if u == "u3"]
    assert sorted(known) == sorted(wanted)


def test_what_is_older_than_the_history_keeps_is_counted_and_stays_out(tmp_path: Path) -> None:
    # People's events are 1,000 seconds apart: some of them lie before the bound.
    folder = workspace(tmp_path, int(time.time()) - 30 * DAY // 10**6 - 2_500)
    found = seeded(folder)
    assert found == {"added": 2 * small.EVENTS, "users": 2, "older": 3 * small.EVENTS}
    assert history(folder, "u0") == []
    with pytest.raises(UserError, match=r"ends over 1 days ago.* raise serving\.forget_days"):
        seeding.seed(folder, config.load(folder / "byway.toml", ["serving.forget_days=1"]))


def test_the_log_of_the_service_leaves_out_what_was_seeded(tmp_path: Path) -> None:
    house.published(tmp_path)
    folder = workspace(tmp_path, NOW - 20_000)
    seeded(folder)

    async def exported() -> list[str]:
        service = Service(folder, config.Serving())
        await service.history.add([Event("own", "u3", "7", NOW * 10**6)])
        text = b"".join([piece async for _, _, piece in exports.pieces(service)]).decode()
        await service.history.close()
        return text.splitlines()

    (line,) = asyncio.run(exported())
    assert line.startswith("u3,7,")
