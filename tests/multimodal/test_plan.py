"""The context table: coverage, neighbours, and what a refresh costs."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byway.base import artifact, config, models
from byway.base.artifact import Outcome, Work
from byway.base.errors import UserError
from byway.data.media import Media
from byway.language import prompts
from byway.language import tune as language
from byway.multimodal import curate, plan, tune, weigh
from byway.multimodal.contexts import Contexts, serendipitous
from byway.multimodal.curate import Pairs
from tests.language.conftest import make_tiny
from tests.multimodal import planted


@settings(max_examples=100, deadline=None)
@given(
    traffic=st.lists(st.integers(0, 50), min_size=1, max_size=40),
    share=st.floats(0.01, 1),
    seed=st.integers(0, 9),
)
def test_the_most_popular_items_cover_the_share_and_none_is_spare(
    traffic: list[int], share: float, seed: int
) -> None:
    weight = np.array(traffic, np.float64)
    able = np.random.default_rng(seed).random(len(weight)) < 0.7
    items = plan.covered(weight, able, share)
    total, got = weight.sum(), weight[items].sum()
    assert able[items].all()
    assert (weight[items] > 0).all()
    if got < share * total - 1e-6:
        assert set(items) == set(np.flatnonzero(able & (weight > 0)))
    elif len(items):
        assert got - weight[items].min() < share * total + 1e-6
        others = np.setdiff1d(np.flatnonzero(able), items)
        assert weight[others].max(initial=0) <= weight[items].min()


def test_an_uncovered_item_is_answered_by_its_nearest_covered_neighbour_in_its_cluster() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(60, 8)).astype(np.float32)
    cluster = rng.integers(0, 5, 60).astype(np.int32)
    items = np.flatnonzero((rng.random(60) < 0.3) & (cluster != 4)).astype(np.int32)
    via = plan.nearest(items, vectors, cluster)
    for i in range(60):
        own = [p for p, c in enumerate(items) if cluster[c] == cluster[i]]
        if i in items:
            assert items[via[i]] == i
        elif not own:
            assert via[i] == -1
        else:
            assert via[i] == max(own, key=lambda p: float(vectors[i] @ vectors[items[p]]))
    assert (via == -1).sum() == (cluster == 4).sum()


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Pairs]:
    """A tiny model, fine-tuned for a moment on what the pictures tell."""
    folder = tmp_path_factory.mktemp("tuned")
    make_tiny().save_pretrained(folder / "tiny")
    models.load_tokenizer("smollm2-135m").save_pretrained(folder / "tiny")
    seen = planted.seen(folder)
    curate.build(_work(folder / "pairs"), 2, planted.serendipitous(), planted.tree(), seen)
    pairs = curate.load(folder / "pairs")
    settings = config.MultimodalModel(
        prompts=("video",),
        steps=45,
    )
    patch = pytest.MonkeyPatch()
    patch.setattr(tune, "LEARNING_RATE", 1e-2)
    patch.setattr(tune, "WARMUP", 5)
    # No model is named, so that the workspace's own is taken.
    spoken = language.Tuned(folder / "tiny", "smollm2-135m", "block", prompts.ENDINGS["block"], [])
    with artifact.part(folder / "model", "multimodal_model", {}, {}) as work:
        outcome = tune.build(
            work,
            settings,
            pairs=pairs,
            asked=planted.contexts(settings, pairs, seen),
            weights=spoken.path,
            arithmetic="float32",
        )
    patch.undo()
    artifact.commit(folder / "model", "multimodal_model", {}, {}, outcome)
    assert outcome.metrics["video.recall.video"] > 0.9
    assert outcome.metrics["video.baseline.counts.recall_at_1"] == 1.0
    assert outcome.metrics["video.baseline.popularity.recall_at_1"] < 0.4
    assert outcome.metrics["video.curve"][0]["recall_at_1.video"] < 0.6
    return folder / "model", pairs


def _work(path: Path) -> Work:
    scratch = path.with_name(path.name + ".scratch")
    for folder in (path, scratch):
        folder.mkdir()
    return Work(path, scratch, np.random.default_rng(0))


SETTINGS = config.ContextTable(coverage=1.0, by="model")


def table(
    path: Path,
    tuned: tuple[Path, Pairs],
    rows: np.ndarray,
    batch: int = 8,
    settings: config.ContextTable = SETTINGS,
    **changed: Any,
) -> Outcome:
    """Build the artifact at `path` from the items `rows`, as the pipeline does."""
    model, pairs = tuned
    seen = planted.seen(path, rows=rows.astype(np.int32))
    if "digest" in changed:
        seen.digest[0] = changed["digest"]
    with (
        pytest.MonkeyPatch.context() as patch,
        artifact.part(path, "context_table", {}, {"rows": str(rows)}) as work,
    ):
        patch.setattr(plan, "BATCH", batch)
        outcome = plan.build(
            work,
            settings,
            events=planted.serendipitous(),
            vectors=np.eye(planted.ITEMS, 256, dtype=np.float32),
            asked=planted.contexts(tune.load(model).settings, pairs, seen),
            pairs=pairs,
            model=tune.load(model),
            arithmetic="float32",
        )
    artifact.commit(path, "context_table", {}, {"rows": str(rows)}, outcome)
    return outcome


def test_a_refresh_computes_what_is_new_or_changed_and_ends_as_a_full_run(
    tmp_path: Path, tuned: tuple[Path, Pairs], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The last items of clusters are new: their pictures do not depend on who else is there.
    monkeypatch.setattr(
        planted, "seen", lambda path, rows=None, noise=0.0, real=planted.seen: real(path, noise, rows)
    )
    every = np.arange(planted.ITEMS)
    old = every[every % 8 < 6]
    assert table(tmp_path / "t", tuned, old).metrics["video.refresh_cost_ratio"] == 1
    outcome = table(tmp_path / "t", tuned, every)
    assert outcome.counts == {"items": 48, "computed": 12, "taken_over": 36, "left": 0}
    assert outcome.metrics["video.refresh_cost_ratio"] == 0.25
    table(tmp_path / "full", tuned, every, batch=5)
    one, other = plan.load(tmp_path / "t"), plan.load(tmp_path / "full")
    np.testing.assert_array_equal(one.item, other.item)
    np.testing.assert_array_equal(one.clusters, other.clusters)
    np.testing.assert_allclose(one.scores, other.scores, atol=1e-3)
    assert (one.clusters[:, 0] == (one.item // 8) ^ 1).mean() > 0.9
    assert not (one.clusters == (one.item // 8)[:, None]).any()
    # What left is dropped; a file with other bytes is computed anew.
    outcome = table(tmp_path / "t", tuned, every[:-8], digest="other")
    assert outcome.counts == {"items": 40, "computed": 1, "taken_over": 39, "left": 9}


def test_a_run_that_is_cut_goes_on(
    tmp_path: Path, tuned: tuple[Path, Pairs], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer, calls = plan.answer, 0

    def cut(*arguments: Any) -> bytes:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt
        return answer(*arguments)

    monkeypatch.setattr(plan, "answer", cut)
    with pytest.raises(KeyboardInterrupt):
        table(tmp_path / "t", tuned, np.arange(planted.ITEMS))
    table(tmp_path / "t", tuned, np.arange(planted.ITEMS))
    assert calls == 4 + 3
    shutil.rmtree(tmp_path / "t")
    table(tmp_path / "t", tuned, np.arange(planted.ITEMS))
    assert len(plan.load(tmp_path / "t").item) == planted.ITEMS


def test_a_table_that_is_weighed_keeps_what_the_model_said(tmp_path: Path, tuned: tuple[Path, Pairs]) -> None:
    settings, model, pairs = replace(SETTINGS, by="fitted", coverage=0.5), *tuned
    outcome = table(tmp_path / "t", tuned, np.arange(planted.ITEMS), settings=settings)
    found = plan.load(tmp_path / "t")
    assert len(found.item) < planted.ITEMS
    assert (found.clusters[:, 0] == (found.item // 8) ^ 1).all()
    # A wider cluster has two, so one can follow; what is certain needs no weight.
    assert (found.clusters[:, 1:] == -1).all()
    np.testing.assert_allclose(found.scores[:, 0], 0, atol=1e-5)
    assert outcome.metrics["video.table.recall_at_1"]["fitted"] == 1.0
    # The model was asked of validation pairs too; other evidence asks it nothing again.
    asked = outcome.counts["computed"]
    assert asked >= len(np.union1d(found.item, pairs.validation.item)) > len(found.item)
    less = replace(pairs, log=curate.rows_of(pairs.log, np.arange(len(pairs.log) // 2)))
    again = table(tmp_path / "t", (model, less), np.arange(planted.ITEMS), settings=settings)
    assert again.counts == {"items": len(found.item), "computed": 0, "taken_over": asked, "left": 0}


def test_a_table_by_pictures_says_what_it_computed_and_took_over(
    tmp_path: Path, tuned: tuple[Path, Pairs], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tune, "AXES", 8)
    settings, every = replace(SETTINGS, by="pictures"), np.arange(planted.ITEMS)
    first = table(tmp_path / "t", tuned, every[:-8], settings=settings)
    assert first.counts == {"items": 40, "computed": 40, "taken_over": 0, "left": 0}
    assert first.metrics["video.refresh_cost_ratio"] == 1
    again = table(tmp_path / "t", tuned, every, settings=settings)
    assert again.counts["items"] == again.counts["computed"] + again.counts["taken_over"] == 48
    assert again.counts["left"] == 40 - again.counts["taken_over"]


def test_an_item_whose_cluster_has_no_sibling_has_no_answer_and_no_score(
    tmp_path: Path, tuned: tuple[Path, Pairs]
) -> None:
    """The fifth and sixth cluster have a wider one each, so that nothing there is a surprise."""
    _, pairs = tuned
    pairs = replace(pairs, validation=planted.pairs().validation, heldout=planted.pairs().heldout)
    asked = planted.contexts(config.MultimodalModel(), pairs, planted.seen(tmp_path))
    asked = replace(asked, parent=np.where(asked.cluster == 5, 3, asked.parent), parents=[*asked.parents, "more"])
    items = np.array([0, 45], np.int32)
    said = np.array([[1], [-1]], np.int32), np.array([[-0.1], [-np.inf]], np.float32)
    clusters, scores, _ = weigh.ranked(pairs, asked, items, said, 2)
    assert clusters.tolist() == [[1, -1], [-1, -1]]
    assert scores.tolist() == [[0, -np.inf], [-np.inf, -np.inf]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tune, "AXES", 8)
        by_pictures = plan.by_pictures(pairs, asked, items, 2, {0: "a", 45: "b"})
    assert (by_pictures["b"]["clusters"], by_pictures["b"]["scores"]) == ([-1, -1], [-np.inf, -np.inf])


@pytest.mark.parametrize("told", [True, False])
def test_a_regression_reads_from_pictures_which_sibling_pleases(told: bool, tmp_path: Path) -> None:
    """Cluster 0 holds 160 items; 1 or 2 pleases next, as the picture says, or as chance does. 3 has no sibling, and
    4 pleased nobody."""
    n, rng = 160, np.random.default_rng(0)
    way = rng.integers(0, 2, n)
    shown = 0.3 * rng.normal(size=(n, 5, 1, 80))
    shown[..., :20] += 4 * (way if told else rng.integers(0, 2, n))[:, None, None, None]
    cluster = np.array([0] * n + [1, 2, 3, 4], np.int32)
    item = np.arange(0, n, 2, dtype=np.int32)
    ones = np.ones(len(item), np.float32)
    log = curate.PairSamples(item, (1 + way[item]).astype(np.int32), np.ones(len(item), np.int32), ones, ones)
    pairs = Pairs(2, 5, log, log, log, log, log)
    seen = Media(
        np.arange(n, dtype=np.int32),
        shown.astype(np.float16),
        np.ones((n, 5), np.bool_),
        np.zeros((n, 3), np.float32),
        [""] * n,
        tmp_path,
    )
    asked = Contexts(
        names=["a", "b", "c", "d", "e"],
        parents=["one", "two"],
        cluster=cluster,
        parent=np.array([0] * (n + 2) + [1, 0], np.int32),
        titles=[""] * len(cluster),
        hashtags=[[]] * len(cluster),
        seen=seen,
        row=np.array([*range(n), -1, -1, -1, -1], np.int32),
        picks=np.tile(np.arange(4), (n, 1)),
        there=np.ones((n, 4), np.bool_),
        fresh=np.zeros(0, np.int32),
    )
    others = np.arange(1, n, 2, dtype=np.int32)
    answers = plan.by_pictures(pairs, asked, others, 3, {i: str(i) for i in others.tolist()})
    first = np.array([answers[str(i)]["clusters"][0] for i in others.tolist()])
    right = float((first == 1 + way[others]).mean())
    assert right > 0.95 if told else right < 0.75
    for row in answers.values():
        assert sorted(row["clusters"]) == [1, 2, 4]
        assert np.exp(row["scores"]).sum() == pytest.approx(1, abs=1e-5)
    # What the log never showed is not impossible: one later pair into it takes no weight from the pictures.
    later = replace(log, item=others, label=np.append((1 + way[others])[:-1], 4).astype(np.int32))
    open_NM = serendipitous(asked, others)
    linear = tune.linear(pairs, asked)
    assert linear is not None
    scores = {"pictures": np.where(open_NM, weigh.among(linear(others).astype(float), open_NM), 0.0)}
    scores["counts"] = np.where(open_NM, np.log(1 / 3), 0.0)
    assert np.isfinite(scores["pictures"]).all()
    weights = weigh.fitted(scores, open_NM, np.arange(len(others)), later)
    assert (weights.get("pictures", 0.0) > 0.4) == told
    few = curate.rows_of(log, np.arange(10))
    with pytest.raises(UserError, match=r"context_table\.by"):
        plan.by_pictures(Pairs(2, 5, few, few, few, few, few), asked, others, 3, {})
