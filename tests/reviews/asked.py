"""A dataset of texts whose recorded answers a local stand-in for the model plays back, and runs that ask it."""

from __future__ import annotations

import csv
from decimal import Decimal
from pathlib import Path
from typing import Any

from django.contrib.auth.models import User

from datasets.models import Dataset, Run
from reviews import learning, tasks
from tests.reviews.things import import_rows

DATA = Path(__file__).resolve().parents[1] / "data"
ANSWERS = DATA / "stance_gpt4o.csv"
LABELS = [{"name": "agrees"}, {"name": "disagrees"}, {"name": "neutral"}]
KEY = "sk-ant-api03-Zm9yIHRlc3RzIG9ubHk-27182818"


def stance(folder: Path, n: int = 60, extra: tuple[str, ...] = ()) -> Dataset:
    """The first texts of the recorded file, and some that are not in it."""
    with ANSWERS.open(encoding="utf-8", newline="") as file:
        texts = list(dict.fromkeys(row["text"] for row in csv.DictReader(file)))[:n]
    rows = ['"' + text.replace('"', '""') + '"' for text in (*texts, *extra)]
    return import_rows(folder, rows, labels=LABELS)


def ask_here(
    dataset: Dataset, by: User | None, usd: str | None = None, method: str = "llm", **how: Any
) -> Run:
    """A run that asks the model, worked in this process until it is over or paused."""
    spend = learning.Spend(None if usd is None else Decimal(usd), **how)
    return tasks.work_here(learning.learn(dataset, method, by, spend, rings=False))
