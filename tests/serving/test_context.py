"""What to show after an item that is being watched, on a planted bundle with a planted context table."""

import asyncio
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from byway.base import config
from byway.base.errors import UserError
from byway.serving import arms, context
from byway.serving.bundle import Bundle
from byway.serving.messages import Met, RecommendRequest, Reply
from byway.serving.person import Seen
from byway.serving.service import Service
from tests.serving import house
from tests.serving.planted import NAMES, M, N, Planted


def watched(bundle: Bundle, **more: object) -> Bundle:
    """Every item of cluster 0 is answered by `c0-1`, which leads to 2, then 3, then 5; no other item is."""
    via = np.full(N, -1, np.int32)
    via[:4] = 0
    table = np.full((1, M), -1, np.int32)
    table[0, :3] = 2, 3, 5
    return replace(
        bundle,
        context_clusters=table,
        context_via=via,
        context_items=np.array([1], np.int32),
        eligible_at={},
        **more,
    )


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return watched(Planted().build(tmp_path_factory.mktemp("bundle")))


def test_the_first_cluster_that_is_new(opened: Bundle) -> None:
    answer = context.recommend(opened, "c0-1", [])
    assert (answer.strategy, answer.cluster, answer.rank) == ("context", NAMES[2], 1)
    assert {shown.item for shown in answer.items} == {f"c2-{i}" for i in range(4)}
    seen = [Seen("c2-0"), Seen("unknown")]
    strict = replace(opened, settings=replace(opened.settings, surprise="never_met"))
    answer = context.recommend(strict, "c0-2", seen, k=2)
    assert (answer.cluster, answer.rank, len(answer.items)) == (NAMES[3], 2, 2)
    # Paper 2's: another interest than the one being watched, met or not, and nothing that was seen.
    known = context.recommend(opened, "c0-2", seen, k=2)
    assert (known.cluster, known.rank) == (NAMES[2], 1)
    assert "c2-0" not in {shown.item for shown in known.items}
    assert answer.reasons[1] == "1 of 2 items in the history are not in the catalog and are ignored."
    assert "“Title of c0-1” is the nearest" in answer.reasons[2]


def test_the_service_is_led_by_what_is_seen_and_never_empty(tmp_path: Path) -> None:
    house.published(tmp_path / "w")

    async def main() -> list[Reply]:
        worker = Service(tmp_path / "w", config.Serving())
        opened = worker.live.bundle
        m, n = len(opened.manifest.names), len(opened.ids)
        table = np.full((1, m), -1, np.int32)
        table[0, :2] = 2, 3
        via = np.full(n, -1, np.int32)
        via[opened.position("c0-1")] = 0
        seen = replace(
            opened,
            context_clusters=table,
            context_via=via,
            context_items=np.array([opened.position("c0-1")], np.int32),
            settings=replace(opened.settings, surprise="never_met"),
        )
        worker.live = replace(worker.live, bundle=seen)
        asked = [
            RecommendRequest(history=[], watching="c0-1", k=3),
            RecommendRequest(history=[Met("c2-0")], watching="c0-1", k=3, exclude=["c3-0"]),
            RecommendRequest(history=[Met("c2-0"), Met("c3-0")], watching="c0-1", k=3),
            RecommendRequest(history=[Met("c1-0")], watching="c4-0", k=3),
            RecommendRequest(history=[Met("c1-0")], watching="nothing", k=3),
        ]
        replies = [await worker.answer(each, shown=[]) for each in asked]
        await worker.close()
        return replies

    one, two, *others = asyncio.run(main())
    assert (one.strategy, one.cluster, len(one.items)) == ("context", house.NAMES[2], 3)
    assert (two.strategy, two.cluster) == ("context", house.NAMES[3])
    assert "c3-0" not in [item.item for item in two.items]
    assert {item.propensity for item in (*one.items, *two.items)} == {1.0}
    assert [reply.strategy for reply in others] == ["table"] * 3
    assert all(len(reply.items) == 3 for reply in others)


@pytest.mark.parametrize(
    ("serves", "strategy"),
    [("byway", "context"), ("paper", "table"), ("masked", "masked"), ("control", "control")],
)
def test_an_arm_that_is_compared_shows_what_it_is_said_to_show(tmp_path: Path, serves: str, strategy: str) -> None:
    house.published(tmp_path / "w")
    design = f'name = "spring"\nsalt = "salt"\n[arms]\n{serves} = {{ share = 1 }}'
    (tmp_path / "w" / arms.FILE).write_text(design, "utf-8")

    async def main() -> Reply:
        worker = Service(tmp_path / "w", config.Serving())
        opened = worker.live.bundle
        looked_at = replace(
            opened,
            context_clusters=np.array([[2]], np.int32),
            context_via=np.zeros(len(opened.ids), np.int32),
            context_items=np.array([opened.position("c0-1")], np.int32),
        )
        worker.live = replace(worker.live, bundle=looked_at)
        asked = RecommendRequest(user="ann", history=[Met("c1-0")], watching="c0-1", k=3)
        reply = await worker.answer(asked, shown=[])
        await worker.close()
        return reply

    reply = asyncio.run(main())
    assert (reply.arm, reply.strategy) == (serves, strategy)


def test_nothing_new_and_nothing_looked_at_are_said(opened: Bundle) -> None:
    strict = replace(opened, settings=replace(opened.settings, surprise="never_met"))
    answer = context.recommend(strict, "c0-1", [Seen(f"c{c}-0") for c in (2, 3, 5)])
    assert (answer.items, answer.reasons[-1]) == (
        [],
        "Every interest in its ranking is known to this person already or has nothing left to show.",
    )
    assert "No item of this interest has been looked at" in context.recommend(opened, "c1-0", []).reasons[-1]
    with pytest.raises(UserError, match="no item 'nothing'"):
        context.recommend(opened, "nothing", [])


def test_items_that_may_not_be_shown_are_not(opened: Bundle) -> None:
    """Quality rises with the position: half of cluster 2, and all of what follows, is good enough."""
    good = np.linspace(0, 1, N, dtype=np.float32)
    strict = watched(opened, quality=good, settings=config.Bundle(min_quality=float(good[10])))
    assert {shown.item for shown in context.recommend(strict, "c0-1", []).items} == {"c2-2", "c2-3"}
    none = watched(opened, quality=good, settings=config.Bundle(min_quality=float(good[12])))
    answer = context.recommend(none, "c0-1", [])
    assert (answer.cluster, len(answer.items)) == (NAMES[3], 4)


def test_a_bundle_without_a_context_table_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no context table"):
        context.recommend(Planted().build(tmp_path), "c0-1", [])
