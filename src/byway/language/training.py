"""What every fine-tuning here shares: the optimiser, the schedule, and checkpoints from which a cut run goes on.

It knows weights and a curve of figures; it does not know prompts, pictures or losses.
"""

import math
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from byway.base.artifact import flush, write_atomic
from byway.base.errors import UserError
from byway.base.parallel import average_gradients, rank
from byway.base.progress import bar

WEIGHT_DECAY = 0.01
"""Decoupled weight decay of every fine-tuning."""
MATCH_GATE = 0.9
"""Match rate that a checkpoint needs before its recall counts: who cannot speak the names does not know them."""
MOMENTS = ("exp_avg", "exp_avg_sq", "step")


class Optimiser:
    """AdamW on float32 masters of a bfloat16 model's trained weights.

    The embedding table, whose dense gradient is 113 MB a pass, is frozen by whoever makes the model.
    """

    def __init__(self, model: torch.nn.Module):
        self.weights = [p for p in model.parameters() if p.requires_grad]
        self.masters = [p.detach().float().requires_grad_() for p in self.weights]
        self.adam = torch.optim.AdamW(self.masters, betas=(0.9, 0.98), weight_decay=WEIGHT_DECAY, fused=True)

    def step(self, learning_rate: float) -> float:
        """Apply the gradients, clipped to norm 1; returns their norm before."""
        for master, weight in zip(self.masters, self.weights, strict=True):
            master.grad = None if weight.grad is None else weight.grad.float()
            weight.grad = None
        average_gradients(self.masters)
        norm = torch.nn.utils.clip_grad_norm_(self.masters, 1.0)
        for group in self.adam.param_groups:
            group["lr"] = learning_rate
        self.adam.step()
        with torch.no_grad():
            for master, weight in zip(self.masters, self.weights, strict=True):
                weight.copy_(master)
        return float(norm)

    def state(self) -> dict[str, Tensor]:
        """Masters and moments, by name."""
        state = {f"master.{i}": m.detach() for i, m in enumerate(self.masters)}
        for i, m in enumerate(self.masters):
            # What no prompt has reached yet has no moments: the projector, where nothing is shown.
            for name in MOMENTS if m in self.adam.state else ():
                state[f"{name}.{i}"] = self.adam.state[m][name]
        return state

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from what `state` returned."""
        with torch.no_grad():
            for i, (master, weight) in enumerate(zip(self.masters, self.weights, strict=True)):
                master.copy_(state[f"master.{i}"])
                weight.copy_(master)
                if f"step.{i}" in state:
                    kept = {name: state[f"{name}.{i}"].to(master.device, copy=True) for name in MOMENTS}
                    self.adam.state[master] = kept


def due(step: int, steps: int, every: int) -> bool:
    """Whether to evaluate after this step: every so many, at the end, and once on the way of a shorter run."""
    return step % (every if steps >= every else math.ceil(steps / 2)) == 0 or step == steps


def rate(step: int, steps: int, peak: float, warmup: int) -> float:
    """Learning rate of a step: linear warm-up to its `peak`, and linear decay to a twentieth of that."""
    warm = min(1.0, (step + 1) / max(1, warmup))
    return peak * warm * max(0.05, 1 - step / steps)


class Progress:
    """Where a run stands, its curve, and its best weights; a cut run repeats the steps that it had not saved."""

    def __init__(self, scratch: Path, optimiser: Optimiser):
        self.scratch, self.optimiser = scratch, optimiser
        self.curve: list[dict[str, Any]] = []
        self.best: dict[str, Any] = {}

    def run(
        self,
        steps: int,
        learn: Callable[[int], None],
        look: Callable[[], dict[str, Any]],
        keep: Callable[[], None],
        *,
        label: str,
        evaluate_every: int,
        save_every: int,
    ) -> None:
        """Learn all steps that are left, and leave the model with its best weights.

        Before the first step and whenever it is `due` the curve gets a point with the figures of `look`, and `keep`
        decides whether these weights are the best so far. Of several processes the first one looks and saves.
        """
        step, leads = self.restore(), rank() == 0
        if step == 0 and leads:
            self.curve.append({"step": 0, **look()})
        with bar(label, steps, step) if leads else nullcontext(lambda n: None) as advance:
            while step < steps:
                learn(step)
                step += 1
                advance(1)
                if leads and due(step, steps, evaluate_every):
                    self.curve.append({"step": step, **look()})
                    keep()
                if leads and step % save_every == 0 and step < steps:
                    self.save(step)
        if leads:
            self.take_best()

    def save(self, step: int) -> None:
        """Keep the state after `step` steps; the pointer is moved last, and then the old state goes."""
        _write(self.optimiser.state(), self.scratch / f"step-{step:06d}.safetensors")
        known = {"step": step, "curve": self.curve, "best": self.best}
        write_atomic(self.scratch / "newest.json", msgspec.json.encode(known))
        for file in self.scratch.glob("step-*.safetensors"):
            if file.stem != f"step-{step:06d}":
                file.unlink()

    def restore(self) -> int:
        """Go on from the newest checkpoint; returns its step, or 0.

        UserError where it holds other weights than are trained now: an older version of Byway has begun it.
        """
        pointer = self.scratch / "newest.json"
        if not pointer.exists():
            return 0
        known = msgspec.json.decode(pointer.read_bytes())
        state = load_file(self.scratch / f"step-{known['step']:06d}.safetensors")
        masters = {f"master.{i}": master.shape for i, master in enumerate(self.optimiser.masters)}
        if {name: state[name].shape for name in state if name.startswith("master.")} != masters:
            raise UserError(
                f"{self.scratch} was begun by another version of Byway, which trains other weights: delete it and "
                "run again."
            )
        self.optimiser.restore(state)
        self.curve, self.best = known["curve"], known["best"]
        return int(known["step"])

    def keep_best(self, match: str, recall: str, prompts: int, error: float | None = None) -> None:
        """Keep these weights unless they are worse than what was there before.

        `match` and `recall` name figures of the curve, measured on so many `prompts`. Weights that clear the gate
        are better than such as do not, and then worse only where they recall less than the best before them by more
        than one standard error: of two that cannot be told apart the later has learned longer. Before the gate is
        cleared, and where there is no recall, the newest are kept. The file carries its step, since a run that is
        cut between this and the next checkpoint repeats the steps and must find what it would have found.
        """
        now = self.curve[-1]
        cleared = now.get(match, 0.0) >= MATCH_GATE
        before = [point for point in self.curve[:-1] if recall in point and point.get(match, 0.0) >= MATCH_GATE]
        most = float(max((point[recall] for point in before), default=min(0.0, now.get(recall, 0.0))))
        apart: float = (most * (1 - most) / max(1, prompts)) ** 0.5 if error is None else error
        if (cleared and now.get(recall, most) >= most - apart) or not (cleared or before) or not self.best:
            self.best = now
            weights = {str(i): w.detach().contiguous() for i, w in enumerate(self.optimiser.weights)}
            temporary = self.scratch / "best.tmp"
            _write(weights, temporary)
            temporary.replace(self.scratch / f"best-{now['step']:06d}.safetensors")

    def take_best(self) -> None:
        """Put the best weights back into the model."""
        state = load_file(self.scratch / f"best-{self.best['step']:06d}.safetensors")
        with torch.no_grad():
            for i, weight in enumerate(self.optimiser.weights):
                weight.copy_(state[str(i)])


def _write(tensors: dict[str, Tensor], path: Path) -> None:
    """Write a safetensors file and see it onto the disk, since what points to it is written next."""
    save_file({name: tensor.cpu() for name, tensor in tensors.items()}, path)
    flush(path)
