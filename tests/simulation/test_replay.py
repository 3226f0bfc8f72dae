"""Real answers: KuaiRec's matrix in both layouts, and what people went on to rate in a log that was cut in two."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from byway.base import config
from byway.base.artifact import Work
from byway.base.errors import UserError
from byway.data import catalog as read_again
from byway.data import events as log
from byway.data import later
from byway.data.events import Events
from byway.simulation import experiment, replay, truth
from byway.simulation.platform import Impressions, LiveSettings, live
from byway.simulation.runs import Setup, run_arm
from byway.simulation.source import Asked, Floats, Ints, Logged, best
from tests.simulation import planted

USERS, ITEMS = ["10", "11", "12"], ["v", "100", "101", "102"]


def nobody() -> Events:
    empty = np.empty(0)
    return Events(empty.astype("i4"), empty.astype("i4"), empty.astype("i8"), empty.astype("f4"), False, 3, 4)


def test_the_public_layout(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "small_matrix.csv").write_text(
        "user_id,video_id,play_duration,video_duration,time,date,timestamp,watch_ratio\n"
        "10,100,3000,3000,x,1,1.0,1.0\n10,102,9000,3000,x,1,1.0,3.0\n12,100,0,3000,x,1,,0.0\n99,100,1,1,x,1,1,1\n"
    )
    real, users, missing = truth.open_truth(tmp_path, ITEMS, USERS, nobody(), 2)
    assert isinstance(real, replay.Replay)
    assert users.tolist() == [0, 2]
    assert missing[users].tolist() == [[True, False, True, False]] * 2
    assert missing[1].all()
    assert real.visits(0, np.random.default_rng(0)).tolist() == [2, 0, 2]
    felt = real.watch(np.array([0, 2]), np.array([3, 1]), np.random.default_rng(0))
    assert felt.satisfaction.tolist() == [1.0, 0.0]
    assert felt.seconds.tolist() == [9.0, 0.0]
    once = real.watch(np.array([0]), np.array([1]), np.random.default_rng(0))
    assert once.satisfaction.tolist() == [0.5]
    assert real.visits(1, np.random.default_rng(0)).tolist() == [0, 0, 1]


def test_the_layout_of_positives(tmp_path: Path) -> None:
    (tmp_path / "positives_fully_observed.csv").write_text("user_id,video_id\n10,100\n12,102\n")
    assert truth.kind(tmp_path) == "matrix"
    real, users, missing = truth.open_truth(tmp_path, ITEMS, USERS, nobody(), 2)
    assert isinstance(real, replay.Replay)
    assert users.tolist() == [0, 2]
    assert missing[users].tolist() == [[True, False, True, False]] * 2
    assert missing[1].all()
    assert real.satisfaction.sum() == 2
    # Seen by 10 and not liked.
    assert real.watch(np.array([0]), np.array([3]), np.random.default_rng(0)).satisfaction.tolist() == [0.0]


def test_strangers_and_an_empty_folder_are_explained(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="what people feel"):
        truth.file(tmp_path)
    (tmp_path / "small_matrix.csv").write_text("user_id,video_id,play_duration,watch_ratio\n7,8,1,1\n")
    with pytest.raises(UserError, match="none of its users"):
        truth.open_truth(tmp_path, ITEMS, USERS, nobody(), 2)


def test_an_arm_is_answered_by_the_matrix(tmp_path: Path) -> None:
    """Everything shown is in the matrix, and positive feedback is what the matrix says of just these pairs."""
    tiny = planted.tiny()
    setup = planted.setup(tiny, tmp_path, days=3)
    n, items = len(tiny.user_ids), np.arange(0, 420, 2)
    liked = (np.random.default_rng(0).random((n, 420)) < 0.3).astype(np.float32)
    users = np.arange(0, n, 3)
    matrix = liked[np.ix_(users, items)]
    pairs = np.repeat(users, len(items)), np.tile(items, len(users))
    real = replay.Replay(*pairs, matrix.ravel(), np.zeros(matrix.size, np.float32), (n, 420), 5)
    own = Setup(setup.context, real, real.users, real.missing(), None, tmp_path)
    run = run_arm(own, {}, "control", real.users, 0, "")
    assert run.items[1::2].sum() == 0
    assert run.tally["platform.impressions"][0].sum() == 3 * 5 * len(real.users)
    with np.load(next(tmp_path.glob("run*.npz"))) as saved:
        np.testing.assert_array_equal(saved["satisfaction"], liked[saved["user"], saved["item"]])
    assert "watch_minutes" not in run.tally


LENGTH = 5


def cut() -> tuple[planted.Tiny, Events, replay.Replay]:
    """The tiny world's log cut in two, and the later ratings, of which the log knows nothing."""
    tiny = planted.tiny()
    whole = tiny.events
    late = later.last(whole.user, 0.4, 20)
    earlier = Events(
        *(a[~late] for a in (whole.user, whole.item, whole.time, whole.satisfaction)),
        whole.clock,
        whole.n_users,
        whole.n_items,
    )
    shape = (whole.n_users, whole.n_items)
    user, item = whole.user[late].astype(np.int64), whole.item[late].astype(np.int64)
    nothing = np.zeros(len(user), np.float32)
    return tiny, earlier, replay.Replay(user, item, whole.satisfaction[late], nothing, shape, LENGTH)


class Oracle:
    """Knows what each user will say; names what pleases most, or least."""

    def __init__(self, told: Floats):
        self.told = told
        self.learned: Logged | None = None

    def learn(self, log: Logged, today: int) -> None:
        self.learned = log

    def nominate(self, asked: Asked, k: int, rng: np.random.Generator) -> Ints:
        return best(np.where(asked.seen, np.float32(-np.inf), self.told[asked.user]), k)


def shown_by(arm: Oracle, folder: Path, days: int) -> tuple[Impressions, replay.Replay]:
    tiny, earlier, people = cut()
    context = planted.context(tiny, folder)
    shown = live(
        people, context.known, experiment.logged(earlier), people.missing(), arm, people.users,
        settings=LiveSettings(days, 1.0, candidates=20, blur=0.05), rng=np.random.default_rng(0),
    )  # fmt: skip
    return shown, cut()[2]


def answers(of: replay.Replay) -> Floats:
    """[U, N] satisfaction, NaN where there is no later rating."""
    out = np.full(of.shape, np.nan, np.float32)
    out.ravel()[of.pair] = of.satisfaction
    return out


@pytest.mark.parametrize("sign", [1, -1])
def test_who_knows_who_likes_what_gets_the_known_rate(tmp_path: Path, sign: int) -> None:
    """Of a first day's five places as many please as the user likes, or displeases, of what is left for them."""
    told = answers(cut()[2])
    shown, people = shown_by(Oracle(np.nan_to_num(sign * told)), tmp_path, days=1)
    liked, rated = (told >= 0.5).sum(1), (~np.isnan(told)).sum(1)
    places = np.minimum(rated, LENGTH)
    assert np.bincount(shown.user, minlength=len(rated)).tolist() == places.tolist()
    pleased = np.minimum(liked, places) if sign > 0 else np.maximum(places - (rated - liked), 0)
    found = np.bincount(shown.user, shown.satisfaction >= 0.5, minlength=len(rated))
    assert found.tolist() == pleased.tolist()
    assert (rated < LENGTH).sum() + (liked < places).sum() > 0
    assert people.users.tolist() == np.flatnonzero(rated).tolist()


def test_people_are_shown_all_that_they_rated_later_and_nothing_else(tmp_path: Path) -> None:
    told = answers(cut()[2])
    arm = Oracle(np.nan_to_num(told))
    shown, people = shown_by(arm, tmp_path, days=40)
    pairs = shown.user * people.shape[1] + shown.item
    assert np.array_equal(np.sort(pairs), people.pair)
    np.testing.assert_array_equal(shown.satisfaction, told[shown.user, shown.item])
    # Who has none left stays away: the last visit of each is the one that their ratings last for.
    last = np.zeros(people.shape[0], np.int64)
    np.maximum.at(last, shown.user, shown.day + 1)
    assert last.tolist() == np.ceil(people.left / LENGTH).tolist()
    # What the arm last learned from knows of a later rating only where it was shown on an earlier day.
    assert arm.learned is not None
    before = arm.learned.day < 0
    assert not np.isin((arm.learned.user * people.shape[1] + arm.learned.item)[before], people.pair).any()


def test_a_run_with_later_ratings_counts_what_somebody_can_be_shown(tmp_path: Path) -> None:
    tiny, earlier, people = cut()
    setup = planted.setup(tiny, tmp_path, days=2)
    context = replace(setup.context, log=experiment.logged(earlier))
    own = Setup(context, people, people.users, people.missing(), None, tmp_path)
    items = np.unique(people.pair % people.shape[1])
    assert np.flatnonzero(own.there).tolist() == items.tolist()
    everybody = Setup(context, people, people.users, ~own.there, None, tmp_path)
    assert everybody.there.tolist() == own.there.tolist()
    run = run_arm(own, {}, "control", people.users, 0, "")
    assert run.items.sum() == np.minimum(people.left, 2 * LENGTH).sum()
    assert not run.items[~own.there].any()


def test_showing_what_was_not_rated_later_is_an_error() -> None:
    people = cut()[2]
    user, item = divmod(int(np.flatnonzero(people.missing())[0]), people.shape[1])
    with pytest.raises(LookupError):
        people.watch(np.array([user]), np.array([item]), np.random.default_rng(0))


def catalog(folder: Path, clock: bool, extra: bool) -> tuple[Path, pa.Table]:
    """A finished 01-catalog of three people with 25, 24 and 3 events, most of them in bursts of one time."""
    folder.mkdir()
    size = [25, 24, 3]
    user = np.repeat(np.arange(3, dtype=np.int32), size)
    rng = np.random.default_rng(4)
    item = np.concatenate([rng.permutation(40)[:n] for n in size]).astype(np.int32)
    time = np.concatenate([np.arange(n) // 10 * 10**12 if clock else np.arange(n) for n in size])
    n = len(user)
    log = {
        "user": user,
        "item": item,
        "time": time,
        "satisfaction": rng.random(n).astype(np.float32),
        "watch_seconds": pa.array(rng.random(n) if extra else [None] * n, pa.float32()),
        "source": pa.array(["feed" if extra else None] * n, pa.string()).dictionary_encode(),
        "propensity": pa.nulls(n, pa.float32()),
    }
    events = pa.table(log).replace_schema_metadata({"clock": "true" if clock else "false", "positive": "0.5"})
    pq.write_table(events, folder / "events.parquet")
    pq.write_table(pa.table({"user": ["u", "v", "w"]}), folder / "users.parquet")
    items = {name: pa.nulls(40, pa.string()) for name in ("description", "creator", "media")}
    items |= {
        "item": pa.array([f"i{i}" for i in range(40)]),
        "title": pa.array([f"title {i}" for i in range(40)]),
        "thumbnail": pa.array(["a/b.jpg", None, "s3://there/c.jpg", "/d.jpg"] * 10),
        "created_at": pa.array(range(40), pa.int64()),
    }
    pq.write_table(pa.table(items), folder / "items.parquet")
    return folder, events


@pytest.mark.parametrize(("clock", "extra"), [(True, False), (False, True)])
def test_a_log_is_cut_without_loss(tmp_path: Path, clock: bool, extra: bool) -> None:
    folder, events = catalog(tmp_path / "01-catalog", clock, extra)
    counts = later.split(folder, tmp_path / "out", share=0.3, at_least=24, media=tmp_path / "media")
    early, late = (pq.read_table(tmp_path / "out" / name) for name in ("events.parquet", later.FILE))
    assert counts == {"items": 40, "people": 3, "people_with_later": 2, "earlier": 38, "later": 14}
    columns = ["user", "item", "satisfaction"]
    names = [("u", 25, 7), ("v", 24, 7), ("w", 3, 0)]
    start = early_at = late_at = 0
    for name, size, taken in names:
        rows = events.slice(start, size)
        whole = [
            (name, f"i{i}", s)
            for i, s in zip(rows["item"].to_pylist(), rows["satisfaction"].to_pylist(), strict=True)
        ]
        ours = [
            [tuple(row.values()) for row in part.select(columns).slice(at, n).to_pylist()]
            for part, at, n in ((early, early_at, size - taken), (late, late_at, taken))
        ]
        # In the order of the log although times are equal across the cut.
        assert ours[0] + ours[1] == whole
        start, early_at, late_at = start + size, early_at + size - taken, late_at + taken
    assert (early_at, late_at) == (early.num_rows, late.num_rows)
    assert early.column_names == ["user", "item", *(["time"] if clock else []), "satisfaction"] + (
        ["watch_seconds", "source"] if extra else []
    )
    items = pq.read_table(tmp_path / "out" / "items.parquet")
    assert items["thumbnail"].to_pylist()[:4] == [
        str(tmp_path / "media/a/b.jpg"),
        None,
        "s3://there/c.jpg",
        "/d.jpg",
    ]
    assert "creator" not in items.column_names


def test_the_earlier_part_comes_through_the_catalog_unchanged(tmp_path: Path, work: Work) -> None:
    folder, events = catalog(tmp_path / "01-catalog", True, False)
    later.split(folder, tmp_path / "source", at_least=24)
    settings = config.Catalog(items="source/items.parquet", events="source/events.parquet")
    read_again.build(work, settings, tmp_path)
    early = log.load(work.out)
    kept = ~later.last(events["user"].to_numpy(), 0.3, 24)
    for name in ("user", "item", "time", "satisfaction"):
        assert np.array_equal(getattr(early, name), events[name].to_numpy()[kept])
    assert log.load_users(work.out) == ["u", "v", "w"]
    items = pq.read_table(work.out / "items.parquet")
    assert items["item"].to_pylist() == [f"i{i}" for i in range(40)]
    assert items["created_at"].to_pylist() == list(range(40))


def test_later_ratings_are_read(tmp_path: Path) -> None:
    """Strangers are left out, and so is what is in the log already; of two ratings of an item the first counts."""
    rows = [
        ("12", "102", 0.25), ("10", "101", 1.0), ("12", "102", 0.75), ("10", "100", 0.5), ("9", "v", 1.0),
        ("12", "film", 1.0),
    ]  # fmt: skip
    table = pa.table(dict(zip(later.SCHEMA.names, map(list, zip(*rows, strict=True)), strict=True)))
    pq.write_table(table, tmp_path / later.FILE)
    log = Events(np.array([0]), np.array([1]), np.array([0]), np.ones(1, "f4"), True, 3, 4)
    assert truth.kind(tmp_path) == "later"
    people, users, missing = truth.open_truth(tmp_path, ITEMS, USERS, log, 10)
    assert isinstance(people, replay.Replay)
    assert users.tolist() == [0, 2]
    assert np.argwhere(~missing).tolist() == [[0, 2], [2, 3]]
    rng = np.random.default_rng(0)
    assert people.visits(0, rng).tolist() == [1, 0, 1]
    felt = people.watch(np.array([0, 2]), np.array([2, 3]), rng)
    assert felt.satisfaction.tolist() == [1.0, 0.25]
    assert people.visits(1, rng).tolist() == [0, 0, 0]


def test_what_cannot_be_replayed_is_explained(tmp_path: Path) -> None:
    folder, events = catalog(tmp_path / "01-catalog", True, False)
    with pytest.raises(UserError, match="26 events"):
        later.split(folder, tmp_path / "out", at_least=26)
    with pytest.raises(UserError, match="one part empty"):
        later.split(folder, tmp_path / "out", share=1.0)
    with pytest.raises(UserError, match="build it: byway run"):
        later.split(tmp_path, tmp_path / "out")
    later.split(folder, tmp_path / "out")
    whole = Events(*(events[name].to_numpy() for name in ("user", "item", "time", "satisfaction")), True, 3, 40)
    with pytest.raises(UserError, match="still had before them"):
        truth.open_truth(tmp_path / "out", [f"i{i}" for i in range(40)], ["u", "v", "w"], whole, 10)
    table = pq.read_table(tmp_path / "out" / later.FILE)
    pq.write_table(table.set_column(2, "satisfaction", pa.array(np.full(len(table), 5.0))), tmp_path / later.FILE)
    with pytest.raises(UserError, match="outside 0 to 1"):
        truth.open_truth(tmp_path, [], [], whole, 10)
    pq.write_table(table.drop_columns("item"), tmp_path / later.FILE)
    with pytest.raises(UserError, match="no column 'item'"):
        truth.open_truth(tmp_path, [], [], whole, 10)


@pytest.mark.realdata
def test_the_real_matrix_is_read(realdata: Callable[[str], Path]) -> None:
    folder = realdata("kuairec")
    path = truth.file(folder)
    pairs = np.loadtxt(path, delimiter=",", skiprows=1, dtype=np.int64)
    users = [str(u) for u in np.unique(pairs[:, 0])]
    items = [str(v) for v in np.unique(pairs[:, 1])]
    real = replay.load(path, items, users, 10)
    assert len(real.users) == 688
    assert (~real.missing()).any(0).sum() <= 3327
    assert real.satisfaction.sum() == len(pairs) == 107_309
