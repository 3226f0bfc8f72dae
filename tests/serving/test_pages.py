"""The pages in a real browser: they work, with a keyboard and on a telephone, and hostile texts stay texts."""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from byway.serving import web
from tests.serving import house, running

sync_api = pytest.importorskip("playwright.sync_api", reason="there is no playwright; pip install playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
REQUIRED = bool(os.environ.get("BYWAY_REQUIRE_BROWSER"))
"""Then a missing browser is a failure, not a skip."""
missing = pytest.mark.skipif(CHROMIUM is None and not REQUIRED, reason="there is no Chromium on the path")


def in_browser(test: Any) -> Any:
    """For a test that opens pages."""
    return pytest.mark.browser(missing(test))


SHOTS = os.environ.get("BYWAY_SCREENSHOTS")
"""A folder: where it is given, the pages are photographed into it."""
SIZES = {"desktop": (1280, 900), "telephone": (390, 844)}
PATHS = ["/", "/atlas", "/health", "/experiment"]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    workspace = tmp_path_factory.mktemp("pages") / "w"
    house.published(workspace)
    with running.thread(workspace) as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator["sync_api.Browser"]:
    with sync_api.sync_playwright() as p:
        found = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(params=SIZES)
def page(request: pytest.FixtureRequest, browser: "sync_api.Browser") -> Iterator["sync_api.Page"]:
    """A page that may fail at nothing: no error, no refused script, no request to another host."""
    width, height = SIZES[request.param]
    context = browser.new_context(viewport={"width": width, "height": height}, reduced_motion="reduce")
    found = context.new_page()
    found.set_default_timeout(60_000)
    said: list[str] = []
    found.on("console", lambda m: said.append(m.text) if m.type in ("error", "warning") else None)
    found.on("pageerror", lambda e: said.append(str(e)))
    found.on(
        "request", lambda r: None if "//127.0.0.1:" in r.url or r.url.startswith("data:") else said.append(r.url)
    )
    yield found
    width_needed = found.evaluate("document.documentElement.scrollWidth")
    context.close()
    assert said == []
    assert width_needed <= width


def shoot(page: "sync_api.Page", name: str) -> None:
    if SHOTS:
        size = "telephone" if page.viewport_size["width"] < 500 else "desktop"
        Path(SHOTS).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=str(Path(SHOTS) / f"{name}-{size}.png"), full_page=True)


def texts(client: httpx.Client) -> str:
    """Every page and part in which a title or a description stands."""
    events = [{"event": f"h{i}", "user": "<i>hostile</i>", "item": f"c4-{i}"} for i in range(4)]
    assert client.post("/v1/events", json=events).status_code == 200
    paths = [*PATHS, "/?user=%3Ci%3Ehostile%3C/i%3E"]
    paths += ["/atlas?q=%3Cscript%3Ealert(1)%3C/script%3E", "/atlas/cluster?level=2&cluster=4"]
    paths += [f"/atlas/cluster?level=4&cluster={80 + i}" for i in range(4)]
    drawn = client.post("/walk/next", data={"user": "<i>hostile</i>"}, headers={"hx-request": "true"})
    replies = [drawn, *(client.get(path) for path in paths)]
    return "\n".join(reply.raise_for_status().text for reply in replies)


def test_hostile_texts_are_escaped_in_every_page(client: httpx.Client) -> None:
    found = texts(client)
    assert "&lt;script&gt;document.title" in found
    assert "&lt;i&gt;hostile" in found
    for wrong in (
        "<script>document.title",
        "<script>alert",
        "<img",
        "<i>hostile",
        "<b>bold",
        "ignore all",
        'onerror="',
    ):
        assert wrong not in found
    # Not worked out as a template either.
    assert "{{ 7 * 7 }} ${7*7}" in found


def test_without_the_script_that_draws_the_pages_say_so(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {name: file for name, file in web._files().items() if name != web.PLOTLY}
    for path in ("/atlas", "/health"):
        found = client.get(path).text
        assert web.PLOTLY in found
        assert "Not drawn here" not in found
        with monkeypatch.context() as patch:
            patch.setattr(web, "_files", lambda: files)
            found = client.get(path).text
        assert web.PLOTLY not in found
        assert "Not drawn here" in found


def test_pages_of_what_there_is_not(client: httpx.Client) -> None:
    for path in ("/atlas/cluster?level=9&cluster=0", "/atlas/cluster?level=2&cluster=99", "/static/..%2fapp.py"):
        assert client.get(path).status_code == 404
    form = {"content-type": "application/x-www-form-urlencoded"}
    assert client.post("/walk/make", content="interest=99", headers=form).status_code == 400
    assert client.post("/walk/react", content="user=a&item=none", headers=form).status_code == 400


@in_browser
def test_a_walk(page: "sync_api.Page", client: httpx.Client) -> None:
    page.goto(str(client.base_url))
    shoot(page, "make")
    for name in (house.NAMES[0], house.NAMES[6]):
        page.get_by_label(name).check()
    page.get_by_role("button", name="Walk", exact=True).click()
    section = page.get_by_role("region", name="With Byway")
    items = section.get_by_role("listitem")
    assert items.count() == 6
    shown = page.locator(".path")
    assert house.NAMES[0] in shown.inner_text()
    assert house.NAMES[6] in shown.inner_text()
    new = shown.locator("strong").inner_text()
    assert new in house.NAMES
    assert new not in (house.NAMES[0], house.NAMES[6])
    usual = page.get_by_role("region", name="Without Byway").inner_text()
    assert "known to them" in usual
    liked = items.first.locator("b").inner_text()
    items.first.get_by_role("button", name="Like").click()
    page.get_by_role("status").wait_for()
    past = page.get_by_role("region", name="What they did")
    assert liked in past.get_by_role("listitem").first.inner_text()
    # What was new is known now, and the next answer is another.
    assert page.locator(".path strong").inner_text() != new
    shoot(page, "walk")
    page.get_by_role("region", name="With Byway").get_by_role("button", name="Skip").first.click()
    page.get_by_text("was skipped").wait_for()
    assert past.get_by_text("skipped").count() == 1


@in_browser
def test_a_walk_without_scripts_and_with_a_keyboard(browser: "sync_api.Browser", client: httpx.Client) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(str(client.base_url))
    for _ in range(6):
        page.keyboard.press("Tab")
    # Skip link, brand and four pages come first; then the interests.
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    page.keyboard.press("Enter")
    page.wait_for_url("**/?user=*")
    page.get_by_role("button", name="Like").first.press("Enter")
    page.wait_for_url("**/?user=*")
    assert page.get_by_role("region", name="What they did").get_by_role("listitem").count() == 4
    context.close()


@in_browser
def test_the_atlas(page: "sync_api.Page", client: httpx.Client) -> None:
    page.goto(str(client.base_url).rstrip("/") + "/atlas")
    page.locator("#map .slice").first.wait_for()
    shoot(page, "atlas")
    page.get_by_label("Find an interest").fill("owl")
    found = page.locator("#found")
    found.get_by_text("1 interest with").wait_for()
    found.get_by_role("link", name=house.NAMES[5]).click()
    found.get_by_role("heading", name="Leads to").wait_for()
    assert "outdoors" in found.inner_text()
    # The narrower interests lie over the middle; the name stands in the upper corner.
    page.locator("#map .slice", has_text="making").first.click(position={"x": 8, "y": 8})
    found.get_by_role("heading", name="making").wait_for()
    assert house.NAMES[10] in found.inner_text()


@in_browser
@pytest.mark.parametrize("path", ["/health", "/experiment"])
def test_health_and_experiment(page: "sync_api.Page", client: httpx.Client, path: str) -> None:
    client.post("/v1/recommend", json={"history": [{"item": "c0-0"}, {"item": "c3-0"}]})
    events = [{"event": f"seen{i}", "user": "seen", "item": item} for i, item in enumerate(("c0-0", "c3-0"))]
    client.post("/v1/events", json=events)
    client.post("/walk/next", data={"user": "seen"}, headers={"hx-request": "true"})
    page.goto(str(client.base_url).rstrip("/") + path)
    if path == "/health":
        page.locator(".plot .bars").wait_for()
        assert "passed" in page.inner_text("main")
        assert "97" in page.inner_text(".cards")
    else:
        assert "table" in page.inner_text("table")
    shoot(page, path[1:])


def test_health_tells_plans_from_fallbacks(client: httpx.Client) -> None:
    for history in ([{"item": "c0-0"}, {"item": "c3-0"}], [{"item": "c1-0"}, {"item": "c4-0"}], []):
        client.post("/v1/recommend", json={"history": history})
    rows = re.findall(r'byway_answers_total{strategy="(\w+)"} ([\d.]+)', client.get("/metrics").text)
    counts = {strategy: float(count) for strategy, count in rows}
    fallen = sum(counts.get(name, 0) for name in ("popular_cluster", "unrestricted", "popular_items"))
    share = 1 - fallen / sum(counts.values())
    assert 0 < share < 1
    told = client.get("/health").text
    card = next(part for part in told.split('<div class="card">') if "As planned" in part)
    assert f"{share:.0%}" in card


@in_browser
def test_hostile_titles_do_nothing(page: "sync_api.Page", client: httpx.Client) -> None:
    texts(client)
    for path in ("/?user=%3Ci%3Ehostile%3C/i%3E", "/atlas?level=2&cluster=4", "/experiment"):
        page.goto(str(client.base_url).rstrip("/") + path)
        page.wait_for_load_state("networkidle")
        assert page.title().endswith("· Byway")


@in_browser
@pytest.mark.parametrize("path", PATHS)
def test_what_a_screen_reader_needs(browser: "sync_api.Browser", client: httpx.Client, path: str) -> None:
    page = browser.new_page()
    page.set_default_timeout(60_000)
    page.goto(str(client.base_url).rstrip("/") + path)
    assert page.locator("html[lang]").count() == page.locator("main").count() == page.locator("h1").count() == 1
    assert page.locator("nav [aria-current=page]").count() == 1
    unnamed = page.evaluate(
        """[...document.querySelectorAll("input:not([type=hidden]), button, a")]
        .filter(e => !(e.labels?.length || e.textContent.trim() || e.ariaLabel)).map(e => e.outerHTML)"""
    )
    assert unnamed == []
    page.close()
