"""Files that Byway writes for others, taken in by their own libraries: TRL's trainer and the hosts' own types.

    pip install trl openai anthropic google-genai
    python benchmarks/hosts.py W [--steps 5] [--json]

W is a workspace built as far as 06-transitions. The samples of `byway export` train a small random model for a few
steps; every line of the samples and of a batch's requests is checked against the types by which a host's own client
describes what it takes. Nothing is sent.
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from byway.base import config
from byway.language import batch
from byway.workflow import asking
from byway.workflow.stages import questions

LINES = 200


def rows(path: Path, most: int = LINES) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()[:most]]


def checked(kind: Any, strict: bool = True) -> Callable[[Any], Any]:
    """What raises where a value is not of the host's type; of a typed dictionary no other keys are let through."""
    adapter = TypeAdapter(kind)

    def check(value: Any) -> Any:
        found = adapter.validate_python(value)
        if strict and (more := set(value) - set(kind.__annotations__)):
            raise ValueError(f"{kind.__name__} has no {more}")
        return found

    return check


def batches(workspace: Path, settings: config.Config, folder: Path) -> dict[str, int]:
    """Lines of a batch's requests that each host's types take."""
    from anthropic.types.message_create_params import MessageCreateParamsNonStreaming
    from google.genai import types
    from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming

    asked = questions(asking.opened(workspace, settings))
    openai = checked(CompletionCreateParamsNonStreaming)
    anthropic = checked(MessageCreateParamsNonStreaming)

    def gemini(request: dict[str, Any]) -> None:
        # The file may name fields as the client does; each of the three is a type there, which refuses other keys.
        types.GenerateContentConfig.model_validate(request["generation_config"])
        for content in (*request["contents"], request["system_instruction"]):
            types.Content.model_validate(content)

    take = {
        "chat": lambda line: openai(line["body"]),
        "anthropic": lambda line: anthropic(line["params"]),
        "gemini": lambda line: gemini(line["request"]),
    }
    found: dict[str, int] = {}
    for form, check in take.items():
        own = replace(settings.answers, protocol=form)
        here = folder / form
        here.mkdir()
        lines = rows(batch.write(here, asked, np.arange(min(LINES, len(asked))), own)[0])
        for line in lines:
            check(line)
        found[f"{form} batch requests"] = len(lines)
    return found


def samples(workspace: Path, settings: config.Config, folder: Path) -> dict[str, int]:
    """Lines of the samples for fine-tuning that each host's types take."""
    from google.genai import types
    from openai.types.chat import ChatCompletionMessageParam

    message = TypeAdapter(ChatCompletionMessageParam)
    found: dict[str, int] = {}
    for form in ("openai", "vertex", "trl"):
        asking.write_samples(workspace, settings, form, folder / f"sft-{form}")
        lines = rows(folder / f"sft-{form}" / "train.jsonl", 10**9 if form == "trl" else LINES)
        for line in lines:
            if form == "openai":
                assert set(line) == {"messages"}
                for each in line["messages"]:
                    message.validate_python(each)
            elif form == "vertex":
                for each in (*line["contents"], line["systemInstruction"]):
                    types.Content.model_validate(each)
        found[f"{form} samples"] = len(lines)
    return found


def trained(folder: Path, steps: int) -> dict[str, Any]:
    """TRL's own trainer for a few steps, on prompts and completions and on conversations."""
    import torch
    from datasets import load_dataset
    from transformers import LlamaConfig, LlamaForCausalLM
    from trl import SFTConfig, SFTTrainer

    from byway.base import models

    tokenizer = models.load_tokenizer("smollm2-135m")
    found: dict[str, Any] = {}
    for form in ("trl", "openai"):
        torch.manual_seed(0)
        small = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
        model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **small))
        parts = {name: str(folder / f"sft-{form}" / f"{name}.jsonl") for name in ("train", "validation")}
        data = load_dataset("json", data_files=parts)
        own = SFTConfig(
            output_dir=str(folder / f"out-{form}"), max_steps=steps, per_device_train_batch_size=8, use_cpu=True,
            report_to="none", logging_steps=1, learning_rate=1e-2, save_strategy="no", max_length=1024, bf16=False,
        )  # fmt: skip
        trainer = SFTTrainer(
            model, args=own, train_dataset=data["train"].select(range(min(400, len(data["train"])))),
            processing_class=tokenizer,
        )  # fmt: skip
        trainer.train()
        losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
        found[f"TRL on {form} samples, loss at first and last step"] = [losses[0], losses[-1]]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    chosen = ["language_model.answers=batch", "answers.model=some-model"]
    settings = config.load(given.workspace / "byway.toml", chosen)
    with tempfile.TemporaryDirectory() as folder:
        found: dict[str, Any] = {**batches(given.workspace, settings, Path(folder))}
        found |= samples(given.workspace, settings, Path(folder))
        found |= trained(Path(folder), given.steps)
    print(json.dumps(found) if given.json else "\n".join(f"{name}: {value}" for name, value in found.items()))


if __name__ == "__main__":
    main()
