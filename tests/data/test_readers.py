"""Public tables as people have them, in miniature: from `init` to the catalog without editing a file."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from tests.data.test_sources import NOW, rows, write

from byway.base import config
from byway.base.artifact import Work
from byway.base.errors import UserError
from byway.data import catalog, events, starting
from byway.data.public import DESCRIBED


def made(work: Work, name: str, folder: Path) -> dict[str, int]:
    """What was kept out by reason, after `init --from name` and the build of the catalog."""
    workspace = folder.parent / "W"
    workspace.mkdir()
    (workspace / "byway.toml").write_text(starting.start(name, folder).text)
    settings = config.load(workspace / "byway.toml").catalog
    return catalog.build(work, settings, workspace, now=NOW).metrics["catalog.quarantined"]


def log(work: Work) -> list[tuple[str, str, float]]:
    """User, item and satisfaction of each event, in the order of the file."""
    users, items = events.load_users(work.out), catalog.load(work.out).ids()
    found = rows(work, "events.parquet")
    return [(users[row["user"]], items[row["item"]], round(row["satisfaction"], 4)) for row in found]


@pytest.mark.parametrize("name", ["recbole", "csv"])
def test_recbole_s_atomic_files(work: Work, tmp_path: Path, name: str) -> None:
    folder = write(
        tmp_path / "ml-100k",
        **{
            "ml-100k__inter": (
                "user_id:token\titem_id:token\ttimestamp:float\n196\t2\t881250949\n186\t1\t891717742\n196\t1\t881250950\n"
            ),
            "ml-100k__item": (
                "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
                '1\tToy Story\t1995\tAnimation Children\'s Comedy\n2\t"Quoted" half\t1995\tAction\n'
                "3\tBought\t1999\t'Arts, Crafts' 'Model'\n"
            ),
            "ml-100k__user": "user_id:token\tage:token\n196\t24\n",
        },
    )
    assert made(work, name, folder) == {}
    assert [(row["item"], row["title"], row["hashtags"]) for row in rows(work, "items.parquet")] == [
        ("1", "Toy Story", ["Animation", "Children's", "Comedy"]),
        ("2", '"Quoted" half', ["Action"]),
        ("3", "Bought", ["Arts, Crafts", "Model"]),
    ]
    assert log(work) == [("196", "2", 1), ("196", "1", 1), ("186", "1", 1)]
    assert events.load(work.out).time.tolist() == [881250949_000_000, 881250950_000_000, 891717742_000_000]


@pytest.mark.parametrize("packed", [False, True])
def test_amazon_reviews_2023(work: Work, tmp_path: Path, packed: bool) -> None:
    meta = [
        {
            "main_category": "All Beauty", "title": "Howard LC0008 Leather Conditioner", "average_rating": 4.8,
            "features": ["Care for leather.", "Restores"], "description": ["A conditioner"], "price": None,
            "images": [{"thumb": "https://x/1.jpg", "large": "https://x/2.jpg", "variant": "MAIN"}], "videos": [],
            "store": "Howard Products", "categories": ["Beauty", "Skin, Care"], "details": {"UPC": "1"},
            "parent_asin": "B01CUPMQZE", "bought_together": None,
        },
        {"title": "Yes to Tomatoes", "features": [], "description": [], "store": None, "categories": [],
         "parent_asin": "B076WQZGPM"},
    ]  # fmt: skip
    reviews = [
        {"rating": 5.0, "title": "Such a lovely scent", "text": "Good.", "images": [], "asin": "B00YQ6X8EO",
         "parent_asin": "B076WQZGPM", "user_id": "AGKHLEW2SOWHNMFQIJGBECAF7INQ", "timestamp": 1588687728923,
         "helpful_vote": 0, "verified_purchase": True},
        {"rating": 1.0, "title": "Works great", "text": "x", "images": [], "asin": "B01CUPMQZE",
         "parent_asin": "B01CUPMQZE", "user_id": "AGKHLEW2SOWHNMFQIJGBECAF7INQ", "timestamp": 1588615855070,
         "helpful_vote": 1, "verified_purchase": True},
    ]  # fmt: skip
    folder = tmp_path / "amazon"
    folder.mkdir()
    for name, lines in (("meta_All_Beauty.jsonl", meta), ("All_Beauty.jsonl", reviews)):
        data = "".join(json.dumps(line) + "\n" for line in lines).encode()
        (folder / (name + (".gz" if packed else ""))).write_bytes(gzip.compress(data) if packed else data)
    assert made(work, "amazon", folder) == {}
    first, second = rows(work, "items.parquet")
    assert (first["item"], first["title"]) == ("B01CUPMQZE", "Howard LC0008 Leather Conditioner")
    assert first["description"] == "Care for leather. Restores A conditioner"
    assert first["hashtags"] == ["Beauty", "Skin, Care"]
    assert (first["creator"], second["creator"], second["hashtags"]) == ("Howard Products", None, [])
    user = "AGKHLEW2SOWHNMFQIJGBECAF7INQ"
    assert log(work) == [(user, "B01CUPMQZE", 0), (user, "B076WQZGPM", 1)]
    assert events.load(work.out).time.tolist() == [1588615855070_000, 1588687728923_000]


def test_amazon_reviews_as_python_wrote_them_in_2014(work: Work, tmp_path: Path) -> None:
    folder = write(
        tmp_path / "amazon",
        meta_Toys__json=(
            "{'asin': '0001', 'title': \"Child's toy\", 'categories': [['Toys', 'Puzzles']], 'brand': 'X'}\n"
        ),
        reviews_Toys_5__json=(
            '{"reviewerID": "A1", "asin": "0001", "overall": 4.0, "unixReviewTime": 1252800000, "summary": "ok"}\n'
        ),
    )
    assert made(work, "amazon", folder) == {}
    item = rows(work, "items.parquet")[0]
    assert (item["title"], item["hashtags"], item["creator"]) == ("Child's toy", ["Toys", "Puzzles"], "X")
    assert log(work) == [("A1", "0001", 0.75)]
    assert events.load(work.out).time.tolist() == [1252800000_000_000]


def test_anime_has_unrated_events_and_genres_in_one_text(work: Work, tmp_path: Path) -> None:
    folder = write(
        tmp_path / "anime",
        anime__csv=(
            "anime_id,name,genre,type,episodes,rating,members\n"
            '32281,Kimi no Na wa.,"Drama, Romance, School",Movie,1,9.37,200630\n'
            "5114,Fullmetal,Action,TV,64,9.26,1\n"
        ),
        rating__csv="user_id,anime_id,rating\n1,32281,-1\n1,5114,10\n3,32281,1\n",
    )
    assert made(work, "anime", folder) == {}
    assert rows(work, "items.parquet")[0]["hashtags"] == ["Drama", "Romance", "School"]
    assert log(work) == [("1", "32281", 0.5), ("1", "5114", 1), ("3", "32281", 0)]


def test_goodreads_shelves_are_tags_and_its_clock_is_read(work: Work, tmp_path: Path) -> None:
    shelves = [{"count": "3", "name": "to-read"}, {"count": "1", "name": "p"}]
    books = [
        {"isbn": "0312853122", "popular_shelves": shelves, "title": "W.C. Fields: A Life on Film",
         "book_id": "5333265", "authors": [{"author_id": "604031", "role": ""}], "description": "About him",
         "image_url": "https://x/1.png"},
        {"popular_shelves": [], "title": "Good Harbor", "book_id": "1333909", "authors": [], "description": ""},
    ]  # fmt: skip
    read = {"user_id": "8842281e1d", "is_read": True, "review_text_incomplete": "", "date_updated": ""}
    acts = [
        {**read, "book_id": "5333265", "rating": 5, "date_added": "Fri Apr 19 07:01:17 -0700 2013"},
        {**read, "book_id": "1333909", "rating": 0, "date_added": "Wed Dec 29 01:01:17 +0530 2010"},
        {**read, "book_id": "1333909", "rating": 3, "date_added": "yesterday", "user_id": "other"},
        {**read, "book_id": "1333909", "rating": 3, "date_added": "Wed Apr 31 07:01:17 -0700 2013"},
    ]
    folder = tmp_path / "goodreads"
    folder.mkdir()
    for name, lines in (("goodreads_books_poetry", books), ("goodreads_interactions_poetry", acts)):
        data = "".join(json.dumps(line) + "\n" for line in lines).encode()
        (folder / f"{name}.json.gz").write_bytes(gzip.compress(data))
    assert made(work, "goodreads", folder) == {"bad time": 2}
    first, second = rows(work, "items.parquet")
    assert (first["title"], first["description"]) == ("W.C. Fields: A Life on Film", "About him")
    assert (first["hashtags"], second["hashtags"]) == (["to-read", "p"], [])
    assert log(work) == [("8842281e1d", "1333909", 0.5), ("8842281e1d", "5333265", 1)]
    assert events.load(work.out).time.tolist() == [1293564677_000_000, 1366380077_000_000]


def test_steam_200k_has_no_header_and_its_games_are_their_names(work: Work, tmp_path: Path) -> None:
    folder = write(
        tmp_path / "steam",
        **{
            "steam-200k__csv": (
                '151603712,"The Elder Scrolls V Skyrim",purchase,1.0,0\n'
                '151603712,"The Elder Scrolls V Skyrim",play,273.0,0\n'
                "151603712,Fallout 4,purchase,1.0,0\n59945701,Fallout 4,play,0.5,0\n59945701,Fallout 4,play,2.0,0\n"
            )
        },
    )
    assert made(work, "steam", folder) == {}
    assert catalog.load(work.out).titles() == ["The Elder Scrolls V Skyrim", "Fallout 4"]
    skyrim, fallout = catalog.load(work.out).ids()
    assert log(work) == [
        ("151603712", skyrim, 1), ("151603712", fallout, 0.25), ("59945701", fallout, 0.75),
    ]  # fmt: skip
    assert [row["watch_seconds"] for row in rows(work, "events.parquet")] == [273 * 3600, None, 2 * 3600]


@pytest.mark.parametrize("place", ["goodbooks", "goodbooks/data"])
def test_goodbooks_has_tags_by_another_number(work: Work, tmp_path: Path, place: str) -> None:
    tags = "".join(f"{n},tag-{n}\n" for n in range(20))
    write(
        tmp_path / place,
        books__csv=(
            "book_id,goodreads_book_id,best_book_id,work_id,isbn,authors,original_title,title,ratings_count\n"
            '1,2767052,2767052,2792775,439023483,Suzanne Collins,The Hunger Games,"The Hunger Games (#1)",4780653\n'
            "2,3,3,4640799,439554934,J.K. Rowling,,Harry Potter,4602479\n"
        ),
        ratings__csv="user_id,book_id,rating\n1,2,5\n2,1,1\n",
        book_tags__csv="goodreads_book_id,tag_id,count\n"
        + "".join(f"2767052,{n},{n + 1}\n" for n in range(20))
        + "3,1,many\n",
        tags__csv="tag_id,tag_name\n" + tags,
    )
    assert made(work, "goodbooks", tmp_path / "goodbooks") == {}
    first, second = rows(work, "items.parquet")
    assert (first["title"], first["creator"]) == ("The Hunger Games (#1)", "Suzanne Collins")
    assert first["hashtags"] == [f"tag-{n}" for n in range(10, 20)]
    assert (second["hashtags"], first["thumbnail"]) == (["tag-1"], None)
    assert log(work) == [("1", "2", 1), ("2", "1", 0)]


def test_lastfm_tags_are_latin_1_and_one_act_is_one_event(work: Work, tmp_path: Path) -> None:
    folder = write(
        tmp_path / "hetrec2011-lastfm-2k",
        artists__dat=(
            "id\tname\turl\tpictureURL\r\n1\tMALICE MIZER\thttp://x\thttp://y\r\n"
            '2\t"Diary" of Dréams\thttp://x\t\r\n'
        ),
        tags__dat="tagID\ttagValue\r\n1\tmetal\r\n2\tchanson française\r\n".encode("latin-1"),
        user_taggedartists__dat=(
            "userID\tartistID\ttagID\tday\tmonth\tyear\r\n2\t1\t1\t1\t4\t2009\r\n2\t1\t2\t1\t4\t2009\r\n9\t1\t2\t1\t4\t2009\r\n"
        ),
        **{
            "user_taggedartists-timestamps__dat": (
                "userID\tartistID\ttagID\ttimestamp\r\n2\t2\t1\t1238536900000\r\n2\t1\t1\t1238536800000\r\n"
                "2\t1\t2\t1238536800000\r\n9\t1\t2\t1238536800001\r\n"
            )
        },
        user_artists__dat="userID\tartistID\tweight\r\n2\t1\t13883\r\n",
    )
    assert made(work, "lastfm", folder) == {}
    assert [(row["title"], row["hashtags"]) for row in rows(work, "items.parquet")] == [
        ("MALICE MIZER", ["chanson française", "metal"]),
        ('"Diary" of Dréams', []),
    ]
    assert log(work) == [("2", "1", 1), ("2", "2", 1), ("9", "1", 1)]
    assert events.load(work.out).time.tolist() == [1238536800000_000, 1238536900000_000, 1238536800001_000]


def test_mind_has_what_was_shown_and_not_clicked(work: Work, tmp_path: Path) -> None:
    folder = write(
        tmp_path / "MINDsmall_train",
        news__tsv=(
            'N55528\tlifestyle\tlifestyleroyals\tThe "Brands" Queen\tShop the notebooks\thttps://x\t'
            '[{"Label": "P"}]\t[]\n'
            "N19639\thealth\tweightloss\t50 Worst Habits\t\thttps://y\t[]\t[]\n"
        ),
        behaviors__tsv=(
            "1\tU13740\t11/11/2019 9:05:58 AM\tN55528 N19639\tN55528-1 N19639-0\n"
            "2\tU91836\t11/12/2019 6:11:30 PM\t\tN19639-1\n3\tU91836\tyesterday\t\tN19639-1 N55528-0\n"
            "4\tU91836\t02/30/2019 6:11:30 PM\t\tN19639-1\n"
        ),
    )
    assert made(work, "mind", folder) == {"bad time": 3}
    first, second = rows(work, "items.parquet")
    assert (first["item"], first["title"], first["description"]) == (
        "N55528",
        'The "Brands" Queen',
        "Shop the notebooks",
    )
    assert (first["hashtags"], second["hashtags"]) == (["lifestyle", "lifestyleroyals"], ["health", "weightloss"])
    assert log(work) == [("U13740", "N55528", 1), ("U13740", "N19639", 0), ("U91836", "N19639", 1)]
    stamps = np.array(["2019-11-11T09:05:58", "2019-11-11T09:05:58", "2019-11-12T18:11:30"], "datetime64[us]")
    assert events.load(work.out).time.tolist() == stamps.astype(int).tolist()


@pytest.mark.parametrize("name", [*DESCRIBED, "recbole", "json"])
def test_a_reader_says_what_is_not_there(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=str(tmp_path)):
        starting.start(name, tmp_path)
