"""Trained sources: the transformer sequence model and what the papers compare it with, trained by one loop.

- `sequence`: paper 1's references [8] and [27], next items with the top-K off-policy correction.
- `novelty`: reference [9] (Chen et al., RecSys 2021), which builds on [8]: the same correction; the reward is
  multiplied by c where the item's cluster is new in the user's last 7 days, c = 4 as in its live experiments; an
  entropy bonus of α = 0.1, the least of those it tries; and what was surprising and pleased is marked in the
  history. It marks by a bit beside the item, here by a learned vector that is added, and by the same 7 days. Its
  clusters are of co-occurrence, ours the planning level's.
- `context`: paper 2, section 4.1: items similar to what was watched last rather than to the long history. How it is
  made is not described; here it is the item policy's transformer over the last 3 items, which names only from
  the 200 items whose content is most like the last.
- `two_tower`: reference [35], mixed negative sampling. Its towers are deep networks
  over many features of users, items and requests; here the user is the mean of the history through one hidden
  layer, and the item an embedding of its own beside a linear map of its content.

Each trains on a log and then again, every so many days, on the log that it caused. It knows no platform.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import safetensors.torch
import torch
from torch import nn

from byway.base import config, device
from byway.base.artifact import write_atomic
from byway.base.device import Dropout
from byway.items import sequence
from byway.items.sequence import HistoryEncoder
from byway.items.transformer import SequenceModel
from byway.items.windows import Sequences
from byway.simulation.source import Asked, Flags, Floats, Ints, Known, Logged, by_user

DAYS = 7
"""A cluster that a user has not met for more days is new to them again (reference [9])."""
FACTOR = 4.0
"""c of reference [9]."""
ENTROPY = 0.1
"""α of reference [9]'s entropy bonus."""

Reward = Callable[[Known, Logged], Floats]
"""From a log to the reward of each of its events, [events]."""


def satisfaction(known: Known, log: Logged) -> Floats:
    """What a positive event is worth: its satisfaction; any other 0."""
    return np.where(log.satisfaction >= known.positive, log.satisfaction, np.float32(0))


def novelty(known: Known, log: Logged) -> Floats:
    """Reference [9]: `FACTOR` times the reward where the cluster is absent from the user's last `DAYS` days."""
    new = is_new(known, log.user, log.item, log.day)
    return np.where(new, np.float32(FACTOR), np.float32(1)) * satisfaction(known, log)


def is_new(known: Known, user: Ints, item: Ints, day: Ints) -> Flags:
    """[events] whether each event's cluster is absent from its user's last `DAYS` days; in order of arrival."""
    key = user * known.n_clusters + known.cluster[item]
    order = np.argsort(key, kind="stable")
    gap = np.diff(day[order], prepend=0)
    new = np.ones(len(key), np.bool_)
    new[order] = (np.diff(key[order], prepend=-1) != 0) | (gap > DAYS)
    return new


def surprising(known: Known, asked: Asked) -> Flags:
    """[B, H] items of the histories that pleased and whose cluster was new when they were met."""
    found = asked.history > 0
    user, _ = np.nonzero(found)
    found[found] = is_new(known, user, asked.history[found] - 1, asked.day[found])
    return found & (asked.satisfaction >= known.positive)


@dataclass(frozen=True, slots=True)
class Kind:
    """What one kind of encoder has of its own."""

    reward: Reward = satisfaction
    top_k: int = 0
    """K of the off-policy correction; 0 trains without it."""
    entropy: float = 0.0
    """Weight of the entropy bonus."""
    surprise: bool = False
    """Whether what was new and pleased is marked in the history."""
    history: int = 0
    """Most recent items that are read; 0: as many as the item policy reads."""
    nearest: int = 0
    """Items most similar to the one watched last, outside of which nothing is scored; 0 scores all."""

    def sequences(self, known: Known, log: Logged, since: int | None = None) -> Sequences:
        """The log as this kind trains on it; with `since` only of users who did something on that day or after."""
        order, edge = by_user(log)
        start, stop = edge[:-1], edge[1:]
        if since is not None:
            active = np.bincount(log.user[log.day >= since], minlength=log.n_users) > 0
            stop = np.where(active, stop, start)
        marked = None
        if self.surprise:
            marked = is_new(known, log.user, log.item, log.day) & (log.satisfaction >= known.positive)
            marked = marked[order]
        reward = self.reward(known, log)[order]
        return Sequences(log.item[order].astype(np.int32), reward, start, stop, known.n_items, marked)


KINDS: dict[str, Kind] = {
    "restricted": Kind(),
    "sequence": Kind(top_k=16),
    "novelty": Kind(novelty, top_k=16, entropy=ENTROPY, surprise=True),
    "context": Kind(history=3, nearest=200),
    "two_tower": Kind(),
}
"""The kinds of encoder; `restricted` is trained as 12-item-policy is by default, without the correction."""


def settings_of(kind: str, settings: config.ItemPolicy, epochs: int) -> config.ItemPolicy:
    """The training of each kind, from the item policy's own settings."""
    own = KINDS[kind]
    return replace(settings, epochs=epochs, top_k=own.top_k, history=own.history or settings.history)


class MarkedItems(nn.Embedding):
    """The item vectors as a history reads them: to those of marked items, item + N, one more vector is added."""

    def __init__(self, items: nn.Embedding):
        super().__init__(items.num_embeddings, items.embedding_dim, padding_idx=0, _weight=items.weight.detach())
        self.mark = nn.Parameter(torch.zeros(items.embedding_dim))

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        marked = input >= self.num_embeddings
        plain = torch.where(marked, input - self.num_embeddings + 1, input)
        return super().forward(plain) + marked[..., None] * self.mark


class TwoTower(nn.Module):
    """Reference [35] (Yang et al., WWW 2020): from histories of items + 1 [B, L] to states [B, L, dim].

    The user's tower reads the mean of the items so far, the item's tower an embedding of its own and its content;
    the score is their product. The mixed negatives that it is trained with are in `softmax.draw`.
    """

    def __init__(self, content_NW: Floats, dim: int, dropout: float):
        super().__init__()
        n, width = content_NW.shape
        self.register_buffer("content", torch.tensor(content_NW), persistent=False)
        self.own = nn.Embedding(n, dim, _weight=torch.zeros(n, dim))
        self.look = nn.Linear(width, dim, bias=False)
        self.user = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), Dropout(dropout), nn.Linear(2 * dim, dim))
        self.scale = math.sqrt(dim)

    @property
    def vectors_ND(self) -> torch.Tensor:
        """The item tower's output for every item."""
        content = self.content
        assert isinstance(content, torch.Tensor)
        return self.own.weight + self.look(content)

    def forward(self, history_BL: torch.Tensor) -> torch.Tensor:
        """The state at a position has read this position and those before it."""
        vectors = torch.cat([torch.zeros_like(self.own.weight[:1]), self.vectors_ND])
        there = (history_BL > 0).float().cumsum(1).clamp(min=1)
        return self.user(vectors[history_BL].cumsum(1) / there[:, :, None] * self.scale)


def begin(kind: str, known: Known, settings: config.ItemPolicy, seed: int) -> nn.ModuleDict:
    """The model before training: a transformer, or two towers where `kind` is `two_tower`."""
    if kind != "two_tower":
        parts = sequence.initial(known.n_items, known.vectors, settings, seed)
        if KINDS[kind].surprise:
            policy = parts["policy"]
            assert isinstance(policy, SequenceModel)
            policy.items = MarkedItems(policy.items)
        return parts
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.ModuleDict({"policy": TwoTower(known.vectors, settings.dim, sequence.DROPOUT)})


@dataclass(slots=True)
class Encoded:
    """A grounding by a trained encoder: score of an item = state of the history · vector of the item."""

    known: Known
    parts: nn.ModuleDict
    settings: config.ItemPolicy
    kind: Kind
    seed: int
    every: int
    """Days between trainings on the log that was caused; 0 never trains again."""
    trainings: int = 0
    """How often it was trained again: whoever keeps figures of its states has to make them anew when this grows."""

    def learn(self, log: Logged, today: int) -> None:
        """Every so many days one pass over those who came since day 0, at a third of the learning rate."""
        if self.every and today > 0 and today % self.every == 0:
            past = self.kind.sequences(self.known, log, since=0)
            peak = sequence.LEARNING_RATE / 3
            sequence.fit(self.parts, past, self.settings, self.seed + today, peak=peak, entropy=self.kind.entropy)
            self.trainings += 1

    def states(self, history: Ints) -> Floats:
        """[B, d] after histories [B, H] of item indexes + 1; of an empty history 0."""
        policy = cast(HistoryEncoder, self.parts["policy"])
        read = history[:, -self.settings.history :]
        # Columns that are empty for everybody cost time and change nothing.
        filled = np.flatnonzero((read > 0).any(0))
        read = np.ascontiguousarray(read[:, filled[0] :] if len(filled) else read[:, -1:])
        with torch.inference_mode():
            read_there = torch.from_numpy(read).to(policy.vectors_ND.device)
            return policy(read_there)[:, -1].cpu().numpy() * (read[:, -1:] > 0)

    def vectors(self) -> Floats:
        """[N, d] the items' vectors as they are now."""
        with torch.inference_mode():
            return cast(HistoryEncoder, self.parts["policy"]).vectors_ND.cpu().numpy()

    def scores(self, asked: Asked, chosen: Ints) -> Floats:
        history = asked.history
        if self.kind.surprise:
            history = history + self.known.n_items * surprising(self.known, asked)
        found = self.states(history) @ self.vectors().T
        nearest = self.kind.nearest
        if not nearest or nearest >= self.known.n_items:
            return found
        last = self.known.vectors[np.maximum(asked.history[:, -1] - 1, 0)]
        similarity = np.where(asked.seen, np.float32(-np.inf), last @ self.known.vectors.T)
        bar = -np.partition(-similarity, nearest - 1, axis=1)[:, nearest - 1 : nearest]
        return np.where(similarity >= bar, found, np.float32(-np.inf))


def trained(
    kind: str, known: Known, log: Logged, settings: config.ItemPolicy, seed: int, epochs: int, *, checkpoint: Path
) -> nn.ModuleDict:
    """A kind trained on `log`, from `checkpoint` where it was trained before."""
    own = settings_of(kind, settings, epochs)
    parts = begin(kind, known, own, seed)
    if checkpoint.exists():
        parts.load_state_dict(safetensors.torch.load(checkpoint.read_bytes()))
        return parts.to(device.chosen()).eval()
    sequence.fit(parts, KINDS[kind].sequences(known, log), own, seed, entropy=KINDS[kind].entropy)
    kept = {name: tensor.cpu() for name, tensor in parts.state_dict().items()}
    write_atomic(checkpoint, safetensors.torch.save(kept))
    return parts


def encoded(
    kind: str, known: Known, parts: nn.ModuleDict, settings: config.ItemPolicy, seed: int, *, every: int
) -> Encoded:
    """An arm's own copy of a trained kind."""
    return Encoded(known, copy.deepcopy(parts), settings_of(kind, settings, 1), KINDS[kind], seed, every)
