"""The choice of the runner."""

import importlib.util

import pytest

from byway.base import engine
from byway.base.errors import UserError


def test_the_native_runner_may_be_chosen_again_and_after_it_ran() -> None:
    engine.use("native")
    assert engine.daft().from_pydict({"a": [1, 2]}).to_pydict() == {"a": [1, 2]}
    engine.use("native")


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="Ray is installed")
def test_ray_that_is_not_installed_is_one_sentence() -> None:
    with pytest.raises(UserError, match="pip install"):
        engine.use("ray")
    assert list(engine.spread(lambda: str, [7])) == [(0, "7")], "what ran before runs on"
