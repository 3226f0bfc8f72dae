"""`byway lift`: ten known logs in other people's columns, the service's own, and what it cannot read."""

import asyncio
import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from byway import cli
from byway.base import config
from byway.base.errors import UserError
from byway.serving import arms, service
from byway.serving.history import DAY, Answered, Event
from byway.serving.messages import RecommendRequest
from byway.workflow import lifting, replaying
from tests.serving import house, running

START = 1_790_000_000_000_000 // DAY * DAY
USERS, DAYS = 40, 2
Row = dict[str, Any]


def planted() -> list[Row]:
    """A log of known figures: in `control` a user sees four items a day and likes one, in `byway` two; three of
    four are of a new interest there, one of four here; 300 seconds an item there, 120 here."""
    rows: list[Row] = []
    for u in range(USERS):
        arm = "byway" if u % 2 else "control"
        for day in range(DAYS):
            for i in range(4):
                liked = i < (2 if arm == "byway" else 1)
                new = i < (3 if arm == "byway" else 1)
                rows.append(
                    {
                        "user": f"u{u}",
                        "item": f"i{u}-{day}-{i}",
                        "time": START + day * DAY + i,
                        "arm": arm,
                        "satisfaction": float(liked),
                        "watch_seconds": 300.0 if arm == "byway" else 120.0,
                        "cluster": f"k{u}-{day}-{i}" if new else f"old{u}",
                        "novel": int(new),
                        "sole": int(i == 0),
                    }
                )
    # Not all alike, or there would be no variance: one user an arm likes one item a day less, and watches longer.
    for row in rows:
        if row["user"] in ("u0", "u1") and row["item"].endswith("-0"):
            row["satisfaction"] = 0.0
            row["watch_seconds"] += 60
    return rows


def renamed(rows: list[Row], **names: str) -> list[Row]:
    return [{names.get(key, key): value for key, value in row.items()} for row in rows]


def as_csv(path: Path, rows: list[Row], delimiter: str = ",") -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)


def as_parquet(path: Path, rows: list[Row]) -> None:
    pq.write_table(pa.Table.from_pylist(rows), path)


def as_jsonl(path: Path, rows: list[Row]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def with_times(rows: list[Row], of: Callable[[int], Any]) -> list[Row]:
    return [row | {"time": of(row["time"])} for row in rows]


LOGS: list[tuple[str, Callable[[Path, list[Row]], None], dict[str, str], list[float], str]] = [
    ("csv", as_csv, {}, [], "l.csv"),
    ("parquet", as_parquet, {}, [], "l.parquet"),
    ("json lines", as_jsonl, {}, [], "l.jsonl"),
    ("tabs", lambda p, r: as_csv(p, r, "\t"), {}, [], "l.tsv"),
    (
        "usual names",
        lambda p, r: as_csv(p, renamed(r, user="userId", item="video_id", time="timestamp", arm="variant")),
        {},
        [],
        "l.csv",
    ),
    (
        "a map",
        lambda p, r: as_csv(p, renamed(r, user="wer", item="was", time="wann", arm="zweig", watch_seconds="s")),
        {"user": "wer", "item": "was", "time": "wann", "arm": "zweig", "watch_seconds": "s"},
        [],
        "l.csv",
    ),
    ("seconds", lambda p, r: as_csv(p, with_times(r, lambda t: t // 1_000_000)), {}, [], "l.csv"),
    (
        "dates in words",
        lambda p, r: as_csv(p, with_times(r, lambda t: str(np.datetime64(t, "us")).replace("T", " "))),
        {},
        [],
        "l.csv",
    ),
    (
        "stars",
        lambda p, r: as_csv(
            p,
            renamed([row | {"satisfaction": 1 + 4 * int(row["satisfaction"])} for row in r], satisfaction="rating"),
        ),
        {},
        [1, 5],
        "l.csv",
    ),
    (
        "the log's own source",
        lambda p, r: as_parquet(
            p,
            [
                {k: v for k, v in row.items() if k != "arm"} | {"source": f"byway:spring/{row['arm']}:table"}
                for row in r
            ],
        ),
        {},
        [],
        "l.parquet",
    ),
]


@pytest.mark.parametrize(("name", "write", "columns", "scale", "file"), LOGS, ids=[each[0] for each in LOGS])
def test_ten_known_logs_give_their_figures(
    tmp_path: Path,
    name: str,
    write: Callable[[Path, list[Row]], None],
    columns: dict[str, str],
    scale: list[float],
    file: str,
) -> None:
    write(tmp_path / file, planted())
    found = lifting.lift(tmp_path, config.Config(), [tmp_path / file], columns=columns, scale=scale)
    assert found["setting"]["users"] == USERS
    assert found["setting"]["days"] == DAYS
    assert found["sample_ratio"]["users"] == {"byway": USERS // 2, "control": USERS // 2}
    assert not found["sample_ratio"]["alarm"]
    rows = {arm: {n: row["mean"] for n, row in every.items()} for arm, every in found["arms"].items()}
    shown = 4 * DAYS * USERS // 2
    assert rows["byway"]["positive_rate"] == pytest.approx((shown / 2 - 2) / shown, rel=1e-5)
    assert rows["control"]["positive_rate"] == pytest.approx((shown / 4 - 2) / shown, rel=1e-5)
    assert rows["byway"]["novel_impressions"] == 0.75
    assert rows["control"]["novel_impressions"] == 0.25
    assert rows["byway"]["sole_impressions"] == 0.25
    a_day = USERS // 2 * DAYS
    assert rows["byway"]["watch_minutes"] == pytest.approx((a_day * 20 + 2) / a_day)
    assert rows["byway"]["daily_users_over_ten_minutes"] == 1
    assert rows["control"]["daily_users_over_ten_minutes"] == 0
    lifted = found["lift"]["byway"]["positive_rate"]
    assert lifted["mean"] == pytest.approx((shown / 2 - 2) / (shown / 4 - 2) - 1, rel=1e-4)
    assert lifted["always_low"] < lifted["low"] < lifted["mean"] < lifted["high"] < lifted["always_high"]
    assert [row["day"] for row in found["by_day"]["byway"]["watch_minutes"]] == [1, 2]
    assert {row["lift"] for row in found["power"]["byway"]["positive_rate"]} >= {0.001, 0.05}
    assert json.loads((tmp_path / config.LIFTED).read_text("utf-8")) == found
    assert "positive_rate" in lifting.as_text(found)


def test_novelty_follows_from_the_clusters_where_nobody_says_it(tmp_path: Path) -> None:
    rows = [{k: v for k, v in row.items() if k not in ("novel", "sole")} for row in planted()]
    as_csv(tmp_path / "l.csv", rows)
    found = lifting.lift(tmp_path, config.Config(), [tmp_path / "l.csv"])
    # On the first day nothing was met before it, on the second the old interest was, where it was watched.
    assert found["arms"]["byway"]["novel_impressions"]["mean"] == pytest.approx((4 + 3) / 8)
    assert "sole_impressions" not in found["arms"]["byway"]


def test_an_empty_cluster_is_unknown_and_no_new_interest(tmp_path: Path) -> None:
    rows = [{k: v for k, v in row.items() if k not in ("novel", "sole")} for row in planted()]
    empty = [row | {"cluster": row["cluster"] if row["cluster"].startswith("old") else ""} for row in rows]
    found = lifted(tmp_path, empty)
    # Only the old interest has a name: one of four in Byway's arm, new on its first day alone where it pleases.
    assert found["arms"]["byway"]["novel_impressions"]["mean"] == pytest.approx(1 / 8)
    as_parquet(tmp_path / "l.parquet", [row | {"cluster": row["cluster"] or None} for row in empty])
    assert lifting.lift(tmp_path, config.Config(), [tmp_path / "l.parquet"]) == found


def test_a_broken_dealer_is_caught(tmp_path: Path) -> None:
    rows = [row | {"user": f"{row['user']}-{u}"} for u in range(50) for row in planted()]
    kept = [row for row in rows if row["arm"] == "control" or int(row["user"].split("-")[1]) % 5]
    for some, alarm in ((rows, False), (kept, True)):
        as_parquet(tmp_path / "l.parquet", some)
        found = lifting.lift(tmp_path, config.Config(), [tmp_path / "l.parquet"])
        assert found["sample_ratio"]["alarm"] == alarm
        assert ("trust no figure" in lifting.as_text(found)) == alarm


def test_users_of_two_arms_are_left_out_and_counted(tmp_path: Path) -> None:
    rows = planted()
    rows[0]["arm"] = "byway"
    as_csv(tmp_path / "l.csv", rows)
    found = lifting.lift(tmp_path, config.Config(), [tmp_path / "l.csv"])
    assert (found["setting"]["users"], found["setting"]["moved"]) == (USERS - 1, 1)


def lifted(path: Path, rows: list[Row], **settings: Any) -> dict[str, Any]:
    as_csv(path / "l.csv", rows)
    return lifting.lift(path, config.Config(), [path / "l.csv"], **settings)


@pytest.mark.parametrize("words", [("False", "True"), ("no", "yes"), ("0", "1")])
def test_yes_and_no_in_words_are_read(tmp_path: Path, words: tuple[str, str]) -> None:
    rows = [row | {name: words[row[name]] for name in ("novel", "sole")} for row in planted()]
    found = lifted(tmp_path, rows)["arms"]["byway"]
    assert (found["novel_impressions"]["mean"], found["sole_impressions"]["mean"]) == (0.75, 0.25)


@pytest.mark.parametrize(
    ("column", "value"), [("share", "half"), ("watch_seconds", "5 min"), ("novel", "perhaps"), ("sole", "x")]
)
def test_a_column_of_no_numbers_is_one_sentence(tmp_path: Path, column: str, value: str) -> None:
    with pytest.raises(
        UserError, match=rf"320 of 320 values of '{column}'.* such as '{value}'; .* --column {column}="
    ):
        lifted(tmp_path, [row | {column: value} for row in planted()])
    # Left out, it says nothing.
    assert lifted(tmp_path, [row | {column: value} for row in planted()], columns={column: ""})["lift"]


def test_an_empty_cell_is_nothing_in_a_csv_as_in_parquet(tmp_path: Path) -> None:
    came = [row | {"item": "", "satisfaction": 0.0, "user": f"came-{row['user']}"} for row in planted()[:80]]
    rows = [*planted(), *came, planted()[0] | {"user": ""}, planted()[0] | {"user": "nobody", "arm": ""}]
    found = lifted(tmp_path, rows)
    assert (found["setting"]["users"], found["setting"]["rows"]) == (USERS + 10, len(planted()))
    assert found["setting"]["incomplete"] == 2
    assert "Left out: 2 rows without a user, a time or an arm." in lifting.as_text(found)
    as_parquet(tmp_path / "l.parquet", [{k: v if v != "" else None for k, v in row.items()} for row in rows])
    assert lifting.lift(tmp_path, config.Config(), [tmp_path / "l.parquet"]) == found


def test_tables_that_overlap_count_each_row_once(tmp_path: Path) -> None:
    rows = [planted()[0], *planted()]  # one row stands twice in one table: an item that was shown again
    once = lifted(tmp_path, rows)
    as_csv(tmp_path / "first.csv", rows[: 2 * len(rows) // 3])
    as_csv(tmp_path / "last.csv", rows[len(rows) // 3 :])
    twice = lifting.lift(tmp_path, config.Config(), [tmp_path / "first.csv", tmp_path / "last.csv"])
    assert twice["setting"].pop("repeated") > len(rows) // 4
    assert "rows that another table has too" in lifting.as_text(
        twice | {"setting": twice["setting"] | {"repeated": 9}}
    )
    assert once["setting"].pop("repeated") == 0
    assert (twice["arms"], twice["setting"]) == (once["arms"], once["setting"])


def test_users_who_moved_are_said(tmp_path: Path) -> None:
    rows = [*planted(), planted()[0] | {"arm": "byway"}]
    assert "Left out: 1 users who were seen in several arms." in lifting.as_text(lifted(tmp_path, rows))
    both = [row | {"arm": arm} for row in planted() for arm in ("byway", "control")]
    with pytest.raises(UserError, match=r"\(nobody; 40 users are in several arms and left out\)"):
        lifted(tmp_path, both)


def test_no_rows_and_options_of_lift_are_named(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text("user,item,time,arm\n", "utf-8")
    with pytest.raises(UserError, match=r"l\.csv has no rows; give a table"):
        lifting.lift(tmp_path, config.Config(), [tmp_path / "l.csv"])
    counts = [row | {"satisfaction": 1 + 997 * n % 5000} for n, row in enumerate(planted())]
    with pytest.raises(UserError, match=r"with --column satisfaction=.* with --scale"):
        lifted(tmp_path, counts)


def test_what_policies_need_is_said_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "byway.toml").touch()
    as_csv(tmp_path / "l.csv", planted())
    with pytest.raises(UserError, match="leave out the tables"):
        cli.lift(tmp_path, tmp_path / "l.csv", policy=["paper"])
    assert not (tmp_path / config.LIFTED).exists()


@pytest.mark.parametrize(
    ("without", "given", "said"),
    [
        ("time", {}, "no column is the time.* --column time=NAME"),
        ("arm", {}, "no column says the arm.* --column arm=NAME"),
        ("", {"columns": {"user": "who"}}, "no column 'who'"),
        ("", {"columns": {"usr": "user"}}, "--column knows no 'usr'"),
        ("", {"scale": [5, 1]}, r"--scale is \[5, 1\]; give the worst and the best"),
    ],
)
def test_what_cannot_be_read_is_said(tmp_path: Path, without: str, given: dict[str, Any], said: str) -> None:
    as_csv(tmp_path / "l.csv", [{k: v for k, v in row.items() if k != without} for row in planted()])
    with pytest.raises(UserError, match=said):
        lifting.lift(tmp_path, config.Config(), [tmp_path / "l.csv"], **given)


def test_a_control_of_another_name_is_named(tmp_path: Path) -> None:
    (tmp_path / "byway.toml").touch()
    as_csv(tmp_path / "l.csv", [row | {"arm": {"control": "old"}.get(row["arm"], row["arm"])} for row in planted()])
    with pytest.raises(UserError, match=r"no user of the arm 'control' \(byway, old\).*--control"):
        cli.lift(tmp_path, tmp_path / "l.csv")
    cli.lift(tmp_path, tmp_path / "l.csv", control="old")
    assert json.loads((tmp_path / config.LIFTED).read_text("utf-8"))["setting"]["control"] == "old"


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace whose service answered 60 people for two days; half of what it showed pleased."""
    folder = tmp_path_factory.mktemp("lived") / "w"
    house.published(folder)
    design = 'name = "spring"\nsalt = "s"\n[arms]\ncontrol = { share = 0.5 }\nbyway = { share = 0.5 }\n'
    (folder / arms.FILE).write_text(design, "utf-8")
    patch = pytest.MonkeyPatch()

    async def run() -> None:
        made = service.Service(folder, config.Serving())
        clock = [START]
        patch.setattr(service, "now", lambda: clock[0])
        await made.history.add(
            [Event(f"b{i}", f"u{u}", f"c{(u + i) % 12}-{i}", START - DAY + i) for u in range(60) for i in range(3)]
        )
        for day in range(2):
            events: list[Event] = []
            for u in range(60):
                clock[0] = START + day * DAY + u * 1_000_000
                shown: list[Answered] = []
                reply = await made.answer(RecommendRequest(user=f"u{u}", k=4), shown=shown)
                await made.history.expose(*shown)
                for i, item in enumerate(reply.items):
                    event = Event(f"{day}-{i}", f"u{u}", item.item, clock[0] + 1, i % 2, 100.0, "", reply.answer)
                    events.append(event)
                events.append(Event(f"{day}-own", f"u{u}", f"c{u % 12}-{9 + day}", clock[0] + 2, 1.0, 200.0))
            await made.history.add(events)
        await made.close()

    asyncio.run(run())
    patch.undo()
    return folder


def test_the_services_own_log(lived: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.app(["lift", str(lived), "--policy", "byway", "--policy", "paper", "--json"], result_action="return_value")
    found = json.loads(capsys.readouterr().out)
    assert found["setting"]["experiment"] == "spring"
    assert sum(found["sample_ratio"]["users"].values()) == 60
    byway = found["arms"]["byway"]
    assert byway["positive_rate"]["mean"] == 0.5
    assert byway["novel_impressions"]["mean"] == 1  # it shows nothing else
    assert found["arms"]["control"]["platform.positive_rate"]["mean"] == 1
    assert found["arms"]["control"]["watch_minutes"]["mean"] == pytest.approx(200 / 60, rel=1e-5)
    assert "positive_rate" not in found["arms"]["control"]
    own, paper = found["policies"]["byway"], found["policies"]["paper"]
    # What was served is worth what it earned, by every estimator, and all of it was covered.
    assert own["aside"] == 0
    assert own["ips"]["mean"] == pytest.approx(own["logged"]) == pytest.approx(0.5)
    assert own["covered"] == pytest.approx(1)
    assert paper["covered"] < 0.95
    assert "would have earned" in lifting.as_text(found)


def test_answers_that_cannot_be_worked_out_again_are_set_aside(lived: Path) -> None:
    known = lifting.people(lived, config.Config())
    for events, _ in known.values():
        events[:] = [e for e in events if not e.event.startswith("b")]
    found = replaying.earned(lived, config.Config(), known, "masked")
    assert found["aside"] > 0


def test_a_policy_that_there_is_not(lived: Path) -> None:
    with pytest.raises(UserError, match="--policy asks for 'control'; there are byway, paper, masked, and of"):
        cli.lift(lived, policy=["control"])


def test_the_log_that_the_service_exports_gives_the_same_figures(lived: Path, tmp_path: Path) -> None:
    from byway.serving.exports import COLUMNS
    from byway.serving.history import as_rows

    known = lifting.people(lived, config.Config())
    rows = [{c: row[c] for c in COLUMNS} for events, answers in known.values() for row in as_rows(events, answers)]
    rows = [row for row in rows if row["time"] >= START]
    as_csv(tmp_path / "log.csv", rows)
    whole = lifting.lift(lived, config.Config(), [])
    again = lifting.lift(lived, config.Config(), [tmp_path / "log.csv"])
    for name in ("positive_rate", "platform.positive_rate", "watch_minutes"):
        assert again["arms"]["byway"][name] == whole["arms"]["byway"][name]
    assert again["sample_ratio"] == whole["sample_ratio"]


def test_the_report_and_the_page_draw_what_was_found(lived: Path) -> None:
    from byway.evaluation import report

    found = lifting.lift(lived, config.Config(), [])
    page = report.page("t", None, {"lifted": found})
    assert "The live experiment" in page
    assert f"{found['lift']['byway']['watch_minutes']['mean']:+.2%}" in page
    assert page.count("<svg") >= 1
    with running.thread(lived) as client:
        text = client.get("/experiment").text
    assert "Lift over control" in text
    mean = found["lift"]["byway"]["watch_minutes"]["mean"]
    assert f"<td>watch minutes</td><td>{100 * mean:+.1f}</td>" in text
