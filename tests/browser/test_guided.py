"""The guided path from the upload of a file without labels to a certificate that anybody can recompute."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import ROOT, Site
from tests.browser.driving import answer_by_key, keys_of, plain, read, upload, write

ROWS = int(os.environ.get("GUIDED_ROWS", "600"))  # all 5,574 take minutes; benchmarks run them
MOST_STEPS = 300


def work(page: Any, gold: dict[str, str], keys: dict[str, str]) -> int:
    """Answer by the key what is asked for here: until a round learns again, or until no card is left."""
    answers, most = 0, 5000
    if lesson := re.search(
        r": (\d+) of (\d+) answers until it learns", page.locator(".review-bar").inner_text()
    ):
        most = int(lesson[2]) - int(lesson[1])
    while answers < most and page.locator("#decide input[name=uuid]").count():
        answer_by_key(page, gold, keys)
        answers += 1
    return answers


def verify(certificate: Path, export: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "manage.py", "verify", str(certificate), str(export)],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_from_a_file_to_a_certificate_that_can_be_recomputed(
    visitor: Any, site: Site, tmp_path: Path
) -> None:
    page, rows = visitor, read("sms_spam.csv")[:ROWS]
    gold = {plain(row["text"]): row["gold"] for row in rows}
    dataset = upload(
        page,
        write(tmp_path / "sms.csv", [{"text": row["text"]} for row in rows]),
        {"text": "text"},
        ["ham", "spam"],
    )
    page.goto(f"/d/{dataset}/guide/")
    page.get_by_role("button", name="Start").click()
    answers, steps, keys = 0, [], {"ham": "1", "spam": "2"}
    while len(steps) < MOST_STEPS:
        page.goto(f"/d/{dataset}/guide/")
        steps.append(page.locator("#here-title").inner_text())
        if steps[-1] == "Spot check":
            break
        act = page.locator("#guide .button.primary")
        if not act.count():  # the machine works; the page asks by itself until it is done
            act.wait_for(timeout=120_000)
        act.click()
        page.wait_for_load_state()
        if page.locator("#decide").count():
            keys = keys_of(page)
            answers += work(page, gold, keys)
    assert [*dict.fromkeys(steps)][-2:] == ["Certificate", "Spot check"], steps
    statement = page.locator("#proven").inner_text()
    distinct = len({row["text"].strip() for row in rows})
    assert f"{distinct:,} labels" in statement
    assert answers < 0.8 * distinct, "work is saved, though a first sample proved nothing"

    page.goto(f"/d/{dataset}/certificates/1/")
    assert statement in page.locator("main").inner_text()
    with page.expect_download() as download:
        page.get_by_role("link", name=re.compile("JSON")).first.click()
    certificate = tmp_path / "certificate.json"
    download.value.save_as(certificate)
    exported = tmp_path / "export.jsonl"
    site.manage("export", str(dataset), "--format", "jsonl", "--out", str(exported))
    lines = [json.loads(line) for line in exported.read_text("utf-8").splitlines()]
    wrong = sum(line["label"] != gold[plain(line["row"]["text"])] for line in lines if not line["same_as"])
    assert wrong <= 0.10 * distinct, "far from the promise; one in twenty may miss it by a little"
    assert verify(certificate, exported).returncode == 0

    dice = random.Random(1)
    people = [line for line in lines if line["source"] == "person"]
    machine = [line for line in lines if line["source"] == "machine"]
    assert people
    assert len(machine) > 0.2 * distinct
    for one in [*dice.sample(people, 3), *dice.sample(machine, 3)]:
        other = [
            line | {"label": "ham" if line["label"] == "spam" else "spam"} if line is one else line
            for line in lines
        ]
        exported.write_text("".join(json.dumps(line) + "\n" for line in other), encoding="utf-8")
        changed = verify(certificate, exported)
        assert changed.returncode == 1, changed.stdout


@pytest.mark.parametrize("typed", ["abc", "100", "20"])
def test_a_promise_that_cannot_be_is_refused_with_a_sentence(
    visitor: Any, site: Site, tmp_path: Path, typed: str
) -> None:
    rows = [{"text": f"text {i} {typed}"} for i in range(3)]
    dataset = upload(visitor, write(tmp_path / "few.csv", rows), {"text": "text"}, ["yes", "no"])
    visitor.goto(f"/d/{dataset}/guide/")
    visitor.get_by_label("Of all labels").fill(typed)
    visitor.get_by_role("button", name="Start").click()
    visitor.get_by_text("Type a percentage from 50 to below 100").wait_for()
    assert visitor.get_by_label("Of all labels").input_value() == typed
