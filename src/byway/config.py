"""Every knob, on one page.

A section is named after the artifact that it shapes. A value comes from the default here, then from the
workspace's `byway.toml`, then from `--set section.knob=value`. `docs/knobs.md` is generated from this file.
"""

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

import msgspec

from byway.errors import UserError

Source = Literal["parquet", "csv", "movielens", "microlens", "kuairec", "kuairand"]


@dataclass(frozen=True, slots=True)
class Run:
    """What holds for every stage."""

    seed: int = 0
    """Every random draw derives from this number and the stage's name."""
    threads: int = 0
    """Threads for arithmetic; 0 takes every core. Another number adds in another order: last digits can differ."""
    engine: Literal["native", "ray"] = "native"
    """Who runs the dataframes: this machine, or a Ray cluster."""


@dataclass(frozen=True, slots=True)
class Catalog:
    """01-catalog: where items and events come from."""

    source: Source = "parquet"
    """Layout of the input."""
    items: str = ""
    """File of items, or the folder of a public data set. Relative paths start at the workspace."""
    events: str = ""
    """File of events; empty where the layout finds it in the folder of items."""
    item_columns: dict[str, str] = field(default_factory=dict)
    """For parquet and CSV: our column name to yours, for example {item = "video_id"}."""
    event_columns: dict[str, str] = field(default_factory=dict)
    """For parquet and CSV: our column name to yours, for example {satisfaction = "watch_ratio"}."""
    positive: float = 0.5
    """An event with at least this satisfaction counts as a high-quality interaction."""
    max_title: int = 512
    """Characters of a title that are kept; a title beyond 100 times this is quarantined."""


@dataclass(frozen=True, slots=True)
class Embeddings:
    """02-embeddings: one unit vector an item (paper 1, section 2.1)."""

    model: str = "minilm"
    """`minilm` is the encoder that installs with Byway; any sentence-transformers name works."""
    dim: int = 256
    """Dimensions after the projection."""
    batch: int = 64
    """Texts encoded at once."""
    max_tokens: int = 64
    """Tokens of an item's text that are read."""


@dataclass(frozen=True, slots=True)
class Graph:
    """03-graph: who is similar to whom."""

    neighbours: int = 20
    """Nearest neighbours of an item before the graph is made symmetric."""
    exact_up_to: int = 200_000
    """Beyond this many items the search is approximate (inverted lists)."""


@dataclass(frozen=True, slots=True)
class Tree:
    """04-tree: four levels of traffic-balanced interest clusters (paper 1, section 2.1)."""

    levels: tuple[int, ...] = ()
    """Clusters a level, broadest first; empty derives four sizes from the catalog.
    Paper 1 plans over 761 clusters at level 2."""
    items_per_cluster: int = 64
    """Mean size of a level-2 cluster where `levels` is empty; at most 761 clusters are made."""
    traffic_share: float = 0.8
    """λ: how much of the balanced weight is (capped) traffic; the rest is one share an item."""
    traffic_cap: float = 0.25
    """α at level 2: an item's traffic counts up to this part of a cluster's fair share."""
    tolerance: float = 1.05
    """Heaviest over mean cluster, in blended weight, that the repair pass aims at."""


@dataclass(frozen=True, slots=True)
class Descriptions:
    """05-descriptions: each cluster in a few words of its own items (paper 1, section 2.1)."""

    words: int = 4
    """Keywords a description."""
    max_document_share: float = 0.5
    """A word in more than this share of the catalog's items says nothing."""
    drop: tuple[str, ...] = ()
    """Words that say nothing on this platform: its name, its campaigns."""


@dataclass(frozen=True, slots=True)
class Transitions:
    """06-transitions: what people turned to next that was new to them (paper 1, section 2.3)."""

    level: int = 2
    """Level of the tree at which the policy plans."""
    history: int = 2
    """K: most recent unique clusters that form the prompt."""
    heldout: float = 0.2
    """Last share of the transitions, in time, that training never sees."""
    validation: float = 0.1
    """Last share of the rest that chooses the checkpoint and fits weights; it is not trained on either."""
    curation: Literal["diversified", "random", "log"] = "log"
    """diversified: the most frequent pairs of each label, the same number a label (paper 1);
    random: as many samples drawn from the log; log: every pair with its counts."""
    per_label: int = 10
    """Pairs kept a label under diversified curation."""


@dataclass(frozen=True, slots=True)
class LanguageModel:
    """07-language-model: the fine-tuned language policy (paper 1, section 2.3)."""

    model: str = "smollm2-135m"
    """`smollm2-135m` installs with Byway; a folder or any causal model of the hub works."""
    method: Literal["full", "lora"] = "full"
    """Train every weight, or low-rank adapters."""
    lora_rank: int = 16
    """Rank of the adapters."""
    attention: Literal["block", "causal"] = "block"
    """causal: a prompt is read from left to right. block: each description is read by itself and the answer
    looks at the ready blocks, so that a pair costs a few tokens."""
    steps: int = 500
    """Optimiser steps."""
    batch: int = 16
    """Samples a step under causal attention (paper 1: 16)."""
    choice_weight: float = 1.0
    """Weight of the choice among legal names beside the loss on the answer's tokens; 0 is the paper's recipe."""
    balance: float = 1.0
    """How much of the labels' popularity is left out of what the model learns: 0 nothing, 1 all of it."""
    sharpness: float = 4.0
    """With the whole log: the power to which what is special about a context is raised before it is learned."""
    spoken: int = 16
    """Samples a step whose whole answer is learned (under causal attention all of the batch: 16)."""
    block_clusters: int = 8
    """Under block attention a step draws this many clusters a slot and trains on every pair among them."""
    learning_rate: float = 5e-4
    """Peak of the schedule: linear warm-up, then linear decay."""
    warmup: int = 20
    """Steps of warm-up."""
    weight_decay: float = 0.01
    """Decoupled weight decay."""
    precision: Literal["bfloat16", "float32"] = "bfloat16"
    """Arithmetic of the matrix products; weights and optimiser stay in float32."""
    match_gate: float = 0.9
    """Match rate that a checkpoint needs before its recall counts."""
    evaluate_every: int = 100
    """Steps between looks at match rate and recall."""
    checkpoint_every: int = 25
    """Steps between checkpoints from which an interrupted run goes on."""
    evaluate_on: int = 200
    """Prompts a look."""


@dataclass(frozen=True, slots=True)
class TransitionTable:
    """08-transition-table: the answer for every ordered pair of clusters (paper 1, section 2.2)."""

    top: int = 20
    """Clusters kept a pair, best first."""
    rows_per_chunk: int = 8
    """Rows of the table computed between two commits of the progress file."""
    precision: Literal["bfloat16", "float32"] = "bfloat16"
    """Arithmetic of the matrix products."""


@dataclass(frozen=True, slots=True)
class ItemPolicy:
    """12-item-policy: the sequence model that finds items inside a cluster (paper 1, section 2.2)."""

    dim: int = 64
    """Width of the model and of the item vectors."""
    layers: int = 2
    """Transformer blocks."""
    heads: int = 2
    """Attention heads a block."""
    history: int = 50
    """Most recent items that are read."""
    epochs: int = 8
    """Passes over the training sequences."""
    batch: int = 2048
    """Labels a step, about."""
    learning_rate: float = 1e-3
    """Peak of the schedule."""
    dropout: float = 0.2
    """Share of activations dropped in training."""
    negatives: int = 1024
    """Items drawn for the softmax's denominator a step, beside the step's labels; 0 takes the whole catalog."""
    top_k: int = 0
    """K of the top-K off-policy correction (reference [8]: 16); 0 trains without it."""
    weight_cap: float = 20.0855
    """Importance weights are capped at e³ (reference [8])."""
    heldout: float = 0.1
    """Share of users of whom the last high-quality event is held out."""
    checkpoint_every: int = 200
    """Steps between checkpoints from which an interrupted run goes on."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """13-bundle: how a request is answered (paper 1, section 2.2)."""

    days: int = 30
    """Days of history from which interests are drawn, where the log has a clock."""
    interests: int = 2
    """K: items drawn from the history; their clusters are looked up. 1 plans from a single interest."""
    history: int = 50
    """Most recent items that the item policy is given, where its ONNX file takes any number of them."""
    items: int = 10
    """Items in an answer where the request does not say."""
    min_eligible: int = 1
    """A cluster with fewer unseen items than this is passed over for the next in the ranking."""


@dataclass(frozen=True, slots=True)
class Metrics:
    """14-metrics: offline figures."""

    prompts: int = 500
    """Prompts on which unconstrained decoding is measured."""


@dataclass(frozen=True, slots=True)
class Experiment:
    """15-experiment: simulated live experiments, or a replay of real feedback (paper 1, section 3)."""

    arms: tuple[str, ...] = ()
    """Arms beside the control, by name; empty runs all of them."""
    seeds: int = 1
    """Runs with other segments and other chance; their users are pooled."""
    users: int = 800
    """Users a segment: every arm has as many, and no account is in two."""
    days: int = 30
    """Days lived; 180 shows long-term effects."""
    share: float = 0.2
    """Part of the feed's places that is kept for the arm's source; for the others it competes."""
    candidates: int = 20
    """Items that each source names a visit."""
    blur: float = 0.05
    """Deviation of the noise on the ranker's score of satisfaction."""
    retrain_every: int = 10
    """Days between trainings of the arms' neural models on the log they caused; bandits, control and ranker
    learn every night, and the table stays. 0 trains once, before the first day."""
    epochs: int = 4
    """Passes over the log before the first day, for every neural model alike."""
    list_length: int = 10
    """In a replay: items that each user is shown a day."""
    bootstrap: int = 500
    """Draws of users for an interval."""
    aa_seeds: int = 20
    """Pairs of identical arms that are compared."""
    chance: bool = True
    """In a simulated world: run table and placebo also where undiscovered liking is pure chance."""
    truth: str = ""
    """Folder of the embedded world's `truth/`, or of KuaiRec's matrix; empty looks beside the tables of items."""


@dataclass(frozen=True, slots=True)
class Report:
    """16-report: one page."""

    title: str = "What the experiment shows"
    """Heading of the page."""


@dataclass(frozen=True, slots=True)
class Config:
    """All sections; one attribute an artifact."""

    run: Run = field(default_factory=Run)
    catalog: Catalog = field(default_factory=Catalog)
    embeddings: Embeddings = field(default_factory=Embeddings)
    graph: Graph = field(default_factory=Graph)
    tree: Tree = field(default_factory=Tree)
    descriptions: Descriptions = field(default_factory=Descriptions)
    transitions: Transitions = field(default_factory=Transitions)
    language_model: LanguageModel = field(default_factory=LanguageModel)
    transition_table: TransitionTable = field(default_factory=TransitionTable)
    item_policy: ItemPolicy = field(default_factory=ItemPolicy)
    bundle: Bundle = field(default_factory=Bundle)
    metrics: Metrics = field(default_factory=Metrics)
    experiment: Experiment = field(default_factory=Experiment)
    report: Report = field(default_factory=Report)


def load(path: Path, overrides: Iterable[str] = ()) -> Config:
    """Read the defaults, then the TOML at `path`, then `section.knob=value` overrides.

    Raises UserError with the section and the knob for anything that is not a knob or not of its type, and for
    a negative or infinite number, which no knob takes.
    """
    try:
        tables: dict[str, Any] = tomllib.loads(path.read_text("utf-8")) if path.exists() else {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid TOML: {error}.") from error
    for text in overrides:
        name, equals, value = text.partition("=")
        section, dot, knob = name.strip().partition(".")
        if not equals or not dot:
            raise UserError(f"--set {text}: write section.knob=value, for example tree.items_per_cluster=100.")
        table = tables.setdefault(section, {})
        if isinstance(table, dict):
            table[knob] = _value(value)
    config = Config()
    known = {f.name for f in fields(Config)}
    for section, table in tables.items():
        if section not in known:
            raise UserError(f"{path.name}: there is no section [{section}]; there are {', '.join(sorted(known))}.")
        default = getattr(config, section)
        names = {f.name for f in fields(default)}
        if not isinstance(table, dict):
            raise UserError(f"{path.name}: {section} must be a section, written [{section}].")
        for knob in table:
            if knob not in names:
                raise UserError(
                    f"{path.name}: [{section}] has no knob {knob!r}; it has {', '.join(sorted(names))}."
                )
        try:
            merged = msgspec.convert({**msgspec.to_builtins(default), **table}, type(default))
        except msgspec.ValidationError as error:
            raise UserError(f"{path.name}: [{section}] {error}.") from error
        for knob in table:
            number = getattr(merged, knob)
            if isinstance(number, int | float) and not 0 <= number < 2**63:
                raise UserError(f"{path.name}: [{section}] {knob} is {number}; a number goes from 0 to 2^63.")
        config = replace(config, **{section: merged})
    return config


def _value(text: str) -> Any:
    """Read an override as TOML would; what is not TOML is a plain string."""
    try:
        return tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        return text.strip()
