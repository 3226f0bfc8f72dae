"""One conformance suite for every arm and every source of the control."""

import numpy as np
import pytest

from byway.base.errors import UserError
from byway.simulation import arms, control, platform
from byway.simulation.arms import ARMS, CONTROL, ArmContext
from byway.simulation.source import NONE, Asked, Logged, Source
from tests.simulation import planted

NAMES = [*(name for name in ARMS if name != CONTROL), "profile", "together", "popular"]
HIDING = ("byway", "one", "ease", "masked")
"""Arms that rank all items of clusters never met."""
NOVEL = ("one", "table", "model", "counts", "placebo", "neural_linear")
"""Arms that may only name items of clusters never met."""
ONE_CLUSTER = (*NOVEL, "multimodal", "hierarchical_bandit", "paper")
"""Arms that stay inside one cluster."""


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> ArmContext:
    return planted.context(planted.tiny(), tmp_path_factory.mktemp("kit"))


@pytest.fixture(scope="module")
def make(context: ArmContext):
    trained = arms.encoders(context, tuple(ARMS))

    def source(name: str) -> Source:
        own = dict(
            zip(
                ("profile", "together", "popular"),
                control.control_sources(context.known, context.log.n_users),
                strict=True,
            )
        )
        found = own[name] if name in own else arms.source(name, context, trained, 3)
        assert found is not None
        found.learn(context.log, 0)
        return found

    return source


def ask(context: ArmContext, users: int = 25, hide: float = 0.0) -> Asked:
    """What the first users ask; a share of items that nobody may be shown."""
    missing = np.random.default_rng(1).random(context.known.n_items) < hide
    state = control.PlatformState.of(context.known, context.log, missing)
    return platform.asked_of(state, np.arange(users), 0)


every_source = pytest.mark.parametrize("name", NAMES)


@every_source
@pytest.mark.parametrize("hide", [0.0, 0.9, 1.0])
def test_names_unseen_items_once_each_and_none_only_at_the_end(
    name: str, hide: float, context: ArmContext, make
) -> None:
    asked = ask(context, hide=hide)
    found = make(name).nominate(asked, 12, np.random.default_rng(0))
    assert found.shape == (25, 12)
    for row, seen in zip(found, asked.seen, strict=True):
        named = row[row != NONE]
        assert len(np.unique(named)) == len(named)
        assert not seen[named].any()
        assert (row[len(named) :] == NONE).all()
    assert (found != NONE).any() == (hide < 1)


@every_source
def test_the_same_question_has_the_same_answer_and_changes_nothing(name: str, context: ArmContext, make) -> None:
    asked, source = ask(context), make(name)
    before = [array.copy() for array in (asked.history, asked.seen, asked.met, asked.satisfaction)]
    first = source.nominate(asked, 5, np.random.default_rng(4))
    np.testing.assert_array_equal(first, source.nominate(asked, 5, np.random.default_rng(4)))
    for was, now in zip(before, (asked.history, asked.seen, asked.met, asked.satisfaction), strict=True):
        np.testing.assert_array_equal(was, now)


@every_source
def test_nobody_and_newcomers_are_answered(name: str, context: ArmContext, make) -> None:
    asked = ask(context)
    source = make(name)
    nobody = Asked(
        *(part[:0] for part in (asked.user, asked.history, asked.satisfaction, asked.day)),
        asked.today,
        asked.seen[:0],
        asked.met[:0],
    )
    assert source.nominate(nobody, 5, np.random.default_rng(0)).shape == (0, 5)
    new = Asked(
        asked.user[:2],
        np.zeros_like(asked.history[:2]),
        np.zeros_like(asked.satisfaction[:2]),
        np.zeros_like(asked.day[:2]),
        0,
        np.zeros_like(asked.seen[:2]),
        np.zeros_like(asked.met[:2]),
    )
    assert source.nominate(new, 5, np.random.default_rng(0)).shape == (2, 5)


@every_source
def test_learns_a_longer_log(name: str, context: ArmContext, make) -> None:
    source = make(name)
    log = context.log
    tomorrow = np.zeros(30, np.int64)
    more = Logged(
        np.concatenate([log.user, np.arange(30)]),
        np.concatenate([log.item, tomorrow]),
        np.concatenate([log.satisfaction, np.ones(30, np.float32)]),
        np.concatenate([log.day, tomorrow]),
        log.n_users,
    )
    source.learn(more, 2)
    assert (source.nominate(ask(context), 5, np.random.default_rng(0)) != NONE).any()


@pytest.mark.parametrize("name", sorted({*NOVEL, *HIDING}))
def test_a_novel_plan_names_only_clusters_never_met(name: str, context: ArmContext, make) -> None:
    asked = ask(context)
    found = make(name).nominate(asked, 12, np.random.default_rng(0))
    row, _ = np.nonzero(found != NONE)
    assert not asked.met[row, context.known.cluster[found[found != NONE]]].any()


@pytest.mark.parametrize("name", ONE_CLUSTER)
def test_a_restricted_arm_stays_inside_one_cluster(name: str, context: ArmContext, make) -> None:
    for row in make(name).nominate(ask(context), 12, np.random.default_rng(0)):
        assert len(np.unique(context.known.cluster[row[row != NONE]])) <= 1


def test_control_comes_first_and_an_unknown_arm_is_named() -> None:
    assert arms.check(("byway", "placebo"), looked=False) == ("control", "placebo", "byway")
    assert arms.check((), looked=True) == tuple(ARMS)
    assert arms.check((), looked=False) == tuple(name for name in ARMS if name != "multimodal")
    with pytest.raises(UserError, match="needs items with videos"):
        arms.check(("multimodal",), looked=False)
    with pytest.raises(UserError, match="no arm 'bywya'"):
        arms.check(("bywya",), looked=True)
