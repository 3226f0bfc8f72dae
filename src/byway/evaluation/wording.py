"""What an experiment's figures say, in plain sentences that the figures themselves choose.

Every sentence has its opposite here too: a page that could only praise would be no evidence.
"""

from typing import Any

from byway.simulation.arms import CONTROL, EXPLOITATION, EXPLORATION, MULTIMODAL, PLACEBO, REFERENCE

Figures = dict[str, Any]

FREE = (*EXPLOITATION, "novelty", REFERENCE, "context")
"""Arms that may show known interests; the others choose novel ones by construction."""

AA = 0.07
"""Of comparisons of identical arms, the share that may differ significantly: 5% by chance, and its spread."""


WHERE = {
    "simulated": "a simulated world, made up by us",
    "later": "a log that was cut in two, of what real people went on to rate",
    "matrix": "KuaiRec's matrix of what real people did",
}
"""What was lived in, by whose feelings they are (`simulation.truth.kind`)."""
LIMITS = {
    "simulated": "people here follow rules that we wrote, and differ in few ways. It says how methods behave if "
    "people are so, not what people are like.",
    "later": "people could be shown only what they had chosen to rate, nobody tired, and nobody stayed away. It "
    "says what real people thought of these items, not what they would do day after day.",
    "matrix": "nobody tired, nobody stayed away, and what a person liked was recorded once. It says what real "
    "people did with these videos, not what they would do day after day.",
}
"""What it does not show, likewise."""


def setting(found: Figures) -> str:
    """What was run, in one sentence."""
    of = found["setting"]
    deals = "1 deal" if of["seeds"] == 1 else f"{of['seeds']} deals"
    whose = (
        "all with the same accounts and the same chance"
        if of["design"] == "paired"
        else "each with a segment of its own"
    )
    return (
        f"{len(found['arms'])} arms of {of['users']:,} accounts, from {of['people']:,} people, {whose}, over "
        f"{of['days']} days and {deals}, in {WHERE[of['kind']]}; {of['clusters']} clusters. An arm adds its "
        f"source to the same control and has {of['share']:.0%} of the places."
    )


NO_EXPERIMENT = "No experiment was run in this workspace, so that the page tells what its models have learned."


def models(drawn: Figures) -> list[str]:
    """What the language model and the table have learned of the held-out log, beside guessing by popularity."""
    keys = ("language.match_rate", "language.recall_at_10.heldout", "baseline.popularity.recall_at_10.heldout")
    if not all(key in drawn for key in keys):
        return []
    match, own, popular = (drawn[key] for key in keys)
    alone = drawn.get("language_model.recall_at_10.heldout")
    spoken = f"{match:.1%} of the language model's free answers are exactly a cluster's name."
    if "language.answered" in drawn:
        spoken = f"{drawn['language.model']} named an interest in {drawn['language.answered']:.1%} of its answers."
    said = (
        f"{spoken} For held-out transitions "
        f"the cluster that came next is among the table's first ten in {own:.1%}, and among the ten most popular "
        f"in {popular:.1%}."
    )
    return [said if alone is None else f"{said} The language model alone has it in {alone:.1%}."]


def live(found: Figures) -> list[str]:
    """What the live experiment of one's own says, before its figures."""
    setting, ratio = found["setting"], found["sample_ratio"]
    said = [f"{setting['users']:,} users over {setting['days']} days, beside the arm {setting['control']}."]
    if ratio["alarm"]:
        said.append(
            f"Users do not fall on the arms by their shares (p = {ratio['p']:.2g}): something loses or moves them, "
            "and no figure below is to be trusted."
        )
    if found["aa"]["tests"]:
        differ = ", ".join(found["aa"]["differ"]) or "none"
        said.append(f"A/A: of {found['aa']['tests']} figures of two equal arms differ at 5%: {differ}.")
    return said


def worth(drawn: Figures) -> list[str]:
    """What `byway worth` said last."""
    return [drawn["worth"]["says"]] if "worth" in drawn else []


def summary(found: Figures) -> list[str]:
    """The paragraphs at the head of the page: what the run shows, and what it does not."""
    if "byway" not in found["arms"]:
        return ["Byway's own arm was not run, so that this page compares baselines only."]
    said = [_novel(found), _quality(found), *_figure_4b(found), _uci(found), _growth(found), _seen(found)]
    return [" ".join(text for text in said if text), f"What this does not show: {LIMITS[found['setting']['kind']]}"]


def curations(drawn: Figures) -> list[str]:
    """Whether paper 1's claim on diversified samples came out, where they were compared with random ones."""
    one, other = "diversified", "random"

    def row(key: str, kind: str) -> Figures:
        key = f"{key}.{kind}"
        return {"mean": drawn[key], "low": drawn.get(f"{key}.low"), "high": drawn.get(f"{key}.high")}

    apart, recall = "curations.difference.labels.gini", "curations.model.macro_recall_at_10.heldout"
    if apart not in drawn:
        return []
    top, rare = "language.labels.top1pct_share", "language.labels.rare_share"
    evenly = _verdict(drawn[apart], "less evenly", "more evenly", "more evenly")
    better = _verdict(drawn["curations.difference.model.macro_recall_at_10.heldout"], "more", "fewer", "more")
    words = [
        f"Taught by {kind} samples the model gives the most frequent 1% of interests {_share(row(top, kind))} of "
        f"all pairs, and hardly ever names {_share(row(rare, kind))} of the interests."
        for kind in (one, other)
    ]
    words += [
        f"By the Gini coefficient diversified samples spread the answers {evenly}; in paper 1, more evenly.",
        f"Of held-out transitions, averaged over interests, the model's first ten hold {_share(row(recall, one))} "
        f"with diversified and {_share(row(recall, other))} with random samples: {better} with diversified ones.",
    ]
    return [" ".join(words)]


def _verdict(difference: Figures, above: str, below: str, claimed: str) -> str:
    if difference["low"] is None:
        mean = difference["mean"]
        return f"{above if mean > 0 else below if mean < 0 else f'not {claimed}'} (a single seed)"
    return _either(difference, f"clearly {above}", f"clearly {below}", f"not clearly {claimed}")


def views(drawn: Figures) -> list[str]:
    """Whether paper 2's claims on what the multimodal model is shown came out, where it was compared."""
    told: list[str] = []
    for claim in (claim for key in drawn if key.endswith(".claims") for claim in drawn[key]):
        of = "recall at 10" if claim["figure"] == "recall_at_10" else "match rate, as the mean over training,"
        row = claim["difference"]
        if row["low"] is None:
            told.append(
                f"{claim['better']} beside {claim['worse']}: the {of} is {row['mean']:+.3f}, in a single seed, "
                "which says nothing of chance; in paper 2 it is higher"
            )
            continue
        verdict = _either(
            row,
            "clearly higher, as in paper 2",
            "clearly lower, where in paper 2 it is higher",
            "not clearly different, where in paper 2 it is higher",
        )
        told.append(
            f"{claim['better']} beside {claim['worse']}: the {of} is {verdict} "
            f"({row['mean']:+.3f}, interval {row['low']:+.3f} to {row['high']:+.3f})"
        )
    return [f"What the multimodal model is shown: {'; '.join(told)}."] if told else []


def controls(found: Figures) -> list[str]:
    """What the controls found."""
    own = found["controls"]
    aa = own["aa"]
    said: list[str] = []
    if aa["tests"]:
        passed = "as it should be" if aa["share"] <= AA else "more than it should be: read intervals with care"
        said.append(
            f"A/A: of {aa['tests']} comparisons of identical arms in {aa['seeds']} pairs, {aa['significant']} "
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
    free = [n for n in FREE if "novel_impressions" in found["arms"].get(n, {})]
    first = f"{_share(own)} of what Byway's source showed was from interests new to the person"
    if not free:
        return f"{first}."
    best = max(free, key=lambda n: found["arms"][n]["novel_impressions"]["mean"])
    other = found["arms"][best]["novel_impressions"]
    how = "more than" if own["mean"] > other["mean"] else "no more than"
    return f"{first}, {how} with any arm that is free to show known ones ({best}: {_share(other)})."


def _quality(found: Figures) -> str:
    """How much of it pleased, and whose did more, less, or cannot be told apart."""
    lifts = found["against"].get("positive_rate", {})
    rate = found["arms"]["byway"].get("positive_rate")
    if rate is None:
        return ""
    groups = (
        ("clearly more than of", [n for n, row in lifts.items() if _up(row)]),
        ("clearly less than of", [n for n, row in lifts.items() if _down(row)]),
        ("not clearly more or less than of", [n for n, row in lifts.items() if not _up(row) and not _down(row)]),
    )
    told = [f"{words} {_listed([f'{n} ({_short(found, n)})' for n in names])}" for words, names in groups if names]
    return f"{_share(rate)} of it pleased" + (": " + "; ".join(told) if told else "") + "."


def _figure_4b(found: Figures) -> list[str]:
    """Whether paper 1's claims on quality came out."""
    lifts = found["against"].get("positive_rate", {})
    exploring = [n for n in (*EXPLORATION, PLACEBO) if n in lifts]
    exploiting = [n for n in EXPLOITATION if n in lifts]
    said: list[str] = []
    if exploring:
        better = all(_up(lifts[n]) for n in exploring)
        said.append(
            "So it pleased more than every exploring arm and a random novel cluster, as in paper 1's figure 4b."
            if better
            else "Paper 1's figure 4b, where it pleases more than every exploring arm, did not come out here."
        )
    if exploiting:
        worse = any(_down(lifts[n]) for n in exploiting)
        said.append(
            "It pleased less than more of the same does, which in paper 1 it does not."
            if worse
            else "It did not please clearly less than more of the same does, as in paper 1."
        )
    return said


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
    """What the people of Byway's arm watched and found, all days together, beside the control's."""
    rows = found["lift"].get(CONTROL, {}).get("byway", {})
    named = {
        "watch_minutes": "watch time",
        "platform.new_positive": "what was new and liked",
        "new_clusters": "clusters first met and liked",
    }
    told: list[str] = []
    for metric, words in named.items():
        row = rows.get(metric)
        if row and row["low"] is not None:
            moved = _either(row, "rose", "fell", "did not clearly change")
            interval = f"{row['mean']:+.1%}, interval {row['low']:+.1%} to {row['high']:+.1%}"
            told.append(f"{words} {moved} ({interval})")
    return f"Compared with the control: {'; '.join(told)}." if told else ""


def _seen(found: Figures) -> str:
    """Paper 2's figure 8: whether the multimodal arm gains more where there is more to see."""
    rows = found["by_bucket"].get(MULTIMODAL)
    if not rows or rows[0]["low"] is None or rows[-1]["low"] is None:
        return ""
    most, least = rows[0], rows[-1]
    if most["low"] > least["high"]:
        return "The multimodal arm gained clearly more where there was most to see just before, as in paper 2."
    if most["high"] < least["low"]:
        return "The multimodal arm gained clearly less where there was most to see just before; in paper 2, more."
    return (
        "Whether there was much to see just before made no clear difference to what the multimodal arm gained; in "
        "paper 2 it did."
    )


def _up(row: Figures) -> bool:
    return row["low"] is not None and row["low"] > 0


def _down(row: Figures) -> bool:
    return row["high"] is not None and row["high"] < 0


def _either(row: Figures, up: str, down: str, neither: str) -> str:
    """The words for a figure that is clearly above 0, clearly below, or neither."""
    return up if _up(row) else down if _down(row) else neither


def _short(found: Figures, name: str) -> str:
    return f"{found['arms'][name]['positive_rate']['mean']:.1%}"


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _share(row: Figures) -> str:
    if row["low"] is None:
        return "–"
    mean, low, high = (f"{row[of]:.1%}" for of in ("mean", "low", "high"))
    return mean if low == mean == high else f"{mean} [{low} to {high}]"
