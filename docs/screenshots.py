"""`make screenshots`: the pictures of the README, taken from a fresh LabelHub with the sample dataset.

Answers come from the gold labels of tests/data/banking77.csv, with one slip in thirty; the browser's clock is
moved by two to six seconds for each, so that the times on the pictures are those of somebody who reads.
"""

from __future__ import annotations

import csv
import os
import random
import re
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from labelhub.fakeclaude.server import serve  # noqa: E402  the root must be found first
from tests.browser.conftest import running, until  # noqa: E402
from tests.browser.driving import upload  # noqa: E402

COLUMNS = {"text": "text", "item_id": "id", "gold": "", "predicted_label": "", "confidence": ""}
STANCES = ["agrees: says that global warming is real or a danger", "neutral", "disagrees: doubts it"]
IMAGES = ROOT / "docs/img"


def gold() -> dict[str, str]:
    """The right label of every text, white space collapsed as a browser shows it."""
    with (ROOT / "tests/data/banking77.csv").open(encoding="utf-8", newline="") as file:
        return {" ".join(row["text"].split()): row["gold"] for row in csv.DictReader(file)}


def answer(page: Any, right: dict[str, str], dice: random.Random) -> bool:
    """Answer the card on screen by its key; False when there is none left."""
    text = page.locator(".item-text bdi").inner_text()
    before = page.locator("#decide input[name=uuid]").input_value()
    keys = {
        button.locator(".name").inner_text().split(",")[0].strip(): button.get_attribute("data-key")
        for button in page.locator("#decide .choice[data-key]").all()
    }
    label = right.get(" ".join(text.split()), next(iter(keys)))
    page.clock.fast_forward(round(dice.uniform(2000, 6000)))
    page.keyboard.press(keys[label] if dice.random() > 1 / 30 else dice.choice(list(keys.values())))
    until(page, "(old) => document.querySelector('#decide input[name=uuid]')?.value !== old", before)
    return page.locator("#decide").count() > 0


def take(page: Any, url: str) -> None:
    """Walk through the product once and take a picture of each screen."""
    dice, right = random.Random(4), gold()
    page.clock.install()

    def shoot(name: str) -> None:
        page.wait_for_timeout(400)
        page.screenshot(path=IMAGES / f"{name}.png")

    page.goto(url + "/new/")
    page.get_by_role("button", name="Try the sample").click()
    page.get_by_role("button", name="Start labeling").click()
    page.get_by_role("button", name="Label again").wait_for(timeout=90_000)
    dataset = re.search(r"/d/(\d+)/", page.url)[1]  # type: ignore[index]
    page.goto(f"{url}/d/{dataset}/review/")
    for _ in range(30):
        answer(page, right, dice)
    shoot("review")
    page.emulate_media(color_scheme="dark")
    shoot("review-dark")
    page.emulate_media(color_scheme="light")
    page.goto(f"{url}/d/{dataset}/spot/")
    page.get_by_role("button", name=re.compile("^Draw")).click()
    page.wait_for_url(re.compile(r"/spot/\d+/"))
    shoot("spot-check")
    while answer(page, right, dice):
        pass
    page.get_by_role("heading", name=re.compile("^The target")).wait_for()
    shoot("result")
    page.goto(f"{url}/d/{dataset}/savings/")
    shoot("savings")
    page.goto(url + "/")
    shoot("home")
    guide(page, url, right, dice)
    shoot("guide")
    model(page)
    shoot("model")


def guide(page: Any, url: str, right: dict[str, str], dice: random.Random) -> None:
    """Walk the guided path on the sample dataset until its calibration sample can be drawn."""
    page.goto(url + "/new/")
    page.get_by_role("button", name="Try the sample").click()
    page.wait_for_url(re.compile(r"/d/\d+/$"))
    dataset = re.search(r"/d/(\d+)/", page.url)[1]  # type: ignore[index]
    address = f"{url}/d/{dataset}/guide/"
    page.goto(address)
    page.get_by_role("button", name="Start").click()
    for _ in range(200):
        page.goto(address)
        act = page.locator("#guide .button.primary")
        if not act.count() or act.inner_text().startswith("Freeze"):
            if act.count():
                return
            page.wait_for_timeout(500)
            continue
        act.click()
        page.wait_for_load_state()
        for _ in range(20):
            if not page.locator("#decide").count() or not answer(page, right, dice):
                break


def model(page: Any) -> None:
    """Upload sentences on global warming and have their labeling by the language model estimated."""
    page.clock.resume()
    upload(page, ROOT / "tests/data/stance_gpt4o.csv", COLUMNS, STANCES)
    page.locator("input[name=method][value=llm]").check()
    page.get_by_role("button", name="Estimate cost").click()
    page.get_by_text("Expected", exact=True).wait_for()
    page.evaluate("document.querySelector('#model-options').scrollIntoView(); scrollBy(0, -70)")


def main() -> None:
    """Start LabelHub in a temporary folder, sign in, take the pictures, stop it."""

    with serve(ROOT / "tests/data/stance_gpt4o.csv") as stand_in, sync_playwright() as playwright:
        os.environ |= {"ANTHROPIC_BASE_URL": stand_in.url, "ANTHROPIC_API_KEY": "fake-key"}
        with contextmanager(running)() as site:
            walk(site, playwright)


def walk(site: Any, playwright: Any) -> None:
    """Sign in and take the pictures."""
    browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
    page = browser.new_context(viewport={"width": 1280, "height": 800}, base_url=site.url).new_page()
    page.goto(site.link)
    page.fill("input[name=name]", "ada")
    page.click("main form button")
    page.wait_for_url(site.url + "/")
    take(page, site.url)
    browser.close()


if __name__ == "__main__":
    main()
