"""The main path on 100,000 rows of 200 characters: seconds for each step, as a person would wait for it.

Every step runs the shipped command or page against a fresh SQLite database: import, labeling by the weak model
in one process, first review card, a decision with the next card, moving the threshold, savings page, export.
Texts are joined from the questions of ten bank intents (tests/data/banking77.csv), 2 % of them with a given label.
"""

from __future__ import annotations

import csv
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
INTENTS = 10
CHARACTERS = 200
OWN_SHARE = 0.6


def write_rows(path: Path, rows: int, seed: int = 0) -> None:
    """Write a CSV of distinct texts of 200 characters with a sparse column of given labels."""
    dice = random.Random(seed)
    by_intent: dict[str, list[str]] = {}
    with open(ROOT / "tests/data/banking77.csv", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            by_intent.setdefault(row["gold"], []).append(row["text"])
    intents = sorted(by_intent)[:INTENTS]
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "text", "intent"])
        for number in range(rows):
            intent = dice.choice(intents)
            text = f"{number} "
            while len(text) < CHARACTERS:
                own = dice.random() < OWN_SHARE  # the rest is noise, so that some labels are in doubt
                text += dice.choice(by_intent[intent if own else dice.choice(intents)]) + " "
            writer.writerow([number, text[:CHARACTERS], intent if dice.random() < 0.02 else ""])


def measure(rows: int = 100_000) -> dict[str, Any]:
    """Return the seconds of each step, and of the slowest page."""
    with tempfile.TemporaryDirectory(prefix="labelhub-bench-") as folder:
        home = Path(folder)
        environ = os.environ | {
            "LABELHUB_HOME": folder, "DATABASE_URL": "", "REDIS_URL": "redis://127.0.0.1:1/0",
            "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1",
        }  # fmt: skip
        seconds: dict[str, float] = {}

        def command(name: str, *arguments: str) -> str:
            began = time.perf_counter()
            done = subprocess.run(  # noqa: PLW1510  # the exit code is looked at below
                [sys.executable, "manage.py", *arguments],
                cwd=ROOT,
                env=environ,
                capture_output=True,
                text=True,
            )
            seconds[name] = round(time.perf_counter() - began, 2)
            if done.returncode:
                raise RuntimeError(f"{arguments[0]} failed: {done.stderr[-2000:]}")
            return done.stdout

        write_rows(home / "rows.csv", rows)
        command("migrate", "migrate", "--verbosity", "0")
        made = command(
            "import", "importdata", str(home / "rows.csv"), "--name", "Bench", "--text", "text",
            "--label", "intent", "--json",
        )  # fmt: skip
        dataset = json.loads(made)["id"]
        command("label (weak model)", "autolabel", str(dataset), "--method", "weak_model", "--wait")
        pages = json.loads(_in_a_process(environ, dataset))
        command(
            "export (command)", "export", str(dataset), "--format", "jsonl", "--out", str(home / "out.jsonl")
        )
        with open(home / "out.jsonl", "rb") as file:
            exported = sum(1 for _ in file)
        return {
            "rows": rows, "seconds": seconds, "pages_seconds": pages,
            "slowest_page_seconds": max(pages.values()), "exported_rows": exported,
        }  # fmt: skip


def _in_a_process(environ: dict[str, str], dataset: int) -> str:
    done = subprocess.run(  # noqa: PLW1510  # the exit code is looked at below
        [sys.executable, "-m", "benchmarks.main_path", "pages", str(dataset)],
        cwd=ROOT, env=environ | {"DJANGO_SETTINGS_MODULE": "labelhub.settings"}, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    return done.stdout


def _pages(dataset: int) -> dict[str, float]:
    """Ask for every page of a dataset, each twice; the second time is a warm process, the first is reported too."""
    import django

    django.setup()
    from django.contrib.auth.models import User
    from django.test import Client
    from django.urls import reverse

    from datasets.models import Membership

    owner = User.objects.create_user("bench")
    Membership.objects.create(user=owner, role="owner")
    client = Client(headers={"host": "127.0.0.1"})
    client.force_login(owner)
    seconds: dict[str, float] = {}

    def ask(name: str, url: str, data: dict[str, Any] | None = None, **headers: str) -> str:
        began = time.perf_counter()
        answer = client.get(url, headers=headers) if data is None else client.post(url, data, headers=headers)
        body = b"".join(answer.streaming_content) if answer.streaming else answer.content  # type: ignore[attr-defined]
        seconds[name] = round(time.perf_counter() - began, 3)
        if answer.status_code not in (200, 302, 204):
            raise RuntimeError(f"{url} answered {answer.status_code}: {body[:500]!r}")
        return body.decode()

    ask("first request of the process", reverse("healthz"))
    ask("home", reverse("home"))
    ask("overview", reverse("reviews:overview", args=[dataset]))
    card = ask("first review card", reverse("reviews:review", args=[dataset]))
    for name in ("decision and next card", "decision and next card, again"):
        found = re.search(r'action="(/d/\d+/items/\d+/decide)"', card)
        label = re.search(r'name="label" value="(\d+)"', card)
        if not found or not label:
            raise RuntimeError("the review page has no card")
        card = ask(name, found[1], {"label": label[1]}, **{"hx-request": "true"})
    ask("spot check", reverse("reviews:spot", args=[dataset]))
    ask("savings", reverse("reviews:savings", args=[dataset]))
    ask("savings, again", reverse("reviews:savings", args=[dataset]))
    ask("threshold preview", reverse("reviews:threshold_preview", args=[dataset]) + "?t=0.9")
    ask("threshold moved", reverse("reviews:threshold", args=[dataset]), {"t": "0.9"})
    ask("draw a spot check", reverse("reviews:draw", args=[dataset]), {})
    ask("export page", reverse("reviews:export", args=[dataset]))
    return seconds


if __name__ == "__main__":
    if sys.argv[1:2] == ["pages"]:
        print(json.dumps(_pages(int(sys.argv[2]))))
    else:
        print(json.dumps(measure(int(sys.argv[1]) if sys.argv[1:] else 100_000), indent=1))
