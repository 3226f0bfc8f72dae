"""Best-first search in the trie of legal names: the n best of every prompt, exactly; no name is read on in vain.

It knows scores and branchings; how tokens are read after a prompt is `generate`'s.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from byway.base.ranking import best_first
from byway.language.fast.generate import Policy, Prefilled, extend, logits

TOGETHER = 4096
"""Prompts that are read on together below the first branching: their keys and values are 100 MB."""


class TrieSearch:
    """Log-probabilities of every legal name for N prompts, expanded as far as they are needed.

    Names that share a beginning are told apart only where it matters: until then each stands at the beginning's
    own log-probability, which no name below it can exceed. No prefix is read twice.
    """

    log_p_NM: NDArray[np.float32]
    """Exact where `pending_NM` is -1, else an upper bound."""
    pending_NM: NDArray[np.int32]
    """The branching node at which a name's search has stopped, or -1."""

    def __init__(self, policy: Policy, prefilled: Prefilled):
        self.policy = policy
        root, N = policy.trie.nodes[0], len(prefilled.position_N)
        if root.path:
            ids = torch.tensor(root.path, device=policy.device).expand(N, -1)
            every = torch.arange(N, device=policy.device)
            _, prefilled = extend(policy, prefilled, every, ids, torch.ones_like(ids, dtype=torch.bool))
        self.read = [prefilled]
        """Prompts with beginnings of answers, as they were read together; first those up to the root."""
        self.places: dict[tuple[int, int], tuple[int, int]] = {}
        """Of an expanded (prompt, node) that has nodes below: which of `read`, and its place there."""
        # The first branching decides nearly all names: one gather, not an assignment an option (675 of 761 names).
        option_M = policy.trie.first_option()
        log_p = self._log_p(prefilled.hidden_NH, root.tokens)
        self.log_p_NM = np.take(log_p, option_M, axis=1)
        self.pending_NM = np.tile(np.array(root.leads_to, np.int32)[option_M], (N, 1))

    def expand(self, rows_w: NDArray[np.integer], nodes_w: NDArray[np.integer]) -> None:
        """Read on to these pending nodes of these prompts; a pair may be given more than once."""
        nodes = self.policy.trie.nodes
        wanted = np.unique(nodes_w.astype(np.int64) * len(self.log_p_NM) + rows_w)
        node_w, row_w = np.divmod(wanted, len(self.log_p_NM))
        of_read: dict[int, list[int]] = {}
        place_w = row_w.copy()
        for i, (node, row) in enumerate(zip(node_w.tolist(), row_w.tolist(), strict=True)):
            parent, number = nodes[node].parent, 0
            if parent:
                number, place_w[i] = self.places[row, parent]
            of_read.setdefault(number, []).append(i)
        for number, members in sorted(of_read.items()):
            for start in range(0, len(members), TOGETHER):
                part = np.array(members[start : start + TOGETHER])
                self._expand(self.read[number], place_w[part], row_w[part], node_w[part])

    def _expand(
        self,
        prefilled: Prefilled,
        places_w: NDArray[np.int64],
        rows_w: NDArray[np.int64],
        nodes_w: NDArray[np.int64],
    ) -> None:
        """Read the paths to nodes, ascending, after `prefilled`, where the prompts stand at `places_w`."""
        trie = self.policy.trie
        ids, valid = self.policy.pad([trie.nodes[node].path[trie.depth(node) :] for node in nodes_w])
        _, extended = extend(self.policy, prefilled, self.policy.take(places_w), ids, valid)
        with_nodes_below = {node for node in np.unique(nodes_w).tolist() if max(trie.nodes[node].leads_to) >= 0}
        if with_nodes_below:
            # Keys and values are 23 KB a prompt with the shipped model: kept only where someone can look back.
            self.read.append(extended)
            for place, (node, row) in enumerate(zip(nodes_w.tolist(), rows_w.tolist(), strict=True)):
                if node in with_nodes_below:
                    self.places[row, node] = (len(self.read) - 1, place)
        for node, start, stop in _runs(nodes_w):
            self._branch(node, rows_w[start:stop], extended.hidden_NH[start:stop])

    def _branch(self, number: int, rows: NDArray[np.int64], hidden_nH: Tensor) -> None:
        """Add the log-probability of each way on at a node to that of the names below it."""
        node = self.policy.trie.nodes[number]
        log_p = self._log_p(hidden_nH, node.tokens)
        for option, (leads_to, members) in enumerate(zip(node.leads_to, node.members, strict=True)):
            cells = np.ix_(rows, np.array(members))
            self.log_p_NM[cells] += log_p[:, option : option + 1]
            self.pending_NM[cells] = max(leads_to, -1)

    def _log_p(self, hidden_nH: Tensor, tokens: list[int]) -> NDArray[np.float32]:
        """[n, tokens] log-probability of each legal token among them."""
        return logits(self.policy, hidden_nH, tokens).log_softmax(-1).cpu().numpy()


def _runs(ascending: NDArray[np.int64]) -> list[tuple[int, int, int]]:
    """Value, start and stop of every run of equal values."""
    starts = np.flatnonzero(np.diff(ascending, prepend=-1))
    stops = np.append(starts[1:], len(ascending))
    return list(zip(ascending[starts].tolist(), starts.tolist(), stops.tolist(), strict=True))


Adjust = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""From log-probabilities [N, M] to the scores that rank; it must not decrease in any of them."""


Ranking = tuple[NDArray[np.int32], NDArray[np.float32]]
"""[N, n] clusters, best first, and their scores; -1 where none is left."""


def by_model(policy: Policy, prefilled: Prefilled, n: int, excluded_NM: NDArray[np.bool_]) -> Ranking:
    """The n best legal names of every prompt by the model alone, see `top`."""
    (ranking,) = top(policy, prefilled, [(n, lambda log_p: log_p)], excluded_NM)
    return ranking


@torch.no_grad()
def top(
    policy: Policy, prefilled: Prefilled, ways: Sequence[tuple[int, Adjust]], excluded_NM: NDArray[np.bool_]
) -> list[Ranking]:
    """The n best legal names of every prompt under each way to score (n, adjust), exactly, best first.

    A pending name is scored by its upper bound, so that when all of the n best are expanded nothing else can be
    better, and no name is expanded that need not be. Equal scores are ordered by cluster number.
    """
    search = TrieSearch(policy, prefilled)
    return [_top_of(search, min(n, policy.clusters), adjust, excluded_NM) for n, adjust in ways]


def _top_of(search: TrieSearch, n: int, adjust: Adjust, excluded_NM: NDArray[np.bool_]) -> Ranking:
    clusters = np.full((len(excluded_NM), n), -1, np.int32)
    scores = np.full(clusters.shape, -np.inf, np.float32)
    rows = np.arange(len(excluded_NM))
    while len(rows):
        score_rM = np.where(excluded_NM, -np.inf, adjust(search.log_p_NM)).astype(np.float32)[rows]
        best = best_first(score_rM, n)
        best_scores = np.take_along_axis(score_rM, best, 1)
        legal = np.isfinite(best_scores)
        pending = np.where(legal, search.pending_NM[rows[:, None], best], -1)
        done = (pending < 0).all(axis=1)
        clusters[rows[done]] = np.where(legal, best, -1)[done]
        scores[rows[done]] = best_scores[done]
        at, place = np.nonzero(pending >= 0)
        search.expand(rows[at], pending[at, place])
        rows = rows[~done]
    return clusters, scores
