"""The score of visual interest finds what was planted, and is not told the answer of the item it scores."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from byway.data import media
from byway.data.media import Media
from byway.simulation import visual

M, N, WIDTH = 300, 400, 8


def planted(rng: np.random.Generator, told: float) -> tuple[Media, NDArray[np.float32], NDArray[np.bool_]]:
    """Pictures of which half vary a lot; the embedding's first axis tells which, as loudly as `told`."""
    rich = rng.random(N) < 0.5
    vectors = rng.normal(size=(N, 16)).astype(np.float32)
    vectors[:, 0] += told * np.where(rich, 1, -1)
    item = np.sort(rng.choice(N, M, replace=False)).astype(np.int32)
    spread = np.where(rich[item], 3.0, 0.3)[:, None, None, None]
    pictures = (spread * rng.normal(size=(M, 2, 4, WIDTH))).astype(np.float16)
    there = np.ones((M, 2), np.bool_)
    there[::7, 0] = False
    return Media(item, pictures, there, np.zeros((M, 1), np.float32), [""] * M, Path()), vectors, rich


def test_what_varies_is_rich_also_where_nobody_looked() -> None:
    seen, vectors, rich = planted(np.random.default_rng(0), told=2.0)
    score = visual.interest(seen, vectors)
    assert score is not None
    assert ((score >= 0) & (score <= 1)).all()
    unseen = np.setdiff1d(np.arange(N), seen.item)
    for part in (seen.item, unseen):
        assert ((score[part] > 0.5) == rich[part]).mean() > 0.9


def test_an_embedding_that_tells_nothing_gives_no_answer_away() -> None:
    seen, vectors, rich = planted(np.random.default_rng(1), told=0.0)
    score = visual.interest(seen, vectors)
    assert score is not None
    assert abs(((score[seen.item] > 0.5) == rich[seen.item]).mean() - 0.5) < 0.1


def test_a_picture_that_is_not_there_does_not_count() -> None:
    seen, _, _ = planted(np.random.default_rng(2), told=0.0)
    before = media.variety(seen, np.arange(len(seen.item)))
    seen.pictures[~seen.there] = 1000
    np.testing.assert_array_equal(media.variety(seen, np.arange(len(seen.item))), before)


def test_too_few_pictures_are_no_score() -> None:
    seen, vectors, _ = planted(np.random.default_rng(3), told=1.0)
    few = Media(seen.item[:9], seen.pictures[:9], seen.there[:9], seen.sounds[:9], seen.digest[:9], seen.path)
    assert visual.interest(few, vectors) is None
    none = Media(seen.item[:0], seen.pictures[:0], seen.there[:0], seen.sounds[:0], [], seen.path)
    assert visual.interest(none, vectors) is None
