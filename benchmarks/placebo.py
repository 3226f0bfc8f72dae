"""Workspaces of the placebo worlds, so that what a model's knowledge was worth can be measured.

    python benchmarks/placebo.py FOLDER [--world full|small] [--seed 0] [--set section.setting=value]...

Makes FOLDER/true, FOLDER/shuffled-words and FOLDER/chance-liking, runs every stage, the experiment and the report
in each, and prints one JSON object: for every arm its positive feedback and novel impressions in the three worlds.
A run that was stopped goes on. `true` and `shuffled-words` have the same log and people; only the words differ.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Literal

from byway.base import artifact, config
from byway.simulation import loop, world
from byway.simulation.people import WorldSettings
from byway.simulation.world import World
from byway.workflow import demonstration, pipeline

WATCHED = WorldSettings(n_items=1200, n_users=2500, from_search=0.5, look=0.9)
"""A world in which pictures tell what no word does (`benchmarks/watching.py`)."""

METRICS = ("positive_rate", "novel_impressions", "serendipity")


def shuffled_words(true: World, unit: Literal["topic", "sub_area"] = "topic") -> World:
    """Placebo: the words of the topics are dealt out anew, all else is as it was, the log too.

    By `topic`, a cluster of similar texts holds items of unrelated topics. By `sub_area`, whole sub-areas
    change places: their items still belong together, and only what the words tell of the *other* sub-areas is
    wrong. The second takes away a model's knowledge of the world and leaves the tree as good as before.
    """
    words = "shuffled_topics" if unit == "topic" else "shuffled_sub_areas"
    settings = replace(true.settings, words=words)
    return replace(true, settings=settings, items=world.make_items(settings, true.topics, true.seed))


def chance_liking(true: World) -> World:
    """Placebo: each user's affinities to the topics not yet known are permuted among them.

    As many undiscovered interests as before, but neither areas nor appeals nor other people tell which. Searches
    no longer start from the mood of the moment, which would follow the appeals. The log has to be made anew.
    """
    return world.build(true.seed, replace(true.settings, liking="chance", mood=0.0))


def worlds(seed: int, small: bool) -> dict[str, World]:
    """The three worlds by name. Shuffled are whole sub-areas, so that clusters stay clusters of behaviour."""
    true = world.build(seed, world.SMALL if small else world.FULL)
    return {
        "true": true,
        "shuffled-words": shuffled_words(true, "sub_area"),
        "chance-liking": chance_liking(true),
    }


def run(folder: Path, made: World, small: bool, overrides: list[str]) -> dict[str, object]:
    """Every stage, the experiment and the report in `folder`; its figures."""
    if not (folder / "byway.toml").exists():
        loop.write(made, loop.simulate(made), folder / "source")
        toml = demonstration.SOURCE + (demonstration.SMALL if small else demonstration.FULL)
        artifact.write_atomic(folder / "byway.toml", toml.encode())
    settings = config.load(folder / "byway.toml", overrides)
    pipeline.run(folder, settings)
    pipeline.run(folder, settings, only="experiment")
    pipeline.run(folder, settings, only="report")
    return pipeline.figures(pipeline.records(folder))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--world", choices=["full", "small"], default="full")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], help="section.setting=value")
    options = parser.parse_args()
    small = options.world == "small"
    found: dict[str, object] = {}
    for name, made in worlds(options.seed, small).items():
        figures = run(options.folder / name, made, small, options.set)
        found[name] = {
            key.removeprefix("experiment.arms."): row
            for key, row in figures.items()
            if key.startswith("experiment.arms.") and key.endswith(METRICS) and ".platform." not in key
        }
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
