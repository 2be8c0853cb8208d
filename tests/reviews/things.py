"""Datasets that a machine can learn, and runs over them worked in this process."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

from django.contrib.auth.models import User
from django.utils import timezone

from datasets import labeling, slices
from datasets.ingest import ingest
from datasets.models import (
    Dataset,
    Run,
    Slice,
)
from labelhub.autolabel import tables
from reviews import learning, tasks

WORDS = {"fruit": ["apple", "pear", "plum", "grape"], "tool": ["hammer", "saw", "drill", "wrench"]}


def import_rows(
    folder: Path, rows: list[str], head: str = "text", labels: Any = (), **mapping: Any
) -> Dataset:
    path = folder / f"{len(rows)}.csv"
    path.write_text(head + "\n" + "\n".join(rows) + "\n", encoding="utf-8")
    dataset = Dataset.objects.create(name="Things")
    if not labels and "label" not in mapping and "predicted" not in mapping:
        labels = [{"name": "fruit"}, {"name": "tool"}]
    ingest(dataset, path, tables.sniff(path), {"text": ["text"]} | mapping, labels)
    dataset.refresh_from_db()
    return dataset


def things(n: int, given: int = 0) -> list[str]:
    """Rows “text,label” that a machine can learn; the first ``given`` have their label."""
    rows = []
    for i in range(n):
        label = ("fruit", "tool")[i % 2]
        word = WORDS[label][i // 2 % 4]
        rows.append(f"the {word} number {i} is here,{label if i < given else ''}")
    return rows


def run_here(dataset: Dataset, by: User, method: str = "weak_model") -> Run:
    return tasks.work_here(learning.learn(dataset, method, by, rings=False))


def claim_first(dataset: Dataset, boss: User) -> tuple[Run, Slice]:
    """A run whose labeler is fitted, and its first slice of items, claimed by “one”."""
    run = learning.learn(dataset, "weak_model", boss, rings=False)
    fit = slices.claim_slice(run, "one")
    assert fit is not None and fit.number == 0
    assert slices.claim_slice(run, "two") is None  # nothing else before the labeler is there
    labeling.finish_fit(fit, run.version, labeling.fit(fit, tasks.to_label(dataset, run.version)))
    mine = slices.claim_slice(run, "one")
    assert mine is not None and mine.number == 1
    return run, mine


def expire(one: Slice) -> None:
    Slice.objects.filter(pk=one.pk).update(lease_until=timezone.now() - dt.timedelta(seconds=1))
