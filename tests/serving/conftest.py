"""A published bundle and one worker that serves it, for tests that ask nothing of their own."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.serving import house, running


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("house") / "w"
    house.published(folder)
    return folder


@pytest.fixture(scope="module")
def client(workspace: Path) -> Iterator[httpx.Client]:
    with running.thread(workspace) as found:
        yield found
