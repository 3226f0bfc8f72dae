"""Memory that large arrays have used is used again."""

import ctypes
import subprocess
import sys

import pytest

from byway.base import memory

FAULTS = """
import resource, sys
import numpy as np
from byway.base import memory
if sys.argv[1] == "keep":
    memory.keep()
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def once():
    before = faults()
    np.empty(12 << 20).fill(1)
    return faults() - before
once()
print(once())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_an_array_of_96_mb_takes_no_new_pages() -> None:
    def faults(how: str) -> int:
        done = subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True)
        return int(done.stdout)

    assert faults("keep") < 20
    assert faults("plain") > faults("keep")


def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: object) -> object:
        raise AssertionError("loaded a C library")

    monkeypatch.setattr(ctypes, "CDLL", refuse)
    monkeypatch.setattr(sys, "platform", "darwin")
    memory.keep()


def test_a_library_without_the_switch_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """musl has no mallopt."""
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    monkeypatch.setattr(sys, "platform", "linux")
    memory.keep()
