"""What columns mean: names, scales, times, ties, order; what `byway init` writes and says of them."""

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.data.test_sources import NOW, rows, write

from byway import cli
from byway.base import config
from byway.base.artifact import Work
from byway.base.errors import UserError
from byway.data import catalog, events, naming, scales, sources, survey, times

WHERE = Path("events.csv")
SECOND = 1_000_000
ITEMS = "item,title\n" + "".join(f"{n},title {n}\n" for n in range(8))


def begin(tmp_path: Path, capsys: pytest.CaptureFixture[str], log: str, items: str = ITEMS) -> tuple[str, int]:
    """What `byway init` says of two tables, and its exit code; the workspace is `tmp_path / "w"`."""
    write(tmp_path / "in", items__csv=items, events__csv=log)
    try:
        cli.init(tmp_path / "w", tmp_path / "in", source="csv")
    except UserError as error:
        return str(error), 2
    return capsys.readouterr().out, 0


def built(work: Work, tmp_path: Path, **changed: object) -> catalog.Outcome:
    """The catalog of the workspace that `begin` made."""
    settings = config.load(tmp_path / "w" / "byway.toml", [f"catalog.{k}={v}" for k, v in changed.items()]).catalog
    return catalog.build(work, settings, tmp_path / "w", now=NOW)


def stars(values: list[object], name: str = "rating", extra: str = "") -> str:
    return f"user,item,time,{name}\n" + "".join(
        f"u{n % 5},{n % 8},{1_600_000_000 + n},{value}{extra}\n" for n, value in enumerate(values)
    )


# --- Names ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "found", "wanted"),
    [
        ("events", ["userId", "movieId", "rating", "timestamp"],
         {"user": "userId", "item": "movieId", "satisfaction": "rating", "time": "timestamp"}),
        ("events", ["User-ID", "ISBN", "Book-Rating"],
         {"user": "User-ID", "item": "ISBN", "satisfaction": "Book-Rating"}),
        ("events", ["reviewerID", "asin", "overall", "unixReviewTime", "reviewText", "helpful"],
         {"user": "reviewerID", "item": "asin", "satisfaction": "overall", "time": "unixReviewTime"}),
        ("events", ["customer_id", "article_id", "t_dat", "price", "sales_channel_id"],
         {"user": "customer_id", "item": "article_id", "time": "t_dat"}),
        ("events", ["userID", "artistID", "weight"], {"user": "userID", "item": "artistID"}),
        ("events", ["app_id", "helpful", "date", "is_recommended", "hours", "user_id", "review_id"],
         {"user": "user_id", "item": "app_id", "time": "date", "satisfaction": "is_recommended"}),
        ("events", ["visitorid", "event", "itemid", "TIMESTAMP"],
         {"user": "visitorid", "item": "itemid", "time": "TIMESTAMP"}),
        ("items", ["id", "original_title", "title", "genres", "overview", "release_date", "imdb_id"],
         {"item": "id", "title": "title", "hashtags": "genres", "description": "overview",
          "created_at": "release_date"}),
        ("items", ["ISBN", "Book Title", "Book-Author", "Year-Of-Publication"],
         {"item": "ISBN", "title": "Book Title", "creator": "Book-Author", "created_at": "Year-Of-Publication"}),
        ("items", ["tracks", "artist", "track_id", "track_name"],
         {"item": "track_id", "title": "track_name", "creator": "artist"}),
    ],
)  # fmt: skip
def test_usual_names_are_known_and_what_is_left_is_named(
    kind: naming.Kind, found: list[str], wanted: dict[str, str]
) -> None:
    chosen = naming.column_map(found, kind, {})
    assert {ours: chosen.columns.get(ours) for ours in wanted} == wanted
    assert set(chosen.unused) == set(found) - set(chosen.columns.values())
    for name in chosen.unused:
        assert name in naming.in_words(chosen)


def test_our_own_name_comes_first_and_the_map_before_it() -> None:
    found = ["timestamp", "time", "uid", "user_id", "item"]
    chosen = naming.column_map(found, "events", {})
    assert chosen.columns == {"user": "user_id", "item": "item", "time": "time"}
    assert chosen.rivals == {"user": ("uid",), "time": ("timestamp",)}
    assert "user_id is taken for user, not uid" in naming.in_words(chosen)
    assert naming.column_map(found, "events", {"time": "timestamp", "user": ""}).columns == {
        "item": "item", "time": "timestamp",
    }  # fmt: skip


def test_an_id_that_both_tables_name_comes_first() -> None:
    found = ["imdb_id", "movie_id", "title"]
    assert naming.column_map(found, "items", {}, {"imdbid"}).columns["item"] == "imdb_id"
    assert naming.column_map(found, "items", {}).columns["item"] == "movie_id"


@given(st.sampled_from(["user_id", "reviewer id", "ISBN"]), st.data())
def test_case_blanks_hyphens_and_underscores_do_not_count(name: str, data: st.DataObject) -> None:
    spelled = "".join(
        data.draw(st.sampled_from([letter.lower(), letter.upper()]))
        + data.draw(st.sampled_from(["", "_", "-", " "]))
        for letter in name
    )
    assert naming.plain(spelled) == naming.plain(name)


def test_a_date_and_a_rating_are_mapped_and_said(
    work: Work, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = "userId,itemId,date,rating,helpful\n" + "".join(
        f"u{n % 4},{n % 8},2020-09-{n % 28 + 1:02},{n % 5 + 1},0\n" for n in range(60)
    )
    items = ITEMS.replace("item,title", "itemId,title")
    said, code = begin(tmp_path, capsys, log, items)
    assert code == 0
    for part in ("date → time", "rating → satisfaction", "not used: helpful", "holds 1 to 5", "Next: "):
        assert part in said
    outcome = built(work, tmp_path)
    found = events.load(work.out)
    assert (len(found), found.clock, found.positive) == (60, True, 0.75)
    assert set(np.round(found.satisfaction, 4).tolist()) == {0, 0.25, 0.5, 0.75, 1}
    told = outcome.metrics["catalog.read"]
    assert isinstance(told, list)
    assert any("not used: helpful" in str(sentence) for sentence in told)


def test_a_part_without_rows_takes_no_column_from_the_others(work: Work, tmp_path: Path) -> None:
    header, given = "user,item,time,rating\n", tmp_path / "in"
    log = "".join(f"u{n % 4},{n % 8},2020-09-{n % 28 + 1:02},{n % 5 + 1}\n" for n in range(60))
    (given / "events").mkdir(parents=True)
    for path, words in (("items.csv", ITEMS), ("events/0.csv", header + log), ("events/1.csv", header)):
        (given / path).write_text(words, "utf-8")
    cli.init(tmp_path / "w", given, source="csv")
    assert "event_scale = [1, 5]" in (tmp_path / "w" / "byway.toml").read_text("utf-8")
    built(work, tmp_path)
    found = events.load(work.out)
    assert (len(found), found.clock, len(set(found.satisfaction.tolist()))) == (60, True, 5)


def test_init_writes_a_file_to_mend_where_it_stops(
    work: Work, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = "user,item,time\n" + "".join(f"u{n % 4},{n % 8},0{n % 9 + 1}/02/2023\n" for n in range(40))
    said, code = begin(tmp_path, capsys, log)
    toml = tmp_path / "w" / "byway.toml"
    lines = toml.read_text().splitlines()
    number = lines.index('time_format = ""') + 1
    assert code == 2
    assert "'01/02/2023', and no value says whether day or month comes first" in said
    assert f"Mend line {number} of {toml}" in said
    lines[number - 1] = 'time_format = "%m/%d/%Y"'
    toml.write_text("\n".join(lines))
    built(work, tmp_path)
    first = np.datetime64(int(events.load(work.out).time.min()), "us")
    assert str(first)[:10] == "2023-01-02"


def test_init_names_a_column_that_it_does_not_find(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said, code = begin(tmp_path, capsys, "person_who,item\nu,1\n")
    lines = (tmp_path / "w" / "byway.toml").read_text().splitlines()
    assert code == 2
    assert lines[-1] == 'event_columns = { user = "" }'
    assert f"Mend line {len(lines)} of" in said
    assert any("person_who" in line for line in lines)
    settings = config.load(tmp_path / "w" / "byway.toml").catalog
    with pytest.raises(UserError, match=r"event_columns names no column for 'user'"):
        sources.read(settings, tmp_path / "w", tmp_path / "scratch")


# --- Scales -----------------------------------------------------------------------------------------------


def seen(values: list[object]) -> survey.Profile:
    column = survey.Profile()
    column.add(pa.array([None if value is None else str(value) for value in values], pa.large_string()), True)
    return column


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        ([1, 2, 3, 4, 5], (1, 5)), ([1.0, 5.0, 3.0], (1, 5)), ([2, 4, 5], (1, 5)), ([0.5, 4.5, 5], (0.5, 5)),
        ([1, 5, 7, 10], (1, 10)), ([0, 3, 8, 10, 9, 7], (0, 10)), ([0, 35, 80, 100], (0, 100)),
        ([-1, 0, 1], (-1, 1)),
        ([-1, 1], (-1, 1)), ([-9.5, 3.25, 9.9], (-10, 10)), ([1, 4, 7], (1, 7)), ([0, 0.25, 1], None),
        (["85%", "20 %", "100%"], None), (["true", "false"], None), (["4,5", "3,0", "1,5", "5"], (0.5, 5)),
        ([0.1] * 95 + [7] * 5, None), ([1, 3, 2.7, 4.9], (1, 5)), ([12, 15, 18, 9], (0, 20)),
    ],
)  # fmt: skip
def test_scales_that_people_know(values: list[object], scale: tuple[float, float] | None) -> None:
    found = scales.detect(seen(values))
    assert (found.ends, found.unclear) == (scale, "")


@pytest.mark.parametrize(
    "values", [[1, 2, 1, 3, 900], [1, 1, 1, 2, 8, 60], ["soon", "good idea", "x"], [-7, 50, 3]]
)
def test_counts_and_words_are_no_ratings(values: list[object]) -> None:
    found = scales.detect(seen(values))
    assert found.unclear
    with pytest.raises(UserError, match=r"events\.csv: 'n' holds"):
        scales.by_setting(found, None, WHERE, "n")


def test_half_stars_with_a_comma_stay_where_most_are_whole() -> None:
    found = scales.detect(seen(["3", "4", "5", "2"] * 20 + ["3,5", "1,5"] * 10))
    assert (found.writing, found.ends) == ("comma", (0.5, 5))
    for other in ("1,234", "3.5"):
        assert scales.detect(seen(["3", "4", "5", "2"] * 20 + ["3,5"] * 10 + [other] * 10)).writing == "number"


def test_what_is_not_rated_is_told_from_the_worst_rating() -> None:
    crossing = scales.detect(seen([0] * 60 + [5, 8, 8, 10, 7, 1] * 5))
    assert (crossing.ends, round(crossing.unrated, 2)) == ((1, 10), 0.67)
    assert "67% of the rows are 0, read as not rated" in crossing.words
    anime = scales.detect(seen([-1] * 10 + [7, 8, 9, 10, 2] * 8))
    assert (anime.ends, anime.unrated) == ((1, 10), 0.2)
    zeros = scales.detect(seen([0] + [1] * 5 + [2, 3, 4, 5] * 5))
    assert (zeros.ends, zeros.unrated) == ((0, 5), 0)


def test_a_ratio_of_what_was_watched_counts_1_from_1_on(
    work: Work, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ratios = [0.03, 0.5, 0.97, 1.0, 1.4, 2.5, 0.251, 1.08] * 10
    said, code = begin(tmp_path, capsys, stars(ratios, "watch_ratio"))
    assert code == 0
    assert "holds 0.03 to 2.5, a ratio, which counts 1 from 1 on" in said
    assert "event_scale = [0, 1]" in (tmp_path / "w" / "byway.toml").read_text("utf-8")
    built(work, tmp_path)
    found = sorted(set(events.load(work.out).satisfaction.round(3).tolist()))
    assert found == pytest.approx([0.03, 0.251, 0.5, 0.97, 1.0])
    # Ratings with decimals are none.
    assert scales.detect(seen([1.2, 3.7, 4.4, 2.9, 4.8] * 10)).ends == (1, 5)


def test_what_init_cannot_read_of_a_column_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said, _ = begin(tmp_path, capsys, stars(["like", "dislike", "neutral"] * 20))
    assert "words such as like (33% are others, such as 'neutral', and kept out)" in said
    log = "user,item,time\n" + "".join(
        f"u{n % 5},{n % 8},{1_600_000_000 + n if n % 4 else 'then'}\n" for n in range(40)
    )
    said, code = begin(tmp_path / "times", capsys, log)
    assert (code, "(25% cannot be read, such as 'then', and are kept out)" in said) == (0, True)


def test_a_log_in_which_nothing_pleased_is_one_sentence(
    work: Work, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begin(tmp_path, capsys, stars([0.1, 0.4, 0.2], "satisfaction"))
    with pytest.raises(
        UserError, match=r"None of the 3 events .* catalog\.positive = 0\.5; the highest .* is 0\.4"
    ):
        built(work, tmp_path)


def test_items_that_say_little_are_said(work: Work, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for n, (title, said) in enumerate(
        [
            ("Untitled", "30 items have 1 texts between them, such as 'Untitled'"),
            ("{}", "100% of the items"),
            ("tea {}", ""),
        ]
    ):
        folder = tmp_path / str(n)
        items = "item,title\n" + "".join(f"{i},{title.format(i)}\n" for i in range(30))
        begin(folder, capsys, stars([1, 0.5, 0.7], "satisfaction"), items)
        place = Work(folder, folder, work.rng)
        built(place, folder)
        out = capsys.readouterr()
        assert said in (text := " ".join((out.out + out.err).split()))
        assert ("Map another column to title" in text) == bool(said)


def test_stars_are_asked_about_and_with_the_setting_all_are_kept(work: Work, tmp_path: Path) -> None:
    write(tmp_path, items__csv=ITEMS, events__csv=stars([n % 5 + 1 for n in range(200)], "satisfaction"))
    settings = config.Catalog("csv", "items.csv", "events.csv")
    with pytest.raises(UserError, match=r"'satisfaction' holds 1 to 5, .* event_scale = \[1, 5\]"):
        catalog.build(work, settings, tmp_path, now=NOW)
    outcome = catalog.build(
        work, config.Catalog("csv", "items.csv", "events.csv", event_scale=[1, 5]), tmp_path, now=NOW
    )
    assert outcome.metrics["catalog.quarantined"] == {}
    counts = np.unique(events.load(work.out).satisfaction, return_counts=True)
    assert [each.tolist() for each in counts] == [[0, 0.25, 0.5, 0.75, 1], [40] * 5]


def test_unrated_events_are_kept_as_init_writes_it_and_stray_ones_are_kept_out(
    work: Work, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values: list[object] = [0] * 30 + [1, 10, 7, 9, 8] * 10 + ["", "eleven"]
    said, code = begin(tmp_path, capsys, stars(values, "Book-Rating"))
    assert code == 0
    assert "read as not rated" in said
    outcome = built(work, tmp_path)
    assert outcome.metrics["catalog.quarantined"] == {"bad satisfaction": 1}
    assert rows(work, "quarantine.parquet")[0]["detail"] == "eleven"
    found = events.load(work.out).satisfaction
    assert (found == 0.5).sum() == 31
    assert (found == 0).sum() == 10


def test_a_constant_rating_says_nothing_and_is_left_out(
    work: Work, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said, code = begin(tmp_path, capsys, stars([7] * 30))
    assert code == 0
    assert "rating is not used after all: it is 7 in every row" in said
    assert 'satisfaction = ""' in (tmp_path / "w" / "byway.toml").read_text()
    built(work, tmp_path)
    assert events.load(work.out).satisfaction.tolist() == [1] * 30


def test_a_log_on_our_scale_stands_beside_stars(work: Work, tmp_path: Path) -> None:
    write(
        tmp_path,
        items__csv=ITEMS,
        **{
            "events-1__csv": stars([1, 2, 5, 4], "stars"),
            "events-2__csv": stars([0.5, 0, 1, 0.75], "satisfaction"),
        },
    )
    settings = config.Catalog(
        "csv", "items.csv", "events-*.csv", event_columns={"satisfaction": "stars"}, event_scale=[1, 5]
    )
    outcome = catalog.build(work, settings, tmp_path, now=NOW)
    assert outcome.metrics["catalog.quarantined"] == {}
    assert sorted(events.load(work.out).satisfaction.tolist()) == [0, 0, 0.25, 0.5, 0.75, 0.75, 1, 1]


@given(st.floats(-1000, 1000), st.floats(0.01, 1000), st.lists(st.floats(-0.5, 1.5), min_size=20, max_size=60))
@settings(max_examples=12)
def test_any_scale_is_a_line_from_0_to_1(
    tmp_path_factory: pytest.TempPathFactory, low: float, span: float, places: list[float]
) -> None:
    folder = tmp_path_factory.mktemp("scale")
    high = low + span
    inside = [min(max(place, 0.0), 1.0) for place in places]
    values = [low, high, *(low + place * (high - low) for place in inside), high + span, low - span]
    values = [min(max(value, low), high) for value in values[:-2]] + values[-2:]
    log = {"user": ["u"] * len(values), "item": ["1"] * len(values), "stars": values}
    pq.write_table(pa.table(log), folder / "events.parquet")
    write(folder, items__csv=ITEMS)
    settings = config.Catalog(
        "csv", "items.csv", "events.parquet", event_columns={"satisfaction": "stars"}, event_scale=[low, high]
    )
    outcome = catalog.build(Work(folder, folder, np.random.default_rng(0)), settings, folder, now=NOW)
    assert outcome.metrics["catalog.quarantined"] == {"bad satisfaction": 2}
    found = events.load(folder).satisfaction
    assert (found[0], found[1]) == (0, 1)
    np.testing.assert_allclose(found[2:], (np.array(values[2:-2]) - low) / (high - low), atol=1e-6)


# --- Times ------------------------------------------------------------------------------------------------

FORMS: dict[str, tuple[str, int]] = {
    "rfc 3339": ("%Y-%m-%dT%H:%M:%S.%f+00:00", 1), "space": ("%Y-%m-%d %H:%M:%S", SECOND),
    "minutes": ("%Y-%m-%dT%H:%MZ", 60 * SECOND), "slashes": ("%Y/%m/%d %H:%M:%S", SECOND),
    "day": ("%Y/%m/%d", 86_400 * SECOND), "dots": ("%d.%m.%Y %H:%M", 60 * SECOND),
    "compact": ("%Y%m%dT%H%M%S", SECOND), "number": ("%Y%m%d%H%M%S", SECOND),
    "day number": ("%Y%m%d", 86_400 * SECOND), "mail": ("%a, %d %b %Y %H:%M:%S GMT", SECOND),
    "ctime": ("%a %b %d %H:%M:%S %Y", SECOND), "words": ("%B %d, %Y %I:%M %p", 60 * SECOND),
    "oracle": ("%d-%b-%Y %H:%M:%S", SECOND), "web server": ("%d/%b/%Y:%H:%M:%S +0000", SECOND),
    "oracle day": ("%d-%b-%y", 86_400 * SECOND), "cjk": ("%Y年%m月%d日 %H:%M", 60 * SECOND),
}  # fmt: skip
MOMENTS = st.datetimes(datetime(1971, 1, 1), datetime(2060, 1, 1))


def micros(moment: datetime) -> int:
    return int((moment.replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1))


def reads(written: list[str], wanted: str = "") -> list[int | None]:
    sample = pa.array(written, pa.large_string())
    return times.read(sample, times.detect(sample, wanted, WHERE, "time")).to_pylist()


@given(st.sampled_from(sorted(FORMS)), st.lists(MOMENTS, min_size=1, max_size=8))
@settings(max_examples=50)
def test_every_form_is_read_back_as_far_as_it_goes(name: str, moments: list[datetime]) -> None:
    form, step = FORMS[name]
    written = [moment.strftime(form) for moment in moments]
    assert reads(written) == [micros(moment) // step * step for moment in moments]
    unpadded = (
        [word.replace(" 0", " ").replace("/0", "/") for word in written] if name in ("space", "slashes") else []
    )
    assert not unpadded or reads(unpadded) == reads(written)


@given(
    st.sampled_from(["%d/%m/%Y %H:%M:%S", "%m-%d-%Y %I:%M:%S %p", "%y.%m.%d %H:%M:%S"]),
    st.lists(MOMENTS, min_size=1),
)
def test_a_form_that_is_named_is_read_back(form: str, moments: list[datetime]) -> None:
    moments = [max(moment, datetime(1971, 1, 1)) for moment in moments]
    written = [moment.strftime(form) for moment in moments]
    assert reads(written, form) == [micros(moment) // SECOND * SECOND for moment in moments]


@given(st.sampled_from(["s", "ms", "us", "ns"]), st.lists(st.integers(10**9, 4 * 10**9), min_size=1), st.data())
def test_numbers_are_read_back_in_any_unit_and_type(unit: str, seconds: list[int], data: st.DataObject) -> None:
    per = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    counted = [each * per + data.draw(st.integers(0, per - 1)) for each in seconds]
    expected = [each * 10**6 // per for each in counted]
    form = times.detect(pa.array([str(each) for each in counted], pa.large_string()), "", WHERE, "time")
    assert times.read(pa.array(counted, pa.int64()), form).to_pylist() == expected
    assert times.read(pa.array([str(each) for each in counted]), form).to_pylist() == expected
    assert times.read(pa.array([f"{each}".encode() for each in counted]), form).to_pylist() == expected


@given(MOMENTS, st.integers(-14 * 60, 14 * 60))
@settings(max_examples=20)
def test_a_zone_is_taken_off(moment: datetime, minutes: int) -> None:
    moment = moment.replace(microsecond=0)
    there = moment.replace(tzinfo=UTC).astimezone(timezone(timedelta(minutes=minutes)))
    assert reads([there.isoformat()]) == reads([there.strftime("%a, %d %b %Y %H:%M:%S %z")]) == [micros(moment)]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("2020-11-26 2:36:22", "2020-11-26T02:36:22"), ("2020-1-6", "2020-01-06T00:00:00"),
        ("2020-11-26 02:36:22.123 +0000 UTC", "2020-11-26T02:36:22"), ("2001", "2001-01-01T00:00:00"),
        ("Thu Nov 26 2020 02:36:22 GMT+0100 (Central European Standard Time)", "2020-11-26T01:36:22"),
        ("2020-11-26T02:36:22+01:00[Europe/Berlin]", "2020-11-26T01:36:22"), ("2020-11", "2020-11-01T00:00:00"),
        ("Mon Jan  2 10:11:12 PST 2023", "2023-01-02T18:11:12"),
        ("January 2nd, 2023 at 3:04 PM", "2023-01-02T15:04:00"),
        ("26/11/20", "2020-11-26T00:00:00"), ("11/26/2020 12:00:00 AM", "2020-11-26T00:00:00"),
        ("2020-11-26T24:00:00", "2020-11-27T00:00:00"), ("1.6063581820E9", "2020-11-26T02:36:22"),
        ("20231", None), ("2023-02-29", None), ("2023-13-01", None), ("25:00", None), ("soon", None),
    ],
)  # fmt: skip
def test_times_as_others_write_them(written: str, expected: str | None) -> None:
    if expected is None and written != "20231":
        with pytest.raises(UserError, match="no time that can be told by itself"):
            reads([written])
        return
    (found,) = reads([written])
    assert str(np.datetime64(found, "us").astype("datetime64[s]")) == (expected or "1970-01-01T05:37:11")


@pytest.mark.parametrize(
    ("written", "words"),
    [
        (["01/02/2023"], 'time_format = "%d/%m/%Y" or "%m/%d/%Y"'),
        (["01-02-23"], 'time_format = "%d-%m-%y" or "%m-%d-%y" or "%y-%m-%d"'),
        (["01/13/2020", "13/01/2020"], "are not in one order of day and month"),
        (["44161.1", "44170"], 'time_format = "excel"'),
        (["1700000000"] * 60 + ["1700000000000"] * 40, "1700000000 and 1700000000000, which are not of one unit"),
        (["1700000000000000"] * 97 + ["1700000000"] * 3, "1700000000 and 1700000000000000, which are not of one"),
    ],
)
def test_what_can_be_read_in_two_ways_is_asked_about(written: list[str], words: str) -> None:
    with pytest.raises(UserError) as error:
        reads(written)
    assert words in str(error.value)
    assert written[0] in str(error.value)


def test_numbers_from_any_start_are_of_one_unit() -> None:
    assert reads([str(10**9 * n) for n in range(1000)])[:2] == [0, 10**12]


def test_one_value_decides_for_all() -> None:
    assert reads(["01/02/2023", "31/01/2023"]) == [1_675_209_600 * SECOND, 1_675_123_200 * SECOND]
    assert reads(["01/02/2023", "01/31/2023"]) == [1_672_617_600 * SECOND, 1_675_123_200 * SECOND]


@pytest.mark.parametrize("bad", ["%Q", "%d/%m", "%Y %Y", "%"])
def test_a_form_that_is_none_is_refused(bad: str) -> None:
    with pytest.raises(UserError, match="time_format"):
        times.form_of(bad)


def test_empty_times_at_the_head_decide_nothing(
    work: Work, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = "user,item,time\n" + "".join(
        f"u{n % 7},{n % 8},{'' if n < 1100 else 1_600_000_000 + n}\n" for n in range(2400)
    )
    said, _ = begin(tmp_path, capsys, log)
    assert "1,100 of 2,400 are empty" in said
    outcome = built(work, tmp_path)
    assert (outcome.counts["events"], outcome.metrics["catalog.quarantined"]) == (1300, {"bad time": 1100})


def test_a_unit_is_decided_by_the_whole_file(work: Work, tmp_path: Path) -> None:
    # The first thousand are zeros, as a system that was once without a clock writes them.
    log = "user,item,time\n" + "".join(
        f"u{n % 7},{n % 8},{0 if n < 1000 else 1_600_000_000_000 + n}\n" for n in range(4000)
    )
    write(tmp_path, items__csv=ITEMS, events__csv=log)
    catalog.build(work, config.Catalog("csv", "items.csv", "events.csv"), tmp_path, now=NOW)
    assert events.load(work.out).time.max() == 1_600_000_003_999_000


@pytest.mark.parametrize("size", [survey.SAMPLE // 2, 5 * survey.SAMPLE + 17])
def test_a_sample_is_bounded_even_and_over_the_whole_file(size: int) -> None:
    column = survey.Profile()
    for start in range(0, size, 999):
        column.add(pa.array([str(n) for n in range(start, min(start + 999, size))]), True)
    found = np.array(column.sample.to_pylist(), np.int64)
    assert (column.rows, column.numbers, column.low, column.high) == (size, size, 0, size - 1)
    assert len(found) <= 2 * survey.SAMPLE
    assert set(np.diff(found).tolist()) == {found[1]}
    assert size - found[-1] <= found[1]


def test_years_of_items_are_years(work: Work, tmp_path: Path) -> None:
    items = "item,title,created_at\n" + "".join(f"{n},title,{2001 + n}\n" for n in range(8))
    write(tmp_path, items__csv=items, events__csv="user,item\nu,1\n")
    catalog.build(work, config.Catalog("csv", "items.csv", "events.csv"), tmp_path, now=NOW)
    made = [str(np.datetime64(row["created_at"], "us"))[:10] for row in rows(work, "items.parquet")]
    assert made == [f"{2001 + n}-01-01" for n in range(8)]


def test_bad_rows_keep_what_stood_in_the_file(work: Work, tmp_path: Path) -> None:
    good = "".join(f"u,{n % 8},2020/01/{n % 28 + 1:02},0.5,{n}\n" for n in range(50))
    bad = "u,1,32/99/2020,0.5,60\nu,1,2020/01/01,much,61\nu,1,2020/01/01,7,62\nu,1,2020/01/01,1,third\n"
    write(tmp_path, items__csv=ITEMS, events__csv="user,item,time,satisfaction,order\n" + good + bad)
    catalog.build(work, config.Catalog("csv", "items.csv", "events.csv"), tmp_path, now=NOW)
    found = {str(row["detail"]): row["reason"] for row in rows(work, "quarantine.parquet")}
    assert found == {
        "32/99/2020": "bad time", "much": "bad satisfaction", "7": "bad satisfaction", "third": "bad order",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("column", "values", "words"),
    [
        ("time", ["2030-01-01"], "40 of 40 values of time are out of range or no time, such as '2030-01-01'"),
        ("time", [""], "time is empty in every row; leave it out"),
        ("order", ["first", "second"], "values of order are out of range or no order, such as 'first'"),
        ("propensity", [40, 50], "values of propensity"),
    ],
)
def test_a_column_of_which_most_is_bad_is_one_sentence(
    work: Work, tmp_path: Path, column: str, values: list[object], words: str
) -> None:
    log = f"user,item,{column}\n" + "".join(f"u,{n % 8},{values[n % len(values)]}\n" for n in range(40))
    write(tmp_path, items__csv=ITEMS, events__csv=log)
    with pytest.raises(UserError) as error:
        catalog.build(work, config.Catalog("csv", "items.csv", "events.csv"), tmp_path, now=NOW)
    assert words in str(error.value)


# --- Order and ties ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "falling"), [("playcount", True), ("hours", False), ("satisfaction", True)])
def test_rows_that_are_sorted_by_a_number_are_noticed(work: Work, tmp_path: Path, name: str, falling: bool) -> None:
    values = [round(k / 100, 2) for k in range(1, 100)]
    log = f"user,item,{name}\n" + "".join(
        f"u{user},{k % 8},{value}\n" for user in range(3) for k, value in enumerate(sorted(values, reverse=falling))
    )
    write(tmp_path, items__csv=ITEMS, events__csv=log)
    outcome = catalog.build(work, config.Catalog("csv", "items.csv", "events.csv"), tmp_path, now=NOW)
    told = str(outcome.metrics["catalog.read"])
    assert f"stand in {'falling' if falling else 'rising'} order of '{name}'" in told


def test_rows_in_no_order_are_not_said_to_be_sorted(work: Work, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(1, 1000, 300)
    log = "user,item,playcount\n" + "".join(f"u{n // 100},{n % 8},{value}\n" for n, value in enumerate(values))
    write(tmp_path, items__csv=ITEMS, events__csv=log)
    outcome = catalog.build(work, config.Catalog("csv", "items.csv", "events.csv"), tmp_path, now=NOW)
    assert "order of" not in str(outcome.metrics["catalog.read"])
