"""The table of a workspace filled by a real server: llama.cpp's with the shipped weights.

    python benchmarks/llama.py W [--candidates 6] [--cut 60] [--json PATH]

W is a workspace built as far as 06-transitions; it is copied. Every pair is asked by chat, in a run that is cut
after `--cut` seconds and goes on; by completions, a name at a time, under a grammar; and by files of a batch
service, whose requests are put to the same server one by one and whose results `byway answers` takes in, in two
parts.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from byway.base import known_models
from byway.transitions import table as tables

SERVE = """
    import sys, time, xllamacpp
    p = xllamacpp.CommonParams()
    p.model.path, p.hostnames, p.port, p.n_ctx, p.n_parallel = sys.argv[1], ["127.0.0.1"], 0, 8192, 2
    p.cpuparams.n_threads = p.cpuparams_batch.n_threads = 1
    server = xllamacpp.Server(p)
    print(server.listening_address, flush=True)
    time.sleep(3600)
"""


@contextmanager
def served() -> Iterator[str]:
    """llama.cpp's server with the shipped weights, on loopback."""
    record = known_models.record(known_models.DEFAULT)
    found = find_spec(record.module)
    assert found is not None
    path = Path(found.origin or "").parent / record.gguf
    command = [sys.executable, "-c", textwrap.dedent(SERVE), str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        yield f"{process.stdout.readline().strip()}/v1"
        process.kill()


def byway(*words: str, limit: float | None = None) -> tuple[int, float]:
    """A run of the command line: its exit code, -9 where it was cut, and seconds."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "byway", *words]
    try:
        code = subprocess.run(command, timeout=limit, capture_output=True, check=False).returncode
    except subprocess.TimeoutExpired:  # the process is killed
        code = -9
    return code, time.perf_counter() - began


def answered(path: Path) -> int:
    """Questions whose answers are kept."""
    (kept,) = (path / "answers").glob("*/ranking.npy")
    return int((np.load(kept) != -2).all(axis=1).sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--candidates", type=int, default=6)
    parser.add_argument("--cut", type=float, default=60)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    found: dict[str, Any] = {}
    with served() as address, tempfile.TemporaryDirectory() as folder:
        own = [
            "answers.model=smollm2-135m", f"answers.url={address}", f"answers.candidates={given.candidates}",
            "answers.at_once=2",
        ]  # fmt: skip

        def copied(name: str) -> Path:
            ignored = shutil.ignore_patterns("0[789]-*", "1*-*", "answers")
            return Path(shutil.copytree(given.workspace, Path(folder) / name, ignore=ignored))

        def run(path: Path, *more: str, limit: float | None = None) -> tuple[int, float]:
            words = [word for setting in (*own, *more) for word in ("--set", setting)]
            return byway("run", str(path), "--until", "transition_table", *words, limit=limit)

        chat = copied("chat")
        run(chat, "language_model.answers=server", limit=given.cut)
        before = answered(chat)
        code, seconds = run(chat, "language_model.answers=server")
        assert code == 0
        by_chat = tables.load(chat / "08-transition-table")
        pairs = by_chat.model.shape[0] ** 2
        found["chat"] = {
            "pairs": pairs, "kept over the cut": before, "seconds a pair": round(seconds / (pairs - before), 2)
        }  # fmt: skip
        print(found, flush=True)

        named = copied("completions")
        code, seconds = run(named, "language_model.answers=server", "answers.protocol=grammar")
        assert code == 0
        by_name = tables.load(named / "08-transition-table")
        found["completions"] = {"seconds a pair": round(seconds / pairs, 2)}
        for name, table in (("chat", by_chat), ("completions", by_name)):
            found[name]["pairs answered"] = int((table.model[:, :, 0] >= 0).sum())
        print(found, flush=True)

        batch = copied("batch")
        assert run(batch, "language_model.answers=batch")[0] == 2
        (file,) = (batch / "answers").glob("*/requests-*.jsonl")
        lines: list[str] = []
        with httpx.Client(timeout=600) as client:
            for line in file.read_text("utf-8").splitlines():
                request = json.loads(line)
                said = client.post(f"{address}/chat/completions", json=request["body"])
                response = {"status_code": said.status_code, "body": said.json()}
                lines.append(json.dumps({"custom_id": request["custom_id"], "response": response, "error": None}))
        half = len(lines) // 2
        for name, part in (("second", lines[half:]), ("first", lines[:half])):
            (batch / name).write_text("\n".join(part), "utf-8")
            words = [word for setting in (*own, "language_model.answers=batch") for word in ("--set", setting)]
            assert byway("answers", str(batch), str(batch / name), *words)[0] == 0
        assert run(batch, "language_model.answers=batch")[0] == 0
        by_batch = tables.load(batch / "08-transition-table")
        found["batch"] = {"same answers as by chat": round(float((by_batch.model == by_chat.model).mean()), 4)}
    print(json.dumps(found))
    if given.json:
        given.json.write_text(json.dumps(found, indent=1), "utf-8")


if __name__ == "__main__":
    main()
