"""The [catalog] section of a new workspace: what was found in the data, as settings that a person may mend.

Owns what `byway init` writes and says. Whether a setting is good is found out by reading the data with it.
"""

import json
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path

from byway.base import config
from byway.base.errors import UserError
from byway.base.progress import say
from byway.data import containers, naming, public, scales, sources, tables
from byway.data.containers import Part
from byway.data.naming import Kind
from byway.data.public import DESCRIBED
from byway.data.scales import Scale
from byway.data.sources import OWN

_STARS = [
    "# Four stars of five and more are a high-quality interaction: (4 - 0.5) / 4.5 = 0.78.",
    "positive = 0.75",
]
NAMES: dict[str, tuple[config.Source, list[str]]] = {
    "microlens-50k": ("microlens", []),
    "microlens": ("microlens", []),
    "movielens-latest-small": ("movielens", _STARS),
    "movielens": ("movielens", _STARS),
    "kuairec": ("kuairec", ["# Watched once to the end is 0.5, twice is 1.", "positive = 0.5"]),
    "kuairand": ("kuairand", ["# A click is 0.5, a long view 0.75, a like or more 1.", "positive = 0.5"]),
    "parquet": ("parquet", []),
    "csv": ("csv", []),
    "json": ("json", []),
    "recbole": ("csv", []),
    **{name: (name, []) for name in DESCRIBED},
}
"""Names for `--from`: the source, and lines of advice."""

_UNRATED = 0.5
"""What an event without a rating counts, where many have none: neither good nor bad."""
_SETTINGS = ("time_format", "event_scale", "item_columns", "event_columns")
"""Settings that a sentence may ask for."""


@dataclass(frozen=True, slots=True)
class Start:
    """A new workspace."""

    text: str
    """Of its byway.toml."""
    notes: tuple[str, ...] = ()
    """What was found, in sentences."""
    stopped: str = ""
    """Why the data cannot be read so; empty where they can."""
    line: int = 0
    """The line of `text` to mend then, from 1."""


@dataclass(slots=True)
class _Draft:
    """What is known while the data are looked at."""

    source: config.Source
    items: Path
    events: str
    columns: dict[Kind, dict[str, str]] = field(default_factory=dict)
    found: dict[Kind, list[str]] = field(default_factory=dict)

    def settings(self) -> config.Catalog:
        of_items, of_events = (self.columns.get(kind, {}) for kind in ("items", "events"))
        return config.Catalog(self.source, str(self.items), self.events, of_items, of_events)


def start(source_name: str, path: Path) -> Start:
    """The [catalog] section of a workspace on the data set `source_name` at `path`.

    Raises UserError for a name that is not known, and where the tables are not there or cannot be opened; where
    they can and something else is unclear, the section says what was found and which line to mend.
    """
    if source_name not in NAMES:
        raise UserError(f"There is no source {source_name!r}; there are {', '.join(NAMES)}.")
    source, advice = NAMES[source_name]
    path = path.resolve()
    if not path.is_dir():
        raise UserError(f"{path} is not a folder; --from {source_name} takes the folder of the data.")
    draft = _Draft(source, path, "")
    with tempfile.TemporaryDirectory() as scratch:
        if source not in OWN:
            sources.read(draft.settings(), Path(), Path(scratch))
            return Start(_text(draft, advice))
        draft.items, draft.events = tables.pair(path, source)
        _name(draft)
        say(f"Reading {draft.items.name} and {Path(draft.events).name}, all of their rows …")
        try:
            raw = sources.read(draft.settings(), Path(), Path(scratch), propose=True)
        except UserError as error:
            return _to_mend(draft, str(error))
    for ours in sorted({ours for file in raw.decisions for ours in file.unread}):
        draft.columns["items" if ours == "created_at" else "events"][ours] = ""
    scales_found = [file.satisfaction for file in raw.decisions if file.satisfaction is not None]
    return Start(_text(draft, _scale_lines(draft, scales_found)), raw.notes)


def _name(draft: _Draft) -> None:
    """The column maps, by usual names; an id that both tables name alike comes first."""
    parts: dict[Kind, Part] = {
        "items": containers.parts(draft.items, draft.source)[0],
        "events": containers.parts(Path(draft.events), draft.source)[0],
    }
    draft.found = {kind: tables.names_of(part) for kind, part in parts.items()}
    shared = set.intersection(*({naming.plain(name) for name in names} for names in draft.found.values()))
    for kind, part in parts.items():
        usual = public.atomic(part, draft.found[kind])
        columns = naming.column_map(draft.found[kind], kind, usual, shared).columns
        draft.columns[kind] = {ours: theirs for ours, theirs in columns.items() if ours != theirs}


def _scale_lines(draft: _Draft, found: list[Scale]) -> list[str]:
    """One scale for all files: the widest."""
    ends = [scale.ends for scale in found if scale.ends is not None]
    if not ends:
        return []
    widest = min(low for low, _ in ends), max(high for _, high in ends)
    name = draft.columns["events"].get("satisfaction", "satisfaction")
    words = next(scale.words for scale in found if scale.ends is not None)
    bar, why = scales.positive(widest)
    lines = [f"# {name} holds {words}.", f"event_scale = {scales.listed(widest)}"]
    if any(scale.unrated for scale in found):
        lines += ["# An event without a rating counts so much; without this line it is kept out."]
        lines += [f"event_unrated = {_UNRATED:g}"]
    return [*lines, f"# A high-quality interaction: {why}.", f"positive = {bar:g}"]


def _text(draft: _Draft, more: list[str]) -> str:
    lines = ["[catalog]", f"source = {_quoted(draft.source)}", f"items = {_quoted(str(draft.items))}"]
    if draft.events:
        lines.append(f"events = {_quoted(draft.events)}")
    for kind, names in draft.columns.items():
        if names:
            unused = [name for name in draft.found[kind] if name not in (*names, *names.values())]
            aside = [name for name in unused if name not in naming.OURS[kind]]
            lines.append("# Our column to yours; mend it where the guess is wrong.")
            if aside:
                lines.append(f"# Not used: {', '.join(_on_one_line(name) for name in aside)}.")
            lines.append(f"{kind[:-1]}_columns = {_map(names)}")
    return "\n".join([*lines, *more]) + "\n"


def _to_mend(draft: _Draft, sentence: str) -> Start:
    """A section in which one line is to be mended, with what was found beside it."""
    asked = next((name for name in _SETTINGS if name in sentence), "")
    kind: Kind = "items" if sentence.startswith(str(draft.items)) else "events"
    if asked in ("event_scale", "time_format"):
        line = "event_scale = []" if asked == "event_scale" else 'time_format = ""'
    else:
        names = draft.columns.get(kind, {})
        known = {*names, *draft.found[kind]}
        required = ("item", "title") if kind == "items" else ("user", "item")
        blank = {ours: "" for ours in required if ours not in known}
        if "satisfaction" in sentence and kind == "events":
            blank["satisfaction"] = ""
        draft = replace(draft, columns={**draft.columns, kind: {}})
        line = f"{kind[:-1]}_columns = {_map(names | blank)}"
    of = draft.found.get(kind, [])
    more = [
        "",
        f"# To mend: {_on_one_line(sentence)}",
        f"# Columns of {kind}: {', '.join(_on_one_line(name) for name in of)}.",
        line,
    ]
    text = _text(draft, more)
    return Start(text, stopped=sentence, line=len(text.splitlines()))


def _map(names: dict[str, str]) -> str:
    return f"{{ {', '.join(f'{ours} = {_quoted(theirs)}' for ours, theirs in names.items())} }}"


def _on_one_line(words: str) -> str:
    """For a comment: TOML has no control characters there."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in words).split())


def _quoted(text: str) -> str:
    """As a text of TOML, which is one of JSON but for the delete character."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
