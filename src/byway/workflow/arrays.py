"""The steps of the pipeline as functions of arrays, for those who bring their own log and keep their own files.

They do what the stages do, by the same functions, and write nothing. Items, users and clusters are numbers from 0.
What a workspace adds: files, gates, figures, and weights that are fitted on a part of the log kept apart.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from byway.base import config
from byway.base.errors import UserError
from byway.base.ranking import best_first
from byway.data.events import Events
from byway.interests import tree
from byway.interests.graph import EXACT_UP_TO, NEIGHBOURS, nearest
from byway.interests.tree import Tree
from byway.items import sequence, windows
from byway.items.restrict import top_in_slice
from byway.items.transformer import SequenceModel
from byway.transitions import curate
from byway.transitions.counts import Successors
from byway.transitions.curate import FoundTransitions

Random = np.random.Generator | int
"""A generator, or the seed of one."""
UNIT = 1e-3
"""How far from 1 the length of a row may be that is taken as it stands."""
Section = TypeVar("Section")


def cut_tree(
    vectors: ArrayLike, traffic: ArrayLike, *, levels: Sequence[int] = (), rng: Random = 0, **settings: Any
) -> Tree:
    """Cut items into four nested levels of clusters with about equal traffic (paper 1, section 2.1).

    `vectors` [n, d] says what is alike, by cosine: rows are scaled to length 1. `traffic` [n] is in events, or
    anything else that is not negative. `levels` are the numbers of clusters, broadest first, four that grow; empty
    derives them from the number of items. `settings` are those of `[tree]` in docs/settings.md. Equal `rng` gives
    the same tree.

    The tree has the cluster of every item at a level (`assign(level)`, int32 [n]), the items of a cluster
    (`items(level, cluster)`), the number of clusters (`size(level)`) and each cluster's parent (`parent(level)`).
    Raises UserError for arrays that do not fit, a row without a direction, and sizes that do not fit the items.

    >>> rng = np.random.default_rng(0)
    >>> topic = np.repeat(np.arange(8), 6)
    >>> vectors = np.eye(8)[topic] + 0.1 * rng.normal(size=(48, 8))
    >>> found = cut_tree(vectors, np.ones(48), levels=(2, 8, 16, 24))
    >>> [found.size(level) for level in (1, 2, 3, 4)]
    [2, 8, 16, 24]
    >>> sorted(found.items(2, found.assign(2)[0]).tolist())
    [0, 1, 2, 3, 4, 5]
    """
    rows, weight = _rows(vectors, "vectors"), np.ascontiguousarray(_array(traffic, "traffic", np.float64))
    if weight.shape != (len(rows),):
        raise UserError(f"traffic has the shape {weight.shape}; {len(rows)} vectors need ({len(rows)},).")
    if not (np.isfinite(weight) & (weight >= 0)).all():
        raise UserError("traffic holds a number that is negative or not finite; give what each item has of it.")
    # In 64 bits: squares of large or small numbers leave the range of 32.
    length = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    if not (length > 0).all():
        raise UserError(
            f"vectors has {int((length <= 0).sum())} rows of zeros, which are like nothing; leave them out."
        )
    if (np.abs(length - 1) > UNIT).any():
        rows = (rows / length).astype(np.float32)
    chosen = _settings(config.Tree, {"levels": np.asarray(levels), **settings})
    sizes, random = tree.level_sizes(len(rows), chosen), _generator(rng)
    exact = len(rows) <= EXACT_UP_TO
    graph = nearest(rows, NEIGHBOURS, exact=exact, seed=int(random.integers(1 << 31)))
    return tree.grow(rows, graph, weight, sizes, random)


def find_transitions(
    user: ArrayLike,
    item: ArrayLike,
    time: ArrayLike,
    satisfaction: ArrayLike,
    cluster_of: ArrayLike,
    *,
    history: int = 2,
    positive: float = 0.5,
) -> FoundTransitions:
    """Find each time somebody enjoyed a cluster that was new to them (paper 1, section 2.3).

    The log is four arrays [N] in any order: `user` and `item` are numbers, `time` is whole numbers of any unit,
    `satisfaction` is in [0, 1], and from `positive` on an event is a high-quality one. `cluster_of` [n_items] is
    the cluster of each item. New is a cluster of which the user met nothing before, good or bad. Events of one
    user and one time stay in their order.

    Returns one row for each, by user and time: `context` [T, history] the unique clusters enjoyed most recently
    before, the most recent last (filled up with the oldest where there were fewer), `label` [T] the new cluster,
    `time` and `user` [T]. Raises UserError for arrays that do not fit together.

    >>> item = [0, 1, 2, 0, 3]
    >>> found = find_transitions([7] * 5, item, [1, 2, 3, 4, 5], np.ones(5), cluster_of=[0, 0, 1, 2])
    >>> found.context.tolist(), found.label.tolist()
    ([[0, 0], [1, 0]], [1, 2])
    """
    _require_whole(history, "history")
    clusters = _numbers(cluster_of, "cluster_of")
    log = _log(user, item, time, satisfaction, len(clusters), positive)
    return curate.find(log, clusters, int(clusters.max(initial=-1)) + 1, history)


def count_successors(context: ArrayLike, label: ArrayLike, clusters: int) -> Successors:
    """Count what came after which clusters.

    `context` [T, K] are clusters, the most recent last, `label` [T] the one that came next, as `find_transitions`
    has them; `clusters` is how many there are. Returns counts whose `probability(context)` [N, clusters] backs off
    from whole contexts to each cluster alone and to popularity, with the weights of a prior of 50 transitions; a
    workspace fits them. Raises UserError for arrays that do not fit together.

    >>> counted = count_successors([[0, 1], [0, 1], [2, 1]], [3, 3, 4], clusters=5)
    >>> counted.popularity_M.round(2).tolist()
    [0.0, 0.0, 0.0, 0.67, 0.33]
    """
    _require_whole(clusters, "clusters")
    before, after = _contexts(context, clusters), _numbers(label, "label", clusters)
    if len(before) != len(after):
        raise UserError(f"context has {len(before)} rows and label {len(after)}; give one label a row.")
    return Successors.count(curate.count(before, after, clusters), clusters)


def rank_successors(
    successors: Successors, context: ArrayLike, k: int = 10
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Rank what comes next after each context, leaving out what is in it.

    `context` [N, K] are clusters as in `count_successors`. Returns the `k` likeliest clusters of each row, best
    first, int32 [N, k], and their probabilities [N, k]; where fewer are left, -1 and 0. Equal ones stand in order
    of their numbers. Raises UserError for a cluster that was not counted.

    >>> counted = count_successors([[0, 1], [0, 1], [2, 1]], [3, 3, 4], clusters=5)
    >>> clusters, chance = rank_successors(counted, [[0, 1], [2, 1]], k=2)
    >>> clusters.tolist()
    [[3, 4], [3, 4]]
    >>> bool(chance[1, 1] > chance[0, 1])
    True
    """
    K, M = successors.alone_KMM.shape[:2]
    asked = _contexts(context, M)
    _require_whole(k, "k")
    if asked.shape[1] != K:
        raise UserError(f"context has {asked.shape[1]} columns; what was counted has {K}.")
    chance = successors.probability_outside(asked)
    best = best_first(chance.astype(np.float32), min(k, M))
    own = np.take_along_axis(chance, best, axis=1)
    none = ((0, 0), (0, k - best.shape[1]))
    found = np.pad(np.where(own < 0, -1, best).astype(np.int32), none, constant_values=-1)
    return found, np.pad(np.maximum(own, 0.0), none)


@dataclass(frozen=True, slots=True)
class TrainedPolicy:
    """An item policy: from what somebody met to what they may like next."""

    model: SequenceModel
    items: NDArray[np.float32]
    """[n, d] one vector an item; the score of an item is its product with the history's vector."""
    history: int
    """Most recent items that are read."""

    def encode(self, history: Sequence[int]) -> NDArray[np.float32]:
        """The vector [d] of a history of items, the most recent last. Raises UserError for an unknown item."""
        recent = _numbers(history, "history", len(self.items))[-self.history :]
        read = np.zeros((1, max(1, len(recent))), np.int64)
        read[0, read.shape[1] - len(recent) :] = recent.astype(np.int64) + 1
        with torch.inference_mode():
            return self.model(torch.from_numpy(read).to(self.model.vectors_ND.device))[0, -1].cpu().numpy()

    def recommend(
        self, history: Sequence[int], k: int = 10, *, among: Sequence[int] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The `k` best items after a history that does not hold them, best first, and their scores.

        `among` are the items to choose from, such as those of one cluster; without it, all. Fewer are returned
        where fewer are left. Raises UserError for an unknown item.
        """
        _require_whole(k, "k")
        vector = self.encode(history)
        chosen = np.arange(len(self.items))
        if among is not None:
            chosen = np.unique(_numbers(among, "among", len(self.items))).astype(np.int64)
        met = np.flatnonzero(np.isin(chosen, np.asarray(history, np.int64)))
        found, scores = top_in_slice(self.items[chosen], vector, 0, len(chosen), k, met)
        return chosen[found], scores


def train_item_policy(
    user: ArrayLike,
    item: ArrayLike,
    time: ArrayLike,
    satisfaction: ArrayLike,
    vectors: ArrayLike,
    *,
    positive: float = 0.5,
    rng: Random = 0,
    **settings: Any,
) -> TrainedPolicy:
    """Train a transformer on what people met next, weighed by how content they were (paper 1, section 2.2).

    The log is four arrays [N] as in `find_transitions`; an event below `positive` is read and not learned.
    `vectors` [n_items, width] says where each item starts: its content. `settings` are those of `[item_policy]` in
    docs/settings.md. Equal `rng` gives the same weights on one machine. Raises UserError for arrays that do not fit
    together, and for what is no setting.

    >>> log = [(user, step) for user in range(40) for step in range(6)]
    >>> user, time = np.array(log).T
    >>> item = (user + time) % 8  # everybody goes round in a circle of eight items
    >>> policy = train_item_policy(user, item, time, np.ones(240), np.eye(8), dim=16, epochs=60)
    >>> items, scores = policy.recommend([2, 3, 4], k=2)
    >>> int(items[0]), scores.shape
    (5, (2,))
    """
    content = _rows(vectors, "vectors")
    chosen = _settings(config.ItemPolicy, settings)
    if chosen.dim % sequence.HEADS:
        raise UserError(f"dim is {chosen.dim}; make it a multiple of {sequence.HEADS}, the heads.")
    log = _log(user, item, time, satisfaction, len(content), positive)
    if not (np.diff(log.user) == 0).any():
        raise UserError("No user has two events, so there is no next one to learn; give more of the log.")
    random = _generator(rng)
    seed = int(random.integers(2**62))
    model, _ = sequence.train(windows.sequences(log, windows.hold_out(log, 0.0, random)), content, chosen, seed)
    return TrainedPolicy(model, model.vectors_ND.detach().cpu().numpy().copy(), chosen.history)


def _log(
    user: ArrayLike, item: ArrayLike, time: ArrayLike, satisfaction: ArrayLike, n_items: int, positive: Any
) -> Events:
    """The log in order of users and time."""
    if not (isinstance(positive, int | float | np.number) and 0 <= positive <= 1):
        raise UserError(f"positive is {positive!r}; satisfaction goes from 0 to 1.")
    who, what = _numbers(user, "user"), _numbers(item, "item", n_items)
    when, content = _array(time, "time"), np.ascontiguousarray(_array(satisfaction, "satisfaction", np.float32))
    for name, array in (("item", what), ("time", when), ("satisfaction", content)):
        if array.shape != who.shape:
            raise UserError(f"{name} has the shape {array.shape} and user {who.shape}; give one each an event.")
    if len(who) and not np.issubdtype(when.dtype, np.integer):
        raise UserError(f"time is {when.dtype}; give whole numbers, such as seconds.")
    if not ((content >= 0) & (content <= 1)).all():
        raise UserError("satisfaction holds a number outside [0, 1]; scale it.")
    order = np.lexsort((when, who))
    return Events(
        user=who[order],
        item=what[order],
        time=when[order].astype(np.int64),
        satisfaction=content[order],
        clock=True,
        n_users=int(who.max(initial=-1)) + 1,
        n_items=n_items,
        positive=float(positive),
    )


def _array(given: ArrayLike, name: str, kind: type[Any] | None = None) -> NDArray[Any]:
    try:
        return np.asarray(given, kind)
    except (ValueError, TypeError) as error:
        raise UserError(
            f"{name} is no array of numbers ({error}); give numbers, in rows of one length (np.stack)."
        ) from error


def _require_whole(given: Any, name: str) -> None:
    if not (isinstance(given, int | np.integer) and given >= 1):
        raise UserError(f"{name} is {given!r}; give a whole number of at least 1.")


def _generator(rng: Random) -> np.random.Generator:
    try:
        return np.random.default_rng(rng)
    except (ValueError, TypeError) as error:
        raise UserError(
            f"rng is {rng!r}; give a seed, a whole number that is not negative, or a generator."
        ) from error


def _rows(given: ArrayLike, name: str) -> NDArray[np.float32]:
    rows = np.ascontiguousarray(_array(given, name, np.float32))
    if rows.ndim != 2 or not rows.size:
        raise UserError(f"{name} has the shape {rows.shape}; give one row of numbers an item.")
    if not np.isfinite(rows).all():
        raise UserError(f"{name} holds a number that is not finite; leave such items out.")
    return rows


def _numbers(given: ArrayLike, name: str, below: int = 2**31) -> NDArray[np.int32]:
    numbers = _array(given, name)
    if not numbers.size:
        numbers = numbers.astype(np.int32)
    if numbers.ndim != 1 or not np.issubdtype(numbers.dtype, np.integer):
        raise UserError(f"{name} is {numbers.dtype} of the shape {numbers.shape}; give one whole number each.")
    if len(numbers) and not (numbers.min() >= 0 and numbers.max() < below):
        raise UserError(f"{name} goes from {numbers.min()} to {numbers.max()}; numbers are from 0 to {below - 1}.")
    return numbers.astype(np.int32)


def _contexts(given: ArrayLike, clusters: int) -> NDArray[np.int32]:
    rows = _array(given, "context")
    if rows.ndim != 2:
        raise UserError(f"context has the shape {rows.shape}; give a row of clusters each, the most recent last.")
    return _numbers(rows.ravel(), "context", clusters).reshape(rows.shape)


def _settings(section: type[Section], given: dict[str, Any]) -> Section:
    """A section of the settings with some of them given."""
    default = msgspec.to_builtins(section())
    for name in given:
        if name not in default:
            raise UserError(f"There is no setting {name!r}; there are {', '.join(sorted(default))}.")
    plain = {
        name: each.tolist() if isinstance(each, np.generic | np.ndarray) else each for name, each in given.items()
    }
    try:
        return msgspec.convert({**default, **plain}, section)
    except msgspec.ValidationError as error:
        raise UserError(f"A setting is not of its kind: {error}.") from error
