"""What a workspace can show before anything is trained: its interests, and what one person would be offered.

Reads artifacts 01 to 06 alone. Interests are ranked by the log's counts and by how alike their items are; inside an
interest stand its most watched items.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from byway.data import events
from byway.interests.describe import Descriptions
from byway.interests.tree import Tree
from byway.transitions.signals import Scorer
from byway.transitions.standing import Standing
from byway.workflow.artifacts import Artifacts
from byway.workflow.stages import TRANSITIONS

LAST = TRANSITIONS
"""The stage after which this can be shown."""
AREAS, IN_EACH = 8, 4
"""Broad interests that are listed, and interests of each."""
OFFERED, ITEMS = 3, 2
"""Interests that are offered to a person, and items of each."""
LEAST_KNOWN = 3
"""Interests that the person to show knows at least."""
EXAMPLES = 12
"""People among whom others to show are found."""


def text(workspace: Path) -> str:
    """Interests by name, and what somebody would be offered who knows about as many of them as most people."""
    built = Artifacts(workspace)
    grown, names, log, found = built.tree, built.descriptions, built.events, built.transitions
    stands = built.standing
    titles = built.catalog.titles()
    traffic = events.traffic(log)
    lines = _areas(grown, names, traffic, found.level)
    people = typical(stands, grown.size(found.level))
    if not len(people):
        return "\n".join(lines)
    person = int(people[0])
    known = stands.touched[stands.starts[person] : stands.starts[person + 1]]
    pair = np.asarray(stands.recent[person])[None]
    scorer = Scorer.from_log(found, grown.similarity(built.vectors, found.level))
    score = scorer.fitted_by_ndcg(found.validation, np.random.default_rng(0))(pair)[0].copy()
    score[known] = -np.inf
    called = names.names[found.level - 1]
    of_late = " and ".join(f"“{called[c]}”" for c in dict.fromkeys(pair[0].tolist()))
    who = built.users[person]
    lines += [
        "",
        f"{who} knows {len(known)} of {len(called)} interests, of late {of_late}.",
        "Next, by the log's counts and by similarity alone, before anything is trained:",
    ]
    for cluster in np.argsort(-score, kind="stable")[:OFFERED].tolist():
        items = grown.items(found.level, cluster)
        best = items[np.argsort(-traffic[items], kind="stable")[:ITEMS]]
        lines.append(f"  “{called[cluster]}”: " + " · ".join(titles[item][:60] for item in best.tolist()))
    return "\n".join(lines)


def typical(stands: Standing, clusters: int) -> NDArray[np.intp]:
    """People who enjoyed interests of late and have some left to meet; who knows the median number comes first.

    [n] rows of users, n at most `EXAMPLES`; empty where nobody has met `LEAST_KNOWN` interests.
    """
    known = np.diff(stands.starts)
    fit = np.flatnonzero((np.asarray(stands.recent) >= 0).all(axis=1) & (known >= LEAST_KNOWN) & (known < clusters))
    if not len(fit):
        return fit
    return fit[np.argsort(np.abs(known[fit] - np.median(known[fit])), kind="stable")[:EXAMPLES]]


def _areas(grown: Tree, names: Descriptions, traffic: NDArray[np.float64], level: int) -> list[str]:
    """The broad interests with the most watched interests of each, the most watched first."""
    loads = np.bincount(grown.assign(level), traffic, grown.size(level))
    # The broad interest of a cluster is that of its first item.
    above = grown.assign(1)[grown.order[grown.starts[level - 1][:-1]]]
    broad = np.bincount(above, loads)
    lines = [f"{grown.size(level)} interests, in the items' own words:"]
    for area in np.argsort(-broad, kind="stable")[:AREAS].tolist():
        inside = np.flatnonzero(above == area)
        shown = inside[np.argsort(-loads[inside], kind="stable")[:IN_EACH]].tolist()
        more = f" · and {len(inside) - len(shown)} more" if len(inside) > len(shown) else ""
        title = f"{names.names[0][area]}: " if level > 1 else ""
        lines.append(f"  {title}" + " · ".join(f"“{names.names[level - 1][c]}”" for c in shown) + more)
    return lines
