"""Tables in whatever people keep them: folders of parts, packed files, JSON, any separator, and no tables."""

import bz2
import gzip
import io
import json
import lzma
import sqlite3
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.data.test_sources import NOW, build, failing, rows, write

from byway.base import config
from byway.base.artifact import Work
from byway.base.errors import UserError
from byway.data import catalog, containers, dialect, events, starting

ITEMS = "item,title\n1,One\n2,Zwei – é\n"
EVENTS = "user,item,time\nann,1,1600000000\nbo,2,1600000001\nann,2,1600000002\n"


def zstd(data: bytes, codec: str = "zstd") -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, codec) as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


def zipped(**files: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name.replace("__", "."), data)
    return out.getvalue()


PACKINGS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gzip": gzip.compress,
    "two gzips": lambda data: gzip.compress(data[:20]) + gzip.compress(data[20:]),
    "bzip2": bz2.compress,
    "two bzip2s": lambda data: bz2.compress(data[:20]) + bz2.compress(data[20:]),
    "xz": lzma.compress,
    "two xzs": lambda data: lzma.compress(data[:20]) + bytes(4) + lzma.compress(data[20:]),
    "zstd": zstd,
    "two zstds": lambda data: zstd(data[:20]) + zstd(data[20:]),
    "lz4": lambda data: zstd(data, "lz4"),
    "zip": lambda data: zipped(**{"x/events__csv": data, "__MACOSX/._events__csv": b"x"}),
    "utf-16": lambda data: data.decode().encode("utf-16"),
    "utf-16 without mark": lambda data: data.decode().encode("utf-16-be"),
    "gzip of utf-16": lambda data: gzip.compress(data.decode().encode("utf-16")),
    "utf-8 with mark": lambda data: b"\xef\xbb\xbf" + data,
}


def as_json(table: str, form: str) -> bytes:
    """A CSV as JSON."""
    names, *lines = (line.split(",") for line in table.splitlines())
    objects = [dict(zip(names, line, strict=True)) for line in lines]
    written = {
        "lines": "\n".join(json.dumps(each) for each in objects),
        "array": json.dumps(objects, indent=1),
        "python": "\n".join(str(each) for each in objects),
        "commas": ",\n".join(json.dumps(each) for each in objects) + "\n",
    }
    return written[form].encode()


FORMS: dict[str, Callable[[str], bytes]] = {
    "csv": str.encode,
    "tabs": lambda table: table.replace(",", "\t").encode(),
    "semicolons": lambda table: table.replace(",", ";").encode(),
    "bars": lambda table: table.replace(",", "|").encode(),
    "carriage returns": lambda table: table.replace("\n", "\r\n").encode(),
    **{form: lambda table, form=form: as_json(table, form) for form in ("lines", "array", "python", "commas")},
}


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(sorted(FORMS)),
    st.sampled_from(sorted(PACKINGS)),
    st.sampled_from(["csv", "json", "dat", "", "csv.gz"]),
)
def test_the_same_table_in_any_form_packing_and_name(form: str, packing: str, ending: str) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        data = PACKINGS[packing](FORMS[form](EVENTS))
        if ending == "json" and form not in ("lines", "array", "python", "commas"):
            ending = "txt"
        path = folder / f"events.{ending}".rstrip(".")
        path.write_bytes(data)
        (folder / "items.csv").write_text(ITEMS)
        work = Work(folder / "out", folder / "scratch", np.random.default_rng(0))
        for each in (work.out, work.scratch):
            each.mkdir()
        settings = config.Catalog(source="csv", items=str(folder / "items.csv"), events=str(path))
        outcome = catalog.build(work, settings, folder, now=NOW)
        assert outcome.metrics["catalog.quarantined"] == {}
        assert [(row["user"], row["item"], row["time"]) for row in rows(work, "events.parquet")] == [
            (0, 0, 1600000000_000_000), (0, 1, 1600000002_000_000), (1, 1, 1600000001_000_000),
        ]  # fmt: skip
        assert events.load_users(work.out) == ["ann", "bo"]


def test_a_folder_of_parts_as_spark_writes_it(work: Work, tmp_path: Path) -> None:
    folder = write(tmp_path / "events.parquet", _SUCCESS="", **{"__part-00000__crc": b"crc", "_metadata": b"x"})
    for n in range(3):
        table = pa.table({"user": [f"u{n}"], "item": pa.array([n % 2 + 1], pa.int64())})
        pq.write_table(table, folder / f"part-{n:05}-c000.snappy.parquet")
    (folder / "_temporary" / "0").mkdir(parents=True)
    (folder / "_temporary" / "0" / "part-0.parquet").write_bytes(b"half")
    write(tmp_path, items__csv=ITEMS)
    build(work, "parquet", tmp_path / "items.csv", events=str(folder))
    assert events.load_users(work.out) == ["u0", "u1", "u2"]


def test_folders_of_a_partition_are_columns(work: Work, tmp_path: Path) -> None:
    for day, country in (("2022-01-01", "de"), ("2022-01-02", "__HIVE_DEFAULT_PARTITION__")):
        folder = tmp_path / "events" / f"day={day}" / f"home%20page={country}"
        folder.mkdir(parents=True)
        pq.write_table(pa.table({"user": ["ann"], "item": [1]}), folder / "part-0.parquet")
    (tmp_path / "events" / "_SUCCESS").touch()
    write(tmp_path, items__csv=ITEMS)
    build(
        work,
        "parquet",
        tmp_path / "items.csv",
        events=str(tmp_path / "events"),
        event_columns={"time": "day", "source": "home page"},
    )
    found = rows(work, "events.parquet")
    assert [row["time"] for row in found] == [1640995200_000_000, 1641081600_000_000]
    assert [row["source"] for row in found] == ["de", None]


def test_a_folder_of_packed_csv_parts_with_empty_ones(work: Work, tmp_path: Path) -> None:
    folder = write(
        tmp_path / "events",
        **{
            "part-0__csv__gz": gzip.compress(b"user,item\nann,1\n"),
            "part-1__csv__gz": b"",
            "part-2__csv": "user,item\nbo,2\n",
        },
    )
    write(tmp_path, items__csv=ITEMS)
    build(work, "csv", tmp_path / "items.csv", events=str(folder))
    assert events.load_users(work.out) == ["ann", "bo"]


@pytest.mark.parametrize(("mark", "word"), [("_delta_log", "a Delta table"), (".hoodie", "a Hudi table")])
def test_a_table_of_another_system_is_one_sentence(work: Work, tmp_path: Path, mark: str, word: str) -> None:
    (tmp_path / "events" / mark).mkdir(parents=True)
    pq.write_table(pa.table({"user": ["ann"], "item": [1]}), tmp_path / "events" / "part-0.parquet")
    write(tmp_path, items__csv=ITEMS)
    assert word in failing(work, "csv", tmp_path / "items.csv", events=str(tmp_path / "events"))


def foreign() -> dict[str, tuple[bytes, str]]:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        info = tarfile.TarInfo("events.csv")
        info.size = 3
        archive.addfile(info, io.BytesIO(b"a,b"))
    database = sqlite3.connect(":memory:")
    database.execute("create table events (user, item)")
    return {
        "sqlite": (database.serialize(), "is an SQLite database"),
        "xlsx": (zipped(**{"[Content_Types].xml": b"x", "xl/workbook.xml": b"x"}), "is an Excel"),
        "xls": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "is an old Excel workbook"),
        "ods": (zipped(mimetype=b"x", content__xml=b"x"), "is an OpenDocument file"),
        "pickle": (b"\x80\x04\x95\x10\0\0", "is a pickle"),
        "html": (b"\n<!DOCTYPE html>\n<html><body>Sign in</body></html>", "is a web page"),
        "html without doctype": (b"\xef\xbb\xbf<html lang=en>", "is a web page"),
        "lfs": (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
            "git lfs pull",
        ),
        "zip of two": (zipped(a__csv=b"x", b__csv=b"y"), "is a zip archive of 2 files (a.csv, b.csv)"),
        "zip of none": (zipped() + b"", "is a zip archive of 0 files"),
        "tar": (out.getvalue(), "is a tar archive"),
        "twice": (gzip.compress(bz2.compress(b"user,item")), "packed twice, bzip2 in gzip"),
        "cut gzip": (gzip.compress(EVENTS.encode() * 99)[:-60], "is a gzip file that is damaged or was cut short"),
        "cut bzip2": (bz2.compress(EVENTS.encode())[:-9], "is a bzip2 file that is damaged or was cut short"),
        "cut xz": (lzma.compress(EVENTS.encode())[:-20], "is a xz file that is damaged or was cut short"),
        "cut zip": (zipped(a__csv=EVENTS.encode())[:-30], "is a zip file that is damaged or was cut short"),
        "bad gzip": (gzip.compress(EVENTS.encode())[:-8] + b"12345678", "is a gzip file that is damaged"),
        "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(99), "is an HDF5 file"),
        "npy": (b"\x93NUMPY\x01\0", "is a NumPy array"),
        "avro": (b"Obj\x01\x04", "is an Avro file"),
        "orc": (b"ORC\x0a", "is an ORC file"),
        "pdf": (b"%PDF-1.7", "is a PDF"),
        "xml": (b'<?xml version="1.0"?><a/>', "is XML"),
        "one object": (b'{"user": {"0": "a"}, "item": {"0": 1}}', "to_json(orient='records')"),
        "an object in a line": (b'{"user": {"id": 5}, "item": 1}', "jq -c '.user = .user.id'"),
        "an object in an array": (b'[{"user": {"my id": 5}, "item": 1}]', """-c '.[] | .user = .user."my id"'"""),
        "columns in an object": (b'{"who": {"user": "a"}, "item": 1}', "jq -c '. + .who'"),
        "array of numbers": (b"[1, 2, 3]", "no column"),
        "pretty json": (b'{\n "user": "a",\n "item": 1\n}\n', "give an object a line (for example with jq -c .)"),
        "json in json": (
            b'{"data": [{"user": "a", "item": 1}]}',
            "it has data (bring out what lies inside 'data' first, for example with jq -c '.data[]')",
        ),
        "cut json": (b'[{"user": "a", "item": 1}, {"user"', "is not JSON to its end"),
        "hint for excel": (b"sep=;\nuser;item\na;1\n", "a hint for Excel; take out that line"),
    }


@pytest.mark.parametrize("name", foreign())
def test_what_is_no_table_is_one_sentence_that_names_it(work: Work, tmp_path: Path, name: str) -> None:
    data, words = foreign()[name]
    write(tmp_path, items__csv=ITEMS, events__csv=data)
    sentence = failing(work, "csv", tmp_path / "items.csv", events=str(tmp_path / "events.csv"))
    assert "events.csv" in sentence
    assert words in sentence


def test_titles_inside_an_object_are_said_how_to_bring_out(work: Work, tmp_path: Path) -> None:
    write(tmp_path, items__json=b'\xef\xbb\xbf[{"item": 1, "meta": {"title": "a"}}]', events__csv=EVENTS)
    sentence = failing(work, "json", tmp_path / "items.json", events=str(tmp_path / "events.csv"))
    assert "no column 'title'" in sentence
    assert "jq -c '.[] | . + .meta'" in sentence


def test_a_bomb_is_stopped_and_leaves_nothing(work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers, "ROOM", 1 << 20)
    bomb = bz2.compress(b"user,item\n" + b"a" * (1 << 24))
    write(tmp_path, items__csv=ITEMS, events__csv=bomb)
    sentence = failing(work, "csv", tmp_path / "items.csv", events=str(tmp_path / "events.csv"))
    assert "events.csv becomes more than 1 MB when it is unpacked, over 250 times its size" in sentence
    assert not [file for file in work.scratch.rglob("*") if file.is_file()]


def test_init_finds_tables_in_any_container_and_leaves_no_copies(
    work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    folder = write(
        tmp_path / "own", items__jsonl__gz=gzip.compress(as_json(ITEMS.replace("item", "itemId"), "lines"))
    )
    pyarrow.feather.write_feather(
        pa.table({"userId": ["ann"], "itemId": pa.array([1.0])}), folder / "events.feather"
    )
    (tmp_path / "byway.toml").write_text(starting.start("csv", folder).text)
    assert list((tmp_path / "tmp").iterdir()) == []
    settings = config.load(tmp_path / "byway.toml").catalog
    assert settings.item_columns == {"item": "itemId"}
    assert catalog.build(work, settings, tmp_path, now=NOW).counts["events"] == 1


def test_usual_names_are_found_in_an_array_after_a_byte_order_mark(work: Work, tmp_path: Path) -> None:
    array = b"\xef\xbb\xbf" + as_json(ITEMS.replace("item", "itemId"), "array")
    folder = write(tmp_path / "own", items__json=array, events__csv=EVENTS)
    (tmp_path / "byway.toml").write_text(starting.start("csv", folder).text, "utf-8")
    settings = config.load(tmp_path / "byway.toml").catalog
    assert settings.item_columns == {"item": "itemId"}
    assert catalog.build(work, settings, tmp_path, now=NOW).counts["items"] == 2


def test_columns_of_json_that_come_late_and_lines_that_are_none(work: Work, tmp_path: Path) -> None:
    lines = [json.dumps({"item": n, "description": [f"word {n}", "b"], "tags": {"a": 1}}) for n in range(3000)]
    lines += [
        '{"item": 3000, "title": "late", "description": NaN, "hashtags": ["x", {"name": "y"}]}',
        "{half",
        "7",
        '{"item": "\\ud800", "title": "half a pair"}',
    ]
    data = "\n".join(lines).encode() + '\n{"item": "café"}'.encode("latin-1")
    write(tmp_path, items__json=data, events__csv="user,item\nann,3000\n")
    outcome = build(work, "csv", tmp_path / "items.json", events=str(tmp_path / "events.csv"))
    assert outcome.metrics["catalog.quarantined"] == {"wrong fields": 3}
    last = rows(work, "items.parquet")[-2]
    assert (last["title"], last["description"], last["hashtags"]) == ("late", None, ["x", "y"])
    assert rows(work, "items.parquet")[0]["description"] == "word 0 b"


@pytest.mark.parametrize(
    ("row", "title", "hashtags"),
    [
        ("{'item': 1, 'title': 't', 'hashtags': {'b', 'a'}}", "t", ["a", "b"]),
        ("{1: 'x', 'item': 1, 'title': b't', 'hashtags': {('x', 1): 3}}", "t", ["('x', 1)"]),
        ("{'item': 1, 'title': 't', 'hashtags': [1e999, 'a']}", "t", ["Infinity", "a"]),
        ('{"item": 1, "title": "t", "hashtags": ["a", 1e999]}', "t", ["a", "inf"]),
        (f'{{"item": 1, "title": "t", "hashtags": ["a", {"9" * 5000}]}}', "t", ["a"]),
        (f'{{"item": 1, "title": [{"9" * 5000}], "hashtags": "a"}}', "", ["a"]),
    ],
)
def test_what_python_or_large_numbers_put_in_place_of_json(
    work: Work, tmp_path: Path, row: str, title: str, hashtags: list[str]
) -> None:
    write(tmp_path, items__json=f"{row}\n", events__csv="user,item\nann,1\n")
    build(work, "csv", tmp_path / "items.json", events=str(tmp_path / "events.csv"))
    item = rows(work, "items.parquet")[0]
    assert (item["title"], item["hashtags"][: len(hashtags)]) == (title, hashtags)


def test_ids_and_times_as_mongo_exports_them(work: Work, tmp_path: Path) -> None:
    log = (
        '{"user": {"$oid": "5f1a"}, "item": {"$numberLong": "9007199254740993"}, '
        '"time": {"$date": "2020-01-01T00:00:00Z"}}'
    )
    write(tmp_path, items__csv="item,title\n9007199254740993,One\n", events__json=log + "\n")
    build(work, "csv", tmp_path / "items.csv", events=str(tmp_path / "events.json"))
    assert events.load_users(work.out) == ["5f1a"]
    assert events.load(work.out).time.tolist() == [1577836800_000_000]


def test_a_file_without_a_header_has_its_names_from_the_setting(work: Work, tmp_path: Path) -> None:
    write(tmp_path, items__csv="1\tOne\n2\tTwo\n", events__csv="ann::x\n")
    (tmp_path / "events.csv").write_text("ann|1|5\nbo|2|4\n")
    build(
        work,
        "csv",
        tmp_path / "items.csv",
        events=str(tmp_path / "events.csv"),
        item_columns=["item", "title"],
        event_columns=["user", "item", "n"],
    )
    assert catalog.load(work.out).titles() == ["One", "Two"]
    assert events.load_users(work.out) == ["ann", "bo"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("item,title\n1,a\n", (",", '"')),
        ("item\ttitle\n1\ta, b\n", ("\t", '"')), ("item;title\n1;a, b\n", (";", '"')),
        ('item,title\n1,"a;b;c"\n2,"d;e"\n', (",", '"')), ("item|title|genres, all\n1|a|x\n2|b|y\n", ("|", '"')),
        ("item,title|name\n1,a\n2,b\n", (",", '"')), ("item\n1\n", (",", '"')),
        ('item\ttitle\n1\t"Heroes" of old\n', ("\t", None)),
        ('item\ttitle\n1\t"two\nlines"\n2\t"a ""b"""\n', ("\t", '"')),
        ("a:token\tb:token_seq\n1\t\"x\n", ("\t", None)),
        ("item,genres\n1,a|b|c\n2,d\n", (",", '"')), ('"item";"title"\n1;"a;b"\n', (";", '"')),
    ],
)  # fmt: skip
def test_what_separates_the_fields(tmp_path: Path, text: str, expected: tuple[str, str | None]) -> None:
    (tmp_path / "x.csv").write_text(text)
    assert dialect.sniff(tmp_path / "x.csv") == expected


def test_copies_are_gone_with_the_artifact(work: Work, tmp_path: Path) -> None:
    write(tmp_path, items__csv=gzip.compress(ITEMS.encode()), events__csv=bz2.compress(EVENTS.encode()))
    build(work, "csv", tmp_path / "items.csv", events=str(tmp_path / "events.csv"))
    assert {file.parent.parent for file in work.scratch.rglob("*") if file.is_file()} == {work.scratch}


def test_a_sentence_of_a_copy_names_the_file(work: Work, tmp_path: Path) -> None:
    write(tmp_path, items__csv=gzip.compress(b"key,title\n1,x\n"), events__csv=EVENTS)
    sentence = failing(work, "csv", tmp_path / "items.csv", events=str(tmp_path / "events.csv"))
    assert f"{tmp_path / 'items.csv'} has no column 'item'; it has key, title" in sentence
    write(tmp_path, events__json="\n\n")
    with pytest.raises(UserError, match=r"events.json has no JSON object in any line"):
        build(work, "json", tmp_path / "events.json", events=str(tmp_path / "events.json"))
