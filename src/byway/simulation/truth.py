"""What people feel, from files beside the tables of a workspace: simulated, or real answers."""

from pathlib import Path

import numpy as np

from byway.base.errors import UserError
from byway.data import later
from byway.data.events import Events
from byway.simulation import replay, simulated, world
from byway.simulation.platform import Environment
from byway.simulation.source import Flags, Ints

WORLD = "world.json"
MATRICES = ("positives_fully_observed.csv", "small_matrix.csv")


def file(folder: Path) -> Path:
    """The file that holds the truth, in `truth/` of the folder, in the folder or in its `data/`.

    Raises UserError where there is none: then nobody knows what people would have felt.
    """
    places = [
        folder / "truth" / WORLD,
        *(folder / sub / later.FILE for sub in ("truth", ".")),
        *(folder / sub / name for name in MATRICES for sub in (".", "data")),
    ]
    for path in places:
        if path.exists():
            return path
    raise UserError(
        f"{folder} holds neither truth/{WORLD} of a simulated world nor {later.FILE} of a log that was cut in two "
        f"nor {MATRICES[0]} or {MATRICES[1]} of KuaiRec, and an experiment has to know what people feel. Set "
        "experiment.truth to such a folder, or try it with byway demo."
    )


def kind(folder: Path) -> str:
    """Whose feelings they are: `simulated`, `later` ratings of a log that was cut in two, or KuaiRec's `matrix`."""
    return {WORLD: "simulated", later.FILE: "later"}.get(file(folder).name, "matrix")


def open_truth(
    folder: Path, item_ids: list[str], user_ids: list[str], events: Events, list_length: int
) -> tuple[Environment, Ints, Flags]:
    """The people, which users [n] can be asked to take part, and which items [N] or [U, N] cannot be shown."""
    path = file(folder)
    if path.name == WORLD:
        people = simulated.of(world.load(path.parent.parent), item_ids, user_ids, events)
        return people, np.arange(len(user_ids)), np.zeros(len(item_ids), np.bool_)
    if path.name == later.FILE:
        real = replay.load_later(path, item_ids, user_ids, events, list_length)
    else:
        real = replay.load(path, item_ids, user_ids, list_length)
    return real, real.users, real.missing()
