"""Everybody in a batch is answered as `recommend` answers them alone."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from byway.base import config
from byway.serving import batch
from byway.serving.answers import Answer
from byway.serving.batch import Request
from byway.serving.bundle import Bundle
from byway.serving.person import DAY, Seen, in_catalog
from byway.serving.recommend import recommend
from tests.serving.planted import LENGTH, SIZES, M, Planted, planned_of

NOW = 20_000 * DAY
EMPTY = np.full((M, M, M), -1, dtype=np.int32)
EVERYWHERE = [Seen(f"c{c}-0", NOW) for c in range(M)]


def sparse() -> np.ndarray:
    """A table of which most pairs have no ranking, and the others few clusters."""
    rng, table = np.random.default_rng(3), EMPTY.copy()
    for a, b in rng.integers(M, size=(12, 2)):
        others = rng.permutation([c for c in range(M) if c not in (a, b)])[:2]
        table[a, b, : len(others)] = others
    return table


WORLDS = {
    "as planted": Planted(),
    "a policy of any length": Planted(length="length"),
    "sparse": Planted(table=sparse()),
    "empty": Planted(table=EMPTY),
    "triples": Planted(triples={(0, 1, 2): [5, 3], (1, 2, 3): [6]}),
    "scarce": Planted(settings=config.Bundle(days=5)),
    "paper": Planted(settings=config.Bundle(mode="paper")),
    "person": Planted(planned=planned_of()),
    "person by leaves": Planted(planned=planned_of(items=False), settings=config.Bundle(skip=0.4, new_interests=2)),
    "person of triples": Planted(planned=planned_of(), triples={(0, 1, 2): [5, 3], (1, 2, 3): [6]}),
    "person with young interests": Planted(
        planned=planned_of(), settings=config.Bundle(skip=0.0, young_days=20, again_days=10)
    ),
}
USUAL = {"empty": "popular_cluster"} | {name: "person" for name in WORLDS if name.startswith("person")}


def people(rng: np.random.Generator, count: int) -> list[tuple[list[Seen], int | None]]:
    """Histories of no, some and many items, with and without times, in few and in all clusters; some unknown."""
    found: list[tuple[list[Seen], int | None]] = [([], None), ([Seen("nobody")], NOW), (EVERYWHERE, NOW)]
    while len(found) < count:
        clusters = rng.choice(M, rng.integers(1, M + 1), replace=False)
        length = int(rng.integers(0, 2 * LENGTH))
        items = [f"c{c}-{rng.integers(SIZES[c] + (rng.random() < 0.1))}" for c in rng.choice(clusters, length)]
        times = np.sort(rng.integers(0, 60, length)) * DAY + NOW - 60 * DAY
        satisfied = rng.choice([0.0, 0.3, 1.0], length)
        seen = [Seen(item, int(t), float(s)) for item, t, s in zip(items, times, satisfied, strict=True)]
        found.append((seen, None if rng.random() < 0.3 else NOW))
    return found


def asked(bundle: Bundle, some: list[tuple[list[Seen], int | None]]) -> list[Request]:
    return [Request(in_catalog(bundle, seen), now, np.random.default_rng(i)) for i, (seen, now) in enumerate(some)]


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("k", [1, 5])
def test_a_batch_is_what_each_is_answered_alone(
    tmp_path: Path, world: str, k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = WORLDS[world].build(tmp_path)
    some = people(np.random.default_rng(7), 120)
    alone = [recommend(bundle, seen, np.random.default_rng(i), k, now) for i, (seen, now) in enumerate(some)]
    # Cut where it hurts: people and histories in parts that divide nothing evenly.
    monkeypatch.setattr(batch, "PEOPLE", 50)
    found = batch.answer(bundle, asked(bundle, some), k)
    for i, answer in enumerate(alone):
        rows = found.person == i
        assert [bundle.ids[p] for p in found.position[rows].tolist()] == [each.item for each in answer.items], i
        assert found.propensity[rows].tolist() == [each.propensity for each in answer.items], answer.strategy
        assert found.score[rows].tolist() == pytest.approx([each.score for each in answer.items], abs=2e-6)
        assert found.rank[rows].tolist() == list(range(1, len(answer.items) + 1))
    strategies = Counter(answer.strategy for answer in alone)
    assert strategies["popular_items"] >= 2
    assert strategies["unrestricted"] or world in ("person with young interests", "paper")
    assert strategies[USUAL.get(world, "table")] > 20


def test_every_strategy_is_compared(tmp_path: Path) -> None:
    bundle = WORLDS["sparse"].build(tmp_path)
    found = Counter[str]()
    for i, (seen, now) in enumerate(people(np.random.default_rng(7), 120)):
        answer: Answer = recommend(bundle, seen, np.random.default_rng(i), 5, now)
        found[answer.strategy] += 1
    assert set(found) == {"table", "popular_cluster", "unrestricted", "popular_items"}


def test_what_is_too_old_or_too_bad_is_shown_to_nobody(tmp_path: Path) -> None:
    """People at other hours, so that other items are too old for each."""
    planted = Planted(settings=config.Bundle(max_age_days=20))
    bundle = planted.build(tmp_path)
    rng = np.random.default_rng(5)
    bundle = bundle.__class__(
        **{name: getattr(bundle, name) for name in bundle.__dataclass_fields__}
        | {"created": NOW - rng.integers(0, 40, len(bundle.created)) * DAY, "eligible_at": {}}
    )
    some = [(seen, int(NOW - rng.integers(20) * DAY)) for seen, _ in people(rng, 60)]
    alone = [recommend(bundle, seen, np.random.default_rng(i), 5, now) for i, (seen, now) in enumerate(some)]
    found = batch.answer(bundle, asked(bundle, some), 5)
    shown = [bundle.ids[p] for p in found.position.tolist()]
    assert shown == [each.item for answer in alone for each in answer.items]
    assert found.propensity.tolist() == [each.propensity for answer in alone for each in answer.items]
    assert len({answer.strategy for answer in alone}) > 1


def test_nobody_is_answered_with_nothing(tmp_path: Path) -> None:
    found = batch.answer(Planted().build(tmp_path), [], 5)
    assert [len(column) for column in (found.person, found.position, found.score, found.propensity)] == [0] * 4


@pytest.mark.parametrize("length", [LENGTH, "length"])
def test_histories_read_together_are_those_read_alone(tmp_path: Path, length: int | str) -> None:
    bundle = Planted(length=length).build(tmp_path)
    assert bundle.any_batch
    rng = np.random.default_rng(1)
    histories = [rng.integers(len(bundle.ids), size=n).tolist() for n in rng.integers(0, 12, 200)]
    together = bundle.encode_many(histories)
    # The mean of many is rounded otherwise than that of one.
    np.testing.assert_allclose(together, [bundle.encode(each) for each in histories], atol=1e-6)
