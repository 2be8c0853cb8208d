"""The settings of the language model, filled in by a person; light, dark and on a narrow screen."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User

from datasets import model_settings
from labelhub.fakeclaude.server import Server
from tests.browser.driving import sign_in
from tests.browser.test_accessibility import LOOKS, faults, wrong_with

KEY = "sk-ant-api03-dHlwZWQgYnkgYSBwZXJzb24-31415926"
PAGE = "/settings/model/"


@pytest.fixture
def owner(page: Any, live_server: Any, address: Server, boss: User) -> Any:
    """A page of a browser in which the owner of everything is signed in."""
    sign_in(page, live_server, boss)
    return page


def test_a_person_finds_the_page_and_sets_key_and_model(owner: Any) -> None:
    page = owner
    page.goto("/")
    page.locator(".menu > summary").click()
    page.get_by_role("link", name="Settings: language model").click()
    page.wait_for_url("**" + PAGE)
    page.get_by_text("There is no key yet.").wait_for()
    page.locator("#id_key").fill(KEY)
    page.get_by_label("Second model").fill("claude-sonnet-5-5")
    page.keyboard.press("Enter")
    page.get_by_text("The settings are saved.").wait_for()
    page.get_by_text("A key is stored, typed in by boss").wait_for()
    assert page.get_by_label("New key (optional)").input_value() == "" and KEY not in page.content()
    assert model_settings.key() == KEY and model_settings.current().second_model == "claude-sonnet-5-5"
    assert page.locator("#models option[value=claude-haiku-5-5]").count() == 1
    page.get_by_role("button", name="Forget the key").click()
    page.get_by_text("The stored key is erased.").wait_for()
    assert model_settings.key() == ""


def test_a_mistake_is_told_at_its_field_and_what_was_typed_stays(owner: Any, address: Server) -> None:
    page = owner
    page.goto(PAGE)
    page.locator("#id_key").fill(KEY)
    page.locator("#id_model").fill("claude-haiku-9")
    page.get_by_role("button", name="Save the settings").click()
    told = page.locator("#id_model_error")
    told.wait_for()
    assert "knows no model claude-haiku-9" in told.inner_text()
    field = page.locator("#id_model")
    assert field.get_attribute("aria-invalid") == "true" and field.input_value() == "claude-haiku-9"
    assert "id_model_error" in field.get_attribute("aria-describedby")
    assert page.locator("#id_key").input_value() == ""
    assert faults(page) == []


@pytest.mark.parametrize("state", ["new", "stored", "refused", "environment"])
def test_axe_finds_no_serious_fault_and_nothing_overflows(
    owner: Any, boss: User, address: Server, settings: Any, state: str
) -> None:
    page = owner
    if state in ("stored", "refused"):
        model_settings.save(boss, model="claude-haiku-5-5", second_model="claude-opus-5-5", key=KEY)
    if state == "environment":
        settings.ANTHROPIC_API_KEY = KEY
    wrong: dict[str, Any] = {}
    for scheme, width, height in [*LOOKS, ("light", 360, 780)]:
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size({"width": width, "height": height})
        page.goto(PAGE)  # anew each time: colours fade when they change on an open page
        if state == "refused":
            address.change(fault={"key": 1.0})
            page.get_by_role("button", name="Save the settings").click()
            page.locator("#id_key_error").wait_for()
            page.mouse.move(0, 0)
        wrong |= wrong_with(page, f"{scheme} {width}")
    assert not wrong
