"""Several processes that train one model: the same gradients as one process that sees all of their batches."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from byway.base import parallel
from byway.base.errors import UserError
from byway.language import training


def mean_of_ranks(folder: Path, value: float) -> tuple[int, float]:
    """What each process has is its rank plus a value; all leave the mean."""
    number, weight = parallel.rank(), torch.zeros(1)
    weight.grad = torch.tensor([number + value])
    parallel.average_gradients([weight])
    found = weight.grad.item()
    (folder / f"{number}").write_text(f"{parallel.size()} {found}")
    return number, found


def dies(_: Path) -> None:
    """The second process ends at once; the first waits for it."""
    if parallel.rank() == 1:
        os._exit(7)
    parallel.average_gradients([torch.zeros(1)])


def gradients(model: torch.nn.Linear, step: int, number: int) -> None:
    rows = torch.from_numpy(np.random.default_rng([step, number]).normal(size=(8, 3))).float()
    (model(rows) ** 2).sum().backward()


def line() -> tuple[torch.nn.Linear, training.Optimiser]:
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    return model, training.Optimiser(model)


def learns(folder: Path) -> None:
    """Five steps on rows of its own; each process leaves its weights."""
    model, optimiser = line()
    for step in range(5):
        gradients(model, step, parallel.rank())
        optimiser.step(1e-2)
    np.save(folder / f"{parallel.rank()}.npy", model.weight.detach().numpy())


def test_two_processes_take_the_steps_of_one_that_has_the_batches_of_both(tmp_path: Path) -> None:
    parallel.together(2, learns, tmp_path)
    first, second = (np.load(tmp_path / f"{number}.npy") for number in (0, 1))
    np.testing.assert_array_equal(first, second)
    model, optimiser = line()
    for step in range(5):
        for number in (0, 1):
            gradients(model, step, number)
        for weight in model.parameters():
            weight.grad = None if weight.grad is None else weight.grad / 2
        optimiser.step(1e-2)
    np.testing.assert_allclose(first, model.weight.detach().numpy(), rtol=1e-5)


def test_every_process_has_the_mean_and_the_first_returns(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    assert parallel.together(2, mean_of_ranks, tmp_path, 1.0) == (0, 1.5)
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"0": "2 1.5", "1": "2 1.5"}
    assert torch.get_num_threads() == threads
    assert (parallel.rank(), parallel.size()) == (0, 1)
    assert "WORLD_SIZE" not in os.environ
    assert parallel.together(1, mean_of_ranks, tmp_path, 1.0) == (0, 1.0)


def test_a_process_that_ends_before_its_time_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="code 7"):
        parallel.together(2, dies, tmp_path)
