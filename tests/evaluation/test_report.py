"""The page says what the figures say, whichever way they point, and plots put points where they belong."""

import re
from typing import Any

import numpy as np
import pytest

from byway.evaluation import drawing, report, wording
from byway.evaluation.curations import pooled
from byway.evaluation.drawing import Point, Series


def row(mean: float, width: float = 0.01) -> dict[str, float]:
    return {"mean": mean, "low": mean - width, "high": mean + width}


def figures(
    against: dict[str, float], aa: float = 0.04, chance: bool = False, seen: float = 0.0, watched: float = 0.05
) -> dict[str, Any]:
    """An experiment in which Byway has these lifts in positive feedback over the other arms."""
    names = ("sequence", "hierarchical_bandit", "placebo", "byway")
    arms = {
        n: {"novel_impressions": row(0.9 if n == "byway" else 0.2), "positive_rate": row(0.3), "uci_2": row(0.5)}
        for n in names
    }
    return {
        "arms": {"control": {"platform.positive_rate": row(0.3)}, **arms},
        "lift": {
            "hierarchical_bandit": {
                "byway": {
                    "novel_impressions": row(3.5),
                    "positive_rate": row(0.1),
                    "uci_2": row(0.2),
                    "uci_3": row(0.3),
                }
            },
            "control": {"byway": {"watch_minutes": row(watched), "new_clusters": row(0.4)}},
            "sequence": {"byway": {"sole_impressions": row(0.5), "positive_rate": row(-0.1)}},
        },
        "against": {"positive_rate": {name: row(value) for name, value in against.items()}},
        "growth": {"byway": {"watch": [row(0.05)], "over_ten": [row(0.0)], "engaged": [row(0.0)]}},
        "by_bucket": {"multimodal": [row(0.3), row(0.2), row(0.2), row(0.1), row(seen)]},
        "traffic": {"control": [0.5, 0.6], "byway": [0.5, 0.55]},
        "controls": {
            "aa": {"tests": 100, "significant": round(100 * aa), "share": aa, "seeds": 5},
            "chance": {
                "byway": {"rate": row(0.2), "lift": row(0.1), "beats_placebo": chance},
                "placebo": {"rate": row(0.19), "lift": row(0), "beats_placebo": False},
            },
            "leaking": [],
            "world": {"words": "true", "liking": "appeals"},
        },
        "arms_in_words": {n: n for n in ("control", *names)},
        "setting": {
            "design": "paired",
            "days": 30,
            "seeds": 1,
            "users": 800,
            "people": 2000,
            "clusters": 60,
            "share": 0.2,
            "kind": "simulated",
        },
    }


def test_a_replay_is_called_by_what_is_replayed() -> None:
    found = figures(GOOD)
    said: dict[str, str] = {}
    for kind in ("simulated", "matrix", "later"):
        found["setting"]["kind"] = kind
        said[kind] = f"{wording.setting(found)} {wording.summary(found)[1]}"
    assert "made up by us" in said["simulated"]
    assert "KuaiRec" in said["matrix"]
    assert "these videos" in said["matrix"]
    assert "KuaiRec" not in said["later"]
    assert "videos" not in said["later"]
    assert "went on to rate" in said["later"]


GOOD = {"sequence": 0.0, "hierarchical_bandit": 0.2, "placebo": 0.4}


def test_praise_has_its_opposite() -> None:
    good = wording.summary(figures(GOOD))[0]
    assert "pleased more than every exploring arm" in good
    assert "did not please clearly less than more of the same" in good
    bad = wording.summary(figures({"sequence": -0.2, "hierarchical_bandit": 0.2, "placebo": 0.0}))[0]
    assert "did not come out here" in bad
    assert "pleased less than more of the same" in bad
    assert "clearly less than of sequence (30.0%)" in bad


@pytest.mark.parametrize(
    ("least", "words"), [(0.0, "gained clearly more"), (0.3, "made no clear difference"), (0.5, "clearly less")]
)
def test_whether_there_was_much_to_see_is_said_either_way(least: float, words: str) -> None:
    assert words in wording.summary(figures(GOOD, seen=least))[0]
    assert "figure 8" in report.page("x", figures(GOOD, seen=least), {})
    unseen = figures(GOOD)
    unseen["by_bucket"] = {}
    assert "figure 8" not in report.page("x", unseen, {})


@pytest.mark.parametrize(
    ("apart", "words"), [(0.1, "as in paper 2"), (0.0, "not clearly different"), (-0.1, "clearly lower")]
)
def test_papers_claims_on_views_come_out_or_not(apart: float, words: str) -> None:
    curves = {
        name: [{"step": s, "recall_at_10": row(s / 9), "match_rate": row(1)} for s in (0, 3)] for name in ("a", "b")
    }
    claim = {"better": "a", "worse": "b", "figure": "recall_at_10", "difference": row(apart)}
    drawn = {"views.frames.curves": curves, "views.frames.claims": [claim]}
    html = report.page("x", None, drawn)
    assert words in html
    assert html.count("<polyline") == 4
    assert wording.NO_EXPERIMENT in html
    assert "Every arm" not in html


@pytest.mark.parametrize(
    ("watched", "said"), [(0.05, "time rose (+5"), (-0.05, "time fell (-5"), (0.001, "time did not clearly change")]
)
def test_what_the_control_lacks_is_said_either_way(watched: float, said: str) -> None:
    told = wording.summary(figures(GOOD, watched=watched))[0]
    assert said in told
    assert "clusters first met and liked rose (+40.0%" in told


def test_figure_6_has_novelty_across_and_quality_up() -> None:
    (svg,) = [part for part in report.page("x", figures(GOOD), {}).split("<figure>") if "Paper 2, figure 6" in part]
    assert "sole impressions, lift in %" in svg
    assert "positive feedback, lift over sequence" in svg
    assert svg.count("<circle") == 1


def test_figure_4a_shows_what_was_learned_by_heart() -> None:
    curve = [
        {"step": s, "match_rate": 1.0, "recall_at_10.train": s / 10, "recall_at_10.validation": 0.1} for s in (0, 5)
    ]
    html = report.page("x", None, {"language.curve": curve})
    assert html.count("<polyline") == 3
    assert "recall at 10, fine-tuning samples" in html


def test_models_are_told_of_beside_popularity() -> None:
    known = {"language.match_rate": 0.97, "language.recall_at_10.heldout": 0.1}
    assert wording.models(known) == []
    (said,) = wording.models(known | {"baseline.popularity.recall_at_10.heldout": 0.2})
    assert "97.0%" in said
    assert "10.0%" in said
    assert "20.0%" in said


@pytest.mark.parametrize(("share", "words"), [(0.06, "as it should be"), (0.09, "more than it should be")])
def test_the_controls_can_fail_on_the_page(share: float, words: str) -> None:
    assert words in wording.controls(figures(GOOD, aa=share))[0]
    said = " ".join(wording.controls(figures(GOOD, chance=True)))
    assert "something other than liking" in said
    assert "something other than liking" not in " ".join(wording.controls(figures(GOOD)))
    leaking = figures(GOOD)
    leaking["controls"]["leaking"] = ["sequence"]
    assert "sequence answered otherwise" in " ".join(wording.controls(leaking))


@pytest.mark.parametrize(
    ("gini", "said"),
    [(0.5, "clearly more evenly"), (0.9, "not clearly more evenly"), (0.99, "clearly less evenly")],
)
def test_papers_claim_on_diversified_samples_comes_out_or_not(gini: float, said: str) -> None:
    """Two seeds a kind; the less even, the fewer held-out transitions are recalled."""

    def run(value: float) -> dict[str, Any]:
        labels = {f"labels.{name}": value for name in ("gini", "top1pct_share", "rare_share", "entropy")}
        return {**labels, "labels.histogram": [1, 2], "model.macro_recall_at_10.heldout": 1 - value, "curve": []}

    drawn = pooled({"diversified": [run(gini), run(gini + 0.01)], "random": [run(0.9), run(0.911)]})
    (words,) = wording.curations(drawn)
    assert f"answers {said};" in words
    assert ("clearly more with diversified" in words.replace("not clearly", "")) == (gini == 0.5)
    single = pooled({"diversified": [run(gini)], "random": [run(0.9)]})
    assert "(a single seed)" in wording.curations(single)[0]
    assert wording.curations({}) == []


def test_both_ways_to_curate_stand_in_one_histogram() -> None:
    key = "language.labels.histogram"
    html = report.page("x", None, {f"{key}.diversified": [1, 1, 1, 1], f"{key}.random": [0, 0, 0, 4]})
    heights = [float(height) for height in re.findall(r'<rect [^>]*height="([\d.]+)"', html)]
    # Diversified: all at the mean, which "to 2" begins with. Random: three of four never, one four times the mean.
    assert [round(height / max(heights), 2) for height in heights] == [0, 0, 0, 1, 0, 0, 0.75, 0, 0, 0, 0.25, 0]
    assert html.count("<figure>") == 1


def test_the_page_stands_alone_and_names_cannot_break_it() -> None:
    found = figures(GOOD)
    found["arms_in_words"]["byway"] = "<script>alert(1)</script>"
    html = report.page("A & B <i>", found, {"language.labels.histogram": [5, 3, 0]})
    assert not re.findall(r"https?://|<script|<link|@import|url\(", html)
    assert "A &amp; B &lt;i&gt;" in html


def test_what_was_not_measured_is_a_dash() -> None:
    found = figures(GOOD)
    found["arms"]["byway"]["uci_2"] = {"mean": None, "low": None, "high": None}
    found["arms"]["byway"]["coverage"] = {"mean": None, "low": None, "high": None}
    assert "nan" not in report.page("x", found, {}).lower()


def test_points_stand_at_their_values() -> None:
    svg = drawing.lines("t", "x", "y", [Series("a", [Point(0, 0, 0, 0), Point(10, 1, 1, 1)])], percent=False)
    (path,) = re.findall(r'<polyline points="([^"]+)"', svg)
    (x0, y0), (x1, y1) = [tuple(map(float, pair.split(","))) for pair in path.split()]
    ticks = {float(t): float(y) for y, t in re.findall(r'y="([\d.]+)" text-anchor="end">([\d.]+)<', svg)}
    # A tick's label stands 4 below its line.
    assert y0 == pytest.approx(ticks[0.0] - 4, abs=0.2)
    assert y1 == pytest.approx(ticks[1.0] - 4, abs=0.2)
    assert x1 - x0 > 0.8 * (drawing.WIDTH - drawing.LEFT - drawing.RIGHT)


@pytest.mark.parametrize("scale", [1e-4, 0.03, 1, 70, 1e6])
def test_ticks_are_few_and_inside(scale: float) -> None:
    rng = np.random.default_rng(0)
    for low, high in np.sort(rng.normal(size=(50, 2)) * scale, axis=1):
        found = drawing.ticks(low, high)
        assert 2 <= len(found) <= 8
        assert low - 1e-6 * scale <= found[0]
        assert found[-1] <= high + 1e-6 * scale
