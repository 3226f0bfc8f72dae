"""How a column of a file is read as text or a number: expressions over dataframes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from byway.base import engine
from byway.data.files import MALFORMED

if TYPE_CHECKING:
    import daft


def concat(frames: Sequence["daft.DataFrame"]) -> "daft.DataFrame":
    """The rows of several dataframes, one after the other: with all of their columns, bytes where types differ.

    What one does not have is null there.
    """
    daft = engine.daft()
    if len(frames) == 1:
        return frames[0]
    kinds: dict[str, list[Any]] = {}
    for frame in frames:
        for name in frame.column_names:
            kinds.setdefault(name, []).append(frame.schema()[name].dtype)
    alike: list[Any] = []
    for frame in frames:
        columns: list[Any] = []
        for name, found in kinds.items():
            kind = found[0] if all(other == found[0] for other in found) else daft.DataType.binary()
            column = daft.lit(False if name == MALFORMED else None)
            if name in frame.column_names:
                column = daft.col(name)
                if frame.schema()[name].dtype != kind:  # a number or a text
                    column = column.cast(daft.DataType.string())
            columns.append(column.cast(kind).alias(name))
        alike.append(frame.select(*columns))
    whole = alike[0]
    for frame in alike[1:]:
        whole = whole.concat(frame)
    return whole


def is_text(frame: "daft.DataFrame", name: str) -> bool:
    """Whether a column is text, or bytes that may be."""
    kind = frame.schema()[name].dtype
    return kind.is_binary() or kind.is_string()


def as_text(frame: "daft.DataFrame", name: str) -> Any:
    """A column as text; null where its bytes are not UTF-8."""
    column = engine.daft().col(name)
    return column.try_decode("utf-8") if frame.schema()[name].dtype.is_binary() else column


def as_bytes(text: Any) -> Any:
    """A text expression as bytes, so that it can stand beside bytes that are not UTF-8."""
    return text.cast(engine.daft().DataType.binary())


def as_number(frame: "daft.DataFrame", name: str) -> Any:
    """A column as float64: null where it is empty, NaN where it is text that is no number."""
    daft = engine.daft()
    if not is_text(frame, name):
        return daft.col(name).cast(daft.DataType.float64())
    text = as_text(frame, name)
    number = text.try_cast(daft.DataType.float64())
    unreadable = number.is_null() & (text.strip() != "")
    return daft.functions.when(unreadable, daft.lit(float("nan"))).otherwise(number)


def at_most_one(number: Any) -> Any:
    """A number cut at 1; NaN stays what it is (in a comparison it would count as large)."""
    daft = engine.daft()
    return daft.functions.when((number > 1) & number.not_nan(), daft.lit(1.0)).otherwise(number)


def known(frame: "daft.DataFrame", name: str) -> Any:
    """Text that says something, else null: Kuaishou's tables write UNKNOWN for nothing."""
    text = as_text(frame, name)
    return engine.daft().functions.when((text != "UNKNOWN") & (text != ""), text)


def without_hashtags(frame: "daft.DataFrame", name: str) -> Any:
    """A caption without its `#words`, as bytes; bytes that are not UTF-8 stay as they are, UNKNOWN is null."""
    daft = engine.daft()
    stripped = as_text(frame, name).regexp_replace(r"#[^\s#]+", " ")
    caption = daft.functions.coalesce(as_bytes(stripped), daft.col(name))
    return daft.functions.when(daft.col(name) != daft.lit(b"UNKNOWN"), caption)
