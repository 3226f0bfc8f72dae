"""The hierarchical contextual bandit of paper 1's reference [28] (Song et al., WSDM 2022, algorithm HCB).

One LinUCB a user and level: A ← A + x xᵀ, b ← b + r x, θ = A⁻¹ b. A node is scored by xᵀθ + α √(xᵀ A⁻¹ x); the
descent takes the best child a level, and a reward updates every node on the path. A node's features x are the
mean of its items' vectors, on their first axes. It plans; the restricted item policy grounds (section 3.1).
"""

import numpy as np

from byway.simulation.source import NONE, Asked, Flags, Floats, Ints, Known, Logged


class HierarchicalBandit:
    """Levels are the one above the planning level and the planning level itself."""

    def __init__(self, known: Known, alpha: float = 0.5, dim: int = 16):
        """`alpha` weighs the bound (the authors' default 0.5); features are cut to `dim` axes."""
        axes = np.linalg.eigh(known.vectors.T @ known.vectors)[1][:, ::-1][:, :dim]
        items = known.vectors @ axes
        self.known, self.alpha = known, alpha
        self.above: Ints = known.parent[known.cluster]
        self.nodes = (
            _means(items, self.above, int(known.parent.max()) + 1),
            _means(items, known.cluster, known.n_clusters),
        )
        """Features of the nodes of each level, [nodes, d]."""
        self.inverse: list[Floats] = []
        """A⁻¹ of each level, [U, d, d]."""
        self.b: list[Floats] = []
        self.learned = 0

    def learn(self, log: Logged, today: int) -> None:
        """Update with what was logged since the last time, every node on the item's path."""
        d = self.nodes[0].shape[1]
        if not self.inverse:
            self.inverse = [np.tile(np.eye(d, dtype=np.float32), (log.n_users, 1, 1)) for _ in self.nodes]
            self.b = [np.zeros((log.n_users, d), np.float32) for _ in self.nodes]
        user, item = log.user[self.learned :], log.item[self.learned :]
        reward = log.satisfaction[self.learned :]
        self.learned = len(log)
        order = np.argsort(user, kind="stable")
        place = np.arange(len(user)) - np.searchsorted(user[order], user[order])
        for turn in range(int(place.max(initial=-1)) + 1):
            rows = order[place == turn]
            for level, path in enumerate((self.above, self.known.cluster)):
                self._update(level, user[rows], self.nodes[level][path[item[rows]]], reward[rows])

    def choose(self, asked: Asked, open_BM: Flags, rng: np.random.Generator) -> Ints:
        """Descend greedily by the upper bounds, among nodes with an open cluster below them."""
        upper = self._bounds(0, asked.user)
        below = np.zeros(upper.shape, np.bool_)
        for cluster, parent in enumerate(self.known.parent):
            below[:, parent] |= open_BM[:, cluster]
        parent = np.where(below, upper, -np.inf).argmax(1)
        among = open_BM & (self.known.parent == parent[:, None])
        found = np.where(among, self._bounds(1, asked.user), -np.inf).argmax(1)
        return np.where(among.any(1), found, NONE)

    def _bounds(self, level: int, user: Ints) -> Floats:
        inverse, x = self.inverse[level][user], self.nodes[level]
        theta = np.einsum("bij,bj->bi", inverse, self.b[level][user])
        spread = np.einsum("ni,bij,nj->bn", x, inverse, x, optimize=True)
        return theta @ x.T + np.float32(self.alpha) * np.sqrt(np.maximum(spread, 0))

    def _update(self, level: int, user: Ints, x_BD: Floats, reward: Floats) -> None:
        """Sherman and Morrison's formula for unique users: A⁻¹ -= A⁻¹x xᵀA⁻¹ / (1 + xᵀA⁻¹x)."""
        inverse = self.inverse[level][user]
        moved = np.einsum("bij,bj->bi", inverse, x_BD)
        scale = 1 + np.einsum("bi,bi->b", x_BD, moved)
        self.inverse[level][user] = inverse - moved[:, :, None] * moved[:, None, :] / scale[:, None, None]
        self.b[level][user] += reward[:, None] * x_BD


def _means(items: Floats, node: Ints, n: int = 0) -> Floats:
    """[nodes, d] mean of each node's items, of unit length; 0 where it holds none."""
    n = max(n, int(node.max()) + 1)
    total = np.zeros((n, items.shape[1]))
    np.add.at(total, node, items)
    return (total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-9)).astype(np.float32)
