"""Let a run fail or die at every write, rename, sync and removal, one after the other, and look at what is left.

    python benchmarks/faults.py [--json] [--real 40]

A run of three small stages is repeated in a forked process, and each time another of its calls is its last:

    kill      SIGKILL just before the call
    torn      SIGKILL in the middle of a write, or just after the call
    power     as kill; what was written and not synced by then is lost
    fail      the call fails, once (no space left, or an input/output error)
    full      from the call on nothing can be created or written
    readonly  from the call on nothing can be changed

from three beginnings: an empty workspace, one of older artifacts, one that an earlier kill left half built. After
each, every artifact must be absent, the old one or the new one, byte for byte; and the next run must complete, end
in the bytes of an undisturbed run, and leave nothing beside them. `--real` does the same at that many places,
spread evenly, of a run of the real stages on a tiny log (the encoder is a hash, the language model's table the
log's counts: they would take the time and touch files as the others do). Needs a C compiler and Linux.
"""

import argparse
import ctypes
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

MODES = {"nothing": 0, "kill": 1, "torn": 2, "power": 1, "fail": 3, "full": 4, "readonly": 5}
KILLED = ("kill", "torn", "power")
BEGINNINGS = ("empty", "older", "interrupted")


# The runs under test


def small(folder: Path, how: str) -> None:
    """Three stages that write as real ones do: arrays, folders in folders, shards in the scratch."""
    from byway.base import config
    from byway.workflow import pipeline

    if how == "interrupted":
        os.environ["FAULTS_STOP"] = "doubles"
    overrides = ["catalog.positive=0.007"] if how == "older" else []
    pipeline.run(folder, config.load(folder / "byway.toml", overrides))


def toy_stages() -> None:
    """Put the small stages in the pipeline's place."""
    from byway.base import artifact
    from byway.base.artifact import Outcome, Work
    from byway.workflow import pipeline, stages
    from byway.workflow.artifacts import Inputs, Stage

    def numbers(work: Work, inputs: Inputs) -> Outcome:
        size = round(1000 * inputs.config.catalog.positive)
        np.save(work.out / "numbers.npy", np.arange(size))
        (work.out / "inner" / "deep").mkdir(parents=True)
        (work.out / "inner" / "deep" / "text.txt").write_text("text " * size, "utf-8")
        return Outcome(metrics={"numbers": size})

    def doubles(work: Work, inputs: Inputs) -> Outcome:
        shards = [work.scratch / f"shard-{i}.npy" for i in range(3)]
        for i, shard in enumerate(shards):
            if not shard.exists():
                artifact.write_atomic(shard, (2 * load_numbers(inputs)[i::3]).tobytes())
            if i == 1 and os.environ.get("FAULTS_STOP") == "doubles":
                os._exit(0)
        (work.out / "doubles").write_bytes(b"".join(shard.read_bytes() for shard in shards))
        return Outcome()

    def total(work: Work, inputs: Inputs) -> Outcome:
        doubled = inputs.load(DOUBLES.folder, lambda path: (path / "doubles").read_bytes())
        found = [int(load_numbers(inputs).sum()), len(doubled or b"")]
        (work.out / "total.json").write_text(json.dumps(found), "utf-8")
        return Outcome()

    def load_numbers(inputs: Inputs) -> Any:
        return inputs.load(NUMBERS.folder, lambda path: np.load(path / "numbers.npy"))

    NUMBERS = Stage(1, "catalog", numbers, outside=stages.CATALOG.outside)
    DOUBLES = Stage(2, "embeddings", doubles, (NUMBERS,))
    pipeline.STAGES = (NUMBERS, DOUBLES, Stage(3, "graph", total, (NUMBERS, DOUBLES)))
    vars(pipeline)["prepare"] = lambda config: None


def real(folder: Path, how: str) -> None:
    """The real stages on the log in `folder`."""
    from byway.base import config
    from byway.workflow import pipeline

    overrides = ["item_policy.epochs=1", "item_policy.dim=8", "item_policy.history=8", "run.threads=1"]
    if how == "older":
        overrides += ["catalog.positive=0.9", "embeddings.dim=16"]
    until = "descriptions" if how == "interrupted" else None
    pipeline.run(folder, config.load(folder / "byway.toml", overrides), until)


def real_stages() -> None:
    """The real stages, with a quick encoder, and counts in the place of the language model."""
    import zlib

    for module in ("data.catalog", "interests.describe", "items.sequence", "serving.pack"):
        import_module(f"byway.{module}")  # once, before the processes part
    from byway.base import engine
    from byway.base.artifact import Outcome, Work
    from byway.interests import embed
    from byway.transitions.counts import Successors
    from byway.transitions.curate import Transitions
    from byway.transitions.signals import TableWeights
    from byway.workflow import pipeline, stages

    engine.daft()

    def encoder(settings: Any) -> Callable[[list[str]], Any]:
        def encode(texts: list[str]) -> Any:
            rows = [np.random.default_rng(zlib.crc32(t.split()[0].encode())).normal(size=32) for t in texts]
            return np.asarray(rows, np.float32)

        return encode

    def table(work: Work, transitions: Transitions) -> Outcome:
        clusters = transitions.clusters
        pairs = np.array(list(itertools.product(range(clusters), repeat=2)), np.int32)
        scores = Successors.of(transitions).probability(pairs)
        np.put_along_axis(scores, pairs.astype(np.int64), -1.0, axis=1)
        best = np.argsort(-scores, axis=1, kind="stable")[:, :4].astype(np.int32).reshape(clusters, clusters, 4)
        for name in ("clusters", "model"):
            np.save(work.out / f"{name}.npy", best)
        np.save(work.out / "scores.npy", np.zeros(best.shape, np.float32))
        (work.out / "fitted.json").write_bytes(msgspec.json.encode(TableWeights({})))
        return Outcome()

    vars(embed)["sentence_encoder"] = encoder
    counted = replace(
        stages.TRANSITION_TABLE,
        build=lambda work, inputs: table(work, inputs.transitions),
        reads=(stages.TRANSITIONS,),
    )
    kept = [stage for stage in pipeline.STAGES if stage not in (stages.LANGUAGE_MODEL, stages.METRICS)]
    kept[kept.index(stages.TRANSITION_TABLE)] = counted
    pipeline.STAGES = tuple(kept)


def tiny_log(folder: Path) -> None:
    """Sixty items of six topics, and forty people."""
    rng = np.random.default_rng(0)
    topics = ["harbour", "violin", "glacier", "bakery", "chess", "orchid"]
    items = [f'{i},"{topics[i % 6]} {topics[(i // 6) % 6]} number {i}"' for i in range(60)]
    (folder / "items.csv").write_text("item,title\n" + "\n".join(items), "utf-8")
    events = [f"u{u},{rng.integers(60)},{1_700_000_000 + 60 * (20 * u + t)}" for u in range(40) for t in range(20)]
    (folder / "events.csv").write_text("user,item,time\n" + "\n".join(events), "utf-8")


# The injector


def forked(action: Callable[[], None], said: Path) -> int:
    """Run `action` in a forked process; its exit code: 0, 2 for a failure that was told, 3 for another, -9."""
    child = os.fork()
    if child == 0:
        descriptor = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        code = 3
        try:
            action()
            code = 0
        except BaseException as error:  # noqa: BLE001  what it is becomes the exit code
            from byway.base.errors import UserError

            traceback.print_exc()
            # A failure of the disk reaches the caller as what it is, or as a sentence.
            code = 2 if isinstance(error, UserError | OSError) else 3
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def lose_unsynced(log: Path) -> list[str]:
    """Empty the files that were written and never synced, as a power cut may; returns their names."""
    dirty: set[str] = set()
    # The last call was not made.
    for line in log.read_text("utf-8", "replace").splitlines()[:-1]:
        what, path, other = line.split("\t")
        if what == "write":
            dirty.add(path)
        elif what in ("sync", "remove"):
            dirty.discard(path)
        elif what == "rename":
            moved = {p for p in dirty if p == path or p.startswith(path + "/")}
            dirty = (dirty - moved - {other}) | {other + p[len(path) :] for p in moved}
    lost = [path for path in sorted(dirty) if os.path.isfile(path)]
    for path in lost:
        os.truncate(path, 0)
    return lost


def digests(folder: Path) -> dict[str, str]:
    """What each artifact is, by its folder: absent, or the digest of its files; raises where it is not whole."""
    from byway.base import artifact
    from byway.workflow import pipeline

    found: dict[str, str] = {}
    for stage in pipeline.STAGES:
        record = artifact.read_record(folder / stage.folder)
        if record is None:
            found[stage.folder] = "absent"
            continue
        if edited := artifact.edited(folder / stage.folder, record):
            raise AssertionError(f"{stage.folder} has a record and lacks {edited}")
        found[stage.folder] = record.digest
    return found


def leftovers(folder: Path) -> list[str]:
    """What a finished run should not leave."""
    return [p.name for p in folder.rglob("*") if p.suffix in (".part", ".old", ".scratch", ".tmp")]


class Campaign:
    """One kind of run, its reference bytes, and what came out."""

    def __init__(self, run: Callable[[Path, str], None], library: ctypes.CDLL, root: Path, log: bool):
        self.run, self.library, self.root = run, library, root
        self.tried: Counter[str] = Counter()
        self.codes: Counter[str] = Counter()
        self.completed = 0
        self.wrong: list[str] = []
        self.begun: dict[str, Path] = {}
        self.known: dict[str, dict[str, str]] = {}
        for how in BEGINNINGS:
            folder = root / how
            folder.mkdir(parents=True)
            toml = ""
            if log:
                tiny_log(folder)
                toml = '[catalog]\nsource = "csv"\nitems = "items.csv"\nevents = "events.csv"\n'
            (folder / "byway.toml").write_text(toml, "utf-8")
            if how != "empty" and forked(partial(run, folder, how), root / "said"):
                sys.exit((root / "said").read_text("utf-8"))
            self.begun[how] = folder
            self.known[how] = self._looked_at(folder)
        whole = root / "whole"
        shutil.copytree(self.begun["empty"], whole)
        if forked(lambda: run(whole, "whole"), root / "said"):
            sys.exit((root / "said").read_text("utf-8"))
        self.whole = self._looked_at(whole)

    def _looked_at(self, folder: Path) -> dict[str, str]:
        target = self.root / "looked"
        if forked(lambda: target.write_text(json.dumps(digests(folder)), "utf-8") and None, self.root / "said"):
            raise AssertionError((self.root / "said").read_text("utf-8").strip().splitlines()[-1])
        return json.loads(target.read_text("utf-8"))

    def calls(self, how: str) -> int:
        """How many calls an undisturbed run from this beginning makes."""
        self._once(how, "nothing", -1)
        return len((self.root / "log").read_text("utf-8", "replace").splitlines())

    def _once(self, how: str, mode: str, n: int) -> int:
        folder, log = self.root / "state", self.root / "log"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.begun[how], folder)

        def action() -> None:
            descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
            self.library.faults_arm(str(folder).encode(), MODES[mode], ctypes.c_long(n), descriptor)
            self.run(folder, "whole")

        return forked(action, self.root / "said")

    def state(self, how: str, mode: str, n: int) -> None:
        """Fail in this mode at call n, look at what is left, run again."""
        code = self._once(how, mode, n)
        name = f"{how}, {mode} at call {n}"
        self.tried[f"{how}.{mode}"] += 1
        self.codes[f"{mode}: {code}"] += 1
        folder = self.root / "state"
        if mode == "power":
            lose_unsynced(self.root / "log")
        if code == 3:
            self.wrong.append(f"{name}: {(self.root / 'said').read_text('utf-8').strip().splitlines()[-1]}")
        try:
            for artifact, digest in self._looked_at(folder).items():
                # An artifact of the beginning may be replaced, and never be lost.
                if digest not in (self.known[how][artifact], self.whole[artifact]):
                    self.wrong.append(f"{name}: {artifact} is neither the old one nor the new one")
            if forked(lambda: self.run(folder, "whole"), self.root / "said"):
                reason = (self.root / "said").read_text("utf-8").strip().splitlines()[-1]
                self.wrong.append(f"{name}: the next run did not complete: {reason}")
            elif self._looked_at(folder) != self.whole:
                self.wrong.append(f"{name}: the next run ended in other bytes")
            elif left := leftovers(folder):
                self.wrong.append(f"{name}: the next run left {left}")
            else:
                self.completed += 1
        except AssertionError as error:
            self.wrong.append(f"{name}: {error}")

    def result(self) -> dict[str, Any]:
        return {
            "states": sum(self.tried.values()),
            "completed": self.completed,
            "states_by_kind": dict(self.tried),
            "exit_codes": dict(sorted(self.codes.items())),
            "wrong": self.wrong,
        }


def small_states(library: ctypes.CDLL, root: Path, every: int, modes: list[str]) -> dict[str, Any]:
    """Every `every`-th call of the small run, in these modes, from every beginning."""
    toy_stages()
    campaign = Campaign(small, library, root, log=False)
    for how in BEGINNINGS:
        for n in range(0, campaign.calls(how), every):
            for mode in modes:
                campaign.state(how, mode, n)
    return campaign.result()


def real_states(library: ctypes.CDLL, root: Path, places: int) -> dict[str, Any]:
    """The real run at `places` calls, spread evenly, the modes in turn."""
    real_stages()
    campaign = Campaign(real, library, root, log=True)
    for how in BEGINNINGS:
        calls = campaign.calls(how)
        share = -(-places // len(BEGINNINGS))
        modes = itertools.cycle(list(MODES)[1:])
        for n in np.unique(np.linspace(0, calls - 1, share).astype(int)).tolist():
            campaign.state(how, next(modes), n)
    return campaign.result()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--every", type=int, default=1, help="Only every n-th call of the small run.")
    parser.add_argument("--only", nargs="+", choices=list(MODES)[1:], default=list(MODES)[1:], help="Modes.")
    parser.add_argument("--real", type=int, default=0, help="Places of a run of the real stages; 0 leaves it out.")
    parser.add_argument("--without-sync", action="store_true", help="Plant a defect, which must be found.")
    parser.add_argument("--library", help=argparse.SUPPRESS)
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.library is None:
        memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        with tempfile.TemporaryDirectory(dir=memory) as folder:
            library = str(Path(folder) / "faults.so")
            source = str(Path(__file__).with_suffix(".c"))
            subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
            again = [sys.executable, __file__, *sys.argv[1:], "--library", library, "--root", folder]
            sys.exit(subprocess.run(again, env={**os.environ, "LD_PRELOAD": library}, check=False).returncode)
    library = ctypes.CDLL(options.library)
    if options.without_sync:
        os.fsync = lambda descriptor: None
    began = time.perf_counter()
    found = {"small": small_states(library, options.root / "small", options.every, options.only)}
    if options.real:
        # The small stages stand in the pipeline's place in this process: the real ones need another.
        for name in [name for name in sys.modules if name.startswith("byway")]:
            del sys.modules[name]
        found["real"] = real_states(library, options.root / "real", options.real)
    result = {
        "states": sum(part["states"] for part in found.values()),
        "completed": sum(part["completed"] for part in found.values()),
        "lost": sum(len(part["wrong"]) for part in found.values()),
        "seconds": round(time.perf_counter() - began, 1),
        **found,
    }
    print(json.dumps(result) if options.json else json.dumps(result, indent=2))
    sys.exit(bool(result["lost"]))


if __name__ == "__main__":
    main()
