"""08-transition-table: the answer for every ordered pair of clusters, computed in bulk (paper 1, section 2.2).

The table is a posterior: the language model is the prior, the log's counts and how alike the clusters' items are
make the evidence, and how much each weighs is fitted on validation transitions. The model's own ranking is kept
beside it. One that was asked elsewhere is a signal like the others; one that runs here is read in bulk (`fast`).
"""

import io
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from byway.base import engine, models, precision
from byway.base.artifact import Outcome, Work, alone, write_atomic
from byway.base.errors import UserError
from byway.base.progress import bar
from byway.interests.describe import Descriptions
from byway.language import prompts
from byway.language.fast import bulk, half
from byway.language.fast.bulk import TILE
from byway.language.fast.choices import TOGETHER
from byway.language.fast.generate import Policy, make_policy
from byway.language.tune import Tuned
from byway.transitions import signals
from byway.transitions.counts import Successors
from byway.transitions.curate import Ints, Samples, Transitions, added
from byway.transitions.signals import Ranked, Scorer, TableWeights
from byway.transitions.table import triples_of
from byway.transitions.triples import MOST, key, row_of

TOP = 20
"""Clusters kept a pair, best first: those that somebody met are passed over, and the next is theirs."""
TRIPLES = 1_000_000
"""The most frequent triples of the log that get a ranking of their own; a million take 80 MB of a bundle."""
MODEL_TOP = 10
"""Clusters kept of the model's own ranking, for figures; each further one has to be read to its end."""
ROUNDING = 256
"""Pairs on which it is measured how far an arithmetic other than float32 moves the model's two best answers against
each other. Near ties are asked again in float32, so many that about one first answer in a thousand may be another;
0: none."""
ROWS_PER_CHUNK = 8
"""Rows of the table computed between two commits of progress; the rows come out the same whatever it is."""

Part = range | Ints
"""Rows of the table, which are answered together, or contexts [N, K]."""
Answerer = Callable[[Part], NDArray[Any]]
"""From a part to its answers as `bulk.layout` has them: [rows, M] or [N]."""


@dataclass(frozen=True, slots=True)
class Given:
    """What a table is made of."""

    transitions: Transitions
    descriptions: Descriptions
    model: Tuned | Ranked
    similarity_MM: NDArray[np.float64]
    """Cosines of the clusters' centroids."""
    arithmetic: str
    """As `half.resolved` takes it."""

    @property
    def history(self) -> int:
        """K."""
        return self.transitions.train.context.shape[1]


def open_policy(tuned: Tuned, transitions: Transitions, descriptions: Descriptions, arithmetic: str) -> Policy:
    """The fine-tuned language policy, ready to be asked in an arithmetic that `half.resolved` knows."""
    names = descriptions.names[transitions.level - 1]
    history = transitions.train.context.shape[1]
    prompt = prompts.tokenise(names, history, models.load_tokenizer(str(tuned.path)), tuned.ending)
    arithmetic = half.resolved(arithmetic)
    model = models.load(str(tuned.path), precision.dtype(arithmetic))
    return make_policy(half.put(model) if arithmetic == "float16" else model, prompt, tuned.attention)


def build(work: Work, given: Given) -> Outcome:
    """Fill the table, a few rows at a time; a row that is there is not computed again.

    Where K is 3 a pair (C1, C2) is asked for as (C1, C1, C2), as the log has it for a user with two interests.
    """
    started = time.perf_counter()
    fitted = fill(work, given)
    transitions, M = given.transitions, given.transitions.clusters
    pairs, keys = _filled(work, "rows"), triples_of(transitions, TRIPLES)
    arrays = {"clusters": pairs["cluster"], "scores": pairs["score"], "model": pairs["model"]}
    triples = None
    if keys is not None:
        triples = _filled(work, "triples")
        arrays["triple_keys"] = key(keys, M)
        arrays |= {"triple_clusters": triples["cluster"], "triple_model": triples["model"]}
    for name, array in arrays.items():
        np.save(work.out / f"{name}.npy", array)
    (work.out / "fitted.json").write_bytes(msgspec.json.format(msgspec.json.encode(fitted), indent=2))
    first, every = pairs["cluster"][:, :, 0], np.arange(M)
    legal = (first >= 0) & (first < M) & (first != every[:, None]) & (first != every)
    seconds = sum(json.loads(p.read_text("utf-8")) for p in work.scratch.glob("rows-*.seconds"))
    return Outcome(
        counts={"pairs": M * M, "triples": 0 if keys is None else len(keys)},
        metrics={
            "table.entries": M * M,
            "table.legal": round(float(legal.mean()), 6),
            "table.distinct": len(np.unique(first)),
            "table.weights": fitted.weights,
            "table.precision": fitted.precision,
            "table.near": round(fitted.near, 4),
            "table.seconds": round(time.perf_counter() - started, 1),
            # Of one process, also where several shards or a run that was cut have filled the rows.
            "table.pairs_per_second": round(M * M / max(seconds, 1e-9), 1),
        },
    )


def _filled(work: Work, what: str) -> NDArray[Any]:
    """What all shards have answered, in order."""
    return np.concatenate([np.load(path) for path in sorted(work.scratch.glob(f"{what}-*.npy"))])


def fill(work: Work, given: Given, shard: tuple[int, int] = (1, 1)) -> TableWeights:
    """Compute into scratch the rows of shard i of n that are not there yet; returns how the table was weighed.

    Shards take chunks of rows in turn. They share nothing but the scratch directory, so that they may run at the
    same time, on one machine or on several; the rows are the same bytes however many there are (`TILE`).
    """
    transitions, model = given.transitions, given.model
    if given.history not in (2, 3) or transitions.clusters > MOST:
        raise UserError(
            "The table answers pairs and triples: set transitions.history to 2 or 3, or stop with "
            "--until language_model."
        )
    parts = _parts(work.scratch, transitions, shard)
    left = {path: part for path, part in parts.items() if not path.exists()}
    scorer = Scorer.from_log(transitions, given.similarity_MM, model if isinstance(model, Ranked) else None)
    known = work.scratch / "fitted.json"
    # How rows are weighed and computed is decided once for all shards, however many begin at the same time.
    with alone(work.scratch / ".fitting", "Another shard weighs model and log for all; waiting for it …"):
        if not known.exists():
            write_atomic(known, msgspec.json.encode(_fitted(work, given, scorer)))
    fitted = msgspec.json.decode(known.read_bytes(), type=TableWeights)
    if not left:
        return fitted
    scorer = scorer.weighed(**fitted.weights)
    if isinstance(model, Ranked):
        opened = partial(_ranked_answerer, model, scorer, given.history)
    else:
        opened = partial(_policy_answerer, model, given, scorer, fitted)
    paths = list(left)
    done = _size(parts.values()) - _size(left.values())
    with bar("transition table", _size(parts.values()), done) as advance:
        for i, (answers, seconds) in engine.spread(partial(_timed, opened), list(left.values())):
            paths[i].with_suffix(".seconds").write_text(f"{seconds:.3f}", "utf-8")
            write_atomic(paths[i], _bytes(answers))
            advance(_size([left[paths[i]]]))
    return fitted


def _parts(scratch: Path, transitions: Transitions, shard: tuple[int, int]) -> dict[Path, Part]:
    """What a shard has to answer, by the file that keeps it: chunks of rows, and of triples where K is 3."""
    M, (number, shards) = transitions.clusters, shard
    size = -(-ROWS_PER_CHUNK // TILE) * TILE
    rows = [range(start, min(start + size, M)) for start in range(0, M, size)][number - 1 :: shards]
    parts: dict[Path, Part] = {scratch / f"rows-{part.start:06d}.npy": part for part in rows}
    triples = triples_of(transitions, TRIPLES)
    if triples is not None:
        for start in range(0, max(1, len(triples)), TOGETHER)[number - 1 :: shards]:
            parts[scratch / f"triples-{start:09d}.npy"] = triples[start : start + TOGETHER]
    return parts


def _size(parts: Iterable[Part]) -> int:
    """Steps of the progress bar: one a row of the table, one for some triples together."""
    return sum(len(part) if isinstance(part, range) else 1 for part in parts)


def _fitted(work: Work, given: Given, scorer: Scorer) -> TableWeights:
    """How model and log are weighed, in which arithmetic, and how near a tie is one."""
    validation = given.transitions.validation
    if isinstance(given.model, Ranked):
        return TableWeights(scorer.fitted_by_ndcg(validation, work.rng).all_weights())
    arithmetic = half.resolved(given.arithmetic)
    opened = partial(open_policy, given.model, given.transitions, given.descriptions)
    policy = opened(arithmetic)
    scorer, weight = bulk.fit(policy, validation, scorer, work.rng)
    near = 0.0
    if ROUNDING and arithmetic != "float32":
        near = bulk.rounding(policy, opened("float32"), ROUNDING, work.rng)
    return TableWeights({**scorer.all_weights(), "language_model": weight}, near, arithmetic)


def follow(
    transitions: Transitions,
    since: Samples,
    similarity_MM: NDArray[np.float64],
    fitted: TableWeights,
    top: int,
    ask: Callable[[], Policy],
    *,
    triples: Ints | None = None,
    said: signals.Signal | None = None,
) -> tuple[Ints, Ints]:
    """The contexts whose most frequent successor is another one since new transitions came, and their new rankings.

    Contexts are all pairs, and the `triples` [T, 3] of a table that has some.
    Between two fine-tunings arXiv 2510.20260 asks again about the pairs in which the most frequent recent successor
    has changed, and puts it into the prompt. Here the log's counts have a part of their own in every ranking: they
    are extended by what came and weighed as before, and the model, opened by `ask`, is asked again where it has
    any weight; `said` is what one that was asked elsewhere said. Returns contexts [N, K] and clusters [N, top].
    """
    M, K = transitions.clusters, transitions.train.context.shape[1]
    top = min(top, M)
    known = added(added(transitions.train, transitions.validation), transitions.heldout)
    weighed = Successors.of(transitions)
    before, now = (weighed.counting(samples) for samples in (known, added(known, since)))
    parts = [row_of(c1, M, K) for c1 in range(M)]
    if triples is not None:
        parts += _in_parts(triples)
    changed = [part[_most_frequent(before, part) != _most_frequent(now, part)] for part in parts]
    contexts = np.concatenate(changed)
    scorer = Scorer.from_counts(now, similarity_MM, said).weighed(**fitted.weights)
    policy = ask() if said is None and fitted.model and len(contexts) else None
    rankings = [np.zeros((0, top), np.int32)]
    for part in _in_parts(contexts):
        if policy is None:
            rankings.append(bulk.by_evidence(part, scorer, M, top)[0])
        else:
            rankings.append(bulk.answer_some(policy, part, scorer, fitted.model, top, 1)["cluster"])
    return contexts, np.concatenate(rankings)


def _in_parts(contexts_NK: Ints) -> list[Ints]:
    return [contexts_NK[start : start + TOGETHER] for start in range(0, len(contexts_NK), TOGETHER)]


def _most_frequent(successors: Successors, context_NK: Ints) -> NDArray[np.intp]:
    """[N] the most frequent successor of each context, outside of it."""
    return successors.probability_outside(context_NK).argmax(axis=1)


def _policy_answerer(tuned: Tuned, given: Given, scorer: Scorer, fitted: TableWeights) -> Answerer:
    """What answers with a model that runs here."""
    # What is fastest may differ between the machines that share the rows; the first has decided for all.
    opened = partial(open_policy, tuned, given.transitions, given.descriptions)
    policy = opened(fitted.precision)
    recheck = bulk.rechecker(opened("float32"), fitted.near) if fitted.near else None
    answer_rows = bulk.row_answerer(policy, scorer, fitted.model, TOP, MODEL_TOP, recheck)

    def answer(part: Part) -> NDArray[Any]:
        if isinstance(part, range):
            return answer_rows(part)
        return bulk.answer_some(policy, part, scorer, fitted.model, TOP, MODEL_TOP, recheck=recheck)

    return answer


def _ranked_answerer(said: Ranked, scorer: Scorer, K: int) -> Answerer:
    """The same of a model whose answers are there already: all is evidence."""
    M = len(said.ranking_MMn)
    n = min(TOP, M)
    m = min(n, MODEL_TOP)

    def answer(part: Part) -> NDArray[Any]:
        context = np.concatenate([row_of(c, M, K) for c in part]) if isinstance(part, range) else part
        answers = np.empty(len(context), bulk.layout(n, m))
        answers["cluster"], answers["score"] = bulk.by_evidence(context, scorer, M, n)
        model = said.ranking_MMn[context[:, -2], context[:, -1], :m]
        answers["model"] = np.pad(model, ((0, 0), (0, m - model.shape[1])), constant_values=-1)
        return answers.reshape(len(part), M) if isinstance(part, range) else answers

    return answer


def _timed(opened: Callable[[], Answerer]) -> Callable[[Part], tuple[NDArray[Any], float]]:
    """What answers, and says in how many seconds."""
    answer = opened()

    def timed(part: Part) -> tuple[NDArray[Any], float]:
        began = time.perf_counter()
        return answer(part), time.perf_counter() - began

    return timed


def _bytes(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()
