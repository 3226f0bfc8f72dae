"""Every stage on a tiny world with a tiny real model, through the command line's own functions."""

import html
import json
import shutil
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from byway import cli
from byway.base import config
from byway.evaluation import wording
from byway.serving import bundle, shapes
from byway.simulation import loop, world
from byway.simulation.people import WorldSettings
from byway.transitions import curate
from byway.transitions import table as tables
from byway.workflow import artifacts, pipeline, showing
from tests.language.conftest import make_tiny

TOML = """
[run]
precision = "float32"

[catalog]
source = "parquet"
items = "source/items.parquet"
events = "source/events.parquet"

[tree]
items_per_cluster = 20

[language_model]
model = "model"
steps = 4
block_clusters = 5
learning_rate = 0.01

[item_policy]
epochs = 1
dim = 16
"""
FIGURES = {
    "tree.levels",
    "tree.balance_blended",
    "tree.balance_raw",
    "tree.coherence",
    "language.match_rate",
    "language.distinct_outputs",
    "language.recall_at_1.train",
    "language.recall_at_5.train",
    "language.recall_at_10.train",
    "language.recall_at_1.heldout",
    "language.recall_at_5.heldout",
    "language.recall_at_10.heldout",
    "language.macro_recall_at_10.heldout",
    "baseline.popularity.recall_at_10.heldout",
    "baseline.successor.recall_at_10.heldout",
    "baseline.zero_shot.recall_at_10.heldout",
    "table.entries",
    "table.legal",
    "table.seconds",
    "item_policy.recall_at_10",
    "item_policy.ndcg_at_10",
    "baseline.item_popularity.recall_at_10",
}
"""The stable keys that others read."""


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from byway.base import models

    folder = tmp_path_factory.mktemp("w")
    make_tiny().save_pretrained(folder / "model")
    models.load_tokenizer("smollm2-135m").save_pretrained(folder / "model")
    built = world.build(0, WorldSettings(n_items=450, n_users=120, events_per_user=30.0))
    loop.write(built, loop.simulate(built), folder / "source")
    (folder / "byway.toml").write_text(TOML.replace('"model"', f'"{folder / "model"}"'), "utf-8")
    pipeline.run(folder, config.load(folder / "byway.toml"))
    return folder


def test_every_stage_made_its_artifact(workspace: Path) -> None:
    # No item of this world has media, so paper 2's stages have nothing to do.
    made = [
        stage.name for stage in pipeline.STAGES if not stage.asked_for and not artifacts.skipped(workspace, stage)
    ]
    assert [
        name
        for name in pipeline.records(workspace)
        if not next(s for s in pipeline.STAGES if s.name == name).asked_for
    ] == made
    unmade = {stage.name for stage in pipeline.STAGES if not stage.asked_for} - set(made)
    assert unmade == {"media", "pairs", "multimodal_model", "context_table"}


def test_a_second_run_does_nothing(workspace: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in workspace.glob("*/record.json")}
    pipeline.run(workspace, config.load(workspace / "byway.toml"))
    assert {p: p.stat().st_mtime_ns for p in workspace.glob("*/record.json")} == before


OTHERS = {"device": "cpu", "price": "[1, 2]"}
"""Other values of operational settings that are no numbers."""


def test_operational_settings_cost_nothing(workspace: Path) -> None:
    """Every setting with the mark at another value, and no stage is built again."""
    before = {p: p.stat().st_mtime_ns for p in workspace.glob("*/record.json")}
    sections = {f.name: getattr(config.load(workspace / "byway.toml"), f.name) for f in fields(config.Config)}
    changed = [
        f"{section}.{name}={OTHERS.get(name) or getattr(own, name) + 1}"
        for section, own in sections.items()
        for name in sorted(config.operational(type(own)))
    ]
    assert changed
    pipeline.run(workspace, config.load(workspace / "byway.toml", changed))
    assert {p: p.stat().st_mtime_ns for p in workspace.glob("*/record.json")} == before


def test_every_figure_stands_under_its_key(workspace: Path) -> None:
    shown = json.loads(showing.as_json(workspace, config.load(workspace / "byway.toml")))
    assert shown["figures"].keys() >= FIGURES
    for stage in pipeline.STAGES:
        if stage.asked_for or artifacts.skipped(workspace, stage):
            continue
        assert {"record", "metrics", "gates"} <= shown[stage.folder].keys()
        assert shown[stage.folder]["drift"] == []
    assert shown["figures"]["table.legal"] == 1.0


def test_a_person_can_read_it(workspace: Path) -> None:
    text = showing.as_text(workspace, config.load(workspace / "byway.toml"), 2)
    assert "08-transition-table" in text
    assert "items" in text


def test_ways_to_curate_are_compared_and_drawn(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped after its first model, the comparison goes on with the second, to what one that ran through found."""
    from byway.evaluation import comparison, curations, report

    made: list[tuple[str, int]] = []
    real = curations._one

    def counted(kind: str, seed: int, folder: Path, **more: Any) -> dict[str, Any]:
        if made == [("diversified", 0)]:
            made.append(("stopped", 0))
            raise KeyboardInterrupt
        made.append((kind, seed))
        return real(kind, seed, folder, **more)

    monkeypatch.setattr(curations, "_one", counted)
    monkeypatch.setattr(comparison, "SEEDS", 1)
    settings = config.load(workspace / "byway.toml")
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(workspace, settings, only="curations")
    found = pipeline.run(workspace, settings, only="curations")["curations"].metrics
    assert made == [("diversified", 0), ("stopped", 0), ("random", 0)]
    clusters = pipeline.records(workspace)["tree"].metrics["tree.levels"][1]
    for kind in ("diversified", "random"):
        histogram = found[f"language.labels.histogram.{kind}"]
        assert sum(histogram) == pytest.approx(clusters**2)
        assert 0 <= found[f"language.labels.gini.{kind}"] < 1
        assert found[f"language.labels.gini.{kind}.low"] is None, "one seed has no interval"
        assert 0 <= found[f"curations.turned.same_first.{kind}"] <= 1
        assert 0 <= found[f"curations.served.recall_at_10.heldout.{kind}"] <= 1
    assert found["curations.samples.diversified"] == found["curations.samples.random"]
    (drawing,) = report._labels(found)
    assert "diversified samples" in drawing
    assert "random samples" in drawing
    assert "(a single seed)" in wording.curations(found)[0]


def test_a_user_of_the_log_is_answered(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from byway.data import events

    users = events.load_users(workspace / "01-catalog")
    cli.recommend(workspace, user=users[3], json=True)
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert len(answer["items"]) > 0
    assert answer["strategy"] == "person"
    shown = [item["cluster"] for item in answer["items"]]
    assert shown[0] == answer["cluster"]
    assert not set(shown) & set(answer["interests"])


def test_shards_join_to_the_table_of_the_single_run(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy, table = tmp_path / "w", "08-transition-table"
    shutil.copytree(workspace, copy)
    shutil.rmtree(copy / table)
    for shard in ("2/2", "1/2"):
        cli.run(copy, shard=shard, json=True)
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert not (copy / table).exists()
    pipeline.run(copy, config.load(copy / "byway.toml"), until="transition_table")
    for name in ("clusters.npy", "scores.npy", "model.npy"):
        assert (copy / table / name).read_bytes() == (workspace / table / name).read_bytes()


def test_three_interests_go_the_whole_way(workspace: Path, tmp_path: Path) -> None:
    copy = tmp_path / "w"
    shutil.copytree(workspace, copy)
    records = pipeline.run(copy, config.load(copy / "byway.toml", ["transitions.history=3"]))
    assert records["transition_table"].counts["triples"] > 0
    triples = tables.triples_of(curate.load(copy / "06-transitions"), 10**6)
    assert triples is not None
    opened = bundle.load(copy / "13-bundle")
    assert opened.triples is not None
    assert (opened.interests, len(opened.triples.keys)) == (3, len(triples))
    assert shapes.faults(opened, bundle.load_levels(copy / "13-bundle")) == []


def test_another_setting_makes_only_what_depends_on_it_again(workspace: Path) -> None:
    before = {p.parent.name: p.stat().st_mtime_ns for p in workspace.glob("*/record.json")}
    changed = config.load(workspace / "byway.toml", ["item_policy.epochs=2"])
    pipeline.run(workspace, changed)
    after = {p.parent.name: p.stat().st_mtime_ns for p in workspace.glob("*/record.json")}
    assert {name for name in after if after[name] != before[name]} == {"12-item-policy", "12-planner", "13-bundle"}


SMALL = ["users=100", "days=4", "retrain_every=2"]


def test_every_arm_is_lived_and_reported(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from byway.simulation import experiment, runs
    from byway.simulation.arms import ARMS, CONTROL, MULTIMODAL

    own = config.load(workspace / "byway.toml", [f"experiment.{setting}" for setting in SMALL])
    lived: list[str] = []
    live = runs.live

    def counted(*arguments: Any, **settings: Any) -> Any:
        if len(lived) == 9:
            raise KeyboardInterrupt
        lived.append("one")
        return live(*arguments, **settings)

    monkeypatch.setattr(experiment, "AA_PAIRS", 2)
    monkeypatch.setattr(runs, "live", counted)
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(workspace, own, only="experiment")
    monkeypatch.setattr(runs, "live", lambda *a, **k: lived.append("one") or live(*a, **k))
    pipeline.run(workspace, own, only="experiment")
    # 17 arms beside the control, 2 pairs of controls, 6 arms where liking is chance; none was lived twice.
    assert len(lived) == 17 + 4 + 6
    found = experiment.load(workspace / "15-experiment")
    figures = pipeline.figures(pipeline.records(workspace))
    assert list(found["arms"]) == [name for name in ARMS if name != MULTIMODAL]
    for name in found["arms"]:
        row = figures[f"experiment.arms.{name}.platform.positive_rate"]
        assert row["low"] <= row["mean"] <= row["high"]
        assert (f"experiment.arms.{name}.novel_impressions" in figures) == (name != CONTROL)
    assert figures["experiment.arms.placebo.novel_impressions"]["mean"] == 1
    assert figures["experiment.controls.leaking"] == []
    assert found["setting"]["design"] == "paired"
    for name in set(found["arms"]) - {CONTROL}:
        assert f"experiment.lift.control.{name}.new_clusters" in figures
        assert f"experiment.lift.control.{name}.platform.new_positive" in figures
        assert len(found["growth"][name]["watch"]) == 4
    assert figures["experiment.controls.aa.tests"] > 10
    assert set(figures["experiment.controls.chance.byway"]) == {"rate", "lift", "beats_placebo"}
    pipeline.run(workspace, own, only="report")
    page = html.unescape((workspace / "16-report" / "report.html").read_text("utf-8"))
    assert "http" not in page.replace("http-equiv", "")
    assert "<script" not in page
    for title in ("figure 3", "figure 4a", "figure 4b", "figure 4c", "figure 5", "figure 6", "7b"):
        assert title in page, title
    assert "no arm's answer changed" in page
    assert "not what people are like" in page
