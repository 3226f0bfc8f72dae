"""A workspace of Jester's jokes, whose people answer with what they said of every one of them.

    python -m venv r && r/bin/pip install rdata pyarrow
    r/bin/python benchmarks/jester.py Jester5k.rda WORKSPACE

`Jester5k.rda` is in the data folder of the R package recommenderlab: 5,000 people who rated 36 jokes of 100 at
least, from -10 to 10 (Goldberg et al., Information Retrieval 2001). 1,473 of them rated all. Of these the log holds
the ten jokes that the site showed to everybody first, and `later.parquet` their answers to the other 90; of all
others it holds everything. A joke is liked from 3 on, as two in five are. Four jokes an interest make 25 interests.
It needs nothing of Byway. Then its stages but 07, and `benchmarks/mask.py`.
"""

import argparse
import html
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import rdata

FIRST = (5, 7, 8, 13, 15, 16, 17, 18, 19, 20)
"""The jokes that everybody was shown first, by the site's numbers from 1."""
CONFIG = """[catalog]
source = "parquet"
items = "source/items.parquet"
events = "source/events.parquet"
# From -10 to 10 a joke is liked from 3 on.
positive = 0.65

[tree]
items_per_cluster = 4
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rda", type=Path)
    parser.add_argument("workspace", type=Path)
    given = parser.parse_args()
    read = rdata.read_rda(given.rda)
    matrix, jokes = read["Jester5k"].data, [str(joke) for joke in read["JesterJokes"]]
    # By column: the entries p[j] to p[j + 1] are of joke j.
    user, joke = np.asarray(matrix.i), np.repeat(np.arange(len(jokes)), np.diff(matrix.p))
    satisfaction = ((np.asarray(matrix.x) + 10) / 20).astype(np.float32)
    whole = np.bincount(user) == len(jokes)
    later = whole[user] & ~np.isin(joke, np.array(FIRST) - 1)
    # In which order people rated is not known. By the jokes' numbers everybody's log would end with the same ones.
    order = np.lexsort((np.random.default_rng(0).random(len(user)), user))
    source = given.workspace / "source"
    source.mkdir(parents=True)
    titles = [re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]*>", " ", joke))).strip() for joke in jokes]
    items = {"item": [f"joke-{j + 1}" for j in range(len(jokes))], "title": titles}
    pq.write_table(pa.table(items), source / "items.parquet")
    for name, some in (("events", ~later), ("later", later)):
        rows = order[some[order]]
        table = {
            "user": [f"user-{u}" for u in user[rows].tolist()],
            "item": [items["item"][j] for j in joke[rows].tolist()],
            "satisfaction": satisfaction[rows],
        }
        pq.write_table(pa.table(table), source / f"{name}.parquet")
    (given.workspace / "byway.toml").write_text(CONFIG, "utf-8")
    print(f"{len(jokes)} jokes, {whole.sum()} people who rated all, {(~later).sum()} events, {later.sum()} later")


if __name__ == "__main__":
    main()
