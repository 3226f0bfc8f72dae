"""12-item-policy: the transformer sequence model that finds items (paper 1, section 2.2, references [8] and [27]).

Owns the training on satisfaction-weighted next items and the artifact: `policy.onnx`, from a history to a vector;
`items.npy`, one vector an item; `content.npy`, from an item's content to such a vector. The score of an item is the
product of the two vectors. It knows no cluster: `restrict` narrows the same scores to one cluster's slice.
"""

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from byway.base import config, device
from byway.base.artifact import Gate, Outcome, Work, write_atomic
from byway.base.errors import UserError
from byway.base.parallel import average_gradients, rank, size, together
from byway.base.progress import bar
from byway.base.ranking import ndcg_at, recall_at
from byway.data.events import Events
from byway.items import export, softmax, windows
from byway.items.transformer import SequenceModel
from byway.items.windows import Batch, HeldOut, Sequences

Floats = NDArray[np.float32]

LAYERS = 2
"""Transformer blocks."""
HEADS = 2
"""Attention heads a block."""
DROPOUT = 0.2
"""Share of activations dropped in training."""
WEIGHT_CAP = 20.0855
"""Importance weights are capped at e³ (paper 1's reference [8])."""
MOST_SHARE, ENOUGH_PEOPLE, LEAST_SHARE = 0.25, 1000, 0.1
"""Share of users of whom the last events are held out, at most and at least; in between as makes ENOUGH_PEOPLE."""
LEARNING_RATE = 1e-3
"""Peak of the schedule: Adam's usual one."""
WARMUP = 0.05
"""Share of the steps over which the learning rate climbs to its peak; from there it falls along a cosine to 0."""
CHECKPOINT_EVERY = 200
"""Steps between checkpoints from which an interrupted run goes on."""
BATCH, STEPS = (256, 2048), 1200
"""Labels a step at least and at most, and steps an epoch in between. NDCG at 50 by 2,048 labels a step and by 256:
0.193 and 0.268 (demo world, 94,000 labels), 0.109 and 0.116 (MovieLens), 0.080 and 0.091 (MicroLens, 301,000),
0.040 and 0.040 (KuaiRec). It takes up to twice the time."""
NEGATIVES = 1024
"""Items drawn for the softmax's denominator a step, beside the step's labels; all of a catalog that is no
larger."""
SCORES = 1 << 23
"""Scores that are ranked at once: 32 MB."""
KS = (10, 50)
"""k of the figures."""


@dataclass(frozen=True, slots=True)
class ItemPolicy:
    """12-item-policy as read back."""

    model: Path
    """ONNX: `history` int64 [batch, length], item indexes + 1 padded with 0 on the left, to `vector` [batch, d]."""
    items: Floats
    """[n, d] in catalog order, memory-mapped."""
    content: Floats
    """[width, d]: an item that training has not met has the vector embedding @ content."""
    heldout: HeldOut
    """What was held out from the training."""


def load(path: Path) -> ItemPolicy:
    """Read the finished artifact at `path`."""
    return ItemPolicy(
        path / "policy.onnx",
        np.load(path / "items.npy", mmap_mode="r"),
        np.load(path / "content.npy"),
        HeldOut(*np.load(path / "heldout.npy")),
    )


def build(work: Work, settings: config.ItemPolicy, events: Events, vectors: Floats, processes: int = 1) -> Outcome:
    """Train on the log without the held-out events, measure on these, export.

    `vectors` [n, width] are the content embeddings. A killed run goes on from its checkpoint to the same bytes.
    """
    if settings.dim % HEADS:
        raise UserError(f"item_policy.dim is {settings.dim}, and must be a multiple of {HEADS}, the heads.")
    seed = int(work.rng.integers(2**62))
    heldout = windows.hold_out(events, held_share(events.n_users), work.rng)
    log = windows.sequences(events, heldout)
    started = time.perf_counter()
    checkpoint = work.scratch / "checkpoint.safetensors"
    model, steps = together(processes, train, log, vectors, settings, seed, checkpoint)
    trained = time.perf_counter()
    policy, popularity = ranks(model, log, events, heldout, settings.history)
    ranked = time.perf_counter()
    content = from_content(model.cpu(), log, vectors)
    np.save(work.out / "heldout.npy", np.stack([heldout.user, heldout.at]))
    np.save(work.out / "items.npy", model.vectors_ND.detach().numpy())
    np.save(work.out / "content.npy", content)
    export.write(model, work.out / "policy.onnx")
    asked = next(windows.questions(events, heldout, settings.history, 256), None)
    probe = np.zeros((1, settings.history), dtype=np.int64) if asked is None else asked.history
    gap = export.check(model, work.out / "policy.onnx", probe)
    metrics = {
        f"{who}.{name}_at_{k}": round(figure(places, k), 5)
        for who, places in (("item_policy", policy), ("baseline.item_popularity", popularity))
        for name, figure in (("recall", recall_at), ("ndcg", ndcg_at))
        for k in KS
    }
    return Outcome(
        counts={
            "events": int((log.stop - log.start).sum()),
            "rewarded": int((log.reward[log.seen()] > 0).sum()),
            "heldout": len(policy),
            "steps": steps,
        },
        metrics={**metrics, "item_policy.export_gap": gap},
        gates={
            "item_policy.recall_at_50": Gate(
                metrics["item_policy.recall_at_50"], metrics["baseline.item_popularity.recall_at_50"]
            )
        },
        timings={
            "train": trained - started,
            "rank": ranked - trained,
            "export": time.perf_counter() - ranked,
        },
    )


def held_share(users: int) -> float:
    """Share of users of whom something is held out: many of few people, since weights are fitted on it.

    >>> held_share(600), held_share(5000), held_share(50_000)
    (0.25, 0.2, 0.1)
    """
    return max(LEAST_SHARE, min(MOST_SHARE, ENOUGH_PEOPLE / max(users, 1)))


class HistoryEncoder(Protocol):
    """From histories [B, L] to states [B, L, d], and the items' vectors [N, d]."""

    def __call__(self, history_BL: Tensor) -> Tensor: ...

    @property
    def vectors_ND(self) -> Tensor: ...


def on_first_axes(vectors: Floats, width: int) -> Floats:
    """[n, width] the vectors on the axes along which they have most."""
    return vectors @ np.linalg.eigh(vectors.T @ vectors)[1][:, ::-1][:, :width]


def initial(n: int, vectors: Floats, settings: config.ItemPolicy, seed: int) -> nn.ModuleDict:
    """The policy before training, and beside it the behaviour's own item vectors where the correction is on.

    An item starts at its content: the first axes of the embeddings, scaled to the length that random ones of
    standard deviation 0.02 would have. Without content the same training took twice the epochs on MicroLens.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        policy = SequenceModel(n, settings.dim, LAYERS, HEADS, settings.history, DROPOUT)
    width = min(settings.dim, vectors.shape[1])
    placed = on_first_axes(vectors, width)
    placed *= 0.02 * math.sqrt(settings.dim) / np.maximum(np.linalg.norm(placed, axis=1, keepdims=True), 1e-6)
    with torch.no_grad():
        policy.items.weight.zero_()
        policy.items.weight[1:, :width] = torch.from_numpy(placed)
    parts = nn.ModuleDict({"policy": policy})
    if settings.top_k:
        parts["behaviour"] = nn.Embedding(n, settings.dim, _weight=torch.zeros(n, settings.dim))
    return parts


def train(
    log: Sequences, vectors: Floats, settings: config.ItemPolicy, seed: int, checkpoint: Path | None = None
) -> tuple[SequenceModel, int]:
    """Train the policy, from `checkpoint` where there is one; returns it ready for use, and its number of steps."""
    parts = initial(log.n_items, vectors, settings, seed)
    labels = settings.epochs * (int(log.label_counts().sum()) // size())
    shown = bar("item policy: labels", labels) if rank() == 0 else nullcontext(lambda n: None)
    with shown as advance:
        step = fit(parts, log, settings, seed, checkpoint=checkpoint, advance=advance)
    policy = parts["policy"]
    assert isinstance(policy, SequenceModel)
    return policy, step


def fit(
    parts: nn.ModuleDict,
    log: Sequences,
    settings: config.ItemPolicy,
    seed: int,
    *,
    peak: float | None = None,
    checkpoint: Path | None = None,
    advance: Callable[[int], None] = lambda labels: None,
    entropy: float = 0.0,
) -> int:
    """Train any encoder of histories in place; returns the number of steps. `peak` is the highest learning rate.

    `entropy` weighs the bonus for a policy that spreads (reference [9]; `softmax.log_likelihood`).

    Every random draw is a function of the seed and the step, so a checkpoint is the weights, the optimiser's
    moments and the place. Without a path none is kept.
    """
    peak = LEARNING_RATE if peak is None else peak
    parts.to(device.chosen())
    optimiser = torch.optim.Adam(parts.parameters(), lr=peak, betas=(0.9, 0.98), fused=True)
    frequency = log.frequency().astype(np.float64)
    share = frequency / max(1.0, frequency.sum())
    labels = batch_of(int(log.label_counts().sum()) // size())
    done = restore(checkpoint, parts, optimiser) if checkpoint else 0
    step, leads = 0, rank() == 0
    parts.train()
    for epoch in range(settings.epochs):
        every = windows.batches(log, settings.history, labels, seed, epoch)
        order = every[rank() :: size()][: max(1, len(every) // size())] or every[:1]
        for place, (first, length) in enumerate(order):
            step += 1
            advance(int(length.sum()))
            if step <= done:
                continue
            rate = schedule((epoch + place / len(order)) / settings.epochs)
            for group in optimiser.param_groups:
                group["lr"] = peak * rate
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed + step)
                batch = windows.assemble(log, first, length)
                loss(parts, batch, share, settings, seed + step, entropy=entropy).backward()
            average_gradients([p for p in parts.parameters() if p.requires_grad])
            optimiser.step()
            optimiser.zero_grad()
            if checkpoint and leads and step % CHECKPOINT_EVERY == 0:
                save(checkpoint, parts, optimiser, step)
    if checkpoint and leads and step > done:
        save(checkpoint, parts, optimiser, step)
    parts.eval()
    return step


def batch_of(labels: int) -> int:
    """Labels a step, where a log has so many: as many as leave an epoch STEPS steps, within bounds.

    Of a log so small that the fewest would leave less than 50 steps fewer are taken, down to 32.

    >>> batch_of(2_000), batch_of(60_000), batch_of(900_000), batch_of(10**8)
    (40, 256, 750, 2048)
    """
    fewest, most = BATCH
    return max(min(fewest, max(32, labels // 50)), min(most, labels // STEPS))


def schedule(progress: float) -> float:
    """Learning rate as a share of its peak, after `progress` of the training in [0, 1]."""
    return min(progress / WARMUP, 0.5 + 0.5 * math.cos(math.pi * progress))


def loss(
    parts: nn.ModuleDict,
    batch: Batch,
    share: NDArray[np.float64],
    settings: config.ItemPolicy,
    seed: int,
    *,
    entropy: float = 0.0,
) -> Tensor:
    """The loss of one step of any encoder: softmax over mixed negatives, corrected where there is a behaviour.

    The policy's labels are weighed by satisfaction, and those below high quality by 0. The behaviour β has its own
    head on the same states with stopped gradient and learns every event (reference [8], section 4.3).
    """
    policy = cast(HistoryEncoder, parts["policy"])
    at = policy.vectors_ND.device
    history, label, reward = (torch.from_numpy(each).to(at) for each in (batch.history, batch.label, batch.reward))
    states = policy(history)[history > 0]
    if len(share) > NEGATIVES:
        candidates = softmax.draw(label, share, NEGATIVES, np.random.default_rng(seed))
    else:
        candidates = softmax.every_item(len(share), at)
    behaviour, correction = 0.0, None
    if "behaviour" in parts:
        head = parts["behaviour"].weight
        assert isinstance(head, Tensor)
        everything = torch.ones_like(reward)
        behaviour, log_beta = softmax.log_likelihood(states.detach(), head, label, everything, candidates)
        correction = softmax.top_k_correction(log_beta, settings.top_k, WEIGHT_CAP)
    items = policy.vectors_ND
    own, _ = softmax.log_likelihood(states, items, label, reward, candidates, correction, entropy=entropy)
    return own + behaviour


def save(path: Path, parts: nn.Module, optimiser: torch.optim.Optimizer, step: int) -> None:
    """Write what `restore` needs, at once."""
    tensors = {f"weight.{name}": tensor for name, tensor in parts.state_dict().items()}
    for i, moments in optimiser.state_dict()["state"].items():
        tensors |= {f"adam.{i}.{name}": tensor for name, tensor in moments.items()}
    kept = {name: tensor.cpu() for name, tensor in tensors.items()}
    write_atomic(path, safetensors.torch.save({**kept, "step": torch.tensor(step)}))


def restore(path: Path, parts: nn.Module, optimiser: torch.optim.Optimizer) -> int:
    """Take the training up where `path` left it; returns the steps done, 0 where there is no checkpoint."""
    if not path.exists():
        return 0
    tensors = safetensors.torch.load(path.read_bytes())
    parts.load_state_dict({name: tensors[f"weight.{name}"] for name in parts.state_dict()})
    moments: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        kind, _, name = key.partition(".")
        if kind == "adam":
            i, _, name = name.partition(".")
            moments.setdefault(int(i), {})[name] = tensor
    optimiser.load_state_dict({**optimiser.state_dict(), "state": moments})
    return int(tensors["step"])


def from_content(model: SequenceModel, log: Sequences, vectors: Floats) -> Floats:
    """The linear map from an embedding to the item vector that training would have given, [width, d].

    Ridge regression over the items that training met, each as often as it did, with a ridge of 1% of the mean
    eigenvalue.
    """
    weight = np.sqrt(log.frequency())[:, None].astype(np.float32)
    x, y = vectors * weight, model.vectors_ND.detach().numpy() * weight
    gram = (x.T @ x).astype(np.float64)
    ridge = 0.01 * np.trace(gram) / len(gram) + 1e-6
    return np.linalg.solve(gram + ridge * np.eye(len(gram)), x.T @ y).astype(np.float32)


def ranks(
    model: SequenceModel, log: Sequences, events: Events, heldout: HeldOut, history: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Items before the held-out one, [U] each: by the policy, and by how often training met them.

    What the user has met is left out; of equal scores the item that stands first in the catalog is ahead.
    """
    popular = log.frequency().astype(np.float32)
    found: list[NDArray[np.int64]] = []
    baseline: list[NDArray[np.int64]] = []
    with torch.inference_mode():
        for asked in windows.questions(events, heldout, history, max(1, SCORES // events.n_items)):
            states = model(torch.from_numpy(asked.history).to(model.vectors_ND.device))[:, -1]
            scores = (states @ model.vectors_ND.T).cpu().numpy()
            found.append(places(scores, asked.target, asked.met))
            baseline.append(places(np.tile(popular, (len(scores), 1)), asked.target, asked.met))
    nothing = np.empty(0, dtype=np.int64)
    return np.concatenate([nothing, *found]), np.concatenate([nothing, *baseline])


def places(scores_BN: Floats, target_B: NDArray[np.int64], met: tuple[NDArray[np.int64], ...]) -> NDArray[np.int64]:
    """How many items are ahead of each row's target once the pairs (row, item) of `met` are out; [B]."""
    own = scores_BN[np.arange(len(target_B)), target_B][:, None]
    scores_BN[met] = -np.inf
    earlier = np.arange(scores_BN.shape[1]) < target_B[:, None]
    return ((scores_BN > own) | ((scores_BN == own) & earlier)).sum(axis=1)
