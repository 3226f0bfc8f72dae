"""Every type of Arrow in every place, and one id whatever the type of its column and the mix of files."""

import datetime
import uuid
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.data.test_sources import NOW, build, failing, rows, write

from byway.base import config
from byway.base.artifact import Work
from byway.base.errors import UserError
from byway.data import catalog, columns, events

SIZE = 4
NUMBERS = list(range(1, SIZE + 1))
WORDS = [str(n) for n in NUMBERS]
RAW = [uuid.UUID(int=n << 100 | n).bytes for n in NUMBERS]
LISTS = [[f"tag {n}", "other"] for n in NUMBERS]


def _every_type() -> dict[str, pa.Array]:
    found: dict[str, pa.Array] = {}
    for kind in (
        pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64(),
        pa.float16(), pa.float32(), pa.float64(),
    ):  # fmt: skip
        found[str(kind)] = pa.array(np.array(NUMBERS), kind)
    for kind in (
        pa.decimal32(7, 2), pa.decimal64(15, 2), pa.decimal128(20, 0), pa.decimal128(20, 2), pa.decimal256(50, 2),
        pa.decimal256(60, 0),
    ):  # fmt: skip
        found[str(kind)] = pa.array([Decimal(n) for n in NUMBERS], kind)
    for unit in ("s", "ms", "us", "ns"):
        found[f"timestamp {unit}"] = pa.array(NUMBERS, pa.timestamp(unit))
        found[f"timestamp {unit} UTC"] = pa.array(NUMBERS, pa.timestamp(unit, "UTC"))
        found[f"timestamp {unit} Paris"] = pa.array(NUMBERS, pa.timestamp(unit, "Europe/Paris"))
        found[f"duration {unit}"] = pa.array(NUMBERS, pa.duration(unit))
    found["date32"] = pa.array(NUMBERS, pa.date32())
    found["date64"] = pa.array([n * 86_400_000 for n in NUMBERS], pa.date64())
    found["time32 s"], found["time32 ms"] = pa.array(NUMBERS, pa.time32("s")), pa.array(NUMBERS, pa.time32("ms"))
    found["time64 us"], found["time64 ns"] = pa.array(NUMBERS, pa.time64("us")), pa.array(NUMBERS, pa.time64("ns"))
    for kind in (pa.string(), pa.large_string(), pa.string_view()):
        found[str(kind)] = pa.array(WORDS, kind)
    for kind in (pa.binary(), pa.large_binary(), pa.binary_view(), pa.binary(1)):
        found[f"{kind} of text"] = pa.array([word.encode() for word in WORDS], kind)
    for kind in (pa.binary(), pa.large_binary(), pa.binary_view(), pa.binary(16)):
        found[f"{kind} of bytes"] = pa.array(RAW, kind)
    for kind in (
        pa.list_(pa.string()), pa.large_list(pa.string()), pa.list_(pa.string(), 2), pa.list_view(pa.string()),
        pa.large_list_view(pa.string()), pa.list_(pa.large_string()), pa.list_(pa.string_view()),
    ):  # fmt: skip
        found[str(kind)] = pa.array(LISTS, kind)
    found["list of binaries"] = pa.array([[w.encode() for w in each] for each in LISTS], pa.list_(pa.binary()))
    found["list of numbers"] = pa.array([[n, 99] for n in NUMBERS])
    found["list of lists"] = pa.array([[[f"tag {n}"], ["other"]] for n in NUMBERS])
    found["list of objects"] = pa.array(
        [[{"id": 1, "name": f"tag {n}"}, {"id": 2, "name": "other"}] for n in NUMBERS]
    )
    offsets = pa.array(range(0, 2 * SIZE + 1, 2), pa.int32())
    flat = pa.array([word for each in LISTS for word in each])
    found["list of a dictionary"] = pa.ListArray.from_arrays(offsets, flat.dictionary_encode())
    found["struct"] = pa.array([{"name": f"tag {n}"} for n in NUMBERS])
    found["map"] = pa.array([[(f"tag {n}", 1), ("other", 2)] for n in NUMBERS], pa.map_(pa.string(), pa.int64()))
    for key in (pa.int8(), pa.uint8(), pa.int16(), pa.int32(), pa.uint32(), pa.int64()):
        indices = pa.array(range(SIZE), key)
        found[f"dictionary {key}"] = pa.DictionaryArray.from_arrays(indices, pa.array(WORDS))
    for name in ("int64", "double", "large_string", "binary of bytes", "decimal128(20, 2)", "timestamp s"):
        found[f"dictionary of {name}"] = found[name].dictionary_encode()
    found["bool"] = pa.array([True, False, True, True])
    found["null"] = pa.nulls(SIZE)
    storage = pa.array(RAW, pa.binary(16))
    found["uuid"] = pa.ExtensionArray.from_storage(pa.uuid(), storage)
    found["json"] = pa.ExtensionArray.from_storage(pa.json_(), pa.array(['{"a": 1}'] * SIZE))
    found["bool8"] = pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1] * SIZE, pa.int8()))
    return found


EVERY = _every_type()
HEX = [raw.hex() for raw in RAW]
NUMBERED = ("int", "uint", "halffloat", "float", "double", "decimal")
AS_ID = {name: WORDS for name in EVERY if name.startswith(NUMBERED)}
AS_ID |= {name: WORDS for name in EVERY if "string" in name and "list" not in name}
AS_ID |= {name: WORDS for name in EVERY if name.startswith("dictionary") and "timestamp" not in name}
AS_ID |= {name: WORDS for name in EVERY if name.endswith("of text")}
AS_TEXT = {name: WORDS for name in AS_ID if "of bytes" not in name}
AS_ID |= {name: HEX for name in EVERY if name.endswith("of bytes")} | {"uuid": HEX}
# A title of 1.00 stays what it is.
AS_WRITTEN = AS_TEXT | {name: [f"{n}.00" for n in NUMBERS] for name in AS_TEXT if ", 2)" in name}
LISTED = [name for name in EVERY if "list" in name and name not in ("list of objects", "list of lists")]


def write_table(path: Path, **named: pa.Array) -> None:
    pq.write_table(pa.table(named), path)


def result(work: Work, folder: Path) -> UserError | None:
    """Build the catalog; the UserError where it is refused. Any other exception is a failure."""
    try:
        build(work, "parquet", folder / "items.parquet", events=str(folder / "events.parquet"))
    except UserError as error:
        return error
    return None


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("place", ["item", "title", "hashtags", "creator", "duration", "created_at"])
def test_every_type_in_every_place_of_items(work: Work, tmp_path: Path, place: str, name: str) -> None:
    own = {"item": pa.array(WORDS), "title": pa.array([f"title {n}" for n in NUMBERS])}
    write_table(tmp_path / "items.parquet", **(own | {place: EVERY[name]}))
    item = EVERY[name] if place == "item" else pa.array(WORDS)
    write_table(tmp_path / "events.parquet", user=pa.array(["u"] * SIZE), item=item)
    error = result(work, tmp_path)
    wanted = {
        "item": AS_ID, "hashtags": {n: LISTS for n in LISTED if "numbers" not in n},
        "title": AS_WRITTEN, "creator": AS_WRITTEN,
        "duration": {n: NUMBERS for n in AS_TEXT},
    }.get(place, {})  # fmt: skip
    if name in wanted:
        assert error is None
        assert [row[place] for row in rows(work, "items.parquet")] == wanted[name]
    elif error is not None:
        assert "items.parquet" in str(error)
        assert name != "null" or place in ("item", "title")


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("place", ["user", "time", "order", "watch_seconds", "source"])
def test_every_type_in_every_place_of_events(work: Work, tmp_path: Path, place: str, name: str) -> None:
    write_table(tmp_path / "items.parquet", item=pa.array(["1"]), title=pa.array(["one"]))
    own = {"user": pa.array(WORDS), "item": pa.array(["1"] * SIZE)}
    write_table(tmp_path / "events.parquet", **(own | {place: EVERY[name]}))
    error = result(work, tmp_path)
    if place == "user" and name in AS_ID:
        assert events.load_users(work.out) == AS_ID[name]
    elif place in ("source", "watch_seconds") and name in AS_TEXT:
        found = [row[place] for row in rows(work, "events.parquet")]
        assert found == (AS_WRITTEN[name] if place == "source" else NUMBERS)
    elif place == "time" and name.startswith("timestamp"):
        scale = {"s": 10**6, "ms": 10**3, "us": 1}.get(name.split()[1])
        times = [row["time"] for row in rows(work, "events.parquet")]
        assert times == ([n * scale for n in NUMBERS] if scale else [0] * SIZE)
    elif error is not None:
        assert "events.parquet" in str(error)


@pytest.mark.parametrize("name", ["bool", "date32", "timestamp us", "list<item: string>", "struct", "map", "bool8"])
@pytest.mark.parametrize("place", ["user", "item"])
def test_what_is_no_id_is_one_sentence(work: Work, tmp_path: Path, place: str, name: str) -> None:
    write_table(tmp_path / "items.parquet", item=pa.array(["1"]), title=pa.array(["one"]))
    own = {"user": pa.array(WORDS), "item": pa.array(["1"] * SIZE)}
    write_table(tmp_path / "events.parquet", **(own | {place: EVERY[name]}))
    assert "an id is text, a whole number or a UUID" in str(result(work, tmp_path))


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (pa.float64(), 1.5), (pa.float64(), 2.0**53), (pa.float64(), np.inf), (pa.float32(), 2.0**24),
        (pa.float16(), 2048.0), (pa.float16(), 0.5), (pa.decimal128(10, 2), Decimal("1.25")),
    ],
)  # fmt: skip
@pytest.mark.parametrize("place", ["user", "item"])
def test_a_number_whose_digits_may_be_lost_is_no_id(
    work: Work, tmp_path: Path, place: str, kind: pa.DataType, wrong: float | Decimal
) -> None:
    write_table(tmp_path / "items.parquet", item=pa.array(["1"]), title=pa.array(["one"]))
    values = [wrong, wrong] if isinstance(wrong, Decimal) else np.array([1, wrong])
    own = {"user": pa.array(["1", "2"]), "item": pa.array(["1", "1"])}
    write_table(tmp_path / "events.parquet", **(own | {place: pa.array(values, kind)}))
    assert f"{place} is read from '{place}'" in str(result(work, tmp_path))


def test_nan_and_null_are_missing_ids(work: Work, tmp_path: Path) -> None:
    write_table(tmp_path / "items.parquet", item=pa.array([1.0, np.nan, None]), title=pa.array(["a", "b", "c"]))
    user = pa.array([7.0, np.nan, None, 7.0, np.nan])
    write_table(tmp_path / "events.parquet", user=user, item=pa.array([1.0] * 5))
    assert result(work, tmp_path) is None
    assert events.load_users(work.out) == ["7"]
    reasons = [(row["table"], row["reason"]) for row in rows(work, "quarantine.parquet")]
    assert sorted(reasons) == [("events", "empty id")] * 3 + [("items", "empty id")] * 2


@pytest.mark.parametrize("written", ["nan", "NaN", "None", "null", "NULL", "<NA>", "\\N", " ", ""])
def test_what_others_write_for_nothing_is_nobody(work: Work, tmp_path: Path, written: str) -> None:
    write(tmp_path, items__csv="item,title\n1,one\n", events__csv=f"user,item\nann,1\n{written},1\nann,{written}\n")
    outcome = build(work, "csv", tmp_path / "items.csv", events=str(tmp_path / "events.csv"))
    assert outcome.metrics["catalog.quarantined"] == {"empty id": 2}
    assert events.load_users(work.out) == ["ann"]


# --- One id, however it is written ------------------------------------------------------------------------

MAKERS = {
    "int64": lambda ids: pa.array(ids, pa.int64()),
    "uint32": lambda ids: pa.array(ids, pa.uint32()),
    "double": lambda ids: pa.array(ids, pa.float64()),
    "float": lambda ids: pa.array(np.array(ids, float), pa.float32()),
    "halffloat": lambda ids: pa.array(np.array(ids, np.float16)),
    "decimal": lambda ids: pa.array([Decimal(n) for n in ids], pa.decimal128(30, 3)),
    "decimal256": lambda ids: pa.array([Decimal(n) for n in ids], pa.decimal256(50, 0)),
    "string": lambda ids: pa.array([str(n) for n in ids]),
    "string_view": lambda ids: pa.array([str(n) for n in ids], pa.string_view()),
    "large_string": lambda ids: pa.array([f" {n} " for n in ids], pa.large_string()),
    "dotted": lambda ids: pa.array([f"{n}.0" for n in ids]),
    "binary": lambda ids: pa.array([str(n).encode() for n in ids], pa.binary()),
    "dictionary": lambda ids: pa.array([str(n) for n in ids]).dictionary_encode(),
    "dictionary of doubles": lambda ids: pa.array(ids, pa.float64()).dictionary_encode(),
    "csv": None,
    "csv dotted": None,
    "csv powers": None,
    "json": None,
    "json dotted": None,
}


def write_ids(folder: Path, name: str, form: str, table: dict[str, list[int]], words: dict[str, list[str]]) -> None:
    """One file with the ids of `table` in one form."""
    if (maker := MAKERS[form]) is not None:
        arrays = {column: maker(ids) for column, ids in table.items()}
        pq.write_table(pa.table(arrays | {k: pa.array(v) for k, v in words.items()}), folder / f"{name}.parquet")
        return
    spell = {"csv powers": lambda n: f"{n:.17e}"}.get(form, lambda n: f"{n}.0" if "dotted" in form else str(n))
    columns_ = {column: [spell(n) for n in ids] for column, ids in table.items()} | words
    lines = list(zip(*columns_.values(), strict=True))
    if form.startswith("csv"):
        text = "\n".join(",".join(line) for line in [tuple(columns_), *lines])
        (folder / f"{name}.csv").write_text(text + "\n")
        return
    quoted = {column: column not in table for column in columns_}
    rows_ = (
        "{"
        + ", ".join(f'"{c}": ' + (f'"{v}"' if quoted[c] else v) for c, v in zip(columns_, line, strict=True))
        + "}"
        for line in lines
    )
    (folder / f"{name}.jsonl").write_text("\n".join(rows_) + "\n")


@settings(max_examples=40, deadline=None)
@given(
    items_form=st.sampled_from(sorted(MAKERS)),
    forms=st.lists(st.sampled_from(sorted(MAKERS)), min_size=1, max_size=4),
    ids=st.lists(st.integers(0, 2047), min_size=1, max_size=6, unique=True),
    data=st.data(),
)
def test_the_same_ids_make_the_same_catalog_whatever_their_types(
    items_form: str, forms: list[str], ids: list[int], data: st.DataObject
) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        write_ids(folder, "items", items_form, {"item": ids}, {"title": [f"title {n}" for n in ids]})
        expected: list[tuple[str, str]] = []
        for n, form in enumerate(forms):
            size = data.draw(st.integers(1, 5))
            user = data.draw(st.lists(st.integers(0, 9), min_size=size, max_size=size))
            item = data.draw(st.lists(st.sampled_from(ids), min_size=size, max_size=size))
            write_ids(folder, f"events-{n}", form, {"user": user, "item": item}, {})
            expected += [(str(u), str(i)) for u, i in zip(user, item, strict=True)]
        for part in ("out", "scratch"):
            (folder / part).mkdir()
        work = Work(folder / "out", folder / "scratch", np.random.default_rng(0))
        items = next(file for file in folder.glob("items.*"))
        settings = config.Catalog(source="parquet", items=str(items), events=str(folder / "events-*"))
        outcome = catalog.build(work, settings, folder, now=NOW)
        assert outcome.metrics["catalog.quarantined"] == {}
        assert catalog.load(work.out).ids() == [str(n) for n in ids]
        users, log = events.load_users(work.out), events.load(work.out)
        found = [(users[u], str(ids[i])) for u, i in zip(log.user, log.item, strict=True)]
        assert sorted(found) == sorted(expected)
        assert len(users) == len({u for u, _ in expected})


@settings(max_examples=20, deadline=None)
@given(
    forms=st.lists(
        st.sampled_from(["fixed", "uuid", "bytes", "hex", "hyphens", "capitals"]), min_size=2, max_size=3
    ),
    ids=st.lists(st.uuids(), min_size=2, max_size=4, unique=True),
)
def test_a_uuid_is_one_id_as_bytes_and_as_text(forms: list[str], ids: list[uuid.UUID]) -> None:
    makers = {
        "fixed": lambda: pa.array([i.bytes for i in ids], pa.binary(16)),
        "uuid": lambda: pa.ExtensionArray.from_storage(pa.uuid(), pa.array([i.bytes for i in ids], pa.binary(16))),
        # Bytes of free width are taken for UUIDs where one of them is no text.
        "bytes": lambda: pa.array([i.bytes for i in ids], pa.binary()),
        "hex": lambda: pa.array([i.hex for i in ids]),
        "hyphens": lambda: pa.array([str(i) for i in ids]),
        "capitals": lambda: pa.array([str(i).upper() for i in ids]),
    }
    if all(i.bytes.isascii() for i in ids):
        return
    with TemporaryDirectory() as name:
        folder = Path(name)
        write_table(folder / "items.parquet", item=makers[forms[0]](), title=pa.array([f"t {i}" for i in ids]))
        for n, form in enumerate(forms[1:]):
            write_table(folder / f"events-{n}.parquet", user=makers[form](), item=makers[form]())
        for part in ("out", "scratch"):
            (folder / part).mkdir()
        work = Work(folder / "out", folder / "scratch", np.random.default_rng(0))
        settings = config.Catalog(items=str(folder / "items.parquet"), events=str(folder / "events-*"))
        outcome = catalog.build(work, settings, folder, now=NOW)
        assert outcome.metrics["catalog.quarantined"] == {}
        assert outcome.counts["users"] == len(ids)
        assert outcome.counts["events"] == len(ids) * len(forms[1:])


def test_text_ids_that_only_look_like_numbers_are_not_touched(work: Work, tmp_path: Path) -> None:
    write(
        tmp_path,
        items__csv="item,title\n1,one\n1.0,one dot\nv2,two\n007,bond\n",
        events__csv="user,item\n1,1\n1.0,1.0\nann,v2\n007,007\n7,2\n",
    )
    outcome = build(work, "csv", tmp_path / "items.csv", events=str(tmp_path / "events.csv"))
    assert catalog.load(work.out).ids() == ["1", "1.0", "v2", "007"]
    assert events.load_users(work.out) == ["1", "1.0", "ann", "007"]
    assert events.load(work.out).item.tolist() == [0, 1, 2, 3]
    assert outcome.metrics["catalog.quarantined"] == {"unknown item": 1}


def test_numbers_in_two_ways_beside_a_word_are_one_sentence(work: Work, tmp_path: Path) -> None:
    log = "".join(f"{n},1\n{n}.0,1\n" for n in range(20)) + "guest,1\n"
    write(tmp_path, items__csv="item,title\n1,one\n", events__csv="user,item\n" + log)
    with pytest.raises(
        UserError, match=r"events.csv: 20 ids of user are written in two ways \(0 and 0.0\).*'guest'"
    ):
        build(work, "csv", tmp_path / "items.csv", events=str(tmp_path / "events.csv"))


@pytest.mark.parametrize(("kept", "written"), [("{}.0", "{}"), ("{}", "{}.0")])
def test_items_missed_by_a_dot_beside_a_word_are_one_sentence(
    work: Work, tmp_path: Path, kept: str, written: str
) -> None:
    items = "".join(f"{kept.format(n)},title {n}\n" for n in range(9)) + "total,nine\n"
    log = "".join(f"ann,{written.format(n % 9)}\nbo,total\n" for n in range(20))
    write(tmp_path, items__csv="item,title\n" + items, events__csv="user,item\n" + log)
    sentence = failing(work, "csv", tmp_path / "items.csv", events=str(tmp_path / "events.csv"))
    assert "events.csv: 20 events name items such as" in sentence
    assert "beside ids that are words" in sentence


def test_what_a_spreadsheet_cut_is_one_sentence(work: Work, tmp_path: Path) -> None:
    write(tmp_path, items__csv="item,title\n1,one\n", events__csv="user,item\n1.23457E+12,1\n7,1\n")
    with pytest.raises(UserError, match=r"user has the id '1.23457E\+12', a number whose last digits are lost"):
        build(work, "csv", tmp_path / "items.csv", events=str(tmp_path / "events.csv"))


def test_lists_of_texts_are_joined_and_objects_give_their_names(work: Work, tmp_path: Path) -> None:
    write_table(
        tmp_path / "items.parquet",
        item=pa.array(["1", "2", "3"]),
        title=pa.array([["one", None, "uno"], [], ["three"]]),
        description=pa.array([["a b", "c"], ["d"], None]),
        creator=pa.array([["Ann", "Bo"], None, ["Cy"]]),
        hashtags=pa.array([[{"id": 16, "name": "cooking"}, {"id": 35, "name": "Sci-Fi"}], [], None]),
    )
    write_table(tmp_path / "events.parquet", user=pa.array(["u"]), item=pa.array(["1"]))
    assert result(work, tmp_path) is None
    first, second, third = rows(work, "items.parquet")
    assert (first["title"], first["description"], first["creator"]) == ("one uno", "a b c", "Ann, Bo")
    assert [row["hashtags"] for row in (first, second, third)] == [["cooking", "Sci-Fi"], [], []]
    assert second["title"] == ""


@pytest.mark.parametrize(
    ("written", "tags"),
    [
        ('[{"id": 16, "name": "cooking"}, {"id": 35, "name": "Sci-Fi & War"}]', ["cooking", "Sci-Fi & War"]),
        ("[{'id': 16, 'name': 'cooking'}, {'id': 1, 'name': \"Women's\"}]", ["cooking", "Women's"]),
        ("['A' 'B, C'\n 'D']", ["A", "B, C", "D"]),
        ("array(['A', 'B'], dtype=object)", ["A", "B"]),
        ("{'A', 'B'}", ["A", "B"]), ('{"Sci-Fi",Drama}', ["Sci-Fi", "Drama"]), ("{Drama,War}", ["Drama", "War"]),
        ("('A', 'B')", ["A", "B"]), ('{"cooking": 0.9, "war": 0.1}', ["cooking", "war"]),
        ('{"id": 1, "name": "one"}', ["one"]), ("[[\"Books\"], [\"Toys\", null]]", ["Books", "Toys"]),
        ("Drama|Women's|Rock 'n' Roll", ["Drama", "Women's", "Rock 'n' Roll"]), ("Action, War", ["Action", "War"]),
        ("[rock, pop]", ["rock", "pop"]), ("[]", []), ("nan", ["nan"]), ("[nan, 'x']", ["x"]),
        ("[1, 2]", ["1", "2"]),
        ('"Action","Drama"', ["Action", "Drama"]), ("[{'name': 'cut", ["name': 'cut"]), ("(" * 3000, []),
        ('[{"name": {"en": "deep"}}]', ["deep"]), ("Comedy (US)", ["Comedy (US)"]), ("'90s; '80s", ["90s", "80s"]),
        ('[{"tag": "x", "score": 1}]', ["x"]), ("['it\\'s']", ["it's"]), ('["\\u00e9t\\u00e9"]', ["été"]),
        # The order of a set changes from run to run; that of its text does not.
        ("[{'a', 'b', 'c', 'd', 'e'}]", ["a", "b", "c", "d", "e"]),
        ("[b'bytes', {('x', 1): 2}]", ["bytes", "('x', 1)"]),
    ],
)  # fmt: skip
def test_hashtags_of_other_systems(work: Work, tmp_path: Path, written: str, tags: list[str]) -> None:
    write_table(
        tmp_path / "items.parquet", item=pa.array(["1"]), title=pa.array(["t"]), hashtags=pa.array([written])
    )
    write_table(tmp_path / "events.parquet", user=pa.array(["u"]), item=pa.array(["1"]))
    assert result(work, tmp_path) is None
    assert rows(work, "items.parquet")[0]["hashtags"] == tags


def test_lists_in_one_text_are_joined_and_brackets_of_a_title_stay(work: Work, tmp_path: Path) -> None:
    lines = ["item,title,description", '1,[Official] a video,"[""x y"", ""z""]"', "2,\"['it''s', ]\",[1]"]
    write(tmp_path, items__csv="\n".join([*lines, "3,[],three"]) + "\n", events__csv="user,item\nu,1\n")
    build(work, "csv", tmp_path / "items.csv", events=str(tmp_path / "events.csv"))
    found = [(row["title"], row["description"]) for row in rows(work, "items.parquet")]
    assert found == [("[Official] a video", "x y z"), ("['it''s', ]", "[1]"), ("", "three")]


def test_hashtags_as_a_list_in_one_file_and_as_text_in_another(work: Work, tmp_path: Path) -> None:
    write_table(
        tmp_path / "items-1.parquet",
        item=pa.array(["1"]),
        title=pa.array(["one"]),
        hashtags=pa.array([["a, b", 'c "d"']]),
    )
    write(tmp_path, **{"items-2__csv": "item,title,hashtags\n2,two,x|y\n"})
    write_table(tmp_path / "events.parquet", user=pa.array(["u"]), item=pa.array(["2"]))
    build(work, "parquet", tmp_path / "items-*", events=str(tmp_path / "events.parquet"))
    assert [row["hashtags"] for row in rows(work, "items.parquet")] == [["a, b", 'c "d"'], ["x", "y"]]


def test_a_duration_is_seconds_and_a_column_may_stand_for_two(work: Work, tmp_path: Path) -> None:
    minute = datetime.timedelta(minutes=1)
    write_table(tmp_path / "items.parquet", item=pa.array([1.0]), duration=pa.array([minute], pa.duration("ms")))
    write_table(tmp_path / "events.parquet", user=pa.array([5.0]), item=pa.array([1.0]))
    build(
        work,
        "parquet",
        tmp_path / "items.parquet",
        events=str(tmp_path / "events.parquet"),
        item_columns={"title": "item"},
    )
    assert rows(work, "items.parquet")[0]["duration"] == 60
    assert rows(work, "items.parquet")[0]["title"] == "1"


def test_runs_of_equal_values_are_read_through_arrow() -> None:
    runs = pa.RunEndEncodedArray.from_arrays(pa.array([2, 3]), pa.array([7.0, 8.0]))
    made = columns.change(runs.type, "id", Path("x"), "user", "user")
    assert made(runs).to_pylist() == ["7", "7", "8"]
