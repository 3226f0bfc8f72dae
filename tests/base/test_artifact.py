"""Artifacts under kills, edits, damage and second runs."""

import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byway.base import artifact
from byway.base.artifact import Gate, Outcome, Record
from byway.base.errors import UserError

STAGE = "toy"
CALLS = ("rename", "replace", "fsync", "unlink", "rmdir", "mkdir", "open")
"""What changes a directory, and what leads up to it: the process dies just before the n-th of these calls."""


@pytest.fixture(scope="module", autouse=True)
def memory_is_disk() -> Iterator[None]:
    """The kills here are of the process, which loses nothing that was written: flushing only takes time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


class Killed(BaseException):
    """Like a kill, nothing catches it."""


def build(path: Path, text: str, inputs: dict[str, str] | None = None, seed: int = 0) -> Record:
    """Make the artifact that consists of this text, as the pipeline makes one."""
    settings, inputs = {"text": text}, inputs or {}
    record = artifact.read_record(path)
    if record is not None and not artifact.drift(record, settings, inputs):
        artifact.tidy(path)
        return record
    with artifact.part(path, STAGE, settings, inputs, seed) as work:
        (work.out / "first.txt").write_text(text, "utf-8")
        (work.scratch / "checkpoint").write_text(text, "utf-8")
        (work.out / "inner").mkdir()
        (work.out / "inner" / "second.txt").write_text(text * 2, "utf-8")
        drawn = work.rng.integers(1 << 30, size=4)
    np.save(path.with_name(path.name + ".part") / "drawn.npy", drawn)
    outcome = Outcome({"letters": len(text)}, {"toy.letters": len(text)}, {"toy": Gate(1.0, 0.5)}, {"toy": 0.12345})
    return artifact.commit(path, STAGE, settings, inputs, outcome)


def contents(path: Path) -> dict[str, bytes]:
    """Every file below `path`."""
    return {p.relative_to(path).as_posix(): p.read_bytes() for p in path.rglob("*") if p.is_file()}


def killed_at(n: int, action: Callable[[], object]) -> bool:
    """Run `action` and die before the n-th call of CALLS; False where it made fewer."""
    count = itertools.count()
    with pytest.MonkeyPatch.context() as patch:

        def dying(call: Callable[..., object]) -> Callable[..., object]:
            def wrapped(*arguments: object, **named: object) -> object:
                if next(count) >= n:
                    raise Killed
                return call(*arguments, **named)

            return wrapped

        for name in CALLS:
            patch.setattr(os, name, dying(getattr(os, name)))
        try:
            action()
        except Killed:
            return True
    return False


def assert_whole(path: Path, texts: set[str]) -> None:
    """There is an artifact of one of the texts, with all of its files, and no others."""
    record = artifact.read_record(path)
    assert record is not None
    assert record.settings["text"] in texts
    assert artifact.edited(path, record) == []
    assert set(contents(path)) == {*record.files, artifact.RECORD}
    assert (path / "first.txt").read_text("utf-8") == record.settings["text"]


@pytest.mark.parametrize("before", [None, "old"])
def test_a_kill_at_any_step_leaves_the_old_or_the_new(tmp_path: Path, before: str | None) -> None:
    undisturbed = tmp_path / "undisturbed" / "04-toy"
    build(undisturbed, "new")
    seen = set()
    for n in itertools.count():
        path = tmp_path / str(n) / "04-toy"
        path.parent.mkdir()
        if before is not None:
            build(path, before)
        finished = not killed_at(n, lambda path=path: build(path, "new"))
        record = artifact.read_record(path)
        seen.add(None if record is None else record.settings["text"])
        if record is not None:
            assert_whole(path, {"new", *([before] if before else [])})
        else:
            assert before is None
            assert not path.exists()
        build(path, "new")
        assert_whole(path, {"new"})
        left = [p.name for p in path.parent.iterdir() if not p.name.startswith(".")]
        assert left == ["04-toy"], f"after call {n}"
        assert contents(path).keys() == contents(undisturbed).keys()
        files = [name for name in contents(path) if name != artifact.RECORD]
        assert all(contents(path)[name] == contents(undisturbed)[name] for name in files)
        if finished:
            break
    assert n > 20, "the kills did not reach into the build"
    assert seen == {before, "new"}


def test_a_kill_while_reading_finishes_a_move_loses_nothing(tmp_path: Path) -> None:
    for n in itertools.count():
        path = tmp_path / str(n) / "04-toy"
        path.parent.mkdir()
        build(path, "old")
        # Die in the move itself: both artifacts are whole, and the new one has no name yet.
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(artifact, "_swap", lambda *_: (_ for _ in ()).throw(Killed))
            with pytest.raises(Killed):
                build(path, "new")
        finished = not killed_at(n, lambda path=path: artifact.read_record(path))
        assert_whole(path, {"new"})
        if finished:
            break
    assert n > 3


def test_a_reader_beside_the_run_does_not_move_what_is_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`byway show` beside `byway run`: two who move the same artifact would lose it."""
    path = tmp_path / "04-toy"
    build(path, "old")
    readers: list[threading.Thread] = []
    rename, main = os.rename, threading.current_thread()

    def rename_while_read(source: Path, target: Path) -> None:
        if threading.current_thread() is main:
            readers.append(threading.Thread(target=artifact.read_record, args=(path,)))
            readers[-1].start()
            readers[-1].join(0.2)
        rename(source, target)

    monkeypatch.setattr(os, "rename", rename_while_read)
    build(path, "new")
    for reader in readers:
        reader.join()
    assert len(readers) == 2
    assert_whole(path, {"new"})


def test_scratch_survives_a_failed_build_of_the_same_artifact_only(tmp_path: Path) -> None:
    path = tmp_path / "04-toy"

    def attempt(settings: dict[str, int], inputs: dict[str, str]) -> list[str]:
        """What a build finds in its scratch before it fails."""
        with pytest.raises(OSError), artifact.part(path, STAGE, settings, inputs) as work:  # noqa: PT012
            assert list(work.out.iterdir()) == []
            found = sorted(p.name for p in work.scratch.iterdir() if p.name != "wanted")
            (work.scratch / f"step-{len(found)}").touch()
            (work.out / "half").touch()
            raise OSError
        return found

    assert attempt({"a": 1}, {}) == []
    assert attempt({"a": 1}, {}) == ["step-0"]
    assert attempt({"a": 1}, {}) == ["step-0", "step-1"]
    assert attempt({"a": 2}, {}) == []
    assert attempt({"a": 2}, {"x": "1"}) == []
    assert attempt({"a": 2}, {"x": "1"}) == ["step-0"]
    assert artifact.read_record(path) is None


def test_scratch_that_was_half_removed_belongs_to_nothing(tmp_path: Path) -> None:
    """A kill while the scratch of settings A is removed for settings B, then A again."""
    for n in itertools.count():
        path = tmp_path / str(n) / "04-toy"
        path.parent.mkdir()
        with artifact.part(path, STAGE, {"a": 1}, {}) as work:
            for i in range(3):
                (work.scratch / f"{i}").touch()

        def other(path: Path = path) -> None:
            with artifact.part(path, STAGE, {"a": 2}, {}):
                pass

        finished = not killed_at(n, other)
        with artifact.part(path, STAGE, {"a": 1}, {}) as work:
            left = {p.name for p in work.scratch.iterdir()}
            assert left in ({"wanted", "0", "1", "2"}, {"wanted"}), f"after call {n}"
        if finished:
            break
    assert n > 8


def test_scratch_loses_its_name_before_anything_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after the removal of one file: what is left is not taken for a whole scratch."""
    path = tmp_path / "04-toy"
    with artifact.part(path, STAGE, {"a": 1}, {}) as work:
        for i in range(3):
            (work.scratch / f"{i}").touch()
    remove = artifact.shutil.rmtree

    def dies_after_one(folder: Path, ignore_errors: bool = False) -> None:
        if folder.suffix == ".scratch":
            (folder / "0").unlink()
            raise Killed
        remove(folder, ignore_errors)

    monkeypatch.setattr(artifact.shutil, "rmtree", dies_after_one)
    with pytest.raises(Killed), artifact.part(path, STAGE, {"a": 2}, {}):
        pass
    monkeypatch.setattr(artifact.shutil, "rmtree", remove)
    with artifact.part(path, STAGE, {"a": 1}, {}) as work:
        assert [p.name for p in work.scratch.iterdir()] == ["wanted"]


def test_scratch_is_gone_when_the_artifact_is_whole(tmp_path: Path) -> None:
    build(tmp_path / "04-toy", "text")
    assert not (tmp_path / "04-toy.scratch").exists()


def test_what_a_record_says(tmp_path: Path) -> None:
    path = tmp_path / "04-toy"
    written = build(path, "text", {"catalog": "abc"})
    read = artifact.read_record(path)
    assert read == written
    assert read is not None
    assert read.files == {
        name: artifact.hash_file(path / name) for name in ("drawn.npy", "first.txt", "inner/second.txt")
    }
    assert read.digest == artifact.hash_json(read.files)
    assert read.fingerprint == artifact.fingerprint(STAGE, {"text": "text"}, {"catalog": "abc"})
    assert (read.counts, read.metrics) == ({"letters": 4}, {"toy.letters": 4})
    assert read.gates["toy"].passed
    assert read.timings == {"toy": 0.123}


def test_the_same_build_has_the_same_digest_and_another_seed_another(tmp_path: Path) -> None:
    digests = [build(tmp_path / name / "04-toy", "a", seed=seed).digest for name, seed in (("x", 0), ("y", 0))]
    assert digests[0] == digests[1]
    assert build(tmp_path / "z" / "04-toy", "a", seed=1).digest != digests[0]


@pytest.mark.parametrize("value", [0.5, 0.6])
def test_a_gate_at_its_bar_is_passed(value: float) -> None:
    assert Gate(value, 0.5).passed


@pytest.mark.parametrize("value", [0.4999, float("nan")])
def test_a_gate_below_its_bar_is_not(value: float) -> None:
    assert not Gate(value, 0.5).passed


def test_drift_names_what_changed_field_by_field(tmp_path: Path) -> None:
    with artifact.part(
        tmp_path / "01-a", STAGE, {"kept": [1], "dim": 64, "gone": 1}, {"catalog": "x", "tree": "y"}
    ):
        pass
    record = artifact.commit(
        tmp_path / "01-a", STAGE, {"kept": [1], "dim": 64, "gone": 1}, {"catalog": "x", "tree": "y"}, Outcome()
    )
    assert artifact.drift(record, record.settings, record.inputs) == []
    assert artifact.drift(record, {"kept": [1], "dim": 256, "fresh": "z"}, {"catalog": "x", "tree": "other"}) == [
        "setting dim: 64 → 256",
        "setting fresh: None → z",
        "setting gone: 1 → None",
        "input tree changed",
    ]


def test_edited_names_changed_and_missing_files(tmp_path: Path) -> None:
    path = tmp_path / "04-toy"
    record = build(path, "text")
    assert artifact.edited(path, record) == []
    (path / "inner" / "second.txt").write_text("by hand", "utf-8")
    (path / "drawn.npy").unlink()
    assert artifact.edited(path, record) == ["drawn.npy", "inner/second.txt"]


def test_a_record_changed_by_hand_is_named(tmp_path: Path) -> None:
    path = tmp_path / "04-toy"
    build(path, "text")
    text = (path / artifact.RECORD).read_text("utf-8")
    (path / artifact.RECORD).write_text(text.replace('"text": "text"', '"text": "other"'), "utf-8")
    record = artifact.read_record(path)
    assert record is not None
    assert artifact.edited(path, record) == [artifact.RECORD]
    assert artifact.drift(record, {"text": "text"}, {}) == ["setting text: other → text"]


def test_a_copied_workspace_is_up_to_date(tmp_path: Path) -> None:
    build(tmp_path / "here" / "04-toy", "text")
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    shutil.rmtree(tmp_path / "here")
    record = artifact.read_record(tmp_path / "there" / "04-toy")
    assert record is not None
    assert artifact.drift(record, {"text": "text"}, {}) == []
    assert artifact.edited(tmp_path / "there" / "04-toy", record) == []


def test_an_older_layout_is_built_again_and_a_newer_one_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "04-toy"
    build(path, "text")
    now = artifact.LAYOUT
    monkeypatch.setattr(artifact, "LAYOUT", now + 1)
    record = artifact.read_record(path)
    assert record is not None
    assert artifact.drift(record, {"text": "text"}, {}) == [f"layout: {now} → {now + 1}"]
    assert build(path, "text").layout == now + 1
    monkeypatch.setattr(artifact, "LAYOUT", now)
    with pytest.raises(UserError, match=rf"04-toy was made by Byway .*layout {now + 1}.*delete"):
        artifact.read_record(path)
    # What a newer layout holds beside that is not ours to read.
    (path / artifact.RECORD).write_text('{"version": "9.1", "layout": 9}', "utf-8")
    with pytest.raises(UserError, match=r"Byway 9\.1"):
        artifact.read_record(path)


def test_a_clock_that_goes_backwards_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "04-toy"
    before = build(path, "text")
    monkeypatch.setattr(artifact.time, "gmtime", lambda: time.struct_time((1970, 1, 1, 0, 0, 0, 3, 1, 0)))
    assert build(path, "text") == before
    assert build(path, "other").created == "1970-01-01T00:00:00Z"
    assert_whole(path, {"other"})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None])
def test_a_gate_that_could_not_be_measured_is_read_back_as_such(tmp_path: Path, value: float | None) -> None:
    path = tmp_path / "04-toy"
    with artifact.part(path, STAGE, {}, {}):
        pass
    artifact.commit(path, STAGE, {}, {}, Outcome(gates={"recall": Gate(value, 0.5), "bar": Gate(0.5, value)}))
    record = artifact.read_record(path)
    assert record is not None
    assert [gate.passed for gate in record.gates.values()] == [False, False]
    assert str(record.gates["recall"]) == "not a number, wanted at least 0.5"


def test_no_artifact_is_no_record(tmp_path: Path) -> None:
    assert artifact.read_record(tmp_path / "04-toy") is None
    (tmp_path / "04-toy").mkdir()
    assert artifact.read_record(tmp_path / "04-toy") is None


def assert_damaged(path: Path, data: bytes) -> None:
    (path / artifact.RECORD).write_bytes(data)
    with pytest.raises(UserError) as error:
        artifact.read_record(path)
    assert str(path / artifact.RECORD) in str(error.value)
    assert f"delete {path}" in str(error.value)


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[]", b"null", b"\xff\xfe", b'{"stage": "\xff"}', b'{"stage": 3}', b"\0" * 100]
)
def test_a_damaged_record_is_one_sentence(tmp_path: Path, data: bytes) -> None:
    build(tmp_path / "04-toy", "text")
    assert_damaged(tmp_path / "04-toy", data)


@settings(deadline=None, max_examples=25)
@given(st.data())
def test_a_record_that_is_cut_short_is_one_sentence(tmp_path_factory: pytest.TempPathFactory, data) -> None:
    path = tmp_path_factory.mktemp("w") / "04-toy"
    build(path, "text")
    whole = (path / artifact.RECORD).read_bytes()
    cut = data.draw(st.integers(0, len(whole.rstrip()) - 1))
    assert_damaged(path, whole[:cut])


def locks(workspace: Path) -> subprocess.Popen[str]:
    """Another process that holds the workspace until its standard input ends."""
    code = (
        "import sys; from pathlib import Path; from byway.base import artifact\n"
        "with artifact.locked(Path(sys.argv[1])):\n"
        "    print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(workspace)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    return holder


def test_a_second_run_is_refused_and_told_by_whom(tmp_path: Path) -> None:
    with locks(tmp_path / "w") as holder:
        for _ in range(2):
            with pytest.raises(UserError) as error, artifact.locked(tmp_path / "w"):
                pass
            assert f"process {holder.pid} on {socket.gethostname()}" in str(error.value)
        holder.kill()
    with artifact.locked(tmp_path / "w"):
        pass


def test_the_lock_is_free_after_its_holder(tmp_path: Path) -> None:
    for _ in range(2):
        with (
            artifact.locked(tmp_path / "w"),
            pytest.raises(UserError, match=f"process {os.getpid()} "),
            artifact.locked(tmp_path / "w"),
        ):
            pass


@settings(deadline=None, max_examples=10)
@given(st.binary(max_size=50), st.binary(max_size=50))
def test_a_write_is_whole_or_absent(tmp_path_factory: pytest.TempPathFactory, before: bytes, after: bytes) -> None:
    for n in itertools.count():
        path = tmp_path_factory.mktemp("w") / "file"
        artifact.write_atomic(path, before)
        finished = not killed_at(n, lambda path=path: artifact.write_atomic(path, after))
        assert path.read_bytes() in (before, after)
        if finished:
            break
    assert path.read_bytes() == after


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_a_hash_does_not_depend_on_the_order_of_keys(value) -> None:
    turned = dict(reversed(value.items()))
    assert artifact.hash_json(value) == artifact.hash_json(turned)
    again = json.loads(json.dumps(value))
    assert artifact.hash_json(value) == artifact.hash_json(again)


@settings(deadline=None, max_examples=25)
@given(st.binary(max_size=2000))
def test_a_file_hash_is_of_its_bytes(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    folder = tmp_path_factory.mktemp("w")
    (folder / "a").write_bytes(data)
    (folder / "b").write_bytes(data + b"\0")
    assert artifact.hash_file(folder / "a") != artifact.hash_file(folder / "b")
    (folder / "b").write_bytes(data)
    assert artifact.hash_file(folder / "a") == artifact.hash_file(folder / "b")


def test_records_are_plain_json(tmp_path: Path) -> None:
    build(tmp_path / "04-toy", "é 🎬")
    text = (tmp_path / "04-toy" / artifact.RECORD).read_text("utf-8")
    assert json.loads(text) == msgspec.json.decode(text)
    assert json.loads(text)["settings"] == {"text": "é 🎬"}
