"""From the link on the console to an account with a password, and back in after the session ended."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session

from labelhub import accounts

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
SUBMIT = "main button[type=submit]"
PASSWORD = "a quiet harbour at noon"


def fill(page: Any, **fields: str) -> None:
    for name, value in fields.items():
        page.fill(f"[name={name}]", value)
    page.click(SUBMIT)


def test_a_newcomer_gets_in_and_comes_back(page: Any) -> None:
    page.goto(accounts.first_link())
    fill(page, name="two words")
    assert "without spaces" in page.inner_text(".error")
    described = page.get_attribute("[name=name]", "aria-describedby")
    assert described and page.locator(f"#{described}").is_visible(), "the message belongs to its field"
    fill(page, name="ada")
    page.wait_for_url("**/")
    assert "No worker running" in page.inner_text("#light.down")

    page.goto("/account/")
    fill(page, new=PASSWORD)
    page.wait_for_selector(".notice.good")

    Session.objects.all().delete()  # the session ends behind the page
    page.fill("[name=new]", "half typed")
    page.wait_for_selector("#light a")
    assert page.input_value("[name=new]") == "half typed", "nobody is sent away while typing"
    page.click("#light a")
    fill(page, name="ada", password="wrong")
    assert "do not match" in page.inner_text("[role=alert].notice")
    fill(page, name="ada", password=PASSWORD)
    page.wait_for_url("**/account/")

    page.click("details.menu summary")
    page.click("details.menu button[type=submit]")
    page.wait_for_url("**/signin/")
    page.go_back()
    page.wait_for_url("**/signin/?next=*")  # the page of before is not kept


def test_a_link_works_without_a_script(browser: Any, live_server: Any) -> None:
    link = accounts.signin_link(accounts.make_user("lin", "reviewer")).partition("//")[2].partition("/")[2]
    context = browser.new_context(base_url=live_server.url, java_script_enabled=False)
    page = context.new_page()
    page.goto(f"/{link}")
    assert "Sign in as lin" in page.inner_text("h1")
    page.click(SUBMIT)
    page.wait_for_url(f"{live_server.url}/")
    page.goto(f"/{link}")
    assert "used up" in page.inner_text("h1")
    context.close()
    assert User.objects.get().last_login is not None
