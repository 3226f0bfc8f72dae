"""The command line. Each verb imports what it needs when it is called, so that `byway --help` is instant."""

import json
import re
import shlex
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter
from cyclopts.validators import Number

from byway.base.errors import UserError
from byway.base.progress import command

app = App(
    name="byway",
    help="Take people off the main road: novel interests for recommender systems.",
    suppress_keyboard_interrupt=False,
)

Set = Annotated[list[str] | None, Parameter(name="--set", help="Override a setting: section.setting=value.")]
Json = Annotated[bool, Parameter(help="Print one JSON object instead of text.")]
Engine = Annotated[
    Literal["native", "ray"] | None,
    Parameter(help="Who reads tables and media, encodes texts, fills the tables and answers everybody."),
]


@app.command
def init(
    directory: Path,
    path: Path,
    *,
    source: Annotated[str, Parameter(name="--from", help="Data set: see docs/guide.md for the names.")],
    json: Json = False,
) -> None:
    """Make a workspace in DIRECTORY for the data at PATH."""
    from byway.workflow.folder import CONFIG, begin

    found = begin(directory, path, source)
    _say(
        json,
        {"wrote": str(directory / CONFIG), "found": found},
        "\n".join([*found, f"Wrote {directory / CONFIG}. Next: {command('run', directory)}"]),
    )


@app.command
def run(
    directory: Path,
    *,
    until: Annotated[str | None, Parameter(help="Stop after this stage.")] = None,
    only: Annotated[str | None, Parameter(help="Build only this stage.")] = None,
    set: Set = None,
    engine: Engine = None,
    shard: Annotated[
        str | None, Parameter(help="i/n: only the rows of the table that fall to shard i of n.")
    ] = None,
    json: Json = False,
) -> None:
    """Build every artifact of the workspace that is missing or out of date."""
    from byway.workflow import pipeline

    config = _config(directory, set)
    if engine:
        config = replace(config, run=replace(config.run, engine=engine))
    if shard is not None:
        number, shards = _shard(shard)
        if until is not None or only is not None:
            raise UserError("--shard computes rows of the transition table alone; leave out --until and --only.")
        pipeline.run_shard(directory, config, number, shards)
        text = f"Shard {shard} is done. When all are, join them: {command('run', directory)}"
        _say(json, {"shard": number, "shards": shards}, text)
        return
    records = pipeline.run(directory, config, until, only)
    done = {name: round(record.timings["seconds"], 1) for name, record in records.items()}
    are = "1 artifact is" if len(done) == 1 else f"{len(done)} artifacts are"
    text = f"{are} up to date in {directory}. Next: {command('show', directory)}"
    _say(json, {"artifacts": done}, text)


@app.command
def worth(
    directory: Path,
    *,
    model: Annotated[
        str | None, Parameter(help="A model by name, as it is; without it the one of this workspace.")
    ] = None,
    server: Annotated[
        str | None, Parameter(help="Address of a server to ask, as http://127.0.0.1:8000/v1.")
    ] = None,
    pairs: Annotated[int, Parameter(help="Pairs to ask about, at most.", validator=Number(gte=30))] = 3000,
    set: Set = None,
    json: Json = False,
) -> None:
    """What a language model adds to the log here, and what asking it about every pair would take."""
    from byway.workflow import asking, pipeline

    config = _config(directory, set)
    pipeline.prepare(config)
    found = asking.worth(directory, config, model, server, pairs)
    _say(json, found, f"{asking.as_table(found)}\n\n{found['says']}")


@app.command
def answers(directory: Path, *files: Path, set: Set = None, json: Json = False) -> None:
    """Take in the results of a batch service; in any order, in parts."""
    from byway.workflow import asking

    if not files:
        raise UserError("Name the files of results that the batch service wrote.")
    found = asking.take(directory, _config(directory, set), list(files))
    held = ", ".join(f"{found[name]:,} {name}" for name in ("answers", "empty", "errors", "of other questions"))
    left = f"{found['missing']:,} of {found['questions']:,} questions are still open"
    text = f"{held}; {left}. Next: {command('run', directory)}"
    _say(json, found, text)


@app.command
def export(
    directory: Path,
    *,
    sft: Annotated[
        Literal["trl", "openai", "vertex"], Parameter(help="Whose form of files for supervised fine-tuning.")
    ],
    out: Annotated[Path | None, Parameter(help="Folder to write into; without it one in the workspace.")] = None,
    set: Set = None,
    json: Json = False,
) -> None:
    """Write the samples of fine-tuning for another trainer or a host."""
    from byway.workflow import asking

    found = asking.write_samples(directory, _config(directory, set), sft, out)
    rows = f"{found['train']:,} rows to train on and {found['validation']:,} to validate on"
    after = "protocol = 'structured_outputs'" if sft == "trl" else "protocol = 'chat'"
    _say(json, found, f"Wrote {rows} into {found['wrote']}. Who is tuned on it is asked by [answers] {after}.")


@app.command
def show(
    directory: Path,
    *,
    depth: Annotated[int, Parameter(help="Levels of the tree to print.", validator=Number(gte=0, lte=4))] = 2,
    json: Json = False,
) -> None:
    """Print artifacts, gates, drift, figures and the interest tree."""
    from byway.workflow import showing

    config = _config(directory, None)
    print(showing.as_json(directory, config) if json else showing.as_text(directory, config, depth))


@app.command
def refresh(
    directory: Path,
    *,
    items: Annotated[Path | None, Parameter(help="A table of new items, with the columns of the first.")] = None,
    events: Annotated[Path | None, Parameter(help="A table of new events.")] = None,
    set: Set = None,
    json: Json = False,
) -> None:
    """Take in new items and events, at a cost in proportion to what is new."""
    from byway.workflow import refresh as module

    found, text = module.run(directory, _config(directory, set), items, events)
    _say(json, found, text)


@app.command
def recommend(
    directory: Path,
    *,
    history: Annotated[
        list[str] | None,
        Parameter(help="Ids of items, the most recent last: separated by commas, or one each time it is given."),
    ] = None,
    user: Annotated[str | None, Parameter(help="A user of the log instead of a history.")] = None,
    item: Annotated[str | None, Parameter(help="The item being watched: what surprises after it?")] = None,
    k: Annotated[int | None, Parameter(help="Items in the answer.", validator=Number(gte=1))] = None,
    seed: Annotated[int, Parameter(help="Seed of what is drawn at random.", validator=Number(gte=0))] = 0,
    everybody: Annotated[
        bool, Parameter(name="--all", negative="", help="Every user of the log, into the table --out.")
    ] = False,
    out: Annotated[Path | None, Parameter(help="Parquet file for the answers to all.")] = None,
    engine: Engine = None,
    json: Json = False,
) -> None:
    """What the service would answer to this history, with the reasons; or to everybody, as a table."""
    import msgspec

    from byway.workflow import showing
    from byway.workflow.workspace import Workspace

    if user is not None and history:
        raise UserError("--user and --history exclude each other; choose one.")
    workspace = Workspace(directory)
    if everybody:
        if user is not None or history or item is not None:
            raise UserError("--all answers every user of the log; leave out --user, --history and --item.")
        if out is None:
            raise UserError("--all needs a file to write, for example --out recommendations.parquet.")
        _recommend_all(directory, out, k, seed, engine, json)
        return
    if out is not None or engine is not None:
        raise UserError("--out and --engine go with --all: every user of the log, into a file.")
    given = history or []
    # Given more than once, or known as it stands, each is one id, so that ids may hold commas.
    whole = len(given) > 1 or (given and workspace.bundle.position(given[0].strip()) is not None)
    ids = given if whole else [each.strip() for each in "".join(given).split(",")]
    watched = None if item is None else item.strip()
    seen = [each for each in ids if each]
    answer = workspace.recommend(seen, user=user, item=watched, k=k, seed=seed)
    print(msgspec.json.encode(answer).decode() if json else showing.answer_text(answer))


def _recommend_all(directory: Path, out: Path, k: int | None, seed: int, chosen: Any, json: bool) -> None:
    from byway.base import config, engine
    from byway.workflow import folder, recommendations

    # A bundle may have been brought here alone, without settings.
    run = folder.settings(directory).run if (directory / folder.CONFIG).exists() else config.Run()
    if (chosen or run.engine) != "native":
        engine.use(chosen or run.engine, run.threads)
    found = recommendations.write(directory, out, k, seed)
    text = f"{found['users']:,} users have {found['rows']:,} rows in {out}, a parquet file."
    _say(json, {"wrote": str(out), **found}, text)


@app.command
def serve(
    directory: Path,
    *,
    port: Annotated[
        int, Parameter(help="Port to answer on.", validator=Number(gte=1, lte=65535), env_var="BYWAY_SERVING_PORT")
    ] = 8000,
    host: Annotated[
        str,
        Parameter(help="Address to answer on; any but the loopback needs tokens.", env_var="BYWAY_SERVING_HOST"),
    ] = "127.0.0.1",
    tokens: Annotated[
        Path | None, Parameter(help="File of tokens: a token and its scopes a line.", env_var="BYWAY_TOKENS_FILE")
    ] = None,
    set: Set = None,
) -> None:
    """Answer over HTTP, with pages. Publishes the bundle where nothing is published yet."""
    from byway.serving import hosts, processes
    from byway.serving import publish as module

    if other := [text for text in set or [] if not text.lstrip().startswith("serving.")]:
        next_ = f"{command('run', directory)}, then {command('publish', directory)}"
        raise UserError(f"--set {other[0]}: only [serving] is read here; put others into byway.toml, then {next_}")
    config = _config(directory, set)
    if hosts.shared(config.serving) and module.current(directory) is None:
        hosts.take(directory, config.serving)
    served = module.current(directory)
    if served is None:
        _publish(directory, config)
    else:
        module.require_whole(directory, served)
    processes.serve(directory, config.serving, host, port, tokens)


@app.command
def forget(directory: Path, *users: str, set: Set = None, json: Json = False) -> None:
    """Delete people: from the history, and from the log that the workspace was built from."""
    from byway.workflow import forgetting

    if not users:
        raise UserError("Name who is to be deleted, by the ids of your log.")
    found = forgetting.forget(directory, _config(directory, set), users)
    _say(json, found, forgetting.in_words(directory, found))


@app.command
def seed(directory: Path, *, set: Set = None, json: Json = False) -> None:
    """Put the latest events of the workspace's log into the history, so that the service knows people at once."""
    from byway.workflow import seeding

    found = seeding.seed(directory, _config(directory, set))
    _say(json, found, seeding.in_words(found))


@app.command
def backup(directory: Path, to: Path, *, set: Set = None, json: Json = False) -> None:
    """Copy the history into the folder TO, while the service runs."""
    from byway.serving import backup as module

    size = module.save(directory, to, _config(directory, set).serving)
    _say(json, {"folder": str(to), "bytes": size}, f"Wrote {size:,} bytes into {to}.")


@app.command
def restore(directory: Path, copy: Path, *, set: Set = None, json: Json = False) -> None:
    """Have the history be what `byway backup` wrote into the folder COPY, while the service runs."""
    from byway.serving import backup as module

    module.restore(directory, copy, _config(directory, set).serving)
    said = f"The history of {directory} is that of {copy}; delete again who asked since."
    _say(json, {"folder": str(copy)}, said)


@app.command
def publish(directory: Path, *, set: Set = None, json: Json = False) -> None:
    """Check the newest bundle and serve it from now on; running workers take it up at once."""
    from byway.serving import publish as module

    name = _publish(directory, _config(directory, set))
    now = module.current(directory)
    back = f" Back to the one before: {command('rollback', directory)}" if now and now.before else ""
    _say(json, {"bundle": name}, f"Bundle {name} is published.{back}")


@app.command
def rollback(directory: Path, *, set: Set = None, json: Json = False) -> None:
    """Serve the bundle before this one, at once."""
    from byway.serving import hosts
    from byway.serving import publish as module

    name = module.rollback(directory, hosts.telling(_config(directory, set).serving))
    _say(json, {"bundle": name}, f"Bundle {name} is served again.")


def _publish(directory: Path, config: Any) -> str:
    from byway.serving import hosts
    from byway.serving import publish as module
    from byway.workflow import pipeline, stages

    records = pipeline.records(directory)
    if "bundle" not in records:
        raise UserError(f"{directory} has no bundle yet; run: {command('run', directory)}")
    folder, tell = directory / stages.BUNDLE.folder, hosts.telling(config.serving)
    return module.publish(directory, folder, config.serving, records, tell=tell)


@app.command
def experiment(directory: Path, *, set: Set = None, json: Json = False) -> None:
    """Simulated live experiments, or a replay of real feedback: every arm beside the same control."""
    record = _built(directory, set, "experiment")
    counted = f"{record.counts['arms']} arms, {record.counts['impressions']:,} impressions"
    text = f"{counted}. Next: {command('report', directory)}"
    _say(json, {"figures": record.metrics, "timings": record.timings}, text)


@app.command
def lift(
    directory: Path,
    *logs: Path,
    control: Annotated[str, Parameter(help="The arm beside which the others are measured.")] = "control",
    column: Annotated[
        list[str] | None,
        Parameter(help="Our column of the tables and yours, where that is not found: user=who, arm=cell."),
    ] = None,
    scale: Annotated[
        tuple[float, float] | None, Parameter(help="Worst and best satisfaction in the tables, if not 0 and 1.")
    ] = None,
    policy: Annotated[
        list[str] | None, Parameter(help="What would it have earned: byway, paper, masked, or a published bundle.")
    ] = None,
    set: Set = None,
    json: Json = False,
) -> None:
    """Figures of a live experiment of your own, from the service's log or from tables of impressions."""
    from byway.workflow import lifting, replaying

    config = _config(directory, set)
    if policy and logs:
        raise UserError(
            "--policy works on the service's own log, which has every propensity; leave out the tables."
        )
    columns = lifting.columns_of(column or ())
    found = lifting.lift(directory, config, logs, control, columns=columns, scale=scale or ())
    if policy:
        found["policies"] = replaying.policies(directory, config, policy)
    _say(json, found, lifting.as_text(found))


@app.command
def curations(directory: Path, *, set: Set = None, json: Json = False) -> None:
    """Diversified against random samples: fine-tune a model on each and compare what they say of every pair."""
    _compare(directory, set, "curations", json)


@app.command
def views(directory: Path, *, set: Set = None, json: Json = False) -> None:
    """Four prompts, one to eight frames, thumbnail or frame: fine-tune a multimodal model on each and compare."""
    _compare(directory, set, "views", json)


@app.command
def report(directory: Path, *, set: Set = None, json: Json = False) -> None:
    """One page on what experiment and models show."""
    from byway.workflow import stages

    _built(directory, set, "report")
    path = directory / stages.REPORT.folder / "report.html"
    _say(json, {"wrote": str(path)}, f"Wrote {path}: open it in a browser.")


@app.command
def demo(
    directory: Path = Path("byway-demo"),
    *,
    full: Annotated[bool, Parameter(help="The larger world, with videos and a simulated live experiment.")] = False,
    json: Json = False,
) -> None:
    """Build the embedded world in DIRECTORY, run every stage on it, and answer somebody in it."""
    from byway.workflow import demonstration

    text, found = demonstration.run(directory, full)
    _say(json, found, text)


OF_RECOMMEND = (
    "--history", "--user", "--item", "--k", "-k", "--seed", "--all", "--out", "--engine", "--json", "--no-json",
    "--help", "-h", "--",
)  # fmt: skip


def _require_joined(words: list[str]) -> None:
    """Raise UserError where an id that begins with a dash would be taken for an option."""
    if words[:1] != ["recommend"]:
        return
    for option, word in pairwise(words):
        dashed = word.startswith("-") and word.partition("=")[0] not in OF_RECOMMEND
        # A number is taken as it stands.
        if option in OF_RECOMMEND[:3] and dashed and not re.fullmatch(r"-\d+(\.\d+)?", word):
            joined = f"{option}={shlex.quote(word)}"
            raise UserError(f"An id that begins with a dash is joined to its option by =: write {joined}")


def _shard(text: str) -> tuple[int, int]:
    number, slash, shards = text.partition("/")
    if not (slash and number.isdecimal() and shards.isdecimal() and 1 <= int(number) <= int(shards)):
        raise UserError(f"--shard {text}: write i/n with i from 1 to n, for example 2/3.")
    return int(number), int(shards)


def _config(directory: Path, overrides: list[str] | None) -> Any:
    from byway.base.config import from_environment
    from byway.workflow import folder

    return folder.settings(directory, [*from_environment(), *(overrides or ())])


def _built(directory: Path, overrides: list[str] | None, stage: str) -> Any:
    """The record of a stage that is built when it is asked for."""
    from byway.workflow import pipeline

    return pipeline.run(directory, _config(directory, overrides), only=stage)[stage]


def _compare(directory: Path, overrides: list[str] | None, stage: str, as_json: bool) -> None:
    from byway.workflow import showing

    record = _built(directory, overrides, stage)
    _say(as_json, {"figures": record.metrics, "timings": record.timings}, showing.in_lines(record.metrics))


def _say(as_json: bool, value: dict[str, Any], text: str) -> None:
    print(json.dumps(value) if as_json else text)


def main() -> None:
    """Entry point; how it ends is in `base.exits`."""
    from byway.base import exits, memory

    memory.keep()
    with exits.in_sentences():
        _require_joined(sys.argv[1:])
        app()
        sys.stdout.flush()
