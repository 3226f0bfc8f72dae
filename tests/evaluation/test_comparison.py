"""Comparisons that are cut go on where they were, and ask for no model twice."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from byway.base.artifact import Work
from byway.base.metrics import SEEDS
from byway.evaluation.comparison import place, trained


@pytest.fixture
def work(tmp_path: Path) -> Work:
    for name in ("out", "scratch"):
        (tmp_path / name).mkdir()
    return Work(tmp_path / "out", tmp_path / "scratch", np.random.default_rng(0))


def test_a_cut_comparison_goes_on_and_trains_nothing_twice(work: Work) -> None:
    asked: list[tuple[str, int]] = []

    def one(name: str, seed: int, folder: Path) -> dict[str, Any]:
        asked.append((name, seed))
        if len(asked) == 4:
            raise KeyboardInterrupt
        (place(folder, seed).out / "weights").write_text("many")
        return {"figure": f"{name} {seed}"}

    with pytest.raises(KeyboardInterrupt):
        trained(work, ["a", "b"], one)
    assert not (work.out / "runs.json").exists()
    found = trained(work, ["a", "b"], one)
    assert found == {name: [{"figure": f"{name} {seed}"} for seed in range(SEEDS)] for name in "ab"}
    every = [(name, seed) for seed in range(SEEDS) for name in "ab"]
    assert asked == [*every[:4], *every[3:]]
    assert msgspec.json.decode((work.out / "runs.json").read_bytes()) == found
    # Of a finished model its figures stay, and nothing else.
    assert sorted(path.name for path in work.scratch.iterdir()) == sorted(f"{n}-{s}.json" for n, s in every)


def test_a_place_is_empty_but_for_its_scratch_and_draws_by_its_seed(tmp_path: Path) -> None:
    before = place(tmp_path / "here", 3, 7)
    drawn = before.rng.random()
    (before.out / "old").touch()
    (before.scratch / "kept").touch()
    again = place(tmp_path / "here", 3, 7)
    assert list(again.out.iterdir()) == []
    assert (again.scratch / "kept").exists()
    assert again.rng.random() == drawn != place(tmp_path / "here", 3, 8).rng.random()
