"""The hierarchical contextual bandit of paper 1's reference [28] (Song et al., WSDM 2022, algorithm HCB).

One LinUCB a user and level of the tree: A = I + Σ x xᵀ, b = Σ r x, θ = A⁻¹ b, over the nodes on the paths of what
the user met. A node is scored by xᵀθ + α √(xᵀ A⁻¹ x); from the root the descent takes the best child, level by
level down to the planning level, and a reward counts for every node on the path. A node's features x are the
mean of its items' vectors, and 1 for an intercept. It plans; the restricted item policy grounds (section 3.1).

It may choose what is known, as in its source. It learns from all that its users met and not from what it named
alone: who named what is not in the log.

With an intercept an unmet node is expected to please as this user is pleased on the whole, and not by 0: at the
authors' α more of what it names is new, and less of it pleases. In a world of 400 people and 15 days: 0.87 new and
0.08 pleased, without an intercept 0.32 and 0.29; with one and α = 0.25, 0.1 and 0 in turn 0.55, 0.26 and 0.16 new,
and 0.21, 0.34 and 0.38 pleased. A reference that hardly beats a random cluster would flatter every other arm, so
α is 0.1 here.
"""

import numpy as np
from numpy.typing import NDArray

from byway.simulation.source import NONE, Asked, Flags, Ints, Known, Logged

Doubles = NDArray[np.float64]
TOGETHER = 32
"""Users whose bounds are computed at a time: each takes a matrix of the features' width."""


class HierarchicalBandit:
    """A plan. Levels are those above the planning level, broadest first, and the planning level itself."""

    def __init__(self, known: Known, alpha: float = 0.1):
        """`alpha` weighs the bound (the authors' default is 0.5; why not here is said above)."""
        self.known, self.alpha = known, alpha
        self.paths: tuple[Ints, ...] = (*known.ancestors, np.arange(known.n_clusters))
        """[M] a level: the node that holds each cluster."""
        of_items = [path[known.cluster] for path in self.paths]
        sizes = [int(path.max()) + 1 for path in self.paths]
        self.nodes = tuple(_features(known.vectors, *level) for level in zip(of_items, sizes, strict=True))
        """Features of the nodes of each level, [nodes, d]."""
        self.counts: list[Doubles] = []
        """Of each level, [U, nodes]: how often users met each node."""
        self.rewards: list[Doubles] = []
        """Of each level, [U, nodes]: the sum of their satisfaction."""
        self.learned = 0

    def learn(self, log: Logged, today: int) -> None:
        """Add what was logged since the last time, to every node on the item's path."""
        if not self.counts:
            self.counts = [np.zeros((log.n_users, len(nodes))) for nodes in self.nodes]
            self.rewards = [np.zeros((log.n_users, len(nodes))) for nodes in self.nodes]
        user, item = log.user[self.learned :], log.item[self.learned :]
        reward = log.satisfaction[self.learned :].astype(float)
        self.learned = len(log)
        for level, path in enumerate(self.paths):
            size = len(self.nodes[level])
            key = user * size + path[self.known.cluster[item]]
            for into, weight in ((self.counts, None), (self.rewards, reward)):
                into[level] += np.bincount(key, weight, log.n_users * size).reshape(-1, size)

    def choose(self, asked: Asked, open_BM: Flags, rng: np.random.Generator) -> Ints:
        """Descend from the root by the upper bounds, among nodes with an open cluster below them."""
        below = open_BM
        for level, path in enumerate(self.paths):
            upper = self._bounds(level, asked.user)
            free = np.zeros(upper.shape, np.bool_)
            row, cluster = np.nonzero(below)
            free[row, path[cluster]] = True
            best = np.where(free, upper, -np.inf).argmax(1)
            below = below & (path == best[:, None])
        return np.where(below.any(1), below.argmax(1), NONE)

    def _bounds(self, level: int, user: Ints) -> Doubles:
        """[B, nodes]. A sums a node's xxᵀ as often as it was met, so counts are enough to make it for who comes."""
        x = self.nodes[level]
        found = np.empty((len(user), len(x)))
        for start in range(0, len(user), TOGETHER):
            some = user[start : start + TOGETHER]
            counts, rewards = self.counts[level][some], self.rewards[level][some]
            A = np.eye(x.shape[1]) + (counts[:, :, None] * x).transpose(0, 2, 1) @ x
            inverse = np.linalg.inv(A)
            theta = np.einsum("bij,bj->bi", inverse, rewards @ x)
            spread = ((x @ inverse) * x).sum(2)
            found[start : start + TOGETHER] = theta @ x.T + self.alpha * np.sqrt(np.maximum(spread, 0))
        return found


def _features(vectors: NDArray[np.float32], node: Ints, n: int) -> Doubles:
    """[n, d] mean of each node's items, 0 where it holds none, and 1.

    Turned onto the axes that the means span, of which there are at most n: products and bounds stay what they are.
    """
    total = np.zeros((n, vectors.shape[1]))
    np.add.at(total, node, vectors)
    mean = total / np.maximum(np.bincount(node, minlength=n), 1)[:, None]
    if n < mean.shape[1]:
        mean = mean @ np.linalg.svd(mean, full_matrices=False)[2].T
    return np.column_stack([mean, np.ones(n)])
