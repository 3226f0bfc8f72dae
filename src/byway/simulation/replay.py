"""KuaiRec's fully observed matrix as a platform's `Environment`: what real people really did with every video.

Whatever an arm recommends to one of these users, the matrix says what came of it, so no taste is simulated. Nobody
tires, nobody stays away: everybody is shown a list of the same length on every day. Gao et al., CIKM 2022.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
from numpy.typing import NDArray

from byway.base.errors import UserError
from byway.simulation.platform import Felt
from byway.simulation.source import NONE, Flags, Floats, Ints


class Replay:
    """Real feedback of u users and v items, who have their places in the catalog's U users and N items."""

    def __init__(
        self, satisfaction: Floats, seconds: Floats, users: Ints, items: Ints, shape: tuple[int, int], length: int
    ):
        """`satisfaction` and `seconds` [u, v], 0 where unobserved; `users` [u] and `items` [v] ascending.

        `shape` is (U, N), `length` the items that everybody is shown a day.
        """
        self.satisfaction, self.seconds = satisfaction, seconds
        self.users, self.items, self.shape, self.length = users, items, shape, length

    def missing(self) -> Flags:
        """[N] items that the matrix does not hold: nobody can be shown them."""
        out = np.ones(self.shape[1], np.bool_)
        out[self.items] = False
        return out

    def visits(self, day: int, rng: np.random.Generator) -> Ints:
        found = np.zeros(self.shape[0], np.int64)
        found[self.users] = self.length
        return found

    def discover(self, user: Ints, seen: Flags, rng: np.random.Generator) -> Ints:
        """Nobody searches: what they would have found is not known."""
        return np.full(len(user), NONE)

    def watch(self, user: Ints, item: Ints, rng: np.random.Generator) -> Felt:
        at = np.searchsorted(self.users, user), np.searchsorted(self.items, item)
        return Felt(self.satisfaction[at], self.seconds[at], np.zeros(len(user), np.bool_))

    def night(self) -> None:
        """Nothing fades."""

    def hidden(self) -> Sequence[NDArray[np.generic]]:
        return (self.satisfaction, self.seconds)


def load(path: Path, item_ids: list[str], user_ids: list[str], length: int) -> Replay:
    """Read the matrix at `path`: the public `small_matrix.csv`, or a list of positives alone.

    Public layout: satisfaction is min(watch_ratio / 2, 1), as in the log, and seconds are play_duration. Positives
    alone: 1 for each pair that is listed, 0 for every other pair of a user and a video that occur in the list (0.4%
    of which were never observed); no seconds. Raises UserError where no user or video is in the workspace's log.
    """
    table = csv.read_csv(path, convert_options=csv.ConvertOptions(column_types={"user_id": pa.string()}))
    user_at = {name: i for i, name in enumerate(user_ids)}
    item_at = {name: i for i, name in enumerate(item_ids)}
    user = np.array([user_at.get(name, NONE) for name in table["user_id"].to_pylist()])
    item = np.array([item_at.get(str(name), NONE) for name in table["video_id"].to_pylist()])
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
    return Replay(satisfaction, seconds, users, items, (len(user_ids), len(item_ids)), length)
