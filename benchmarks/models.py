"""What a language model costs by its size: a step of fine-tuning (all weights, or adapters), the table, memory.

    python -m benchmarks.models [SHAPE …] [--names 300] [--seconds 20] [--threads N] [--json]

Shapes are those of models of the hub, with random weights, which cost what trained ones do; how well a model
answers is not asked. A step is the default one (block attention, the whole log, 12 clusters), its median after one
to warm up. Pairs a second are rows of the table, the 20 best of every pair by model and log, near ties not settled.
Every measurement is a process of its own, so that `gigabytes` is its own largest resident size; of one that does
not fit the return code is told. `over` is the ratio to the first shape of the same run.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from typing import Any

import numpy as np
import psutil
import torch
from benchmarks.plan import log, names
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen3Config

from byway.base import config, memory, models, precision
from byway.language import adapters, head, prompts, tune
from byway.language.fast import bulk
from byway.language.fast.generate import Policy, make_policy
from byway.language.training import Optimiser
from byway.transitions.counts import Successors
from byway.transitions.curate import Samples, Transitions
from byway.transitions.signals import Scorer

SHAPES: dict[str, tuple[Any, dict[str, Any]]] = {
    "smollm2-135m": (LlamaConfig, {"hidden_size": 576, "layers": 30, "heads": (9, 3), "inner": 1536}),
    "smollm2-360m": (LlamaConfig, {"hidden_size": 960, "layers": 32, "heads": (15, 5), "inner": 2560}),
    "qwen3-0.6b": (Qwen3Config, {"hidden_size": 1024, "layers": 28, "heads": (16, 8), "inner": 3072}),
    "smollm2-1.7b": (LlamaConfig, {"hidden_size": 2048, "layers": 24, "heads": (32, 32), "inner": 8192}),
}
WAYS = ("full", "lora", "table")
STEPS = 3


def made(shape: str, vocabulary: int) -> Any:
    """A model of that shape with random weights; the vocabulary is that of the shipped tokenizer."""
    kind, of = SHAPES[shape]
    heads, shared = of["heads"]
    settings = kind(
        vocab_size=vocabulary,
        hidden_size=of["hidden_size"],
        intermediate_size=of["inner"],
        num_hidden_layers=of["layers"],
        num_attention_heads=heads,
        num_key_value_heads=shared,
        tie_word_embeddings=True,
        **({"head_dim": 128} if kind is Qwen3Config else {}),
    )
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(settings, dtype=precision.dtype("auto")).eval()


def seconds_a_step(model: Any, policy: Policy, M: int) -> float:
    """The default step on a made log."""
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, M, (50_000, 3)).astype(np.int32)
    some = Samples(drawn[:, :2], drawn[:, 2], np.ones(len(drawn), np.int32))
    transitions, evidence = (
        Transitions(2, M, True, some, some, some, some),
        Scorer.from_counts(Successors.count(some, M)),
    )
    settings, deep = config.LanguageModel(), policy.trie.goes_on()
    optimiser = Optimiser(model)
    spent: list[float] = []
    for step in range(STEPS + 1):
        began = time.perf_counter()
        batch = tune.draw(transitions, evidence, deep, settings, np.random.default_rng(step))
        choice_weight, further_weight = tune.RECIPES[settings.recipe]
        spoken, choice = tune.loss(policy, batch, choice_weight, further_weight)
        (spoken + choice_weight * choice).backward()
        optimiser.step(1e-5)
        spent.append(time.perf_counter() - began)
    return float(np.median(spent[1:]))


def pairs_a_second(policy: Policy, seconds: float) -> float:
    """Whole tiles of rows until the time is over."""
    M, tile = policy.clusters, bulk.TILE
    rows_of = bulk.row_answerer(policy, log(M), 0.2, 20, 10)
    rows_of(range(tile))
    began, done = time.perf_counter(), 0
    for start in range(tile, M - tile, tile):
        done += rows_of(range(start, start + tile)).size
        if time.perf_counter() - began > seconds:
            break
    return done / (time.perf_counter() - began)


def measure(job: dict[str, Any]) -> dict[str, float]:
    """One shape in one way; beyond the free memory it is refused some, before others are ended for it."""
    free = int(0.95 * psutil.virtual_memory().available)
    resource.setrlimit(resource.RLIMIT_DATA, (free, free))
    memory.keep()
    torch.set_num_threads(job["threads"])
    tokenizer = models.load_tokenizer(models.SHIPPED)
    model = made(job["shape"], len(tokenizer))
    weights = sum(p.numel() for p in model.parameters())
    prompt = prompts.tokenise(names(tokenizer, job["names"]), 2, tokenizer, prompts.ENDINGS["block"])
    if job["way"] == "lora":
        model = adapters.adapt(model, np.random.default_rng(0))
    tune.freeze(model, tune.frozen(config.LanguageModel()))
    head.learn(model, prompt.answers)
    if job["way"] == "table":
        head.settle(model)
    policy = make_policy(model, prompt, "block")
    if job["way"] == "table":
        found = {"weights": float(weights), "pairs_per_second": pairs_a_second(policy, job["seconds"])}
    else:
        found = {f"seconds_a_step.{job['way']}": seconds_a_step(model, policy, job["names"])}
    return {**found, f"gigabytes.{job['way']}": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shapes", nargs="*", default=list(SHAPES))
    parser.add_argument("--names", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(measure(json.loads(given.measure))))
        return
    found: dict[str, dict[str, Any]] = {}
    for shape in given.shapes:
        found[shape] = {}
        for way in WAYS:
            job = {
                "shape": shape,
                "way": way,
                "names": given.names,
                "seconds": given.seconds,
                "threads": given.threads,
            }
            command = [sys.executable, "-m", "benchmarks.models", "--measure", json.dumps(job)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
            if done.returncode:
                found[shape][f"ended.{way}"] = done.returncode
            else:
                found[shape] |= json.loads(done.stdout.splitlines()[-1])
            print(shape, way, found[shape], file=sys.stderr, flush=True)
    first = found[given.shapes[0]]
    for of in found.values():
        shared = [key for key in of if key in first and not key.startswith("ended")]
        of["over"] = {key: round(of[key] / first[key], 2) for key in shared}
    print(json.dumps(found, indent=None if given.json else 1))


if __name__ == "__main__":
    main()
