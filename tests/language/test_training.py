"""What every fine-tuning shares, against the library's own optimiser and against worked examples."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from byway.base.errors import UserError
from byway.language import training


def line(dtype: torch.dtype = torch.float32) -> torch.nn.Linear:
    torch.manual_seed(0)
    return torch.nn.Linear(3, 2).to(dtype)


def learn(model: torch.nn.Linear, optimiser: training.Optimiser, step: int) -> None:
    rows = torch.from_numpy(np.random.default_rng(step).normal(size=(8, 3))).to(model.weight.dtype)
    (model(rows).float() ** 2).sum().backward()
    optimiser.step(1e-2)


def test_on_float32_weights_it_is_the_library_s_optimiser(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = line(), line()
    monkeypatch.setattr(training, "WEIGHT_DECAY", 0.1)
    optimiser = training.Optimiser(ours)
    reference = torch.optim.AdamW(theirs.parameters(), lr=1e-2, betas=(0.9, 0.98), weight_decay=0.1)
    for step in range(5):
        learn(ours, optimiser, step)
        rows = torch.from_numpy(np.random.default_rng(step).normal(size=(8, 3))).float()
        reference.zero_grad()
        (theirs(rows) ** 2).sum().backward()
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)
        reference.step()
    torch.testing.assert_close(ours.weight, theirs.weight)


def test_a_step_too_small_for_bfloat16_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "WEIGHT_DECAY", 0.0)
    model = line(torch.bfloat16)
    optimiser = training.Optimiser(model)
    before = model.weight.detach().clone()
    for step in range(40):
        (model.weight.float().sum() + model.bias.float().sum()).backward()
        optimiser.step(1e-4)
        if step == 0:
            assert (model.weight == before).any(), "one step is below some weights' last digit"
    torch.testing.assert_close(model.weight.float(), before.float() - 40e-4, atol=2e-3, rtol=0)
    assert (model.weight != before).all()


def test_the_rate_rises_then_falls_to_a_twentieth() -> None:
    found = [training.rate(step, 100, peak=1.0, warmup=10) for step in (0, 4, 10, 50, 99)]
    assert found == pytest.approx([0.1, 0.5 * 0.96, 0.9, 0.5, 0.05])


def point(step: int, match: float, recall: float | None) -> dict[str, Any]:
    return {"step": step, "match": match} | ({} if recall is None else {"recall": recall})


@pytest.mark.parametrize(
    ("curve", "best"),
    [
        ([point(1, 0.2, 0.9), point(2, 0.5, 0.1)], 2),  # the gate is never cleared: the newest
        ([point(1, 0.2, 0.9), point(2, 0.95, 0.1), point(3, 0.3, 0.8)], 2),  # clearing it counts first
        ([point(1, 0.95, 0.3), point(2, 0.99, 0.5), point(3, 1.0, 0.5)], 3),  # the last of equals
        # Of 100 prompts a recall of 0.5 has a standard error of 0.05.
        ([point(1, 0.95, 0.5), point(2, 0.99, 0.46), point(3, 1.0, 0.44)], 2),
        ([point(1, 0.95, 0.5), point(2, 0.99, 0.44), point(3, 1.0, 0.46), point(4, 1.0, 0.3)], 3),
        ([point(1, 0.95, None), point(2, 0.99, None)], 2),  # nothing to recall: the newest
    ],
)
def test_the_best_weights_come_back(tmp_path: Path, curve: list[dict[str, Any]], best: int) -> None:
    model = line()
    progress = training.Progress(tmp_path, training.Optimiser(model))
    kept: dict[int, torch.Tensor] = {}
    for now in curve:
        learn(model, progress.optimiser, now["step"])
        kept[now["step"]] = model.weight.detach().clone()
        progress.curve.append(now)
        progress.keep_best("match", "recall", 100)
    progress.take_best()
    assert progress.best["step"] == best
    torch.testing.assert_close(model.weight.detach(), kept[best], rtol=0, atol=0)


def test_a_run_goes_on_from_its_checkpoint_as_if_it_had_not_been_cut(tmp_path: Path) -> None:
    model = line(torch.bfloat16)
    progress = training.Progress(tmp_path, training.Optimiser(model))
    assert progress.restore() == 0
    for step in range(6):
        learn(model, progress.optimiser, step)
        if step in (1, 3):
            progress.curve.append({"step": step + 1})
            progress.save(step + 1)
    assert [file.name for file in tmp_path.glob("step-*")] == ["step-000004.safetensors"]
    again = line(torch.bfloat16)
    resumed = training.Progress(tmp_path, training.Optimiser(again))
    assert resumed.restore() == 4
    assert resumed.curve == [{"step": 2}, {"step": 4}]
    for step in (4, 5):
        learn(again, resumed.optimiser, step)
    torch.testing.assert_close(again.weight, model.weight, rtol=0, atol=0)


def test_weights_that_no_prompt_has_reached_are_saved_and_restored(tmp_path: Path) -> None:
    def made() -> tuple[torch.nn.ModuleList, training.Optimiser]:
        torch.manual_seed(0)
        both = torch.nn.ModuleList([torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)])
        return both, training.Optimiser(both)

    model, optimiser = made()
    model[0](torch.ones(4, 3)).sum().backward()
    optimiser.step(0.1)
    training.Progress(tmp_path, optimiser).save(1)
    again, resumed = made()
    assert training.Progress(tmp_path, resumed).restore() == 1
    for layers, own in ((model, optimiser), (again, resumed)):
        layers[1](torch.ones(4, 3)).sum().backward()
        own.step(0.1)
    for one, other in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_checkpoint_of_other_weights_is_refused_with_what_to_do(tmp_path: Path) -> None:
    training.Progress(tmp_path, training.Optimiser(line())).save(3)
    now = torch.nn.ModuleList([line(), line()])
    with pytest.raises(UserError, match="another version of Byway"):
        training.Progress(tmp_path, training.Optimiser(now)).restore()
