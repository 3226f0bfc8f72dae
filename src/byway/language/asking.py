"""Who answers the prompts: the model in this process, or one behind a server.

Owns the protocol that both keep, and the first of the two. It knows neither tables nor logs.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from byway.language.fast.generate import Policy, ask, decode_freely, top


class LanguageModel(Protocol):
    """A fine-tuned language policy over one set of M clusters."""

    def best(
        self, context_NK: NDArray[np.int32], n: int, excluded_NM: NDArray[np.bool_]
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """The n best legal answers to N contexts, best first, with log-probabilities; -1 where none is left."""
        ...

    def freely(self, context_NK: NDArray[np.int32]) -> list[str]:
        """What it says without constraint, greedily: for the match rate."""
        ...


@dataclass(frozen=True, slots=True)
class InProcess:
    """A model in this process. Answers are exact."""

    policy: Policy
    tokenizer: Any

    def best(
        self, context_NK: NDArray[np.int32], n: int, excluded_NM: NDArray[np.bool_]
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """As `LanguageModel.best`; log-probabilities are over all legal names."""
        (found,) = top(self.policy, ask(self.policy, context_NK), n, excluded_NM, [lambda log_p: log_p])
        return found

    def freely(self, context_NK: NDArray[np.int32]) -> list[str]:
        """As `LanguageModel.freely`."""
        longest = max(map(len, self.policy.prompt.answers))
        answers = decode_freely(self.policy, context_NK, longest)
        return [self.tokenizer.decode(a, skip_special_tokens=True).strip() for a in answers]
