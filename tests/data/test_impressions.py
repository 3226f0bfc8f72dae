"""Impressions as people have them: what is read of a table, and that one bad cell costs no more than itself."""

from pathlib import Path

import pyarrow as pa
import pytest

from byway.base import config
from byway.data import impressions


@pytest.mark.parametrize(
    ("line", "row"),
    [
        ("caf\xe9,1,2020-01-01,web,a", {"user": None, "item": "1", "source": "web", "arm": "a"}),
        ("v,1,2020-01-01,caf\xe9,a", {"user": "v", "item": "1", "source": "caf�", "arm": "a"}),
        ("v, ,2020-01-01,web,\xe9", {"user": "v", "item": None, "source": "web", "arm": None}),
    ],
)
def test_a_cell_that_is_not_utf_8_ends_nothing(tmp_path: Path, line: str, row: dict[str, str | None]) -> None:
    path = tmp_path / "impressions.csv"
    path.write_bytes(f"user,item,time,source,arm\nu,1,2020-01-01,web,a\n{line}\n".encode("latin-1"))
    table, _ = impressions.read([path], {}, (), config.Catalog(), tmp_path / "scratch")
    assert table.schema.field("user").type == pa.string()
    assert table.drop_columns(["time"]).to_pylist()[1] == row
