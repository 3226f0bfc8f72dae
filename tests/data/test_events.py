"""The log: sorted, indexed, quarantined with reasons; against a plain Python reference."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byway.base import config
from byway.base.artifact import Outcome, Work
from byway.data import catalog, events

SECOND = 1_000_000
NOW = 1_700_000_000 * SECOND
THEN = 1_600_000_000
ITEMS = "item,title\na,first\nb,second\nc,third\n"


def build(work: Work, folder: Path, log: bytes | str | pa.Table, **mapped: str) -> Outcome:
    folder.mkdir(exist_ok=True)
    kind = "parquet" if isinstance(log, pa.Table) else "csv"
    if isinstance(log, pa.Table):
        pq.write_table(log, folder / "events.parquet")
        pq.write_table(pa.table({"item": ["a", "b", "c"], "title": ["x", "y", "z"]}), folder / "items.parquet")
    else:
        (folder / "events.csv").write_bytes(log.encode() if isinstance(log, str) else log)
        (folder / "items.csv").write_text(ITEMS)
    settings = config.Catalog(source=kind, items=f"items.{kind}", events=f"events.{kind}", event_columns=mapped)
    return catalog.build(work, settings, folder, now=NOW)


def quarantined(work: Work) -> list[tuple[int, str, str, str | None]]:
    table = pq.read_table(work.out / "quarantine.parquet").to_pylist()
    return sorted(
        (row["row"], row["id"], row["reason"], row["detail"]) for row in table if row["table"] == "events"
    )


def test_unsorted_input_with_a_clock_is_sorted_and_ties_keep_their_arrival(work: Work, tmp_path: Path) -> None:
    log = f"user,item,time\nv,a,{THEN + 9}\nu,b,{THEN + 5}\nu,c,{THEN + 1}\nu,a,{THEN + 5}\nv,b,{THEN}\n"
    build(work, tmp_path / "in", log)
    found = events.load(work.out)
    assert events.load_users(work.out) == ["v", "u"]
    assert found.user.tolist() == [0, 0, 1, 1, 1]
    assert found.item.tolist() == [1, 0, 2, 1, 0]
    assert (found.time // SECOND - THEN).tolist() == [0, 9, 1, 5, 5]
    assert found.clock
    assert found.propensity is None
    assert (found.n_users, found.n_items, len(found)) == (2, 3, 5)
    assert [a.dtype for a in (found.user, found.item, found.time, found.satisfaction)] == [
        np.int32,
        np.int32,
        np.int64,
        np.float32,
    ]
    assert events.traffic(found).tolist() == [2, 2, 1]
    assert events.traffic(found).dtype == np.float64


def test_without_a_clock_time_is_the_position(work: Work, tmp_path: Path) -> None:
    build(work, tmp_path / "in", "user,item\nu,a\nv,b\nu,c\nu,a\nv,a\n")
    found = events.load(work.out)
    assert not found.clock
    assert found.item.tolist() == [0, 2, 0, 1, 0]
    assert found.time.tolist() == [0, 1, 2, 0, 1]


def test_an_order_column_orders(work: Work, tmp_path: Path) -> None:
    build(work, tmp_path / "in", "user,item,n\nu,a,30\nu,b,-4\nu,c,7\n", order="n")
    found = events.load(work.out)
    assert found.item.tolist() == [1, 2, 0]
    assert found.time.tolist() == [0, 1, 2]


def test_a_clock_that_runs_against_the_order_now_and_then_is_quarantined(work: Work, tmp_path: Path) -> None:
    times = [*range(0, 300, 10), 299, 300]
    times[7] = 45
    log = "user,item,order,time\n" + "".join(f"u,a,{n},{THEN + t}\n" for n, t in enumerate(times))
    outcome = build(work, tmp_path / "in", log)
    assert outcome.metrics["catalog.quarantined"] == {"backward time": 1}
    assert quarantined(work) == [(7, "u", "backward time", "2020-09-13 12:27:25.000000")]
    assert (events.load(work.out).time // SECOND - THEN).tolist() == times[:7] + times[8:]


def test_an_order_that_is_none_gives_way_to_the_clock_and_that_is_said(work: Work, tmp_path: Path) -> None:
    rows = [
        ("u", "a", 9, 1),
        ("u", "b", 4, 2),
        ("u", "c", 7, 3),
        ("v", "c", 9, 5),
        ("v", "b", 3, 5),
        ("v", "a", 1, 6),
    ]
    log = "user,item,order,time\n" + "".join(f"{u},{i},{n},{THEN + t}\n" for u, i, n, t in rows)
    outcome = build(work, tmp_path / "in", log)
    found = events.load(work.out)
    assert outcome.metrics["catalog.quarantined"] == {}
    assert found.item.tolist() == [0, 1, 2, 1, 2, 0]
    assert (found.time // SECOND - THEN).tolist() == [1, 2, 3, 5, 5, 6]
    told = outcome.metrics["catalog.read"]
    assert isinstance(told, list)
    assert "`order` contradicts `time` in 3 of 6 events" in told[-1]


def test_every_bad_event_is_quarantined_with_its_reason(work: Work, tmp_path: Path) -> None:
    day = 86_400
    now = NOW // SECOND
    rows: list[tuple[bytes, str | None]] = [
        (b"u,a,%d,1,5,home,0.5" % THEN, None),
        (b",a,%d,1,5,home,0.5" % THEN, "empty id"),
        (b"u,,%d,1,5,home,0.5" % THEN, "empty id"),
        (b"\xffu,a,%d,1,5,home,0.5" % THEN, "invalid utf-8"),
        (b"u,a\xc3,%d,1,5,home,0.5" % THEN, "invalid utf-8"),
        (b"u,a,%d,1,5,ho\xffme,0.5" % THEN, "invalid utf-8"),
        (b"u\x07x,a,%d,1,5,home,0.5" % THEN, "bad id"),
        (b"w" * 300 + b",a,%d,1,5,home,0.5" % THEN, "bad id"),
        (b"u,zebra,%d,1,5,home,0.5" % THEN, "unknown item"),
        (b"u,a,,1,5,home,0.5", "bad time"),
        (b"u,a,soon,1,5,home,0.5", "bad time"),
        (b"u,a,-5,1,5,home,0.5", "bad time"),
        (b"u,a,1e300,1,5,home,0.5", "future time"),
        (b"u,a,%d,1,5,home,0.5" % (now + day + 1), "future time"),
        (b"u,a,%d,1,5,home,0.5" % (now + day), None),
        (b"u,a,%d,,5,home,0.5" % THEN, "bad satisfaction"),
        (b"u,a,%d,nan,5,home,0.5" % THEN, "bad satisfaction"),
        (b"u,a,%d,good,5,home,0.5" % THEN, "bad satisfaction"),
        (b"u,a,%d,1.01,5,home,0.5" % THEN, "bad satisfaction"),
        (b"u,a,%d,-0.1,5,home,0.5" % THEN, "bad satisfaction"),
        (b"u,a,%d,0,,home," % THEN, None),
        (b"u,a,%d,1,-1,home,0.5" % THEN, "bad watch seconds"),
        (b"u,a,%d,1,long,home,0.5" % THEN, "bad watch seconds"),
        (b"u,a,%d,1,inf,home,0.5" % THEN, "bad watch seconds"),
        (b"u,a,%d,1,5,home,0" % THEN, "bad propensity"),
        (b"u,a,%d,1,5,home,1.5" % THEN, "bad propensity"),
        (b"u,a,%d,1,5,home" % THEN, "wrong fields"),
        (b"u,a,%d,1,5,home,0.5,more" % THEN, "wrong fields"),
        (b"u,a,%d,0.5,5,,1" % THEN, None),
    ]
    log = b"user,item,time,satisfaction,watch_seconds,source,propensity\n" + b"\n".join(row for row, _ in rows)
    outcome = build(work, tmp_path / "in", log)
    wanted = [(n, reason) for n, (_, reason) in enumerate(rows) if reason]
    assert [(row[0], row[2]) for row in quarantined(work)] == wanted
    assert outcome.counts["events"] == len(rows) - len(wanted)
    assert outcome.counts["quarantined.bad satisfaction"] == 5
    details = {row[0]: row[3] for row in quarantined(work)}
    assert details[8] == "zebra"
    assert details[18] == "1.01"
    table = pq.read_table(work.out / "events.parquet")
    assert table.schema.equals(events.SCHEMA)
    assert table["watch_seconds"].to_pylist() == [5, None, 5, 5]
    assert table["source"].to_pylist() == ["home", "home", "", "home"]
    assert table["propensity"].to_pylist() == [0.5, None, 1, 0.5]
    assert np.asarray(events.load(work.out).propensity).tolist() == [0.5, 1, 1, 0.5]
    assert table["satisfaction"].to_pylist() == [1, 0, 0.5, 1]


def test_a_user_whose_events_are_all_bad_is_no_user(work: Work, tmp_path: Path) -> None:
    build(work, tmp_path / "in", "user,item\nghost,zebra\nu,a\n")
    assert events.load_users(work.out) == ["u"]


def test_numbers_and_strings_both_serve_as_ids(work: Work, tmp_path: Path) -> None:
    log = pa.table({"user": pa.array([12, None, 7], pa.float64()), "item": ["a", "a", "b"]})
    build(work, tmp_path / "in", log)
    assert events.load_users(work.out) == ["12", "7"]
    assert quarantined(work) == [(1, None, "empty id", "a")]


EVENT = st.fixed_dictionaries(
    {
        "user": st.sampled_from(["u", "v", " w", "", None]),
        "item": st.sampled_from(["a", "b", "c ", "zebra", None]),
        "order": st.integers(-3, 3),
        "time": st.one_of(st.none(), st.integers(0, 6)),
        "satisfaction": st.sampled_from([0.0, 0.25, 1.0, math.nan, None]),
    }
)


def reference(rows: list[dict[str, Any]], ordered: bool, clocked: bool) -> tuple[list[tuple[Any, ...]], list[str]]:
    """The kept events in order, and the users in theirs: one row at a time."""
    users: dict[str, int] = {}
    kept: list[tuple[Any, ...]] = []
    for arrival, row in enumerate(rows):
        user, item = ((row[name] or "").strip() for name in ("user", "item"))
        if not user or item not in ("a", "b", "c"):
            continue
        if clocked and (row["time"] is None):
            continue
        if row["satisfaction"] is None or not 0 <= row["satisfaction"] <= 1:
            continue
        key = row["order"] if ordered else row["time"] if clocked else 0
        number = users.setdefault(user, len(users))
        kept.append((number, key, arrival, "abc".index(item), row["time"], row["satisfaction"]))
    kept.sort(key=lambda row: row[:3])
    latest: dict[int, int] = {}
    behind: list[bool] = []
    for user, _, _, _, time, _ in kept:
        behind.append(ordered and clocked and time < latest.get(user, 0))
        latest[user] = max(time or 0, latest.get(user, 0))
    if sum(behind) > 0.1 * len(kept):
        kept.sort(key=lambda row: (row[0], row[4], row[1], row[2]))
        behind = [False] * len(kept)
    result: list[tuple[Any, ...]] = []
    position: dict[int, int] = {}
    for (user, _, _, item, time, satisfaction), wrong in zip(kept, behind, strict=True):
        if wrong:
            continue
        when = time * SECOND if clocked else position.get(user, 0)
        position[user] = position.get(user, 0) + 1
        result.append((user, item, when, satisfaction))
    return result, list(users)


@given(rows=st.lists(EVENT, max_size=40), ordered=st.booleans(), clocked=st.booleans(), batch=st.integers(1, 11))
@settings(max_examples=60, deadline=None)
def test_the_log_is_that_of_the_reference(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]], ordered: bool, clocked: bool, batch: int
) -> None:
    out = tmp_path_factory.mktemp("log")
    rows = [{"user": "u", "item": "a", "order": 0, "time": 3, "satisfaction": 1.0}, *rows]
    columns: dict[str, pa.Array] = {
        "user": pa.array([row["user"] for row in rows], pa.string()),
        "item": pa.array([row["item"] for row in rows], pa.string()),
        "satisfaction": pa.array([row["satisfaction"] for row in rows], pa.float64()),
    }
    if ordered:
        columns["order"] = pa.array([row["order"] for row in rows], pa.int64())
    if clocked:
        columns["time"] = pa.array([row["time"] for row in rows], pa.timestamp("s"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(events, "BATCH_ROWS", batch)
        outcome = build(Work(out, out, np.random.default_rng(0)), out / "in", pa.table(columns))
    found = events.load(out)
    expected, users = reference(rows, ordered, clocked)
    assert list(zip(found.user, found.item, found.time, found.satisfaction, strict=True)) == expected
    assert sum(outcome.metrics["catalog.quarantined"].values()) == len(rows) - len(expected)
    assert events.load_users(out) == users
