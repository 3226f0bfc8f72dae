"""Every public layout in miniature, your own tables, files that are not what they say, and byway init."""

from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from byway.base import config
from byway.base.artifact import Work
from byway.base.errors import UserError
from byway.data import catalog, events, files, sources, starting

NOW = 1_700_000_000_000_000


def write(folder: Path, **contents: str | bytes) -> Path:
    """A folder with these files; `__` in a name stands for the dot."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        path = folder / name.replace("__", ".")
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def build(work: Work, source: config.Source, items: Path | str, **settings: object) -> catalog.Outcome:
    chosen = msgspec.convert({"source": source, "items": str(items), **settings}, config.Catalog)
    return catalog.build(work, chosen, Path("/"), now=NOW)


def rows(work: Work, name: str) -> list[dict[str, object]]:
    return pq.read_table(work.out / name).to_pylist()


# --- Public layouts ---------------------------------------------------------------------------------------


def test_movielens_csv_has_genres_tags_posters_and_half_star_satisfaction(work: Work, tmp_path: Path) -> None:
    folder = write(
        tmp_path / "ml",
        movies__csv='movieId,title,genres\n10,"Matrix, The (1999)",Action|Sci-Fi\n7,Solo,(no genres listed)\n',
        ratings__csv="userId,movieId,rating,timestamp\n1,10,5.0,1000\n1,7,0.5,999\n2,7,4.0,1000\n",
        tags__csv="userId,movieId,tag,timestamp\n1,10,Simulation,1\n2,10,simulation,1\n2,10,action,1\n",
    )
    write(folder / "posters", **{"10__jpg": b"x"})
    build(work, "movielens", folder)
    first, second = rows(work, "items.parquet")
    assert first["title"] == "The Matrix (1999)"
    assert first["hashtags"] == ["Action", "Sci-Fi", "simulation"]
    assert (first["thumbnail"], second["thumbnail"]) == ("posters/10.jpg", None)
    assert second["hashtags"] == []
    log = events.load(work.out)
    assert log.clock
    assert log.user.tolist() == [0, 0, 1]
    assert log.item.tolist() == [1, 0, 1]
    assert log.time.tolist() == [999_000_000, 1_000_000_000, 1_000_000_000]
    np.testing.assert_allclose(log.satisfaction, [0, 1, 3.5 / 4.5], rtol=1e-6)


def test_movielens_keeps_the_ten_most_used_tags(work: Work, tmp_path: Path) -> None:
    tags = "".join(f"{user},1,tag{k:02},1\n" for k in range(15) for user in range(k + 1))
    folder = write(
        tmp_path / "ml",
        movies__csv="movieId,title,genres\n1,Film,Drama\n",
        ratings__csv="userId,movieId,rating,timestamp\n1,1,5.0,1000\n",
        tags__csv="userId,movieId,tag,timestamp\n" + tags,
    )
    build(work, "movielens", folder)
    assert rows(work, "items.parquet")[0]["hashtags"] == ["Drama", *(f"tag{k:02}" for k in range(5, 15))]


def test_movielens_1m_is_latin_1_with_double_colons(work: Work, tmp_path: Path) -> None:
    folder = write(
        tmp_path / "ml",
        movies__dat="1::Café: der Film (1995)::Animation|Children's\n2::Heat (1995)::Crime\n".encode("latin-1"),
        ratings__dat="1::2::5::978300760\n6040::1::1::978302109\n",
    )
    build(work, "movielens", folder)
    assert catalog.load(work.out).titles() == ["Café: der Film (1995)", "Heat (1995)"]
    assert rows(work, "items.parquet")[0]["hashtags"] == ["Animation", "Children's"]
    assert events.load_users(work.out) == ["1", "6040"]
    np.testing.assert_allclose(events.load(work.out).satisfaction, [1, 0.5 / 4.5], rtol=1e-6)


def test_movielens_100k_has_bars_tabs_and_flags(work: Work, tmp_path: Path) -> None:
    folder = write(
        tmp_path / "ml",
        u__item="1|Café (1995)|01-Jan-1995||http://x|0|1|1\n2|GoldenEye (1995)|01-Jan-1995||u|1|0|0\n".encode(
            "latin-1"
        ),
        u__genre="unknown|0\nAction|1\nDrama|2\n\n",
        u__data="196\t2\t3\t881250949\n186\t1\t3\t891717742\n",
    )
    build(work, "movielens", folder)
    assert [row["hashtags"] for row in rows(work, "items.parquet")] == [["Action", "Drama"], ["unknown"]]
    assert events.load(work.out).item.tolist() == [1, 0]


def test_microlens_splits_hashtags_out_of_titles_and_reads_the_order(work: Work, tmp_path: Path) -> None:
    folder = write(
        tmp_path / "micro",
        **{
            "MicroLens-50k_titles__csv": 'item,title\n1,"a cat, dozing #Two Yuan # comic"\n2,# tags\n3,plain\n',
            "MicroLens-50k_pairs__tsv": "u9\t3 1 3\nu2\t2\n",
        },
    )
    build(work, "microlens", folder)
    items = rows(work, "items.parquet")
    assert [(row["title"], row["hashtags"]) for row in items] == [
        ("a cat, dozing", ["Two Yuan", "comic"]),
        ("", ["tags"]),
        ("plain", []),
    ]
    assert catalog.load(work.out).titles() == ["a cat, dozing", "#tags", "plain"]
    assert catalog.load(work.out).texts() == ["a cat, dozing. Two Yuan, comic", "tags", "plain"]
    log = events.load(work.out)
    assert not log.clock
    assert log.item.tolist() == [2, 0, 2, 1]
    assert log.time.tolist() == [0, 1, 2, 0]
    assert log.satisfaction.tolist() == [1, 1, 1, 1]
    assert events.load_users(work.out) == ["u9", "u2"]
    assert events.traffic(log).tolist() == [1, 1, 2]


@pytest.mark.parametrize("header", ["user,item,timestamp", "userID,videoID,timestamp"])
def test_microlens_pairs_with_a_clock_and_titles_without_header(work: Work, tmp_path: Path, header: str) -> None:
    folder = write(
        tmp_path / "micro",
        **{
            "MicroLens-100k_title_en__csv": "7,first\n8,second\n",
            "MicroLens-100k_pairs__csv": f"{header}\n5,8,1583378629552\n5,7,1583378629000\n",
        },
    )
    build(work, "microlens", folder)
    log = events.load(work.out)
    assert log.clock
    assert log.item.tolist() == [0, 1]
    assert log.time.tolist() == [1583378629000000, 1583378629552000]


KUAIREC_ITEMS = (
    "video_id,manual_cover_text,caption,topic_tag,first_level_category_id,first_level_category_name,"
    "second_level_category_id,second_level_category_name,third_level_category_id,third_level_category_name\n"
    '0,UNKNOWN,精神小伙 #搞笑 路难走,"[五爱市场,搞笑]",8,颜值,673,颜值随拍,-124,UNKNOWN\n'
    "1,封面,,[],27,高新数码,-124,UNKNOWN,-124,UNKNOWN\n"
)


def test_kuairec_public_layout(work: Work, tmp_path: Path) -> None:
    folder = write(
        tmp_path / "KuaiRec 2.0" / "data",
        kuairec_caption_category__csv=KUAIREC_ITEMS,
        big_matrix__csv=(
            "user_id,video_id,play_duration,video_duration,time,date,timestamp,watch_ratio\n"
            "0,1,13838,10867,2020-07-05 00:08:23.438,20200705,1593878903.438,1.2734\n"
            "0,0,13665,10984,2020-07-05 00:13:41.297,20200705,1593879221.297,2.5\n"
            "1,0,100,10984,,,,0.01\n"
        ),
        small_matrix__csv=(
            "user_id,video_id,play_duration,video_duration,time,date,timestamp,watch_ratio\n"
            "14,0,4381,6067,2020-07-05 05:27:48.378,20200705.0,1593898068.378,1.44\n"
        ),
    )
    outcome = build(work, "kuairec", folder.parent)
    items = rows(work, "items.parquet")
    assert items[0]["title"] == "精神小伙 路难走"
    assert items[0]["hashtags"] == ["五爱市场", "搞笑"]
    assert [row["description"] for row in items] == ["颜值, 颜值随拍", "封面, 高新数码"]
    log = events.load(work.out)
    assert log.time.tolist() == [1593878903438000, 1593879221297000]
    np.testing.assert_allclose(log.satisfaction, [1.2734 / 2, 1], rtol=1e-6)
    assert outcome.metrics["catalog.quarantined"] == {"bad time": 1}
    assert rows(work, "events.parquet")[0]["watch_seconds"] == pytest.approx(13.838)

    build(work, "kuairec", folder.parent, events=str(folder / "small_matrix.csv"))
    np.testing.assert_allclose(events.load(work.out).satisfaction, [0.72], rtol=1e-6)


def test_kuairec_positives_only(work: Work, tmp_path: Path) -> None:
    folder = write(
        tmp_path / "kuairec",
        videos__csv=(
            "video_id,caption,topic_tag,first_level_category_id,second_level_category_id,third_level_category_id\n"
            "5,晚饭后,[],9,727,\n1,,[],27,,\n0,#搞笑 完美,[搞笑],5,,\n"
        ),
        categories__csv="level,category_id,name_zh,name_en\n1,9,喜剧,comedy\n2,727,互动,funny\n1,27,数码,tech\n2,9,x,wrong\n",
        positives_log__csv="user_id,video_id\n3,1\n3,5\n0,0\n",
    )
    build(work, "kuairec", folder)
    items = rows(work, "items.parquet")
    assert [row["item"] for row in items] == ["5", "1", "0"]
    assert [row["description"] for row in items] == ["comedy, funny", "tech", None]
    assert [row["title"] for row in items] == ["晚饭后", "", "完美"]
    assert catalog.load(work.out).titles() == ["晚饭后", "tech", "完美"]
    assert events.load(work.out).item.tolist() == [1, 0, 2]


LOG = (
    "user_id,video_id,date,hourmin,time_ms,is_click,is_like,is_follow,is_comment,is_forward,is_hate,"
    "long_view,play_time_ms,duration_ms,tab"
)


def test_kuairand_reads_all_standard_logs_captions_and_categories(work: Work, tmp_path: Path) -> None:
    folder = write(
        tmp_path / "KuaiRand-Pure" / "data",
        video_features_basic_pure__csv=(
            "video_id,author_id,video_type,upload_dt,upload_type,visible_status,video_duration,tag\n"
            "1,77,NORMAL,2022-04-01,a,0,15000,\n0,78,NORMAL,2022-04-02,a,0,9000,\n"
        ),
        log_standard_4_22_to_5_08_pure__csv=f"{LOG}\n4,0,20220422,1,1650600000000,1,0,0,0,0,0,1,20000,15000,1\n",
        log_standard_4_08_to_4_21_pure__csv=(
            f"{LOG}\n"
            "4,1,20220408,1,1649400000000,1,0,0,0,0,0,0,8000,15000,1\n"
            "4,0,20220408,2,1649400001000,1,1,0,0,0,0,1,9000,9000,2\n"
            "4,0,20220408,3,1649400002000,1,1,0,0,0,1,1,9000,9000,2\n"
            "4,0,20220408,4,1649400003000,0,0,0,0,0,0,0,0,9000,2\n"
        ),
    )
    write(
        folder.parent,
        kuairand_video_captions__csv=(
            "final_video_id,caption,show_cover_text,duration\n0,看 #搞笑 #生活,UNKNOWN,9\n1,UNKNOWN,封面,15\n"
        ),
        kuairand_video_categories__csv=(
            "final_video_id,first_level_category_id,first_level_category_name,second_level_category_name,"
            "third_level_category_name,fourth_level_category_name\n0,7,运动,球类运动,UNKNOWN,UNKNOWN\n"
        ),
    )
    build(work, "kuairand", folder.parent)
    first, second = rows(work, "items.parquet")
    assert (first["item"], first["title"], first["description"]) == ("1", "", "封面")
    assert (second["title"], second["hashtags"], second["description"]) == (
        "看",
        ["搞笑", "生活"],
        "运动, 球类运动",
    )
    assert (first["creator"], first["duration"], first["created_at"]) == ("77", 15, 1648771200000000)
    log = rows(work, "events.parquet")
    assert [row["satisfaction"] for row in log] == [0.5, 1, 0, 0, 0.75]
    assert [row["source"] for row in log] == ["tab 1", "tab 2", "tab 2", "tab 2", "tab 1"]
    assert log[0]["watch_seconds"] == 8


# --- Your own tables --------------------------------------------------------------------------------------


def test_parquet_with_a_column_map_numbers_lists_and_timestamps(work: Work, tmp_path: Path) -> None:
    day = 1_600_000_000
    pq.write_table(
        pa.table(
            {
                "vid": pa.array([2.0, 1.0, None]),
                "title": ["two", "one", "none"],
                "hashtags": [["#A", "a", " b "], None, []],
                "made": pa.array([day * 1000, None, 0], pa.timestamp("ms")),
            }
        ),
        tmp_path / "v.parquet",
    )
    seen = pa.table(
        {
            "who": pa.array([9, 8], pa.int64()),
            "vid": pa.array([1, 2], pa.int32()),
            "at": pa.array([day, day + 1], pa.timestamp("s", "UTC")),
            "liked": pa.array([0.25, 1.0], pa.float32()),
            "source": pa.array(["home", None]),
            "propensity": pa.array([0.5, None]),
        }
    )
    pq.write_table(seen.slice(0, 1), tmp_path / "e-1.parquet")
    pq.write_table(seen.slice(1), tmp_path / "e-2.parquet")
    outcome = build(
        work,
        "parquet",
        tmp_path / "v.parquet",
        events=str(tmp_path / "e-*.parquet"),
        item_columns={"item": "vid", "created_at": "made"},
        event_columns={"user": "who", "item": "vid", "time": "at", "satisfaction": "liked"},
    )
    assert outcome.metrics["catalog.quarantined"] == {"empty id": 1}
    items = rows(work, "items.parquet")
    assert [row["item"] for row in items] == ["2", "1"]
    assert [row["hashtags"] for row in items] == [["A", "b"], []]
    assert items[0]["created_at"] == day * 1_000_000
    log = pq.read_table(work.out / "events.parquet").to_pydict()
    assert log == {
        "user": [0, 1],
        "item": [1, 0],
        "time": [day * 10**6, (day + 1) * 10**6],
        "satisfaction": [0.25, 1.0],
        "watch_seconds": [None, None],
        "source": ["home", None],
        "propensity": [0.5, None],
    }
    assert events.load_users(work.out) == ["9", "8"]


@pytest.mark.parametrize(
    "written",
    [
        "1600000000",
        "1600000000.0",
        "1600000000000",
        "1600000000000000",
        "1600000000000000000",
        "2020-09-13T12:26:40Z",
    ],
)
def test_a_csv_time_is_read_in_any_unit(work: Work, tmp_path: Path, written: str) -> None:
    write(tmp_path, items__csv="item,title\n1,one\n", events__csv=f"user,item,time\nu,1,{written}\n")
    build(work, "csv", tmp_path / "items.csv", events=str(tmp_path / "events.csv"))
    assert events.load(work.out).time.tolist() == [1_600_000_000_000_000]


def test_a_number_beyond_all_times_costs_its_row(work: Work, tmp_path: Path) -> None:
    write(tmp_path, items__csv="item,title\n1,one\n")
    moments = pa.array([1_600_000_000_000_000_000] * 2 + [2**64 - 1], pa.uint64())
    pq.write_table(pa.table({"user": ["u"] * 3, "item": ["1"] * 3, "time": moments}), tmp_path / "events.parquet")
    outcome = build(work, "csv", tmp_path / "items.csv", events=str(tmp_path / "events.parquet"))
    assert outcome.metrics["catalog.quarantined"] == {"future time": 1}
    assert events.load(work.out).time.tolist() == [1_600_000_000_000_000] * 2


@pytest.mark.parametrize("name", ["events[1].csv", "events*.csv", "events.d"])
def test_the_files_of_an_input_are_those_that_are_read(tmp_path: Path, name: str) -> None:
    write(tmp_path, items__csv="item,title\n1,one\n", **{"events[1]__csv": "user,item\nu,1\n"})
    write(tmp_path / "events.d", **{"events[1]__csv": "user,item\nu,1\n"})
    settings = config.Catalog("csv", "items.csv", name)
    assert list(sources.files(settings, tmp_path)) == ["items/items.csv", "events/events[1].csv"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_any_line_end_a_byte_order_mark_and_a_column_twice(work: Work, tmp_path: Path, end: str) -> None:
    items = end.join(["\ufeffitem,title,title", "1,one,other", "2,two,other", ""])
    write(tmp_path, items__csv=items, events__csv=end.join(["user,item", "u,1", "", "u,2"]))
    build(work, "csv", tmp_path / "items.csv", events=str(tmp_path / "events.csv"))
    assert catalog.load(work.out).titles() == ["one", "two"]
    assert events.load(work.out).item.tolist() == [0, 1]


def test_relative_paths_start_at_the_workspace(work: Work, tmp_path: Path) -> None:
    write(tmp_path / "data", items__csv="item,title\n1,one\n", events__csv="user,item\nu,1\n")
    settings = config.Catalog(source="csv", items="../data/items.csv", events="../data/events.csv")
    (tmp_path / "w").mkdir()
    assert catalog.build(work, settings, tmp_path / "w", now=NOW).counts["events"] == 1


# --- Files that are not what they say ---------------------------------------------------------------------

ITEMS, EVENTS = "item,title\n1,one\n", "user,item,time\nu,1,1600000000\n"


def failing(work: Work, source: config.Source, items: Path, **settings: object) -> str:
    """The sentence of the UserError, having checked that nothing was left that looks like a result."""
    with pytest.raises(UserError) as error:
        build(work, source, items, **settings)
    assert not {"items.parquet", "events.parquet", "users.parquet"} & {p.name for p in work.out.iterdir()}
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_service_s_log_beside_your_own_events(work: Work, tmp_path: Path) -> None:
    """Files of one pattern: parquet and CSV, other columns, other units of time, text and numbers as ids."""
    folder = write(
        tmp_path / "own",
        items__csv="item,title\n1,One\n2,Two\n3,Three\n",
        **{
            "events-1__csv": "user,item,time\nann,1,1600000000\nann,2,1600000001\n",
            "events-2__csv": (
                "user,item,time,satisfaction,watch_seconds,source,propensity\r\n"
                "ann,3,1600000002000000,0.5,12.5,byway:exp:table,0.25\r\nbo,1,1600000003000000,0,,walk,\r\n"
            ),
            "events-4__csv": "item,user,time\n2,bo,2020-09-13T12:26:45Z\n",
        },
    )
    third = {"user": ["bo"], "item": pa.array([3], pa.int64()), "time": pa.array([1600000004], pa.int64())}
    pq.write_table(pa.table(third), folder / "events-3.parquet")
    outcome = build(work, "csv", folder / "items.csv", events=str(folder / "events-*"))
    assert outcome.metrics["catalog.quarantined"] == {}
    found = rows(work, "events.parquet")
    assert [(r["user"], r["item"], r["time"] / 10**6 - 1.6e9) for r in found] == [
        (0, 0, 0), (0, 1, 1), (0, 2, 2), (1, 0, 3), (1, 2, 4), (1, 1, 5),
    ]  # fmt: skip
    assert [r["satisfaction"] for r in found] == [1, 1, 0.5, 0, 1, 1]
    assert [r["watch_seconds"] for r in found] == [None, None, 12.5, None, None, None]
    assert [r["source"] for r in found] == [None, None, "byway:exp:table", "walk", None, None]
    assert [r["propensity"] for r in found] == [None, None, 0.25, None, None, None]


def test_an_order_of_events_is_said_by_all_files_or_none(work: Work, tmp_path: Path) -> None:
    folder = write(
        tmp_path / "own",
        items__csv="item,title\n1,One\n",
        **{"events-1__csv": "user,item,time\nann,1,1000\n", "events-2__csv": "user,item\nann,1\n"},
    )
    sentence = failing(work, "csv", folder / "items.csv", events=str(folder / "events-*.csv"))
    assert "events-2.csv has no column 'time', which other files beside it have" in sentence


def test_what_is_no_time_is_refused(work: Work, tmp_path: Path) -> None:
    items = write(tmp_path / "own", items__csv="item,title\n1,One\n") / "items.csv"
    times = pa.array([True, False])
    pq.write_table(pa.table({"user": ["a", "b"], "item": ["1", "1"], "time": times}), tmp_path / "events.parquet")
    assert "which is bool; give a timestamp" in failing(work, "csv", items, events=str(tmp_path / "events.parquet"))


@pytest.mark.parametrize(
    "written", ["1970-01-01 00:16", "1970-01-01T00:16", "1970-01-01 00:16:00", "1970-01-01T00:16Z"]
)
def test_a_time_of_minutes_is_one(work: Work, tmp_path: Path, written: str) -> None:
    folder = write(
        tmp_path / "own",
        items__csv="item,title\n1,One\n",
        events__csv="user,item,time\n" + f"a,1,{written}\n" * 3 + "b,1,7\nb,1,x\n",
    )
    build(work, "csv", folder / "items.csv", events=str(folder / "events.csv"))
    assert events.load(work.out).time.tolist() == [960_000_000] * 3


@pytest.mark.parametrize("table", ["items", "events"])
@pytest.mark.parametrize("value", [[{"a": "b"}], {"a": "b"}])
def test_a_column_that_is_neither_text_nor_number_is_refused(
    work: Work, tmp_path: Path, table: str, value: object
) -> None:
    wrong = {"title": [value]} if table == "items" else {"source": [value]}
    own = {"items": {"item": ["1"], "title": ["One"]}, "events": {"user": ["a"], "item": ["1"]}}
    for name, columns in own.items():
        pq.write_table(pa.table(columns | (wrong if name == table else {})), tmp_path / f"{name}.parquet")
    sentence = failing(work, "parquet", tmp_path / "items.parquet", events=str(tmp_path / "events.parquet"))
    assert f"{table}.parquet" in sentence
    assert "give text or a number" in sentence


def test_a_parquet_column_that_comes_twice_is_refused(work: Work, tmp_path: Path) -> None:
    twice = pa.Table.from_arrays(
        [pa.array(["1"]), pa.array(["One"]), pa.array(["Two"])], ["item", "title", "title"]
    )
    pq.write_table(twice, tmp_path / "items.parquet")
    pq.write_table(pa.table({"user": ["a"], "item": ["1"]}), tmp_path / "events.parquet")
    sentence = failing(work, "parquet", tmp_path / "items.parquet", events=str(tmp_path / "events.parquet"))
    assert "two columns 'title'" in sentence


@pytest.mark.parametrize(
    ("items", "log", "wanted"),
    [
        (None, EVENTS, ["items.csv does not exist"]),
        (ITEMS, None, ["events.csv does not exist"]),
        ("item:title\n1:one\n", EVENTS, ["items.csv", "'item'", "colons"]),
        (ITEMS, "user item time\nu 1 1\n", ["events.csv", "'user'", "spaces"]),
        ("key,title\n1,one\n", EVENTS, ["items.csv", "'item'", "key, title"]),
        ("item,words\n1,one\n", EVENTS, ["items.csv", "'title'"]),
        (ITEMS, "user,thing\nu,1\n", ["events.csv", "'item'"]),
        ("", EVENTS, ["items.csv is empty"]),
        (ITEMS, "", ["events.csv is empty"]),
        ("item,title\n", EVENTS, ["items.csv", "no usable items"]),
        (ITEMS, "user,item\n", ["events.csv", "no usable events"]),
        (ITEMS, "user,item\nu,9\n", ["events.csv", "unknown item: 1; it names '9', and the first of the items"]),
        (ITEMS, "7,8,1700000000\n", ["events.csv", "no column 'user'", "where the first line is no header"]),
        ("item,títle\n1,one\n".encode("latin-1"), EVENTS, ["items.csv", "not UTF-8"]),
        (b"item,title\n" + "1,Café\n".encode("latin-1") * 50, EVENTS, ["items.csv", "not UTF-8", "50"]),
        (b"PAR1\0\0\0item,title\n", EVENTS, ["items.csv", "is not a parquet file, or was cut short"]),
        (b"\x1f\x8b\x08\0item,title\n", EVENTS, ["items.csv", "is a gzip file that is damaged"]),
        ("\nitem,title\n1,one\n", EVENTS, ["items.csv", "empty first line"]),
    ],
)  # fmt: skip
def test_a_csv_that_is_not_what_it_says(
    work: Work, tmp_path: Path, items: str | bytes | None, log: str | bytes | None, wanted: list[str]
) -> None:
    given = {"items__csv": items, "events__csv": log}
    write(tmp_path, **{name: text for name, text in given.items() if text is not None})
    message = failing(work, "csv", tmp_path / "items.csv", events=str(tmp_path / "events.csv"))
    for part in wanted:
        assert part in message


def test_a_folder_without_files(work: Work, tmp_path: Path) -> None:
    (tmp_path / "items.csv").mkdir()
    write(tmp_path, events__csv=EVENTS)
    message = failing(work, "csv", tmp_path / "items.csv", events=str(tmp_path / "events.csv"))
    assert "items.csv is a folder without files of data" in message


@pytest.fixture
def tables(tmp_path: Path) -> tuple[Path, Path]:
    pq.write_table(pa.table({"item": ["1"], "title": ["one"]}), tmp_path / "items.parquet")
    numbers = np.arange(200_000)
    log = pa.table({"user": numbers % 77, "item": numbers % 1 + 1, "time": numbers + 1_600_000_000})
    pq.write_table(log, tmp_path / "events.parquet", row_group_size=20_000)
    return tmp_path / "items.parquet", tmp_path / "events.parquet"


def test_parquet_cut_short(work: Work, tables: tuple[Path, Path]) -> None:
    items, log = tables
    log.write_bytes(log.read_bytes()[:50_000])
    message = failing(work, "parquet", items, events=str(log))
    assert "events.parquet is not a parquet file, or was cut short" in message


def test_parquet_with_a_hole_in_its_middle(work: Work, tables: tuple[Path, Path]) -> None:
    items, log = tables
    data = log.read_bytes()
    log.write_bytes(data[:50_000] + bytes(100_000) + data[150_000:])
    message = failing(work, "parquet", items, events=str(log))
    assert "events.parquet could not be read to its end" in message


def test_a_csv_called_parquet_and_a_column_that_is_not_there(work: Work, tables: tuple[Path, Path]) -> None:
    items, log = tables
    message = failing(work, "parquet", items, events=str(log), event_columns={"satisfaction": "rating"})
    assert "events.parquet has no column 'rating'; it has user, item, time" in message
    message = failing(work, "parquet", items, events=str(log), event_columns={"joy": "rating"})
    assert "event_columns has no column 'joy'" in message
    items.write_text(ITEMS)
    assert "items.parquet is not a parquet file" in failing(work, "parquet", items, events=str(log))


def test_public_layouts_that_are_not_there(work: Work, tmp_path: Path) -> None:
    folder = write(tmp_path / "empty")
    for source in ("movielens", "microlens", "kuairec", "kuairand"):
        assert str(folder) in failing(work, source, folder)
    write(folder, movies__csv="movieId,title,genres\n1,x,y\n")
    assert "ratings.csv does not exist" in failing(work, "movielens", folder)
    write(folder, ratings__csv="userId,movieId,rating\n1,1,2\n")
    assert "ratings.csv has no column 'timestamp'" in failing(work, "movielens", folder)
    assert "is not a folder" in failing(work, "movielens", folder / "movies.csv")
    old = write(tmp_path / "old", movies__dat="1::x::y\n", ratings__dat="1,1,5,978300760\n")
    assert "ratings.dat has no column" in failing(work, "movielens", old)


def test_a_row_with_an_unclosed_quote_costs_what_it_swallowed_and_says_so(work: Work, tmp_path: Path) -> None:
    swallowed = "".join(f"{n},title number {n}\n" for n in range(3, 10_000))
    write(tmp_path, items__csv=f'item,title\n1,one\n2,"two\n{swallowed}', events__csv=EVENTS)
    outcome = build(work, "csv", tmp_path / "items.csv", events=str(tmp_path / "events.csv"))
    assert outcome.metrics["catalog.quarantined"] == {"long text": 1}
    assert rows(work, "quarantine.parquet")[0]["id"] == "2"


def test_batches_keep_the_order_and_the_size(tmp_path: Path) -> None:
    numbers = np.arange(300_000)
    pq.write_table(pa.table({"n": numbers}), tmp_path / "n.parquet", row_group_size=7_000)
    found = list(files.batches(files.parquet(tmp_path / "n.parquet", ["n"]), tmp_path, rows=65_536))
    assert [batch.num_rows for batch in found] == [65_536] * 4 + [300_000 - 4 * 65_536]
    np.testing.assert_array_equal(np.concatenate([batch.column(0).to_numpy() for batch in found]), numbers)


# --- byway init -------------------------------------------------------------------------------------------


def test_toml_for_a_public_set_reads_back(work: Work, tmp_path: Path) -> None:
    folder = write(
        tmp_path / 'odd "name"',
        movies__csv="movieId,title,genres\n1,Heat,Crime\n",
        ratings__csv="userId,movieId,rating,timestamp\n1,1,5,1000\n",
    )
    (tmp_path / "byway.toml").write_text(starting.start("movielens", folder).text)
    settings = config.load(tmp_path / "byway.toml").catalog
    assert (settings.source, settings.items, settings.positive) == ("movielens", str(folder), 0.75)
    assert catalog.build(work, settings, tmp_path, now=NOW).counts["events"] == 1


def test_toml_for_own_tables_guesses_usual_names(work: Work, tmp_path: Path) -> None:
    write(tmp_path, items__csv="video_id,title\n1,one\n", events__csv="userId,video_id,timestamp\nu,1,1600000000\n")
    (tmp_path / "byway.toml").write_text(starting.start("csv", tmp_path).text)
    settings = config.load(tmp_path / "byway.toml").catalog
    assert settings.item_columns == {"item": "video_id"}
    assert settings.event_columns == {"user": "userId", "item": "video_id", "time": "timestamp"}
    assert catalog.build(work, settings, tmp_path, now=NOW).counts["events"] == 1


@pytest.mark.parametrize("name", ['item "id"', "item\nid", "item\x7fid", "item\\id"])
def test_toml_for_a_column_of_any_name_reads_back(tmp_path: Path, name: str) -> None:
    written = '"' + name.replace('"', '""') + '"'
    write(tmp_path, items__csv=f"{written},title\n1,one\n", events__csv=f"user,{written}\nu,1\n")
    (tmp_path / "byway.toml").write_text(starting.start("csv", tmp_path).text)
    assert config.load(tmp_path / "byway.toml").catalog.item_columns == {"item": name}


def test_toml_for_what_is_not_there(tmp_path: Path) -> None:
    for name in ("microlens-50k", "movielens-latest-small", "kuairec", "kuairand", "parquet", "csv"):
        with pytest.raises(UserError, match=str(tmp_path)):
            starting.start(name, tmp_path)
    with pytest.raises(UserError, match="no source 'netflix'"):
        starting.start("netflix", tmp_path)
    with pytest.raises(UserError, match="is not a folder"):
        starting.start("csv", tmp_path / "nowhere")
