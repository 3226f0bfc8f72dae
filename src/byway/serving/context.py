"""What to answer to somebody who watches an item: a serendipitous cluster, and items inside it, with the reasons.

A pure function of a bundle, the item and a history (paper 2, sections 2 and 3.2). No model of language runs here:
the answers stand in the context table.
"""

from collections.abc import Sequence

from byway.base.errors import UserError
from byway.serving.answers import ITEMS, Answer, as_shown, best
from byway.serving.bundle import Bundle
from byway.serving.person import Seen, read


def recommend(
    bundle: Bundle,
    item: str,
    history: list[Seen],
    k: int | None = None,
    now: int | None = None,
    exclude: Sequence[str] = (),
) -> Answer:
    """Answer somebody with this history, the most recent item last, who is watching `item`.

    The first cluster of the item's ranking is taken that has any item left to show and, where `bundle.surprise`
    is `never_met`, that this person has not met. `now` is in microseconds, for the age of items; what is in
    `exclude` is not shown.
    Raises UserError where the bundle has no context table or does not know the item.
    """
    k = ITEMS if k is None else k
    if bundle.context_clusters is None or bundle.context_via is None or bundle.context_items is None:
        raise UserError("This bundle has no context table: no item of the catalog has a video or a thumbnail.")
    watched = bundle.position(item)
    if watched is None:
        raise UserError(f"The catalog has no item {item!r}.")
    names = bundle.manifest.names
    own = bundle.cluster(watched)
    reasons = [f"Watching “{bundle.titles[watched]}”, of the interest “{names[own]}”."]
    person = read(bundle, history, now, exclude, item, reasons)
    via = int(bundle.context_via[watched])
    if via < 0:
        reasons.append("No item of this interest has been looked at, so there is no surprise to offer.")
        return Answer([], "context", [names[own]], reasons=reasons)
    covered = int(bundle.context_items[via])
    if covered != watched:
        reasons.append(
            f"It is too little watched to have an answer of its own; “{bundle.titles[covered]}” is the nearest in "
            "its interest that has one."
        )
    strict = bundle.settings.surprise == "never_met"
    offered = person.open if strict else person.left
    for rank, cluster in enumerate(bundle.context_clusters[via].tolist(), 1):
        if cluster < 0 or not offered[cluster]:
            continue
        why = "are not new or " if strict else ""
        passed = "" if rank == 1 else f" (number {rank}: those before it {why}have nothing left)"
        reasons.append(f"What is seen in it leads on to “{names[cluster]}”{passed}.")
        found = best(bundle, person, bundle.encode(person.positions), k, cluster)
        shown = as_shown(bundle, *found, "context")
        return Answer(shown, "context", [names[own]], names[cluster], rank, reasons)
    known = "is known to this person already or " if strict else ""
    reasons.append(f"Every interest in its ranking {known}has nothing left to show.")
    return Answer([], "context", [names[own]], reasons=reasons)
