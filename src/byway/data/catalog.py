"""01-catalog, the items: what is there to recommend, in words.

Owns `items.parquet` and the build of the whole artifact; `events` owns the log beside it. Row i is item index i,
in order of first appearance in the input. It knows no layout: `sources` brings the raw rows.

An item is quarantined, and counted, for the first of these reasons: `wrong fields` (a CSV row longer or shorter
than its header), `invalid utf-8`, `empty id`, `bad id` (control characters, or longer than 256), `long text` (a
title or description beyond 100 times `MAX_TITLE`), `no text` (neither title, hashtags nor description has a letter
or a digit: nobody could describe it), `duplicate id` (the first is kept). Events of a quarantined item are `unknown
item`. Texts with control characters are mended and counted as `cleaned`, titles longer than `MAX_TITLE` cut and
counted as `shortened`.
"""

import time as clock
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from rich.markup import escape

from byway.base import config
from byway.base.artifact import Outcome, Work
from byway.base.errors import UserError
from byway.base.progress import say
from byway.data import events, files, ids, sources, tags, text
from byway.data.files import MALFORMED
from byway.data.quarantine import Quarantine, Sieve
from byway.data.text import compute

SCHEMA = pa.schema(
    [
        ("item", pa.string()),
        ("title", pa.string()),
        ("hashtags", pa.list_(pa.string())),
        ("description", pa.string()),
        ("creator", pa.string()),
        ("duration", pa.float32()),
        ("thumbnail", pa.string()),
        ("media", pa.string()),
        ("created_at", pa.int64()),
    ]
)
"""Duration in seconds; created_at in microseconds since 1970; thumbnail and media are paths or addresses,
relative ones to the folder of the input; null where unknown. A title may be empty where there are hashtags."""

MAX_TITLE = 512
"""Characters of a title that are kept: twice what an encoder reads of an item (`encoders.MAX_TOKENS`)."""
LONG = 100
"""A text beyond this many times `MAX_TITLE` is no title: an unclosed quote has swallowed rows."""

BATCH_ROWS = 1 << 16
"""Items cleaned at a time, and rows of a row group."""


@dataclass(frozen=True, slots=True)
class Catalog:
    """The finished items; row i of the table is item index i."""

    items: pa.Table

    def __len__(self) -> int:
        return self.items.num_rows

    def ids(self) -> list[str]:
        """The ids by which the input knows the items."""
        return self.items["item"].to_pylist()

    def titles(self) -> list[str]:
        """A name to show for every item: its title, else its hashtags, else its description."""
        tags = compute.binary_join(self.items["hashtags"], " #")
        tags = compute.if_else(compute.equal(tags, ""), "", compute.binary_join_element_wise("#", tags, ""))
        shown = self.items["title"]
        for other in (tags, compute.fill_null(self.items["description"], "")):
            shown = compute.if_else(compute.equal(shown, ""), other, shown)
        return shown.to_pylist()

    def texts(self) -> list[str]:
        """Everything an item says in one line, for the encoder: title, hashtags, description."""
        tags = compute.binary_join(self.items["hashtags"], ", ")
        title = compute.utf8_rtrim(self.items["title"], ". ")
        columns = [title, tags, self.items["description"]]
        parts = [compute.if_else(compute.equal(column, ""), None, column) for column in columns]
        return compute.binary_join_element_wise(*parts, ". ", null_handling="skip").to_pylist()


def load(path: Path) -> Catalog:
    """Read the items of the finished artifact at `path`."""
    return Catalog(pq.read_table(path / "items.parquet"))


def build(work: Work, settings: config.Catalog, workspace: Path, now: int | None = None) -> Outcome:
    """Read the source that the settings name, clean it, write items, events, users and quarantine.

    `now` is the present in microseconds since 1970 (default: the clock); only events more than a day after it
    depend on it. Raises UserError where a file is not what it says, and where nothing usable is left.
    """
    began = clock.perf_counter()
    present = clock.time_ns() // 1000 if now is None else now
    raw = sources.read(settings, workspace, work.scratch / "copies")
    for sentence in raw.notes:
        say(f"  {escape(sentence)}")
    kept_out = Quarantine(work.out / "quarantine.parquet")
    outcome = Outcome()
    items = cleaned(raw, kept_out, outcome.counts)
    require_some(items.num_rows, "items", raw.items_from, kept_out)
    outcome.timings["items"] = clock.perf_counter() - began
    began = clock.perf_counter()
    log = events.cleaned(raw, items["item"].combine_chunks(), kept_out, present)
    require_some(len(log), "events", raw.events_from, kept_out, items)
    most = float(log.columns["satisfaction"].max())
    if most < settings.positive:
        raise UserError(
            f"None of the {len(log):,} events of {raw.events_from} reaches catalog.positive = "
            f"{settings.positive:g}; the highest satisfaction is {most:g}. Lower it, or say the scale with "
            "event_scale."
        )
    say_little(Catalog(items))
    kept_out.close()
    pq.write_table(items, work.out / "items.parquet", row_group_size=BATCH_ROWS, compression="zstd")
    for sentence in log.notes:
        say(f"  [yellow]{escape(sentence)}[/]")
    log.write(work.out, settings.positive)
    outcome.timings["events"] = clock.perf_counter() - began
    named = [compute.not_equal(compute.fill_null(items[name], ""), "") for name in ("media", "thumbnail")]
    outcome.counts["media"] = compute.sum(compute.or_(*named)).as_py() or 0
    outcome.counts |= {"items": items.num_rows, "events": len(log), "users": log.n_users}
    reasons = dict(sorted(kept_out.reasons.items()))
    outcome.metrics = {f"catalog.{name}": outcome.counts[name] for name in ("items", "events", "users")}
    outcome.metrics |= {"catalog.quarantined": reasons, "catalog.read": [*raw.notes, *log.notes]}
    outcome.counts |= {f"quarantined.{reason}": count for reason, count in reasons.items()}
    return outcome


def say_little(catalog: Catalog) -> None:
    """Warn of texts by which items can hardly be told apart, and interests hardly named."""
    texts = pa.array(catalog.texts(), pa.large_string())
    different = compute.count_distinct(texts).as_py()
    letters = compute.sum(compute.match_substring_regex(texts, r"\p{L}")).as_py() or 0
    if len(texts) >= 20 and different <= len(texts) / 10:
        say(
            f"  [yellow]{len(texts):,} items have {different:,} texts between them[/], such as "
            f"{escape(repr(str(texts[0])[:40]))}: interests are found and named by them. Map another column to "
            "title, hashtags or description."
        )
    elif 2 * letters < len(texts):
        say(
            f"  [yellow]{1 - letters / len(texts):.0%} of the items have a text without a letter[/]: interests are "
            "named by words. Map another column to title, hashtags or description."
        )


def require_some(count: int, table: str, path: Path, kept_out: Quarantine, items: pa.Table | None = None) -> None:
    """Raise UserError, with the reasons, where a table has no usable row; of `items` an id stands beside an unknown
    one."""
    if count:
        return
    reasons = ", ".join(f"{reason}: {n:,}" for reason, n in kept_out.reasons.most_common(3))
    if items is not None and kept_out.unknown is not None:
        reasons += f"; it names {kept_out.unknown!r}, and the first of the items is {items['item'][0].as_py()!r}"
    raise UserError(f"{path} has no usable {table} ({reasons or 'it has no rows'}).")


def cleaned(raw: sources.Raw, kept_out: Quarantine, counts: dict[str, int]) -> pa.Table:
    """The items that may stay, in order of first appearance; the others go to quarantine."""
    counts |= {"cleaned": 0, "shortened": 0}
    pieces: list[pa.Table] = []
    rows: list[NDArray[np.int64]] = []
    first_row = 0
    for batch in files.batches(raw.items, raw.items_from, rows=BATCH_ROWS):
        table, kept = _clean_batch(batch, first_row, kept_out, counts)
        pieces.append(table)
        rows.append(kept)
        first_row += batch.num_rows
    if not pieces:
        return SCHEMA.empty_table()
    items, row = pa.concat_tables(pieces), np.concatenate(rows)
    canonical = ids.canonical(items["item"].combine_chunks(), raw.items_from, "item")
    items = items.set_column(0, SCHEMA.field("item"), compute.cast(canonical, pa.string()))
    codes = items["item"].combine_chunks().dictionary_encode().indices.to_numpy()
    kept = np.zeros(len(row), bool)
    kept[np.unique(codes, return_index=True)[1]] = True
    again = np.flatnonzero(~kept)
    kept_out.put("items", "duplicate id", row[again], items["item"].take(pa.array(again)).combine_chunks())
    return items.filter(pa.array(kept)) if len(again) else items


def _clean_batch(
    batch: pa.RecordBatch, first_row: int, kept_out: Quarantine, counts: dict[str, int]
) -> tuple[pa.Table, NDArray[np.int64]]:
    """One batch of raw items: the clean rows, and their row numbers in the input."""
    size = batch.num_rows
    texts: dict[str, pa.Array] = {}
    breaks = pa.repeat(pa.scalar(0), size)
    invalid, cleaned, bad_id = (np.zeros(size, bool) for _ in range(3))
    for name in ("item", "title", "description", "creator", "thumbnail", "media"):
        if name not in batch.schema.names:
            texts[name] = pa.nulls(size, pa.large_string())
            continue
        column, bad = text.decoded(batch.column(name))
        invalid |= bad
        if name == "item":
            texts[name], bad_id = text.checked_ids(column)
            continue
        if name == "title":
            breaks = compute.count_substring(column, "\n")
        if name in ("title", "description"):
            column = tags.unlisted(column)
        texts[name], mended = text.stripped(column)
        cleaned |= mended
    hashtags, bad, mended = _hashtags(batch)
    texts["title"] = compute.fill_null(texts["title"], "")
    length = np.asarray(compute.utf8_length(texts["title"]))
    longest = np.maximum(length, np.asarray(compute.fill_null(compute.utf8_length(texts["description"]), 0)))
    wordless = ~text.mask(compute.match_substring_regex(texts["title"], r"[\p{L}\p{N}]"))
    wordless &= ~text.mask(compute.match_substring_regex(texts["description"], r"[\p{L}\p{N}]"))
    wordless &= np.diff(hashtags.offsets.to_numpy()) == 0

    sieve = Sieve(kept_out, "items", first_row, texts["item"])
    if MALFORMED in batch.schema.names:
        sieve.reject("wrong fields", text.mask(batch.column(MALFORMED)), texts["title"])
    sieve.reject("invalid utf-8", invalid | bad, texts["title"])
    sieve.reject("empty id", text.missing_ids(texts["item"]), texts["title"])
    sieve.reject("bad id", bad_id, texts["title"])
    # An unclosed quote swallows rows: the line breaks tell how many.
    sizes = text.joined(pa.array(longest), " characters, ", breaks, " line breaks: ", texts["title"])
    sieve.reject("long text", longest > LONG * MAX_TITLE, sizes)
    sieve.reject("no text", wordless, texts["title"])

    counts["cleaned"] += int((sieve.kept & (cleaned | mended)).sum())
    counts["shortened"] += int((sieve.kept & (length > MAX_TITLE)).sum())
    texts["title"] = compute.utf8_slice_codeunits(texts["title"], 0, MAX_TITLE)
    given = {name: batch.column(name) for name in ("duration", "created_at") if name in batch.schema.names}
    columns = {**given, **texts, "hashtags": hashtags}
    keep = np.flatnonzero(sieve.kept)
    rows = pa.array(keep)
    whole = [
        columns[field.name].take(rows) if field.name in columns else pa.nulls(len(keep), field.type)
        for field in SCHEMA
    ]
    return pa.table(whole, names=SCHEMA.names).cast(SCHEMA), keep + first_row


def _hashtags(batch: pa.RecordBatch) -> tuple[pa.ListArray, NDArray[np.bool_], NDArray[np.bool_]]:
    """Hashtags of each item: without `#` and blanks, none empty, none twice; rows not UTF-8; rows mended.

    One text with several is split at `|`, `,`, `;` and `#`; brackets and quotes around them fall away.
    """
    size = batch.num_rows
    none = np.zeros(size, bool)
    if "hashtags" not in batch.schema.names:
        return pa.ListArray.from_arrays(np.zeros(size + 1, np.int32), pa.array([], pa.string())), none, none
    column = batch.column("hashtags")
    invalid = none
    if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)):
        column, invalid = text.decoded(column)
        column = tags.lists(column)
    owner = compute.list_parent_indices(column).to_numpy().astype(np.int64)
    words, bad = text.decoded(compute.list_flatten(column))
    words, mended = text.stripped(words)
    words = compute.utf8_trim_whitespace(compute.utf8_ltrim(compute.fill_null(words, ""), "# "))
    invalid = invalid | _rows(owner[bad], size)
    # The same tag in another case is the same tag; the first spelling stays.
    codes = compute.utf8_lower(words).dictionary_encode().indices.to_numpy().astype(np.int64)
    first = np.unique(owner * (len(words) + 1) + codes, return_index=True)[1]
    first = np.sort(first)
    first = first[text.mask(compute.match_substring_regex(words, r"[\p{L}\p{N}]"))[first]]
    offsets = np.concatenate([[0], np.cumsum(np.bincount(owner[first], minlength=size))]).astype(np.int32)
    kept = compute.cast(words.take(pa.array(first)), pa.string())
    return pa.ListArray.from_arrays(offsets, kept), invalid, _rows(owner[mended], size)


def _rows(owners: NDArray[np.int64], size: int) -> NDArray[np.bool_]:
    found = np.zeros(size, bool)
    found[owners] = True
    return found
