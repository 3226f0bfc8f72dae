"""Hashtags as people keep them: lists, one text with several, and the lists of objects of other systems.

Owns what the names in a value are: a JSON or Python list, a NumPy array or a Postgres array as text, objects with a
name, a map from a name to a number. It does not decide which tag is good enough.
"""

import ast
import re
import warnings
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from byway.data import text
from byway.data.text import compute

NAMES = ("name", "title", "label", "tag", "text", "value", "word", "keyword")
"""Keys under which an object keeps its name, the first that is there."""

_LONGEST = 100_000
_DEEPEST = 20
_QUOTED = r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
_NUMPY = re.compile(rf"[\[(]\s*{_QUOTED}(?:\s+{_QUOTED})*\s*[\])]", re.DOTALL)
_WRAPPED = re.compile(r"^(?:array|list|set|frozenset|tuple|Index|Series)\((.*?)(?:,\s*dtype=[^()]*)?\)$", re.DOTALL)


def lists(column: pa.Array) -> pa.Array:
    """Each row's tags as a large_list of large_string, still unclean; a null row is an empty or null list.

    `column` is a list of texts, or valid text: what looks like a list of another system is read as one, any other
    text is split at `|`, `,`, `;` and `#`.
    """
    kind = pa.large_list(pa.large_string())
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        return column
    words = compute.cast(column, pa.large_string())
    # Brackets and quotes around words fall away where no list can be made of them.
    bare = compute.replace_substring_regex(words, r"""(^|[|,;#])[\s"'\[\]{}]+""", r"\1")
    bare = compute.replace_substring_regex(bare, r"""["'\[\]{}\s]+([|,;#]|$)""", r"\1")
    split = compute.cast(compute.split_pattern_regex(bare, r"[|,;#]+"), kind)
    listed = text.mask(compute.match_substring_regex(words, r"""^\s*(["'\[{(]|[A-Za-z]+\(\s*[\[{(])"""))
    if not listed.any():
        return split
    read = [named(word) if is_list else None for word, is_list in zip(words.to_pylist(), listed, strict=True)]
    is_read = np.array([names is not None for names in read])
    return compute.if_else(pa.array(is_read), pa.array(read, kind), split)


def unlisted(column: pa.Array) -> pa.Array:
    """Texts, with lists of texts that are written as JSON, Python or NumPy write them joined."""
    listed = text.mask(compute.match_substring_regex(column, r"""(?s)^\s*\[\s*(['"].*['"]\s*)?\]\s*$"""))
    if not listed.any():
        return column
    words = column.filter(pa.array(listed)).to_pylist()
    read = [each if (found := named(each)) is None else " ".join(found) for each in words]
    return compute.replace_with_mask(column, pa.array(listed), pa.array(read, column.type))


def named(written: str) -> list[str] | None:
    """The names in a list that is written as text, None where it is no list.

    >>> named('[{"id": 16, "name": "cooking"}, {"id": 35, "name": "Sci-Fi & Fantasy"}]')
    ['cooking', 'Sci-Fi & Fantasy']
    >>> named("[{'id': 16, 'name': 'cooking'}]"), named("['A' 'B']"), named("{Drama,War}")
    (['cooking'], ['A', 'B'], None)
    """
    written = written.strip()
    if written[:1] in ("'", '"'):
        written = f"[{written}]"
    if len(written) > _LONGEST:
        return None
    if wrapped := _WRAPPED.match(written):
        written = wrapped[1]
    if _NUMPY.fullmatch(written):
        return [word for each in re.findall(_QUOTED, written) for word in names(literal(each))]
    try:
        value = msgspec.json.decode(written)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        value = literal(written)
    if value is None and written.startswith("{"):
        # A set of Python or an array of Postgres; as a list it keeps its order.
        value = literal(f"[{written[1:-1]}]")
    return names(value) if isinstance(value, list | dict) else None


def literal(written: str) -> Any:
    """The Python literal that a text is, in the types of JSON; None where it is none.

    A set is none either: the caller reads it in the order of its text.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            value = ast.literal_eval(re.sub(r"\bnan\b", "None", written))
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        return None
    return None if isinstance(value, set) else _in_json(value)


def _in_json(value: Any) -> Any:
    """A literal in the types of JSON; a set inside it is sorted, since its own order is another in every run."""
    if isinstance(value, dict):
        return {str(key): _in_json(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_in_json(inner) for inner in value]
    if isinstance(value, set):
        return sorted((_in_json(inner) for inner in value), key=str)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value if value is None or isinstance(value, str | int | float) else str(value)


def names(value: Any, depth: int = 0) -> list[str]:
    """The names in a value as JSON, Arrow or Python gives it: of objects their name, of maps their keys.

    >>> names([{"id": 1, "name": "a"}, "b", 3, None, ["c"]]), names({"d": 0.5, "e": 1})
    (['a', 'b', '3', 'c'], ['d', 'e'])
    """
    if value is None or value == "" or depth > _DEEPEST or (isinstance(value, float) and value != value):
        return []
    if isinstance(value, bytes):
        return [value.decode("utf-8", "replace")]
    if isinstance(value, dict):
        lower = {str(key).lower(): each for key, each in value.items()}
        key = next((key for key in NAMES if lower.get(key) not in (None, "")), None)
        if key is not None:
            return names(lower[key], depth + 1)
        if not any(key in lower for key in NAMES) and all(isinstance(each, int | float) for each in value.values()):
            return [str(key) for key, weight in value.items() if weight]
        return [
            name for each in value.values() if not isinstance(each, int | float) for name in names(each, depth + 1)
        ]
    if isinstance(value, list | tuple):
        return [name for each in value for name in names(each, depth + 1)]
    return [str(value)]
