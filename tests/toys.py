"""Three toy stages in the pipeline's place: numbers from a file, their doubles, and the sum of both."""

import json
from pathlib import Path
from typing import Any

import pytest

from byway.base.artifact import Gate, Outcome, Work
from byway.workflow import pipeline, stages
from byway.workflow.artifacts import Inputs, Stage


class Toys:
    """The stages under the names of real ones, and what they did.

    `catalog` reads the file that its setting names and writes the numbers below a hundred times `positive`;
    `embeddings` doubles them, rounded down to a multiple of its setting `dim`; `tree` sums everything and needs its
    setting `items_per_cluster`.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.built: list[str] = []
        self.fail_in: str | None = None
        numbers = Stage(1, "catalog", self.catalog, outside=stages.CATALOG.outside)
        doubles = Stage(2, "embeddings", self.embeddings, (numbers,))
        self.stages = (numbers, doubles, Stage(3, "tree", self.tree, (numbers, doubles)))
        monkeypatch.setattr(pipeline, "STAGES", self.stages)
        # Threads and dataframes are not for toys; the real thing takes seconds.
        monkeypatch.setattr(pipeline, "prepare", lambda config: None)

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

    def catalog(self, work: Work, inputs: Inputs) -> Outcome:
        settings = inputs.config.catalog
        text = (inputs.workspace / settings.items).read_text("utf-8")
        return self.write("catalog", work, [n for n in map(int, text.split()) if n < 100 * settings.positive])

    def embeddings(self, work: Work, inputs: Inputs) -> Outcome:
        dim = inputs.config.embeddings.dim
        return self.write("embeddings", work, [2 * n // dim * dim for n in self.read(inputs, 0)])

    def tree(self, work: Work, inputs: Inputs) -> Outcome:
        total = sum(self.read(inputs, 0)) + sum(self.read(inputs, 1))
        return self.write("tree", work, total + inputs.config.tree.items_per_cluster)

    def read(self, inputs: Inputs, stage: int) -> Any:
        return inputs.load(self.stages[stage].folder, self.load)

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
