"""Which interests a person may be offered as new: an interest is a course, not one showing.

One that was never met is new. One that pleased when it was first met is young for some days, and is offered further
until it is an interest like others. One that was met and never pleased may be tried again after a while. Times are
of any unit, the same for all arguments.
"""

import numpy as np
from numpy.typing import NDArray


def offered(
    cluster_h: NDArray[np.integer],
    time_h: NDArray[np.number],
    liked_h: NDArray[np.bool_],
    M: int,
    now: float,
    *,
    young: float = 0,
    again: float = 0,
) -> NDArray[np.bool_]:
    """[M] which interests are new, young, or may be tried again, after a history of h events in any order.

    Young are those that pleased and were first met less than `young` before `now`; tried again are those that never
    pleased and were last met at least `again` before; 0 turns either off.

    >>> cluster, time, liked = np.array([0, 1, 2]), np.array([1, 8, 2]), np.array([True, True, False])
    >>> offered(cluster, time, liked, 4, now=10, young=5, again=7).tolist()
    [False, True, True, True]
    """
    first, last = np.full(M, np.inf), np.full(M, -np.inf)
    np.minimum.at(first, cluster_h, time_h)
    np.maximum.at(last, cluster_h, time_h)
    pleased = np.zeros(M, np.bool_)
    pleased[cluster_h[liked_h]] = True
    met = last > -np.inf
    fresh = pleased & (now - first < young) if young else np.zeros(M, np.bool_)
    tried = met & ~pleased & (now - last >= again) if again else np.zeros(M, np.bool_)
    return ~met | fresh | tried
