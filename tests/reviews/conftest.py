"""Small datasets with known predictions, built from the facts that a run would have written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from datasets.models import Dataset, Item, Label, LabelerVersion, Membership, Prediction, Run
from labelhub.autolabel.rank import to_rank
from reviews.models import Threshold
from reviews.thresholds import typed_rank
from tests.reviews.things import import_rows, things


@dataclass
class World:
    """One dataset, its people and the run in force."""

    dataset: Dataset
    labels: list[Label]
    items: list[Item]
    run: Run
    threshold: Threshold
    people: dict[str, User]

    def label(self, name: str) -> Label:
        return next(label for label in self.labels if label.name == name)

    def prediction(self, item: Item) -> Prediction:
        return Prediction.objects.get(run=self.run, item=item)


@pytest.fixture
def make_user(db: None) -> Callable[..., User]:
    def make(name: str, role: str | None = None, dataset: Dataset | None = None) -> User:
        user = User.objects.create_user(name, password=None)
        if role is not None:
            Membership.objects.create(user=user, dataset=dataset, role=role)
        return user

    return make


@pytest.fixture
def make_world(make_user: Callable[..., User]) -> Callable[..., World]:
    """Make a dataset whose item i was predicted with ``confidences[i]`` as label i modulo their number."""

    def make(
        confidences: Sequence[float],
        labels: Sequence[str] = ("spam", "ham"),
        threshold: str = "0.85",
        name: str = "Mails",
        **fields: Any,
    ) -> World:
        dataset = Dataset.objects.create(
            name=name, ready_at=timezone.now(), columns=["text"], mapping={"text": ["text"]}, **fields
        )
        classes = [Label.objects.create(dataset=dataset, name=n, position=i) for i, n in enumerate(labels)]
        items = [
            Item.objects.create(
                dataset=dataset, position=i, text=f"text {i}", row=f'{{"text":"text {i}"}}', text_hash=i
            )
            for i in range(1, len(confidences) + 1)
        ]
        version = LabelerVersion.objects.create(dataset=dataset, method="imported")
        run = Run.objects.create(
            dataset=dataset, number=1, version=version, seed="0" * 32,
            started_at=timezone.now(), finished_at=timezone.now(),
        )  # fmt: skip
        for i, (item, confidence) in enumerate(zip(items, confidences, strict=True)):
            Prediction.objects.create(
                run=run, item=item, label=classes[i % len(classes)], rank=to_rank(confidence, i % 1000)
            )
        people = {
            role: make_user(f"{name} {role}".replace(" ", "-").lower(), role, dataset)
            for role in ("owner", "manager", "reviewer", "viewer")
        }
        people["second"] = make_user(f"{name}-second".lower(), "reviewer", dataset)
        in_force = Threshold.objects.create(dataset=dataset, run=run, rank=typed_rank(threshold))
        return World(dataset, classes, items, run, in_force, people)

    return make


@pytest.fixture
def taught(db: None, tmp_path: Path) -> Dataset:
    """1,240 items, 40 of them given; three slices of the others."""
    return import_rows(tmp_path, things(1240, 40), "text,label", label="label")
