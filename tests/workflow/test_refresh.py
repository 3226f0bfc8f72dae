"""A refresh of a small world: new items servable at once, all else untouched, counts as if read in full."""

import itertools
import json
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from byway import cli
from byway.base import artifact, config
from byway.base.artifact import Outcome, Record, Work
from byway.base.errors import UserError
from byway.data import events
from byway.interests import embed, placement, tree
from byway.language.fast import bulk
from byway.serving import bundle, publish
from byway.serving.person import Seen
from byway.serving.recommend import recommend
from byway.transitions import curate
from byway.transitions import table as tables
from byway.transitions.curate import Transitions
from byway.transitions.signals import Scorer, TableWeights
from byway.transitions.triples import key, unkey
from byway.workflow import arrivals, pipeline, refresh, showing, stages

TOPICS = ["harbour", "violin", "glacier", "bakery", "chess", "orchid"]
ITEMS, USERS, EVENTS = 240, 60, 30
TOML = """
[catalog]
source = "csv"
items = "items.csv"
events = "events.csv"
[tree]
items_per_cluster = 20
[item_policy]
epochs = 1
dim = 8
history = 8
[run]
threads = 1
"""


def encoder(settings: object) -> Any:
    """Texts of one topic lie together, and each at its own place."""

    def encode(texts: list[str]) -> Any:
        topic = [np.random.default_rng(zlib.crc32(t.split()[0].encode())).normal(size=32) for t in texts]
        own = [np.random.default_rng(zlib.crc32(t.encode())).normal(size=32) for t in texts]
        return np.asarray(topic, np.float32) + 0.3 * np.asarray(own, np.float32)

    return encode


def table(work: Work, transitions: Transitions) -> Outcome:
    """A table by the log's counts alone."""
    M, K = transitions.clusters, transitions.train.context.shape[1]
    pairs = np.array(list(itertools.product(range(M), repeat=2)), np.int32)
    evidence = Scorer.from_log(transitions)
    best, _ = bulk.by_evidence(np.column_stack([pairs[:, :1]] * (K - 1) + [pairs[:, 1:]]), evidence, M, 4)
    best = best.reshape(M, M, 4)
    if (triples := tables.triples_of(transitions, 10_000)) is not None:
        own, _ = bulk.by_evidence(triples, evidence, M, 4)
        for name, values in (("keys", key(triples, M)), ("clusters", own), ("model", own)):
            np.save(work.out / f"triple_{name}.npy", values)
    for name, values in (("clusters", best), ("model", best), ("scores", best.astype(np.float32))):
        np.save(work.out / f"{name}.npy", values)
    (work.out / "fitted.json").write_bytes(msgspec.json.encode(TableWeights({"counts": 1.0})))
    return Outcome()


def titles(first: int, last: int) -> list[str]:
    return [f'{i},"{TOPICS[i % 6]} {TOPICS[i // 6 % 6]} number {i}"' for i in range(first, last)]


def log(first: int, last: int, items: int, start: int, seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return [
        f"u{u},{rng.integers(items)},{start + 1000 * u + t},{rng.choice([0, 1])}"
        for u in range(first, last)
        for t in range(EVENTS)
    ]


def write(path: Path, header: str, rows: list[str]) -> Path:
    path.write_text("\n".join([header, *rows]), "utf-8")
    return path


ITEM, EVENT = "item,title", "user,item,time,satisfaction"


@contextmanager
def without_language_model(cheap: stages.Stage) -> Iterator[None]:
    """The pipeline with a quick encoder, and `cheap` in the place of the language model and its table."""
    kept = [stage for stage in pipeline.STAGES if stage not in (stages.LANGUAGE_MODEL, stages.METRICS)]
    kept[kept.index(stages.TRANSITION_TABLE)] = cheap
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embed, "sentence_encoder", encoder)
        patch.setattr(pipeline, "STAGES", tuple(kept))
        yield


@pytest.fixture(scope="module", autouse=True)
def cheap() -> Iterator[None]:
    """A quick encoder, and no language model."""
    counted = replace(
        stages.TRANSITION_TABLE,
        build=lambda work, inputs: table(work, inputs.transitions),
        reads=(stages.TRANSITIONS,),
    )
    with without_language_model(counted):
        yield


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("w")
    write(folder / "items.csv", ITEM, titles(0, ITEMS))
    write(folder / "events.csv", EVENT, log(0, USERS, ITEMS, 1_700_000_000, 0))
    (folder / "byway.toml").write_text(TOML, "utf-8")
    pipeline.run(folder, config.load(folder / "byway.toml"))
    return folder


@pytest.fixture(scope="module")
def refreshed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two refreshes: items and events, then more of both; ten users are new in each."""
    folder = tmp_path_factory.mktemp("refreshed") / "w"
    artifact.shutil.copytree(built, folder)
    for step in range(2):
        first, last = ITEMS + 12 * step, ITEMS + 12 * step + 12
        take_in(
            folder,
            write(folder / f"new-items-{step}.csv", ITEM, titles(first - 3, last)),
            write(
                folder / f"new-events-{step}.csv",
                EVENT,
                log(50 + 10 * step, 70 + 10 * step, last, 1_710_000_000 + step * 10**7, step + 1),
            ),
        )
    return folder


def take_in(folder: Path, items: Path | None = None, events: Path | None = None, *settings: str) -> dict[str, Any]:
    return refresh.run(folder, config.load(folder / "byway.toml", settings), items, events)[0]


def digests(folder: Path) -> dict[str, str]:
    return {name: record.digest for name, record in pipeline.records(folder).items()}


def test_new_items_are_servable_and_where_their_topic_is(refreshed: Path) -> None:
    opened = bundle.load(refreshed / "13-bundle")
    assert len(opened.policy_rows) == ITEMS + 24
    topic_of = [TOPICS.index(opened.titles[p].split()[0]) for p in range(len(opened.policy_rows))]
    for i in range(ITEMS, ITEMS + 24):
        position = opened.position(str(i))
        assert position is not None
        assert opened.titles[position].endswith(f"number {i}")
        cluster = opened.cluster(position)
        known = [t for p, t in enumerate(topic_of) if opened.cluster(p) == cluster and int(opened.ids[p]) < ITEMS]
        assert Counter(known).most_common(1)[0][0] == i % 6
        # Read in a history as a known item of the same topic.
        assert opened.policy_rows[position] % 6 == i % 6
        assert np.isfinite(opened.encode([position])).all()
        assert np.linalg.norm(opened.vectors[position]) > 0
    answer = recommend(opened, [Seen(str(ITEMS)), Seen(str(ITEMS + 23)), Seen("3")], np.random.default_rng(0))
    assert answer.items


def test_a_refreshed_bundle_is_served(refreshed: Path, tmp_path: Path) -> None:
    records = pipeline.records(refreshed)
    settings = config.Serving(min_match_rate=0)
    name = publish.publish(tmp_path, refreshed / "13-bundle", settings, records)
    assert publish.current(tmp_path) == publish.Current(name)


def test_a_user_of_the_log_is_answered_and_told_what_the_log_lacks(
    refreshed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.recommend(refreshed, user="u1")
    assert "what a refresh took in is not in it" in " ".join(capsys.readouterr().err.split())
    with pytest.raises(UserError, match="no user 'u61' in the log of the last full run"):
        cli.recommend(refreshed, user="u61")


def test_show_lists_a_refresh(built: Path, refreshed: Path) -> None:
    settings = config.load(refreshed / "byway.toml")
    shown = json.loads(showing.as_json(refreshed, settings))
    assert shown["17-refresh"]["drift"] == []
    assert shown["17-refresh"]["metrics"].items() <= shown["figures"].items()
    assert "\n17-refresh " in showing.as_text(refreshed, settings, 1)
    assert "17-refresh" not in showing.as_text(built, settings, 1)


def test_what_was_there_stays_and_no_run_undoes_it(built: Path, refreshed: Path) -> None:
    before, after = digests(built), digests(refreshed)
    assert {name for name in before if before[name] != after[name]} == {"bundle"}
    pipeline.run(refreshed, config.load(refreshed / "byway.toml"))
    assert digests(refreshed) == after
    old, new = bundle.load(built / "13-bundle"), bundle.load(refreshed / "13-bundle")
    same = np.ones(old.table.shape[:2], dtype=bool)
    same[tuple(arrivals.load(refreshed / stages.REFRESH).pairs.T)] = False
    assert same.any()
    assert np.array_equal(old.table[same], new.table[same])
    for p in range(ITEMS):
        position = new.position(old.ids[p])
        assert position is not None
        assert new.cluster(position) == old.cluster(p)
        assert np.array_equal(new.vectors[position], old.vectors[p])


def test_the_counts_are_those_of_the_whole_log(built: Path, refreshed: Path) -> None:
    """Old and new events read as one log, with the new items in their places, give the old and new transitions."""
    held = arrivals.load(refreshed / stages.REFRESH)
    cut = tree.load(built / "04-tree")
    cluster_of = placement.grown(cut, held.leaf).assign(2)
    lines = [
        row.split(",")
        for name in ("events.csv", "new-events-0.csv", "new-events-1.csv")
        for row in (refreshed / name).read_text("utf-8").splitlines()[1:]
    ]
    number = {user: i for i, user in enumerate(dict.fromkeys(line[0] for line in lines))}
    lines.sort(key=lambda line: (number[line[0]], int(line[2])))
    user, item, time, good = (
        np.array(column)
        for column in zip(*((number[u], int(i), int(t), float(s)) for u, i, t, s in lines), strict=True)
    )
    whole = events.Events(
        user.astype(np.int32),
        item.astype(np.int32),
        time,
        good.astype(np.float32),
        True,
        len(number),
        len(cluster_of),
    )
    found = curate.find(whole, cluster_of, cut.size(2), 2)
    wanted = Counter(map(tuple, np.column_stack([found.context, found.label]).tolist()))
    old = curate.load(built / "06-transitions")
    counted: Counter[tuple[int, ...]] = Counter()
    for part in (old.train, old.validation, old.heldout, held.transitions):
        rows = np.column_stack([part.context, part.label]).tolist()
        counted.update(dict(zip(map(tuple, rows), part.count.tolist(), strict=True)))
    assert counted == wanted
    assert np.array_equal(held.traffic, np.bincount(item, minlength=len(cluster_of)))
    assert held.users == [user for user in number if int(user[1:]) >= USERS]


def test_a_refresh_ranks_by_the_weights_that_stand_in_the_artifact(built: Path, tmp_path: Path) -> None:
    """Not by figures of the record, where a signal that is missing would silently weigh nothing."""
    rows = log(0, 20, ITEMS, 1_720_000_000, 3)
    tables_of: list[Any] = []
    for name, weight in (("counts", 0.0), ("popularity divided out", -1.0)):
        folder = tmp_path / name
        artifact.shutil.copytree(built, folder)
        fitted = TableWeights({"counts": 1.0, "popularity": weight})
        (folder / "08-transition-table" / "fitted.json").write_bytes(msgspec.json.encode(fitted))
        take_in(folder, None, write(folder / "new.csv", EVENT, [f"n{row}" for row in rows]))
        assert len(arrivals.load(folder / stages.REFRESH).pairs)
        tables_of.append(np.array(bundle.load(folder / "13-bundle").table))
    assert not np.array_equal(*tables_of)


def test_pairs_whose_successor_changed_are_answered_anew_and_no_others(built: Path, tmp_path: Path) -> None:
    """Thirty new people come to one cluster after the same two."""
    folder = tmp_path / "w"
    artifact.shutil.copytree(built, folder)
    before = bundle.load(built / "13-bundle")
    base = np.array(before.table)
    a, b = 0, 1
    taken = set(base[a, b].tolist()) | {a, b}
    c = next(c for c in range(len(base)) if c not in taken)
    item = {k: before.ids[int(before.starts[k])] for k in (a, b, c)}
    rows = [f"n{u},{item[k]},{1_720_000_000 + 1000 * u + t},1" for u in range(30) for t, k in enumerate((a, b, c))]
    figures = take_in(folder, None, write(folder / "new.csv", EVENT, rows))
    now = np.array(bundle.load(folder / "13-bundle").table)
    assert now[a, b, 0] == c
    changed = np.argwhere((now != base).any(axis=2))
    held = arrivals.load(folder / stages.REFRESH)
    assert {tuple(pair) for pair in changed.tolist()} <= {tuple(pair) for pair in held.pairs.tolist()}
    assert 0 < len(held.pairs) < base.shape[0] ** 2
    own = np.arange(len(base))
    assert not (now == own[:, None, None]).any()
    assert not (now == own[None, :, None]).any()
    assert figures["refresh.events"] == 90


def test_triples_whose_successor_changed_are_answered_anew(built: Path, tmp_path: Path) -> None:
    """Thirty new people come to one cluster after the same three, whom the log had meet these three before."""
    folder = tmp_path / "w"
    artifact.shutil.copytree(built, folder)
    text = "[transitions]\nhistory = 3\n"
    (folder / "byway.toml").write_text(TOML + text, "utf-8")
    pipeline.run(folder, config.load(folder / "byway.toml"))
    before = bundle.load(folder / "13-bundle")
    M = len(before.table)
    assert before.triples is not None
    some = unkey(before.triples.keys, M)
    at = next(i for i, three in enumerate(some.tolist()) if len(set(three)) == 3)
    a, b, c = some[at].tolist()
    taken = {*before.ranking(some[at : at + 1])[0].tolist(), a, b, c}
    d = next(d for d in range(M) if d not in taken)
    item = {k: before.ids[int(before.starts[k])] for k in (a, b, c, d)}
    rows = [
        f"n{u},{item[k]},{1_720_000_000 + 1000 * u + t},1" for u in range(30) for t, k in enumerate((a, b, c, d))
    ]
    take_in(folder, None, write(folder / "new.csv", EVENT, rows))
    now = bundle.load(folder / "13-bundle")
    assert now.ranking(some[at : at + 1])[0, 0] == d
    counts = artifact.read_record(folder / stages.REFRESH)
    assert counts is not None
    held = arrivals.load(folder / stages.REFRESH)
    assert counts.counts["triples"] + counts.counts["pairs"] == len(held.pairs)
    changed = some[(now.ranking(some) != before.ranking(some)).any(axis=1)]
    assert {tuple(three) for three in changed.tolist()} <= {tuple(three) for three in held.pairs.tolist()}
    assert now.triples is not None
    np.testing.assert_array_equal(now.triples.keys, before.triples.keys)


def test_the_same_table_is_taken_in_once(refreshed: Path) -> None:
    before = digests(refreshed), artifact.read_record(refreshed / stages.REFRESH)
    take_in(refreshed, refreshed / "new-items-0.csv", refreshed / "new-events-1.csv")
    assert (digests(refreshed), artifact.read_record(refreshed / stages.REFRESH)) == before
    found, said = refresh.run(refreshed, config.load(refreshed / "byway.toml"), None, None)
    assert (found["refresh.taken_in"], said.splitlines()[0]) == (
        0, "Nothing new was taken in; 24 items have come since the last full run.",
    )  # fmt: skip


def test_known_items_are_counted_and_left(refreshed: Path) -> None:
    record = artifact.read_record(refreshed / stages.REFRESH)
    assert record is not None
    assert (record.counts["known_items"], record.counts["items"], record.counts["all_items"]) == (3, 12, 24)
    assert "3 items were known already and are left as they were." in refresh._in_words(record, True)  # pyright: ignore


def test_the_table_of_the_full_run_is_not_counted_again(built: Path, tmp_path: Path) -> None:
    artifact.shutil.copytree(built, tmp_path / "w")
    with pytest.raises(UserError, match="nothing to take in"):
        take_in(tmp_path / "w", None, tmp_path / "w" / "events.csv")


def test_an_export_that_holds_earlier_events_again_counts_the_new_ones_alone(
    built: Path, refreshed: Path, tmp_path: Path
) -> None:
    """Each export goes back to the first day, as nightly jobs have it; new rows alone count."""
    folder = tmp_path / "w"
    artifact.shutil.copytree(built, folder)
    rows = (folder / "events.csv").read_text("utf-8").splitlines()[1:]
    for step in range(2):
        new = (refreshed / f"new-events-{step}.csv").read_text("utf-8").splitlines()[1:]
        rows += new
        items = refreshed / f"new-items-{step}.csv"
        found = take_in(folder, items, write(folder / f"all-{step}.csv", EVENT, rows))
        assert found["refresh.events"] == len(new)
    for one in ("traffic.npy", "transitions.parquet", "user-touched.npy", "user-recent.npy", "users.parquet"):
        assert (folder / stages.REFRESH / one).read_bytes() == (refreshed / stages.REFRESH / one).read_bytes()
    record = artifact.read_record(folder / stages.REFRESH)
    assert record is not None
    assert record.counts["known_events"] == len(rows) - len(new)
    said = refresh._in_words(record, True)  # pyright: ignore
    assert f"{len(rows) - len(new):,} events were known already and are left as they were." in said
    # One that holds nothing new changes nothing, but what pleased after it had been exported is told anew.
    again = take_in(folder, None, write(folder / "again.csv", EVENT, rows[:-5]))
    assert again["refresh.events"] == 0
    for one in ("traffic.npy", "transitions.parquet"):
        assert (folder / stages.REFRESH / one).read_bytes() == (refreshed / stages.REFRESH / one).read_bytes()
    late = next(row for row in new if row.endswith(",0"))
    assert (
        take_in(folder, None, write(folder / "late.csv", EVENT, [*new[:9], f"{late[:-1]}1"]))["refresh.events"] == 1
    )


def test_json_is_taken_in_too(built: Path, tmp_path: Path) -> None:
    artifact.shutil.copytree(built, tmp_path / "w")
    record = tmp_path / "w" / "01-catalog" / "record.json"
    record.write_text(record.read_text("utf-8").replace('"csv"', '"json"'), "utf-8")
    new = tmp_path / "new.jsonl"
    new.write_text(json.dumps({"item": ITEMS, "title": "violin chess of another kind"}), "utf-8")
    assert take_in(tmp_path / "w", new, None)["refresh.items"] == 1


def test_a_kill_before_publishing_is_made_good(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "w"
    artifact.shutil.copytree(built, folder)
    new = write(tmp_path / "new.csv", ITEM, titles(ITEMS, ITEMS + 6))
    with monkeypatch.context() as patch:
        patch.setattr(refresh, "_publish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            take_in(folder, new)
    assert len(bundle.load(folder / "13-bundle").policy_rows) == ITEMS
    take_in(folder, new)
    assert len(bundle.load(folder / "13-bundle").policy_rows) == ITEMS + 6
    # A run that rebuilds the bundle leaves the refresh out; without tables it is put back.
    settings = ("bundle.days=7",)
    pipeline.run(folder, config.load(folder / "byway.toml", settings))
    assert len(bundle.load(folder / "13-bundle").policy_rows) == ITEMS
    take_in(folder, None, None, *settings)
    opened = bundle.load(folder / "13-bundle")
    assert (len(opened.policy_rows), opened.settings.days) == (ITEMS + 6, 7)


def test_a_workspace_may_be_named_from_where_one_stands(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact.shutil.copytree(built, tmp_path / "w")
    new = write(tmp_path / "new.csv", ITEM, titles(ITEMS, ITEMS + 3))
    monkeypatch.chdir(tmp_path)
    # The tables of the full run have been moved away: they are not read again.
    (tmp_path / "w" / "items.csv").unlink()
    (tmp_path / "w" / "events.csv").unlink()
    assert take_in(Path("w"), Path(new.name))["refresh.items"] == 3


def test_a_table_without_a_usable_row_is_refused_and_not_remembered(built: Path, tmp_path: Path) -> None:
    artifact.shutil.copytree(built, tmp_path / "w")
    wrong = write(tmp_path / "new.csv", EVENT, ["u1,nothing,1710000000,1", "u2,no such,1710000000,1"])
    for _ in range(2):
        with pytest.raises(UserError, match=r"new\.csv has no usable events \(unknown item: 2\)\.$"):
            take_in(tmp_path / "w", None, wrong)
    assert not (tmp_path / "w" / stages.REFRESH).exists()


@pytest.mark.parametrize("kind", ["items", "events"])
def test_an_hour_without_a_row_is_taken_in(built: Path, tmp_path: Path, kind: str) -> None:
    artifact.shutil.copytree(built, tmp_path / "w")
    none = write(tmp_path / "none.csv", {"items": ITEM, "events": EVENT}[kind], [])
    found = take_in(tmp_path / "w", **{kind: none})
    assert (found["refresh.items"], found["refresh.events"], found["refresh.quarantined"]) == (0, 0, {})


def test_rows_that_are_kept_out_are_said(built: Path, tmp_path: Path) -> None:
    artifact.shutil.copytree(built, tmp_path / "w")
    new = write(tmp_path / "new.csv", EVENT, ["u1,1,1710000000,1", "u2,no such,1710000000,1", "u1,2,1710000001,1"])
    found, text = refresh.run(tmp_path / "w", config.load(tmp_path / "w" / "byway.toml"), None, new)
    assert (found["refresh.events"], found["refresh.quarantined"]) == (2, {"unknown item": 1})
    assert "1 kept out (unknown item: 1); 17-refresh/quarantine.parquet has them all." in text


def test_what_cannot_be_refreshed_is_one_sentence(built: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="give --items or --events"):
        take_in(built)
    with pytest.raises(UserError, match=r"nothing\.csv is no file"):
        take_in(built, tmp_path / "nothing.csv")
    with pytest.raises(UserError, match="is no file; give a table"):
        take_in(built, tmp_path)
    (tmp_path / "byway.toml").touch()
    with pytest.raises(UserError, match="needs 01-catalog"):
        take_in(tmp_path, write(tmp_path / "new.csv", ITEM, titles(ITEMS, ITEMS + 6)))


@pytest.mark.parametrize("figure", [publish.MATCH, publish.RECALL])
def test_a_failed_gate_publishes_nothing(built: Path, figure: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = digests(built)
    monkeypatch.setattr(pipeline, "figures", lambda records: {publish.POPULARITY: 0.5, figure: 0.4})
    setting = "serving.min_match_rate=0.5"
    new = write(built / "gate.csv", ITEM, titles(ITEMS, ITEMS + 6))
    with pytest.raises(UserError, match=rf"Nothing was published: {figure} = 0.4, wanted at least 0.5"):
        take_in(built, new, None, setting)
    assert digests(built) == before
    assert artifact.read_record(built / stages.REFRESH) is None


def test_an_artifact_without_a_projection_says_so(built: Path, tmp_path: Path) -> None:
    folder = tmp_path / "w"
    artifact.shutil.copytree(built, folder)
    (folder / "02-embeddings" / "directions.npy").unlink()
    with pytest.raises(UserError, match="kept no projection"):
        take_in(folder, write(tmp_path / "new.csv", ITEM, titles(ITEMS, ITEMS + 6)))


def test_a_refresh_of_another_run_starts_over(built: Path, tmp_path: Path) -> None:
    folder = tmp_path / "w"
    artifact.shutil.copytree(built, folder)
    take_in(folder, write(tmp_path / "a.csv", ITEM, titles(ITEMS, ITEMS + 6)))
    pipeline.run(folder, config.load(folder / "byway.toml", ["item_policy.epochs=2"]))
    take_in(folder, write(tmp_path / "b.csv", ITEM, titles(ITEMS + 6, ITEMS + 8)), None, "item_policy.epochs=2")
    record = artifact.read_record(folder / stages.REFRESH)
    assert isinstance(record, Record)
    assert record.counts["all_items"] == 2
