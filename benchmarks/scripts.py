"""Titles in many scripts, from a table to names: what the encoder makes of them.

    python benchmarks/scripts.py [LANGUAGE ...] [--models auto minilm]
    python benchmarks/scripts.py --plain minilm use-multilingual e5-multilingual

For each language of `scripts.toml`, codes, and two mixed catalogs: `byway init` and `byway run --until
descriptions` on 36 titles of six topics, and on every two titles of a topic as a longer one, so that words occur
more than once. Which encoder read them; different vectors of 126 different texts; of the three of the 36 that are
nearest to a title the share of its own topic, and what chance would give; how well the six clusters of level 2 are
the topics (adjusted mutual information, 0 is chance), and their names. The log is of 60 people who each like two
topics. The second prints, of each encoder by itself, different vectors of the 36 and the share among the three
nearest, nothing standing in for what it does not read.
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
import tomllib
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import adjusted_mutual_info_score

from byway.base import config
from byway.interests import describe, embed, encoders, tree
from byway.interests.projection import group_equal

TITLES = Path(__file__).with_name("scripts.toml")
NEAREST = 3
LEVELS = [2, 6, 18, 36]


def catalogs() -> dict[str, dict[str, list[str]]]:
    """Titles by topic, by catalog."""
    found: dict[str, dict[str, list[str]]] = tomllib.loads(TITLES.read_text("utf-8"))
    english, telugu, burmese = (found[name] for name in ("english", "telugu", "burmese"))
    letters = ("KX", "MB", "TQ", "RW", "ZD", "JF")
    codes = {mark: [f"{mark}-{1000 + 7 * i}/{mark.lower()}" for i in range(6)] for mark in letters}
    half = {topic: english[topic][:3] + telugu[topic][3:] for topic in english}
    tenth = {topic: (english[topic][:5] + burmese[topic][5:]) for topic in english}
    return {**found, "codes": codes, "english and telugu": half, "a sixth burmese": tenth}


def write(folder: Path, titles: dict[str, list[str]]) -> list[str]:
    """The tables; returns the topic of each item, those of one title first."""
    rng = np.random.default_rng(0)
    items = [(topic, title) for topic, some in titles.items() for title in some]
    items += [(topic, " · ".join(two)) for topic, some in titles.items() for two in combinations(some, 2)]
    with (folder / "items.csv").open("w", encoding="utf-8", newline="") as f:
        csv.writer(f).writerows([("item", "title"), *((i, title) for i, (_, title) in enumerate(items))])
    topics = [topic for topic, _ in items]
    with (folder / "events.csv").open("w", encoding="utf-8", newline="") as f:
        out = csv.writer(f)
        out.writerow(("user", "item", "time"))
        for user in range(60):
            liked = rng.choice(list(titles), 2, replace=False)
            own = [i for i, topic in enumerate(topics) if topic in liked]
            for turn, item in enumerate(rng.choice(own, 8, replace=False)):
                out.writerow((f"u{user}", item, 1_700_000_000 + 86_400 * user + 60 * turn))
    return topics


def measure(name: str, titles: dict[str, list[str]], model: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        topics = write(Path(folder), titles)
        space = Path(folder) / "W"
        run = [sys.executable, "-m", "byway"]
        subprocess.run([*run, "init", space, "--from", "csv", folder], check=True, capture_output=True)
        settings = [f"--set=tree.levels={LEVELS}", f"--set=embeddings.model={model}"]
        started = time.perf_counter()
        ran = subprocess.run(
            [*run, "run", space, "--until", "descriptions", *settings], capture_output=True, text=True
        )
        if ran.returncode:
            return {"catalog": name, "model": model, "error": ran.stderr.strip().splitlines()[-1]}
        seconds = time.perf_counter() - started
        record = json.loads((space / "02-embeddings/record.json").read_bytes())
        vectors, grown = np.array(embed.load(space / "02-embeddings")), tree.load(space / "04-tree")
        label = np.unique(topics, return_inverse=True)[1]
        short = sum(map(len, titles.values()))
        similarity = vectors[:short] @ vectors[:short].T
        np.fill_diagonal(similarity, -2)
        near = np.argsort(-similarity, axis=1, kind="stable")[:, :NEAREST]
        coherence = json.loads((space / "04-tree/record.json").read_bytes())["metrics"]["tree.coherence"]
        return {
            "catalog": name,
            "asked": model,
            "model": record["metrics"]["embeddings.model"],
            "texts": record["counts"]["distinct_texts"],
            "vectors": record["counts"]["distinct_vectors"],
            "by_letters": record["counts"]["spelled_texts"],
            "same_topic": round(float((label[near] == label[:short, None]).mean()), 3),
            "chance": round((short / len(titles) - 1) / (short - 1), 3),
            "tree": round(float(adjusted_mutual_info_score(label, np.array(grown.assign(2)))), 3),
            "coherence": coherence,
            "gate": record["gates"]["embeddings.distinct"]["value"],
            "names": describe.load(space / "05-descriptions").names[1],
            "seconds": round(seconds, 1),
        }


def plain(name: str, titles: dict[str, list[str]], models: list[str]) -> dict[str, Any]:
    """The rows of encoders as they are."""
    texts = [title for some in titles.values() for title in some]
    label = np.repeat(np.arange(len(titles)), [len(some) for some in titles.values()])
    found: dict[str, Any] = {"catalog": name}
    for model in models:
        rows = encoder(model)(texts)
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        different = len(np.unique(group_equal(rows)))
        rows = rows - rows.mean(axis=0)
        rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
        similarity = rows @ rows.T
        np.fill_diagonal(similarity, -2)
        near = np.argsort(-similarity, axis=1, kind="stable")[:, :NEAREST]
        found[model] = {"vectors": different, "same_topic": round(float((label[near] == label[:, None]).mean()), 3)}
    return found


@cache
def encoder(model: str) -> encoders.Encoder:
    """Loaded once."""
    return encoders.sentence_encoder(config.Embeddings(model))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("languages", nargs="*")
    parser.add_argument("--plain", nargs="+", default=[])
    parser.add_argument("--models", nargs="+", default=["auto"])
    given = parser.parse_args()
    every = catalogs()
    for name in given.languages or every:
        if given.plain:
            print(json.dumps(plain(name, every[name], given.plain), ensure_ascii=False), flush=True)
            continue
        for model in given.models:
            print(json.dumps(measure(name, every[name], model), ensure_ascii=False), flush=True)


if __name__ == "__main__":
    main()
