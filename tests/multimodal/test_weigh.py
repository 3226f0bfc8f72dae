"""Weights of what names the cluster that follows, where it is known who tells."""

from typing import Literal

import numpy as np
import pytest

from byway.multimodal import weigh
from byway.multimodal.curate import PairSamples

N, M, SIBLINGS = 600, 9, 4
Who = Literal["counts", "pictures", "model"]


def pairs(rng: np.random.Generator, told: dict[Who, float]) -> tuple[weigh.Scores, np.ndarray, PairSamples]:
    """Each item's next is one of four clusters; each signal points to it so often, and else anywhere."""
    open_NM = np.zeros((N, M), np.bool_)
    open_NM[:, 1 : 1 + SIBLINGS] = True
    label = rng.integers(1, 1 + SIBLINGS, N).astype(np.int32)
    scores: weigh.Scores = {}
    for name, share in told.items():
        pointed = np.where(rng.random(N) < share, label, rng.integers(1, 1 + SIBLINGS, N))
        scores[name] = np.where(open_NM, np.log(np.where(np.arange(M) == pointed[:, None], 0.7, 0.1)), 0.0)
    ones = np.ones(N, np.float32)
    return scores, open_NM, PairSamples(np.arange(N, dtype=np.int32), label, np.ones(N, np.int32), ones, ones)


def recall(scores: weigh.Scores, weights: dict[str, float], open_NM: np.ndarray, some: PairSamples) -> float:
    total = sum(weight * scores[name] for name, weight in weights.items())
    return float((np.where(open_NM, total, -np.inf).argmax(1) == some.label).mean())


@pytest.mark.parametrize("who", ["counts", "pictures", "model"])
def test_who_tells_has_the_weight(who: Who) -> None:
    told: dict[Who, float] = {"counts": 0.0, "pictures": 0.0, "model": 0.0, who: 0.6}
    scores, open_NM, some = pairs(np.random.default_rng(1), told)
    weights = weigh.fitted(scores, open_NM, np.arange(N), some)
    assert weights[who] > 0.5
    assert all(weight < 0.15 for name, weight in weights.items() if name != who)
    assert recall(scores, weights, open_NM, some) > 0.6


def test_together_they_find_more_than_each_alone() -> None:
    fit = pairs(np.random.default_rng(2), {"counts": 0.4, "pictures": 0.5, "model": 0.3})
    weights = weigh.fitted(*fit[:2], np.arange(N), fit[2])
    scores, open_NM, some = pairs(np.random.default_rng(3), {"counts": 0.4, "pictures": 0.5, "model": 0.3})
    best = max(recall(scores, {name: 1.0}, open_NM, some) for name in scores)
    assert recall(scores, weights, open_NM, some) > best + 0.03
    assert weights["pictures"] > weights["counts"] > weights["model"] > 0


def test_nobody_is_believed_the_other_way_round_and_few_pairs_believe_the_log() -> None:
    rng = np.random.default_rng(4)
    scores, open_NM, some = pairs(rng, {"counts": 0.5, "model": 0.0})
    # The model is surest of what never comes.
    scores["model"] = np.where(np.arange(M) == some.label[:, None], -5.0, 0.0) * open_NM
    weights = weigh.fitted(scores, open_NM, np.arange(N), some)
    assert weights.keys() == {"counts"}
    none = PairSamples(*(np.zeros(0, kind) for kind in ("i4", "i4", "i4", "f4", "f4")))
    assert weigh.fitted(scores, open_NM, np.arange(0), none) == {"counts": 1.0, "pictures": 0.0, "model": 0.0}
