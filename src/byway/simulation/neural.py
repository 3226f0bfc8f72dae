"""Trained sources: the transformer sequence model and what the papers compare it with, trained by one loop.

- `sequence`: paper 1's references [8] and [27], next items with the top-K off-policy correction.
- `novelty`: reference [9] (Chen et al., RecSys 2021): the reward is multiplied by c where the item's cluster is new
  in the user's last 7 days; c = 4 in the live experiments.
- `context`: paper 2, section 4.1: items similar to what was watched last rather than to the long history.
- `two_tower` (its model is in `two_tower`): reference [35], mixed negative sampling.

Each trains on a log and then again, every so many days, on the log that it caused. It knows no platform.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import safetensors.torch
import torch
from torch import nn

from byway.base import config
from byway.base.artifact import write_atomic
from byway.items import sequence
from byway.items.sequence import HistoryEncoder
from byway.items.windows import Sequences
from byway.simulation.source import Asked, Floats, Ints, Known, Logged, by_user
from byway.simulation.two_tower import TwoTower

Reward = Callable[[Known, Logged], Floats]
"""From a log to the reward of each of its events, [events]."""


def satisfaction(known: Known, log: Logged) -> Floats:
    """What a positive event is worth: its satisfaction; any other 0."""
    return np.where(log.satisfaction >= known.positive, log.satisfaction, np.float32(0))


def novelty(factor: float = 4.0, days: int = 7) -> Reward:
    """Reference [9]: `factor` times the reward where the cluster is absent from the user's last `days` days."""

    def reward(known: Known, log: Logged) -> Floats:
        new = absent_before(log.user * known.n_clusters + known.cluster[log.item], log.day, days)
        return np.where(new, np.float32(factor), np.float32(1)) * satisfaction(known, log)

    return reward


def absent_before(key: Ints, day: Ints, days: int) -> np.ndarray:
    """[events] whether no earlier event has the same key within `days` days; events stand in order of arrival.

    >>> absent_before(np.array([5, 5, 5, 6]), np.array([0, 7, 15, 15]), 7).tolist()
    [True, False, True, True]
    """
    order = np.argsort(key, kind="stable")
    gap = np.diff(day[order], prepend=0)
    new = np.ones(len(key), np.bool_)
    new[order] = (np.diff(key[order], prepend=-1) != 0) | (gap > days)
    return new


def begin(kind: str, known: Known, settings: config.ItemPolicy, seed: int) -> nn.ModuleDict:
    """The model before training: a transformer, or two towers where `kind` is `two_tower`."""
    if kind != "two_tower":
        return sequence.initial(known.n_items, known.vectors, settings, seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.ModuleDict({"policy": TwoTower(known.vectors, settings.dim, sequence.DROPOUT)})


def sequences(log: Logged, reward: Floats, n_items: int, since: int | None = None) -> Sequences:
    """The log as sequences; with `since` only of users who did something on that day or after."""
    order, edge = by_user(log)
    start, stop = edge[:-1], edge[1:].copy()
    if since is not None:
        active = np.bincount(log.user[log.day >= since], minlength=log.n_users) > 0
        stop = np.where(active, stop, start)
    return Sequences(log.item[order].astype(np.int32), reward[order], start, stop, n_items)


@dataclass(slots=True)
class Encoded:
    """A grounding by a trained encoder: score of an item = state of the history · vector of the item."""

    known: Known
    parts: nn.ModuleDict
    settings: config.ItemPolicy
    reward: Reward
    seed: int
    every: int = 10
    """Days between trainings on the log that was caused; 0 never trains again."""
    nearest: int = 0
    """Items most similar to the one watched last, outside of which nothing is scored; 0 scores all."""
    trainings: int = 0
    """How often it was trained again: whoever keeps figures of its states has to make them anew when this grows."""

    def learn(self, log: Logged, today: int) -> None:
        """Every so many days one pass over those who came since day 0, at a third of the learning rate."""
        if self.every and today > 0 and today % self.every == 0:
            past = sequences(log, self.reward(self.known, log), self.known.n_items, since=0)
            once = replace(self.settings, epochs=1)
            sequence.fit(self.parts, past, once, self.seed + today, peak=self.settings.learning_rate / 3)
            self.trainings += 1

    def states(self, history: Ints) -> Floats:
        """[B, d] after histories [B, H] of item indexes + 1; of an empty history 0."""
        policy = cast(HistoryEncoder, self.parts["policy"])
        read = history[:, -self.settings.history :]
        # Columns that are empty for everybody cost time and change nothing.
        filled = np.flatnonzero((read > 0).any(0))
        read = np.ascontiguousarray(read[:, filled[0] :] if len(filled) else read[:, -1:])
        with torch.inference_mode():
            return policy(torch.from_numpy(read))[:, -1].numpy() * (read[:, -1:] > 0)

    def vectors(self) -> Floats:
        """[N, d] the items' vectors as they are now."""
        with torch.inference_mode():
            return cast(HistoryEncoder, self.parts["policy"]).vectors_ND.numpy()

    def scores(self, asked: Asked, chosen: Ints) -> Floats:
        found = self.states(asked.history) @ self.vectors().T
        if not self.nearest or self.nearest >= self.known.n_items:
            return found
        last = self.known.vectors[np.maximum(asked.history[:, -1] - 1, 0)]
        similarity = np.where(asked.seen, np.float32(-np.inf), last @ self.known.vectors.T)
        bar = -np.partition(-similarity, self.nearest - 1, axis=1)[:, self.nearest - 1 : self.nearest]
        return np.where(similarity >= bar, found, np.float32(-np.inf))


def settings_of(kind: str, settings: config.ItemPolicy, epochs: int) -> config.ItemPolicy:
    """The training of each kind, from the item policy's own settings."""
    if kind == "sequence":
        return replace(settings, epochs=epochs, top_k=16)
    return replace(settings, epochs=epochs, top_k=0, history=3 if kind == "context" else settings.history)


REWARDS: dict[str, Reward] = {
    "restricted": satisfaction,
    "sequence": satisfaction,
    "novelty": novelty(),
    "context": satisfaction,
    "two_tower": satisfaction,
}
"""The kinds of encoder; `restricted` is trained as 12-item-policy is by default, without the correction."""


def trained(
    kind: str, known: Known, log: Logged, settings: config.ItemPolicy, seed: int, epochs: int, *, checkpoint: Path
) -> nn.ModuleDict:
    """A kind trained on `log`, from `checkpoint` where it was trained before."""
    own = settings_of(kind, settings, epochs)
    parts = begin(kind, known, own, seed)
    if checkpoint.exists():
        parts.load_state_dict(safetensors.torch.load(checkpoint.read_bytes()))
        return parts.eval()
    sequence.fit(parts, sequences(log, REWARDS[kind](known, log), known.n_items), own, seed)
    write_atomic(checkpoint, safetensors.torch.save(parts.state_dict()))
    return parts


def encoded(
    kind: str,
    known: Known,
    parts: nn.ModuleDict,
    settings: config.ItemPolicy,
    epochs: int,
    seed: int,
    *,
    every: int,
) -> Encoded:
    """An arm's own copy of a trained kind."""
    return Encoded(
        known,
        copy.deepcopy(parts),
        settings_of(kind, settings, epochs),
        REWARDS[kind],
        seed,
        every,
        nearest=200 if kind == "context" else 0,
    )
