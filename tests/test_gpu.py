"""Everything that torch computes, on a GPU that is not there: no tensors of two places meet, and what comes out is
what the processor says, but for rounding."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from byway.base import config, models
from byway.interests import encoders, write
from byway.items import sequence
from byway.language import prompts, tune
from byway.language.fast import bulk, reference
from byway.language.fast.generate import Attention, Policy, decode_freely, policy
from byway.language.prompts import Ending
from byway.transitions import signals
from byway.transitions.counts import Successors
from byway.transitions.curate import Samples
from tests.items import test_baselines as encoders_of
from tests.items import test_sequence as logs
from tests.language import test_tune
from tests.language.conftest import HOSTILE, make_tiny
from tests.pretended import gpu

M = len(HOSTILE)


def both(run: Callable[[], Any]) -> tuple[Any, Any]:
    """What the processor gives, and the GPU."""
    here = run()
    with gpu():
        there = run()
    return here, there


def same_files(here: Path, there: Path) -> None:
    """Arrays within rounding, whatever their format."""
    for path in sorted(here.rglob("*.safetensors")):
        one, other = (load_file(p) for p in (path, there / path.relative_to(here)))
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_allclose(other[name], one[name], atol=2e-4, err_msg=name)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return models.load_tokenizer("smollm2-135m")


@pytest.fixture
def folder(tmp_path: Path, tokenizer: Any) -> str:
    """The tiny model as a folder that has a name."""
    make_tiny().save_pretrained(tmp_path / "tiny")
    tokenizer.save_pretrained(tmp_path / "tiny")
    return str(tmp_path / "tiny")


@pytest.mark.parametrize("attention", ["block", "causal"])
@pytest.mark.parametrize("method", ["full", "lora"])
def test_fine_tuning(tmp_path: Path, folder: str, attention: Any, method: Any) -> None:
    """Steps, figures, a checkpoint and the run that goes on from it, and the artifact."""
    settings = config.LanguageModel(
        model=folder,
        steps=5,
        evaluate_every=3,
        checkpoint_every=2,
        block_clusters=6,
        evaluate_on=8,
        precision="float32",
        method=method,
        attention=attention,
    )
    test_tune.stage(tmp_path / "here", settings)
    with gpu():
        test_tune.stage(tmp_path / "there", settings)
    same_files(tmp_path / "here", tmp_path / "there")
