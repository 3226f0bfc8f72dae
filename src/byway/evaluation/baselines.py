"""What else could say which interest comes next: scores of every cluster for given contexts.

Each is a function from contexts [N, K] to scores [N, M], made from the training part of the log and tuned, where it
has something to tune, on the validation part. None of them reads a word.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from byway.base import device
from byway.transitions.counts import Successors, ranks_of
from byway.transitions.curate import Ints, Samples, Transitions
from byway.transitions.triples import outside

Guess = Callable[[Ints], NDArray[np.floating]]
WIDTH = 64
"""Dimensions of the neural model's interests."""
ROUND, BATCH = 100, 512
"""Steps of the neural model between two evaluations of validation recall, and transitions a step."""
PATIENCE = 5
"""Looks without a better recall after which it ends."""
RANK = 32
"""Dimensions, by principal components, of the vectors between which similarity is learned."""
RIDGES = (1000.0, 300.0, 100.0, 30.0, 10.0, 3.0, 1.0)
"""Weights of the squared matrices beside the log-likelihood of all transitions, the strongest first."""
LEARNED = 10_000
"""Contexts of the training part, drawn by their counts, on which similarity is learned."""


def popularity(successors: Successors) -> Guess:
    """The same for everybody: how many transitions went there."""
    return lambda context: np.tile(successors.popularity_M, (len(context), 1))


def fair(successors: Successors) -> Guess:
    """Successors over the root of popularity: what is popular anyway counts for less."""
    return lambda context: successors.probability(context) / np.sqrt(successors.popularity_M)


def nearest(similarity_MM: NDArray[np.float64]) -> Guess:
    """The clusters whose items are most alike those of the context: summed cosine of centroids."""
    return lambda context: similarity_MM[context].sum(axis=1)


def found(score_NM: NDArray[np.floating], samples: Samples, k: int = 10) -> float:
    """Recall at k, ties against the label."""
    rank = ranks_of(score_NM, samples)
    return float(np.average(rank < k, weights=samples.count)) if len(samples) else 0.0


class _Next(torch.nn.Module):
    """Scores of the next cluster: each place of the context has vectors of its own, which are added."""

    def __init__(self, history: int, usual_M: NDArray[np.float64]):
        super().__init__()
        M = len(usual_M)
        self.places = torch.nn.ModuleList(torch.nn.Embedding(M, WIDTH) for _ in range(history))
        for place in self.places:
            torch.nn.init.normal_(place.weight, std=0.1)  # pyright: ignore[reportArgumentType]
        self.out = torch.nn.Linear(WIDTH, M)
        self.out.bias.data = torch.from_numpy(np.log(usual_M)).float()

    def forward(self, context_NK: torch.Tensor) -> torch.Tensor:
        return self.out(sum(place(context_NK[:, k]) for k, place in enumerate(self.places)))


def neural(transitions: Transitions, successors: Successors, seed: int) -> Guess:
    """A small neural next-cluster model, trained on every training transition by its count.

    Cross-entropy, AdamW with strong decay (0.5), the weights of the best validation recall at 10.
    """
    some, validation = transitions.train.several(), transitions.validation.several()
    if not len(some):  # a young log, in which nobody had two interests before a third
        some = transitions.train
    at = device.chosen()
    with torch.random.fork_rng():  # layers draw from the global state
        torch.manual_seed(seed)
        model = _Next(some.context.shape[1], successors.popularity_M).to(at)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.5)
    rng = np.random.default_rng(seed)
    log = np.repeat(np.arange(len(some)), some.count)

    @torch.no_grad()
    def guess(context: Ints) -> NDArray[np.float64]:
        return model(torch.from_numpy(context).long().to(at)).softmax(-1).cpu().double().numpy()

    best, weights, since = -1.0, dict[str, torch.Tensor](), 0
    while since < PATIENCE:
        for _ in range(ROUND):
            batch = log[rng.integers(len(log), size=BATCH)]
            scores = model(torch.from_numpy(some.context[batch]).long().to(at))
            label = torch.from_numpy(some.label[batch]).long().to(at)
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(scores, label).backward()
            optimiser.step()
        recall, since = found(guess(validation.context), validation), since + 1
        if recall > best:
            best, since = recall, 0
            weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    model.load_state_dict(weights)
    return guess


def bilinear(
    transitions: Transitions, vectors_Md: NDArray[np.floating], offset: Guess | None, rng: np.random.Generator
) -> Guess:
    """Similarity learned from the log: score(c) = offset(c) + Σₖ e_cᵀ A_k e_{c_k}, by softmax cross-entropy.

    `vectors_Md` are of the clusters, one a row; e is theirs in their first `RANK` principal components, at a mean
    length of 1. Each place k of the context has a matrix of its own. A ridge on the squares of all A_k is tried
    from strong to weak until the validation part is less likely than before; where nothing was kept the first is
    taken. The problem is convex, and each ridge begins where the one before it ended.
    """
    log, later = transitions.train, transitions.validation.several()
    contexts, row = np.unique(log.context, axis=0, return_inverse=True)
    count = np.bincount(row.reshape(-1), log.count, len(contexts))
    chosen = np.arange(len(contexts))
    if len(contexts) > LEARNED:
        chosen = rng.choice(len(contexts), LEARNED, replace=False, p=count / count.sum())
    of = np.full(len(contexts), -1)
    of[chosen] = np.arange(len(chosen))
    context, kept = contexts[chosen], of[row.reshape(-1)] >= 0
    centred = vectors_Md.astype(np.float64) - vectors_Md.mean(axis=0)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    e = (left * values)[:, :RANK]
    e /= max(float(np.sqrt((e**2).sum(axis=1).mean())), 1e-12)
    followed = np.zeros((len(context), len(e)), np.float32)
    followed[of[row.reshape(-1)][kept], log.label[kept]] = log.count[kept]
    E, wanted = torch.from_numpy(e).float(), torch.from_numpy(followed)

    def asked(some: Ints) -> tuple[torch.Tensor, torch.Tensor]:
        """[N, K·d] vectors of the contexts, and [N, M] the offset, -inf inside them."""
        base = np.zeros((len(some), len(e))) if offset is None else np.array(offset(some), np.float64)
        base -= base.max(axis=1, keepdims=True, initial=-np.inf)
        base[~outside(some, len(e))] = -np.inf
        return E[torch.from_numpy(some.astype(np.int64))].flatten(1), torch.from_numpy(base).float()

    (x, base), (x_later, base_later) = asked(context), asked(later.context)
    A = torch.zeros(x.shape[1], E.shape[1], requires_grad=True)
    at, label = torch.arange(len(later)), torch.from_numpy(later.label.astype(np.int64))

    def cost(ridge: float) -> torch.Tensor:
        log_p = (x @ A @ E.T + base).log_softmax(1)
        return (ridge / 2 * (A**2).sum() - (wanted * log_p.masked_fill(wanted == 0, 0)).sum()) / wanted.sum()

    best, chance = A.detach().clone(), -np.inf
    for ridge in RIDGES:
        search = torch.optim.LBFGS([A], max_iter=30, line_search_fn="strong_wolfe")

        def closure(search: torch.optim.LBFGS = search, ridge: float = ridge) -> torch.Tensor:
            search.zero_grad()
            value = cost(ridge)
            value.backward()
            return value

        search.step(closure)
        with torch.no_grad():
            log_p = (x_later @ A @ E.T + base_later).log_softmax(1)[at, label].double().numpy()
        likely = float(later.count @ log_p) if len(later) else 0.0
        if likely <= chance:
            break
        best, chance = A.detach().clone(), likely
    learned, columns = best.double().numpy(), e

    def guess(some: Ints) -> NDArray[np.floating]:
        score = columns[some].reshape(len(some), -1) @ learned @ columns.T
        return score if offset is None else score + offset(some)

    return guess
