"""The softmax over a catalog and its weighted log-likelihood, in chunks that stay in the cache.

Owns the arithmetic of the losses: the plain weighted cross entropy, the top-K off-policy correction of paper 1's
reference [8] (Chen et al., WSDM 2019), and the entropy bonus of its reference [9] (Chen et al., RecSys 2021). It
does not know where states come from, nor what an item is.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from byway.base import device

CHUNK = 1 << 21
"""Scores that a processor computes at once: 8 MB. Beyond 32 MB every allocation is mapped anew, 3 to 4 times as
slow."""

Reweigh = Callable[[Tensor, slice], Tensor]
"""From log π of some rows' labels, and which rows, to the factors of these rows' gradient."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """The items that stand for the catalog in one step's denominators."""

    items_S: Tensor
    """int64, unique, ascending."""
    log_chance_S: Tensor
    """Log of each one's chance to be among them; all 0 where they are the whole catalog."""

    def columns(self, labels_T: Tensor) -> Tensor:
        """Where each label stands among the candidates, of which it must be one; [T]."""
        return torch.searchsorted(self.items_S, labels_T)


def every_item(n: int, at: torch.device | None = None) -> Candidates:
    """The exact softmax over `n` items."""
    return Candidates(torch.arange(n, device=at), torch.zeros(n, device=at))


def draw(labels_T: Tensor, share_N: NDArray[np.float64], negatives: int, rng: np.random.Generator) -> Candidates:
    """Mixed negatives (paper 1's reference [35]): the step's own labels and `negatives` uniform draws.

    `share_N` is each item's share of all labels. An item's chance to be in is 1 - (1 - share)^T (1 - 1/n)^negatives
    with T labels in the step; its logit minus the log of that chance makes the denominator unbiased.
    """
    n = len(share_N)
    uniform = torch.from_numpy(rng.integers(n, size=negatives))
    items = torch.unique(torch.cat([labels_T.cpu(), uniform]))
    missed = len(labels_T) * np.log1p(-share_N[items.numpy()].clip(max=1 - 1e-9)) + negatives * np.log1p(-1 / n)
    log_chance = torch.from_numpy(np.log(-np.expm1(missed))).float()
    return Candidates(items.to(labels_T.device), log_chance.to(labels_T.device))


def log_likelihood(
    states_TD: Tensor,
    items_ND: Tensor,
    labels_T: Tensor,
    weights_T: Tensor,
    candidates: Candidates,
    reweigh: Reweigh | None = None,
    *,
    entropy: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Weighted cross entropy -Σ w log π(label | state) / Σ w with π = softmax(state · item), and log π, [T].

    Every label is among the candidates. It is in the denominator as it is, and the other candidates by their
    logit minus `log_chance`. The second result has no gradient. `reweigh` multiplies each row's gradient, not the
    reported loss. `entropy` adds to the gradient, not to the reported loss, that of -entropy · mean H(π) over all
    rows; of the drawn candidates each stands for 1 / chance items.
    """
    everything = len(candidates.items_S) == len(items_ND)
    items_SD = items_ND if everything else items_ND[candidates.items_S]
    column_T = candidates.columns(labels_T)
    options = reweigh, entropy
    return _LogLikelihood.apply(states_TD, items_SD, candidates.log_chance_S, column_T, weights_T, options)


def top_k_correction(log_beta_T: Tensor, top_k: int, cap: float) -> Reweigh:
    """The factors of reference [8]: min(π / β, cap) · λ_K with λ_K = K (1 - π)^(K - 1).

    π is the policy, β the behaviour that made the log; the gradient of a row is factor · R · ∇ log π.
    """

    def factors(log_pi: Tensor, rows: slice) -> Tensor:
        ratio = torch.exp(log_pi - log_beta_T[rows]).clamp(max=cap)
        return ratio * top_k * (1 - log_pi.exp()).clamp(min=0) ** (top_k - 1)

    return factors


class _LogLikelihood(torch.autograd.Function):
    """Value and gradients in one pass over chunks of rows: no [T, S] tensor is kept for the way back."""

    @staticmethod
    def forward(
        ctx: Any,
        states_TD: Tensor,
        items_SD: Tensor,
        log_chance_S: Tensor,
        column_T: Tensor,
        weights_T: Tensor,
        options: tuple[Reweigh | None, float],
    ) -> tuple[Tensor, Tensor]:
        reweigh, entropy = options
        total = weights_T.sum().clamp(min=1e-12)
        log_pi_T = torch.empty_like(weights_T)
        to_states, to_items = torch.empty_like(states_TD), torch.zeros_like(items_SD)
        step = max(1, CHUNK * device.several(8 * CHUNK * items_SD.element_size()) // len(items_SD))
        for start in range(0, len(states_TD), step):
            rows = slice(start, start + step)
            states, column = states_TD[rows], column_T[rows]
            label = torch.arange(len(column), device=column.device), column
            scores = torch.addmm(-log_chance_S, states, items_SD.T)
            scores[label] += log_chance_S[column]
            scores = scores.log_softmax(1)
            log_pi_T[rows] = scores[label]
            weights = weights_T[rows] / total
            if reweigh is not None:
                weights = weights * reweigh(log_pi_T[rows], rows)
            flatter = _flatter(scores, log_chance_S, label) * (entropy / len(states_TD)) if entropy else None
            scores.exp_()
            scores[label] -= 1
            scores *= weights[:, None]
            if flatter is not None:
                scores += flatter
            to_states[rows] = scores @ items_SD
            to_items.addmm_(scores.T, states)
        ctx.save_for_backward(to_states, to_items)
        ctx.mark_non_differentiable(log_pi_T)
        return -(weights_T * log_pi_T).sum() / total, log_pi_T

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        to_states, to_items = ctx.saved_tensors
        up = gradients[0]
        return up * to_states, up * to_items, None, None, None, None


def _flatter(log_share_TS: Tensor, log_chance_S: Tensor, label: tuple[Tensor, Tensor]) -> Tensor:
    """[T, S] the gradient of -H(π) by the logits: share · (log π + H), where a candidate's share is π / chance."""
    log_pi = log_share_TS + log_chance_S
    log_pi[label] = log_share_TS[label]
    share = log_share_TS.exp()
    return share * (log_pi - (share * log_pi).sum(1, keepdim=True))
