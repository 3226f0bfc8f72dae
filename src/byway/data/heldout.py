"""What of a log is held out: its last part, so that nothing is learned of what comes later than what it is asked.

It knows times and users, and neither clusters nor what is learned.
"""

import numpy as np
from numpy.typing import NDArray


def split(
    time: NDArray[np.int64],
    progress: NDArray[np.float64],
    user: NDArray[np.int32],
    clock: bool,
    heldout: float,
    validation: float,
) -> NDArray[np.int8]:
    """[N] 0 train, 1 validation, 2 held out for each row, by time.

    With a clock the last `heldout` share of all rows is held out; without one, the end of each user's own sequence,
    in which `progress` says where a row stands. Validation is the same cut once more inside the rest. Of many at
    one instant the cut takes some (`latest`), so that days do for a clock.
    """
    if not len(time):
        return np.zeros(0, np.int8)
    if not clock:
        late = 1 - heldout
        return np.where(progress > late, 2, np.where(progress > late * (1 - validation), 1, 0)).astype(np.int8)
    held = latest(time, user, heldout)
    part = np.where(held, 2, 0).astype(np.int8)
    rest = np.flatnonzero(~held)
    part[rest[latest(time[rest], user[rest], validation)]] = 1
    return part


def split_instants(time: NDArray[np.int64], part: NDArray[np.int8]) -> NDArray[np.bool_]:
    """[N] which rows are of an instant that lies in more than one part."""
    _, at = np.unique(time, return_inverse=True)
    first, last = np.full(at.max(initial=-1) + 1, 2), np.zeros(at.max(initial=-1) + 1, np.int64)
    np.minimum.at(first, at, part)
    np.maximum.at(last, at, part)
    return (first < last)[at]


def progress(user: NDArray[np.integer]) -> NDArray[np.float64]:
    """[N] where each row of sorted users stands in its user's own sequence, in (0, 1].

    >>> progress(np.array([0, 0, 0, 0, 3])).tolist()
    [0.25, 0.5, 0.75, 1.0, 1.0]
    """
    starts = np.flatnonzero(np.diff(user, prepend=-1))
    length = np.diff(np.append(starts, len(user)))
    return (np.arange(len(user)) - np.repeat(starts, length) + 1) / np.repeat(length, length)


def latest(time: NDArray[np.int64], user: NDArray[np.int32], share: float) -> NDArray[np.bool_]:
    """[N] which of some events, each user's in order, are the last `share` of them by time.

    Of many at the instant of the cut as many are taken as the share asks for: by users, in an order that only their
    numbers settle, and of one user the last ones.
    """
    if not len(time) or share == 0:
        return np.zeros(len(time), bool)
    cut = int(np.quantile(time, 1 - share, method="lower"))
    late, tied = time > cut, np.flatnonzero(time == cut)
    room = round(share * len(time)) - int(late.sum())
    if len(tied) > 1 and room > 0:
        # Numbers scattered over 64 bits: users come in the order in which the log names them, often that of time.
        scattered = user[tied].astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        late[tied[np.argsort(scattered, kind="stable")[-room:]]] = True
    return late
