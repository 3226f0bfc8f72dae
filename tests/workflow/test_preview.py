"""What can be shown before anything is trained: whom, which interests, which items."""

from pathlib import Path

import numpy as np
import pytest

from byway.base import config
from byway.data import catalog, events
from byway.interests import describe, tree
from byway.simulation import loop, world
from byway.simulation.people import WorldSettings
from byway.transitions.standing import Standing, load_standing
from byway.workflow import pipeline, preview

TOML = """
[catalog]
items = "source/items.parquet"
events = "source/events.parquet"

[tree]
items_per_cluster = 20

"""


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("w")
    built = world.build(0, WorldSettings(n_items=450, n_users=120, events_per_user=30.0))
    loop.write(built, loop.simulate(built), folder / "source")
    (folder / "byway.toml").write_text(TOML, "utf-8")
    pipeline.run(folder, config.load(folder / "byway.toml"), until=preview.LAST.name)
    return folder


def test_one_person_is_offered_what_they_have_not_met(workspace: Path) -> None:
    text = preview.text(workspace)
    grown, names = tree.load(workspace / "04-tree"), describe.load(workspace / "05-descriptions").names
    assert text.startswith(f"{grown.size(2)} interests, in the items' own words:")
    assert any(f"  {broad}: " in text for broad in names[0])
    who = next(line for line in text.splitlines() if " knows " in line)
    person = events.load_users(workspace / "01-catalog").index(who.split()[0])
    stands = load_standing(workspace / "06-transitions")
    met = stands.touched[stands.starts[person] : stands.starts[person + 1]].tolist()
    assert f"knows {len(met)} of {grown.size(2)} interests" in who
    last = [line for line in text.splitlines() if line.startswith("  “")]
    offered = [names[1].index(line[3:].partition("”: ")[0]) for line in last[-preview.OFFERED :]]
    assert len(set(offered)) == preview.OFFERED
    assert not set(offered) & set(met)
    # The first item of each is the most watched one.
    log, titles = events.load(workspace / "01-catalog"), catalog.load(workspace / "01-catalog").titles()
    traffic = events.traffic(log)
    for cluster, line in zip(offered, last[-preview.OFFERED :], strict=True):
        shown = line.partition("”: ")[2].split(" · ")[0]
        best = traffic[grown.items(2, cluster)].max()
        assert any(titles[i].startswith(shown) and traffic[i] == best for i in grown.items(2, cluster))


def test_who_is_shown_knows_the_median_number_and_has_something_left() -> None:
    known = [5, 0, 4, 9, 12, 2, 7]
    stands = Standing(
        starts=np.concatenate([[0], np.cumsum(known)]),
        touched=np.concatenate([np.arange(n, dtype=np.int32) for n in known]),
        recent=np.array([[0, 1], [-1, -1], [0, 1], [1, 2], [0, 1], [0, 1], [-1, 3]], np.int32),
    )
    # 12 of 12 has nothing left, 2 is too few, and two have enjoyed fewer than two of late.
    assert preview.typical(stands, 12).tolist() == [0, 2, 3]
    assert preview.typical(stands, 5).tolist() == [2]
