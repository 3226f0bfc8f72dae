"""A language model by address, from settings to table: by a server, by batch, and by llama.cpp's own server."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from benchmarks.llama import served as served_by_llama

from byway import cli
from byway.base import artifact
from byway.base.errors import UserError
from byway.interests import describe, embed
from byway.language import answers
from byway.transitions import table as tables
from byway.workflow import asking, folder, pipeline, showing
from tests.language.served import served
from tests.workflow.test_refresh import EVENT, ITEM, ITEMS, TOML, USERS, encoder, log, titles, write

ASKED = """
[language_model]
answers = "server"
[answers]
model = "m"
url = "http://127.0.0.1:1/v1"
candidates = 6
[serving]
min_match_rate = 0.0
"""


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embed, "sentence_encoder", encoder)
        yield


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace whose stages before the language model are there."""
    path = tmp_path_factory.mktemp("asked") / "w"
    path.mkdir()
    write(path / "items.csv", ITEM, titles(0, ITEMS))
    write(path / "events.csv", EVENT, log(0, USERS, ITEMS, 1_700_000_000, 0))
    own = TOML.replace("items_per_cluster = 20", "items_per_cluster = 24") + ASKED
    (path / "byway.toml").write_text(own, "utf-8")
    pipeline.run(path, folder.settings(path), until="transitions")
    return path


@pytest.fixture
def w(started: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(started, tmp_path / "w"))


def alphabetical(_: str, legal: list[str]) -> str:
    return json.dumps({"next": sorted(legal)[:3]})


def call(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    """What the command line answers, as JSON."""
    capsys.readouterr()
    cli.app([*words, "--json"], result_action="return_value")
    return json.loads(capsys.readouterr().out)


def test_a_table_by_a_server_serves_and_is_asked_once(w: Path) -> None:
    with served(alphabetical) as (address, seen):
        config = folder.settings(w, [f"answers.url={address}/v1"])
        records = pipeline.run(w, config)
        asked = len(seen)
        names = describe.load(w / "05-descriptions").names[1]
        assert asked == len(names) ** 2
        table = tables.load(w / "08-transition-table")
        own = [names[c] for c in table.model[0, 1][table.model[0, 1] >= 0]]
        assert own == sorted(own)
        assert len(own) == 3
        assert table.fitted is not None
        assert set(table.fitted.weights) == {
            "counts",
            "similarity",
            "popularity",
            "language_model",
        }
        assert records["metrics"].metrics["language.match_rate"] == 1.0
        assert records["language_model"].metrics["language.tokens_read"] == 100 * asked
        assert "bundle" in records
        assert showing.figures(w)["language.answered"] == 1.0
        # Another address or price is nobody else: nothing is asked, and nothing made anew.
        later = folder.settings(w, ["answers.url=http://127.0.0.1:2/v1", "answers.price=[1, 2]"])
        again = pipeline.run(w, later)
        assert {n: r.digest for n, r in again.items()} == {n: r.digest for n, r in records.items()}
        # Answers outlive the artifact: they were paid for.
        shutil.rmtree(w / "07-language-model")
        pipeline.run(w, later, until="language_model")
    assert len(seen) == asked


def test_the_same_by_batch(w: Path, capsys: pytest.CaptureFixture[str]) -> None:
    by_batch = ["language_model.answers=batch", "answers.format=gemini"]
    with pytest.raises(
        UserError, match=r"100 of 100 questions wait for answers.*requests-001\.jsonl.*byway answers"
    ):
        pipeline.run(w, folder.settings(w, by_batch))
    (file,) = (w / answers.FOLDER).glob("*/requests-*.jsonl")
    lines: list[str] = []
    for line in file.read_text("utf-8").splitlines():
        request = json.loads(line)
        schema = request["request"]["generation_config"]["response_json_schema"]
        said = alphabetical("", schema["properties"]["next"]["items"]["enum"])
        response = {"candidates": [{"content": {"parts": [{"text": said}]}}]}
        lines.append(json.dumps({"key": request["key"], "response": response}))
    for name, part in (("b", lines[60:]), ("a", lines[:60])):
        write(w / name, "", part)
    options = [word for each in by_batch for word in ("--set", each)]
    found = call(capsys, "answers", str(w), str(w / "b"), *options)
    assert found == {
        "answers": 40,
        "errors": 0,
        "of other questions": 0,
        "empty": 0,
        "questions": 100,
        "missing": 60,
    }
    with pytest.raises(UserError, match=r"60 of 100 questions wait"):
        pipeline.run(w, folder.settings(w, by_batch))
    assert call(capsys, "answers", str(w), str(w / "a"), *options)["missing"] == 0
    pipeline.run(w, folder.settings(w, by_batch), until="transition_table")
    by_server = w.parent / "server"
    shutil.copytree(w, by_server, ignore=shutil.ignore_patterns("0[78]*", answers.FOLDER))
    with served(alphabetical) as (address, _):
        pipeline.run(by_server, folder.settings(by_server, [f"answers.url={address}/v1"]), until="transition_table")
    for file in ("clusters.npy", "scores.npy", "model.npy"):
        both = [(path / "08-transition-table" / file).read_bytes() for path in (w, by_server)]
        assert both[0] == both[1], file


def test_only_the_pairs_that_people_stand_at(w: Path) -> None:
    with served(alphabetical) as (address, seen):
        config = folder.settings(w, [f"answers.url={address}/v1", "answers.pairs=40"])
        pipeline.run(w, config, until="transition_table")
    assert len(seen) == 40
    table = tables.load(w / "08-transition-table")
    assert (table.model[:, :, 0] >= 0).sum() == 40
    assert (table.clusters[:, :, 0] >= 0).all()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["answers.model="], r"say who is asked in \[answers\] model"),
        (["answers.url="], r"say where in \[answers\] url"),
        (["answers.price=[1]"], "give two"),
    ],
)
def test_settings_that_cannot_work_are_said_before_anything_runs(w: Path, settings: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        folder.settings(w, settings)


@pytest.mark.parametrize("form", ["trl", "openai", "vertex"])
def test_samples_for_other_trainers(w: Path, form: Any, capsys: pytest.CaptureFixture[str]) -> None:
    found = call(capsys, "export", str(w), "--sft", form)
    names = set(describe.load(w / "05-descriptions").names[1])
    for part in ("train", "validation"):
        rows = [json.loads(line) for line in (w / f"sft-{form}" / f"{part}.jsonl").read_text("utf-8").splitlines()]
        assert len(rows) == found[part] > 0
        for row in rows:
            if form == "trl":
                assert row["completion"][1:] in names
                assert row["prompt"].endswith("\nNext:")
                continue
            said = row["messages"][-1]["content"] if form == "openai" else row["contents"][-1]["parts"][0]["text"]
            question = row["messages"][1]["content"] if form == "openai" else row["contents"][0]["parts"][0]["text"]
            for name in json.loads(said)["next"]:
                assert f"\n- {name}\n" in question


def test_worth_asks_and_says_so_in_a_paragraph(w: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def either(question: str, legal: list[str]) -> str:
        return max(legal) if question.endswith("Next:") else alphabetical(question, legal)

    with served(either) as (address, seen):
        words = ("worth", str(w), "--server", f"{address}/v1", "--model", "m", "--pairs", "120")
        found = call(capsys, *words, "--set", "answers.price=[100, 100]")
        assert found["asked"] == len(seen) > 0
        assert found["whole_table"]["pairs"] == 100
        assert found["whole_table"]["tokens_read"] == 100 * 100
        assert found["whole_table"]["money"] == round(100 * 110 * 100 / 1e6, 2)
        assert "nats a turn" in found["says"]
        assert json.loads((w / "worth.json").read_text())["model"] == "m"
        # By completions a pair takes a request a name, and is a pair still.
        by_name = call(capsys, *words, "--set", "answers.protocol=guided_choice")
        assert by_name["whole_table"]["tokens_read"] == 100 * 3 * 50
        before = len(seen)
        again = call(capsys, *words, "--set", "answers.price=[100, 100]")
        assert again["parts"] == found["parts"]
        assert len(seen) == before
        assert {**again["whole_table"], "hours": 0} == {**found["whole_table"], "hours": 0}


def test_worth_of_a_batch_is_asked_of_a_server(w: Path) -> None:
    with pytest.raises(UserError, match="give --server URL"):
        asking.worth(w, folder.settings(w, ["language_model.answers=batch"]), None, None, 60)


def test_worth_of_a_model_that_runs_here(w: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = call(capsys, "worth", str(w), "--model", "smollm2-135m", "--pairs", "45")
    assert found["model"] == "smollm2-135m"
    assert found["whole_table"]["hours"] > 0
    assert re.search(r"would take (seconds|a minute|\d+ minutes|[\d.]+ hours)\.", found["says"])


@pytest.mark.parametrize(
    ("hours", "said"), [(1e-5, "seconds"), (0.0166, "a minute"), (0.25, "15 minutes"), (1.0, "1.00 hours")]
)
def test_how_long_a_whole_table_takes_is_said_in_a_unit_that_tells(hours: float, said: str) -> None:
    found = {"model": "m", "asked": 9, "parts": {}, "whole_table": {"pairs": 100, "hours": hours, "money": 0.0}}
    assert asking.in_words(found).endswith(f"The whole table, 100 pairs, would take {said}.")


@pytest.fixture(scope="module")
def llama() -> Iterator[str]:
    """llama.cpp's server with the shipped weights."""
    pytest.importorskip("xllamacpp")
    with served_by_llama() as address:
        yield address


@pytest.mark.parametrize("protocol", ["chat", "grammar"])
def test_a_real_server_names_candidates_alone(w: Path, llama: str, protocol: str) -> None:
    own = [
        f"answers.url={llama}", f"answers.protocol={protocol}", "answers.pairs=6",
        "answers.candidates=4", "answers.at_once=1",
    ]  # fmt: skip
    records = pipeline.run(w, folder.settings(w, own), until="transition_table")
    table = tables.load(w / "08-transition-table")
    asked = np.argwhere(table.model[:, :, 0] >= 0)
    assert 5 <= len(asked) <= 6  # a model this small may say one name twice, and then it is one
    assert records["language_model"].metrics["language.tokens_read"] > 0
    kept = next((w / answers.FOLDER).glob("*/ranking.npy"))
    assert np.load(kept).shape == (6, 2)
    for pair in asked:
        assert not set(pair) & set(table.model[*pair].tolist())
    assert artifact.read_record(w / "07-language-model") is not None
    assert msgspec.json.decode((kept.parent / "asked.json").read_bytes())["protocol"] == protocol


def test_the_report_says_what_a_model_is_worth(w: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with served(alphabetical) as (address, _):
        pipeline.run(w, folder.settings(w, [f"answers.url={address}/v1"]), until="metrics")
        own = ["answers.url=" + address + "/v1"]
        pipeline.run(w, folder.settings(w, own), only="report")
        assert "nats a turn" not in (w / "16-report" / "report.html").read_text("utf-8")
        words = ("worth", str(w), "--server", f"{address}/v1", "--model", "m", "--pairs", "60")
        said = call(capsys, *words)["says"]
        pipeline.run(w, folder.settings(w, own), only="report")
    page = (w / "16-report" / "report.html").read_text("utf-8")
    assert said in page
    assert "m named an interest in 100.0% of its answers." in page
