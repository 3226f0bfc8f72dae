"""Which stage runs again, and which does not; on three toy stages, and the shape of the real table."""

import inspect
import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from byway.base import artifact, config, known_models, models, progress
from byway.base.artifact import Work
from byway.base.errors import UserError
from byway.workflow import artifacts, pipeline, stages
from byway.workflow.artifacts import Inputs, Stage
from byway.workflow.stages import STAGES
from tests.toys import Toys
from tests.toys import workspace as make_workspace

ALL = ["catalog", "embeddings", "tree"]


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> Toys:
    return Toys(monkeypatch)


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    return make_workspace(tmp_path / "w")


def run(workspace: Path, *overrides: str, until: str | None = None, only: str | None = None) -> dict[str, object]:
    records = pipeline.run(workspace, config.load(workspace / "byway.toml", overrides), until, only)
    return {name: record.metrics[f"{name}.values"] for name, record in records.items()}


def test_everything_is_built_in_order(toys: Toys, workspace: Path) -> None:
    assert run(workspace) == {"catalog": [10, 20, 30], "embeddings": [0, 0, 0], "tree": 124}
    assert toys.did() == ALL
    assert sorted(p.name for p in workspace.iterdir() if p.is_dir()) == ["01-catalog", "02-embeddings", "03-tree"]


def test_nothing_is_built_when_nothing_changed(toys: Toys, workspace: Path) -> None:
    first = run(workspace)
    before = {p: p.stat().st_mtime_ns for p in workspace.rglob("*") if p.is_file() and p.name[0] != "."}
    toys.did()
    assert run(workspace) == first
    assert toys.did() == []
    assert {p: p.stat().st_mtime_ns for p in before} == before


def test_a_setting_builds_its_stage_again_and_the_later_ones_only_where_its_content_changed(
    toys: Toys, workspace: Path
) -> None:
    run(workspace)
    toys.did()
    run(workspace, "catalog.positive=1")
    assert toys.did() == ["catalog"], "the numbers are the same"
    run(workspace, "catalog.positive=0.3")
    assert toys.did() == ["catalog", "embeddings", "tree"]
    run(workspace, "catalog.positive=0.3", "tree.items_per_cluster=3")
    assert toys.did() == ["tree"]
    found = run(workspace, "catalog.positive=0.3", "tree.items_per_cluster=3", "embeddings.dim=1")
    assert toys.did() == ["embeddings", "tree"]
    assert found == {"catalog": [10, 20], "embeddings": [20, 40], "tree": 93}


def test_a_change_that_is_taken_back_is_built_back(toys: Toys, workspace: Path) -> None:
    first = run(workspace)
    run(workspace, "catalog.positive=0.3")
    toys.did()
    assert run(workspace) == first
    assert toys.did() == ALL


def test_the_seed_shapes_every_stage(toys: Toys, workspace: Path) -> None:
    run(workspace)
    toys.did()
    run(workspace, "run.seed=1")
    assert toys.did() == ALL
    run(workspace, "run.seed=1", "run.threads=1")
    assert toys.did() == []


def test_settings_of_other_sections_change_nothing(toys: Toys, workspace: Path) -> None:
    run(workspace)
    toys.did()
    run(workspace, "bundle.days=3", "media.frames=3")
    assert toys.did() == []


def test_new_input_is_noticed(toys: Toys, workspace: Path) -> None:
    run(workspace)
    toys.did()
    (workspace / "items.csv").write_text("10 20 31", "utf-8")
    run(workspace)
    assert toys.did() == ALL
    (workspace / "items.csv").write_text("10  20  31", "utf-8")
    run(workspace)
    assert toys.did() == ["catalog"], "the same numbers"


def test_until(toys: Toys, workspace: Path) -> None:
    assert list(run(workspace, until="embeddings")) == ["catalog", "embeddings"]
    assert toys.did() == ["catalog", "embeddings"]
    assert not (workspace / "03-tree").exists()
    run(workspace)
    assert toys.did() == ["tree"]


def test_only(toys: Toys, workspace: Path) -> None:
    run(workspace)
    toys.did()
    found = run(workspace, "catalog.positive=0.3", "tree.items_per_cluster=1", only="tree")
    assert toys.did() == ["tree"], "from what is there, out of date or not"
    assert found == {"tree": 61}


def test_only_without_its_inputs_is_one_sentence(toys: Toys, workspace: Path) -> None:
    with pytest.raises(UserError, match="03-tree needs 01-catalog"):
        run(workspace, only="tree")
    run(workspace, until="catalog")
    with pytest.raises(UserError, match="03-tree needs 02-embeddings"):
        run(workspace, only="tree")


@pytest.mark.parametrize("which", ["until", "only"])
def test_a_stage_that_there_is_not(toys: Toys, workspace: Path, which: str) -> None:
    with pytest.raises(UserError, match=r"no stage 'tere'.* catalog, embeddings, tree"):
        run(workspace, **{which: "tere"})
    assert toys.did() == []


def test_until_and_only_exclude_each_other(toys: Toys, workspace: Path) -> None:
    with pytest.raises(UserError, match="--until and --only"):
        run(workspace, until="catalog", only="tree")


def test_a_failure_keeps_what_was_made_and_the_next_run_goes_on(toys: Toys, workspace: Path) -> None:
    toys.fail_in = "embeddings"
    with pytest.raises(RuntimeError, match="the power went out"):
        run(workspace)
    assert toys.did() == ["catalog", "embeddings"]
    assert (workspace / "02-embeddings.scratch" / "checkpoint").exists()
    toys.fail_in = None
    assert run(workspace)["tree"] == 124
    assert toys.did() == ["embeddings", "tree"]
    assert not list(workspace.glob("*.scratch"))


def test_a_failure_leaves_the_old_artifact(toys: Toys, workspace: Path) -> None:
    first = run(workspace)
    toys.fail_in = "embeddings"
    with pytest.raises(RuntimeError):
        run(workspace, "embeddings.dim=1")
    record = artifact.read_record(workspace / "02-embeddings")
    assert record is not None
    assert artifact.edited(workspace / "02-embeddings", record) == []
    toys.fail_in = None
    toys.did()
    assert run(workspace) == first
    assert toys.did() == []
    assert not [p for p in workspace.iterdir() if p.suffix in (".part", ".scratch", ".old")]


@pytest.mark.parametrize("history", [1, 4])
def test_histories_that_no_table_answers_are_refused_before_anything_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, history: int
) -> None:
    made: list[str] = []
    monkeypatch.setattr(pipeline, "_make", lambda workspace, config, stage: made.append(stage.name))
    monkeypatch.setattr(pipeline, "prepare", lambda config: None)
    settings = config.load(tmp_path / "byway.toml", (f"transitions.history={history}",))
    with pytest.raises(UserError, match=f"transitions.history is {history}"):
        pipeline.run(tmp_path, settings)
    assert made == []
    pipeline.run(tmp_path, settings, until="language_model")
    assert made[-1] == "language_model"


def test_a_file_that_is_gone_is_made_again(toys: Toys, workspace: Path) -> None:
    first = run(workspace)
    (workspace / "02-embeddings" / "values.json").unlink()
    toys.did()
    assert run(workspace) == first
    assert toys.did() == ["embeddings"]


def test_what_cannot_be_read_is_damaged_and_says_so(toys: Toys, workspace: Path) -> None:
    run(workspace)
    (workspace / "01-catalog" / "values.json").write_text("[1, 2", "utf-8")
    with pytest.raises(UserError, match=r"01-catalog is damaged .*; delete it and run again"):
        run(workspace, "embeddings.dim=3")


def test_what_was_kept_out_is_told(monkeypatch: pytest.MonkeyPatch, toys: Toys, workspace: Path) -> None:
    said: list[str] = []
    monkeypatch.setattr(pipeline, "say", said.append)
    written = toys.write

    def write(name: str, work: Work, values: object) -> artifact.Outcome:
        outcome = written(name, work, values)
        outcome.metrics["catalog.quarantined"] = {"bad time": 3, "no text": 2000, "a": 1, "b": 2}
        return outcome

    monkeypatch.setattr(toys, "write", write)
    run(workspace, until="catalog")
    (told,) = [line for line in said if "kept out" in line]
    assert "2,006 kept out (no text: 2,000, bad time: 3, b: 2)" in told
    assert "01-catalog/quarantine.parquet" in told


def test_a_second_run_is_refused(toys: Toys, workspace: Path) -> None:
    with artifact.locked(workspace), pytest.raises(UserError, match="in use by process"):
        run(workspace)


def test_gates_that_fail_are_told_and_stop_nothing(
    toys: Toys, workspace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(pipeline, "say", said.append)
    run(workspace, "embeddings.dim=1000", "catalog.positive=0")
    assert any("gate" in line and "catalog.size = 2" in line and "at least 3" in line for line in said)
    assert toys.did() == ALL


def test_a_level_without_a_wider_one_is_said_before_the_pairs_are_made(
    work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(stages, "say", said.append)
    for overrides in ((), ("transitions.level=3",), ("transitions.level=1",)):
        settings = config.load(tmp_path / "byway.toml", overrides)
        with pytest.raises((LookupError, FileNotFoundError, UserError)):  # there is nothing to make them of
            stages.PAIRS.build(work, Inputs(tmp_path, settings, stages.PAIRS))
    (told,) = said
    assert "transitions.level is 1" in told
    assert "for level 2, and neither served" in told


def test_a_stage_reads_what_it_declares_and_nothing_else(toys: Toys, workspace: Path) -> None:
    """What is read undeclared would change without the artifact being out of date."""
    _, doubles, _ = toys.stages
    hidden = replace(doubles, reads=())
    with pytest.raises(LookupError, match="embeddings does not declare that it reads 01-catalog"):
        hidden.build(None, Inputs(workspace, config.Config(), hidden))  # type: ignore[arg-type]


def test_artifacts_are_loaded_from_the_folders_of_stages() -> None:
    named = re.findall(r'self\.load\("(.+?)"', inspect.getsource(artifacts))
    assert set(named) <= {stage.folder for stage in STAGES}
    assert len(named) == 17


def test_a_change_is_told_as_it_is(toys: Toys, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Brackets in a setting are no markup."""
    run(workspace)
    (workspace / "[a-z]items.csv").write_text("1", "utf-8")
    with progress.console.capture() as told:
        run(workspace, "catalog.items=[a-z]items.csv", "catalog.event_columns={user = '[/x]'}")
    assert "[a-z]items.csv" in told.get().replace("\n", "")


def test_figures_are_those_of_all_records(toys: Toys, workspace: Path) -> None:
    assert pipeline.records(workspace) == {}
    run(workspace, until="embeddings")
    found = pipeline.records(workspace)
    assert list(found) == ["catalog", "embeddings"]
    assert pipeline.figures(found) == {"catalog.values": [10, 20, 30], "embeddings.values": [0, 0, 0]}


# The real table


def sources_of(workspace: Path, *overrides: str) -> dict[str, str]:
    return artifacts.inputs_of(workspace, config.load(workspace / "byway.toml", overrides), STAGES[0])


def test_sources_are_files_patterns_and_folders(tmp_path: Path) -> None:
    for name in ("a/data.csv", "b/data.csv", "b/data-2.csv", "b/deep/data.csv", "b/readme.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name, "utf-8")

    def names(items: str, events: str = "") -> list[str]:
        return list(sources_of(tmp_path, f"catalog.items={items}", f"catalog.events={events}"))

    assert names("a/data.csv", "b/data.csv") == ["items/data.csv", "events/data.csv"]
    assert names("a/data.csv", "b/data*.csv") == ["items/data.csv", "events/data-2.csv", "events/data.csv"]
    assert names("b") == ["items/data-2.csv", "items/data.csv", "items/deep/data.csv"]
    assert names("b", "a/data.csv")[-1] == "events/data.csv"
    assert names("nothing.csv") == []
    assert names(str(tmp_path / "a" / "data.csv")) == ["items/data.csv"]


@pytest.mark.parametrize("changed", ["a/data.csv", "b/data.csv"])
def test_files_of_one_name_are_told_apart(tmp_path: Path, changed: str) -> None:
    for name in ("a/data.csv", "b/data.csv"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(name, "utf-8")
    settings = ("catalog.items=a/data.csv", "catalog.events=b/data.csv")
    before = sources_of(tmp_path, *settings)
    (tmp_path / changed).write_text("other", "utf-8")
    after = sources_of(tmp_path, *settings)
    assert [name for name in before if before[name] != after[name]] == [
        {"a": "items", "b": "events"}[changed[0]] + "/data.csv"
    ]


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_settings_are_those_that_the_record_gives_back(tmp_path: Path, stage: Stage) -> None:
    """A tuple comes back as a list, and is no change."""
    chosen = config.load(tmp_path / "byway.toml", ("tree.levels=[2, 4, 8, 16]", "descriptions.drop=['film']"))
    for each in (config.Config(), chosen):
        settings = artifacts.settings_of(each, stage)
        with artifact.part(tmp_path / "a", stage.name, settings, {}):
            pass
        artifact.commit(tmp_path / "a", stage.name, settings, {}, artifact.Outcome())
        record = artifact.read_record(tmp_path / "a")
        assert record is not None
        assert artifact.drift(record, artifacts.settings_of(each, stage), {}) == []
        others = {*stage.sections, *stage.run, "seed", "version"}
        section = getattr(each, stage.name, None)
        shaping = {f.name for f in fields(section)} - config.operational(type(section)) if section else set[str]()
        assert set(settings) == shaping | others


ARITHMETIC = ("language_model", "transition_table", "multimodal_model", "context_table", "curations", "views")
"""The stages that a model is trained or asked in."""


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("experiment", "item_policy.dim=32"),
        ("curations", "language_model.steps=5"),
        ("views", "media.frames=3"),
        *((name, "run.precision=float32") for name in ARITHMETIC),
        *((name, "run.processes=2") for name in ("language_model", "item_policy", "curations")),
    ],
)
def test_a_stage_that_trains_anew_is_out_of_date_when_its_training_changes(
    tmp_path: Path, name: str, setting: str
) -> None:
    before, after = (config.load(tmp_path / "byway.toml", settings) for settings in ((), (setting,)))
    stage = next(stage for stage in STAGES if stage.name == name)
    assert artifacts.settings_of(before, stage) != artifacts.settings_of(after, stage)


OTHERS = {"device": "cpu", "price": "[1, 2]"}
"""Other values of operational settings that are no numbers."""
OPERATIONAL = [
    f"{f.name}.{name}={OTHERS.get(name) or getattr(getattr(config.Config(), f.name), name) + 3}"
    for f in fields(config.Config)
    for name in sorted(config.operational(type(getattr(config.Config(), f.name))))
]
"""Every setting with the mark, at another value than its default."""


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_operational_settings_shape_no_artifact(tmp_path: Path, stage: Stage) -> None:
    assert OPERATIONAL, "some are marked"
    before, after = (config.load(tmp_path / "byway.toml", settings) for settings in ((), OPERATIONAL))
    assert before != after
    assert artifacts.settings_of(before, stage) == artifacts.settings_of(after, stage)


def test_a_new_algorithm_makes_its_artifact_again(
    toys: Toys, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(workspace)
    toys.did()
    numbers, doubles, total = toys.stages
    newer = replace(doubles, version=2)
    monkeypatch.setattr(pipeline, "STAGES", (numbers, newer, replace(total, reads=(numbers, newer))))
    record = artifact.read_record(workspace / newer.folder)
    settings = config.load(workspace / "byway.toml")
    assert record is not None
    now = artifacts.settings_of(settings, newer), artifacts.inputs_of(workspace, settings, newer)
    assert artifact.drift(record, *now) == ["setting version: 1 → 2"]
    run(workspace)
    assert toys.did() == ["embeddings"], "the sum reads the same numbers"


def weights_of(stage: Stage, workspace: Path, *overrides: str) -> dict[str, str]:
    return stage.outside(Inputs(workspace, config.load(workspace / "byway.toml", overrides), stage))


def test_weights_are_inputs_of_the_stages_that_load_them(tmp_path: Path) -> None:
    """A package by its version, a folder by its bytes, a hub name by its revision."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"1")
    shipped = known_models.identity(models.SHIPPED)
    frozen = str(known_models.record(models.SHIPPED).frozen)
    assert weights_of(stages.LANGUAGE_MODEL, tmp_path) == {"model": shipped, "frozen": frozen}
    assert weights_of(stages.CURATIONS, tmp_path) == {"model": shipped, "frozen": frozen}
    assert weights_of(stages.DESCRIPTIONS, tmp_path) == {"tokenizer": shipped}
    assert weights_of(stages.MULTIMODAL_MODEL, tmp_path) == {}
    own = f"language_model.model={folder}"
    before = weights_of(stages.LANGUAGE_MODEL, tmp_path, own)
    named = weights_of(stages.DESCRIPTIONS, tmp_path, own)
    (folder / "model.safetensors").write_bytes(b"2")
    assert weights_of(stages.LANGUAGE_MODEL, tmp_path, own) != before
    assert weights_of(stages.DESCRIPTIONS, tmp_path, own) == named
    for stage, setting, name in (
        (stages.LANGUAGE_MODEL, "language_model.model", "model"),
        (stages.EMBEDDINGS, "embeddings.model", "model"),
        (stages.DESCRIPTIONS, "descriptions.writer", "writer"),
        (stages.MULTIMODAL_MODEL, "multimodal_model.model", "model"),
        (stages.VIEWS, "multimodal_model.model", "model"),
        (stages.VIEWS, "media.model", "pictures"),
    ):
        found = [weights_of(stage, tmp_path, f"{setting}=some/model{end}")[name] for end in ("@1", "@2", "")]
        assert found == ["some/model@1", "some/model@2", "some/model"]


def test_every_stage_has_its_own_folder_and_section() -> None:
    numbers = [stage.number for stage in STAGES]
    assert numbers == sorted(numbers)
    # What the files beside the catalog hold shares its number, and so do the item policy and the planner on it.
    assert sorted(n for n in set(numbers) if numbers.count(n) > 1) == [1, 12]
    assert len({stage.folder for stage in STAGES}) == len(STAGES)
    sections = {f.name for f in fields(config.Config)}
    alone = {"graph", "transition_table", "metrics", "report", "curations", "pairs"}
    assert {stage.name for stage in STAGES} == sections - {"run", "serving", "answers"} | alone
    assert all(re.fullmatch(r"\d\d-[a-z-]+", stage.folder) for stage in STAGES)


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_a_stage_reads_what_was_made_before(stage: Stage) -> None:
    before = STAGES[: STAGES.index(stage)]
    assert set(stage.reads) <= set(before)
    assert stage.only_if is None or stage.only_if[0] in before


def test_records_survive_a_change_of_a_section() -> None:
    """An old record lacks a new setting: that is drift, not damage."""
    old = {**msgspec.to_builtins(config.Bundle()), "seed": 0, "version": stages.BUNDLE.version}
    del old["days"]
    record = artifact.Record("bundle", "0", "", "", old, {}, {}, {}, {}, {}, {}, "", artifact.LAYOUT)
    now = artifacts.settings_of(config.Config(), stages.BUNDLE)
    assert artifact.drift(record, now, {}) == ["setting days: None → 30"]


def test_shards_run_together_and_only_on_what_is_up_to_date(
    toys: Toys, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled: list[tuple[Any, ...]] = []

    def fill(work: Work, inputs: Inputs, shard: tuple[int, int]) -> None:
        filled.append((toys.read(inputs, 0), shard, work.scratch.name))

    table = replace(stages.TRANSITION_TABLE, reads=toys.stages[:1])
    monkeypatch.setattr(pipeline, "TRANSITION_TABLE", table)
    monkeypatch.setattr(pipeline, "fill_table", fill)
    settings = config.load(workspace / "byway.toml")
    with pytest.raises(UserError, match="until language_model"):
        pipeline.run_shard(workspace, settings, 1, 3)
    run(workspace, until="tree")
    with artifact.locked(workspace, together=True):  # another shard
        pipeline.run_shard(workspace, settings, 2, 3)
    assert filled == [([10, 20, 30], (2, 3), "08-transition-table.scratch")]
    with artifact.locked(workspace), pytest.raises(UserError, match="in use"):
        pipeline.run_shard(workspace, settings, 2, 3)
    changed = config.load(workspace / "byway.toml", ["catalog.positive=0.15"])
    with pytest.raises(UserError, match="01-catalog"):
        pipeline.run_shard(workspace, changed, 1, 3)
