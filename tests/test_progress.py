"""Progress goes to standard error; standard output is for what was asked."""

import io

import pytest
from rich.console import Console

from byway import progress


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What a person at a terminal sees."""
    seen = io.StringIO()
    monkeypatch.setattr(progress, "console", Console(file=seen, force_terminal=True, width=100, color_system=None))
    return seen


def test_standard_output_stays_clean() -> None:
    assert progress.console.stderr


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
    assert screen.getvalue() == "04-tree 1.0 s\n" or "04-tree" in screen.getvalue()
