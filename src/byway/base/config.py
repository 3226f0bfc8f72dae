"""Every setting, on one page.

A section is named after the artifact that it shapes. A value comes from the default here, then from the
workspace's `byway.toml`, then from `--set section.setting=value`. `docs/settings.md` is generated from this file.
"""

import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import msgspec

from byway.base import known_models
from byway.base.errors import UserError

Source = Literal[
    "parquet",
    "csv",
    "json",
    "movielens",
    "microlens",
    "kuairec",
    "kuairand",
    "amazon",
    "anime",
    "goodbooks",
    "goodreads",
    "lastfm",
    "mind",
    "steam",
]
Curation = Literal["diversified", "random", "log"]
Comparison = Literal["prompts", "frames", "pictures"]

MOST = 2**63 - 1
"""The largest number that a setting may be, and that its readers can hold."""
OPERATIONAL = "operational"
"""The mark, in the type of a setting, of one that changes no result."""

Whole = Annotated[int, msgspec.Meta(ge=0, le=MOST)]
"""A whole number."""
Count = Annotated[int, msgspec.Meta(ge=1, le=MOST)]
"""The number of something of which there must be one at least."""
Device = Annotated[Literal["auto", "cpu", "cuda", "mps"], msgspec.Meta(extra={OPERATIONAL: True})]
"""Where to compute. Operational: it changes no result but its last digits, so another value makes nothing out of
date."""
Level = Annotated[int, msgspec.Meta(ge=1, le=4)]
"""A tree has four levels, and a prompt four slots."""
Threads = Annotated[int, msgspec.Meta(ge=0, le=1024)]
"""Threads of this process."""
AtOnce = Annotated[int, msgspec.Meta(ge=1, le=1024, extra={OPERATIONAL: True})]
"""What is under way together."""
Workers = Annotated[int, msgspec.Meta(ge=1, le=256)]
"""Processes that answer together: more than a machine has cores help nobody."""
Number = Annotated[float, msgspec.Meta(ge=0, le=float(MOST))]
"""A number that is neither negative nor infinite."""
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
"""A part of a whole, or a value on 0 to 1."""
Prices = Annotated[tuple[float, ...], msgspec.Meta(max_length=2, extra={OPERATIONAL: True})]
"""Two prices, or none."""


@dataclass(frozen=True, slots=True)
class Run:
    """What holds for every stage."""

    seed: Whole = 0
    """Every random draw derives from this number and the stage's name."""
    threads: Threads = 0
    """Threads for arithmetic; 0 takes every core. Another number adds in another order: last digits can differ."""
    engine: Literal["native", "ray"] = "native"
    """Who reads tables and media, encodes texts and fills the tables: this machine, or a Ray cluster."""
    device: Device = "auto"
    """Where models are trained and asked; cuda and mps are GPUs. auto: a GPU where there is one, and none on a Ray
    cluster. Last digits can differ."""
    precision: Literal["auto", "bfloat16", "float32"] = "auto"
    """Arithmetic of the language and multimodal models' matrix products. auto: the fastest here, for the table
    perhaps float16 (`pip install 'byway[mkl]'`)."""
    processes: Whole = 1
    """Processes that train a language model or an item policy together: a step takes as many batches."""


@dataclass(frozen=True, slots=True)
class Catalog:
    """01-catalog: where items and events come from."""

    source: Source = "parquet"
    """Layout of the input."""
    items: str = ""
    """File of items, or the folder of a public data set. Relative paths start at the workspace."""
    events: str = ""
    """File of events; empty where the layout finds it in the folder of items."""
    item_columns: dict[str, str] | list[str] = field(default_factory=dict)
    """Our column name to yours, as {item = "video_id"}; of a file without a header its columns from left to
    right, as ["item", "title"]."""
    event_columns: dict[str, str] | list[str] = field(default_factory=dict)
    """The same of events, for example {satisfaction = "watch_ratio"}; "" reads none."""
    event_scale: list[float] = field(default_factory=list)
    """Worst and best value of the column of satisfaction, for example [1, 5]; they become 0 and 1.
    Empty: it is on 0 to 1."""
    event_unrated: Share | None = None
    """Satisfaction of an event without a rating: empty, or 0 or -1 where `event_scale` begins above. Not set: such
    events are kept out."""
    time_format: str = ""
    """How times are written where that cannot be told: as for strptime, for example "%d/%m/%Y %H:%M"; or the unit
    of numbers since 1970, s, ms, us or ns; or excel."""
    positive: Share = 0.5
    """An event with at least this satisfaction counts as a high-quality interaction."""


@dataclass(frozen=True, slots=True)
class Embeddings:
    """02-embeddings: one unit vector an item (paper 1, section 2.1)."""

    model: str = "auto"
    """Which encoder reads the texts. `auto` goes by what they are written in: `minilm` reads English,
    `use-multilingual` sixteen languages, `e5-multilingual` a hundred, `ngrams` the letters alone. Any
    sentence-transformers name works."""
    dim: Count = 256
    """Dimensions after the projection."""
    pictures: Number = 0.5
    """Weight of frames and thumbnail where an item has any; its words weigh 1."""
    sound: Number = 0.2
    """Weight of sound where an item has any."""


@dataclass(frozen=True, slots=True)
class Tree:
    """04-tree: four levels of traffic-balanced interest clusters (paper 1, section 2.1)."""

    levels: tuple[int, ...] = ()
    """Clusters a level, broadest first; empty derives four sizes from the catalog.
    Paper 1 plans over 761 clusters at level 2."""
    items_per_cluster: Count = 64
    """Mean size of a level-2 cluster where `levels` is empty; at most 761 clusters are made."""


@dataclass(frozen=True, slots=True)
class Descriptions:
    """05-descriptions: each cluster in a few words of its own items (paper 1, section 2.1)."""

    drop: tuple[str, ...] = ()
    """Words that say nothing on this platform: its name, its campaigns."""
    writer: str = ""
    """A causal language model that writes descriptions from the clusters' items; empty: keywords alone."""


@dataclass(frozen=True, slots=True)
class Transitions:
    """06-transitions: what people turned to next that was new to them (paper 1, section 2.3)."""

    level: Level = 2
    """Level of the tree at which the policy plans."""
    history: Level = 2
    """K: most recent unique clusters that form the prompt."""
    curation: Curation = "log"
    """diversified: the most frequent pairs of each label, the same number a label (paper 1);
    random: as many samples drawn from the log; log: every pair with its counts."""


@dataclass(frozen=True, slots=True)
class LanguageModel:
    """07-language-model: the fine-tuned language policy (paper 1, section 2.3)."""

    answers: Literal["here", "server", "batch"] = "here"
    """here: a model is fine-tuned and asked on this machine. server: one behind an address is asked, as it is.
    batch: files for a host's batch service are written, and `byway answers` takes the results in ([answers])."""
    model: str = known_models.DEFAULT
    """The model that is fine-tuned here. `smollm2-135m` installs with Byway; a folder or any causal model of the
    hub works, and `name@revision` pins that."""
    method: Literal["full", "lora"] = "full"
    """full: every weight of the layers that are not frozen. lora: low-rank adapters. Either way the output
    layer's rows that spell names learn."""
    recipe: Literal["names", "paper"] = "names"
    """names: the choice among legal names is learned too, tokens that spell one count for more, and the lower
    half of the layers stays as it is. paper: the answer's tokens alike, and every layer learns."""
    attention: Literal["block", "causal"] = "block"
    """causal: a prompt is read from left to right. block: each description by itself, so that a pair costs a few
    tokens."""
    steps: Whole = 0
    """Optimiser steps; 0: twice as many as clusters, and 100 at least."""
    batch: Count = 16
    """Samples a step (paper 1: 16). With the whole log under block attention those whose whole answer is
    learned."""
    target: Literal["evidence", "counts", "transitions"] = "evidence"
    """What is taught. With the whole log under block attention: the log's counts and how alike the items are,
    weighed on validation transitions, or the counts alone. transitions: what happened, beside counts,
    similarity and popularity as a fixed offset."""
    block_clusters: Count = 12
    """With the whole log under block attention a step draws this many clusters a slot and trains on every pair
    among them."""
    learning_rate: Number = 0.0
    """Peak of the schedule: linear warm-up, then linear decay. 0: the model's own."""


@dataclass(frozen=True, slots=True)
class Answers:
    """Who is asked where `language_model.answers` is server or batch, and how."""

    url: str = ""
    """Address of an OpenAI-compatible server, as http://127.0.0.1:8000/v1; its key is read from the environment,
    BYWAY_SERVER_KEY."""
    model: str = ""
    """The model's name there."""
    protocol: Literal["chat", "structured_outputs", "guided_choice", "grammar"] = "chat"
    """chat: one request a pair, for a ranked list by JSON schema. The others are completions, one request an
    answer, for a model tuned on `byway export`: of vLLM from 0.12 on, vLLM before and others, or llama.cpp."""
    prompt: Literal["plain", "reasoned"] = "plain"
    """reasoned: the model first says in a sentence what draws somebody to both interests and where it leads (arXiv
    2508.04032)."""
    candidates: Count = 20
    """Interests that the model chooses among: the best of the log's signals, and some of the others."""
    pairs: Whole = 0
    """The pairs that are asked about, the most frequent in the log first; 0: all of them."""
    format: Literal["openai", "anthropic", "gemini"] = "openai"
    """The files of a batch; many hosts and servers take the first."""
    extra: dict[str, Any] = field(default_factory=dict[str, Any])
    """Sent with every request, as {top_k = -1}: what this server must be told. What it refuses of the rest is
    left out by "", as {seed = ""}."""
    at_once: AtOnce = 16
    """Requests under way together."""
    price: Prices = ()
    """Money for a million tokens read and written, as [0.1, 0.4]: then costs are said."""


@dataclass(frozen=True, slots=True)
class ItemPolicy:
    """12-item-policy: the sequence model that finds items inside a cluster (paper 1, section 2.2)."""

    dim: Count = 64
    """Width of the model and of the item vectors."""
    history: Count = 50
    """Most recent items that are read."""
    epochs: Whole = 8
    """Passes over the training sequences."""
    top_k: Whole = 0
    """K of the top-K off-policy correction (paper 1's reference [8]: 16); 0 trains without it."""


@dataclass(frozen=True, slots=True)
class Planner:
    """12-planner: who gets which new interest, by all that is known of a person."""

    signals: tuple[
        Literal[
            "ease",
            "ease_leaves",
            "item_policy",
            "table",
            "language_model",
            "similarity",
            "popularity",
            "quality",
        ],
        ...,
    ] = ()
    """Signals that the score is fitted of; empty takes all of them."""
    explored: bool = False
    """Whether what came of an event with a propensity counts by one over it (at most 20 times) in the fit of
    the weights."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """13-bundle: how a request is answered (paper 1, section 2.2)."""

    mode: Literal["person", "pair", "paper"] = "person"
    """person: the items of new interests that score highest by all that is known of somebody (12-planner).
    pair: paper 1's plan, the first interest in two drawn ones' ranking that somebody never met, and the item policy
    inside it. paper: the same, all interests but these two being new."""
    new_interests: Whole = 0
    """New interests on a page at most, in the mode `person`; 0 sets no bound."""
    skip: Share = 0.0
    """Chance of every new interest to be left out of a page, in the mode `person`, so that one can learn from what
    is shown. At 0.05 what is shown on KuaiRec pleases 1.5% less often."""
    young_days: Whole = 0
    """A new interest that pleased is offered further for so many days, in the mode `person`, if the log has a
    clock; 0: once met it is no longer new."""
    again_days: Whole = 0
    """An interest that was met and never pleased is offered again after so many days; 0: never."""
    surprise: Literal["serendipitous", "never_met"] = "serendipitous"
    """Which interests are offered after an item being watched: any other of its wider interest (paper 2), or
    only those that somebody never met."""
    days: Whole = 30
    """Days of history from which interests are drawn, where the log has a clock."""
    min_quality: Number = 0.0
    """Items whose mean satisfaction is below this are never shown. The mean is drawn towards the log's as by ten
    events."""
    max_age_days: Whole = 0
    """Items older than this are never shown, where the catalog knows when they were made; 0 shows all."""


@dataclass(frozen=True, slots=True)
class Serving:
    """The service: what may be published, and what a request may cost."""

    min_match_rate: Number = 0.9
    """A bundle or refresh whose language model has a lower match rate, or lower recall at 10 than popularity, is
    not published; 0 asks for no figures at all."""
    history: str = ""
    """Where people's histories are kept: `redis://host:port/number`, or empty for files in the workspace."""
    publication: Literal["files", "server"] = "files"
    """Where a host learns which bundle is served: from its own `published/`, or from the server of the history,
    which carries it to all hosts."""
    forget_days: Count = 30
    """Events and answers older than this are dropped; older events are not taken in."""
    exposures: Literal["delivered", "confirmed"] = "delivered"
    """When an answer counts as shown: when the client has taken the reply, or only when it confirms the answer
    (`POST /v1/shown`)."""
    workers: Workers = 2
    """Processes that answer."""
    access_log: bool = True
    """Log a line for each request: its route, status, time and ids, and no user, token or address."""
    rate: Number = 200.0
    """Requests a second that one token may make; 0 sets no limit."""


@dataclass(frozen=True, slots=True)
class Media:
    """01-media: what videos, thumbnails and sound hold, within bounds a file (paper 2, section 3.1)."""

    model: str = "efficientnet-lite0"
    """Picture encoder: `efficientnet-lite0` installs with Byway; any CLIP or SigLIP of the hub works."""
    frames: Count = 4
    """Frames sampled uniformly from a video: what the multimodal model can be given at most."""
    captioner: str = ""
    """An image-text-to-text model that says what is seen in each item: a view of its embedding, a line of the
    text prompt, and the thought to learn from."""
    captioner_url: str = ""
    """Address of a server that speaks the OpenAI protocol and has that model; empty: it runs here."""


@dataclass(frozen=True, slots=True)
class MultimodalModel:
    """10-multimodal-model: from what is seen to a serendipitous cluster (paper 2, sections 2 and 3.1). The
    projector is trained in full, and the language model through low-rank adapters."""

    model: str = ""
    """Empty: the workspace's own fine-tuned language model. A causal model, this or another by name, is shown
    EfficientNet's vectors; an image-text-to-text model of the hub has its own."""
    prompts: tuple[Literal["text", "video", "both", "thought"], ...] = ("thought",)
    """Kinds of prompt that are trained, in turn, and measured; the first is the one that is served."""
    pictures: Literal["frames", "thumbnail"] = "frames"
    """What is shown: uniformly sampled frames, or the thumbnail; the other where one is missing."""
    steps: Count = 300
    """Optimiser steps."""
    target: Literal["posterior", "paper"] = "posterior"
    """posterior: the choice among the clusters that pleased after the video and its cluster, and few answers
    word by word. paper: one next cluster's answer word by word, and a projector that begins at random."""


@dataclass(frozen=True, slots=True)
class ContextTable:
    """11-context-table: the answer for every item that much of the traffic meets (paper 2, section 3.2)."""

    coverage: Share = 0.8
    """Share of the impressions whose items are answered, the most popular items first."""
    by: Literal["fitted", "model", "pictures"] = "fitted"
    """model: 10-multimodal-model alone (paper 2). pictures: a logistic regression from an item's cluster and
    its pictures, in seconds. fitted: both and the log's counts, weighed on what pleased later."""


@dataclass(frozen=True, slots=True)
class Experiment:
    """15-experiment: simulated live experiments, or a replay of real feedback (paper 1, section 3)."""

    arms: tuple[str, ...] = ()
    """Arms beside the control, by name; empty runs all of them."""
    design: Literal["paired", "segments"] = "paired"
    """paired: all arms live with the same accounts and chance, which tells them apart far better. segments: each
    with its own, as in the papers."""
    seeds: Count = 1
    """Deals: runs with other accounts and other chance. Intervals draw deals as well as people."""
    users: Count = 800
    """Accounts an arm. In segments no account is in two."""
    days: Count = 30
    """Days lived; 180 shows long-term effects."""
    share: Share = 0.2
    """Part of the feed's places that is kept for the arm's source; for the others it competes."""
    retrain_every: Whole = 10
    """Days between trainings of the arms' neural models; 0 trains once, before the first day."""
    truth: str = ""
    """Folder of the embedded world's `truth/`, of KuaiRec's matrix, or of `later.parquet`; empty looks beside the
    tables of items."""


LIFTED = "lift.json"
"""What `byway lift` found last, in the workspace; it is no artifact."""


@dataclass(frozen=True, slots=True)
class Views:
    """19-views: what the multimodal model is asked with and shown, compared (paper 2, figures 3, 4 and 5)."""

    compare: tuple[Comparison, ...] = ("prompts", "frames", "pictures")
    """The four prompts; one, two, four and eight frames; the thumbnail and one frame. Three models each, which
    take as long as 10."""


@dataclass(frozen=True, slots=True)
class Config:
    """All sections; one attribute an artifact."""

    run: Run = field(default_factory=Run)
    catalog: Catalog = field(default_factory=Catalog)
    embeddings: Embeddings = field(default_factory=Embeddings)
    tree: Tree = field(default_factory=Tree)
    descriptions: Descriptions = field(default_factory=Descriptions)
    transitions: Transitions = field(default_factory=Transitions)
    language_model: LanguageModel = field(default_factory=LanguageModel)
    answers: Answers = field(default_factory=Answers)
    item_policy: ItemPolicy = field(default_factory=ItemPolicy)
    planner: Planner = field(default_factory=Planner)
    bundle: Bundle = field(default_factory=Bundle)
    serving: Serving = field(default_factory=Serving)
    media: Media = field(default_factory=Media)
    multimodal_model: MultimodalModel = field(default_factory=MultimodalModel)
    context_table: ContextTable = field(default_factory=ContextTable)
    experiment: Experiment = field(default_factory=Experiment)
    views: Views = field(default_factory=Views)


PREFIX = "BYWAY_SERVING_"
"""What the settings of the service are called in the environment: BYWAY_SERVING_WORKERS is serving.workers."""
OPTIONS = ("HOST", "PORT")
"""What stands beside them there: options of `byway serve`."""


def from_environment(environment: Mapping[str, str] = os.environ) -> list[str]:
    """The settings that the environment gives, as `load` takes them; UserError for what is none."""
    known = {f"{PREFIX}{f.name.upper()}": f.name for f in fields(Serving)}
    others = {PREFIX + name for name in OPTIONS}
    for name in sorted(environment):
        if name.startswith(PREFIX) and name not in known and name not in others:
            raise UserError(f"{name} is no setting; there are {', '.join(sorted([*known, *others]))}.")
    return [f"serving.{setting}={environment[name]}" for name, setting in known.items() if name in environment]


@cache
def operational(section: type) -> frozenset[str]:
    """Names of the settings of a section that change no result: they shape no artifact."""
    hints = get_type_hints(section, include_extras=True)
    marks = {name: getattr(hint, "__metadata__", ()) for name, hint in hints.items()}
    return frozenset(name for name, metas in marks.items() if any((m.extra or {}).get(OPERATIONAL) for m in metas))


def load(path: Path, overrides: Iterable[str] = ()) -> Config:
    """Read the defaults, then the TOML at `path`, then `section.setting=value` overrides.

    Raises UserError with the section and the setting for anything that is not a setting or not of its type, for a
    negative or infinite number, which no setting takes, for one below 1 where at least 1 makes sense, and for
    settings of two sections that do not go together.
    """
    try:
        tables: dict[str, Any] = tomllib.loads(path.read_text("utf-8")) if path.exists() else {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid TOML: {error}.") from error
    given: dict[str, Any] = {}
    for text in overrides:
        name, equals, value = text.partition("=")
        section, dot, setting = name.strip().partition(".")
        if not equals or not dot:
            raise UserError(f"--set {text}: write section.setting=value, for example tree.items_per_cluster=100.")
        given.setdefault(section, {})[setting] = _value(value)
    config = _laid_over(_laid_over(Config(), tables, path.name), given, "given settings")
    _go_together(f"{path.name} and given settings" if given else path.name, config)
    return config


def _laid_over(config: Config, tables: dict[str, Any], where: str) -> Config:
    """The configuration with the values of some sections; UserError, which says `where` they stand."""
    known = {f.name for f in fields(Config)}
    for section, table in tables.items():
        if section not in known:
            raise UserError(f"{where}: there is no section [{section}]; there are {', '.join(sorted(known))}.")
        if not isinstance(table, dict):
            raise UserError(f"{where}: {section} must be a section, written [{section}].")
        before = getattr(config, section)
        names = {f.name for f in fields(before)}
        for setting in table:
            if setting not in names:
                raise UserError(
                    f"{where}: [{section}] has no setting {setting!r}; it has {', '.join(sorted(names))}."
                )
        try:
            merged = msgspec.convert({**msgspec.to_builtins(before), **table}, type(before))
        except msgspec.ValidationError as error:
            raise UserError(f"{where}: [{section}] {_in_words(error, type(before), table)}.") from error
        config = replace(config, **{section: merged})
    return config


def with_own(settings: LanguageModel) -> LanguageModel:
    """The settings with what they leave to the model filled in from its record."""
    own = known_models.record(settings.model)
    return replace(settings, learning_rate=settings.learning_rate or own.learning_rate)


def resolved(config: Config) -> Config:
    """The configuration with all that it leaves to the language model filled in: what shapes the artifacts."""
    return replace(config, language_model=with_own(config.language_model))


KINDS = {
    "array": "a list", "object": "a table", "str": "text", "int": "a whole number", "float": "a number",
    "bool": "true or false", "null": "nothing",
}  # fmt: skip
"""The library's names of types, in words."""


def _in_words(error: msgspec.ValidationError, section: type, table: dict[str, Any]) -> str:
    """What is wrong with a setting of `table`, without the library's signs."""
    said, _, where = str(error).partition(" - at ")
    setting = (re.findall(r"\w+", where) or [""])[0]
    if bound := re.fullmatch(r"Expected `\w+` ([<>]=) (\S+)", said):
        wanted = f"it must be at {'least' if bound[1] == '>=' else 'most'} {float(bound[2]):g}"
        if float(bound[2]) >= MOST:
            wanted = "a number goes from 0 to 2^63"
        return f"{setting} is {table[setting]}; {wanted}"
    if said.startswith("Invalid enum value"):
        choices = re.findall(r"'([^']*)'", str(get_type_hints(section)[setting]))
        return f"{setting}: there is no {said.removeprefix('Invalid enum value ')}; there are {', '.join(choices)}"
    for name, words in KINDS.items():
        said = said.replace(f"`{name}`", words)
    said = re.sub(r"`([\w|.]*)`", r"\1", said)
    return f"{setting}: {said[:1].lower()}{said[1:]}" if setting else said


def require_scale(name: str, scale: list[float]) -> None:
    """Raise UserError where a scale that was given under `name` is not two numbers in order."""
    if scale and (len(scale) != 2 or not -1e300 < scale[0] < scale[1] < 1e300):
        raise UserError(f"{name} is {scale}; give the worst and the best value, for example [1, 5].")


def _go_together(where: str, config: Config) -> None:
    """Refuse what no stage can do, before the hours of those in front of it."""
    require_scale(f"{where}: [catalog] event_scale", config.catalog.event_scale)
    if config.item_policy.dim % 2:
        raise UserError(
            f"{where}: [item_policy] dim is {config.item_policy.dim}, which two heads cannot share; make it even."
        )
    asked, by = config.answers, config.language_model.answers
    if by != "here" and not asked.model:
        raise UserError(f"{where}: [language_model] answers is {by}; say who is asked in [answers] model.")
    if by == "server" and not asked.url:
        raise UserError(
            f"{where}: [language_model] answers is server; say where in [answers] url, for example "
            "http://127.0.0.1:8000/v1."
        )
    if len(asked.price) not in (0, 2) or any(not 0 <= p < 1e6 for p in asked.price):
        raise UserError(
            f"{where}: [answers] price is {list(asked.price)}; give two, for a million tokens read and written."
        )
    if not config.multimodal_model.prompts:
        raise UserError(f"{where}: [multimodal_model] prompts is empty; name one at least, for example video.")


def _value(text: str) -> Any:
    """Read an override as TOML would; what is not TOML is a plain string."""
    try:
        return tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        return text.strip()
