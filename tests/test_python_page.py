"""The code of docs/python.md runs on a miniature of its data set, and says as many lines as the page shows."""

import contextlib
import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from byway.interests import embed
from byway.workflow import pipeline, stages
from tests.workflow.test_refresh import TOPICS, encoder, table

PAGE = Path(__file__).resolve().parents[1] / "docs" / "python.md"
NAMED = (260, 1196, 1210, 2571)
"""Films that the page asks for."""


def movielens(folder: Path) -> None:
    """The layout of MovieLens' latest small set, with 400 films and 60 people."""
    rng = np.random.default_rng(0)
    films = [film for film in range(1, 400) if film not in NAMED] + list(NAMED)
    folder.mkdir()
    rows = [
        f"{film},{TOPICS[i % 6]} {TOPICS[i // 6 % 6]} {film} (1999),{TOPICS[i % 6]}" for i, film in enumerate(films)
    ]
    (folder / "movies.csv").write_text("\n".join(["movieId,title,genres", *rows]), "utf-8")
    rows = [
        f"{user},{rng.choice(films)},{rng.integers(1, 11) / 2},{978_300_000 + 1000 * user + step}"
        for user in range(1, 61)
        for step in range(40)
    ]
    (folder / "ratings.csv").write_text("\n".join(["userId,movieId,rating,timestamp", *rows]), "utf-8")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the data, a quick encoder, and a table that needs no language model."""
    cheap = replace(
        stages.TRANSITION_TABLE,
        build=lambda work, inputs: table(work, inputs.transitions),
        reads=(stages.TRANSITIONS,),
    )
    kept = [stage for stage in pipeline.STAGES if stage is not stages.LANGUAGE_MODEL]
    kept[kept.index(stages.TRANSITION_TABLE)] = cheap
    monkeypatch.setattr(embed, "sentence_encoder", encoder)
    monkeypatch.setattr(pipeline, "STAGES", tuple(kept))
    monkeypatch.chdir(tmp_path)
    movielens(tmp_path / "ml-latest-small")
    return tmp_path


def test_the_code_of_the_page_runs(here: Path) -> None:
    """Block after block in one namespace. A block's output follows it in the page."""
    page = PAGE.read_text("utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$(?:\n\n^```\n(.*?)^```$)?", page, re.M | re.S)
    assert len(blocks) > 5
    names: dict[str, object] = {}
    for code, shown in blocks:
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            exec(compile(code, str(PAGE), "exec"), names)
        assert len(said.getvalue().splitlines()) == len(shown.splitlines()), code
        if shown:
            # What differs are names and figures.
            first, wanted = (text.splitlines()[-1].split()[0] for text in (said.getvalue(), shown))
            assert first.isdecimal() == wanted.isdecimal(), code
    assert (here / "films" / "13-bundle" / "record.json").exists()


def test_it_takes_about_thirty_lines() -> None:
    """From files to recommendations; the arrays alone are another story."""
    first = PAGE.read_text("utf-8").split("\n## ")[0:2]
    code = "".join(re.findall(r"^```python\n(.*?)^```$", "".join(first), re.M | re.S))
    assert len(code.splitlines()) <= 32
