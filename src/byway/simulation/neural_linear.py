"""The neural linear bandit on the next novel cluster: paper 2's baseline, after Su et al. (WSDM 2024).

Bayesian linear regression on the last layer's features, whose gradient is stopped, and a Thompson draw a candidate:
Σ = εI + Σ φφᵀ, β = Σ⁻¹ Σ φ r, r̃ ~ N(φᵀβ, σ² φᵀΣ⁻¹φ). Paper 2 does not say how it is put to clusters; here the
features of a user and a cluster are state ⊙ centre, centre and 1, the centre being the mean vector of the cluster's
items, and the bandit learns from first meetings of a cluster only. σ² is the variance that the regression leaves;
the authors' 10 is for rewards of another size and would drown satisfaction in [0, 1].

The encoder goes on training, and sums over the features of an earlier one would say nothing of its own. So after
each of its trainings centres and sums are made anew from all first meetings so far.
"""

import numpy as np

from byway.simulation.neural import Encoded
from byway.simulation.source import NONE, Asked, Flags, Floats, Ints, Known, Logged, by_user, first_meetings

READ = 20
"""Most recent items from which a state is made while learning: enough, and a third of the time of all 50."""
CHUNK = 4096


class NeuralLinear:
    """A plan; its encoder is the restricted item policy's."""

    def __init__(self, known: Known, encoder: Encoded, ridge: float = 1e-6):
        self.known, self.encoder, self.ridge = known, encoder, ridge
        self._begin()

    def _begin(self) -> None:
        """Nothing learned yet, under the encoder as it is."""
        vectors = self.encoder.vectors()
        total = np.zeros((self.known.n_clusters, vectors.shape[1]), np.float32)
        np.add.at(total, self.known.cluster, vectors)
        self.centre = total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-9)
        width = 2 * vectors.shape[1] + 1
        self.precision = self.ridge * np.eye(width)
        self.moment = np.zeros(width)
        self.squares, self.n, self.learned = 0.0, 0, 0
        self.trainings = self.encoder.trainings

    def learn(self, log: Logged, today: int) -> None:
        """Add the first meetings logged since the last time, each with the state before it.

        All of them, where the encoder was trained since then.
        """
        if self.encoder.trainings != self.trainings:
            self._begin()
        order, edge = by_user(log)
        novel = first_meetings(self.known, log)
        novel[: self.learned] = False
        self.learned = len(log)
        place = np.empty(len(log), np.int64)
        place[order] = np.arange(len(log))
        rows = np.flatnonzero(novel)
        for low in range(0, len(rows), CHUNK):
            some = rows[low : low + CHUNK]
            before = place[some][:, None] - np.arange(READ, 0, -1)
            inside = before >= edge[log.user[some]][:, None]
            history = np.where(inside, log.item[order[np.maximum(before, 0)]] + 1, 0)
            phi = self._features(self.encoder.states(history), self.known.cluster[log.item[some]]).astype(float)
            reward = log.satisfaction[some].astype(float)
            self.precision += phi.T @ phi
            self.moment += phi.T @ reward
            self.squares += float(reward @ reward)
            self.n += len(some)

    def choose(self, asked: Asked, open_BM: Flags, rng: np.random.Generator) -> Ints:
        """The open cluster with the highest draw."""
        inverse = np.linalg.pinv(self.precision, hermitian=True)
        beta = inverse @ self.moment
        left = max(self.squares - float(beta @ self.moment), 0.0) / max(self.n, 1)
        states = self.encoder.states(asked.history)
        m = self.known.n_clusters
        phi = self._features(np.repeat(states, m, 0), np.tile(np.arange(m), len(asked))).astype(float)
        spread = np.sqrt(np.maximum(left * np.einsum("ij,ij->i", phi @ inverse, phi), 0))
        drawn = (phi @ beta + spread * rng.standard_normal(len(phi))).reshape(len(asked), m)
        drawn = np.where(open_BM, drawn, -np.inf)
        return np.where(open_BM.any(1), drawn.argmax(1), NONE)

    def _features(self, states: Floats, cluster: Ints) -> Floats:
        """[n, 2d + 1]; the states' length, about √d, is taken out."""
        centre = self.centre[cluster]
        scaled = states / np.sqrt(np.float32(states.shape[1]))
        return np.concatenate([scaled * centre, centre, np.ones((len(centre), 1), np.float32)], 1)
