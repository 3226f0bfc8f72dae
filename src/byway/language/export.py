"""The samples of fine-tuning as files for others to tune on: TRL, OpenAI's hosts, Vertex.

TRL's are prompt and completion in the words of `prompts`, a row a sample: the model then answers by completions.
The hosts' are conversations in the words of `questions`, a row a context: what people turned to from there, the
most frequent first, among candidates of which some are near by the log's signals and some far.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from byway.base.artifact import write_atomic
from byway.base.errors import UserError
from byway.language import prompts
from byway.language.questions import Questions
from byway.transitions.curate import Samples

Form = Literal["trl", "openai", "vertex"]


def write(folder: Path, form: Form, parts: dict[str, Samples], asked: Questions) -> dict[str, int]:
    """Write a file a part into `folder`; returns its rows. `asked` are the questions about every pair of the parts.

    UserError where a part has nothing in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    counts: dict[str, int] = {}
    for name, samples in parts.items():
        several = samples.several()
        if not len(several):
            raise UserError(f"The log has no {name} samples of different interests: there is nothing to tune on.")
        rows = _completions(several, asked) if form == "trl" else _conversations(several, asked, form)
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        write_atomic(folder / f"{name}.jsonl", "".join(f"{line}\n" for line in lines).encode())
        counts[name] = len(lines)
    return counts


def _completions(samples: Samples, asked: Questions) -> Iterator[dict[str, Any]]:
    for context, label, count in zip(samples.context, samples.label, samples.count, strict=True):
        row = {
            "prompt": prompts.text([asked.names[c] for c in context.tolist()]),
            "completion": f" {asked.names[label]}",
        }
        yield from [row] * int(count)


def _conversations(samples: Samples, asked: Questions, form: Form) -> Iterator[dict[str, Any]]:
    of = {tuple(pair): row for row, pair in enumerate(asked.pairs.tolist())}
    contexts, row = np.unique(samples.context[:, -2:], axis=0, return_inverse=True)
    order = np.lexsort((samples.label, -samples.count, row.reshape(-1)))
    starts = np.searchsorted(row.reshape(-1)[order], np.arange(len(contexts) + 1))
    for i, pair in enumerate(contexts.tolist()):
        turned = list(dict.fromkeys(samples.label[order[starts[i] : starts[i + 1]]].tolist()))[: asked.ranked]
        at = of[tuple(pair)]
        # What they turned to must be among the candidates, in its own drawn place, and not told beforehand.
        rest = [c for c in asked.candidates[at].tolist() if c >= 0 and c not in turned]
        shown = np.array((turned + rest)[: asked.candidates.shape[1]])
        drawn = np.random.default_rng([0, *pair]).permutation(shown)
        wide = np.full((1, asked.candidates.shape[1]), -1, np.int32)
        wide[0, : len(drawn)] = drawn
        own = replace(asked.part(np.array([at])), candidates=wide, ranked=len(turned))
        question = replace(own, turned=np.full_like(own.turned, -1))[0]
        answer = json.dumps({"next": [asked.names[c] for c in turned]}, ensure_ascii=False)
        if form == "openai":
            said = (("system", question.system), ("user", question.user), ("assistant", answer))
            yield {"messages": [{"role": role, "content": text} for role, text in said]}
        else:
            yield {
                "systemInstruction": {"role": "system", "parts": [{"text": question.system}]},
                "contents": [
                    {"role": "user", "parts": [{"text": question.user}]},
                    {"role": "model", "parts": [{"text": answer}]},
                ],
            }
