"""No serious fault on any page by axe, light and dark, wide and narrow; and the whole job by keyboard alone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import DATA, Site, until

AXE = (Path(__file__).parent / "vendor/axe.min.js").read_text("utf-8")
LOOKS = [("light", 1440, 900), ("dark", 1440, 900), ("light", 390, 844), ("dark", 320, 700)]


@pytest.fixture(scope="module")
def dataset(site: Site, visitor: Any) -> int:
    """A dataset with a run, some answers, a closed spot check with a verdict and an open one."""
    made = site.manage(
        "importdata", str(DATA / "stance_gpt4o.csv"), "--name", "Stance", "--text", "text",
        "--predicted", "predicted_label", "--confidence", "confidence", "--json",
    )  # fmt: skip
    pk = int(re.search(r'"id": (\d+)', made).group(1))
    site.manage("autolabel", str(pk), "--method", "imported", "--wait")
    visitor.goto(f"/d/{pk}/review/")
    for key in "1234su":
        before = visitor.locator("#card").inner_html()
        visitor.keyboard.press(key)
        if key != "4":
            until(visitor, "(old) => document.getElementById('card').innerHTML !== old", before)
    visitor.goto(f"/d/{pk}/spot/")
    visitor.get_by_role("button", name=re.compile("^Draw")).click()
    visitor.wait_for_url(re.compile(r"/spot/\d+/"))
    return pk


def pages(dataset: int) -> list[str]:
    return [
        "/", "/new/", "/account/", f"/d/{dataset}/", f"/d/{dataset}/review/", f"/d/{dataset}/items/1/",
        f"/d/{dataset}/spot/", f"/d/{dataset}/spot/1/", f"/d/{dataset}/savings/", f"/d/{dataset}/export/",
        "/no-such-page/",
    ]  # fmt: skip


def faults(page: Any) -> list[str]:
    page.evaluate(AXE)
    found = page.evaluate(
        "async () => (await axe.run(document, {resultTypes: ['violations']})).violations"
        ".filter(v => ['serious', 'critical'].includes(v.impact))"
        ".map(v => v.id + ': ' + v.nodes.map(n => n.html.slice(0, 160)).join(' | '))"
    )
    return list(found)


def wrong_with(page: Any, what: str) -> dict[str, Any]:
    """Serious faults and sideways scrolling of what is on screen, under its name; empty where all is well."""
    wrong: dict[str, Any] = {}
    if found := faults(page):
        wrong[what] = found
    sideways = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    if sideways > 0:
        wrong[f"{what} overflows by"] = sideways
    return wrong


@pytest.mark.parametrize(("scheme", "width", "height"), LOOKS)
def test_axe_finds_no_serious_fault_and_nothing_overflows(
    site: Site, visitor: Any, dataset: int, scheme: str, width: int, height: int
) -> None:
    visitor.emulate_media(color_scheme=scheme)
    visitor.set_viewport_size({"width": width, "height": height})
    wrong: dict[str, Any] = {}
    for path in pages(dataset):
        visitor.goto(path)
        wrong |= wrong_with(visitor, path)
    visitor.emulate_media(color_scheme="light")
    visitor.set_viewport_size({"width": 1440, "height": 900})
    assert not wrong


def test_the_sign_in_and_upload_pages_have_no_serious_fault(browser: Any, site: Site, visitor: Any) -> None:
    context = browser.new_context(base_url=site.url)
    stranger = context.new_page()
    for path in ("/signin/", "/welcome/none/", "/signin/none/"):
        stranger.goto(path)
        assert faults(stranger) == [], path
    context.close()
    visitor.goto("/new/")
    visitor.set_input_files("input[type=file]", DATA / "sms_spam.csv")
    visitor.get_by_role("button", name="Next").click()
    visitor.wait_for_url(re.compile("/new/[0-9a-f-]{36}/"))
    assert faults(visitor) == []


def tab_to(page: Any, name: str, most: int = 150) -> None:
    """Press Tab until what has the focus is called ``name``; the focus must be visible."""
    for _ in range(most):
        page.keyboard.press("Tab")
        seen = page.evaluate(
            """() => { const e = document.activeElement; if (!e || e === document.body) return null;
            const s = getComputedStyle(e), w = e.closest('.drop, .radio-card, .search, .check');
            const o = w ? getComputedStyle(w) : s;
            const ring = [s, o].some(x => (x.outlineStyle !== 'none' && parseFloat(x.outlineWidth) > 0)
                || x.boxShadow !== 'none' || x.borderColor !== '');
            return [(e.getAttribute('aria-label') || e.labels?.[0]?.innerText || e.innerText || e.value || '').trim(), ring]; }"""
        )
        if seen and name in seen[0]:
            assert seen[1], f"no visible focus on {name}"
            return
    raise AssertionError(f"Tab never reached {name!r} on {page.url}")


def test_the_whole_job_is_done_by_keyboard_alone(site: Site, visitor: Any) -> None:
    page = visitor
    page.goto("/")
    tab_to(page, "New dataset")
    page.keyboard.press("Enter")
    page.wait_for_url("**/new/")
    tab_to(page, "Try the sample")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"/d/\d+/$"))
    dataset = int(re.search(r"/d/(\d+)/", page.url).group(1))
    tab_to(page, "Start labeling")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Label again").wait_for(timeout=90_000)
    page.goto(f"/d/{dataset}/review/")
    title = page.locator("#item-title").inner_text()
    page.keyboard.press("?")
    page.get_by_role("dialog").wait_for()
    page.keyboard.press("Escape")
    page.keyboard.press("1")
    until(page, "(old) => document.getElementById('item-title').innerText !== old", title)
    until(page, "document.activeElement.id === 'item-title'")  # the focus goes to the new item
    page.goto(f"/d/{dataset}/spot/")
    tab_to(page, "Draw")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"/spot/\d+/"))
    page.goto(f"/d/{dataset}/spot/")
    tab_to(page, "Discard it")
    page.keyboard.press("Enter")
    page.get_by_text("The sample is discarded").wait_for()
    page.goto(f"/d/{dataset}/savings/")
    tab_to(page, "0.85")
    page.goto(f"/d/{dataset}/export/")
    with page.expect_download():
        tab_to(page, "Download")
        page.keyboard.press("Enter")


def test_a_held_key_a_double_press_and_typing_in_a_field_make_no_extra_decision(
    site: Site, visitor: Any, dataset: int
) -> None:
    """One decision per press: U-catalogue C24."""
    page = visitor
    page.goto(f"/d/{dataset}/spot/1/")

    def answered() -> int:
        return int(page.locator("#left").inner_text())

    before = answered()
    page.evaluate(
        """() => { for (const repeat of [false, true, true, true])
            document.body.dispatchEvent(new KeyboardEvent('keydown', {key: '1', code: 'Digit1', bubbles: true, repeat})); }"""
    )
    until(page, "(n) => Number(document.getElementById('left').innerText) > n", before)
    page.wait_for_timeout(400)
    assert answered() == before + 1
    page.evaluate(
        "() => { const b = document.querySelector('#decide .choice'); b.click(); b.click(); b.click(); }"
    )
    until(page, "(n) => Number(document.getElementById('left').innerText) > n", before + 1)
    page.wait_for_timeout(400)
    assert answered() == before + 2
    page.keyboard.press("e")
    page.keyboard.type("1 2 s u c")
    page.wait_for_timeout(300)
    assert answered() == before + 2
    assert page.locator("#note").input_value() == "1 2 s u c"
    page.keyboard.press("Escape")
    composing = "document.body.dispatchEvent(new KeyboardEvent('keydown', {key: '1', code: 'Digit1', bubbles: true, isComposing: true}))"
    page.evaluate(composing)
    page.evaluate(  # AZERTY: the 1 key types &, digits go by place
        "document.body.dispatchEvent(new KeyboardEvent('keydown', {key: '&', code: 'Digit1', bubbles: true}))"
    )
    until(page, "(n) => Number(document.getElementById('left').innerText) > n", before + 2)
    assert answered() == before + 3
    page.evaluate(  # a Cyrillic layout: the U key types г
        "document.body.dispatchEvent(new KeyboardEvent('keydown', {key: 'г', code: 'KeyU', bubbles: true}))"
    )
    until(page, "(n) => Number(document.getElementById('left').innerText) < n", before + 3)
