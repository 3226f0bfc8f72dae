"""The softmax's value and gradient against references written out, and its estimate against the exact one."""

import numpy as np
import pytest
import torch

from byway.items import softmax

EVERY = softmax.Candidates(torch.arange(9), torch.zeros(9, dtype=torch.float64))


@pytest.fixture
def problem():
    """Twelve states over nine items in double precision, with weights of which some are 0."""
    generator = torch.Generator().manual_seed(1)
    states = torch.randn(12, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    items = torch.randn(9, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(8, (12,), generator=generator)
    weights = torch.rand(12, generator=generator, dtype=torch.float64) * (torch.arange(12) % 4 > 0)
    return states, items, labels, weights


def gradients(loss, *parameters):
    return torch.autograd.grad(loss, parameters)


def test_exact_softmax_is_weighted_cross_entropy(problem, monkeypatch):
    monkeypatch.setattr(softmax, "CHUNK", 5 * 9)  # chunks of five rows, the last one short
    states, items, labels, weights = problem
    loss, log_pi = softmax.log_likelihood(states, items, labels, weights, EVERY)
    wanted = (states @ items.T).log_softmax(1)[torch.arange(12), labels]
    reference = -(weights * wanted).sum() / weights.sum()
    torch.testing.assert_close(loss, reference)
    torch.testing.assert_close(log_pi, wanted.detach())
    assert not log_pi.requires_grad
    for found, expected in zip(gradients(loss, states, items), gradients(reference, states, items), strict=True):
        torch.testing.assert_close(found, expected)


def test_sampled_softmax_corrects_for_the_chance_of_being_drawn(problem):
    """The denominator: the label as it is, every other candidate's exp(score) over its chance."""
    states, items, labels, weights = problem
    chosen = sorted({*labels.tolist(), 8})
    assert len(chosen) < 9
    chance = torch.linspace(0.2, 0.9, len(chosen), dtype=torch.float64)
    candidates = softmax.Candidates(torch.tensor(chosen), chance.log())
    loss, log_pi = softmax.log_likelihood(states, items, labels, weights, candidates)
    wanted = []
    for state, label in zip(states, labels.tolist(), strict=True):
        own = torch.exp(state @ items[label])
        others = [torch.exp(state @ items[j]) / c for j, c in zip(chosen, chance, strict=True) if j != label]
        wanted.append(torch.log(own / (own + sum(others))))
    wanted = torch.stack(wanted)
    reference = -(weights * wanted).sum() / weights.sum()
    torch.testing.assert_close(log_pi, wanted.detach())
    for found, expected in zip(gradients(loss, states, items), gradients(reference, states, items), strict=True):
        torch.testing.assert_close(found, expected)


def test_draws_make_the_denominator_unbiased():
    rng = np.random.default_rng(0)
    n, rows = 60, 8
    share = rng.dirichlet(np.full(n, 0.5))
    mass = np.exp(rng.normal(size=n))
    estimates = []
    for _ in range(4000):
        labels = torch.from_numpy(rng.choice(n, size=rows, p=share))
        drawn = softmax.draw(labels, share, 10, rng)
        estimates.append((mass[drawn.items_S.numpy()] / np.exp(drawn.log_chance_S.numpy())).sum())
        assert (drawn.items_S[drawn.columns(labels)] == labels).all()
    error = np.std(estimates) / np.sqrt(len(estimates))
    assert abs(np.mean(estimates) - mass.sum()) < 4 * error
    assert error < 0.02 * mass.sum()


@pytest.mark.parametrize("entropy", [0.1, 3.0])
@pytest.mark.parametrize("every", [True, False])
def test_the_entropy_bonus_is_the_gradient_of_the_mean_entropy(problem, monkeypatch, entropy, every):
    """Beside the likelihood's: H(π) = -Σ π log π over all items, or over candidates that stand for 1 / chance."""
    monkeypatch.setattr(softmax, "CHUNK", 5 * 9)
    states, items, labels, weights = problem
    chosen = torch.arange(9) if every else torch.unique(torch.cat([labels, torch.tensor([8])]))
    chance = torch.linspace(0.2, 0.9, len(chosen), dtype=torch.float64) if not every else torch.ones(9).double()
    candidates = softmax.Candidates(chosen, chance.log())
    plain, _ = softmax.log_likelihood(states, items, labels, weights, candidates)
    loss, _ = softmax.log_likelihood(states, items, labels, weights, candidates, entropy=entropy)
    torch.testing.assert_close(loss, plain)
    logits = states @ items[chosen].T
    stands_for = (1 / chance).repeat(len(labels), 1)
    stands_for[torch.arange(len(labels)), torch.searchsorted(chosen, labels)] = 1
    total = (stands_for * logits.exp()).sum(1, keepdim=True)
    pi = logits.exp() / total
    reference = plain + entropy * (stands_for * pi * pi.log()).sum(1).mean()
    for found, expected in zip(gradients(loss, states, items), gradients(reference, states, items), strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(("top_k", "cap"), [(16, np.inf), (1, np.inf), (16, 20.0855), (4, 0.7)])
def test_top_k_off_policy_correction_is_the_papers_gradient(problem, top_k, cap):
    """Row by row: min(π / β, cap) · K (1 - π)^(K - 1) · R · ∇ log π, as reference [8] has it."""
    states, items, labels, rewards = problem
    behaviour = torch.randn(9, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    ones = torch.ones_like(rewards)
    _, log_beta = softmax.log_likelihood(states.detach(), behaviour, labels, ones, EVERY)
    correction = softmax.top_k_correction(log_beta, top_k, cap)
    loss, _ = softmax.log_likelihood(states, items, labels, rewards, EVERY, correction)
    found = gradients(loss, states, items)

    expected = [torch.zeros_like(states), torch.zeros_like(items)]
    capped = 0
    for t, label in enumerate(labels.tolist()):
        log_pi = (states[t] @ items.T).log_softmax(0)[label]
        pi = log_pi.exp().item()
        beta = (states[t].detach() @ behaviour.T).softmax(0)[label].item()
        capped += pi / beta > cap
        factor = min(pi / beta, cap) * top_k * (1 - pi) ** (top_k - 1) * rewards[t].item()
        for total, part in zip(expected, gradients(log_pi, states, items), strict=True):
            total -= factor * part / rewards.sum().item()
    assert (capped > 0) == np.isfinite(cap)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_without_any_weight_nothing_is_learned(problem):
    states, items, labels, weights = problem
    loss, _ = softmax.log_likelihood(states, items, labels, 0 * weights, EVERY)
    assert loss.item() == 0
    assert all((g == 0).all() for g in gradients(loss, states, items))
