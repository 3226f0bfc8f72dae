"""Offline figures against figures worked by hand."""

import numpy as np
import pytest

from byway.evaluation import offline
from byway.language.curate import Samples


def test_ranks_in_the_table() -> None:
    ranking = np.zeros((3, 3, 2), dtype=np.int32)
    ranking[0, 1] = [2, 4]
    samples = Samples(np.array([[0, 1]] * 3, np.int32), np.array([2, 4, 3], np.int32), np.ones(3, np.int32))
    assert offline.ranks_in_table(ranking, samples).tolist() == [0, 1, 2]


def test_ranks_leave_out_the_context_and_count_ties_against_the_label() -> None:
    score = np.array([[9.0, 8.0, 5.0, 5.0, 1.0]])
    for label, rank in ((2, 1), (3, 1), (4, 2)):
        samples = Samples(np.array([[0, 1]], np.int32), np.array([label], np.int32), np.ones(1, np.int32))
        assert offline.ranks_of(score, samples).tolist() == [rank]


def test_an_even_spread_has_no_gini_and_full_entropy() -> None:
    even = np.arange(16, dtype=np.int32).reshape(4, 4, 1) % 4
    found = offline.labels(even, "x")
    assert found["x.gini"] == pytest.approx(0)
    assert found["x.entropy"] == pytest.approx(1)
    assert found["x.rare_share"] == 0


def test_one_answer_for_everybody_has_all_of_it() -> None:
    found = offline.labels(np.zeros((4, 4, 1), dtype=np.int32), "x")
    assert found["x.gini"] == pytest.approx(0.75)
    assert found["x.entropy"] == pytest.approx(0)
    assert found["x.top1pct_share"] == 1
    assert found["x.rare_share"] == 0.75
