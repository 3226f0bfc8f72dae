"""The prompt of paper 1's figure 2, in our own words, as pieces of tokens.

    A person discovers one new interest after another.
    Earlier: <first interest>
    Lately: <second interest>
    Next: <answer>

Where every pair is read from left to right, each token after the second interest costs a reading a pair: there the
line break alone asks for the answer (`ENDINGS`).

Every piece is tokenised by itself and prompts are joined from pieces, so that what two prompts share is the same
tokens, and an answer has the same tokens in every context. A description is data: it only ever fills its place.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

INSTRUCTION = "A person discovers one new interest after another.\n"
SLOTS = ("Lately", "Earlier", "Before", "Once")
"""Names of the slots from the most recent interest backwards."""


class Ending(NamedTuple):
    """What stands between the last interest and the answer."""

    slot: str
    """The end of the last slot."""
    cue: str
    """One token."""


ENDINGS = {"block": Ending("\nNext", ":"), "causal": Ending("", "\n")}
"""By attention. Under block attention the slot's end is read once for all pairs, and the word costs nothing."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """Tokens of every prompt over one set of clusters."""

    instruction: list[int]
    slots: list[list[list[int]]]
    """`slots[k][c]`: cluster c as the k-th interest, the oldest slot first; the last slot ends as `Ending` says."""
    cue: list[int]
    """The one token at which the answer is asked for."""
    answers: list[list[int]]
    """`answers[c]`: the description of cluster c and the end token."""
    end: int

    @property
    def history(self) -> int:
        """K."""
        return len(self.slots)

    def tokens(self, context: list[int]) -> list[int]:
        """The whole prompt for K clusters, as one reads it."""
        ids = list(self.instruction)
        for slot, cluster in zip(self.slots, context, strict=True):
            ids += slot[cluster]
        return ids + self.cue


def text(interests: list[str]) -> str:
    """The prompt of K interests as one reads it, the most recent last; an answer is a blank and a name.

    >>> print(text(["tea", "chess"]))
    A person discovers one new interest after another.
    Earlier: tea
    Lately: chess
    Next:
    """
    slots = reversed(SLOTS[: len(interests)])
    lines = [f"{slot}: {name}" for slot, name in zip(slots, interests, strict=True)]
    return INSTRUCTION + "\n".join([*lines, "Next:"])


def tokenise(names: list[str], history: int, tokenizer: Any, ending: Ending) -> Prompt:
    """Tokenise the pieces of every prompt over clusters called `names`, with K = `history` slots."""

    def ids(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False).input_ids

    end: int = tokenizer.eos_token_id
    slots: list[list[list[int]]] = []
    for k in reversed(range(history)):
        after = ending.slot if k == 0 else "\n"
        slots.append([ids(f"{SLOTS[k]}: {name}{after}") for name in names])
    return Prompt(ids(INSTRUCTION), slots, ids(ending.cue), [[*ids(f" {name}"), end] for name in names], end)
