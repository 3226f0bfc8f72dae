"""A page of new interests: which may stand on it, which items do, and the exact chance of each to stand there.

What is drawn at random is which open interests are left out: each one with the chance `skip`, independently of the
others, and none where all would be. From then on everything is decided: the interests rank by their best item, the
first so many of them make the page, and their best items fill it. Scores, clusters and chances are arrays over the
same candidates. It needs numpy alone.
"""

import numpy as np
from numpy.typing import NDArray

from byway.base.ranking import top

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

NOTHING = 1e-15
"""A chance that cannot be told from 0 beside others."""


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

    An interest is a course, not one showing. Young are those that pleased and were first met less than `young`
    before `now`; tried again are those that never pleased and were last met at least `again` before; 0 turns either
    off. Times are of any unit, the same for all arguments.

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


def kept(open_M: Flags, skip: float, rng: np.random.Generator) -> Flags:
    """[M] the open interests that are not left out this time; all of them where none would remain."""
    found = open_M & (rng.random(len(open_M)) >= skip)
    return found if found.any() else open_M


def best_of(score_n: Floats, cluster_n: NDArray[np.integer], M: int) -> Floats:
    """[M] the score of each cluster's best item; -inf where it has none."""
    found = np.full(M, -np.inf, np.float32)
    if len(cluster_n):
        # Run by run: in a bundle a cluster is one run, and `at` takes 0.1 ms for 20,000 entries.
        start = np.concatenate([[0], np.flatnonzero(cluster_n[1:] != cluster_n[:-1]) + 1])
        np.maximum.at(found, cluster_n[start], np.maximum.reduceat(score_n, start))
    return found


def within(score_n: Floats, cluster_n: NDArray[np.integer], M: int, most: int) -> Floats:
    """The scores with those outside the `most` clusters of the best items at -inf; of equal ones the first."""
    found = best_of(score_n, cluster_n, M)
    chosen = np.zeros(M, np.bool_)
    chosen[np.argsort(-found, kind="stable")[:most]] = True
    return np.where(chosen[cluster_n], score_n, np.float32(-np.inf))


def chances(
    score_n: Floats, cluster_n: NDArray[np.integer], M: int, of: Ints, *, k: int, most: int, skip: float
) -> NDArray[np.float64]:
    """[of] the chance of each candidate to stand on a page of k items in at most `most` interests (0: any number).

    `score_n` is -inf for what is not to be shown. A sweep over the interests, the one with the best item first,
    carries for each candidate f[b, t]: the chance that t interests were taken and hold b items better than it. An
    interest with n better ones, which is taken with the chance 1 - skip, makes of it

        f'[b, t] = skip · f[b, t] + (1 - skip) · f[b - n, t - 1]        (left out; taken)
        f'[b, most] = f[b, most] + (1 - skip) · f[b - n, most - 1]      (a full page takes no more)

    and of the candidate's own interest the taken part alone is kept. The candidate is shown where b < k in the end.
    Without a bound t does not matter, and is left out.
    """
    if not len(of) or k <= 0:
        return np.zeros(len(of))
    best = best_of(score_n, cluster_n, M)
    order = np.argsort(-best, kind="stable")
    order = order[best[order] > -np.inf]
    place_of = np.full(M, -1)
    place_of[order] = np.arange(len(order))
    # Only items at least as good as the worst that is asked about can stand before one of them.
    rivals = np.flatnonzero(score_n >= score_n[of].min())
    # Of equal ones the first stands before the others.
    theirs, ours = score_n[rivals][:, None], score_n[of]
    ahead = ((theirs > ours) | ((theirs == ours) & (rivals[:, None] < of))).astype(np.int64)
    better = np.zeros((len(order), len(of)), np.int64)
    np.add.at(better, place_of[cluster_n[rivals]], ahead)
    home = place_of[cluster_n[of]]
    relevant = np.flatnonzero((better > 0).any(1) | np.bincount(home, minlength=len(order)).astype(np.bool_))
    # [of, b, t]; row k is never written and stays 0: it is read for b - n below 0.
    f, nothing = np.zeros((len(of), k + 1, most + 1)), k
    f[:, 0, 0] = 1.0
    b_less_n = np.arange(k) - better[relevant][:, :, None]
    b_less_n[b_less_n < 0] = nothing
    candidates = np.arange(len(of))[:, None]
    for source, place in zip(b_less_n, relevant.tolist(), strict=True):
        taken = f[candidates, source] * (1 - skip)
        current = f[:, :k]
        full = current[:, :, most] * (1 - skip)
        elsewhere = home != place
        current *= np.where(elsewhere, skip, 0.0)[:, None, None]
        if most:
            current[:, :, 1:] += taken[:, :, :-1]
            current[:, :, most] += elsewhere[:, None] * full
        else:
            current += taken
    found = f[:, :k].sum((1, 2))
    # Where every interest would be left out, none is.
    none_left = skip ** len(order)
    if none_left > NOTHING:
        shown = top(within(score_n, cluster_n, M, most) if most else score_n, k)
        found += none_left * np.isin(of, shown)
    return np.minimum(found, 1.0)
