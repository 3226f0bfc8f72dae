"""What a GPU makes of the work that torch does: fine-tuning, the table, and the item policy.

    python benchmarks/gpu.py [--json] [--seconds 20] [--steps 20] [--device cuda] [--small]

`step` is one optimiser step of `language/tune.py` with the default settings, under either attention, and what
prepares it: the median after two to warm up. `table` is pairs a second of whole chunks of rows, with the table's
default settings and near ties asked again in float32, as in a run. `item_policy` is a step of its training on a
made log. Arithmetic is what `auto` takes there; weights are untuned, names are made (as in `plan.py`). `peak` is
the fastest matrix product found in the same process, before and after, and `peak_fraction` the share of it that the
products of a step or a chunk reach, as torch counts them. `--small` takes a random model of two layers and few
names, to see that the script works, and `--device cpu` the processor.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.plan import MODEL_TOP, ROUNDING, TOP, WEIGHT, Tokens, log, opened, rounded, tied

from byway.base import config, device, memory, models, precision
from byway.base.errors import UserError
from byway.items import sequence
from byway.items.windows import Sequences
from byway.language import head, training, tune
from byway.language.fast import bulk
from byway.language.fast.generate import Attention, make_policy
from byway.language.plan import ROWS_PER_CHUNK
from byway.transitions.counts import Successors
from byway.transitions.curate import Samples, Transitions
from byway.transitions.signals import Scorer

ATTENTIONS: tuple[Attention, ...] = ("block", "causal")


def finished() -> float:
    """The time, once the device has done all that it was given."""
    if device.chosen().type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def seconds(run: Callable[[], object]) -> float:
    began = finished()
    run()
    return finished() - began


def flop(run: Callable[[], object]) -> int:
    """Arithmetic of the matrix products in it."""
    with FlopCounterMode(display=False) as counted:
        run()
    return counted.get_total_flops()


def peak(dtype: torch.dtype, small: bool) -> float:
    """FLOP/s of the fastest product among some shapes."""
    best, at = 0.0, device.chosen()
    for n, k, m in ((2048, 576, 1536),) if small else ((8192, 576, 1536), (4096, 4096, 4096), (8192, 8192, 8192)):
        a, b = torch.randn(n, k, device=at, dtype=dtype), torch.randn(m, k, device=at, dtype=dtype)
        for _ in range(10):
            best = max(best, 2 * n * k * m / seconds(lambda a=a, b=b: torch.nn.functional.linear(a, b)))
    return best


def step(options: argparse.Namespace, attention: Attention) -> dict[str, float]:
    """A fine-tuning step with the default settings."""
    M, tokenizer = options.names, models.load_tokenizer(models.SHIPPED)
    load, prompt = opened(options.small, tokenizer, M, attention)
    model = load(precision.resolved("auto")).to(device.chosen())
    tokens = Tokens(model)
    settings = config.with_own(replace(config.LanguageModel(), attention=attention))
    tune.freeze(model, tune.frozen(settings))
    policy = make_policy(model, prompt, attention)
    head.learn(model, prompt.answers)
    optimiser = training.Optimiser(model)
    drawn = np.random.default_rng(1).integers(0, M, (20_000, 3)).astype(np.int32)
    some = Samples(drawn[:, :2], drawn[:, 2], np.ones(len(drawn), np.int32))
    transitions = Transitions(2, M, True, some, some, some, some)
    evidence = Scorer.from_counts(Successors.count(some, M))
    branching = policy.trie.goes_on()

    def one(number: int) -> None:
        batch = tune.draw(transitions, evidence, branching, settings, np.random.default_rng(number))
        choice_weight, further_weight = tune.RECIPES[settings.recipe]
        named, choice = tune.loss(policy, batch, choice_weight, further_weight)
        (named + choice_weight * choice).backward()
        optimiser.step(1e-5)

    arithmetic = flop(lambda: one(0))
    one(1)
    tokens.take()
    spent = float(np.median([seconds(lambda i=i: one(2 + i)) for i in range(options.steps)]))
    return {
        "seconds": spent,
        "tokens_per_second": tokens.take() / options.steps / spent,
        "flop_per_second": arithmetic / spent,
    }


@torch.no_grad()
def table(options: argparse.Namespace, attention: Attention) -> dict[str, float]:
    """Rows of the table."""
    M, arithmetic = options.names, precision.resolved("auto")
    load, prompt = opened(options.small, models.load_tokenizer(models.SHIPPED), M, attention)
    policy = make_policy(load(arithmetic).to(device.chosen()), prompt, attention)
    tokens, again, near = [Tokens(policy.model)], None, 0.0
    if arithmetic != "float32":
        exact = make_policy(load("float32").to(device.chosen()), prompt, attention)
        tokens.append(Tokens(exact.model))
        near = tied(policy, bulk.rounding(policy, exact, ROUNDING, np.random.default_rng(0)))
        again = bulk.rechecker(exact, near)
    rows_of = bulk.row_answerer(policy, log(M), WEIGHT, TOP, MODEL_TOP, again)
    starts = np.random.default_rng(3).permutation(np.arange(0, M - ROWS_PER_CHUNK, ROWS_PER_CHUNK)).tolist()
    chunks = [range(start, start + ROWS_PER_CHUNK) for start in starts]
    products = flop(lambda: rows_of(chunks[0])) / (ROWS_PER_CHUNK * M)
    for each in tokens:
        each.take()
    began, pairs = finished(), 0
    for chunk in chunks[1:]:
        pairs += rows_of(chunk).size
        if finished() - began > options.seconds:
            break
    spent = finished() - began
    return {
        "pairs_per_second": pairs / spent,
        "tokens_per_second": sum(each.take() for each in tokens) / spent,
        "flop_per_second": products * pairs / spent,
        "near": near,
        "hours": M * M * spent / pairs / 3600,
    }


def item_policy(options: argparse.Namespace) -> dict[str, float]:
    """A step of the item policy's training, with what prepares it."""
    settings, items = replace(config.ItemPolicy(), epochs=1), 2000 if options.small else 100_000
    rng, length = np.random.default_rng(0), settings.history
    users = max(2, sequence.BATCH[1] * (2 if options.small else options.steps) // length)
    share = 1 / np.arange(1, items + 1) ** 0.7
    item = rng.choice(items, users * length, p=share / share.sum()).astype(np.int32)
    start = np.arange(users, dtype=np.int64) * length
    made = Sequences(item, np.ones(len(item), np.float32), start, start + length, items)
    vectors = rng.normal(size=(items, 256)).astype(np.float32)

    def fit() -> int:
        return sequence.fit(parts, made, settings, 0)

    parts = sequence.initial(items, vectors, settings, 0)
    fit()
    began = finished()
    steps = fit()
    spent = finished() - began
    return {"seconds": spent / steps, "labels_per_second": len(item) / spent}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object (else indented)")
    parser.add_argument("--device", choices=("cuda", "mps", "cpu"), default="cuda")
    parser.add_argument("--names", type=int, default=761)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=20.0, help="for each figure of the table")
    parser.add_argument("--small", action="store_true")
    options = parser.parse_args()
    if options.small:
        options.names, options.steps, options.seconds = min(options.names, 40), 3, 2.0
    try:
        device.use(options.device)
    except UserError as error:
        sys.exit(f"{error} --device cpu measures the processor.")
    memory.keep()
    at, dtype = device.chosen(), precision.dtype("auto")
    best = peak(dtype, options.small)
    found: dict[str, Any] = {
        "step": {attention: step(options, attention) for attention in ATTENTIONS},
        "table": {attention: table(options, attention) for attention in ATTENTIONS},
        "item_policy": item_policy(options),
    }
    best = max(best, peak(dtype, options.small))
    for figures in (*found["step"].values(), *found["table"].values()):
        figures["peak_fraction"] = figures["flop_per_second"] / best
    made = {
        "device": torch.cuda.get_device_name() if at.type == "cuda" else at.type,
        "torch": torch.__version__,
        "precision": precision.resolved("auto"),
        "model": "two random layers" if options.small else models.SHIPPED,
        "names": options.names,
        "peak": best,
    }
    if at.type == "cuda":
        made["memory"] = torch.cuda.max_memory_allocated()
    print(json.dumps(rounded({"made": made, **found}), indent=None if options.json else 2))


if __name__ == "__main__":
    main()
