"""Real feedback as a platform's `Environment`: whatever is recommended, people's own answers say what came of it.

Two records are replayed: KuaiRec's fully observed matrix (Gao et al., CIKM 2022), of which everybody can be shown
any video, and what each person went on to rate in a log that was cut in two (`data/later.py`). People can be shown
nothing else, and stay away once they have seen all of it. Later ratings are biased by what people chose to rate,
for all arms alike. No taste is simulated, and nobody tires.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
from numpy.typing import NDArray

from byway.base.errors import UserError
from byway.data import later
from byway.data.events import Events
from byway.data.text import compute
from byway.simulation.platform import Felt
from byway.simulation.source import NONE, Flags, Floats, Ints


class Replay:
    """What each of U users answered to some of N items."""

    def __init__(
        self, user: Ints, item: Ints, satisfaction: Floats, seconds: Floats, shape: tuple[int, int], length: int
    ):
        """Rows of the first four [r] are answers, of which no user has two to one item.

        `shape` is (U, N), `length` the items that a user is shown a day while there are as many.
        """
        pair = user * shape[1] + item
        order = np.argsort(pair)
        self.pair, self.satisfaction, self.seconds = pair[order], satisfaction[order], seconds[order]
        self.shape, self.length = shape, length
        self.left = np.bincount(user, minlength=shape[0])
        """[U] answers that the user has not been asked for yet."""
        self.users = np.flatnonzero(self.left)

    def missing(self) -> Flags:
        """[U, N] what a user did not answer to: it cannot be shown to them."""
        out = np.ones(self.shape, np.bool_)
        out.ravel()[self.pair] = False
        return out

    def visits(self, day: int, rng: np.random.Generator) -> Ints:
        return np.minimum(self.left, self.length)

    def discover(self, user: Ints, seen: Flags, rng: np.random.Generator) -> Ints:
        """Nobody searches: what they would have found is not known."""
        return np.full(len(user), NONE)

    def watch(self, user: Ints, item: Ints, rng: np.random.Generator) -> Felt:
        """Raises LookupError for an item that its user did not answer to."""
        pair = user * self.shape[1] + item
        at = np.minimum(np.searchsorted(self.pair, pair), len(self.pair) - 1)
        if (self.pair[at] != pair).any():
            raise LookupError("somebody was shown what they did not answer to")
        self.left[user] -= 1
        return Felt(self.satisfaction[at], self.seconds[at], np.zeros(len(user), np.bool_))

    def night(self) -> None:
        """Nothing fades."""

    def hidden(self) -> Sequence[NDArray[np.generic]]:
        return (self.satisfaction, self.seconds)


def load_later(path: Path, item_ids: list[str], user_ids: list[str], events: Events, length: int) -> Replay:
    """Read `later.parquet` at `path` for the people of the log `events`.

    Of several ratings of one item the first counts, and none where the item is in their log already. Raises
    UserError where nothing is left, and as `later.read`.
    """
    table = later.read(path)
    user, item = _places(table["user"], user_ids), _places(table["item"], item_ids)
    known = np.flatnonzero((user != NONE) & (item != NONE))
    n = len(item_ids)
    pair, first = np.unique(user[known] * n + item[known], return_index=True)
    there = events.user.astype(np.int64) * n + events.item
    rows = known[first[~np.isin(pair, there)]]
    if not len(rows):
        raise UserError(
            f"{path}: none of its ratings is one that the people of this workspace still had before them; make the "
            "workspace of the events.parquet beside it, where their log ends."
        )
    nothing = np.zeros(len(rows), np.float32)
    liked = table["satisfaction"].to_numpy()[rows]
    return Replay(user[rows], item[rows], liked, nothing, (len(user_ids), n), length)


def load(path: Path, item_ids: list[str], user_ids: list[str], length: int) -> Replay:
    """Read the matrix at `path`: the public `small_matrix.csv`, or a list of positives alone.

    Public layout: satisfaction is min(watch_ratio / 2, 1), as in the log, and seconds are play_duration. Positives
    alone: 1 for each pair that is listed, 0 for every other pair of a user and a video that occur in the list (0.4%
    of which were never observed); no seconds. Raises UserError where no user or video is in the workspace's log.
    """
    table = csv.read_csv(path, convert_options=csv.ConvertOptions(column_types={"user_id": pa.string()}))
    user, item = _places(table["user_id"], user_ids), _places(table["video_id"].cast(pa.string()), item_ids)
    both = (user != NONE) & (item != NONE)
    if not both.any():
        raise UserError(
            f"{path}: none of its users and videos are in this workspace; point experiment.truth to its own."
        )
    users, row = np.unique(user[both], return_inverse=True)
    items, column = np.unique(item[both], return_inverse=True)
    satisfaction = np.zeros((len(users), len(items)), np.float32)
    seconds = np.zeros_like(satisfaction)
    if "watch_ratio" in table.column_names:
        ratio = np.nan_to_num(table["watch_ratio"].to_numpy().astype(np.float64))[both]
        satisfaction[row, column] = np.clip(ratio / 2, 0, 1)
        seconds[row, column] = table["play_duration"].to_numpy().astype(np.float64)[both] / 1000
    else:
        satisfaction[row, column] = 1
    shape = len(user_ids), len(item_ids)
    each, other = np.repeat(users, len(items)), np.tile(items, len(users))
    return Replay(each, other, satisfaction.ravel(), seconds.ravel(), shape, length)


def _places(names: pa.ChunkedArray, ids: list[str]) -> Ints:
    """Where each name stands among the ids; NONE where it does not."""
    found = compute.fill_null(compute.index_in(names, pa.array(ids, pa.string())), NONE)
    return found.to_numpy().astype(np.int64)
