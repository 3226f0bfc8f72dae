"""16-report: one page that shows what the experiment found, with intervals and the controls beside it.

The page stands alone: no script, no outside host. It redraws paper 1's figures 3, 4a, 4b, 4c and 5 and paper 2's 6,
7 and 8 from this workspace, and says in plain words what came out, for or against. It measures nothing itself.
"""

from collections.abc import Iterable, Sequence
from html import escape
from itertools import pairwise
from typing import Any

from byway.base.artifact import Outcome, Work
from byway.evaluation import wording
from byway.evaluation.drawing import Point, Series, histogram, lines, scatter
from byway.simulation.arms import CONTROL, MULTIMODAL, PLACEBO, REFERENCE

Figures = dict[str, Any]

SHOWN = (
    ("novel_impressions", "novel", "of what the arm's source showed, from clusters never met before"),
    ("sole_impressions", "sole", "of what it showed, named by no other source"),
    ("positive_rate", "positive", "positive feedback on what it showed"),
    ("new_positive_rate", "new positive", "positive feedback on what it showed and was new"),
    ("serendipity", "serendipity", "of what it showed, new and liked"),
    ("platform.positive_rate", "all positive", "positive feedback on everything watched"),
    ("platform.serendipity", "all serend.", "of everything watched, new and liked"),
    ("platform.new_positive", "new liked", "events new and liked, a user and day"),
    ("watch_minutes", "minutes", "watched a user and day"),
    ("daily_users_over_ten_minutes", "10 min", "share of users a day who watched ten minutes"),
    ("engaged_pairs", "pairs", "distinct items liked, a user"),
    ("new_clusters", "new clusters", "clusters first met and liked, a user"),
    ("intra_list_diversity", "diversity", "intra-list: 1 - mean cosine"),
    ("coverage", "coverage", "share of the catalog that the feed showed"),
    ("interests_found", "found", "share of undiscovered interests that became known"),
    ("interests_kept", "kept", "share that became known and still pleases"),
)
"""Columns of the table: metric, heading, meaning."""
STYLE = """
:root{--ink:#1d2327;--soft:#5b6770;--line:#dde2e5;--page:#fbfaf7;--card:#fff}
*{box-sizing:border-box}body{margin:0;background:var(--page);color:var(--ink);font:16px/1.55 system-ui,sans-serif}
main{max-width:1080px;margin:0 auto;padding:28px 18px 60px}h1{font-size:1.7rem;line-height:1.2;margin:.2em 0 .4em}
h2{font-size:1.2rem;margin:2em 0 .5em}p{max-width:72ch}.soft{color:var(--soft)}
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,430px),1fr));gap:16px}
figure{margin:0;background:var(--card);border:1px solid var(--line);border-radius:8px;padding:12px 14px;min-width:0}
figcaption b{display:block}figcaption span{color:var(--soft);font-size:.86rem}
svg{width:100%;height:auto;display:block;margin-top:6px}svg text{font-size:12.5px;fill:var(--soft)}
.axis{stroke:var(--line);stroke-width:1}.zero{stroke:#8b979f;stroke-width:1.4}
.key{list-style:none;display:flex;flex-wrap:wrap;gap:2px 14px;margin:6px 0 0;padding:0;
font-size:.84rem}
.key i{display:inline-block;width:11px;height:11px;border-radius:3px;margin-right:5px}
.wide{overflow-x:auto;background:var(--card);border:1px solid var(--line);border-radius:8px}
table{border-collapse:collapse;font-size:.84rem;width:100%}
th,td{padding:6px 9px;text-align:right;white-space:nowrap}
th:first-child,td:first-child{text-align:left;position:sticky;left:0;background:var(--card)}
tr+tr td{border-top:1px solid var(--line)}td small{display:block;color:var(--soft);font-size:.76rem}
@media(max-width:520px){svg text{font-size:15.5px}}
.says{background:var(--card);border-left:4px solid #0b6e4f;padding:4px 18px;border-radius:0 8px 8px 0}
"""


def build(work: Work, experiment: Figures | None, drawn: Figures) -> Outcome:
    """Write `report.html`; `drawn` are the figures of the workspace's models."""
    about = "What the models have learned" if experiment is None else "What the experiment shows"
    html = page(about, experiment, drawn)
    (work.out / "report.html").write_text(html, "utf-8")
    return Outcome(counts={"bytes": len(html.encode())})


def page(title: str, found: Figures | None, drawn: Figures) -> str:
    """The whole page; without an experiment it tells of the models alone."""
    told = [] if found is None else wording.summary(found)
    told += [*wording.models(drawn), *wording.worth(drawn), *wording.curations(drawn), *wording.views(drawn)]
    said = "".join(f"<p>{escape(text)}</p>" for text in told)
    plots = [*_labels(drawn), _learning(drawn.get("language.curve", []))]
    plots += [] if found is None else _plots(found)
    drawings = "".join(plot for plot in [*plots, *_views(drawn)] if plot)
    setting, arms = wording.NO_EXPERIMENT, ""
    if found is not None:
        setting = wording.setting(found)
        arms = f"""<h2>Every arm</h2>{_table(found)}
<h2>Controls that can fail</h2>{_controls(found)}
<p class="soft">Intervals are 95%, by bootstrap over people, and over deals where there are several.</p>"""
    arms += _live(drawn["lifted"]) if "lifted" in drawn else ""
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>{escape(title)}</title><style>{STYLE}</style></head><body><main>
<h1>{escape(title)}</h1><p class="soft">{escape(setting)}</p>
{f'<div class="says">{said}</div>' if said else ""}
<h2>The papers' figures, from this run</h2><div class="grid">{drawings}</div>
{arms}
<p class="soft">Paper 1: Wang et al., RecSys 2024, arXiv 2405.16363.
Paper 2: Wang et al., 2025, arXiv 2506.08283.</p></main></body></html>
"""


def _live(found: Figures) -> str:
    """The live experiment of one's own, as `byway lift` found it last."""
    plots = [
        _daily(found, "watch_minutes", "Watch time"),
        _daily(found, "daily_users_over_ten_minutes", "Users over ten minutes"),
        _daily(found, "platform.new_positive", "New and liked, a user"),
        _daily(found, "positive_rate", "Positive feedback on what was shown"),
    ]
    head = "".join(f"<th>{escape(arm)}</th>" for arm in found["lift"])
    names = list(dict.fromkeys(name for rows in found["lift"].values() for name in rows))
    body = "".join(
        f"<tr><td>{escape(name)}</td>{''.join(_lifted(rows.get(name)) for rows in found['lift'].values())}</tr>"
        for name in names
    )
    said = "".join(f"<p>{escape(text)}</p>" for text in wording.live(found))
    return f"""<h2>The live experiment</h2>{said}<div class="grid">{"".join(plots)}</div>
<div class="wide"><table><tr><th>lift over {escape(found["setting"]["control"])}</th>{head}</tr>{body}</table></div>
<p class="soft">The first interval is for one look at the end, the second holds however often one looks.</p>"""


def _daily(found: Figures, metric: str, title: str) -> str:
    series = [
        _series(arm, ((row["day"], row) for row in rows.get(metric, []))) for arm, rows in found["by_day"].items()
    ]
    return _lines(title, "day", "that day's lift over the control", series)


def _lifted(row: Figures | None) -> str:
    if row is None:
        return "<td>–</td>"
    return (
        f"<td>{row['mean']:+.2%}<small>{row['low']:+.2%} to {row['high']:+.2%}</small>"
        f"<small>{row['always_low']:+.2%} to {row['always_high']:+.2%}</small></td>"
    )


def _plots(found: Figures) -> list[str]:
    """What the experiment shows."""
    growth, lift = found["growth"], found["lift"]
    last = [name for name in ("byway", MULTIMODAL, "counts", PLACEBO) if name in growth]
    return [
        _novelty_and_quality("Paper 1, figure 4b", "novel_impressions", REFERENCE, lift),
        _uci(lift.get(REFERENCE, {})),
        _growth("Paper 1, figure 5: watch time", growth, last, "watch"),
        _growth("Paper 1, figure 5 and paper 2, 7a: users over ten minutes", growth, last, "over_ten"),
        _novelty_and_quality("Paper 2, figure 6", "sole_impressions", "sequence", lift),
        _growth("Paper 2, figure 7b: users and engaged items", growth, last, "engaged"),
        _by_bucket(found),
        _traffic(found),
    ]


def _views(drawn: Figures) -> list[str]:
    """Paper 2's figures 3, 4 and 5: recall and match rate by step, the mean over seeds and its interval."""
    titles = {
        "prompts": "Paper 2, figure 3: four prompts",
        "frames": "Paper 2, figure 4: number of frames",
        "pictures": "Paper 2, figure 5: thumbnail or one frame",
    }
    figures = {
        "free_recall": "recall of free answers",
        "recall_at_10": "recall at 10",
        "match_rate": "match rate",
    }
    return [
        lines(f"{title}, {words}", "step", "share", _by_step(curves, figure), percent=False)
        for each, title in titles.items()
        for figure, words in figures.items()
        if (curves := drawn.get(f"views.{each}.curves"))
        and all(figure in point for points in curves.values() for point in points)
    ]


def _by_step(curves: Figures, figure: str) -> list[Series]:
    return [Series(name, [_at(float(p["step"]), p[figure]) for p in points]) for name, points in curves.items()]


def _labels(drawn: Figures) -> list[str]:
    """Figure 3: how many labels are named how often over all pairs, for each way to curate that was compared."""
    key = "language.labels.histogram"
    kinds = [name.removeprefix(f"{key}.") for name in drawn if name.startswith(f"{key}.")]
    found = {f"{kind} samples": drawn[f"{key}.{kind}"] for kind in kinds} or {"": drawn.get(key, [])}
    series = [Series(of, _spread(counts)) for of, counts in found.items() if counts]
    if not series:
        return []
    title = "Paper 1, figure 3: how often each interest is the model's first answer"
    across, up = "pairs of interests that it answers, 1 in an even spread", "share of all interests"
    return [histogram(title, across, up, ["< 0.1", "to 0.5", "to 1", "to 2", "to 5", "> 5"], series)]


def _spread(counts: Sequence[float]) -> list[Point]:
    mean = sum(counts) / len(counts)
    edges = (0, 0.1, 0.5, 1, 2, 5, 1e9)
    shares = [sum(a * mean <= h < b * mean for h in counts) / len(counts) for a, b in pairwise(edges)]
    return [_exactly(float(i), share) for i, share in enumerate(shares)]


def _learning(curve: Sequence[Figures]) -> str:
    """Recall both on samples that the model is fine-tuned on and on others, as the paper draws it."""
    keys = {"match_rate": "match rate"}
    for part, words in (("train", "fine-tuning samples"), ("validation", "validation")):
        keys |= {f"recall_at_{k}.{part}": f"recall at {k}, {words}" for k in (1, 10)}
    series = [
        Series(words, [_exactly(float(row["step"]), row[key]) for row in curve])
        for key, words in keys.items()
        if len(curve) > 1 and all(key in row for row in curve)
    ]
    return _lines("Paper 1, figure 4a: fine-tuning", "step", "share", series, percent=False)


def _novelty_and_quality(title: str, novelty: str, reference: str, lifts: Figures) -> str:
    """Across, what a paper calls novel impressions; up, positive feedback: both as lifts over the reference."""
    series: list[Series] = []
    for name, rows in lifts.get(reference, {}).items():
        x, y = rows.get(novelty), rows.get("positive_rate")
        if _whole(x) and _whole(y):
            point = Point(x["mean"], y["mean"], y["low"], y["high"], x["low"], x["high"])
            series.append(Series(name, [point]))
    across = f"{novelty.replace('_', ' ')}, lift in %"
    up = f"up: positive feedback, lift over {reference}"
    return scatter(f"{title}: novelty and quality", across, up, series) if series else ""


def _uci(lift: Figures) -> str:
    series = [
        _series(
            name,
            (
                (float(metric.removeprefix("uci_")), row)
                for metric, row in lift.get(name, {}).items()
                if metric.startswith("uci_")
            ),
        )
        for name in ("byway", PLACEBO)
    ]
    title = "Paper 1, figure 4c: users with N interests in a week"
    return _lines(title, "N", f"UCI@N, lift over {REFERENCE}", series)


def _growth(title: str, growth: Figures, names: Sequence[str], metric: str) -> str:
    series = [_series(name, ((day + 1.0, row) for day, row in enumerate(growth[name][metric]))) for name in names]
    return _lines(title, "day", "that day's lift over the control", series)


def _by_bucket(found: Figures) -> str:
    """By the arm that sees, and by the one that only reads: what sight gives has to differ between them."""
    series = [
        _series(name, ((float(b), row) for b, row in enumerate(found["by_bucket"].get(name, []), 1)))
        for name in (MULTIMODAL, "byway")
    ]
    title = "Paper 2, figure 8: by how much there was to see in what was watched before"
    up = "positive feedback, lift over the rest of the feed"
    return _lines(title, "bucket of visual interest, 1 the most", up, series)


def _traffic(found: Figures) -> str:
    series = [
        Series(name, [_exactly(10.0 * (i + 1), g) for i, g in enumerate(found["traffic"][name])])
        for name in (CONTROL, "byway")
        if len(found["traffic"].get(name, ())) > 1
    ]
    title = "Concentration of the feed's traffic"
    return _lines(title, "day", "Gini coefficient over items, ten days each", series, percent=False)


def _lines(title: str, across: str, up: str, series: Sequence[Series], percent: bool = True) -> str:
    """The series that have points; nothing where none has."""
    drawn = [one for one in series if one.points]
    return lines(title, across, up, drawn, percent) if drawn else ""


def _series(name: str, rows: Iterable[tuple[float, Figures]]) -> Series:
    """The figures at their places, as far as they could be measured."""
    return Series(name, [_at(x, row) for x, row in rows if _whole(row)])


def _at(x: float, row: Figures) -> Point:
    """A mean and its interval, where there is one."""
    low, high = (row["mean"] if row[of] is None else row[of] for of in ("low", "high"))
    return Point(x, row["mean"], low, high)


def _exactly(x: float, y: float) -> Point:
    return Point(x, y, y, y)


def _table(found: Figures) -> str:
    used = [c for c in SHOWN if any(_whole(rows.get(c[0])) for rows in found["arms"].values())]
    head = "".join(f'<th title="{escape(meaning)}">{escape(name)}</th>' for _, name, meaning in used)
    body = ""
    for name, rows in found["arms"].items():
        cells = "".join(f"<td>{_cell(rows.get(metric))}</td>" for metric, _, _ in used)
        body += f'<tr><td title="{escape(found["arms_in_words"][name])}">{escape(name)}</td>{cells}</tr>'
    said = "".join(f"<li><b>{escape(name)}</b>: {escape(meaning)}</li>" for _, name, meaning in used)
    arms = "".join(f"<li><b>{escape(n)}</b>: {escape(words)}</li>" for n, words in found["arms_in_words"].items())
    return (
        f'<div class="wide"><table><tr><th>arm</th>{head}</tr>{body}</table></div>'
        f"<details><summary>What the arms and the columns are</summary><ul>{arms}</ul><ul>{said}</ul></details>"
    )


def _cell(row: Figures | None) -> str:
    if not _whole(row):
        return "–"
    assert row is not None
    return f"{row['mean']:.3g}<small>{row['low']:.3g} to {row['high']:.3g}</small>"


def _controls(found: Figures) -> str:
    return "<ul>" + "".join(f"<li>{escape(text)}</li>" for text in wording.controls(found)) + "</ul>"


def _whole(row: Figures | None) -> bool:
    """Whether a figure could be measured."""
    return row is not None and all(row[name] is not None for name in ("mean", "low", "high"))
