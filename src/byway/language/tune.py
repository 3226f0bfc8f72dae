"""07-language-model: supervised fine-tuning on novel transitions (paper 1, section 2.3).

The loss is on the answer only. It has two parts: the answer's tokens over the whole vocabulary, which teach the
model to speak the names (the paper's loss), and the choice among legal names in every context of the step, which
needs no more than the tokens where the trie branches. The paper's own recipe is
`attention = "causal"`, `curation = "diversified"`, `recipe = "paper"`.
"""

import json
import time
from dataclasses import astuple, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from byway.base import config, known_models, models, precision
from byway.base.artifact import Gate, Outcome, Work
from byway.base.parallel import rank, together
from byway.interests.describe import Descriptions
from byway.language import adapters, gain, head, offset, prompts
from byway.language.fast.bulk import first
from byway.language.fast.generate import (
    Attention,
    Policy,
    decode_freely,
    extend,
    logits,
    make_policy,
    prefill,
    read_grid,
)
from byway.language.fast.readable import require_readable
from byway.language.lesson import Batch, Examples, contextual, draw
from byway.language.training import MATCH_GATE, Optimiser, Progress, rate
from byway.language.trie import first_choice
from byway.transitions.curate import Ints, Samples, Transitions, pick, spread_out
from byway.transitions.signals import Scorer

WARMUP = 20
"""Steps over which the learning rate climbs."""
RECIPES = {"names": (1.0, 5.0), "paper": (0.0, 1.0)}
"""By recipe, the weight of the choice among legal names beside the loss on the answer's tokens, and that of an
answer's tokens after the first: they spell a name that is chosen."""
EVALUATE_ON = 1000
"""Prompts an evaluation, of the fine-tuning samples and of validation: of 200 recall has a standard error of 0.02.
A run too short to be judged is looked at with as many as it has steps."""
EVALUATE_EVERY = 100
"""Steps between evaluations of match rate and recall, which take as long as several steps each. A shorter run is
evaluated once on its way."""
CHECKPOINT_EVERY = 25
"""Steps between checkpoints from which an interrupted run goes on."""


def loss(policy: Policy, batch: Batch, choice_weight: float, further_weight: float = 1.0) -> tuple[Tensor, Tensor]:
    """The two parts of the loss: the named answers' tokens, and the choice among legal names (in nats).

    Tokens after an answer's first weigh `further_weight`: they spell the name, where the first chooses it.
    """
    branching = batch.branching if choice_weight else Examples(*(array[:0] for array in astuple(batch.branching)))
    # One pass reads on: whole answers of the named, and of the branching the path to their last branching node.
    answers = [policy.prompt.answers[c] for c in batch.named.label]
    paths = [policy.trie.nodes[policy.trie.steps[c][-1][0]].path for c in branching.label]
    rows = np.concatenate([batch.named.row, branching.row])
    at_cue_NH, hidden_nTH = _hidden_states(policy, batch, rows, [answer[:-1] for answer in answers] + paths)
    named = _token_loss(policy, answers, hidden_nTH[: len(answers)], further_weight)
    if not choice_weight:
        return named, torch.zeros((), device=policy.device)
    choice = later_nats(policy, branching, hidden_nTH[len(answers) :], batch.offset)
    if policy.trie.at_cue:
        choice = first_nats(policy, at_cue_NH, batch.target, batch.offset).sum() + choice
    return named, choice


def _hidden_states(
    policy: Policy, batch: Batch, rows_n: NDArray[np.int64], tokens: list[list[int]]
) -> tuple[Tensor, Tensor]:
    """Hidden states at the cue of every prompt [N, H], and of the prompts `rows_n` at the cue and at each of the
    tokens after it [n, 1 + T, H]: the first token of an answer follows from the cue's, each next from the one
    before."""
    ids, valid = policy.pad(tokens)
    which = policy.take(rows_n)
    if batch.grid is None:
        prefilled = prefill(policy, batch.context)
        at_cue_NH, (after_nTH, _) = prefilled.hidden_NH, extend(policy, prefilled, which, ids, valid)
    else:
        at_cue_NH, after_nTH = read_grid(policy, batch.grid, batch.grid, which, ids, valid)
    return at_cue_NH, torch.cat([at_cue_NH.index_select(0, which)[:, None], after_nTH], dim=1)


def _token_loss(policy: Policy, answers: list[list[int]], hidden_nTH: Tensor, further_weight: float) -> Tensor:
    """Mean cross-entropy of the answers' tokens over the whole vocabulary; `hidden_nTH[:, t]` is before token t."""
    targets, valid = policy.pad(answers)
    scores = logits(policy, hidden_nTH[:, : targets.shape[1]][valid])
    by_token = torch.nn.functional.cross_entropy(scores, targets[valid], reduction="none")
    further = valid.nonzero()[:, 1] > 0
    return torch.where(further, further_weight * by_token, by_token).mean()


def first_nats(
    policy: Policy,
    at_cue_NH: Tensor,
    target_NM: NDArray[np.float32],
    offset_NM: NDArray[np.float32] | None = None,
) -> Tensor:
    """[N] cross-entropy of how an answer begins, taught by a target over names.

    The choice is among all tokens, not the legal ones alone: what speaks freely must begin with a name. Beside an
    offset it is among the legal ones.
    """
    target = policy.take(first_choice(policy.trie, target_NM))
    if offset_NM is not None:
        log_p = _branch_log_p(policy, 0, at_cue_NH, offset_NM).masked_fill(target == 0, 0)
    else:
        scores = logits(policy, at_cue_NH, policy.trie.nodes[0].tokens)
        log_p = scores - logits(policy, at_cue_NH).logsumexp(-1, keepdim=True)
    return -(target * log_p).sum(1)


def _branch_log_p(policy: Policy, node: int, hidden_nH: Tensor, offset_nM: NDArray[np.float32] | None) -> Tensor:
    """[n, options] log-probability of each way on at a branching node: exp(score) · the offset's share below it."""
    scores = logits(policy, hidden_nH, policy.trie.nodes[node].tokens)
    if offset_nM is not None:
        scores = scores + policy.take(offset.mass(offset_nM, policy.trie.nodes[node].members))
    return scores.log_softmax(-1)


def later_nats(
    policy: Policy, branching: Examples, hidden_nTH: Tensor, offset_NM: NDArray[np.float32] | None = None
) -> Tensor:
    """Weighed cross-entropy of the choices at the branching nodes after the cue; `hidden_nTH[:, t]` stands after t
    tokens of an answer."""
    by_node: dict[int, list[tuple[int, int]]] = {}
    for i, c in enumerate(branching.label):
        for node, option in policy.trie.steps[c][policy.trie.at_cue :]:
            by_node.setdefault(node, []).append((i, option))
    device = policy.device
    total = torch.zeros((), device=device)
    for node, members in by_node.items():
        examples, options = zip(*members, strict=True)
        rows, option = torch.tensor(examples, device=device), torch.tensor(options, device=device)
        offset_nM = None if offset_NM is None else offset_NM[branching.row[list(examples)]]
        log_p = _branch_log_p(policy, node, hidden_nTH[rows, len(policy.trie.nodes[node].path)], offset_nM)
        chosen = log_p[torch.arange(len(members), device=device), option]
        total = total - (policy.take(branching.weight)[rows] * chosen).sum()
    return total


@dataclass(frozen=True, slots=True)
class Tuned:
    """07-language-model as read back."""

    path: Path
    base: str
    """Name of the model before fine-tuning."""
    attention: Attention
    ending: prompts.Ending
    curve: list[dict[str, Any]]


def load(path: Path) -> Tuned:
    """Read 07-language-model: the folder is itself a model that transformers can load."""
    curve = [json.loads(line) for line in (path / "curve.jsonl").read_text("utf-8").splitlines()]
    made = json.loads((path / "policy.json").read_text("utf-8"))
    return Tuned(path, made["model"], made["attention"], prompts.Ending(*made["ending"]), curve)


def build(
    work: Work,
    settings: config.LanguageModel,
    transitions: Transitions,
    descriptions: Descriptions,
    similarity_MM: NDArray[np.float64],
    *,
    arithmetic: str,
    processes: int = 1,
) -> Outcome:
    """Fine-tune, looking at match rate and recall as it goes; keep the best checkpoint by validation recall.

    `arithmetic` is what `base.precision` names: "auto" is what multiplies fastest here.
    """
    names = descriptions.names[transitions.level - 1]
    # With the default settings every name is named 32 times, and its block read 24 times a slot; or more often
    # where there are fewer than 50.
    settings = replace(settings, steps=settings.steps or max(100, 2 * len(names)))
    arithmetic = precision.resolved(arithmetic)
    started = time.perf_counter()
    evidence = Scorer.from_log(transitions)
    untuned: dict[str, float] = {}
    if settings.target == "transitions":
        evidence = offset.fitted_by_likelihood(
            Scorer.from_log(transitions, similarity_MM), transitions.validation, work.rng.spawn(1)[0]
        )
        untuned = gain.untuned(settings, arithmetic, names, transitions, evidence, work.rng.spawn(1)[0])
    elif transitions.whole_log and settings.target == "evidence":
        evidence = Scorer.from_log(transitions, similarity_MM).fitted_by_ndcg(transitions.validation, work.rng)
        evidence = contextual(evidence, transitions.train.context.shape[1], len(names))
    model, tokenizer, progress = together(
        processes, _fine_tune, work, settings, arithmetic, transitions, evidence, names
    )
    _save(model, tokenizer, work.out, settings, progress.curve)
    best = progress.best
    return Outcome(
        counts={"steps": settings.steps, "weights": sum(p.numel() for p in progress.optimiser.weights)},
        metrics={
            "language.curve": progress.curve,
            "language.best_step": best["step"],
            "language.precision": arithmetic,
            "language.taught_weights": evidence.all_weights(),
            **({"language.untuned_correlation": untuned} if untuned else {}),
            **{
                f"language.{name}": best[f"{name}.validation"]
                for name in gain.FIGURES
                if f"{name}.validation" in best
            },
        },
        gates={"match_rate": Gate(value=best["match_rate"], at_least=MATCH_GATE)},
        timings={"tuning": time.perf_counter() - started},
    )


def _fine_tune(
    work: Work,
    settings: config.LanguageModel,
    arithmetic: str,
    transitions: Transitions,
    evidence: Scorer,
    names: list[str],
) -> tuple[Any, Any, Progress]:
    """The best model, its tokenizer and how it came to be; one of the processes that train together."""
    settings = config.with_own(settings)
    tokenizer = models.load_tokenizer(settings.model)
    model = models.load(settings.model, precision.dtype(arithmetic))
    require_readable(model)
    if settings.method == "lora":
        model = adapters.adapt(model, work.rng)
    freeze(model, frozen(settings))
    ending = prompts.ENDINGS[settings.attention]
    prompt = prompts.tokenise(names, transitions.samples.context.shape[1], tokenizer, ending)
    policy = make_policy(model, prompt, settings.attention)
    head.learn(model, prompt.answers)
    seed = int(work.rng.integers(2**31))
    prompts_n = EVALUATE_ON if settings.steps >= EVALUATE_EVERY else settings.steps
    evaluated_on = {
        "train": pick(transitions.samples, prompts_n, work.rng),
        "validation": pick(transitions.validation.several(), prompts_n, work.rng),
    }
    branching = policy.trie.goes_on()
    choice_weight, further_weight = RECIPES[settings.recipe]
    optimiser = Optimiser(model)
    progress, number = Progress(work.scratch, optimiser), rank()

    def learn(step: int) -> None:
        draws = np.random.default_rng([seed, step, number] if number else [seed, step])
        batch = draw(transitions, evidence, branching, settings, draws)
        named, choice = loss(policy, batch, choice_weight, further_weight)
        (named + choice_weight * choice).backward()
        optimiser.step(rate(step, settings.steps, settings.learning_rate, WARMUP))

    def look() -> dict[str, float]:
        figures = evaluate(policy, names, tokenizer, evaluated_on)
        if settings.target == "transitions":
            several, draws = transitions.validation.several(), np.random.default_rng(seed)
            figures |= gain.over(policy, evidence, several, prompts_n, draws)
        return figures

    # Nats fall where a model learns its log by heart: the best of them is kept, not the latest.
    by, error = ("gain_nats", 0.0) if settings.target == "transitions" else ("recall_at_10", None)
    keep = partial(progress.keep_best, "match_rate", f"{by}.validation", prompts_n, error)
    progress.run(
        settings.steps,
        learn,
        look,
        keep,
        label="fine-tuning",
        evaluate_every=EVALUATE_EVERY,
        save_every=CHECKPOINT_EVERY,
    )
    return model, tokenizer, progress


@torch.no_grad()
def evaluate(policy: Policy, names: list[str], tokenizer: Any, samples: dict[str, Samples]) -> dict[str, float]:
    """Match rate and distinct outputs of free greedy answers, recall under the trie.

    Match rate: share of unconstrained greedy outputs that are exactly some cluster's description (paper 1, section
    2.3). Recall: share whose label is among the first 1 or 10 legal names.
    """
    figures: dict[str, float] = {}
    legal = set(names)
    outputs: list[str] = []
    for part, some in samples.items():
        if not len(some):
            continue
        hit = first(policy, some.context, 10) == some.label[:, None]
        figures |= {f"recall_at_{k}.{part}": round(float(hit[:, :k].any(axis=1).mean()), 4) for k in (1, 10)}
        longest = max(map(len, policy.prompt.answers)) + 2
        outputs += spoken_answers(policy, spread_out(np.unique(some.context, axis=0), 100), tokenizer, longest)
    figures["match_rate"] = round(float(np.mean([output in legal for output in outputs])), 4)
    figures["distinct_outputs"] = len(set(outputs))
    return figures


def spoken_answers(policy: Policy, context_NK: Ints, tokenizer: Any, longest: int) -> list[str]:
    """What the model says freely to each context, as text."""
    answers = decode_freely(policy, context_NK, longest)
    # Only a finished answer is an answer: without the end token the last one stands for a run-on.
    return [
        tokenizer.decode(a[:-1]).strip() if a[-1] == policy.prompt.end else tokenizer.decode(a) + " …"
        for a in answers
    ]


def frozen(settings: config.LanguageModel) -> float:
    """Share of the layers, from the bottom, that stay as they are: with half of them a step costs a third less."""
    return 0.0 if settings.recipe == "paper" else known_models.record(settings.model).frozen


def freeze(model: Any, share: float) -> None:
    """Leave this share of the model's layers, from the bottom, as it is: no gradient goes down to them.

    A step then costs their forward products alone. Words are read there; what follows from them is said above.
    """
    layers = max((m for m in model.modules() if isinstance(m, torch.nn.ModuleList)), key=len)
    for layer in layers[: round(share * len(layers))]:
        layer.requires_grad_(False)


def _save(
    model: Any, tokenizer: Any, out: Path, settings: config.LanguageModel, curve: list[dict[str, Any]]
) -> None:
    """Write the model (adapters merged, the output layer whole), the tokenizer and the curve."""
    model.cpu()  # what is merged there has the same bytes whatever trained it
    head.settle(model)
    model.save_pretrained(out, state_dict=adapters.merged(model))
    tokenizer.save_pretrained(out)
    made = {"model": settings.model, "attention": settings.attention, "ending": prompts.ENDINGS[settings.attention]}
    (out / "policy.json").write_text(json.dumps(made) + "\n", "utf-8")
    (out / "curve.jsonl").write_text("".join(json.dumps(point) + "\n" for point in curve), "utf-8")
