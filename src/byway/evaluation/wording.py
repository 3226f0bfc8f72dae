"""What an experiment's figures say, in plain sentences that the figures themselves choose.

Every sentence has its opposite here too: a page that could only praise would be no evidence.
"""

from typing import Any

from byway.evaluation.arms import EXPLOITATION, EXPLORATION, PLACEBO, REFERENCE

Figures = dict[str, Any]


def setting(found: Figures) -> str:
    """What was run, in one sentence."""
    of = found["setting"]
    where = (
        "a simulated world, made up by us"
        if of["kind"] == "simulated"
        else "KuaiRec's matrix of what real people did"
    )
    return (
        f"{len(found['arms'])} arms of {of['users']:,} accounts each, from {of['people']:,} people, over "
        f"{of['days']} days and {of['seeds']} seed{'s' * (of['seeds'] > 1)}, in {where}; {of['clusters']} clusters. An "
        f"arm adds its source to the same control and has {of['share']:.0%} of the places."
    )


def summary(found: Figures) -> list[str]:
    """The paragraphs at the head of the page: what the run shows, and what it does not."""
    if "byway" not in found["arms"]:
        return ["Byway's own arm was not run, so that this page compares baselines only."]
    said = [
        _novel(found),
        _quality(found, EXPLORATION, "the exploring arms"),
        _quality(found, (PLACEBO,), "the random novel cluster"),
        _quality(found, ("model", "counts"), "its own two halves, the language model and the log's counts"),
        _exploitation(found),
        _uci(found),
        _growth(found),
    ]
    return [" ".join(text for text in said if text), _limits(found)]


def controls(found: Figures) -> list[str]:
    """What the controls found."""
    own = found["controls"]
    aa = own["aa"]
    said: list[str] = []
    if aa["tests"]:
        passed = "as it should be" if aa["share"] <= 0.05 else "more than it should be: read intervals with care"
        said.append(
            f"A/A: of {aa['tests']} comparisons of identical arms over {aa['seeds']} seeds, {aa['significant']} "
            f"({aa['share']:.1%}) differ significantly; chance alone makes 5%, so this is {passed}."
        )
    else:
        said.append("A/A: not run.")
    leaking = own["leaking"]
    said.append(
        f"Leakage: {', '.join(leaking)} answered otherwise when the hidden state was overwritten; void figures."
        if leaking
        else "Leakage: no arm's answer changed when the hidden state was overwritten."
    )
    for name, row in own["chance"].items():
        if name != PLACEBO:
            verdict = "and so beats" if row["beats_placebo"] else "and so does not beat"
            said.append(
                f"Where the liking of what is undiscovered is pure chance, {name} pleases in "
                f"{_share(row['rate'])} of what was never met, {verdict} the random novel cluster "
                f"({_share(own['chance'][PLACEBO]['rate'])})"
                + ("; it should not, so something other than liking is at work." if row["beats_placebo"] else ".")
            )
    world = own["world"]
    if world["words"] not in ("true", "real"):
        said.append(
            "This is the placebo world whose words are shuffled: what a model knows of the world is worthless "
            "here, and what Byway loses against the true world is what its knowledge was worth."
        )
    return said


def _novel(found: Figures) -> str:
    own = found["arms"]["byway"]["novel_impressions"]
    others = [n for n in (*EXPLOITATION, *EXPLORATION) if "novel_impressions" in found["arms"].get(n, {})]
    if not others:
        return f"{_share(own)} of what Byway's source showed was from interests new to the person."
    best = max(others, key=lambda n: found["arms"][n]["novel_impressions"]["mean"])
    other = found["arms"][best]["novel_impressions"]
    how = "more than" if own["mean"] > other["mean"] else "no more than"
    return (
        f"{_share(own)} of what Byway's source showed was from interests new to the person, {how} any baseline's "
        f"({best}: {_share(other)})."
    )


def _quality(found: Figures, names: tuple[str, ...], words: str) -> str:
    rows = {n: found["arms"][n]["positive_rate"] for n in names if "positive_rate" in found["arms"].get(n, {})}
    own = found["arms"]["byway"].get("positive_rate")
    if not rows or own is None:
        return ""
    listed = ", ".join(f"{n} {_share(row)}" for n, row in rows.items())
    below = [n for n, row in rows.items() if row["high"] < own["low"]]
    above = [n for n, row in rows.items() if row["low"] > own["high"]]
    if len(below) == len(rows):
        verdict = "clearly more than"
    elif above:
        verdict = f"clearly less than {', '.join(above)} of"
    else:
        verdict = "not clearly different from all of"
    return f"{_share(own)} of it pleased, {verdict} {words} ({listed})."


def _exploitation(found: Figures) -> str:
    rows = {n: found["arms"][n]["positive_rate"] for n in EXPLOITATION if n in found["arms"]}
    own = found["arms"]["byway"].get("positive_rate")
    if not rows or own is None:
        return ""
    worse = [n for n, row in rows.items() if row["low"] > own["high"]]
    listed = ", ".join(f"{n} {_share(row)}" for n, row in rows.items())
    if worse:
        return f"It pleased less than recommending more of the same does ({listed}), unlike in paper 1's figure 4b."
    return f"That is not clearly less than recommending more of the same ({listed}), as in paper 1's figure 4b."


def _uci(found: Figures) -> str:
    rows = found["lift"].get(REFERENCE, {}).get("byway", {})
    uci = {
        int(m.removeprefix("uci_")): row
        for m, row in rows.items()
        if m.startswith("uci_") and row["low"] is not None
    }
    if not uci:
        return ""
    above, below = [[n for n, row in uci.items() if wanted(row)] for wanted in (_up, _down)]
    if len(above) == len(uci):
        return "More users had N interests in a week than with the hierarchical bandit, at every N."
    return (
        f"Against the hierarchical bandit, clearly more users had N interests in a week at {len(above)} of "
        f"{len(uci)} values of N, and clearly fewer at {len(below)}."
    )


def _growth(found: Figures) -> str:
    rows = found["growth"].get("byway")
    if not rows:
        return ""
    last = rows["watch"][-1]
    if last["mean"] is None:
        return ""
    said = "rose" if _up(last) else "fell" if _down(last) else "did not clearly change"
    return (
        f"Compared with the control, watch time {said} "
        f"({last['mean']:+.1%}, interval {last['low']:+.1%} to {last['high']:+.1%})."
    )


def _limits(found: Figures) -> str:
    if found["setting"]["kind"] == "simulated":
        return (
            "What this does not show: people here follow rules that we wrote, and differ in few ways. It says how "
            "methods behave if people are so, not what people are like."
        )
    return (
        "What this does not show: nobody tired, nobody stayed away, and what a person liked was recorded once. It "
        "says what real people did with these videos, not what they would do day after day."
    )


def _up(row: Figures) -> bool:
    return row["low"] is not None and row["low"] > 0


def _down(row: Figures) -> bool:
    return row["high"] is not None and row["high"] < 0


def _share(row: Figures) -> str:
    return f"{row['mean']:.1%} [{row['low']:.1%} to {row['high']:.1%}]" if row["low"] is not None else "–"
