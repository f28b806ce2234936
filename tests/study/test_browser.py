"""The page in a real browser: Debian's Chromium, driven by Playwright."""

import json
import shutil
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from made_study import Serve
from playwright.sync_api import Browser, Page, expect, sync_playwright
from typer.testing import CliRunner

from wuerstchen.cli import app
from wuerstchen.study.folder import VOTES, key_digest, open_study
from wuerstchen.study.gather import gather
from wuerstchen.study.store import stored_votes

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="Chromium is not installed (Debian: apt install chromium)"
)

PROBLEMS: list[str] = []
WIDE, NARROW = {"width": 1300, "height": 900}, {"width": 400, "height": 800}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox"],  # which does not work for root, as in containers
        )
        yield found
        found.close()


@pytest.fixture
def folder(tmp_path: Path, made: Path) -> Path:
    shutil.copytree(made, tmp_path / "study")
    return tmp_path / "study"


@pytest.fixture(autouse=True)
def no_problems() -> Iterator[None]:
    PROBLEMS.clear()
    yield
    assert PROBLEMS == []


def open_page(browser: Browser, url: str, **options: object) -> Page:
    """A page in a new profile; what it asks of others, and its errors, are kept in `PROBLEMS`."""
    page = browser.new_context(**{"viewport": WIDE, **options}).new_page()  # type: ignore[arg-type]
    page.set_default_timeout(60_000)
    origin = url.partition("/r/")[0]
    own = (origin, "data:", "blob:", "file:")
    page.on("pageerror", lambda error: PROBLEMS.append(str(error)))
    page.on("request", lambda each: each.url.startswith(own) or PROBLEMS.append(each.url))
    page.goto(url)
    return page


def ready(page: Page, text: str) -> None:
    """Wait until a pair is shown and can be voted on."""
    expect(page.locator("#count")).to_have_text(text)
    expect(page.locator("#images")).not_to_have_class("waiting")


def begin(page: Page) -> int:
    page.click("#begin")
    count = int(page.locator("#count").inner_text().split(" of ")[1])
    ready(page, f"1 of {count}")
    return count


def test_keys_mouse_and_back_are_stored_as_they_were_given(
    browser: Browser, folder: Path, serve: Serve
) -> None:
    study, key = open_study(folder)
    process, (link,) = serve(folder, 1)
    page = open_page(browser, link)
    count = begin(page)
    assert count == len(study.pairs)
    given = []

    def vote(number: int, choice: str, act: object) -> None:
        ready(page, f"{number} of {count}")
        left = page.locator("#left").get_attribute("src") or ""
        given.append((left.removeprefix("images/").removesuffix(".png"), choice))
        act()  # type: ignore[operator]

    vote(1, "left", lambda: page.keyboard.press("ArrowLeft"))
    vote(2, "tie", lambda: page.keyboard.press("ArrowDown"))
    vote(3, "right", lambda: page.click("#right"))
    vote(4, "left", lambda: page.click("#choices [data-choice=left]"))
    ready(page, f"5 of {count}")
    page.keyboard.press("Backspace")
    ready(page, f"4 of {count}")
    expect(page.locator("#choices .chosen")).to_contain_text("Left")
    given.pop()
    vote(4, "tie", lambda: page.keyboard.press("t"))
    for number in range(5, count + 1):
        vote(number, "right", lambda: page.keyboard.press("ArrowRight"))
    expect(page.locator("#end")).to_be_visible()
    votes = stored_votes(folder / VOTES, study.id, key_digest(key))
    stored = [(vote.left, vote.choice) for vote in votes]
    assert Counter(stored) == Counter(given)
    process.send_signal(signal.SIGTERM)


def test_a_rater_goes_on_where_kill_9_stopped_the_server(
    browser: Browser, folder: Path, serve: Serve
) -> None:
    process, (link,) = serve(folder, 1)
    page = open_page(browser, link)
    count = begin(page)
    prompts = []
    for number in (1, 2):
        ready(page, f"{number} of {count}")
        page.keyboard.press("ArrowLeft")
    ready(page, f"3 of {count}")
    prompts.append(page.locator("#prompt").inner_text())
    process.kill()
    process.wait()
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#message")).to_contain_text("Not saved: the server does not answer")
    port = link.split(":")[2].split("/")[0]
    _, (again,) = serve(folder, 1, "--port", port)
    assert again == link
    page.keyboard.press("ArrowLeft")  # the page is still open
    ready(page, f"4 of {count}")
    other = open_page(browser, link)
    expect(other.locator("#begin")).to_have_text("Continue")
    other.click("#begin")
    ready(other, f"4 of {count}")
    assert other.locator("#prompt").inner_text() == page.locator("#prompt").inner_text()


def test_the_page_without_a_server_saves_votes_that_can_be_analysed(
    browser: Browser, tmp_path: Path, made: Path
) -> None:
    path = tmp_path / "ballot.html"
    done = CliRunner().invoke(app, ["study", "page", str(made), str(path)])
    assert done.exit_code == 0, done.output
    options = {"viewport": NARROW, "has_touch": True, "color_scheme": "dark"}
    page = open_page(browser, path.as_uri(), **options)
    page.tap("#begin")
    count = len(open_study(made)[0].pairs)
    for number in range(1, count + 1):
        ready(page, f"{number} of {count}")
        if number == 3:  # the browser keeps the votes
            page.reload()
            page.tap("#begin")
            ready(page, f"{number} of {count}")
        page.tap("#left" if number % 2 else "#choices [data-choice=tie]")
    with page.expect_download() as saving:
        page.tap("#download")
    saved = tmp_path / saving.value.suggested_filename
    saving.value.save_as(saved)
    assert len(json.loads(saved.read_text())["votes"]) == count
    kinds = Counter(vote.kind for vote in gather(made, [saved]))
    assert kinds == {"comparison": 6, "repeat": 1, "catch": 2}


@pytest.mark.parametrize("viewport", [WIDE, NARROW], ids=["wide", "narrow"])
def test_everything_needed_for_a_vote_fits_on_the_screen(
    browser: Browser, made: Path, tmp_path: Path, viewport: dict[str, int]
) -> None:
    path = tmp_path / "ballot.html"
    CliRunner().invoke(app, ["study", "page", str(made), str(path)])
    page = open_page(browser, path.as_uri(), viewport=viewport)
    begin(page)
    for name in ("#prompt", "#left", "#right", "#choices", "#count"):
        box = page.locator(name).bounding_box()
        assert box is not None
        assert box["x"] >= 0 and box["x"] + box["width"] <= viewport["width"], name
        assert box["y"] >= 0 and box["y"] + box["height"] <= viewport["height"], name
    left, right = (page.locator(name).bounding_box() for name in ("#left", "#right"))
    assert left and right and left["width"] == right["width"] and left["height"] == right["height"]


def test_every_control_has_a_name_and_can_be_reached_by_keys(
    browser: Browser, made: Path, tmp_path: Path
) -> None:
    path = tmp_path / "ballot.html"
    CliRunner().invoke(app, ["study", "page", str(made), str(path)])
    page = open_page(browser, path.as_uri())
    begin(page)
    names = []
    for _ in range(6):
        page.keyboard.press("Tab")
        names.append(
            page.evaluate("document.activeElement.ariaLabel || document.activeElement.innerText")
        )
    assert [" ".join(name.split()) for name in names] == [
        *("Left image is better", "Right image is better", "Left ←", "Tie ↓", "Right →"),
        "Save the votes so far",
    ]
