"""From an arm's impressions to a numerator and a denominator a user for every metric.

The definitions are those of `metrics`; here they are summed by user, so that the bootstrap over users is a product.
"""

import numpy as np
from numpy.typing import NDArray

from byway.base.metrics import (
    BUCKETS,
    clusters_within,
    engaged_pairs,
    intra_list_diversity,
    over_ten_minutes,
    serendipitous,
    sole_impressions,
    uci_range,
)
from byway.simulation.platform import ARM, Impressions
from byway.simulation.source import Floats, Ints

Tally = dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]
"""By metric, (numerator, denominator), both [U]; 0 for users of other arms."""

WEEK = 7


def tally(
    shown: Impressions,
    users: Ints,
    n_users: int,
    days: int,
    *,
    cluster: Ints,
    n_clusters: int,
    positive: float,
    vectors: Floats | None = None,
    bucket: Ints | None = None,
) -> Tally:
    """Every metric of one arm over its users.

    `cluster` [n] and `vectors` [n, w] are those of each impression's item; without vectors there is no diversity.
    Satisfaction pleases from `positive` on. `bucket` [N] is each item's bucket of visual interest: with it,
    positive feedback on what the arm's source named and on the rest of the feed, by the bucket of what was watched
    right before (paper 2, figure 8).
    """
    pleased = shown.satisfaction >= positive
    pleased_new = serendipitous(shown.satisfaction, shown.novel, positive)
    everyone = np.zeros(n_users)
    everyone[users] = 1

    def by_user(value: np.ndarray, where: np.ndarray | None = None) -> NDArray[np.float64]:
        chosen = slice(None) if where is None else where
        return np.bincount(shown.user[chosen], value[chosen], n_users).astype(np.float64)

    all_shown = by_user(np.ones(len(shown)))
    found: Tally = {}
    own = shown.by_arm
    if own.any():
        count = by_user(own)
        found["novel_impressions"] = by_user(shown.novel, own), count
        found["sole_impressions"] = by_user(sole_impressions(shown.nominators, ARM), own), count
        found["positive_rate"] = by_user(pleased, own), count
        found["satisfaction"] = by_user(shown.satisfaction, own), count
        found["serendipity"] = by_user(pleased_new, own), count
        found["new_positive_rate"] = by_user(pleased_new, own), by_user(shown.novel, own)
        found["unmet_positive_rate"] = by_user(pleased, own & shown.unmet), by_user(own & shown.unmet)
        if bucket is not None:
            within = np.where(shown.context >= 0, bucket[shown.context], 0)
            rest = ~own & (shown.nominators > 0)
            for b in range(1, BUCKETS + 1):
                for name, part in (("source", own & (within == b)), ("rest", rest & (within == b))):
                    found[f"bucket_{b}.{name}"] = by_user(pleased, part), by_user(part)
    found["platform.positive_rate"] = by_user(pleased), all_shown
    found["platform.novel_impressions"] = by_user(shown.novel), all_shown
    found["platform.serendipity"] = by_user(pleased_new), all_shown
    found["platform.new_positive"] = by_user(pleased_new), everyone * days
    found["platform.impressions"] = all_shown, everyone * days
    watched = np.zeros((n_users, days))
    np.add.at(watched, (shown.user, shown.day), shown.seconds)
    if watched.any():
        found["watch_minutes"] = watched.sum(1) / 60, everyone * days
        found["daily_users_over_ten_minutes"] = over_ten_minutes(watched).astype(np.float64), everyone * days
    pairs = engaged_pairs(shown.user, shown.item, shown.satisfaction, n_users, positive)
    found["engaged_pairs"] = pairs.astype(np.float64), everyone
    new = np.unique((shown.user * n_clusters + cluster)[pleased_new]) // n_clusters
    found["new_clusters"] = np.bincount(new, minlength=n_users).astype(np.float64), everyone
    ends = range(min(WEEK, days) - 1, days)
    held = [clusters_within(shown.user, cluster, shown.day, end, n_users, n_clusters, days=WEEK) for end in ends]
    for n in uci_range(n_clusters):
        reached = sum((h >= n).astype(np.float64) for h in held)
        found[f"uci_{n}"] = np.asarray(reached, np.float64), everyone * len(ends)
    if vectors is not None:
        found["intra_list_diversity"] = _diversity(shown, n_users, vectors)
    return found


def _diversity(
    shown: Impressions, n_users: int, vectors: Floats
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Per user, intra-list diversity summed over the days' lists of two items or more, and their number."""
    days = int(shown.day.max(initial=0)) + 1
    lists, place = np.unique(shown.user * days + shown.day, return_inverse=True)
    value = intra_list_diversity(vectors, place, len(lists))
    user, long = lists // days, np.bincount(place, minlength=len(lists)) > 1
    lists_of = np.bincount(user[long], minlength=n_users).astype(np.float64)
    return np.bincount(user, value, n_users).astype(np.float64), lists_of
