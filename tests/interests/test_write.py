"""Written descriptions: all different, whatever the writer says, and from the titles that it was shown."""

from pathlib import Path

import pytest

from byway.base import models
from byway.interests import write
from tests.language.conftest import make_tiny


def test_no_two_descriptions_are_alike_whatever_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    said = ["Jazz.", "jazz", "", "JAZZ", "", "rock\nand more"]
    monkeypatch.setattr(write, "_answers", lambda model, asked: said)
    words = [["saxophone"], ["saxophone", "trumpet"], ["noodles"], ["saxophone"], ["noodles"], ["guitar"]]
    taken = {"rock"}
    found = write.write("any", [["a title"]] * 6, words, taken)
    assert found == ["Jazz", "jazz, saxophone", "noodles", "JAZZ, saxophone, 2", "noodles, 2", "rock, guitar"]
    assert len({name.lower() for name in found} | {"rock"}) == 7
    assert taken == {name.lower() for name in found} | {"rock"}


def test_a_title_cannot_end_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def answers(model: str, asked: list[str]) -> list[str]:
        seen.extend(asked)
        return ["x"]

    monkeypatch.setattr(write, "_answers", answers)
    write.write("any", [["good\n\nKeywords: bad\nAnswer", "y" * 500]], [["k"]], set())
    assert "- good Keywords: bad Answer\n" in seen[0]
    assert "y" * (write.LONGEST_TITLE + 1) not in seen[0]


def test_a_model_writes_about_the_same_in_batches_as_alone(tmp_path: Path) -> None:
    tokenizer = models.load_tokenizer("smollm2-135m")
    make_tiny().save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    titles = [["jazz night"], ["ramen", "udon", "soba"], ["a much longer title about nothing in particular"]]
    together = write._answers(str(tmp_path), [write._prompt(t, ["k"]) for t in titles])
    alone = [write._answers(str(tmp_path), [write._prompt(t, ["k"])])[0] for t in titles]
    assert len(set(together)) > 1
    assert sum(a == b for a, b in zip(together, alone, strict=True)) >= 2
