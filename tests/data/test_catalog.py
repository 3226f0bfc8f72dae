"""Items: what is kept, what is mended, what is quarantined and why; the same bytes every time."""

import hashlib
import resource
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from byway.base import config
from byway.base.artifact import Outcome, Work
from byway.base.errors import UserError
from byway.data import catalog, events, text

NOW = 1_700_000_000_000_000


def build(
    work: Work, folder: Path, items: bytes | pa.Table, log: str = "user,item\nu,1\n", **settings: int
) -> Outcome:
    """The catalog of a CSV (bytes) or parquet (table) of items, with a log beside it."""
    folder.mkdir(exist_ok=True)
    kind = "csv" if isinstance(items, bytes) else "parquet"
    if isinstance(items, bytes):
        (folder / "items.csv").write_bytes(items)
        (folder / "events.csv").write_text(log)
    else:
        pq.write_table(items, folder / "items.parquet")
        columns = [line.split(",") for line in log.strip().split("\n")]
        pq.write_table(
            pa.table(dict(zip(columns[0], zip(*columns[1:], strict=True), strict=True))), folder / "events.parquet"
        )
    given = config.Catalog(source=kind, items=f"items.{kind}", events=f"events.{kind}", **settings)
    return catalog.build(work, given, folder, now=NOW)


def kept(work: Work) -> dict[str, str]:
    """Id to title."""
    items = catalog.load(work.out).items
    return dict(zip(items["item"].to_pylist(), items["title"].to_pylist(), strict=True))


def quarantined(work: Work) -> list[tuple[str, int, str, str]]:
    table = pq.read_table(work.out / "quarantine.parquet")
    return [(row["table"], row["row"], row["id"], row["reason"]) for row in table.to_pylist()]


def test_every_bad_item_is_quarantined_with_its_reason_and_the_rest_is_kept(work: Work, tmp_path: Path) -> None:
    rows = [
        b"item,title,hashtags,description",
        b"1,one,,",
        b"1,again,,",
        b",nobody,,",
        b"   ,blank,,",
        b"2,two\xff\xfe,,",
        b"\xff3,three,,",
        b"4,,,",
        b"5, \t,#,",
        b"6,,a|b,",
        b"7,,,words",
        b"8,!?,,...",
        b"9,short",
        b"10,long,,,,",
        b'11,"con\x07trol\x00\nchar",,',
        b"12," + b"x" * 1_000_000 + b",,",
        b"13," + b"y" * 600 + b",,",
        b"a\x01b,control in the id,,",
        b"z" * 300 + b",endless,,",
        " 14 ,  Ünïcode  🎬  ,,".encode(),
    ]
    outcome = build(work, tmp_path / "in", b"\n".join(rows) + b"\n", log="user,item\nu,1\nu,14\nu,4\n")
    assert kept(work) == {
        "1": "one",
        "6": "",
        "7": "",
        "11": "con trol char",
        "13": "y" * 512,
        "14": "Ünïcode 🎬",
    }
    assert sorted(quarantined(work)) == sorted(
        [
            ("items", 1, "1", "duplicate id"),
            ("items", 2, "", "empty id"),
            ("items", 3, "", "empty id"),
            ("items", 4, "2", "invalid utf-8"),
            ("items", 5, "�3", "invalid utf-8"),
            ("items", 6, "4", "no text"),
            ("items", 7, "5", "no text"),
            ("items", 10, "8", "no text"),
            ("items", 11, "9", "wrong fields"),
            ("items", 12, "10", "wrong fields"),
            ("items", 14, "12", "long text"),
            ("items", 16, "a\x01b", "bad id"),
            ("items", 17, "z" * 200, "bad id"),
            ("events", 2, "u", "unknown item"),
        ]
    )
    assert outcome.counts["items"] == 6
    assert outcome.counts["cleaned"] == 1
    assert outcome.counts["shortened"] == 1
    assert outcome.counts["quarantined.no text"] == 3
    assert outcome.metrics["catalog.items"] == 6
    assert outcome.metrics["catalog.events"] == 2
    assert outcome.metrics["catalog.users"] == 1
    assert sum(outcome.metrics["catalog.quarantined"].values()) == 14
    details = pq.read_table(work.out / "quarantine.parquet")["detail"].to_pylist()
    assert max(len(detail or "") for detail in details) <= 200
    assert any((detail or "").startswith("1000000 characters") for detail in details)


def test_a_title_of_a_megabyte_costs_little_memory(work: Work, tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcome = build(work, tmp_path / "in", b"item,title\n1,one\n2," + b"x" * 1_500_000 + b"\n")
    assert outcome.metrics["catalog.quarantined"] == {"long text": 1}
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1_000_000


def test_the_first_of_a_duplicate_is_the_first_that_is_good(work: Work, tmp_path: Path) -> None:
    build(work, tmp_path / "in", b"item,title\n1,\n1,good\n1,late\n2,two\n")
    assert kept(work) == {"1": "good", "2": "two"}
    assert [row[1:] for row in quarantined(work)] == [(0, "1", "no text"), (2, "1", "duplicate id")]


@pytest.mark.parametrize("written", ["a|b|A", "#a #b", "['a', 'b']", '[\\"a\\", \\"b\\"]', "a, b;a", "# a # b"])
def test_hashtags_in_one_text(work: Work, tmp_path: Path, written: str) -> None:
    table = pa.table({"item": ["1"], "title": ["t"], "hashtags": [written.replace("\\", "")]})
    build(work, tmp_path / "in", table)
    assert catalog.load(work.out).items["hashtags"].to_pylist() == [["a", "b"]]


def test_names_and_texts_fall_back_to_what_there_is(work: Work, tmp_path: Path) -> None:
    table = pa.table(
        {
            "item": [1, 2, 3],
            "title": ["A film...", None, ""],
            "hashtags": [["x", "y z"], ["only"], None],
            "description": [None, "and this", "this"],
        }
    )
    build(work, tmp_path / "in", table)
    found = catalog.load(work.out)
    assert len(found) == 3
    assert found.ids() == ["1", "2", "3"]
    assert found.titles() == ["A film...", "#only", "this"]
    assert found.texts() == ["A film. x, y z", "only. and this", "this"]
    assert found.items.schema == catalog.SCHEMA


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (pa.array([3, 1], pa.int64()), ["3", "1"]),
        (pa.array([3.0, 1.0], pa.float64()), ["3", "1"]),
        (pa.array(["3", " 1 "]), ["3", "1"]),
        (pa.array([b"3", b"1"], pa.binary()), ["3", "1"]),
        (pa.array(["1.5", "1"]), ["1.5", "1"]),
    ],
)
def test_ids_of_any_type_become_strings(work: Work, tmp_path: Path, ids: pa.Array, expected: list[str]) -> None:
    build(work, tmp_path / "in", pa.table({"item": ids, "title": ["a", "b"]}))
    assert catalog.load(work.out).ids() == expected


def test_batches_do_not_show(work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut into batches of 7, hashtags stay with their items and duplicates are found across batches."""
    size = 50
    table = pa.table(
        {
            "item": [str(n % 45) for n in range(size)],
            "title": [f"title {n}" for n in range(size)],
            "hashtags": [[f"tag{k}" for k in range(n % 4)] for n in range(size)],
        }
    )
    monkeypatch.setattr(catalog, "BATCH_ROWS", 7)
    build(work, tmp_path / "in", table)
    found = catalog.load(work.out).items
    assert found["item"].to_pylist() == [str(n) for n in range(45)]
    assert found["hashtags"].to_pylist() == [[f"tag{k}" for k in range(n % 4)] for n in range(45)]
    assert [row[1] for row in quarantined(work)] == list(range(45, 50))


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    items = b"item,title\n" + b"".join(b"%d,title %d\n" % (n % 900, n) for n in range(1000))
    log = "user,item,time\n" + "".join(
        f"u{user},{item},{1_600_000_000 + time}\n" for user, item, time in rng.integers(0, 1000, (20_000, 3))
    )
    digests: list[dict[str, str]] = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        work = Work(tmp_path / name, tmp_path / name, np.random.default_rng(0))
        build(work, tmp_path / "in", items, log)
        digests.append({file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in work.out.iterdir()})
    assert digests[0] == digests[1]
    assert sorted(digests[0]) == ["events.parquet", "items.parquet", "quarantine.parquet", "users.parquet"]


@given(
    cells=st.lists(
        st.one_of(
            st.text(max_size=12).map(lambda t: t.encode("utf-8", "surrogatepass")),
            st.binary(max_size=12),
            st.none(),
        ),
        max_size=30,
    )
)
@settings(max_examples=100, deadline=None)
def test_decoding_is_pythons_own(cells: list[bytes | None]) -> None:
    """Reference: bytes.decode, cell by cell."""
    column, invalid = text.decoded(pa.array(cells, pa.large_binary()))
    for cell, found, bad in zip(cells, column.to_pylist(), invalid, strict=True):
        if cell is None:
            assert (found, bad) == (None, False)
            continue
        assert found == cell.decode("utf-8", "replace")
        try:
            cell.decode("utf-8")
            assert not bad
        except UnicodeDecodeError:
            assert bad


@given(
    words=st.lists(
        st.tuples(
            st.text("abc#|,;\"' \t\n\x07é漢🎬", max_size=12), st.text("ab \x00\x85\u2028\u202e", max_size=12)
        ),
        min_size=1,
        max_size=20,
    )
)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_row_is_kept_or_quarantined_once(
    tmp_path_factory: pytest.TempPathFactory, words: list[tuple[str, str]]
) -> None:
    out = tmp_path_factory.mktemp("property")
    work = Work(out, out, np.random.default_rng(0))
    table = pa.table(
        {
            "item": ["good", *(ident for ident, _ in words)],
            "title": ["a title", *(title for _, title in words)],
            "hashtags": [ident for ident, _ in [*words, ("x", "")]],
        }
    )
    outcome = build(work, out, table, log="user,item\nu,good\n")
    assert outcome.counts["items"] + sum(outcome.metrics["catalog.quarantined"].values()) == table.num_rows
    rows = [row[1] for row in quarantined(work)]
    assert len(rows) == len(set(rows))
    for title in kept(work).values():
        assert title == " ".join(title.split())
        assert title.isprintable() or title == ""


# --- Real logs --------------------------------------------------------------------------------------------


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "source", "items", "log", "users", "clock"),
    [
        ("microlens-50k", "microlens", 19_220, 359_708, 50_000, False),
        ("movielens-latest-small", "movielens", 9_742, 100_836, 610, True),
        ("kuairec", "kuairec", 10_719, 132_412, 7_176, False),
    ],
)
def test_real_logs_are_read_whole(
    work: Work,
    realdata: Callable[[str], Path],
    name: str,
    source: config.Source,
    items: int,
    log: int,
    users: int,
    clock: bool,
) -> None:
    """KuaiRec: 5 of 10,724 videos have neither caption, tag nor category; 107 of 132,519 events are theirs."""
    outcome = catalog.build(work, config.Catalog(source=source, items=str(realdata(name))), Path("/"), now=NOW)
    assert (outcome.counts["items"], outcome.counts["events"], outcome.counts["users"]) == (items, log, users)
    found, seen = catalog.load(work.out), events.load(work.out)
    assert (len(found), len(seen), seen.n_users, seen.clock) == (items, log, users, clock)
    assert all(found.texts())
    assert all(found.titles())
    assert np.all(np.diff(seen.user) >= 0)
    assert seen.user.max() == users - 1
    same = np.diff(seen.user) == 0
    assert np.all(np.diff(seen.time)[same] >= 0)


@pytest.mark.realdata
def test_microlens_hashtags_and_order_are_those_of_the_file(work: Work, realdata: Callable[[str], Path]) -> None:
    folder = realdata("microlens-50k")
    catalog.build(work, config.Catalog(source="microlens", items=str(folder)), Path("/"), now=NOW)
    found, seen, users = catalog.load(work.out), events.load(work.out), events.load_users(work.out)
    assert found.items["hashtags"][0].as_py() == ["comic", "Two Yuan", "My destiny villain"]
    lines = (folder / "MicroLens-50k_pairs.tsv").read_text().splitlines()
    starts = np.searchsorted(seen.user, np.arange(seen.n_users + 1))
    ids = found.ids()
    for n in (0, 1, 777, 49_999):
        user, sequence = lines[n].split("\t")
        assert users[n] == user
        assert [ids[item] for item in seen.item[starts[n] : starts[n + 1]]] == sequence.split(" ")


def test_nothing_usable_is_an_error_that_says_why(work: Work, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"items\.csv has no usable items \(no text: 2\)"):
        build(work, tmp_path / "in", b"item,title\n1,\n2,?\n")
