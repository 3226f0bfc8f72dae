"""Settings: where a value comes from, and what is said about a wrong one."""

import ast
import inspect
from dataclasses import asdict, fields
from pathlib import Path
from typing import get_type_hints

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byway.base import config, known_models
from byway.base.config import Config
from byway.base.errors import UserError


def load(folder: Path, toml: str | bytes = "", overrides: tuple[str, ...] = ()) -> Config:
    (folder / "byway.toml").write_bytes(toml if isinstance(toml, bytes) else toml.encode())
    return config.load(folder / "byway.toml", overrides)


def refused(folder: Path, toml: str | bytes = "", *overrides: str) -> str:
    """The one sentence about what is wrong."""
    with pytest.raises(UserError) as error:
        load(folder, toml, overrides)
    return str(error.value)


def test_no_file_is_the_defaults(tmp_path: Path) -> None:
    assert config.load(tmp_path / "byway.toml") == Config()


def test_the_file_goes_over_the_defaults_and_an_override_over_the_file(tmp_path: Path) -> None:
    toml = "[tree]\nitems_per_cluster = 30\n[catalog]\npositive = 0.7\n[run]\nseed = 7\n"
    found = load(tmp_path, toml, ("tree.items_per_cluster=20", "bundle.days=3"))
    assert found.tree.items_per_cluster == 20
    assert found.run.seed == 7
    assert found.bundle.days == 3
    assert found.catalog.positive == 0.7
    assert found.tree.levels == Config().tree.levels
    assert found.media == Config().media


def test_the_last_override_holds(tmp_path: Path) -> None:
    assert load(tmp_path, "", ("run.seed=1", "run.seed=2")).run.seed == 2


@pytest.mark.parametrize(
    ("override", "section", "setting", "value"),
    [
        ("tree.levels=[12, 300, 900, 2700]", "tree", "levels", (12, 300, 900, 2700)),
        (" tree.items_per_cluster = 9 ", "tree", "items_per_cluster", 9),
        ("catalog.items=/data/a=b.parquet", "catalog", "items", "/data/a=b.parquet"),
        ("catalog.items='12'", "catalog", "items", "12"),
        ("catalog.items=", "catalog", "items", ""),
        ("catalog.item_columns={item = 'video_id'}", "catalog", "item_columns", {"item": "video_id"}),
        ("run.engine=ray", "run", "engine", "ray"),
        ("experiment.share=1", "experiment", "share", 1.0),
        ("descriptions.drop=['films', 'Видео']", "descriptions", "drop", ("films", "Видео")),
    ],
)
def test_overrides_are_read_as_toml_or_as_plain_text(
    tmp_path: Path, override: str, section: str, setting: str, value: object
) -> None:
    assert getattr(getattr(load(tmp_path, "", (override,)), section), setting) == value


@pytest.mark.parametrize(
    ("toml", "overrides", "named"),
    [
        ("[trees]\nlevels = [1]", (), ["byway.toml", "[trees]", "transitions, tree, views."]),
        ("", ("trees.levels=[1]",), ["[trees]"]),
        ("[tree]\nlevel = [1]", (), ["byway.toml", "[tree]", "'level'", "levels"]),
        ("", ("tree.level=[1]",), ["[tree]", "'level'"]),
        ("", ("catalog.item_columns.item=x",), ["[catalog]", "'item_columns.item'"]),
        ("[run]\nseed = 'one'", (), ["[run]", "seed", "expected a whole number"]),
        ("[run]\nseed = true", (), ["[run]", "seed", "expected a whole number"]),
        ("", ("run.seed=one",), ["[run]", "seed", "expected a whole number"]),
        ("[tree]\nlevels = ['a']", (), ["[tree]", "levels"]),
        ("[tree]\nlevels = 3", (), ["[tree]", "levels"]),
        ("[run]\nengine = 'spark'", (), ["[run]", "engine", "spark", "native, ray"]),
        ("[catalog]\nitems = 3", (), ["[catalog]", "items", "expected text"]),
        ("[catalog]\nitems = 2020-01-01", (), ["[catalog]", "items"]),
        ("run = 3", (), ["[run]"]),
        ("run = 3", ("run.seed=1",), ["[run]"]),
        ("[[run]]\nseed = 1", ("run.seed=1",), ["[run]"]),
        ("[run]\nseed = -1", (), ["[run]", "seed", "-1"]),
        ("[run]\nseed = 99999999999999999999", (), ["[run]", "seed", "99999999999999999999"]),
        ("[catalog]\npositive = nan", (), ["[catalog]", "positive", "nan"]),
        ("", ("embeddings.sound=inf",), ["[embeddings]", "sound", "inf"]),
        ("[embeddings]\ndim = 0", (), ["[embeddings]", "dim is 0", "at least 1"]),
        ("", ("catalog.positive=1.5",), ["[catalog]", "positive is 1.5", "at most 1."]),
        ("", ("seed=1",), ["--set seed=1", "section.setting=value"]),
        ("", ("run.seed",), ["--set run.seed", "section.setting=value"]),
        ("", ("run.sede=1",), ["given settings: [run] has no setting 'sede'"]),
        ("[item_policy]\ndim = 63", ("run.seed=1",), ["byway.toml and given settings: [item_policy] dim is 63"]),
        ("[transitions]\nlevel = 5", (), ["[transitions]", "level is 5", "at most 4"]),
        ("", ("context_table.coverage=20",), ["[context_table]", "coverage is 20", "at most 1"]),
        ("", ("item_policy.history=0",), ["[item_policy]", "history is 0", "at least 1"]),
        ("[item_policy]\ndim = 63", (), ["[item_policy]", "dim is 63", "make it even"]),
        ("[catalog]\nevent_scale = [5, 1]", (), ["event_scale is [5.0, 1.0]", "the worst and the best"]),
        ("[catalog]\nevent_scale = [5]", (), ["event_scale is [5.0]"]),
        ("[multimodal_model]\nprompts = []", (), ["prompts is empty"]),
        ("[tree\nlevels = 3", (), ["byway.toml", "not valid TOML"]),
        ("[run]\nseed = 1\nseed = 2", (), ["byway.toml", "not valid TOML"]),
        (b"[run]\n# \xff", (), ["byway.toml", "not valid TOML"]),
    ],
)
def test_what_is_wrong_is_named_in_one_sentence(
    tmp_path: Path, toml: str | bytes, overrides: tuple[str, ...], named: list[str]
) -> None:
    sentence = refused(tmp_path, toml, *overrides)
    assert [name for name in named if name not in sentence] == []
    assert "\n" not in sentence
    assert sentence.endswith(".")


def bounds(section: str) -> dict[str, tuple[float, float]]:
    """Least and most of each number of a section, as its type has them; KeyError where one has no bound."""
    hints = get_type_hints(SECTIONS[section], include_extras=True)
    metas = {name: getattr(hint, "__metadata__", ()) for name, hint in hints.items()}
    return {name: (meta[0].ge, meta[0].le) for name, meta in metas.items() if meta}


SECTIONS = {f.name: type(getattr(Config(), f.name)) for f in fields(Config)}


@settings(deadline=None)
@given(st.sampled_from(sorted(SECTIONS)), st.text(max_size=20), st.text(max_size=20))
def test_any_override_is_a_configuration_or_one_sentence(section: str, setting: str, value: str) -> None:
    try:
        found = config.load(Path("none.toml"), [f"{section}.{setting}={value}"])
    except UserError:
        return
    assert setting.strip() in asdict(getattr(found, section))


@settings(deadline=None)
@given(st.data())
def test_every_setting_is_read_back_as_it_was_set(tmp_path_factory: pytest.TempPathFactory, data) -> None:
    """Numbers and texts of any kind reach the setting that they are written for, and no other."""
    section = data.draw(st.sampled_from(sorted(SECTIONS)))
    default = asdict(getattr(Config(), section))
    plain = {k: v for k, v in default.items() if type(v) in (int, float)}
    if not plain:
        return
    setting = data.draw(st.sampled_from(sorted(plain)))
    least, most = bounds(section)[setting]
    whole = type(plain[setting]) is int
    least, most = (int(least), min(int(most), 2**62)) if whole else (least, min(most, 1e18))
    kind = st.integers(int(least), int(most)) if whole else st.floats(least, most)
    if (section, setting) == ("item_policy", "dim"):
        kind = st.integers(1, 2**60).map(lambda n: 2 * n)
    value = data.draw(kind)
    written = data.draw(st.booleans())
    folder = tmp_path_factory.mktemp("w")
    if written:
        found = load(folder, f"[{section}]\n{setting} = {value!r}\n")
    else:
        found = load(folder, "", (f"{section}.{setting}={value!r}",))
    assert asdict(getattr(found, section)) == {**default, setting: value}
    assert [f.name for f in fields(Config) if getattr(found, f.name) != getattr(Config(), f.name)] in (
        [section],
        [],
    )


def test_every_setting_and_every_section_says_what_it_does() -> None:
    module = ast.parse(inspect.getsource(config))
    silent: list[str] = []
    for node in (n for n in module.body if isinstance(n, ast.ClassDef)):
        silent += [node.name] * (ast.get_docstring(node) is None)
        for at, statement in enumerate(node.body):
            if not isinstance(statement, ast.AnnAssign) or node.name == "Config":
                continue
            below = node.body[at + 1] if at + 1 < len(node.body) else None
            said = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) and below.value.value
            silent += [] if said else [f"{node.name}.{ast.unparse(statement.target)}"]
    assert silent == []


NUMBERS = [(s, k) for s, kind in SECTIONS.items() for k, v in asdict(kind()).items() if type(v) in (int, float)]


def test_counts_are_refused_at_zero_and_every_number_below_it_or_without_end(tmp_path: Path) -> None:
    for section, setting in NUMBERS:
        least, most = bounds(section)[setting]
        assert least in (0, 1)
        assert least <= getattr(SECTIONS[section](), setting) <= most
        of = f"{section}.{setting}"
        assert f"{setting} is -1; it must be at least {least}." in refused(tmp_path, "", f"{of}=-1")
        if least == 1:
            assert f"{setting} is 0; it must be at least 1." in refused(tmp_path, "", f"{of}=0")
        if most < config.MOST:
            assert f"{setting} is 1025; it must be at most {most:g}." in refused(tmp_path, "", f"{of}=1025")
        if type(getattr(SECTIONS[section](), setting)) is float:
            for value in ("nan", "inf", "-inf"):
                assert f"{setting} is {value}; " in refused(tmp_path, "", f"{of}={value}")


def test_what_must_be_counted_is() -> None:
    """By hand, so that a type that is taken for another does not pass."""
    for section, setting in [
        ("embeddings", "dim"), ("tree", "items_per_cluster"),
        ("transitions", "level"), ("transitions", "history"), ("language_model", "batch"),
        ("item_policy", "dim"), ("item_policy", "history"),
        ("serving", "workers"), ("serving", "forget_days"),
        ("media", "frames"), ("multimodal_model", "steps"),
        ("experiment", "seeds"), ("experiment", "users"), ("experiment", "days"),
    ]:  # fmt: skip
        assert bounds(section)[setting][0] == 1, (section, setting)


def test_more_workers_than_a_machine_has_cores_are_refused(tmp_path: Path) -> None:
    said = refused(tmp_path, "", "serving.workers=100000")
    assert "workers is 100000; it must be at most 256." in said


def test_a_model_brings_what_goes_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One name changes the learning rate, unless the settings name their own."""
    other = known_models.ModelRecord("a/b", "c", learning_rate=3e-4, frozen=0.25)
    monkeypatch.setitem(known_models.KNOWN, "other", other)

    def of(*overrides: str) -> float:
        found = config.resolved(load(tmp_path, "", overrides))
        assert config.resolved(found) == found
        return found.language_model.learning_rate

    named = "language_model.model=other"
    assert of() == 1e-3
    assert of(named) == 3e-4
    assert of("language_model.model=some/folder") == 1e-3
    assert of(named, "language_model.learning_rate=0.1") == 0.1


def test_the_defaults_are_a_valid_configuration() -> None:
    assert msgspec.convert(msgspec.to_builtins(Config()), Config) == Config()
