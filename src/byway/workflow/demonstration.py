"""`byway demo`: the embedded world, every stage on it, an answer for somebody in it, and where to look."""

import asyncio
import time
from pathlib import Path
from typing import Any

from rich.markup import escape

from byway.base import artifact, config
from byway.base.config import Config
from byway.base.errors import UserError
from byway.base.progress import command, say
from byway.serving import context, history, recommend, stores
from byway.serving.person import Seen
from byway.serving.service import now
from byway.workflow import pipeline, preview, recommendations, showing
from byway.workflow.artifacts import Artifacts
from byway.workflow.stages import EXPERIMENT, REPORT

SOURCE = """\
# The embedded world: a simulation, described in docs/world.md.
[catalog]
source = "parquet"
items = "source/items.parquet"
events = "source/events.parquet"

[experiment]
users = 200
retrain_every = 15
"""
FULL = """
[tree]
items_per_cluster = 40

[media]
frames = 2

[language_model]
steps = 80
block_clusters = 8
batch = 40

[multimodal_model]
# No thought before the answer.
prompts = ["video"]
steps = 60
"""
SMALL = """
# Sizes for a first look: both models are trained for half a minute, enough to see them work and not to judge them.
[tree]
items_per_cluster = 20

[media]
frames = 1

[language_model]
steps = 20
block_clusters = 6
batch = 12

[multimodal_model]
# Thumbnails alone, and no thought before the answer.
prompts = ["video"]
pictures = "thumbnail"
steps = 4

[context_table]
coverage = 0.5

[item_policy]
epochs = 3

[serving]
# The bars that a bundle has to clear are for models that were trained in earnest.
min_match_rate = 0.0
"""
PORT = 8000
"""Where `byway serve` answers by default."""
SHOWN = 5
"""Items of an answer that are printed."""


def run(directory: Path, full: bool) -> tuple[str, dict[str, Any]]:
    """Make the world where it is not there yet, run every stage, and answer somebody in it.

    Returns that in words, and as figures. What can be said before anything is trained is said as soon as it can.
    """
    started = time.perf_counter()
    toml = SOURCE + (FULL if full else SMALL)
    known = directory / "byway.toml"
    if known.exists() and known.read_text("utf-8") != toml:
        raise UserError(f"{directory} holds another workspace; choose another directory for the demo.")
    source = directory / "source"
    if not known.exists():
        if source.exists():
            raise UserError(f"{source} is there already; choose another directory for the demo.")
        directory.mkdir(parents=True, exist_ok=True)
        artifact.write_atomic(known, toml.encode())
    if not source.exists():
        say("Building the embedded world …")
        _build_world(source, full)
    settings = config.load(known)
    first = pipeline.run(directory, settings, until=preview.LAST.name)
    looked = time.perf_counter() - started
    say(f"\n{escape(preview.text(directory))}\n")
    records = first | pipeline.run(directory, settings)
    for stage in (EXPERIMENT, REPORT) if full else ():
        records |= pipeline.run(directory, settings, only=stage.name)
    found = pipeline.figures(records)
    user, item, answers = _answers(directory, settings)
    took = time.perf_counter() - started
    size = f"{found['catalog.items']:,} videos and {found['catalog.users']:,} people"
    text = f"""
The demo is in {directory}: a simulated platform of {size}, every stage of both papers, in {took:.0f} s.

{answers}

{_figures(found) if full else _sizes(found)}
Look at
{_places(directory, user, item, full)}"""
    timings = {"seconds": round(took, 1), "seconds_to_first_look": round(looked, 1)}
    return text, {**timings, "user": user, "item": item, "figures": found}


def _build_world(folder: Path, full: bool) -> None:
    """Write the simulated catalog and log; the folder appears whole or not at all, and goes on after a kill."""
    from byway.simulation import loop

    temporary = folder.with_name(folder.name + ".part")
    loop.write_demo(temporary, full)
    temporary.rename(folder)


def _answers(directory: Path, settings: Config) -> tuple[str, str, str]:
    """Somebody of the log, a video, and what Byway answers to them, in words; the pages are told of the people."""
    built = Artifacts(directory)
    people = preview.typical(built.standing, built.transitions.clusters)
    users = built.users
    shown = [users[person] for person in people.tolist()]
    opened = showing.served(directory)
    told = {user: recommendations.logged(directory, user) for user in shown}
    _tell_pages(directory, settings.serving, told)
    seen, end = told[shown[0]]
    answer = recommend.recommend(opened, seen, recommendations.generator(0, shown[0]), SHOWN, end)
    lines = [f"What {shown[0]} would be shown, and why:", showing.answer_text(answer)]
    # The most watched video that the multimodal model has looked at.
    item = built.catalog.ids()[int(built.contexts.item[0])]
    watching = context.recommend(opened, item, seen, SHOWN, end)
    lines += ["", "And while a video is playing:", showing.answer_text(watching)]
    return shown[0], item, "\n".join(lines)


def _tell_pages(
    directory: Path, settings: config.Serving, people: dict[str, tuple[list[Seen], int | None]]
) -> None:
    """Give the service these people's logs, so that its pages have somebody to show.

    The world's days are long past and the service forgets; the logs are moved to end now. Nobody is told twice.
    """
    at = now()
    told = [
        history.Event(
            f"log-{i}",
            user,
            event.item,
            at - (end or 0) + (event.time or 0),
            event.satisfaction or 0.0,
            source=history.SEEDED,
        )
        for user, (seen, end) in people.items()
        for i, event in enumerate(seen)
    ]

    async def tell() -> None:
        async with stores.opened(settings, directory / "serving") as store:
            await store.add(told)

    asyncio.run(tell())


def _sizes(found: dict[str, Any]) -> str:
    """What the models of a first look are, and are not."""
    pairs, videos = found["table.entries"], found["video.covered_items"]
    return f"""\
{pairs:,} pairs of interests and {videos:,} videos have an answer. Both models were trained for seconds only:
their figures say nothing yet, and those of a simulation say nothing of real people.
"""


def _figures(found: dict[str, Any]) -> str:
    surprised = found["video.recall_at_10.video"]
    return f"""\
  {found["table.entries"]:,} pairs of interests answered, {found["table.legal"]:.1%} of them legally
  {found["language.match_rate"]:.1%} of the model's free answers are exactly a cluster's description
  recall at 10 of the next novel interest: {found["language.recall_at_10.heldout"]:.3f}
    (popularity {found["baseline.popularity.recall_at_10.heldout"]:.3f}, \
untuned model {found["baseline.zero_shot.recall_at_10.heldout"]:.3f})
  {found["video.covered_items"]:,} videos were looked at, {found["video.coverage"]:.0%} of what people watch
  recall at 10 of the interest that surprised next: {surprised:.3f}
    (popularity {found["video.baseline.popularity.recall_at_10"]:.3f}, who knows the video's interest and the log \
{found["video.baseline.counts.recall_at_10"]:.3f})
"""


def _places(directory: Path, user: str, item: str, full: bool) -> str:
    """What to type next, and what it shows."""
    rows = [
        (command("serve", directory), f"the pages: open http://127.0.0.1:{PORT}/?user={user}"),
        (command("show", directory), "every stage, the interests, the figures"),
        (command("recommend", directory, "--user", user), "the same answer again"),
        (command("recommend", directory, "--item", item), "what surprises after that video"),
    ]
    if full:
        rows.append((str(directory / REPORT.folder / "report.html"), "what the simulated live experiment shows"))
    else:
        rows.append((command("demo", "byway-full", "--full"), "a larger world with a live experiment: an hour"))
    width = max(len(typed) for typed, _ in rows)
    return "".join(f"  {typed:{width}}    {what}\n" for typed, what in rows)
