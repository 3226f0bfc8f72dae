"""Progress goes to standard error; standard output is for what was asked."""

import io
import shutil
import sys
from pathlib import Path

import pytest
from rich.console import Console

from byway.base import progress


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What a person at a terminal sees."""
    seen = io.StringIO()
    monkeypatch.setattr(progress, "console", Console(file=seen, force_terminal=True, width=100, color_system=None))
    return seen


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What a log file gets."""
    written = io.StringIO()
    monkeypatch.setattr(progress, "console", Console(file=written, force_terminal=False, width=100))
    return written


def test_standard_output_stays_clean(capsys: pytest.CaptureFixture[str]) -> None:
    progress.say("a line")
    with progress.bar("work", 2) as advance:
        advance(2)
    assert capsys.readouterr().out == ""
    assert progress.console.stderr


def test_a_log_file_gets_a_line_now_and_then(log: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    with progress.bar("transition table", 100, 20) as advance:
        for _ in range(8):
            now += 10
            advance(5)
    # Two lines of 80 seconds: 15 units in 30 seconds leave 65 for 130, then 30 in 60 leave 50 for 100.
    assert log.getvalue().splitlines() == [
        "  transition table: 35 of 100, about 130 s left",
        "  transition table: 50 of 100, about 100 s left",
    ]


def test_work_that_stands_still_is_told_as_it_is(log: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    with progress.bar("transition table", 100, 20) as advance:
        now += 31
        advance(0)
    assert log.getvalue() == "  transition table: 20 of 100\n"


def test_short_work_leaves_no_line_in_a_log_file(log: io.StringIO) -> None:
    with progress.bar("short", 3) as advance:
        advance(3)
    assert log.getvalue() == ""


def test_a_bar_counts_from_what_is_done(screen: io.StringIO) -> None:
    with progress.bar("transition table", 40, 10) as advance:
        advance(5)
        advance(15)
    assert "transition table" in screen.getvalue()
    assert "30/40" in screen.getvalue()


def test_a_bar_says_how_long_it_will_take(screen: io.StringIO) -> None:
    with progress.bar("work", 4) as advance:
        advance(1)
    assert "left" in screen.getvalue()


@pytest.mark.parametrize(("total", "done"), [(0, 0), (3, 3)])
def test_a_bar_over_nothing_left(screen: io.StringIO, total: int, done: int) -> None:
    with progress.bar("nothing", total, done):
        pass
    assert f"{done}/{total}" in screen.getvalue()


def test_a_bar_does_not_hide_an_error(screen: io.StringIO) -> None:
    with pytest.raises(ZeroDivisionError), progress.bar("work", 2):
        raise ZeroDivisionError


def test_a_bar_inside_a_bar_does_not_fail(screen: io.StringIO) -> None:
    with progress.bar("outer", 1) as outer:
        progress.say("a line")
        outer(1)
    assert "a line" in screen.getvalue()


def test_a_line_is_one_line(screen: io.StringIO) -> None:
    progress.say("[bold]04-tree[/] 1.0 s")
    assert screen.getvalue() == "04-tree 1.0 s\n"


@pytest.mark.parametrize(
    ("called", "on_path", "told"),
    [
        ("/usr/bin/byway", "/usr/bin/byway", "byway"),
        ("HERE/.venv/bin/byway", None, ".venv/bin/byway"),
        ("HERE/.venv/bin/byway", "/usr/bin/byway", ".venv/bin/byway"),
        (".venv/bin/byway", None, ".venv/bin/byway"),
        ("HERE/lib/byway/__main__.py", None, "byway"),
    ],
)
def test_what_to_type_next_is_what_was_typed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, called: str, on_path: str | None, told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [called.replace("HERE", str(tmp_path))])
    monkeypatch.setattr(shutil, "which", lambda name: on_path)
    assert progress.command() == told
