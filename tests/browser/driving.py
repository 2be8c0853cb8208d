"""What a person does in the browser, step by step, with the answers at hand."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.test import Client

from tests.browser.conftest import DATA, until


def read(name: str) -> list[dict[str, str]]:
    with open(DATA / name, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write(path: Path, rows: list[dict[str, str]]) -> Path:
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def sign_in(page: Any, live_server: Any, user: User) -> None:
    """Give the browser the session of somebody who is signed in."""
    client = Client()
    client.force_login(user)
    name = settings.SESSION_COOKIE_NAME
    page.context.add_cookies([{"name": name, "value": client.cookies[name].value, "url": live_server.url}])


def upload(page: Any, path: Path, columns: dict[str, str], labels: Sequence[str] = ()) -> int:
    """Send a file, say what its columns are, and wait until its rows are in; returns the dataset's id."""
    page.goto("/new/")
    page.set_input_files("input[type=file]", path)
    page.get_by_role("button", name="Next").click()
    page.wait_for_url(re.compile(r"/new/[0-9a-f-]{36}/"))
    for name, use in columns.items():
        select = page.get_by_label(f"Use column {name} as")
        if select.input_value() != use:
            with page.expect_response(re.compile("/preview")):
                select.select_option(use)
    if labels:
        page.fill("#more", "\n".join(labels))
    page.get_by_role("button", name="Make the dataset").click()
    page.wait_for_url(re.compile(r"/d/\d+/"))
    page.get_by_role("button", name="Start labeling").wait_for(timeout=60_000)
    return int(re.search(r"/d/(\d+)/", page.url).group(1))


def start(page: Any, dataset: int, method: str) -> None:
    page.goto(f"/d/{dataset}/")
    page.locator(f"input[name=method][value={method}]").check()
    page.get_by_role("button", name="Start labeling").click()
    page.get_by_role("button", name="Label again").wait_for(timeout=120_000)


def wait_for_next(page: Any, before: str) -> None:
    until(page, "(old) => (document.querySelector('#decide input[name=uuid]')?.value ?? '') !== old", before)


def card(page: Any) -> tuple[str, str]:
    """The text on screen, and what identifies this card."""
    return (
        page.locator(".item-text bdi").inner_text().strip(),
        page.locator("#decide input[name=uuid]").input_value(),
    )


def press(page: Any, key: str) -> None:
    _, before = card(page)
    page.keyboard.press(key)
    wait_for_next(page, before)


def plain(text: str) -> str:
    """Text as a browser shows it: white space collapsed."""
    return " ".join(text.split())


def answer_by_key(page: Any, gold: dict[str, str], keys: dict[str, str]) -> tuple[str, str]:
    text, _ = card(page)
    label = gold[plain(text)]
    press(page, keys[label])
    return text, label


def keys_of(page: Any) -> dict[str, str]:
    return {
        button.locator(".name").inner_text().split(",")[0].strip(): button.get_attribute("data-key")
        for button in page.locator("#decide .choice[data-key]").all()
    }


def export(page: Any, dataset: int) -> list[dict[str, Any]]:
    page.goto(f"/d/{dataset}/export/")
    with page.expect_download() as started:
        page.get_by_role("button", name="Download").click()
    return [json.loads(line) for line in Path(started.value.path()).read_text("utf-8").splitlines()]
