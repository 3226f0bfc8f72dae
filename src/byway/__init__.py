"""Byway: hierarchical, language-model-guided interest exploration for recommender systems.

From Python there is `Workspace`, a folder of artifacts with what can be asked of it, and the steps of the pipeline
as functions of arrays. To import this module loads none of what they need.
"""

from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from byway.base.errors import UserError
    from byway.serving.answers import Answer
    from byway.serving.person import Seen
    from byway.workflow.arrays import (
        TrainedPolicy,
        count_successors,
        cut_tree,
        find_transitions,
        rank_successors,
        train_item_policy,
    )
    from byway.workflow.workspace import NextInterest, Workspace

__all__ = [
    "Answer",
    "NextInterest",
    "Seen",
    "TrainedPolicy",
    "UserError",
    "Workspace",
    "count_successors",
    "cut_tree",
    "find_transitions",
    "rank_successors",
    "train_item_policy",
]

_HOME = {
    "Answer": "byway.serving.answers",
    "NextInterest": "byway.workflow.workspace",
    "Seen": "byway.serving.person",
    "UserError": "byway.base.errors",
    "Workspace": "byway.workflow.workspace",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return metadata.version("byway")
    if name not in __all__:
        raise AttributeError(f"module 'byway' has no attribute {name!r}")
    return getattr(import_module(_HOME.get(name, "byway.workflow.arrays")), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
