"""The command line: one sentence and exit code 2 for what a user can mend, and one JSON object."""

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from byway import cli
from byway.base import artifact, config, memory
from byway.base.artifact import Outcome
from byway.base.errors import UserError
from byway.data.events import DAY
from byway.simulation import loop
from byway.workflow import demonstration, pipeline, preview, recommendations
from tests.serving.planted import NAMES, Planted
from tests.toys import Toys
from tests.toys import workspace as make_workspace

VERBS = [
    "seed",
    "backup",
    "forget",
    "restore",
    "init",
    "worth",
    "answers",
    "export",
    "lift",
    "run",
    "show",
    "refresh",
    "recommend",
    "serve",
    "publish",
    "rollback",
    "experiment",
    "report",
    "curations",
    "views",
    "demo",
]
# The entry point reads sys.argv, which is what is tested here.
pytestmark = pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens")


class Said:
    """What a command answered."""

    def __init__(self, code: int, out: str, err: str):
        self.code, self.out, self.err = code, out, err

    def sentence(self) -> str:
        """The one sentence about what to mend."""
        assert self.code == 2, self
        assert self.out == ""
        (line,) = self.err.splitlines()
        assert line.startswith("byway: ")
        return line.removeprefix("byway: ")

    def json(self) -> Any:
        """The one JSON object."""
        assert self.code == 0, self.err
        assert self.out.endswith("}\n")
        return json.loads(self.out)

    def __repr__(self) -> str:
        return f"exit {self.code}\n--- out\n{self.out}\n--- err\n{self.err}"


Byway = Callable[..., Said]


@pytest.fixture
def byway(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Byway:
    """Call the entry point as the shell does."""
    monkeypatch.setattr(memory, "keep", lambda: None)

    def call(*arguments: str | Path) -> Said:
        monkeypatch.setattr(sys, "argv", ["byway", *map(str, arguments)])
        capsys.readouterr()
        code = 0
        try:
            cli.main()
        except SystemExit as ended:
            code = ended.code or 0
        assert isinstance(code, int)
        return Said(code, *capsys.readouterr())

    return call


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> Toys:
    return Toys(monkeypatch)


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    return make_workspace(tmp_path / "w")


def commit(path: Path, stage: str, write: Callable[[Path], object], inputs: dict[str, str] | None = None) -> str:
    with artifact.part(path, stage, {}, inputs or {}) as work:
        write(work.out)
    return artifact.commit(path, stage, {}, inputs or {}, Outcome(timings={"seconds": 1.0})).digest


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a catalog, a tree, its descriptions and a bundle.

    Ann turned from cluster 0 to cluster 1, 40 days after cluster 2.
    """
    folder = tmp_path_factory.mktemp("served")
    workspace = make_workspace(folder / "w")
    planted = Planted()
    users = ["bo, the 2nd", "Ann 🎬"]
    position = {"user": [0, 1, 1, 1], "item": [3, 8, 0, 4], "time": [5, 10, 50, 51]}
    events = pa.table(
        {
            "user": pa.array(position["user"], pa.int32()),
            "item": pa.array(planted.order[position["item"]], pa.int32()),
            "time": pa.array(np.array(position["time"]) * DAY, pa.int64()),
            "satisfaction": pa.array([1.0, 1.0, 0.5, 0.25], pa.float32()),
            "propensity": pa.nulls(4, pa.float32()),
        }
    ).replace_schema_metadata({"clock": "true", "positive": "0.5"})

    def write(out: Path) -> None:
        pq.write_table(planted.catalog().items, out / "items.parquet")
        pq.write_table(events, out / "events.parquet")
        pq.write_table(pa.table({"user": users}), out / "users.parquet")

    digest = commit(workspace / "01-catalog", "catalog", write)
    planted.build(folder)

    def copy(out: Path) -> None:
        for file in (folder / "out").iterdir():
            (out / file.name).write_bytes(file.read_bytes())

    def grow(out: Path) -> None:
        np.save(out / "order.npy", planted.tree().order)
        for level, starts in enumerate(planted.tree().starts, 1):
            np.save(out / f"level-{level}.npy", starts)

    def describe(out: Path) -> None:
        names = planted.descriptions().names
        rows = [
            (level, c, name, [name])
            for level, level_names in enumerate(names, 1)
            for c, name in enumerate(level_names)
        ]
        columns = dict(zip(("level", "cluster", "description", "keywords"), zip(*rows, strict=True), strict=True))
        pq.write_table(pa.table(columns), out / "descriptions.parquet")

    commit(workspace / "04-tree", "tree", grow)
    commit(workspace / "05-descriptions", "descriptions", describe)
    commit(workspace / "13-bundle", "bundle", copy, {"catalog": digest})
    return workspace


# Help


def test_help_is_light() -> None:
    """Every verb's help in one process, which loads nothing heavy."""
    code = (
        "import sys\n"
        "from byway import cli\n"
        f"for verb in {[[], *([verb] for verb in VERBS)]}:\n"
        "    sys.argv = ['byway', *verb, '--help']\n"
        "    try: cli.main()\n"
        "    except SystemExit as end: assert end.code == 0, end.code\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stderr.split()}
    assert loaded & {"torch", "daft", "numpy", "pyarrow", "transformers", "onnxruntime"} == set()
    assert all(f"Usage: byway {verb}" in done.stdout for verb in VERBS)


def test_help_names_every_verb_and_every_verb_has_json(byway: Byway) -> None:
    said = byway("--help")
    assert said.code == 0
    assert all(verb in said.out for verb in VERBS)
    assert {name for name in cli.app if not name.startswith("-")} == set(VERBS)
    for verb in set(VERBS) - {"serve"}:  # it answers until it is stopped, over HTTP and in JSON
        assert "--json" in byway(verb, "--help").out


@pytest.mark.parametrize(
    "arguments",
    [
        ("frob",),
        ("run",),
        ("run", "W", "--engine", "spark"),
        ("run", "W", "--nothing"),
        ("show", "W", "--depth", "five"),
        ("show", "W", "--depth", "5"),
        ("recommend", "W", "--k", "0"),
        ("recommend", "W", "--seed", "-1"),
        ("recommend", "W", "--no-all"),
        ("init", "W", "data"),
    ],
    ids=" ".join,
)
def test_a_command_that_there_is_not(byway: Byway, arguments: tuple[str, ...]) -> None:
    said = byway(*arguments)
    assert (said.code, said.out) == (2, "")
    assert "Error" in said.err
    assert "Traceback" not in said.err


# init


def tables(folder: Path) -> Path:
    folder.mkdir()
    (folder / "items.csv").write_text("video_id,title\n1,One\n2,Two\n", "utf-8")
    (folder / "events.csv").write_text("user,item\na,1\n", "utf-8")
    return folder


def test_an_id_that_begins_with_a_dash_is_joined_to_its_option(byway: Byway, tmp_path: Path) -> None:
    for option in ("--history", "--user", "--item"):
        said = byway("recommend", tmp_path, option, "-wXq3")
        assert (said.code, said.out) == (2, "")
        assert f"write {option}=-wXq3" in said.err


def test_init(byway: Byway, tmp_path: Path) -> None:
    data = tables(tmp_path / "data")
    said = byway("init", tmp_path / "new" / "w", data, "--from", "csv", "--json").json()
    assert said["wrote"] == str(tmp_path / "new" / "w" / "byway.toml")
    assert said["found"] == ["items.csv: video_id → item, title.", "events.csv: user, item."]
    found = config.load(tmp_path / "new" / "w" / "byway.toml").catalog
    assert (found.source, found.items) == ("csv", str(data / "items.csv"))
    assert found.item_columns == {"item": "video_id"}
    assert "Next: byway run" in byway("init", tmp_path / "w2", data, "--from", "csv").out


def test_init_leaves_a_workspace_as_it_is(byway: Byway, workspace: Path) -> None:
    before = (workspace / "byway.toml").read_bytes()
    assert "is there already" in byway("init", workspace, workspace, "--from", "csv").sentence()
    assert (workspace / "byway.toml").read_bytes() == before


@pytest.mark.parametrize(
    ("path", "source", "said"),
    [
        ("nowhere", "microlens", "nowhere is not a folder"),
        ("nowhere", "netflix", "no source 'netflix'"),
        (".", "microlens", "is not MicroLens"),
        (".", "csv", "items.csv does not exist"),
    ],
)
def test_init_on_what_is_not_there(byway: Byway, tmp_path: Path, path: str, source: str, said: str) -> None:
    assert said in byway("init", tmp_path / "w", tmp_path / path, "--from", source).sentence()
    assert not (tmp_path / "w").exists()


def test_init_on_a_file(byway: Byway, tmp_path: Path) -> None:
    (tmp_path / "w").touch()
    assert "is a file" in byway("init", tmp_path / "w", tmp_path, "--from", "csv").sentence()


# run


def test_run(byway: Byway, toys: Toys, workspace: Path) -> None:
    said = byway("run", workspace, "--json")
    assert list(said.json()) == ["artifacts"]
    assert list(said.json()["artifacts"]) == ["catalog", "embeddings", "tree"]
    assert "03-tree" in said.err
    assert "3 artifacts are up to date" in byway("run", workspace).out
    assert byway("run", workspace).err == ""


def test_run_passes_on_what_it_is_told(byway: Byway, toys: Toys, workspace: Path) -> None:
    byway("run", workspace, "--until", "embeddings", "--set", "catalog.positive=0.3", "--set", "embeddings.dim=1")
    assert toys.did() == ["catalog", "embeddings"]
    assert (workspace / "02-embeddings" / "values.json").read_text("utf-8") == "[20, 40]"
    byway("run", workspace, "--only", "tree", "--engine", "native")
    assert toys.did() == ["tree"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--set", "tree.items_per_clusters=3"], "[tree] has no setting 'items_per_clusters'"),
        (["--set", "trees.items_per_cluster=3"], "no section [trees]"),
        (["--set", "tree.items_per_cluster=many"], "expected a whole number"),
        (["--set", "tree.items_per_cluster=-1"], "items_per_cluster is -1"),
        (["--set", "tree"], "--set tree: write section.setting=value"),
        (["--until", "tere"], "no stage 'tere'"),
        (["--only", "tere"], "no stage 'tere'"),
        (["--only", "tree"], "03-tree needs 01-catalog"),
        (["--only", "tree", "--until", "catalog"], "--until and --only"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_run_told_wrong(byway: Byway, toys: Toys, workspace: Path, arguments: list[str], said: str) -> None:
    assert said in byway("run", workspace, *arguments).sentence()
    assert toys.did() == []


@pytest.mark.parametrize("verb", ["run", "show"])
def test_a_folder_that_is_no_workspace(byway: Byway, tmp_path: Path, verb: str) -> None:
    assert "is not a workspace" in byway(verb, tmp_path).sentence()
    assert "is not a workspace" in byway(verb, tmp_path / "nowhere").sentence()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("verb", ["run", "show"])
def test_a_toml_that_is_none(byway: Byway, workspace: Path, verb: str) -> None:
    (workspace / "byway.toml").write_text("[catalog", "utf-8")
    assert "not valid TOML" in byway(verb, workspace).sentence()


@pytest.mark.parametrize("verb", ["run", "show"])
def test_a_damaged_record(byway: Byway, toys: Toys, workspace: Path, verb: str) -> None:
    byway("run", workspace)
    (workspace / "02-embeddings" / "record.json").write_text("{", "utf-8")
    assert f"{Path('02-embeddings', 'record.json')} is damaged" in byway(verb, workspace).sentence()


def test_a_second_run_is_refused(byway: Byway, toys: Toys, workspace: Path) -> None:
    with artifact.locked(workspace):
        assert "is in use by process" in byway("run", workspace).sentence()


@pytest.mark.parametrize(
    ("number", "said"), [(errno.ENOSPC, "no space left"), (errno.EROFS, "read-only"), (errno.EACCES, "permission")]
)
def test_a_disk_that_refuses_is_one_sentence(
    byway: Byway, workspace: Path, monkeypatch: pytest.MonkeyPatch, number: int, said: str
) -> None:
    def refused(*_: object) -> None:
        raise OSError(number, os.strerror(number), str(workspace / "02-embeddings.part" / "vectors.npy"))

    monkeypatch.setattr(pipeline, "run", refused)
    sentence = byway("run", workspace).sentence()
    assert said in sentence
    assert "vectors.npy" in sentence
    assert "goes on from here" in sentence


def test_another_failure_of_the_disk_is_not_hidden(
    byway: Byway, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise OSError(errno.EIO, "the disk is broken")

    monkeypatch.setattr(pipeline, "run", broken)
    with pytest.raises(OSError, match="the disk is broken"):
        byway("run", workspace)


def test_a_reader_who_has_read_enough(served: Path) -> None:
    """`byway show W | head -1`."""
    code = "import sys; from byway.cli import main; sys.argv[0] = 'byway'; main()"
    command = [sys.executable, "-c", code, "show", str(served), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 141


def test_control_c(byway: Byway, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "run", interrupted)
    said = byway("run", workspace)
    assert said.code == 130
    assert said.err == "byway: stopped; the same command goes on from here.\n"


# show


def test_show(byway: Byway, toys: Toys, workspace: Path) -> None:
    assert byway("show", workspace, "--json").json() == {"figures": {}}
    byway("run", workspace, "--until", "embeddings")
    shown = byway("show", workspace, "--json").json()
    assert list(shown) == ["01-catalog", "02-embeddings", "figures"]
    one = shown["02-embeddings"]
    assert list(one) == ["record", "metrics", "gates", "drift"]
    assert one["metrics"] == {"embeddings.values": [0, 0, 0]}
    assert one["gates"] == {"embeddings.size": {"value": 9.0, "at_least": 3.0, "passed": True}}
    assert one["drift"] == []
    assert one["record"]["stage"] == "embeddings"
    assert shown["figures"] == {"catalog.values": [10, 20, 30], "embeddings.values": [0, 0, 0]}
    lines = byway("show", workspace).out.splitlines()
    assert lines[0].split()[0] == "01-catalog"
    assert lines[1].endswith("up to date")
    assert lines[2].split() == ["03-tree", "–"]


def test_show_tells_drift_and_files_changed_by_hand(byway: Byway, toys: Toys, workspace: Path) -> None:
    byway("run", workspace)
    toml = (workspace / "byway.toml").read_text("utf-8")
    (workspace / "byway.toml").write_text(f"{toml}[tree]\nitems_per_cluster = 7\n", "utf-8")
    (workspace / "items.csv").write_text("1", "utf-8")
    (workspace / "02-embeddings" / "values.json").unlink()
    shown = byway("show", workspace, "--json").json()
    assert shown["01-catalog"]["drift"] == ["input items/items.csv changed"]
    assert shown["02-embeddings"]["drift"] == ["file values.json missing"]
    assert shown["03-tree"]["drift"] == ["setting items_per_cluster: 64 → 7"]
    assert "out of date: setting items_per_cluster: 64 → 7" in byway("show", workspace).out


def test_show_tells_a_gate_that_failed(byway: Byway, toys: Toys, workspace: Path) -> None:
    byway("run", workspace, "--set", "catalog.positive=0")
    toml = (workspace / "byway.toml").read_text("utf-8")
    (workspace / "byway.toml").write_text(toml + "positive = 0\n", "utf-8")
    line = byway("show", workspace).out.splitlines()[0]
    assert line.endswith("s  gate catalog.size failed")
    assert byway("show", workspace, "--json").json()["01-catalog"]["gates"]["catalog.size"]["passed"] is False


def test_show_prints_the_tree(byway: Byway, served: Path) -> None:
    def outline(depth: int) -> list[str]:
        return byway("show", served, "--depth", str(depth)).out.split("\n\n", 1)[-1].splitlines()

    assert [line.split()[:3] for line in outline(1)] == [["one", "12", "items"], ["two", "14", "items"]]
    assert [line.split("  ")[0] for line in outline(2) if not line.startswith(" ")] == ["one", "two"]
    inner = [line.strip().split("  ")[0] for line in outline(2) if line.startswith(" ")]
    assert inner == NAMES
    assert not "".join(outline(0))


def test_show_tells_a_file_that_was_removed_by_hand(byway: Byway, served: Path, tmp_path: Path) -> None:
    shutil.copytree(served, tmp_path / "w")
    (tmp_path / "w" / "04-tree" / "order.npy").unlink()
    said = byway("show", tmp_path / "w")
    assert said.code == 0
    assert "file order.npy missing" in said.out
    assert NAMES[0] not in said.out


def test_show_finishes_a_move_that_was_cut_short(byway: Byway, toys: Toys, workspace: Path) -> None:
    byway("run", workspace)
    (workspace / "02-embeddings").rename(workspace / "02-embeddings.part")
    assert "02-embeddings" in byway("show", workspace, "--json").json()


# recommend


def test_recommend(byway: Byway, served: Path) -> None:
    answer = byway("recommend", served, "--history", "c0-0, c1-2,", "--k", "2", "--json").json()
    assert list(answer) == ["items", "strategy", "interests", "cluster", "rank", "reasons"]
    assert (answer["strategy"], answer["cluster"], answer["rank"]) == ("table", NAMES[2], 1)
    assert [item["item"] in ("c2-0", "c2-1", "c2-2", "c2-3") for item in answer["items"]] == [True, True]
    lines = byway("recommend", served, "--history", "c0-0,c1-2", "--k", "2").out.splitlines()
    assert lines[:2] == answer["reasons"]
    assert lines[2].startswith(f"  1. {answer['items'][0]['title']}  [{answer['items'][0]['item']}]")
    assert len(lines) == 4


def test_recommend_to_nobody(byway: Byway, served: Path) -> None:
    assert byway("recommend", served, "--json").json()["strategy"] == "popular_items"


def test_recommend_to_a_user_of_the_log(byway: Byway, served: Path) -> None:
    """Ann's cluster 2 is 41 days old: not drawn, but consumed, so that the ranking goes on to 3."""
    answer = byway("recommend", served, "--user", "Ann 🎬", "--json").json()
    assert answer["interests"] == NAMES[:2]
    assert (answer["cluster"], answer["rank"]) == (NAMES[3], 2)
    assert byway("recommend", served, "--user", "bo, the 2nd", "--json").json()["interests"] == [NAMES[0]]


def test_recommend_to_everybody(byway: Byway, served: Path, tmp_path: Path) -> None:
    """Each user's rows are what `--user` answers with the same seed, and a second run has nothing to do."""
    out = tmp_path / "recs.parquet"
    arguments = ("recommend", served, "--all", "--out", out, "--k", "2", "--seed", "3")
    assert byway(*arguments, "--json").json() == {"wrote": str(out), "users": 2, "rows": 4}
    rows = pq.read_table(out).to_pylist()
    assert [row["user"] for row in rows] == ["bo, the 2nd"] * 2 + ["Ann 🎬"] * 2
    for user in ("bo, the 2nd", "Ann 🎬"):
        answer = byway("recommend", served, "--user", user, "--k", "2", "--seed", "3", "--json").json()
        own = [row for row in rows if row["user"] == user]
        assert [row["item"] for row in own] == [item["item"] for item in answer["items"]]
        assert [row["propensity"] for row in own] == [item["propensity"] for item in answer["items"]]
    said = byway(*arguments)
    assert said.out == f"2 users have 4 rows in {out}, a parquet file.\n"
    assert "is up to date" in " ".join(said.err.split())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--all",), "--all needs a file to write, for example --out"),
        (("--all", "--out", "r.parquet", "--user", "Ann 🎬"), "leave out --user, --history and --item"),
        (("--out", "r.parquet"), "--out and --engine go with --all"),
        (("--engine", "native"), "--out and --engine go with --all"),
    ],
)
def test_recommend_to_everybody_or_to_one(
    byway: Byway, served: Path, arguments: tuple[str, ...], said: str
) -> None:
    assert said in byway("recommend", served, *arguments).sentence()


def test_recommend_to_everybody_goes_on_after_ctrl_c(
    byway: Byway, served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*given: Any) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "recs.parquet"
    with monkeypatch.context() as patch:
        patch.setattr(recommendations, "_join", stop)
        said = byway("recommend", served, "--all", "--out", out)
    assert (said.code, "the same command goes on from here" in said.err) == (130, True)
    assert not out.exists()
    monkeypatch.setattr(recommendations, "_answer_part", stop)
    assert byway("recommend", served, "--all", "--out", out).code == 0, "its only part was there"


def test_recommend_is_drawn_by_its_seed(byway: Byway, served: Path) -> None:
    def interests(seed: int) -> tuple[str, ...]:
        history = "c0-0,c1-0,c2-0,c3-0"
        said = byway("recommend", served, "--history", history, "--seed", str(seed), "--json")
        return tuple(said.json()["interests"])

    assert interests(1) == interests(1)
    assert len({interests(seed) for seed in range(8)}) > 2


def test_recommend_to_a_user_that_there_is_not(byway: Byway, served: Path) -> None:
    assert "no user 'ann'" in byway("recommend", served, "--user", "ann").sentence()


def test_recommend_without_a_bundle(byway: Byway, workspace: Path, tmp_path: Path) -> None:
    said = byway("recommend", workspace, "--history", "1").sentence()
    assert "no bundle yet" in said
    assert "byway run" in said
    assert "is not a workspace" in byway("recommend", tmp_path / "nowhere").sentence()


@pytest.mark.parametrize("part", ["policy.onnx", "manifest.json", "vectors.npy"])
def test_recommend_from_a_damaged_bundle_is_one_sentence(
    byway: Byway, served: Path, tmp_path: Path, part: str
) -> None:
    shutil.copytree(served, tmp_path / "w")
    (tmp_path / "w" / "13-bundle" / part).unlink()
    said = byway("recommend", tmp_path / "w", "--history", "c0-0").sentence()
    assert "13-bundle is damaged" in said
    assert "delete it and run again" in said


def test_recommend_takes_one_history(byway: Byway, served: Path) -> None:
    both = byway("recommend", served, "--history", "c0-0", "--user", "Ann 🎬").sentence()
    assert "--user and --history exclude each other" in both


@pytest.mark.parametrize("verb", ["show", "run"])
def test_a_file_in_the_place_of_an_artifact_is_one_sentence(
    byway: Byway, toys: Toys, workspace: Path, verb: str
) -> None:
    byway("run", workspace)
    shutil.rmtree(workspace / "02-embeddings")
    (workspace / "02-embeddings").touch()
    assert "02-embeddings is a file" in byway(verb, workspace).sentence()


def test_a_bundle_that_is_older_than_the_log_knows_no_users(byway: Byway, served: Path, tmp_path: Path) -> None:
    """Its items may stand in other rows."""
    other = tmp_path / "w"
    other.mkdir()
    (other / "13-bundle").symlink_to(served / "13-bundle")
    commit(other / "01-catalog", "catalog", lambda out: (out / "items.parquet").touch())
    assert "older than its catalog" in byway("recommend", other, "--user", "Ann 🎬").sentence()
    assert byway("recommend", other, "--history", "c0-0", "--json").json()["strategy"] == "table"


def test_an_argument_that_is_no_text(byway: Byway, served: Path) -> None:
    broken = b"\xff".decode("utf-8", "surrogateescape")
    answer = byway("recommend", served, "--history", f"{broken},c0-0", "--json").json()
    assert answer["reasons"][0].startswith("1 of 2 items in the history are not in the catalog")


# demo


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """The demo with a world that takes no time, and no stages; which worlds were made."""
    made: list[bool] = []

    def write(folder: Path, full: bool) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "items.parquet").write_text(f"{full}", "utf-8")
        made.append(full)

    names = ("catalog.items", "catalog.users", "table.entries", "table.legal", "language.match_rate")
    video = ("covered_items", "coverage", "recall_at_10.video", *(f"baseline.{b}.recall_at_10" for b in GUESSES))
    found = {name: 1.0 for name in (*names, *(f"{who}.recall_at_10.heldout" for who in ("language", *BASELINES)))}
    found |= {f"video.{name}": i / 8 for i, name in enumerate(video)}
    monkeypatch.setattr(loop, "write_demo", write)
    monkeypatch.setattr(pipeline, "run", lambda workspace, chosen, until=None, only=None: {})
    monkeypatch.setattr(pipeline, "figures", lambda records: found)
    monkeypatch.setattr(preview, "text", lambda workspace: "[names of interests]")
    monkeypatch.setattr(demonstration, "_answers", lambda directory, settings: ("u1", "v1", "An answer."))
    return made


BASELINES = ("baseline.popularity", "baseline.zero_shot")
GUESSES = ("popularity", "counts")


def test_demo(byway: Byway, world: list[bool], tmp_path: Path) -> None:
    said = byway("demo", tmp_path / "d", "--json").json()
    assert set(said) == {"seconds", "seconds_to_first_look", "user", "item", "figures"}
    shown = byway("demo", tmp_path / "d")
    assert "[names of interests]" in shown.err, "what can be said early is said on the way"
    for words in (
        "An answer.",
        f"byway serve {tmp_path / 'd'}",
        "/?user=u1",
        f"byway show {tmp_path / 'd'}",
        "--full",
    ):
        assert words in shown.out
    assert world == [False], "the world is made once"
    assert config.load(tmp_path / "d" / "byway.toml").catalog.items == "source/items.parquet"


def test_the_full_demo_says_who_recalls_as_much_without_looking(
    byway: Byway, world: list[bool], tmp_path: Path
) -> None:
    said = byway("demo", tmp_path / "d", "--full").out
    assert world == [True]
    for words in ("what surprises after that video", "0.250", "popularity 0.375", "the log 0.500", "report.html"):
        assert words in said


def test_demo_leaves_another_workspace_as_it_is(byway: Byway, world: list[bool], workspace: Path) -> None:
    assert "holds another workspace" in byway("demo", workspace).sentence()
    assert world == []


def test_a_small_demo_does_not_become_a_large_one(byway: Byway, world: list[bool], tmp_path: Path) -> None:
    byway("demo", tmp_path)
    assert "choose another directory" in byway("demo", tmp_path, "--full").sentence()


def test_demo_leaves_a_folder_of_that_name_as_it_is(byway: Byway, world: list[bool], tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "thesis.txt").write_text("mine", "utf-8")
    assert "source is there already" in byway("demo", tmp_path).sentence()
    assert (tmp_path / "source" / "thesis.txt").read_text("utf-8") == "mine"


def test_a_world_that_was_cut_short_goes_on(
    byway: Byway, world: list[bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut_short(folder: Path, full: bool) -> None:
        folder.mkdir(parents=True)
        (folder / "half").touch()
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "write_demo", cut_short)
        assert byway("demo", tmp_path).code == 130
    assert not (tmp_path / "source").exists()
    assert byway("demo", tmp_path).code == 0
    assert sorted(p.name for p in (tmp_path / "source").iterdir()) == ["half", "items.parquet"]
    assert not (tmp_path / "source.part").exists()


@pytest.mark.parametrize("shard", ["3", "0/3", "4/3", "a/b", "1/0", "-1/3"])
def test_a_shard_that_is_none_is_one_sentence(byway: Byway, tmp_path: Path, shard: str) -> None:
    folder = make_workspace(tmp_path)
    assert "2/3" in byway("run", str(folder), f"--shard={shard}").sentence()


def test_a_shard_is_of_one_stage(byway: Byway, tmp_path: Path) -> None:
    folder = make_workspace(tmp_path)
    assert "--only" in byway("run", str(folder), "--shard=1/2", "--until=tree").sentence()


def test_every_verb_reads_the_settings_of_the_service_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `byway serve` writes to a server, `byway forget` and `byway backup` must not look for in files here."""
    (tmp_path / "byway.toml").touch()
    monkeypatch.setenv("BYWAY_SERVING_HISTORY", "redis://127.0.0.1:1/0")
    with pytest.raises(UserError, match="The history does not answer"):
        cli.forget(tmp_path, "ann")
    with pytest.raises(UserError, match=r"kept by the server of serving\.history"):
        cli.backup(tmp_path, tmp_path / "copy")
    monkeypatch.setenv("BYWAY_SERVING_HISTRY", "x")
    with pytest.raises(UserError, match="BYWAY_SERVING_HISTRY is no setting"):
        cli.backup(tmp_path, tmp_path / "copy")


def test_a_service_refuses_settings_of_the_bundle(tmp_path: Path) -> None:
    (tmp_path / "byway.toml").touch()
    with pytest.raises(UserError, match=r"--set bundle\.skip=0\.1: only \[serving\] is read here"):
        cli.serve(tmp_path, set=["serving.workers=1", "bundle.skip=0.1"])
