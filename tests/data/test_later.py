"""The later part of a log that was cut in two: what is read of it, and what is refused."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from byway.base.errors import UserError
from byway.data import later


@pytest.mark.parametrize(
    ("satisfaction", "sentence"),
    [
        (pa.array(["good"]), "satisfaction a number"),
        (pa.array([{"a": 1}]), "satisfaction a number"),
        (pa.array([1.5]), "outside 0 to 1"),
        (pa.array([None], pa.float32()), "outside 0 to 1"),
    ],
)
def test_a_satisfaction_that_is_none_is_one_sentence(tmp_path: Path, satisfaction: pa.Array, sentence: str) -> None:
    path = tmp_path / later.FILE
    pq.write_table(pa.table({"user": [7], "item": ["1"], "satisfaction": satisfaction}), path)
    with pytest.raises(UserError, match=sentence):
        later.read(path)
    pq.write_table(pa.table({"user": [7], "item": ["1"], "satisfaction": ["0.5"]}), path)
    assert later.read(path).to_pylist() == [{"user": "7", "item": "1", "satisfaction": 0.5}]
