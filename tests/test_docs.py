"""What the documents print is so: settings, results, links, files, verbs, stages, sources, reasons, TOML."""

import inspect
import re
from pathlib import Path

import pytest

from byway.base import config
from byway.base.errors import UserError
from byway.cli import app
from byway.data import catalog, events, starting
from byway.workflow import pipeline, showing
from tests import results
from tests.settings import render

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "byway"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted(ROOT.glob("docs/*.md"))]
HISTORY = ("LOG.md",)
"""What was so at a commit that they name: files and settings of then may be gone."""
by_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def text(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of a page in one language."""
    return [body for kind, body in re.findall(r"^```(\w*)\n(.*?)^```$", page, re.M | re.S) if kind == language]


def test_the_table_of_settings_is_generated_from_the_code() -> None:
    assert text("docs/settings.md") == render(), "run make settings"


def test_every_setting_says_what_it_does() -> None:
    assert not re.findall(r"^\| .* \|  \|$", render(), re.M)


def test_the_page_of_results_is_generated_from_the_files() -> None:
    page = text("docs/results.md")
    assert page == results.render(), "run make results"
    assert len(page.splitlines()) <= 250


def test_every_result_says_how_to_get_it_again() -> None:
    """What is not known is said to be; a claim names its opponent, and those that lost to it are there."""
    found = results.load()
    claims = [each for each in found if "claim" in each]
    assert 1 <= len(claims) <= 12
    assert any(each.get("lost") for each in claims)
    known = {subject["name"] for subject in results.subjects()}
    for each in found:
        assert set(each) >= results.FIELDS, each
        assert each["subject"] in known
        assert re.fullmatch(rf"[0-9a-f]{{7}}|{results.UNKNOWN}", each["commit"])
        assert each["figures"]
        if "claim" in each:
            assert set(each) >= results.OF_CLAIM, each
            assert {"figure", "opponent"} <= set(each["figures"])
        else:
            assert set(each.get("shown", [])) <= set(each["figures"])
    names = {each.get("run") or each["claim"] for each in found}
    assert names == {path.stem for path in results.RESULTS.glob("*.json")}


def test_a_claim_is_a_figure_of_a_run() -> None:
    found = results.load()
    for claim in (each for each in found if "claim" in each):
        runs = [
            r for r in found if "run" in r and (r["subject"], r["commit"]) == (claim["subject"], claim["commit"])
        ]
        there = [value for run in runs for row in run["figures"].values() for value in row.values()]
        assert claim["figures"]["figure"] in there, claim["claim"]
        assert claim["figures"]["opponent"] in [*there, "0%"], claim["claim"]


@by_page
def test_relative_links_lead_to_files(page: Path) -> None:
    targets = re.findall(r"\]\(([^)\s#]+)[^)]*\)", page.read_text("utf-8"))
    assert not [t for t in targets if "://" not in t and not (page.parent / t).exists()]


@by_page
def test_files_named_in_the_documents_exist(page: Path) -> None:
    if page.name in HISTORY:
        return
    folders = ("src", "tests", "benchmarks", "docs")
    there = [f"/{p.relative_to(ROOT).as_posix()}" for folder in folders for p in (ROOT / folder).rglob("*.*")]
    there += [f"/{p.name}" for p in ROOT.glob("*.*")]
    named = set(re.findall(r"`((?:[\w-]+/)*[\w-]+\.(?:py|toml|md))`", page.read_text("utf-8")))
    # Those are a workspace's.
    named -= {"byway.toml", "experiments.toml"}
    assert not [name for name in named if not any(path.endswith(f"/{name}") for path in there)]


def test_the_tree_in_the_readme_lists_every_folder_in_the_order_of_the_layers() -> None:
    (tree,) = [block for block in blocks(text("README.md"), "") if block.startswith("src/byway/")]
    listed = [line.split()[0].rstrip("/") for line in tree.splitlines()[1:]]
    folders = {p.parent.name for p in PACKAGE.glob("*/__init__.py")}
    assert set(listed) == folders | {"cli.py"}
    layers = [
        re.findall(r"byway\.(\w+)", line) for line in text("pyproject.toml").split("layers = [")[1].splitlines()
    ]
    rank = {name: place for place, names in enumerate(layers) for name in names}
    places = [rank[name.removesuffix(".py")] for name in listed]
    assert places == sorted(places)


def test_every_verb_stands_in_the_readme() -> None:
    verbs = [name for name in app if not name.startswith("-")]
    assert verbs
    assert not [verb for verb in verbs if f"byway {verb}" not in text("README.md")]


def test_every_artifact_stands_in_the_architecture() -> None:
    page = text("docs/architecture.md")
    for stage in pipeline.STAGES:
        row = re.search(rf"^\| {stage.folder} \|.*?`([a-z_/]+)\.py`", page, re.M)
        assert row is not None, stage.folder
        # The function that builds it calls that module's.
        code = inspect.getsource(stage.build)
        assert f"from byway.{Path(row[1]).parent} import {Path(row[1]).name}" in code, stage.folder


def test_every_source_stands_in_the_guide() -> None:
    with pytest.raises(UserError) as error:
        starting.start("nothing", ROOT)
    names = str(error.value).split("there are ")[1].rstrip(".").split(", ")
    assert not [name for name in names if f"`{name}`" not in text("docs/guide.md")]


def test_every_reason_for_quarantine_stands_in_the_guide() -> None:
    said = " ".join(f"{catalog.__doc__} {events.__doc__}".split())
    reasons = set(re.findall(r"`([a-z]+(?: [a-z0-9-]+)+)`", said))
    assert {"wrong fields", "no text", "backward time"} <= reasons
    assert not [reason for reason in reasons if f"`{reason}`" not in text("docs/guide.md")]


def test_every_figure_that_is_shown_stands_in_the_guide() -> None:
    stems = {re.sub(r"_at_\d+.*", "_at_", key) for key, _ in showing.SHOWN}
    assert not [stem for stem in stems if f"`{stem}" not in text("docs/guide.md")]


@by_page
def test_toml_in_the_documents_is_a_configuration(page: Path, tmp_path: Path) -> None:
    for block in blocks(page.read_text("utf-8"), "toml"):
        (tmp_path / "byway.toml").write_text(block, "utf-8")
        config.load(tmp_path / "byway.toml")


@by_page
def test_overrides_in_the_documents_are_settings(page: Path, tmp_path: Path) -> None:
    if page.name in HISTORY:
        return
    named = re.findall(r"--set '?(\w+\.\w+=[^`'\n]+?)(?=['`\s])", page.read_text("utf-8"))
    config.load(tmp_path / "none.toml", [name for name in named if not name.startswith("section.")])
