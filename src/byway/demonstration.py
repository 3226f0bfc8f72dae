"""`byway demo`: the embedded world, every stage on it, and where to look."""

import time
from pathlib import Path
from typing import Any

from byway import artifact, config, pipeline
from byway.errors import UserError
from byway.progress import command, say

SOURCE = """\
# The embedded world: a simulation, described in docs/world.md.
[catalog]
source = "parquet"
items = "source/items.parquet"
events = "source/events.parquet"

[tree]
items_per_cluster = 40

[experiment]
users = 200
epochs = 2
retrain_every = 15
aa_seeds = 4
"""
FULL = """
[media]
frames = 2

[language_model]
steps = 80
block_clusters = 8
spoken = 40
evaluate_every = 40
evaluate_on = 100
checkpoint_every = 20

[multimodal_model]
# The short road: no thought before the answer.
prompts = ["video"]
frames = 2
steps = 60
evaluate_every = 30
evaluate_on = 50
final_on = 200
checkpoint_every = 30

[metrics]
prompts = 250
"""
QUICK = """
[language_model]
steps = 50
block_clusters = 6
spoken = 24
evaluate_every = 50
checkpoint_every = 25
evaluate_on = 50

[item_policy]
epochs = 4

[metrics]
prompts = 100
agreement_pairs = 20
"""


def run(directory: Path, quick: bool) -> tuple[str, dict[str, Any]]:
    """Make the world where it is not there yet, run every stage, and say in words what came out."""
    started = time.perf_counter()
    toml = SOURCE + (QUICK if quick else FULL)
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
        _build_world(source, quick)
    knobs = config.load(known)
    records = pipeline.run(directory, knobs)
    for stage in ("experiment", "report"):
        records |= pipeline.run(directory, knobs, only=stage)
    page = directory / pipeline.BY_NAME["report"].folder / "report.html"
    found = pipeline.figures(records)
    figures = f"""
The demo is in {directory}: a simulated platform of {found["catalog.items"]:,} videos and \
{found["catalog.users"]:,} people.

  {found["table.entries"]:,} pairs of interests answered, {found["table.legal"]:.1%} of them legally
  {found["language.match_rate"]:.1%} of the model's free answers are exactly a cluster's description
  recall at 10 of the next novel interest: {found["language.recall_at_10.heldout"]:.3f}
    (popularity {found["baseline.popularity.recall_at_10.heldout"]:.3f}, \
untuned model {found["baseline.zero_shot.recall_at_10.heldout"]:.3f})
"""
    watching = ""
    if "context_table" in records:
        surprised = found[f"video.recall_at_10.{knobs.multimodal_model.prompts[0]}"]
        figures += f"""\
  {found["video.covered_items"]:,} videos were looked at, {found["video.coverage"]:.0%} of what people watch
  recall at 10 of the interest that surprised next: {surprised:.3f}
    (popularity {found["video.baseline.popularity.recall_at_10"]:.3f}, who knows the video's interest and the log \
{found["video.baseline.counts.recall_at_10"]:.3f})
"""
        watching = f"""\
  {command("recommend", directory, "--item", _something(directory))}    what surprises after this video
"""
    text = f"""{figures}
Look at
  {command("show", directory)}                  the interests, the figures
  {command("recommend", directory, "--user", _someone(directory))}    what one person would be shown, and why
{watching}\
  {page}    what the simulated live experiment shows
"""
    return text, {"seconds": round(time.perf_counter() - started, 1), "figures": found}


def _build_world(folder: Path, quick: bool) -> None:
    """Write the simulated catalog and log; the folder appears whole or not at all, and goes on after a kill."""
    from byway.evaluation import loop

    temporary = folder.with_name(folder.name + ".part")
    loop.write_demo(temporary, quick)
    temporary.rename(folder)


def _someone(directory: Path) -> str:
    """Some user of the log."""
    from byway.data import events

    return events.load_users(directory / pipeline.BY_NAME["catalog"].folder)[0]


def _something(directory: Path) -> str:
    """The first video that was looked at."""
    import pyarrow.parquet as pq

    row = pq.read_table(directory / pipeline.BY_NAME["context_table"].folder / "answers.parquet")["item"][0].as_py()
    return pq.read_table(directory / pipeline.BY_NAME["catalog"].folder / "items.parquet")["item"][row].as_py()
