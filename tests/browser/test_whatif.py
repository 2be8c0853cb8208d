"""Prompt, trial and comparison in a browser, as a manager uses them; light, dark and on a narrow screen."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User

from datasets.models import Dataset
from reviews import comparisons, tasks, trials
from tests.browser.driving import DATA, sign_in
from tests.browser.test_accessibility import LOOKS, wrong_with
from tests.reviews.model_things import speaking
from tests.reviews.test_whatif_page import VARIANT, stance

SHOTS = os.environ.get("SHOTS", "")  # a folder to look at the pages afterwards


@pytest.fixture
def server(settings: Any, empty_valkey: Any) -> Any:
    with speaking(settings, DATA / "stance_gpt4o.csv") as server:
        yield server


@pytest.fixture
def manager(page: Any, live_server: Any, server: Any, boss: User) -> Any:
    """A page of a browser in which somebody is signed in who manages everything."""
    sign_in(page, live_server, boss)
    return page


@pytest.fixture
def dataset(manager: Any, tmp_path: Path) -> Dataset:
    return stance(tmp_path, 130)


def carry_on(dataset: Dataset) -> None:
    """What a worker would do."""
    tasks.work_here(dataset.runs.active().get())


def test_a_manager_changes_the_prompt_and_sees_what_is_sent(manager: Any, dataset: Dataset) -> None:
    page = manager
    page.goto(f"/d/{dataset.pk}/")
    page.get_by_role("navigation", name="Dataset").get_by_role("link", name="Model").click()
    page.wait_for_url(f"**/d/{dataset.pk}/prompt/")
    page.get_by_label("Guidelines (optional)").fill("What counts is the writer's view.\nQuotes are not.")
    page.get_by_label("neutral (optional)").fill("takes no side & says so")
    page.get_by_role("button", name="Save the prompt").click()
    page.get_by_text("The prompt is changed.").wait_for()
    sent = page.locator("#system").inner_text()
    assert "What counts is the writer's view.\nQuotes are not." in sent and "no side &amp; says so" in sent
    assert page.locator("#body").inner_text().count("<item id=") == 2


def test_a_trial_from_start_to_end(manager: Any, dataset: Dataset) -> None:
    page = manager
    page.goto(f"/d/{dataset.pk}/prompt/")
    page.get_by_role("navigation", name="Language model").get_by_role("link", name="Trial").click()
    page.get_by_label("Items").fill("25")
    page.get_by_role("button", name="Start the trial").click()
    page.locator("#progress").wait_for()
    carry_on(dataset)
    page.locator("#said").wait_for(timeout=15_000)  # the page finds out by itself
    assert page.locator("#said tbody tr").count() == 25
    assert page.locator("#spent").inner_text().startswith("$0.0")
    page.get_by_role("link", name="Start with this").click()
    page.get_by_role("button", name="Start labeling").wait_for()


def test_two_prompts_are_compared_and_one_is_taken_over(manager: Any, dataset: Dataset) -> None:
    page = manager
    page.goto(f"/d/{dataset.pk}/whatif/")
    page.get_by_role("button", name="Ask prompt A on 100 items").click()
    page.locator("#progress").wait_for()
    carry_on(dataset)
    page.locator("#compared").wait_for(timeout=20_000)
    page.get_by_label("Guidelines of prompt B").fill(VARIANT)
    page.get_by_label("Show reviewed examples").uncheck()
    page.get_by_role("button", name="Only say what it costs").click()
    page.locator("#typed-cost").wait_for()
    assert page.get_by_label("Guidelines of prompt B").input_value() == VARIANT
    page.get_by_role("button", name="Ask prompt B on 100 items").click()
    page.locator("#progress").wait_for()
    carry_on(dataset)
    page.locator("#compared").get_by_role("rowheader", name="Ensemble with Prompt B").wait_for(timeout=20_000)
    with page.expect_download() as started:
        page.get_by_role("link", name="Export as JSON").click()
    assert "Prompt B" in Path(started.value.path()).read_text("utf-8")
    page.get_by_role("button", name="Use prompt B").click()
    page.wait_for_url(f"**/d/{dataset.pk}/prompt/")
    assert page.get_by_label("Guidelines (optional)").input_value() == VARIANT


@pytest.mark.parametrize("which", ["prompt", "trial", "whatif"])
@pytest.mark.parametrize("state", ["new", "asked", "under way"])
def test_axe_finds_no_serious_fault_and_nothing_overflows(
    manager: Any, boss: User, dataset: Dataset, which: str, state: str
) -> None:
    page = manager
    if state == "asked":
        tasks.work_here(trials.try_out(dataset, boss, rings=False))
        tasks.work_here(comparisons.ask(dataset, boss, "A", rings=False))
        tasks.work_here(comparisons.ask(dataset, boss, "B", VARIANT, False, rings=False))
    if state == "under way":
        trials.try_out(dataset, boss, rings=False)
    wrong: dict[str, Any] = {}
    for scheme, width, height in [*LOOKS, ("light", 360, 780)]:
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size({"width": width, "height": height})
        page.goto(
            f"/d/{dataset.pk}/{which}/"
        )  # anew each time: colours fade when they change on an open page
        wrong |= wrong_with(page, f"{scheme} {width}")
        if SHOTS:
            page.screenshot(path=f"{SHOTS}/{which}-{state}-{scheme}-{width}.png", full_page=True)
    assert not wrong


def test_everything_works_without_a_script(
    browser: Any, live_server: Any, manager: Any, dataset: Dataset
) -> None:
    context = browser.new_context(base_url=live_server.url, java_script_enabled=False)
    context.add_cookies(manager.context.cookies())
    page = context.new_page()
    page.goto(f"/d/{dataset.pk}/trial/")
    page.get_by_role("button", name="Start the trial").click()
    carry_on(dataset)
    page.goto(f"/d/{dataset.pk}/trial/")
    assert page.locator("#said tbody tr").count() == 30
    page.goto(f"/d/{dataset.pk}/whatif/")
    page.get_by_role("button", name="Ask prompt A on 100 items").click()
    carry_on(dataset)
    page.goto(f"/d/{dataset.pk}/whatif/")
    assert page.locator("#compared").count() == 1
    context.close()
