"""`byway lift`: the figures of a live experiment, from the service's own log or from tables of the platform's.

Owns how users, arms, clusters and days are told from either, and what is written to `lift.json`. The figures are
`evaluation.live`'s; what other policies would have earned is `workflow.replaying`'s.
"""

import asyncio
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from byway.base import artifact, config
from byway.base.errors import UserError
from byway.data import impressions
from byway.evaluation import live
from byway.evaluation.live import LiveLog
from byway.serving import arms, bundle, stores
from byway.serving.bundle import Bundle
from byway.serving.history import DAY, SEEDED, Answered, Event, as_rows
from byway.workflow.artifacts import Artifacts
from byway.workflow.stages import BUNDLE, CATALOG

EVERYTHING = 1_000_000
"""Rows of one user that are read at most."""
ORIGIN = "byway:"

People = dict[str, tuple[list[Event], list[Answered]]]
"""By user, events and answers in order of time."""


@dataclass(frozen=True, slots=True)
class Rows:
    """A log as columns of n rows, and the arm of every user in the experiment."""

    columns: dict[str, list[Any]]
    """`user`, `item`, `time`, `satisfaction`, `seconds`, `own`, `met`, and `cluster`, `novel`, `sole` where
    told."""
    arm: dict[str, str]
    shares: dict[str, float]
    moved: int
    """Users who were seen in several arms: they are left out."""
    incomplete: int = 0
    """Rows without a user, a time or the arm of their user: they are left out."""
    repeated: int = 0
    """Rows that another table has too, as where exports overlap: they are left out."""


def lift(
    workspace: Path,
    settings: config.Config,
    paths: Sequence[Path],
    control: str = "control",
    *,
    columns: Mapping[str, str] | None = None,
    scale: Sequence[float] = (),
) -> dict[str, Any]:
    """The figures of the experiment beside the arm `control`, which also go to `lift.json`.

    `columns` maps our columns of an impression to those of the tables, and `scale` has the worst and best
    satisfaction in them, where that is not 0 to 1. Without paths the log is the service's own. Raises UserError
    where it has no experiment, or no control.
    """
    design = arms.load(workspace)
    if paths:
        with tempfile.TemporaryDirectory() as scratch:
            table, repeated = impressions.read(paths, columns or {}, scale, settings.catalog, Path(scratch))
        rows = replace(_of_table(table, paths[0], design), repeated=repeated)
    elif columns or scale:
        raise UserError("--column and --scale are for tables; name one, or leave them out.")
    else:
        rows = _of_people(people(workspace, settings), design)
    if control not in rows.arm.values():
        there = ", ".join(sorted(set(rows.arm.values()))) or "nobody"
        moved = f"; {rows.moved:,} users are in several arms and left out" if rows.moved else ""
        raise UserError(
            f"The log has no user of the arm {control!r} ({there}{moved}); name the arm to measure beside "
            "with --control."
        )
    log = arrange(rows, _opened(workspace), _before(workspace))
    found = live.figures(log, control, _positive(workspace))
    named = "" if design is None else design.name
    left_out = {"moved": rows.moved, "incomplete": rows.incomplete, "repeated": rows.repeated}
    found["setting"] |= {**left_out, "experiment": named}
    artifact.write_atomic(workspace / config.LIFTED, json.dumps(found, indent=1, ensure_ascii=False).encode())
    return found


def columns_of(texts: Sequence[str]) -> dict[str, str]:
    """Our columns and theirs, of texts as `user=who`; `share=` maps ours to none."""
    for text in texts:
        if "=" not in text:
            raise UserError(f"--column {text}: write ours=yours, for example --column user=who.")
    return {ours.strip(): theirs.strip() for ours, _, theirs in (text.partition("=") for text in texts)}


def people(workspace: Path, settings: config.Config) -> People:
    """All that the service's history holds."""

    async def read() -> People:
        async with stores.opened(settings.serving, workspace / "serving") as store:
            return {
                user: (await store.of(user, -1, EVERYTHING), await store.answers(user, -1, EVERYTHING))
                async for user in store.users()
            }

    return asyncio.run(read())


def _of_people(known: People, design: arms.Design | None) -> Rows:
    names = {a.experiment for _, answers in known.values() for a in answers if a.arm}
    if design is not None:
        names &= {design.name}
    if len(names) != 1:
        said = f"several experiments ({', '.join(sorted(names))})" if names else "no answer of an experiment"
        raise UserError(f"The service's log holds {said}; see {arms.FILE} in docs/lift.md, or name a table.")
    (name,) = names
    rows: list[dict[str, Any]] = []
    arm: dict[str, str] = {}
    shares: dict[str, float] = {}
    moved = 0
    first = min(a.time for _, answers in known.values() for a in answers if a.experiment == name)
    for user, (done, answers) in known.items():
        own = [a for a in answers if a.experiment == name and a.arm]
        shares |= {a.arm: a.share for a in own}
        dealt = {a.arm for a in own}
        moved += len(dealt) > 1
        if len(dealt) != 1:
            continue
        arm[user] = dealt.pop()
        rows += as_rows(done, own)
    named = {name: name for name in ("user", "item", "time", "satisfaction")} | {"seconds": "watch_seconds"}
    columns = {name: [row[logged] for row in rows] for name, logged in named.items()}
    columns["own"] = [row["propensity"] is not None for row in rows]
    # What lies before the experiment, or comes from the workspace's log, only says what was met.
    columns["met"] = [row["time"] < first or row["source"] == SEEDED for row in rows]
    return Rows(columns, arm, shares if design is None else design.shares(), moved)


def _of_table(table: pa.Table, where: Path, design: arms.Design | None) -> Rows:
    n = table.num_rows

    def column(name: str, otherwise: Any) -> list[Any]:
        return table[name].to_pylist() if name in table.column_names else [otherwise] * n

    user, source = column("user", None), column("source", None)
    told = [_arm_of(s) if a is None else a for a, s in zip(column("arm", None), source, strict=True)]
    seen: dict[str, set[str]] = {}
    for who, which in zip(user, told, strict=True):
        if which and who is not None:
            seen.setdefault(who, set()).add(which)
    if design is not None:
        seen |= {who: {arms.deal(design, who)} for who in set(user) - seen.keys() if who is not None}
    arm = {who: next(iter(which)) for who, which in seen.items() if len(which) == 1}
    moved = {who for who, which in seen.items() if len(which) > 1}
    if not arm and not moved:
        raise UserError(
            f"{where}: no column says the arm of a user; name it with --column arm=NAME, or put {arms.FILE} into "
            "the workspace, by which users were dealt."
        )
    columns: dict[str, list[Any]] = {
        "user": user,
        "item": column("item", None),
        "time": column("time", None),
        "satisfaction": column("satisfaction", 1.0),
        "seconds": column("watch_seconds", 0.0),
        # With a source, only what Byway named is its own; without one every row is an impression.
        "own": [s is not None and s.startswith("byway") for s in source]
        if "source" in table.column_names
        else [True] * n,
        "met": [False] * n,
    }
    columns |= {name: column(name, None) for name in ("cluster", "novel", "sole") if name in table.column_names}
    needed = zip(user, columns["time"], strict=True)
    # A row without an item says that somebody came.
    incomplete = sum(who not in moved and (who not in arm or when is None) for who, when in needed)
    return Rows(columns, arm, _shares(table, arm, told, design), len(moved), incomplete)


def _arm_of(source: str | None) -> str | None:
    """The arm in `byway:EXPERIMENT/ARM:HOW`, as the service's log writes it."""
    if source is None or not source.startswith(ORIGIN):
        return None
    return source.removeprefix(ORIGIN).rpartition(":")[0].rpartition("/")[2] or None


def _shares(
    table: pa.Table, arm: dict[str, str], told: list[str | None], design: arms.Design | None
) -> dict[str, float]:
    """By the table's own column, else by the design, else equal."""
    if "share" in table.column_names:
        pairs = zip(told, table["share"].to_pylist(), strict=True)
        return {name: share for name, share in pairs if name and share is not None and share > 0}
    names = sorted(set(arm.values()))
    if design is not None and set(names) <= design.shares().keys():
        return design.shares()
    return dict.fromkeys(names, 1 / max(1, len(names)))


def arrange(rows: Rows, opened: Bundle | None, before: dict[str, list[str]]) -> LiveLog:
    """The rows as arrays, in order of time; clusters by what the rows say, else by the bundle.

    `before` are the items that users met in the workspace's own log.
    """
    needed = zip(*(rows.columns[name] for name in ("user", "item", "time")), strict=True)
    kept = [user in rows.arm and item is not None and time is not None for user, item, time in needed]
    own = {name: [v for v, k in zip(values, kept, strict=True) if k] for name, values in rows.columns.items()}
    users, names = list(rows.arm), sorted(rows.shares.keys() | set(rows.arm.values()))
    number = {user: i for i, user in enumerate(users)}
    user = np.array([number[u] for u in own["user"]], np.int64)
    ids, item = np.unique(np.array(own["item"], dtype=object).astype(str), return_inverse=True)
    of_item = _clusters(ids.tolist(), opened)
    cluster = of_item[item]
    if "cluster" in own:
        told, cluster = np.unique([(c or "").strip() for c in own["cluster"]], return_inverse=True)
        if "" in told:
            cluster = cluster - 1  # an empty cell sorts first, and is unknown: -1
    time = np.array(own["time"], np.int64)
    met = _numbers(own["met"], 0) > 0
    start = int(time[~met].min()) // DAY if (~met).any() else 0
    day = time // DAY - start
    satisfaction, seconds = _numbers(own["satisfaction"], 0.0), _numbers(own["seconds"], 0.0)
    shown = np.array(own["own"], np.bool_)
    taken = (satisfaction > 0) | (seconds > 0) | ~shown
    if "novel" in own:
        novel = _numbers(own["novel"], 0.0) > 0
    else:
        logged = {} if "cluster" in own else before
        earlier = [(number[u], c) for u in users for c in _clusters(logged.get(u, []), opened).tolist() if c >= 0]
        pairs = np.array(earlier, np.int64).reshape(-1, 2)
        novel = live.novelty(user, cluster, day, taken, (pairs[:, 0], pairs[:, 1]))
    sole = _numbers(own["sole"], 0.0) > 0 if "sole" in own else None
    order = np.flatnonzero(~met)[np.argsort(time[~met], kind="stable")]
    return LiveLog(
        user=user[order],
        item=item[order].astype(np.int64),
        cluster=cluster[order].astype(np.int64),
        day=day[order],
        satisfaction=np.clip(satisfaction[order], 0, 1),
        seconds=np.maximum(seconds[order], 0),
        own=shown[order],
        novel=novel[order],
        sole=None if sole is None else sole[order],
        arm=np.array([names.index(rows.arm[u]) for u in users], np.int64),
        arms=names,
        shares=[rows.shares.get(name, 0.0) or 1e-9 for name in names],
    )


def _numbers(values: list[Any], otherwise: float) -> NDArray[np.float64]:
    found = np.array([otherwise if v is None else v for v in values], np.float64)
    return np.where(np.isnan(found), otherwise, found)


def _clusters(ids: list[str], opened: Bundle | None) -> NDArray[np.int64]:
    """[ids] the cluster of each item; -1 where there is no bundle, or it does not know the item."""
    if opened is None:
        return np.full(len(ids), -1)
    at = np.array([-1 if p is None else p for p in opened.positions(ids)], np.int64)
    return np.where(at < 0, -1, opened.clusters(np.maximum(at, 0)))


def _opened(workspace: Path) -> Bundle | None:
    """The workspace's bundle, which says the cluster of an item; None where there is none yet."""
    folder = workspace / BUNDLE.folder
    return None if artifact.read_record(folder) is None else bundle.load(folder)


def _before(workspace: Path) -> dict[str, list[str]]:
    """By user, the items of the workspace's own log."""
    if artifact.read_record(workspace / CATALOG.folder) is None:
        return {}
    built = Artifacts(workspace)
    log, users, ids = built.events, built.users, built.catalog.ids()
    starts = np.searchsorted(log.user, np.arange(len(users) + 1)).tolist()
    return {
        name: [ids[i] for i in log.item[start:stop].tolist()]
        for name, start, stop in zip(users, starts[:-1], starts[1:], strict=True)
    }


def _positive(workspace: Path) -> float:
    there = artifact.read_record(workspace / CATALOG.folder) is not None
    return Artifacts(workspace).events.positive if there else 0.5


SHOWN = (
    "novel_impressions", "sole_impressions", "positive_rate", "new_positive_rate", "platform.positive_rate",
    "platform.novel_impressions", "platform.new_positive", "watch_minutes", "daily_users_over_ten_minutes",
    "engaged_pairs", "new_clusters",
)  # fmt: skip
"""Figures that are printed; all are in the object."""


def as_text(found: dict[str, Any]) -> str:
    """The figures in lines."""
    setting, ratio = found["setting"], found["sample_ratio"]
    lines = [
        f"{setting['users']:,} users, days: {setting['days']}, {setting['rows']:,} rows; over {setting['control']}:"
    ]
    reasons = {
        "moved": "users who were seen in several arms",
        "incomplete": "rows without a user, a time or an arm",
        "repeated": "rows that another table has too",
    }
    left = [f"{setting[name]:,} {what}" for name, what in reasons.items() if setting[name]]
    if left:
        lines.append(f"Left out: {' and '.join(left)}.")
    counts = ", ".join(f"{arm} {n:,}" for arm, n in ratio["users"].items())
    if ratio["alarm"]:
        lines.append(
            f"Sample ratio mismatch (p = {ratio['p']:.2g}): {counts}. Users do not fall as dealt; trust no figure."
        )
    else:
        lines.append(f"Users fall on the arms as dealt (p = {ratio['p']:.2g}): {counts}.")
    for arm, rows in found["lift"].items():
        lines.append(f"\n{arm:34} {'lift':>8} {'95% interval':>20} {'at every look':>20}")
        names = [n for n in SHOWN if n in rows] + [n for n in rows if n.startswith("uci_")]
        for name in names:
            row = rows[name]
            one, always = (
                f"{row[low]:+.2%} to {row[high]:+.2%}"
                for low, high in (("low", "high"), ("always_low", "always_high"))
            )
            lines.append(f"  {name:32} {row['mean']:>+8.2%} {one:>20} {always:>20}")
    if found["aa"]["tests"]:
        differ = ", ".join(found["aa"]["differ"]) or "none"
        lines.append(f"\nA/A: of {found['aa']['tests']} figures differ at 5%: {differ}.")
    for name, rows in found.get("policies", {}).items():
        lines.append(f"\n{name} would have earned, by item shown: {_earned(rows)}")
    return "\n".join(lines)


def _earned(rows: dict[str, Any]) -> str:
    if not rows["answers"]:
        return "no answer of the log can be worked out again."
    said = "; ".join(
        f"{kind} {rows[kind]['mean']:.4f} ({rows[kind]['low']:.4f} to {rows[kind]['high']:.4f})"
        for kind in ("ips", "snips", "doubly_robust")
        if rows[kind]["mean"] is not None and rows[kind]["low"] is not None
    )
    aside = ""
    if rows["aside"]:
        every = rows["answers"] + rows["aside"]
        aside = f" {rows['aside']:,} of {every:,} answers could not be worked out again and are left out."
    return (
        f"{said}. {rows['covered']:.0%} of it could have been shown by the log; worth {rows['effective']:.0f} of "
        f"{rows['rows']} rows.{aside}"
    )
