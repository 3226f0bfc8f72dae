"""RecTools' FlatSASRec and UniSRec (0.19, `fast_transformers`), asked as `sequence.py` asks its models.

    peer/bin/python -m benchmarks.sequence_peer FOLDER flatsasrec unisrec

Run from the repository's root by the environment that has RecTools; it needs nothing of Byway, and FOLDER with
`split.npz` and `policy.json`. The networks, the sequences, UniSRec's loss and its learning rates are RecTools' own;
of FlatSASRec RecTools has the network alone, which is trained as its SASRec is (Xavier's initial weights, softmax,
Adam at 0.001). The loop is here, since theirs cannot validate on other people. Two differences in their favour:
a sequence longer than the history is cut into pieces, where theirs drops all but the last, and padding has no
logits.

Each is trained until validation has not risen for some looks, and the best of them answers as NAME; as NAME-equal
answers what was best when the processor had worked for as many seconds as the item policy trained.
"""

import argparse
import copy
import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from benchmarks import questions
from benchmarks.questions import Floats, Ints, Score, Split
from rectools.fast_transformers import FlatSASRecNet, UniSRecModel, build_sequences
from torch import Tensor, nn

STEPS = 200
"""Steps between two looks at the validation, to whole epochs, one at least."""


@dataclass
class Peer:
    """A network of RecTools under one face."""

    net: nn.Module
    known: Ints
    """[K] the items that training has met; the net's number k + 1 is item known[k]."""
    optimiser: torch.optim.Optimizer
    clip: float | None

    def vectors(self) -> Tensor:
        """[K, d]"""
        own = isinstance(self.net, FlatSASRecNet)
        return self.net.all_item_embeddings() if own else self.net.project_all()[1:]

    def states(self, x_BL: Tensor) -> Tensor:
        """[B, L, d]"""
        return self.net.encode(x_BL) if isinstance(self.net, FlatSASRecNet) else self.net(x_BL)

    def loss(self, x_BL: Tensor, y_BL: Tensor) -> Tensor:
        """Softmax over all items, as both of RecTools' have it."""
        there = y_BL > 0
        return nn.functional.cross_entropy(self.states(x_BL)[there] @ self.vectors().T, y_BL[there] - 1)

    def score(self, made: Split, history: int) -> Score:
        """Scores of all items; what training has not met comes last."""
        number = np.zeros(made.n_items + 1, np.int64)
        number[self.known + 1] = np.arange(1, len(self.known) + 1)

        def score(at: Ints) -> Floats:
            self.net.eval()
            with torch.inference_mode():
                read = made.history(at, history, liked=True)
                # An item that training has not met is no input: what is left moves to the right.
                mapped = number[read]
                order = np.argsort(mapped > 0, axis=1, kind="stable")
                states = self.states(torch.from_numpy(np.take_along_axis(mapped, order, axis=1)))[:, -1]
                scores = np.full((len(at), made.n_items), -np.inf, np.float32)
                scores[:, self.known] = (states @ self.vectors().T).numpy()
            return scores

        return score


def pieces(made: Split, history: int) -> tuple[Tensor, Tensor, Ints]:
    """RecTools' inputs and labels [S, history] and the items that it numbered, from what was liked in training."""
    rows = made.rows(liked=True)
    user, item = made.user[rows], made.item[rows]
    place = np.arange(len(user)) - np.searchsorted(user, user)
    piece = place // history
    # Each piece but the first begins with the last item of the one before, so that every label has an input.
    again = np.flatnonzero((place % history == 0) & (place > 0))
    who = np.concatenate([user, user[again]]) * (1 + int(piece.max())) + np.concatenate([piece, piece[again]])
    what, when = np.concatenate([item, item[again - 1]]), np.concatenate([np.arange(len(user)), again - 1])
    x, y, known, _ = build_sequences(*(torch.from_numpy(each) for each in (who, what, when)), max_len=history)
    return x, y, known.numpy()


def peer(name: str, made: Split, known: Ints, options: argparse.Namespace) -> Peer:
    """A network before training."""
    shape = {
        "n_factors": options.dim,
        "n_blocks": options.blocks,
        "n_heads": options.heads,
        "session_max_len": options.history,
        "dropout": options.dropout,
    }
    if name == "flatsasrec":
        net = FlatSASRecNet(n_items=len(known), **shape)
        for weight in net.parameters():
            if weight.dim() > 1:
                nn.init.xavier_normal_(weight.data)
        return Peer(net, known, torch.optim.Adam(net.parameters(), lr=1e-3, betas=(0.9, 0.98)), None)
    # The model is asked for its network and its groups of learning rates by a fit that has no epoch.
    model = UniSRecModel(torch.from_numpy(made.vectors), lr=options.unisrec_rate, epochs=0, **shape)
    rows = torch.from_numpy(np.repeat(known, 2))
    users = torch.arange(len(known)).repeat_interleave(2)
    model.fit(users, rows, torch.arange(len(rows)))
    return Peer(model.net, known, torch.optim.AdamW(model._param_groups(model.net)), model.grad_clip)


@dataclass
class Best:
    """The best epoch so far."""

    found: float = -1.0
    epochs: float = 0.0
    seconds: float = 0.0
    weights: dict[str, Tensor] = field(default_factory=dict[str, Tensor])


def train(one: Peer, made: Split, x: Tensor, y: Tensor, options: argparse.Namespace) -> tuple[Best, Best, float]:
    """Train to convergence: the best epoch, the best in as much time as the item policy had, and all seconds."""
    equal_seconds = json.loads((options.folder / f"{options.equal}.json").read_text("utf-8"))["seconds"]
    torch.manual_seed(options.seed)
    best, equal, spent, epoch, waited = Best(), None, 0.0, 0, 0
    # In the first hundreds of steps softmax learns next to nothing, and validation only shakes.
    every = max(1, round(STEPS * options.batch / len(x)))

    def look(epochs: float) -> bool:
        found = questions.validation(made, one.score(made, options.history))
        print(f"{epochs:.2f} epochs, {spent:.0f} s: {found:.4f}", file=sys.stderr)
        if found <= best.found:
            return False
        best.found, best.epochs, best.seconds = found, epochs, spent
        best.weights = {name: weight.clone() for name, weight in one.net.state_dict().items()}
        return True

    while waited < options.patience and epoch < options.epochs and spent < options.seconds:
        order = torch.randperm(len(x)).split(options.batch)
        for place, batch in enumerate(order, 1):
            started = time.process_time()
            one.net.train()
            one.optimiser.zero_grad()
            one.loss(x[batch], y[batch]).backward()
            if one.clip is not None:
                nn.utils.clip_grad_norm_(one.net.parameters(), one.clip)
            one.optimiser.step()
            spent += time.process_time() - started
            if equal is None and spent >= equal_seconds:
                look(epoch + place / len(order))
                equal = copy.deepcopy(best)
        epoch += 1
        if epoch % every == 0:
            waited = 0 if look(epoch) else waited + 1
    return best, equal or best, spent


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("models", nargs="+", choices=["flatsasrec", "unisrec"])
    parser.add_argument("--equal", default="policy", help="the answer whose seconds are equal time")
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--blocks", type=int, default=2)
    parser.add_argument("--heads", type=int, default=2)
    parser.add_argument("--history", type=int, default=50)
    parser.add_argument("--dropout", type=float, default=0.2)
    parser.add_argument("--batch", type=int, default=128, help="sequences a step")
    parser.add_argument("--unisrec-rate", type=float, default=1e-4)
    parser.add_argument(
        "--patience", type=int, default=5, help="looks at the validation without a rise after which training ends"
    )
    parser.add_argument("--epochs", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="of the processor: no epoch after them")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--as-name", help="under which the answers are kept, where settings are changed")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    # With torch's fast path FlatSASRec's states of padded histories are NaN when no gradient is asked for.
    torch.backends.mha.set_fastpath_enabled(False)
    made = questions.load(options.folder)
    x, y, known = pieces(made, options.history)
    for name in options.models:
        torch.manual_seed(options.seed)
        one = peer(name, made, known, options)
        best, equal, spent = train(one, made, x, y, options)
        for suffix, chosen in (("", best), ("-equal", equal)):
            one.net.load_state_dict(chosen.weights)
            said = {
                "epochs": round(chosen.epochs, 2),
                "seconds": round(chosen.seconds, 1),
                "searched": round(spent, 1),
                "validation": chosen.found,
                "threads": options.threads,
                "settings": f"{options.dim} wide, {options.blocks} blocks, history {options.history}",
            }
            score = one.score(made, options.history)
            questions.answer(options.folder, (options.as_name or name) + suffix, made, score, said)


if __name__ == "__main__":
    main()
