"""The columns page in a real browser: what is chosen redraws the rest, and nothing that was typed is lost."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User

from datasets.models import Dataset
from tests.browser.driving import sign_in

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.browser]

ROWS = "id;subject;body;topic\n" + "".join(
    f"{n};subject {n};a longer text that somebody wrote about number {n};{('billing', 'login')[n % 2] if n < 20 else ''}\n"
    for n in range(30)
)


@pytest.fixture
def signed_in(page: Any, live_server: Any, boss: User) -> Any:
    sign_in(page, live_server, boss)
    return page


def shot(page: Any, name: str) -> None:
    if folder := os.environ.get("SHOTS"):
        page.screenshot(path=f"{folder}/{name}.png", full_page=True)


def test_from_a_file_to_a_dataset_in_the_browser(signed_in: Any, tmp_path: Path) -> None:
    page = signed_in
    page.goto("/")
    shot(page, "home-empty")
    page.get_by_role("link", name="Upload a file").click()
    shot(page, "new")
    path = tmp_path / "tickets.csv"
    path.write_text(ROWS, encoding="utf-8")
    page.set_input_files("input[type=file]", path)
    page.get_by_role("button", name="Next: columns").click()
    page.wait_for_selector("#columns")
    shot(page, "columns")
    page.fill("#name", "My tickets")
    page.select_option("#delimiter", ",")
    page.wait_for_selector("select[aria-label='Use column id;subject;body;topic as']")
    page.select_option("#delimiter", ";")
    page.wait_for_selector("select[aria-label='Use column subject as']")
    page.fill("#name", "My tickets")
    page.fill("input[aria-label='Definition of billing']", "A charge")
    page.select_option("select[aria-label='Use column subject as']", "text")
    page.wait_for_selector(".sample-text:has-text('subject 0')")
    assert page.input_value("#name") == "My tickets"
    assert page.input_value("input[aria-label='Definition of billing']") == "A charge"
    shot(page, "columns-2")
    page.get_by_role("button", name="Make the dataset").click()
    page.wait_for_selector("text=30 rows read")
    shot(page, "overview")
    dataset = Dataset.objects.get()
    assert dataset.name == "My tickets" and dataset.mapping["text"] == ["subject", "body"]
    page.get_by_role("button", name="Start labeling").click()
    page.wait_for_selector("#progress")
    shot(page, "progress")
    page.get_by_role("button", name="Cancel").click()
    page.wait_for_selector("text=cancelled")
    shot(page, "overview-2")
    page.goto("/")
    shot(page, "home")
