"""Who is dealt to which arm, and what an arm shows."""

import asyncio
import hashlib
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from byway.base import config
from byway.base.errors import UserError
from byway.serving import arms, bundle, publish, service
from byway.serving.arms import Arm, Design, deal
from byway.serving.bundle import Bundle
from byway.serving.chances import chances
from byway.serving.history import Answered
from byway.serving.messages import RecommendRequest
from byway.serving.person import Seen
from tests.serving import house, planted

SPRING = """
name = "spring"
salt = "salt"
[arms]
control = { share = 0.2 }
byway = { share = 0.3 }
paper = { share = 0.25 }
masked = { share = 0.25 }
"""
HISTORY = [Seen("c0-1"), Seen("c1-1"), Seen("c2-1")]


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    house.published(tmp_path / "w")
    (tmp_path / "w" / arms.FILE).write_text(SPRING, "utf-8")
    return tmp_path / "w"


def opened(workspace: Path) -> Bundle:
    now = publish.current(workspace)
    assert now is not None
    return bundle.load(workspace / "published" / now.bundle)


def test_shares_are_dealt_and_salts_deal_anew() -> None:
    design = Design("d", "one", {"control": Arm(0.1), "byway": Arm(0.6), "paper": Arm(0.3)})
    users = [f"user-{i}" for i in range(20_000)]
    dealt = np.array([deal(design, u) for u in users])
    for name, share in design.shares().items():
        assert abs((dealt == name).mean() - share) < 4 * (share * (1 - share) / len(users)) ** 0.5
    other = np.array([deal(Design("d", "two", design.arms), u) for u in users])
    # Of another deal as many agree as by chance.
    assert abs((dealt == other).mean() - (0.01 + 0.36 + 0.09)) < 0.02


def test_a_user_is_dealt_alike_in_every_process_and_by_the_documented_hash(workspace: Path) -> None:
    design = arms.load(workspace)
    assert design is not None
    here = [deal(design, f"u{i}") for i in range(50)]
    code = (
        f"from pathlib import Path; from byway.serving import arms; d = arms.load(Path({str(workspace)!r})); "
        "print(*(arms.deal(d, f'u{i}') for i in range(50)))"
    )
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert here == there
    digest = hashlib.blake2b(b"salt\0user\0u7", digest_size=8).digest()
    assert abs(arms.place("salt", "user", "u7") - int.from_bytes(digest, "big") / 2**64) < 2**-52


def test_an_aa_arm_takes_half_of_the_control_and_moves_nobody_else() -> None:
    plain = Design("d", "s", {"control": Arm(0.5), "byway": Arm(0.5)})
    parted = Design("d", "s", plain.arms, aa=True)
    pairs = [(deal(plain, f"u{i}"), deal(parted, f"u{i}")) for i in range(4000)]
    assert {b for a, b in pairs if a == "byway"} == {"byway"}
    halves = [b for a, b in pairs if a == "control"]
    assert set(halves) == {"control", "control_aa"}
    assert abs(halves.count("control_aa") / len(halves) - 0.5) < 0.05
    assert parted.serves("control_aa") == "control"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('name = "x"\nsalt = "s"\n[arms]\ncontrol = { share = 0.5 }', "sum to 0.5"),
        ('name = "x"\nsalt = "s"\naa = true\n[arms]\nbyway = { share = 1 }', "aa = true"),
        ('name = "x"\nsalt = "s"\n[arms]\nbyway = { share = 1, shares = 2 }', "shares"),
        ('name = "x"\n[arms]\nbyway = { share = 1 }', "salt"),
        ("[arms", "as documented"),
    ],
)
def test_a_design_that_cannot_be_dealt_is_refused(workspace: Path, text: str, said: str) -> None:
    (workspace / arms.FILE).write_text(text, "utf-8")
    with pytest.raises(UserError, match=said):
        arms.load(workspace)


def test_a_bundle_that_is_not_published_is_refused(workspace: Path) -> None:
    (workspace / arms.FILE).write_text('name = "x"\nsalt = "s"\n[arms]\nold = { share = 1 }', "utf-8")
    with pytest.raises(UserError, match="serves 'old'"):
        arms.Arms(workspace)


def test_every_reply_and_exposure_carries_arm_and_share(workspace: Path) -> None:
    async def ask() -> None:
        made = service.Service(workspace, config.Serving())
        design = arms.load(workspace)
        assert design is not None
        seen = set()
        for i in range(40):
            shown: list[Answered] = []
            reply = await made.answer(RecommendRequest(user=f"u{i}", history=HISTORY, k=5), shown=shown)
            await made.history.expose(*shown)
            assert (reply.experiment, reply.arm) == ("spring", deal(design, f"u{i}"))
            assert reply.share == design.shares()[reply.arm]
            (logged,) = await made.history.answers(f"u{i}", -1)
            assert (logged.experiment, logged.arm, logged.share) == ("spring", reply.arm, reply.share)
            assert bool(reply.items) == (reply.arm != "control")
            seen.add(reply.arm)
        assert seen == {"control", "byway", "paper", "masked"}
        guest = await made.answer(RecommendRequest(history=HISTORY), shown=shown)
        walker = await made.answer(RecommendRequest(user="u1", history=HISTORY), experiment="walk", shown=shown)
        assert (guest.arm, guest.experiment, walker.arm, walker.experiment) == ("", "byway", "", "walk")
        await made.close()

    asyncio.run(ask())


def test_masked_shows_the_policys_best_of_what_nobody_met(workspace: Path) -> None:
    live = opened(workspace)
    given = arms.masked(live, HISTORY, 6, None)
    score = live.vectors @ live.encode([p for p in live.positions([s.item for s in HISTORY]) if p is not None])
    new = [i for i in range(len(live.ids)) if live.cluster(i) > 2]
    wanted = sorted(new, key=lambda i: -score[i])[:6]
    assert [s.item for s in given.items] == [live.ids[i] for i in wanted]


def test_by_user_and_corpus_nobody_is_shown_an_item_of_another_arm(workspace: Path) -> None:
    (workspace / arms.FILE).write_text(SPRING.replace("[arms]", 'by = "user_and_corpus"\n[arms]'), "utf-8")
    design, live = arms.load(workspace), opened(workspace)
    assert design is not None
    made = arms.Arms(workspace)
    rng = np.random.default_rng(0)
    shown = 0
    for i in range(60):
        dealt = asyncio.run(made.dealt(f"u{i}", live, "name"))
        assert dealt is not None
        history = [Seen(f"c{rng.integers(12)}-{rng.integers(20)}") for _ in range(3)] if i % 4 else []
        given = arms.answer(dealt.serves, dealt.bundle, history, rng, 8, None)
        assert all(deal(design, s.item, "item") == dealt.arm for s in given.items)
        shown += len(given.items)
    assert shown > 100
    assert live.corpus is None


def test_an_arm_is_opened_once_beside_other_work_and_by_its_own_design(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (workspace / arms.FILE).write_text(SPRING.replace("[arms]", 'by = "user_and_corpus"\n[arms]'), "utf-8")
    monkeypatch.setattr(arms, "LOOK", 0.0)
    made, live, opening = arms.Arms(workspace), opened(workspace), threading.Event()
    variant, threads = arms.variant, list[threading.Thread]()

    def waits(*asked: object) -> object:
        threads.append(threading.current_thread())
        assert opening.wait(10)
        return variant(*asked)

    monkeypatch.setattr(arms, "variant", waits)

    async def main() -> None:
        first = [asyncio.create_task(made.dealt("ann", live, "name")) for _ in range(5)]
        await asyncio.sleep(0.1)  # the loop goes on
        (workspace / arms.FILE).write_text(SPRING.replace("spring", "summer"), "utf-8")
        later = asyncio.create_task(made.dealt("ann", live, "name"))
        await asyncio.sleep(0.1)
        opening.set()
        before, (after,) = await asyncio.gather(*first), await asyncio.gather(later)
        assert after is not None
        assert (after.experiment, after.bundle.corpus) == ("summer", None)
        for dealt in before:
            assert dealt is not None
            assert (dealt.experiment, dealt.bundle.corpus is None) == ("spring", False)
        again = await made.dealt("ann", live, "name")
        assert again is not None
        assert again.bundle is after.bundle

    asyncio.run(main())
    assert threading.main_thread() not in threads


def test_a_design_that_is_written_later_is_taken_up_and_a_broken_one_is_not(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arms, "LOOK", 0.0)
    made, live = arms.Arms(workspace), opened(workspace)
    for text, name in (("broken", "spring"), (SPRING.replace("spring", "summer"), "summer")):
        time.sleep(0.01)
        (workspace / arms.FILE).write_text(text, "utf-8")
        dealt = asyncio.run(made.dealt("ann", live, "name"))
        assert dealt is not None
        assert dealt.experiment == name


def test_a_bundle_of_an_arm_stays_when_others_are_published(workspace: Path) -> None:
    now = publish.current(workspace)
    assert now is not None
    design = SPRING.replace("masked = { share = 0.25 }", f'first = {{ share = 0.25, serves = "{now.bundle}" }}')
    (workspace / arms.FILE).write_text(design, "utf-8")
    for seed in range(1, 6):
        house.published(workspace, seed=seed)
    assert (workspace / "published" / now.bundle / "manifest.json").exists()
    assert asyncio.run(arms.Arms(workspace).dealt("ann", opened(workspace), "name")) is not None


@pytest.mark.parametrize("serves", ["byway", "paper", "masked"])
@pytest.mark.parametrize("plan", ["pair", "person"])
def test_chances_are_how_often_items_are_shown(tmp_path: Path, serves: str, plan: str) -> None:
    settings = config.Bundle(skip=0.3, mode="person" if plan == "person" else "pair")
    live = planted.Planted(settings=settings, planned=planted.planned_of() if plan == "person" else None).build(
        tmp_path
    )
    made, _ = arms.variant(tmp_path, serves, live, "")
    history, k, times = [Seen("c0-1"), Seen("c1-1", satisfaction=0.4), Seen("c2-1")], 4, 1500
    found = chances(serves, made, history, k, None)
    rng = np.random.default_rng(1)
    counts = np.zeros(len(live.ids))
    for _ in range(times):
        for shown in arms.answer(serves, made, history, rng, k, None).items:
            position = live.position(shown.item)
            assert position is not None
            counts[position] += 1
            assert found[position] == pytest.approx(shown.propensity, abs=1e-8)
    expected = np.array([found.get(i, 0.0) for i in range(len(live.ids))])
    error = np.sqrt(np.maximum(expected * (1 - expected), 1e-9) / times)
    assert (np.abs(counts / times - expected) <= 4.5 * error + 1e-9).all()
