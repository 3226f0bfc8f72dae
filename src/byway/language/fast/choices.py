"""Answers under the trie of legal names: the n best of every prompt, exactly; no name is read on in vain.

It knows scores and branchings; how tokens are read after a prompt is `generate`'s.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from byway.base.ranking import best_first
from byway.language.fast.generate import Policy, Prompted, go_on, logits

TOGETHER = 4096
"""Prompts that are read on together below the first branching: their keys and values are 100 MB."""


class Choices:
    """Log-probabilities of every legal name for N prompts, resolved as far as they are needed.

    Names that share a beginning are told apart only where it matters: until then each stands at the beginning's
    own log-probability, which no name below it can exceed. No prefix is read twice.
    """

    log_p_NM: NDArray[np.float32]
    """Exact where `waits_NM` is -1, else an upper bound."""
    waits_NM: NDArray[np.int32]
    """The branching node below which a name is still to be resolved, or -1."""

    def __init__(self, policy: Policy, asked: Prompted):
        N = len(asked.position_N)
        self.policy = policy
        self.stands: dict[tuple[int, int], tuple[int, int]] = {}
        """Where a resolved (prompt, node) that has nodes below stands: which reading, and its place in it."""
        root, which = policy.trie.nodes[0], torch.arange(N, device=policy.device)
        if root.path:
            ids = torch.tensor(root.path, device=policy.device).expand(N, -1)
            _, asked = go_on(policy, asked, which, ids, torch.ones_like(ids, dtype=torch.bool))
        self.readings = [asked]
        # The first branching decides nearly all names: one gather, not an assignment an option (675 of 761 names).
        option_M = policy.trie.first_option()
        log_p = logits(policy, asked.hidden_NH, root.tokens).log_softmax(-1).cpu().numpy()
        self.log_p_NM = np.take(log_p, option_M, axis=1)
        self.waits_NM = np.tile(np.array(root.leads_to, np.int32)[option_M], (N, 1))

    def resolve(self, rows_w: NDArray[np.integer], nodes_w: NDArray[np.integer]) -> None:
        """Read on to the given waiting nodes of the given prompts; a pair may be given more than once."""
        trie = self.policy.trie
        wanted = np.unique(nodes_w.astype(np.int64) * len(self.log_p_NM) + rows_w)
        nodes, rows = np.divmod(wanted, len(self.log_p_NM))
        by_reading: dict[int, list[int]] = {}
        places = rows.copy()
        for i, (node, row) in enumerate(zip(nodes.tolist(), rows.tolist(), strict=True)):
            parent, reading = trie.nodes[node].parent, 0
            if parent:
                reading, places[i] = self.stands[row, parent]
            by_reading.setdefault(reading, []).append(i)
        for reading, members in sorted(by_reading.items()):
            for start in range(0, len(members), TOGETHER):
                part = np.array(members[start : start + TOGETHER])
                self._read(reading, nodes[part], rows[part], places[part])

    def _read(
        self, reading: int, nodes: NDArray[np.int64], rows: NDArray[np.int64], places: NDArray[np.int64]
    ) -> None:
        """Read the paths to `nodes`, ascending, after the prompts at `places` of a cache."""
        trie = self.policy.trie
        ids, valid = self.policy.pad([trie.nodes[n].path[trie.depth(n) :] for n in nodes])
        _, asked = go_on(self.policy, self.readings[reading], self.policy.take(places), ids, valid)
        deeper = {n for n in np.unique(nodes).tolist() if max(trie.nodes[n].leads_to) >= 0}
        if deeper:
            # Keys and values are 23 KB a prompt with the shipped model: kept only where someone can look back.
            self.readings.append(asked)
            for place, (node, row) in enumerate(zip(nodes.tolist(), rows.tolist(), strict=True)):
                if node in deeper:
                    self.stands[row, node] = (len(self.readings) - 1, place)
        for node, start, stop in _runs(nodes):
            self._branch(node, rows[start:stop], asked.hidden_NH[start:stop])

    def _branch(self, number: int, rows: NDArray[np.int64], hidden_nH: Tensor) -> None:
        node = self.policy.trie.nodes[number]
        log_p = logits(self.policy, hidden_nH, node.tokens).log_softmax(-1).cpu().numpy()
        for option, (leads_to, members) in enumerate(zip(node.leads_to, node.members, strict=True)):
            cells = np.ix_(rows, np.array(members))
            self.log_p_NM[cells] += log_p[:, option : option + 1]
            self.waits_NM[cells] = max(leads_to, -1)


def _runs(ascending: NDArray[np.int64]) -> list[tuple[int, int, int]]:
    """Value, start and stop of every run of equal values."""
    starts = np.flatnonzero(np.diff(ascending, prepend=-1))
    stops = np.append(starts[1:], len(ascending))
    return list(zip(ascending[starts].tolist(), starts.tolist(), stops.tolist(), strict=True))


Adjust = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""From log-probabilities [N, M] to the scores that rank; it must not decrease in any of them."""


Found = tuple[NDArray[np.int32], NDArray[np.float32]]
"""[N, n] clusters, best first, and their scores; -1 where none is left."""


def by_model(policy: Policy, asked: Prompted, n: int, excluded_NM: NDArray[np.bool_]) -> Found:
    """The n best legal names of every prompt by the model alone, see `top`."""
    (found,) = top(policy, asked, n, excluded_NM, [lambda log_p: log_p])
    return found


@torch.no_grad()
def top(
    policy: Policy, asked: Prompted, n: int | Sequence[int], excluded_NM: NDArray[np.bool_], adjusts: list[Adjust]
) -> list[Found]:
    """The n best legal names of every prompt under each way to score, exactly, best first; -1 where none is left.

    A name that waits is scored by its upper bound, so that when all of the n best are resolved nothing else can
    be better, and no name is resolved that need not be. Equal scores are ordered by cluster number. `n` is one
    number for all ways to score, or one for each.
    """
    made = Choices(policy, asked)
    N, M = made.log_p_NM.shape
    several = [n] * len(adjusts) if isinstance(n, int) else list(n)
    found: list[Found] = []
    for adjust, wanted in zip(adjusts, several, strict=True):
        clusters = np.full((N, min(wanted, M)), -1, np.int32)
        scores = np.full(clusters.shape, -np.inf, np.float32)
        open_rows = np.arange(N)
        while len(open_rows):
            score = np.where(excluded_NM, -np.inf, adjust(made.log_p_NM)).astype(np.float32)[open_rows]
            best = best_first(score, clusters.shape[1])
            own = np.take_along_axis(score, best, 1)
            legal = np.isfinite(own)
            waits = np.where(legal, made.waits_NM[open_rows[:, None], best], -1)
            done = (waits < 0).all(axis=1)
            clusters[open_rows[done]] = np.where(legal, best, -1)[done]
            scores[open_rows[done]] = own[done]
            at, place = np.nonzero(waits >= 0)
            made.resolve(open_rows[at], waits[at, place])
            open_rows = open_rows[~done]
        found.append((clusters, scores))
    return found
