"""What a fine-tuning step costs beside the standard trainer's, at the same batch and prompts.

    python benchmarks/step.py [--json] --trl PYTHON [--steps 4] [--threads 2] [--tiny]

Ours is the paper's recipe: causal attention, the loss on the answer alone, AdamW on every layer and on the output's
rows of the names' tokens; `ours_choice` adds the choice among legal names (our default). TRL's SFTTrainer trains on
the same prompts and answers with its completion-only loss, at the same batch and every layer trained, its embedding
table and output layer frozen. PYTHON is the interpreter of an environment that holds `trl`; its transformers may be
another version, which is printed. Seconds a step are the median after one step to warm up. `ratio.step_over_trl`
below 1: ours is cheaper.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

BATCH = 16


def ours(options: argparse.Namespace, folder: Path, rows: list[dict[str, Any]], names: int) -> dict[str, float]:
    """Seconds a step of `language/tune.py` on batches of the given (context, label) rows."""
    import numpy as np
    import torch
    from benchmarks.plan import opened

    from byway.base import config, memory, models, precision
    from byway.language import head, training, tune
    from byway.language.fast.generate import make_policy
    from byway.transitions.counts import Successors
    from byway.transitions.curate import Samples, Transitions
    from byway.transitions.signals import Scorer

    memory.keep()
    torch.set_num_threads(options.threads)
    prompt = opened(options.tiny, models.load_tokenizer(models.SHIPPED), names)[1]
    context = np.array([row["context"] for row in rows], np.int32)
    label = np.array([row["label"] for row in rows], np.int32)
    some = Samples(context, label, np.ones(len(label), np.int32))
    transitions = Transitions(2, names, False, some, some, some, some)
    found: dict[str, float] = {}
    for name, weight in (("ours", 0.0), ("ours_choice", 1.0)):
        settings = replace(config.LanguageModel(), attention="causal", batch=BATCH)
        model = models.load(str(folder), precision.dtype("auto"))
        head.learn(model, prompt.answers)
        policy = make_policy(model, prompt, "causal")
        optimiser = training.Optimiser(model)
        deep = np.array([len(steps) > 1 for steps in policy.trie.steps])
        evidence = Scorer.from_counts(Successors.count(some, names))
        spent: list[float] = []
        for step in range(options.steps + 1):
            began = time.perf_counter()
            batch = tune.draw(transitions, evidence, deep, settings, np.random.default_rng(step))
            spoken, choice = tune.loss(policy, batch, weight)
            (spoken + weight * choice).backward()
            optimiser.step(1e-5)
            spent.append(time.perf_counter() - began)
        found[name] = float(np.median(spent[1:]))
    return found


def standard(job: dict[str, Any]) -> dict[str, Any]:
    """Seconds a step of TRL's SFTTrainer; runs in its own interpreter and imports nothing of ours."""
    import torch
    import transformers
    import trl
    from datasets import Dataset

    torch.set_num_threads(job["threads"])
    model = transformers.AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32)
    model.get_input_embeddings().weight.requires_grad_(False)
    tokenizer = transformers.AutoTokenizer.from_pretrained(job["model"])
    at: list[float] = []

    class Clock(transformers.TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            at.append(time.perf_counter())

    # Token ids, not text: both trainers get exactly the same tokens.
    rows = [
        {
            "input_ids": row["prompt"] + row["answer"],
            "completion_mask": [0] * len(row["prompt"]) + [1] * len(row["answer"]),
        }
        for row in job["rows"]
    ]
    with tempfile.TemporaryDirectory() as folder:
        settings = trl.SFTConfig(
            output_dir=folder,
            per_device_train_batch_size=job["batch"],
            max_steps=job["steps"] + 1,
            completion_only_loss=True,
            use_cpu=True,
            bf16=job["precision"] == "bfloat16",
            gradient_checkpointing=False,
            logging_strategy="no",
            save_strategy="no",
            report_to="none",
            learning_rate=1e-5,
        )
        trainer = trl.SFTTrainer(
            model=model,
            args=settings,
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
            callbacks=[Clock()],
        )
        trainer.train()
    spent = sorted(b - a for a, b in pairwise(at))
    versions = {name: sys.modules[name].__version__ for name in ("trl", "transformers", "torch")}
    return {"trl": spent[len(spent) // 2], "versions": versions}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object (else indented)")
    parser.add_argument("--trl", default=sys.executable, help="interpreter with trl")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--names", type=int, default=761)
    parser.add_argument("--tiny", action="store_true", help="a random model of two layers")
    parser.add_argument("--standard", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.standard:
        out = os.dup(1)
        os.dup2(2, 1)
        os.write(out, json.dumps(standard(json.load(sys.stdin))).encode())
        return
    import numpy as np

    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from benchmarks.plan import opened

    from byway.base import models, precision

    tokenizer = models.load_tokenizer(models.SHIPPED)
    load, prompt = opened(options.tiny, tokenizer, options.names)
    rng = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    for _ in range(BATCH * (options.steps + 1)):
        a, b, label = rng.choice(options.names, 3, replace=False).tolist()
        answer = prompt.answers[label]
        rows.append({"context": [a, b], "label": label, "prompt": prompt.tokens([a, b]), "answer": answer})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.tiny:
            load("float32").save_pretrained(folder)
            tokenizer.save_pretrained(folder)
        else:
            folder = Path(models.resolve(models.SHIPPED))
        job = {
            "model": str(folder),
            "rows": rows,
            "batch": BATCH,
            "steps": options.steps,
            "threads": options.threads,
            "precision": precision.fastest(),
        }
        command = [options.trl, __file__, "--standard"]
        done = subprocess.run(command, input=json.dumps(job), capture_output=True, text=True)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no output"])[-1]
            sys.exit(f"TRL did not run ({last}); give an interpreter that has it with --trl.")
        found = {**ours(options, folder, rows, options.names), **json.loads(done.stdout.splitlines()[-1])}
    found["ratio.step_over_trl"] = found["ours"] / found["trl"]
    found["ratio.choice_step_over_trl"] = found["ours_choice"] / found["trl"]
    print(json.dumps(found, indent=None if options.json else 2))


if __name__ == "__main__":
    main()
