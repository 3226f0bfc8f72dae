"""RecTools' SASRec for `sequence.py`, run in an environment that has RecTools and needs nothing of Byway.

    peer/bin/python sequence_peer.py question.npz

Prints one JSON object: the rank of each held-out item (1000 where it is not among the first), seconds, epochs.
"""

import json
import sys
import time
import warnings
from datetime import timedelta

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel

FIRST = 100
NOT_AMONG = 1000


def main() -> None:
    warnings.filterwarnings("ignore")
    asked = np.load(sys.argv[1])
    torch.set_num_threads(int(asked["threads"]))
    pl.seed_everything(int(asked["seed"]))
    user, item = asked["user"], asked["item"]
    moment = pd.Timestamp("2020-01-01") + pd.to_timedelta(np.arange(len(user)), unit="s")
    log = pd.DataFrame({Columns.User: user, Columns.Item: item, Columns.Weight: 1.0, Columns.Datetime: moment})
    dataset = Dataset.construct(log)
    seconds = float(asked["seconds"])

    def trainer() -> pl.Trainer:
        return pl.Trainer(
            max_epochs=10_000,
            max_time=timedelta(seconds=seconds),
            accelerator="cpu",
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )

    model = SASRecModel(
        n_blocks=int(asked["blocks"]),
        n_heads=int(asked["heads"]),
        n_factors=int(asked["dim"]),
        session_max_len=int(asked["history"]),
        get_trainer_func=trainer,
        recommend_torch_device="cpu",
    )
    started = time.perf_counter()
    model.fit(dataset)
    spent = time.perf_counter() - started
    # The model trains with a copy of the trainer that it was given.
    trained = model.fit_trainer
    assert trained is not None
    epochs = trained.global_step / max(1, trained.num_training_batches)
    # Users whose log was too short to be in the data set are asked about in vain: they count as missed.
    people = np.intersect1d(asked["asked"], user)
    found = model.recommend(people, dataset, k=FIRST, filter_viewed=True, on_unsupported_targets="ignore")
    target = dict(zip(asked["asked"].tolist(), asked["target"].tolist(), strict=True))
    hit = found[found[Columns.Item] == found[Columns.User].map(target)]
    place = dict(zip(hit[Columns.User].tolist(), (hit[Columns.Rank] - 1).tolist(), strict=True))
    rank = [place.get(one, NOT_AMONG) for one in asked["asked"].tolist()]
    print(json.dumps({"rank": rank, "seconds": spent, "epochs": epochs}))


if __name__ == "__main__":
    main()
