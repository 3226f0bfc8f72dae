"""The trie of legal names: which token may follow, and where a name is decided.

Only its branching nodes matter. Everywhere else one token is legal and its probability under the trie is one, so
the probability of a name is the product over the branching nodes on its path: a proper distribution over all
names, in which names that are prefixes of one another are told apart by the end token.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Node:
    """A branching node."""

    path: list[int]
    """Tokens from the start of the answer to this node."""
    tokens: list[int]
    """Legal next tokens, ascending."""
    leads_to: list[int]
    """For each of them: node number if the path branches again, else -1 - cluster."""


@dataclass(frozen=True, slots=True)
class Trie:
    """All legal names of one set of clusters. Node 0 is the first branching."""

    nodes: list[Node]
    steps: list[list[tuple[int, int]]]
    """`steps[c]`: the (node, option) choices that spell the name of cluster c."""

    def first_option(self) -> NDArray[np.int64]:
        """[clusters] option of node 0 under which each cluster lies."""
        return np.array([steps[0][1] for steps in self.steps])


def build(answers: list[list[int]]) -> Trie:
    """Build the trie of token sequences that each end with the end token; all must differ."""
    if len({tuple(a) for a in answers}) != len(answers):
        raise ValueError("two clusters have the same name")
    nodes: list[Node] = []
    steps: list[list[tuple[int, int]]] = [[] for _ in answers]

    def grow(members: list[int], depth: int) -> int:
        while len({answers[c][depth] for c in members}) == 1:
            depth += 1
        number = len(nodes)
        node = Node(answers[members[0]][:depth], sorted({answers[c][depth] for c in members}), [])
        nodes.append(node)
        for option, token in enumerate(node.tokens):
            below = [c for c in members if answers[c][depth] == token]
            for c in below:
                steps[c].append((number, option))
            node.leads_to.append(-1 - below[0] if len(below) == 1 else grow(below, depth + 1))
        return number

    if len(answers) > 1:
        grow(list(range(len(answers))), 0)
    return Trie(nodes, steps)
