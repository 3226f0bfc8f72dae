"""What tests of several layers share."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:
    # Tests run side by side: two threads that wait for each other on a busy processor are slower than one.
    os.environ["OMP_NUM_THREADS"] = "1"

from collections.abc import Callable
from pathlib import Path

import hypothesis
import numpy as np
import pytest

from byway.base.artifact import Work

# A deadline measures the machine, which other work may share, and not the code.
hypothesis.settings.register_profile("byway", deadline=None)
hypothesis.settings.load_profile("byway")


@pytest.fixture
def work(tmp_path: Path) -> Work:
    """Where a stage under test builds."""
    for name in ("out", "scratch"):
        (tmp_path / name).mkdir()
    return Work(tmp_path / "out", tmp_path / "scratch", np.random.default_rng(0))


@pytest.fixture(scope="session")
def realdata() -> Callable[[str], Path]:
    """The folder of a real data set by name, for example `realdata("microlens-50k")`; skips where it is absent.

    Looked for in BYWAY_REALDATA, else in ../shared/data beside the checkout.
    """
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    root = Path(os.environ.get("BYWAY_REALDATA") or beside)

    def folder(name: str) -> Path:
        path = root / name
        if not path.is_dir():
            pytest.skip(f"no real data at {path}; set BYWAY_REALDATA")
        return path

    return folder
