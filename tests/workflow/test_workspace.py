"""The door from Python: what the artifacts hold, sentences for what can be mended, a light import."""

import itertools
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pytest

import byway
from byway.base import config
from byway.base.artifact import Outcome, Work
from byway.base.errors import UserError
from byway.base.ranking import best_first
from byway.data import events
from byway.interests import describe, tree
from byway.serving.person import Seen
from byway.serving.recommend import recommend
from byway.transitions import signals
from byway.transitions import table as tables
from byway.transitions.signals import Scorer
from byway.transitions.triples import key, unkey
from byway.workflow import pipeline, recommendations, showing, stages
from byway.workflow.artifacts import Inputs
from tests.workflow.test_refresh import (
    EVENT,
    ITEM,
    ITEMS,
    TOML,
    USERS,
    log,
    titles,
    without_language_model,
    write,
)

WEIGHT, SIMILARITY, POPULARITY, TOP = 0.5, 2.0, 0.25, 6
"""How the made table is weighed."""


def model(clusters: int) -> np.ndarray:
    """[M, M, M] what a language model would say: log-probabilities without any sense."""
    raw = np.random.default_rng(2).normal(size=(clusters, clusters, clusters))
    return raw - np.log(np.exp(raw).sum(axis=2, keepdims=True))


def table(work: Work, inputs: Inputs) -> Outcome:
    """A table weighed as the real one, of a model that needs no training."""
    transitions = inputs.transitions
    M = transitions.clusters
    alike = inputs.tree.similarity(inputs.vectors, transitions.level)
    weights = {"similarity": SIMILARITY, "popularity": -POPULARITY, "language_model": WEIGHT}
    evidence = Scorer.from_log(transitions, alike).weighed(**weights)
    pairs = np.array(list(itertools.product(range(M), repeat=2)), np.int32)
    if (triples := tables.triples_of(transitions, 50)) is not None:
        # Of a triple no scores are kept, so its ranking may be any.
        own = np.sort(np.random.default_rng(1).permuted(np.tile(np.arange(M), (len(triples), 1)), axis=1)[:, :3])
        for name, values in (("keys", key(triples, M)), ("clusters", own), ("model", own)):
            np.save(work.out / f"triple_{name}.npy", values.astype(np.int64 if name == "keys" else np.int32))
        pairs = pairs[:, [0, 0, 1]]
    score = (evidence(pairs) + WEIGHT * model(M).reshape(-1, M)).astype(np.float32)
    np.put_along_axis(score, pairs.astype(np.int64), -np.inf, axis=1)
    best = best_first(score, TOP)
    kept = np.take_along_axis(score, best, 1)
    clusters = np.where(np.isfinite(kept), best, -1).astype(np.int32).reshape(M, M, TOP)
    for name, values in (("clusters", clusters), ("model", clusters), ("scores", kept.reshape(M, M, TOP))):
        np.save(work.out / f"{name}.npy", values)
    (work.out / "fitted.json").write_bytes(msgspec.json.encode(signals.TableWeights(weights)))
    return Outcome()


@pytest.fixture(scope="module", autouse=True)
def cheap() -> Iterator[None]:
    """A quick encoder, and no language model."""
    reads = (stages.TRANSITIONS, stages.EMBEDDINGS, stages.TREE)
    with without_language_model(replace(stages.TRANSITION_TABLE, build=table, reads=reads)):
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write(folder / "items.csv", ITEM, titles(0, ITEMS))
    write(folder / "events.csv", EVENT, log(0, USERS, ITEMS, 1_700_000_000, 0))
    return folder


@pytest.fixture(scope="module")
def w(data: Path, tmp_path_factory: pytest.TempPathFactory) -> byway.Workspace:
    folder = tmp_path_factory.mktemp("w")
    own = TOML.replace('s = "', f's = "{data}/') + "\n[bundle]\nskip = 0.5\n"
    (folder / "byway.toml").write_text(own, "utf-8")
    return byway.Workspace(folder).run()


# import byway


def test_import_is_light_and_every_name_is_there() -> None:
    code = (
        "import sys, byway\n"
        "assert byway.__version__\n"
        "heavy = {'torch', 'numpy', 'daft', 'pyarrow', 'onnxruntime', 'msgspec', 'rich'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "for name in byway.__all__: assert name in dir(byway) and getattr(byway, name).__doc__, name\n"
        "from byway import *\n"
        "assert Workspace is byway.Workspace\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_showing_a_workspace_waits_for_no_library_that_builds_one(w: byway.Workspace) -> None:
    """torch and scikit-learn take seconds to import."""
    code = (
        "import sys\n"
        "from byway import cli\n"
        f"sys.argv = ['byway', 'show', {str(w.directory)!r}]\n"
        "try: cli.main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "heavy = {'torch', 'sklearn', 'transformers'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "12-item-policy" in done.stdout


def test_what_is_no_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'byway' has no attribute 'workspce'"):
        _ = getattr(byway, "work" + "spce")


# A workspace


def test_a_folder_that_is_no_workspace(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a workspace"):
        byway.Workspace(tmp_path)


def test_create_and_run_up_to_a_stage_with_other_settings(data: Path, tmp_path: Path) -> None:
    made = byway.Workspace.create(tmp_path / "w", data, source="csv")
    assert repr(made) == f"byway.Workspace({str(tmp_path / 'w')!r})"
    made.run(until="transitions", tree={"items_per_cluster": 40})
    assert made.figures["tree.levels"][1] == ITEMS // 40
    assert made.interests().num_rows == ITEMS // 40
    with pytest.raises(UserError, match=r"has no bundle yet; run: byway run"):
        made.recommend()
    with pytest.raises(UserError, match=r"has no 08-transition-table yet; run: byway run"):
        made.next_interests("anything")
    with pytest.raises(UserError, match="is there already"):
        byway.Workspace.create(tmp_path / "w", data, source="csv")
    with pytest.raises(UserError, match="no stage 'tranistions'"):
        made.run(until="tranistions")


def test_settings_of_every_kind_are_laid_over_those_of_the_file(w: byway.Workspace) -> None:
    found = w.config(
        tree={"levels": np.array([2, 4, 8, 16])},
        embeddings={"sound": np.float64(0.5)},
        catalog={
            "item_columns": {"item": 'the "id"', "title": "ñ🎬"},
            "items": Path("a/b.csv"),
            "event_scale": [1, 5],
        },
        planner={"explored": True},
    )
    assert (found.tree.levels, found.embeddings.sound) == ((2, 4, 8, 16), 0.5)
    assert found.catalog.item_columns == {"item": 'the "id"', "title": "ñ🎬"}
    assert (found.catalog.items, found.catalog.event_scale) == ("a/b.csv", [1, 5])
    assert found.planner.explored
    assert found.item_policy.dim == config.load(w.directory / "byway.toml").item_policy.dim == 8


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"trees": {"levels": ()}}, r"no section \[trees\]"),
        ({"tree": {"leaves": 3}}, "no setting 'leaves'"),
        ({"tree": {"levels": None}}, r"tree\.levels is None; give text"),
    ],
)
def test_what_is_no_setting(w: byway.Workspace, sections: dict[str, dict[str, object]], said: str) -> None:
    with pytest.raises(UserError, match=said):
        w.run(**sections)


def test_figures_are_those_that_are_shown(w: byway.Workspace) -> None:
    assert w.figures == pipeline.figures(pipeline.records(w.directory))
    assert w.figures["catalog.items"] == ITEMS


# recommend


def test_recommend_is_what_the_service_answers(w: byway.Workspace) -> None:
    wanted = recommend(w.bundle, [Seen("3"), Seen("7")], np.random.default_rng(5), 4)
    assert w.recommend(history=["3", "7"], k=4, seed=5) == wanted
    assert w.recommend([Seen("3"), "7"], k=4, seed=5) == wanted
    assert w.recommend(np.array(["3", "7"]), k=np.int64(4), seed=5) == wanted
    assert (wanted.strategy, len(wanted.items)) == ("person", 4)
    assert wanted.reasons
    assert all(0 < item.propensity <= 1 for item in wanted.items)
    assert len(w.recommend(history=["3", "7"]).items) == 10
    assert w.recommend().strategy == "popular_items"


def test_recommend_to_a_user_is_what_many_are_answered(w: byway.Workspace) -> None:
    users = ["u7", "u3", "u41"]
    table = w.recommend_many(users, k=5, seed=2)
    assert table.column_names == ["user", "item", "rank", "score", "cluster", "propensity"]
    rows = table.to_pylist()
    for user in users:
        answer = w.recommend(user=user, k=5, seed=2)
        own = [row for row in rows if row["user"] == user]
        assert [row["item"] for row in own] == [item.item for item in answer.items]
        assert [row["propensity"] for row in own] == [item.propensity for item in answer.items]
        assert [row["cluster"] for row in own] == [item.cluster for item in answer.items]
        assert [row["rank"] for row in own] == [1, 2, 3, 4, 5]
    assert list(dict.fromkeys(row["user"] for row in rows)) == users
    everybody = w.recommend_many(k=5, seed=2).to_pylist()
    assert [row for row in everybody if row["user"] == "u3"] == [row for row in rows if row["user"] == "u3"]
    assert len({row["user"] for row in everybody}) == USERS
    assert w.recommend_many((user for user in users), k=5, seed=2).to_pylist() == rows


def test_recommend_to_many_with_histories_of_their_own(w: byway.Workspace) -> None:
    table = w.recommend_many({"ann": ["3", "7"], "u1": [], "bo": [Seen("9"), "nobody"]}, k=3, seed=4)
    rows = table.to_pylist()
    assert list(dict.fromkeys(row["user"] for row in rows)) == ["ann", "u1", "bo"]
    popular = [item.item for item in w.recommend(k=3).items]
    assert [row["item"] for row in rows if row["user"] == "u1"] == popular
    wanted = recommend(w.bundle, [Seen("3"), Seen("7")], recommendations.generator(4, "ann"), 3)
    assert [row["item"] for row in rows if row["user"] == "ann"] == [item.item for item in wanted.items]
    assert w.recommend_many({}).num_rows == w.recommend_many([]).num_rows == 0


def test_a_person_draws_alike_whoever_else_is_answered(w: byway.Workspace) -> None:
    drawn = {tuple(item.item for item in w.recommend(user="u3", seed=seed).items) for seed in range(12)}
    assert len(drawn) > 1  # of six interests half are left out
    assert w.recommend(user="u3", seed=1) == w.recommend(user="u3", seed=1)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"history": ["3"], "user": "u1"}, "exclude each other"),
        ({"history": np.array(["3", "7"]), "user": "u1"}, "exclude each other"),
        ({"history": "3"}, "history is one string"),
        ({"history": [Seen("3", satisfaction=5.0)]}, "satisfaction goes from 0 to 1"),
        ({"history": [3, 7]}, "history holds 3; ids are text, such as '3'"),
        ({"history": np.array([3, 7])}, "ids are text, such as '3'"),
        ({"history": pa.array(["3"])}, "ids are text, such as '3'"),
        ({"history": ["3"], "k": 2.0}, r"k is 2\.0; give a whole number"),
        ({"history": ["3"], "seed": None}, "seed is None; give a whole number"),
        ({"user": "nobody"}, "no user 'nobody'"),
        ({"item": "3"}, "no context table"),
        ({"k": 0}, "k is 0"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_what_cannot_be_answered(w: byway.Workspace, given: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        w.recommend(**given)


@pytest.mark.parametrize(
    ("users", "said"),
    [
        (["u1", "nobody"], "no user 'nobody'"),
        ("u1", "one string"),
        ({"a": "3"}, "one string"),
        ([1], "users holds 1; ids are text, such as '1'"),
        (pa.array(["u1"]), "ids are text, such as 'u1'"),
        ({7: ["3"]}, "users holds 7; ids are text"),
    ],
)
def test_whom_nothing_is_known_of(w: byway.Workspace, users: object, said: str) -> None:
    with pytest.raises(UserError, match=said):
        w.recommend_many(users)


def test_a_newer_bundle_is_taken_up(w: byway.Workspace, tmp_path: Path) -> None:
    shutil.copytree(w.directory, tmp_path / "w")
    other = byway.Workspace(tmp_path / "w")
    before = other.bundle
    assert other.bundle is before
    other.run(bundle={"days": 3})
    assert other.bundle.settings.days == 3


# interests


@pytest.mark.parametrize("level", [1, 2, 3, 4])
def test_interests_are_the_tree_s(w: byway.Workspace, level: int) -> None:
    table = w.interests(level)
    assert table.column_names == ["name", "items", "traffic"]
    assert table.num_rows == w.figures["tree.levels"][level - 1]
    grown, met = tree.load(w.directory / "04-tree"), events.load(w.directory / "01-catalog").item
    names = describe.load(w.directory / "05-descriptions").names[level - 1]
    for c, row in enumerate(table.to_pylist()):
        own = grown.items(level, c)
        assert row == {"name": names[c], "items": len(own), "traffic": int(np.isin(met, own).sum())}


def test_names_of_an_older_tree_are_not_read_as_those_of_a_new_one(w: byway.Workspace, tmp_path: Path) -> None:
    shutil.copytree(w.directory, tmp_path / "w")
    opened = byway.Workspace(tmp_path / "w").run(until="tree", tree={"items_per_cluster": 40})
    with pytest.raises(UserError, match=r"05-descriptions is older than 04-tree; run: .*--until descriptions"):
        opened.interests()
    settings = opened.config(tree={"items_per_cluster": 40})
    assert "The tree is not shown: 05-descriptions is older" in showing.as_text(opened.directory, settings, 2)
    opened.run(until="descriptions", tree={"items_per_cluster": 40})
    assert opened.interests(level=1).num_rows == opened.figures["tree.levels"][0]


def test_a_level_that_there_is_not(w: byway.Workspace) -> None:
    with pytest.raises(UserError, match="levels 1 to 4"):
        w.interests(level=5)


def test_next_interests_are_the_table_s_and_their_parts_sum_up(w: byway.Workspace) -> None:
    names = w.interests(2)["name"].to_pylist()
    clusters = np.load(w.directory / "08-transition-table" / "clusters.npy")
    scores = np.load(w.directory / "08-transition-table" / "scores.npy")
    said = WEIGHT * model(len(names))
    for a, b in ((0, 1), (3, 2), (4, 4)):
        found = w.next_interests(names[a], names[b], k=4)
        assert [each.name for each in found] == [names[c] for c in clusters[a, b, :4]]
        assert [each.score for each in found] == pytest.approx(scores[a, b, :4].tolist(), abs=1e-5)
        for each, c in zip(found, clusters[a, b], strict=False):
            assert list(each.parts) == ["counts", "similarity", "popularity", "language_model"]
            assert sum(each.parts.values()) == each.score
            assert each.parts["language_model"] == pytest.approx(said[a, b, c], abs=1e-5)
    assert w.next_interests(names[4]) == w.next_interests(names[4], names[4])


def test_after_three_interests_the_log_alone_speaks(w: byway.Workspace, tmp_path: Path) -> None:
    """Scores are kept for pairs: a pair's parts hold the model's, a triple's do not."""
    shutil.copytree(w.directory, tmp_path / "w")
    three = byway.Workspace(tmp_path / "w").run(until="transition_table", transitions={"history": 3})
    names = three.interests(2)["name"].to_pylist()
    folder = tmp_path / "w" / "08-transition-table"
    keys, clusters, pairs = (
        np.load(folder / f"{name}.npy") for name in ("triple_keys", "triple_clusters", "clusters")
    )
    a, b, c = unkey(keys[-1:], len(names))[0].tolist()
    found = three.next_interests(names[a], names[b], names[c])
    assert [each.name for each in found] == [names[each] for each in clusters[-1]]
    assert all(list(each.parts) == ["counts", "similarity", "popularity"] for each in found)
    assert all(sum(each.parts.values()) == each.score for each in found)
    best = three.next_interests(names[a], names[b], k=1)[0]
    assert best.name == names[pairs[a, b, 0]]
    assert "language_model" in best.parts


def test_interests_that_there_are_not(w: byway.Workspace) -> None:
    name = w.interests(2)["name"].to_pylist()[0]
    with pytest.raises(UserError, match="the nearest are .*" + name):
        w.next_interests(name[:-1])
    with pytest.raises(UserError, match="is no name of an interest; give text"):
        w.next_interests(w.interests(2)["name"][0])
    with pytest.raises(UserError, match="answers one to 2"):
        w.next_interests(name, name, name)
    with pytest.raises(UserError, match="answers one to 2"):
        w.next_interests()
