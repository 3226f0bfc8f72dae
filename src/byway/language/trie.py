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
    """For each of them: the number of the next branching node, or -1 where one name is left."""
    members: list[list[int]]
    """For each of them: the clusters whose names go on that way."""
    parent: int
    """Number of the branching node above; -1 for node 0."""


@dataclass(frozen=True, slots=True)
class Trie:
    """All legal names of one set of clusters. Node 0 is the first branching."""

    nodes: list[Node]
    steps: list[list[tuple[int, int]]]
    """`steps[c]`: the (node, option) choices that spell the name of cluster c."""

    def depth(self, node: int) -> int:
        """Tokens that have been read at the branching node above `node`."""
        return len(self.nodes[self.nodes[node].parent].path)

    @property
    def at_cue(self) -> int:
        """How many of a name's choices are made right at the cue: one, or none where all names begin alike."""
        return 0 if self.nodes[0].path else 1

    def goes_on(self) -> NDArray[np.bool_]:
        """[clusters] whether there are choices to make after the cue's."""
        return np.array([len(steps) > self.at_cue for steps in self.steps])

    def first_option(self) -> NDArray[np.int64]:
        """[clusters] option of node 0 under which each cluster lies."""
        return np.array([steps[0][1] for steps in self.steps])


def first_choice(trie: Trie, target_NM: NDArray[np.float32]) -> NDArray[np.float32]:
    """[N, options] what a target over names says of the choice at node 0."""
    return np.stack([target_NM[:, members].sum(axis=1) for members in trie.nodes[0].members], axis=1)


def build(answers: list[list[int]]) -> Trie:
    """Build the trie of at least two token sequences, all different, that each end with the end token."""
    if len(answers) < 2 or len({tuple(a) for a in answers}) != len(answers):
        raise ValueError("a trie needs two or more names, all different")
    nodes: list[Node] = []
    steps: list[list[tuple[int, int]]] = [[] for _ in answers]

    def grow(members: list[int], depth: int, parent: int) -> int:
        while len({answers[c][depth] for c in members}) == 1:
            depth += 1
        number = len(nodes)
        tokens = sorted({answers[c][depth] for c in members})
        below = [[c for c in members if answers[c][depth] == token] for token in tokens]
        nodes.append(Node(answers[members[0]][:depth], tokens, [], below, parent))
        for option, names in enumerate(below):
            for c in names:
                steps[c].append((number, option))
            nodes[number].leads_to.append(grow(names, depth + 1, number) if len(names) > 1 else -1)
        return number

    grow(list(range(len(answers))), 0, -1)
    return Trie(nodes, steps)
