"""Questions and answers as files of batch services."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byway.base.errors import UserError
from byway.language import batch
from byway.language.answers import Kept
from tests.language.test_server import NAMES, SETTINGS, asked

FORMATS = ("openai", "anthropic", "gemini")


def requests(files: list[Path]) -> Iterator[dict[str, Any]]:
    for file in files:
        yield from map(json.loads, file.read_text("utf-8").splitlines())


def result(request: dict[str, Any], said: str, error: bool = False) -> dict[str, Any]:
    """What the host writes about a request, as its reference has it."""
    if "key" in request:
        if error:
            return {"key": request["key"], "error": {"code": 13, "message": "internal"}}
        parts = [{"text": "hm", "thought": True}, {"text": said}]
        usage = {"promptTokenCount": 100, "candidatesTokenCount": 10}
        candidates = [{"content": {"role": "model", "parts": parts}}]
        return {"key": request["key"], "response": {"candidates": candidates, "usageMetadata": usage}}
    if "params" in request:
        if error:
            return {"custom_id": request["custom_id"], "result": {"type": "errored", "error": {}}}
        message = {"content": [{"type": "text", "text": said}], "usage": {"input_tokens": 100, "output_tokens": 10}}
        return {"custom_id": request["custom_id"], "result": {"type": "succeeded", "message": message}}
    usage = {"prompt_tokens": 100, "completion_tokens": 10}
    body = {"choices": [{"message": {"content": said}}], "usage": usage}
    response = {"status_code": 500 if error else 200, "body": {} if error else body}
    return {"custom_id": request["custom_id"], "response": response, "error": None}


def legal_of(request: dict[str, Any]) -> list[str]:
    text = json.dumps(request)
    at = text.index('"enum": [') + len('"enum": ')
    return json.JSONDecoder().raw_decode(text[at:])[0]


@pytest.mark.parametrize("form", FORMATS)
def test_answers_come_in_any_order_in_parts_and_errors_are_asked_again(form: Any, tmp_path: Path) -> None:
    own = replace(SETTINGS, format=form)
    every = asked([[a, b] for a in range(8) for b in range(8)])
    kept = Kept.open(tmp_path, every, own)
    files = batch.write(kept.path, every, kept.missing(), own)
    lines = [
        result(r, json.dumps({"next": sorted(legal_of(r))}), i % 5 == 0) for i, r in enumerate(requests(files))
    ]
    np.random.default_rng(0).shuffle(lines)
    for name, part in (("a", lines[:30]), ("b", lines[30:])):
        (tmp_path / name).write_text("".join(json.dumps(line) + "\n" for line in part), "utf-8")
    found = batch.take([tmp_path / "b"], kept, every)
    assert found["answers"] + found["errors"] == 34
    batch.take([tmp_path / "a"], kept, every)
    assert kept.missing().tolist() == list(range(0, 64, 5))
    for row in set(range(64)) - set(range(0, 64, 5)):
        assert [NAMES[c] for c in kept.ranking[row]] == sorted(every[row].legal)[:3]
    assert (kept.usage().read, kept.usage().written) == (51 * 100, 51 * 10)
    again = batch.write(kept.path, every, kept.missing(), own)
    assert len(list(requests(again))) == 13


def test_results_that_are_given_twice_are_paid_for_once(tmp_path: Path) -> None:
    kept = Kept.open(tmp_path, asked(), SETTINGS)
    files = batch.write(kept.path, asked(), kept.missing(), SETTINGS)
    lines = [json.dumps(result(r, json.dumps({"next": legal_of(r)}))) for r in requests(files)]
    (tmp_path / "first").write_text(lines[0], "utf-8")
    (tmp_path / "all").write_text("\n".join([*lines, lines[1]]), "utf-8")
    batch.take([tmp_path / "first"], kept, asked())
    assert batch.take([tmp_path / "all"], kept, asked())["answers"] == 4
    assert (kept.usage().requests, kept.usage().read) == (3, 300)
    assert not len(kept.missing())


@pytest.mark.parametrize("form", FORMATS)
def test_requests_say_all_that_the_question_says(form: Any, tmp_path: Path) -> None:
    own = replace(SETTINGS, format=form, extra={"temperature": 0.5})
    every = asked()
    files = batch.write(tmp_path, every, np.arange(3), own)
    for row, request in enumerate(requests(files)):
        text = json.dumps(request, ensure_ascii=False)
        assert json.dumps(every[row].user, ensure_ascii=False) in text
        assert '"temperature": 0.5' in text
        assert legal_of(request) == list(every[row].legal)


def test_files_are_parted_where_a_host_would_refuse_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    every = asked([[a, b] for a in range(8) for b in range(8)])
    monkeypatch.setattr(batch, "REQUESTS", 30)
    files = batch.write(tmp_path, every, np.arange(64), SETTINGS)
    assert [len(list(requests([file]))) for file in files] == [30, 30, 4]
    monkeypatch.setattr(batch, "BYTES", 5000)
    files = batch.write(tmp_path, every, np.arange(64), SETTINGS)
    assert max(file.stat().st_size for file in files) <= 5000
    assert sorted(tmp_path.glob("requests-*")) == files
    assert len(list(requests(files))) == 64


def test_results_of_other_questions_change_nothing(tmp_path: Path) -> None:
    kept = Kept.open(tmp_path, asked(), SETTINGS)
    response = {"status_code": 200, "body": {"choices": [{"message": {"content": ""}}]}}
    names = ("elsewhere-0", *(f"{kept.path.name}-{row}" for row in ("3", "x", "9" * 5000, "")), kept.path.name)
    lines = [{"custom_id": name, "response": response} for name in names]
    (tmp_path / "r").write_text("\n".join(map(json.dumps, lines)), "utf-8")
    assert batch.take([tmp_path / "r"], kept, asked())["of other questions"] == 6
    assert len(kept.missing()) == 3


def test_a_result_that_took_no_number_of_tokens_is_passed_over(tmp_path: Path) -> None:
    kept = Kept.open(tmp_path, asked(), SETTINGS)
    line = result({"custom_id": f"{kept.path.name}-0"}, "")
    line["response"]["body"]["usage"]["prompt_tokens"] = float("inf")
    (tmp_path / "r").write_text(json.dumps(line), "utf-8")
    with pytest.raises(UserError, match="holds no results"):
        batch.take([tmp_path / "r"], kept, asked())


FIELDS = ["key", "custom_id", "result", "response", "error", "body", "choices"]
VALUES = st.recursive(
    st.none() | st.integers() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=4),
)


@settings(max_examples=60)
@given(line=st.binary(max_size=200) | VALUES.map(lambda value: json.dumps(value).encode()))
def test_any_line_is_an_answer_or_passed_over(line: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("batch")
    kept = Kept.open(folder, asked(), SETTINGS)
    (folder / "r").write_bytes(line.replace(b"\n", b" ") + b"\n")
    with pytest.raises(UserError) if b"custom_id" not in line and b"key" not in line else _either():
        batch.take([folder / "r"], kept, asked())
    assert len(kept.missing()) == 3


class _either:
    """Whether it is refused or counted, nothing else may happen."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, *_: object) -> bool:
        return kind is None or issubclass(kind, UserError)


def test_a_file_that_is_not_there_or_none_is_one_sentence(tmp_path: Path) -> None:
    kept = Kept.open(tmp_path, asked(), SETTINGS)
    (tmp_path / "r").write_text("no results\n")
    for name, said in (("r", "holds no results"), ("missing", "is not there")):
        with pytest.raises(UserError, match=said):
            batch.take([tmp_path / name], kept, asked())
