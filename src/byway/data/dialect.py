"""How a file of delimited text is written: what stands between its fields, whether it has quotes, typed headers.

Owns the guess, from the records at its head, and RecBole's headers (`user_id:token`). It does not read the rows.
"""

import csv
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from byway.base import engine
from byway.data import files
from byway.data.casts import as_text

if TYPE_CHECKING:
    import daft

_DELIMITERS = (",", "\t", ";", "|")
_RECORDS = 200
_TYPED = re.compile(r"^(.+):(token|token_seq|float|float_seq)$")


def sniff(path: Path) -> tuple[str, str | None]:
    """What separates the fields of the file at `path`, and its quote, None where it has none.

    The separator is the one by which most of the first records have as many fields as the first one; a comma where
    that settles nothing. Raises UserError where the file is no UTF-8 text.
    """
    status = path.stat() if path.exists() else None
    return _sniffed(path, (status.st_size, status.st_mtime_ns) if status else None)


@lru_cache(maxsize=64)
def _sniffed(path: Path, _version: tuple[int, int] | None) -> tuple[str, str | None]:
    text = files.head_text(path)
    first = text.partition("\n")[0]
    if all(_TYPED.match(name) for name in first.strip("\r").split("\t")):
        return "\t", None
    best: tuple[float, int, int] = (0.0, 0, 0)
    chosen: tuple[str, str | None] = (",", '"')
    for rank, delimiter in enumerate(_DELIMITERS):
        if delimiter not in first:
            continue
        for quote in ('"', None) if delimiter == "\t" else ('"',):
            score, fields = _evenness(text, delimiter, quote)
            merit = (round(score, 2), fields if score > 0.5 else 0, -rank)
            if merit > best and fields > 1:
                best, chosen = merit, (delimiter, quote)
    return chosen


def _evenness(text: str, delimiter: str, quote: str | None) -> tuple[float, int]:
    """Share of the first records with as many fields as the first one, and how many that are."""
    # Between tabs a quote is often just one (`"Heroes" of old`), which is an error where quotes mean something.
    strict = delimiter == "\t" and quote is not None
    counts: list[int] = []
    try:
        for record, _ in files.records(text, delimiter, quote, strict):
            if record:
                counts.append(len(record))
            if len(counts) > _RECORDS:
                break
    except csv.Error:
        return 0.0, 0
    if len(counts) > 2 and len(counts) <= _RECORDS:
        counts.pop()  # the head may end within it
    return (sum(each == counts[0] for each in counts) / len(counts), counts[0]) if counts else (0.0, 0)


def typed(names: Sequence[str]) -> dict[str, str]:
    """Types of the columns by their names without them, where all names have one as RecBole's.

    >>> typed(["user_id:token", "genre:token_seq"]), typed(["a:token", "b"])
    ({'user_id': 'token', 'genre': 'token_seq'}, {})
    """
    found = [_TYPED.match(name) for name in names]
    return {each[1]: each[2] for each in found if each} if all(found) else {}


def untyped(names: Sequence[str]) -> list[str]:
    """Names without RecBole's types."""
    return list(typed(names) or names)


def barred(frame: "daft.DataFrame", name: str) -> Any:
    """A sequence of words as one text with bars between them; a list with quotes stays as it is written."""
    daft = engine.daft()
    text = as_text(frame, name)
    quoted = text.regexp(r"""^\s*[\[('"]""")
    bare = daft.functions.when(quoted, text).otherwise(text.regexp_replace(r"[ \t]+", "|"))
    return daft.functions.coalesce(bare.cast(daft.DataType.binary()), daft.col(name))
