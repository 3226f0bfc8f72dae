"""Public tables as people have them: from the folder to a first recommendation, without editing a file."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import byway
from tests.workflow.test_refresh import TOPICS, cheap

__all__ = ["cheap"]  # a quick encoder, and counts in the place of the language model
ITEMS, USERS, EVENTS = 72, 40, 24
NAMES = [f"{TOPICS[i % 6]} {TOPICS[i // 6 % 6]} number {i}" for i in range(ITEMS)]


def acts(seed: int) -> list[tuple[int, int, int, int]]:
    """User, item, stars, and seconds since 1970 of everybody's events."""
    rng = np.random.default_rng(seed)
    return [
        (u, int(rng.integers(ITEMS)), int(rng.integers(1, 6)), 1_500_000_000 + 100_000 * u + 3600 * t)
        for u in range(USERS)
        for t in range(EVENTS)
    ]


def lines(path: Path, rows: list[str]) -> None:
    path.write_text("\n".join(rows) + "\n", "utf-8")


def recbole(folder: Path) -> None:
    items = [f"m{i}\t{name}\t{name.split()[0]} drama" for i, name in enumerate(NAMES)]
    lines(folder / "ml.item", ["item_id:token\titem_name:token_seq\tgenre:token_seq", *items])
    log = [f"u{u}\tm{i}\t{stars}\t{at}" for u, i, stars, at in acts(0)]
    lines(folder / "ml.inter", ["user_id:token\titem_id:token\trating:float\ttimestamp:float", *log])


def amazon(folder: Path) -> None:
    meta = [
        json.dumps(
            {"parent_asin": f"B{i:09d}", "title": name, "features": [], "categories": ["All", name.split()[0]]}
        )
        for i, name in enumerate(NAMES)
    ]
    lines(folder / "meta_All_Beauty.jsonl", meta)
    log = [
        json.dumps({"user_id": f"u{u}", "parent_asin": f"B{i:09d}", "rating": float(stars), "timestamp": 1000 * at})
        for u, i, stars, at in acts(1)
    ]
    lines(folder / "All_Beauty.jsonl", log)


def steam(folder: Path) -> None:
    rows: list[str] = []
    for u, i, stars, _ in acts(2):
        rows.append(f'{u},"{NAMES[i]}",purchase,1.0,0')
        rows += [f'{u},"{NAMES[i]}",play,{4.0 * stars},0'] * (stars > 1)
    lines(folder / "steam-200k.csv", rows)


def lastfm(folder: Path) -> None:
    artists = [f"{i}\t{name}\thttp://x/{i}\thttp://x/{i}.jpg" for i, name in enumerate(NAMES, 1)]
    lines(folder / "artists.dat", ["id\tname\turl\tpictureURL", *artists])
    lines(folder / "tags.dat", ["tagID\ttagValue", *(f"{t}\t{topic}" for t, topic in enumerate(TOPICS, 1))])
    log = [f"{u}\t{i + 1}\t{i % 6 + 1}\t{1000 * at}" for u, i, _, at in acts(3)]
    lines(folder / "user_taggedartists-timestamps.dat", ["userID\tartistID\ttagID\ttimestamp", *log])


@pytest.mark.parametrize("write", [recbole, amazon, steam, lastfm], ids=lambda write: write.__name__)
def test_from_the_folder_to_a_recommendation(tmp_path: Path, write: Callable[[Path], None]) -> None:
    data = tmp_path / write.__name__
    data.mkdir()
    write(data)
    made = byway.Workspace.create(tmp_path / "w", data, source=write.__name__)
    written = (tmp_path / "w" / "byway.toml").read_text("utf-8")
    made.run(until="bundle", tree={"items_per_cluster": 9}, item_policy={"epochs": 1, "dim": 8})
    assert (tmp_path / "w" / "byway.toml").read_text("utf-8") == written
    assert made.figures["catalog.items"] == ITEMS
    assert made.figures["catalog.users"] == USERS
    everybody = made.recommend_many(k=3).to_pydict()
    assert len(set(everybody["user"])) == USERS
    answer = made.recommend(user=everybody["user"][0], k=3)
    assert len(answer.items) == 3
    assert {item.title for item in answer.items} <= set(NAMES)
    assert answer.reasons
