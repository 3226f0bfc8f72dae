"""Paper 2's stages on a tiny world with a few real videos and a tiny real model, through the command line."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from byway import cli
from byway.base import config
from byway.evaluation import comparison, views, wording
from byway.multimodal import tune
from byway.simulation import experiment, loop, media, world
from byway.simulation.people import WorldSettings
from byway.workflow import pipeline, showing
from tests.language.conftest import make_tiny
from tests.workflow.test_demo import SMALL, TOML

SEEN = """
[multimodal_model]
model = "model"
prompts = ["thought", "both", "video", "text"]
steps = 4

[context_table]
coverage = 0.05
"""
pytestmark = pytest.mark.slow
FIGURES = {
    *(
        f"video.{figure}.{kind}"
        for figure in ("match_rate", "recall")
        for kind in ("text", "video", "both", "thought")
    ),
    "video.coverage",
    "video.similar_satisfaction",
    "video.serendipitous_satisfaction",
    "video.refresh_cost_ratio",
}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from byway.base import models

    folder = tmp_path_factory.mktemp("w")
    make_tiny().save_pretrained(folder / "model")
    models.load_tokenizer("smollm2-135m").save_pretrained(folder / "model")
    built = world.build(0, WorldSettings(n_items=450, n_users=120, events_per_user=30.0))
    loop.write(built, loop.simulate(built), folder / "source")
    media.film(built, folder / "source", 0.06, 0.1)
    damaged = next((folder / "source" / "media").glob("*.mp4"))
    damaged.write_bytes(damaged.read_bytes()[:700])
    (folder / "byway.toml").write_text((TOML + SEEN).replace('"model"', f'"{folder / "model"}"'), "utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tune, "FINAL_ON", 6)
        pipeline.run(folder, config.load(folder / "byway.toml"))
    return folder


def test_a_film_that_was_stopped_goes_on_to_the_same_files(tmp_path: Path) -> None:
    built = world.build(0, WorldSettings(n_items=450, n_users=120, events_per_user=30.0))
    log = loop.simulate(built)
    files: list[dict[str, bytes]] = []
    for lost in (False, True):
        loop.write(built, log, tmp_path)
        media.film(built, tmp_path, 0.02, 0.04)
        made = [
            *sorted(tmp_path.glob("media/*")),
            *sorted(tmp_path.glob("thumbnails/*")),
            tmp_path / "items.parquet",
        ]
        files.append({p.name: p.read_bytes() for p in made})
        if not lost:
            kept, *gone = made[:-1:3]
            written = kept.stat().st_mtime_ns
            for path in made[:-1]:
                if path.stem in {g.stem for g in gone}:
                    path.unlink()
    assert len(files[0]) > 20
    assert files[0] == files[1]
    assert kept.stat().st_mtime_ns == written


def test_what_films_ends_with_who_asked_for_it(tmp_path: Path) -> None:
    code = f"""
from pathlib import Path
from byway.simulation import loop, media, world
from byway.simulation.people import WorldSettings
if __name__ == "__main__":
    built = world.build(0, WorldSettings(n_items=450, n_users=120, events_per_user=30.0))
    loop.write(built, loop.simulate(built), Path({str(tmp_path)!r}))
    media.film(built, Path({str(tmp_path)!r}), 1.0, 0.0)
"""
    (tmp_path / "film.py").write_text(code, "utf-8")
    asking = subprocess.Popen([sys.executable, tmp_path / "film.py"], stderr=subprocess.DEVNULL)
    try:
        until(lambda: len(list(tmp_path.glob("media/*.mp4"))) > 2)
        children = Path(f"/proc/{asking.pid}/task/{asking.pid}/children").read_text("utf-8").split()
    finally:
        asking.kill()
        asking.wait()
    assert len(children) > 1
    until(lambda: not any(alive(child) for child in children))


def until(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "this took too long"
        time.sleep(0.1)


def alive(process: str) -> bool:
    """Whether it runs: one that has ended and that nobody has asked about is still listed."""
    try:
        return Path(f"/proc/{process}/stat").read_text("utf-8").rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_every_stage_made_its_artifact_and_every_figure_stands_under_its_key(workspace: Path) -> None:
    stages = [stage for stage in pipeline.STAGES if not stage.asked_for]
    assert list(pipeline.records(workspace)) == [stage.name for stage in stages]
    shown = json.loads(showing.as_json(workspace, config.load(workspace / "byway.toml")))
    assert shown["figures"].keys() >= FIGURES
    assert all(shown[stage.folder]["drift"] == [] for stage in stages)
    assert sum(shown["figures"]["media.quarantined"].values()) == 1
    assert shown["figures"]["media.items"] > 30


def test_an_item_is_answered_with_a_cluster_that_is_not_its_own(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from byway.data import catalog
    from byway.multimodal import plan

    ids = catalog.load(workspace / "01-catalog").ids()
    table = plan.load(workspace / "11-context-table")
    alone = int(np.flatnonzero((table.via >= 0) & ~np.isin(np.arange(len(ids)), table.item))[0])
    for item in (int(table.item[0]), alone):
        cli.recommend(workspace, item=ids[item], json=True)
        answer = json.loads(capsys.readouterr().out)
        assert answer["strategy"] == "context"
        assert answer["items"]
        assert answer["cluster"] not in answer["interests"]
        assert {shown["cluster"] for shown in answer["items"]} == {answer["cluster"]}
        assert any("too little watched" in reason for reason in answer["reasons"]) == (item == alone)


def test_another_file_is_looked_at_again_and_nothing_else(workspace: Path) -> None:
    files = sorted((workspace / "source" / "thumbnails").glob("*.jpg"))
    files[0].write_bytes(files[1].read_bytes())
    pipeline.run(workspace, config.load(workspace / "byway.toml"), only="media")
    metrics = pipeline.records(workspace)["media"].metrics
    # The changed thumbnail's item is new, and so is the one whose only file was refused, unless it has a thumbnail.
    assert metrics["media.taken_over"] >= metrics["media.items"] - 2


def test_views_are_compared_and_drawn(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped after its second model, the comparison goes on with the third; who is in two is trained once."""
    made: list[tuple[str, int, str]] = []
    real = tune.fine_tune

    def counted(
        model: Any, settings: config.MultimodalModel, pairs: Any, asked: Any, work: Any, *, every: int
    ) -> Any:
        if len(made) == 2:
            made.append(("stopped", 0, ""))
            raise KeyboardInterrupt
        made.append((settings.prompts[0], asked.picks.shape[1], settings.pictures))
        return real(model, settings, pairs, asked, work, every=every)

    monkeypatch.setattr(tune, "fine_tune", counted)
    monkeypatch.setattr(views, "EVALUATE_EVERY", 1)
    monkeypatch.setattr(comparison, "SEEDS", 1)
    monkeypatch.setattr(tune, "FINAL_ON", 6)
    settings = config.load(workspace / "byway.toml", ["multimodal_model.steps=2"])
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(workspace, settings, only="views")
    found = pipeline.run(workspace, settings, only="views")["views"].metrics
    of = [(kind, 4, "frames") for kind in ("text", "video", "both", "thought", "both")]  # the last sees noise
    more = [("thought", n, "frames") for n in (1, 2, 8)]
    assert made == [*of[:2], ("stopped", 0, ""), *of[2:], *more, ("thought", 1, "thumbnail")]
    for figure in ("recall_at_1", "recall_at_10", "match_rate"):
        shared = [found[f"views.{name}.{figure}"] for name in ("prompts.chain of thought", "frames.4 frames")]
        assert shared[0] == shared[1]
        assert 0 <= shared[0]["mean"] <= 1
        assert shared[0]["low"] is None
    assert [point["step"] for point in found["views.pictures.curves"]["thumbnail"]] == [0, 1, 2]
    assert [claim["better"] for claim in found["views.pictures.claims"]] == ["thumbnail"]
    pipeline.run(workspace, settings, only="report")
    page = (workspace / "16-report" / "report.html").read_text("utf-8")
    for title in ("figure 3: four prompts", "figure 4: number of frames", "figure 5: thumbnail or one frame"):
        assert f"Paper 2, {title}, recall at 10" in page
        assert f"Paper 2, {title}, recall of free answers" in page
        assert f"Paper 2, {title}, match rate" in page
    assert wording.NO_EXPERIMENT in page
    assert "a single seed" in page


def test_the_multimodal_arm_lives_beside_the_others_and_its_gain_is_told_by_what_there_was_to_see(
    workspace: Path,
) -> None:
    small = [f"experiment.{setting}" for setting in SMALL]
    strict = ['experiment.arms=["multimodal", "placebo"]', 'bundle.surprise="never_met"']
    settings = config.load(workspace / "byway.toml", [*small, *strict])
    figures = pipeline.figures(pipeline.run(workspace, settings, only="experiment"))
    assert figures["experiment.arms.multimodal.novel_impressions"]["mean"] == 1.0
    assert figures["experiment.controls.leaking"] == []
    found = experiment.load(workspace / "15-experiment")
    assert list(found["arms"]) == ["control", "placebo", "multimodal"]
    by_bucket = [found["arms"]["multimodal"][f"bucket_{b}.source"]["mean"] for b in range(1, 6)]
    assert all(0 <= share <= 1 for share in by_bucket if share is not None)
    assert any(share is not None for share in by_bucket)
