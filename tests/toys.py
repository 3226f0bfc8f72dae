"""Three toy stages in the pipeline's place: numbers from a file, their doubles, and the sum of both."""

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from byway import config, pipeline
from byway.artifact import Gate, Outcome, Work
from byway.pipeline import Stage


class Toys:
    """The stages under the names of real ones, and what they did.

    `catalog` reads the file that its knob names and writes the numbers below `max_title`; `embeddings` doubles
    them, rounded down to a multiple of its knob `batch`; `graph` sums everything and needs its knob `neighbours`.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.built: list[str] = []
        self.fail_in: str | None = None
        stages = (
            Stage(1, "catalog", "toy.catalog"),
            Stage(2, "embeddings", "toy.embeddings", ("numbers",)),
            Stage(3, "graph", "toy.graph", ("numbers", "doubles")),
        )
        for stage, build in zip(stages, (self.catalog, self.embeddings, self.graph), strict=True):
            module = ModuleType(stage.module)
            module.build = build
            module.load = self.load
            monkeypatch.setitem(sys.modules, stage.module, module)
        reads = {"numbers": ("catalog", "toy.catalog"), "doubles": ("embeddings", "toy.embeddings")}
        monkeypatch.setattr(pipeline, "STAGES", stages)
        monkeypatch.setattr(pipeline, "READS", reads)
        monkeypatch.setattr(pipeline, "BY_NAME", {stage.name: stage for stage in stages})
        # Threads and dataframes are not for toys; the real thing takes seconds.
        monkeypatch.setattr(pipeline, "_prepare", lambda config: None)

    def load(self, path: Path) -> Any:
        return json.loads((path / "values.json").read_text("utf-8"))

    def write(self, name: str, work: Work, values: Any) -> Outcome:
        self.built.append(name)
        if self.fail_in == name:
            (work.scratch / "checkpoint").write_text("half", "utf-8")
            raise RuntimeError("the power went out")
        (work.out / "values.json").write_text(json.dumps(values), "utf-8")
        gate = {f"{name}.size": Gate(float(len(str(values))), 3.0)}
        return Outcome(metrics={f"{name}.values": values}, gates=gate)

    def catalog(self, work: Work, knobs: config.Catalog, workspace: Path) -> Outcome:
        text = (workspace / knobs.items).read_text("utf-8")
        return self.write("catalog", work, [n for n in map(int, text.split()) if n < knobs.max_title])

    def embeddings(self, work: Work, knobs: config.Embeddings, numbers: list[int]) -> Outcome:
        return self.write("embeddings", work, [2 * n // knobs.batch * knobs.batch for n in numbers])

    def graph(self, work: Work, knobs: config.Graph, numbers: list[int], doubles: list[int]) -> Outcome:
        return self.write("graph", work, sum(numbers) + sum(doubles) + knobs.neighbours)

    def did(self) -> list[str]:
        """The stages built since the last time that this was asked."""
        built, self.built = self.built, []
        return built


def workspace(folder: Path) -> Path:
    """A workspace for the toys."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "items.csv").write_text("10 20 30", "utf-8")
    (folder / "byway.toml").write_text('[catalog]\nitems = "items.csv"\n', "utf-8")
    return folder
