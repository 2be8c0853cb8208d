"""300 items through the web application and through the backtest, with the same seeds: every step equal."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.test import Client
from django.urls import reverse

from datasets.models import Dataset, Item, Run
from labelhub.autolabel.backtest import prepare
from labelhub.autolabel.playing import People, Promise
from labelhub.autolabel.replay import Course, Outcome, replay
from labelhub.autolabel.scorer import TextFeatures
from reviews import path, place, samples, tasks, thresholds
from reviews.models import Goal, Purpose, Round, Sample
from tests.reviews.things import import_rows

pytestmark = pytest.mark.django_db

DATA = Path(__file__).parent.parent / "data"


def sms(n: int) -> tuple[list[str], list[str]]:
    """The first distinct messages and what they are, every other one spam as far as they reach."""
    with (DATA / "sms_spam.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["text"].strip(): row["gold"] for row in csv.DictReader(file)}
    kinds = {kind: [text for text, gold in rows.items() if gold == kind] for kind in ("ham", "spam")}
    texts = [text for pair in zip(kinds["ham"], kinds["spam"], strict=False) for text in pair][:n]
    return texts, [rows[text] for text in texts]


@dataclass
class Reviewer:
    """A scripted reviewer in a browser without a script: reads the page, sends the form."""

    client: Client
    dataset: Dataset
    truth: dict[str, str]

    def __post_init__(self) -> None:
        self.items = dict(Item.objects.filter(dataset=self.dataset).values_list("pk", "text"))
        self.labels = {label.name: label.pk for label in self.dataset.labels.all()}

    def answer(self, address: str) -> bool:
        """Answer the item on a page; False when the page has none."""
        page = self.client.get(address, follow=True).content.decode()
        form = re.search(r'action="([^"]*/items/(\d+)/decide)"', page)
        if form is None:
            return False
        uuid = re.search(r'name="uuid" value="([^"]+)"', page)
        lane = re.search(r'name="lane" value="(\d+)"', page)
        assert uuid is not None
        said = {"uuid": uuid[1], "label": self.labels[self.truth[self.items[int(form[2])]]], "seconds": "3"}
        if lane is not None:
            said["lane"] = lane[1]
        answer = self.client.post(form[1], said)
        assert answer.status_code == 302, answer.content.decode()
        return True

    def walk(self) -> Iterator[str]:
        """Do what the guided path asks for, act by act, until a person is not needed any more."""
        pk = self.dataset.pk
        while True:
            goal = path.active_goal(self.dataset)
            assert goal is not None
            self.client.get(reverse("reviews:guide", args=[pk]))
            here = place.where(goal)
            yield here.act
            if here.act == "wait":
                for run in Run.objects.active().filter(dataset=self.dataset):
                    tasks.work_here(run)
            elif here.act == "review":
                if not self.answer(reverse("reviews:review", args=[pk])):
                    return
            elif here.act == "sample" and here.sample is not None:
                self.answer(reverse("reviews:sample", args=[pk, here.sample.pk]))
            elif here.act == "draw":
                self.client.post(reverse("reviews:calibrate", args=[pk]))
            else:
                return


@pytest.fixture
def manager(client: Client, make_user: Any) -> Client:
    client.force_login(make_user("boss", "manager"))
    return client


@pytest.fixture
def messages300(manager: Client, tmp_path: Path) -> Reviewer:
    texts, gold = sms(300)
    rows = ['"' + text.replace('"', '""') + '"' for text in texts]
    dataset = import_rows(tmp_path, rows, labels=[{"name": "ham"}, {"name": "spam"}])
    return Reviewer(manager, dataset, dict(zip(texts, gold, strict=True)))


def replayed(reviewer: Reviewer, goal: Goal) -> tuple[Course, Outcome, list[int]]:
    """The same data through the backtest's own functions, with the seeds that the application drew."""
    ids = sorted(reviewer.items)
    known = prepare([reviewer.items[pk] for pk in ids], [reviewer.truth[reviewer.items[pk]] for pk in ids])
    drawn = list(Sample.objects.filter(dataset=reviewer.dataset).order_by("pk"))
    lane, *proofs = [s for s in drawn if s.purpose != Purpose.SPOT_CHECK]
    rounds = [one.run.seed for one in goal.rounds.select_related("run")]

    def seeds(what: str, number: int) -> int:
        if what == "seed":
            return int(lane.seed, 16)
        return int(rounds[number - 1] if what == "round" else proofs[number - 1].seed, 16)

    course = Course(known, People(known, 0.0, 0), seeds, TextFeatures.of(known.texts))
    promise = Promise(goal.target_error, reviewer.dataset.alpha, goal.floor_error)
    return course, replay(course, promise, seeds), ids


@pytest.mark.slow
def test_every_step_is_the_backtests(messages300: Reviewer) -> None:
    reviewer, dataset = messages300, messages300.dataset
    chosen = reviewer.client.post(reverse("reviews:goal", args=[dataset.pk]), {"target": "90", "floor": "80"})
    assert chosen.status_code == 302
    goal = path.active_goal(dataset)
    assert goal is not None
    acts = list(reviewer.walk())
    assert {"wait", "review", "draw", "sample"} <= set(acts)
    course, outcome, ids = replayed(reviewer, goal)

    first = Round.objects.filter(goal=goal).select_related("run__version")
    for number, one in enumerate(first):
        now = course.round(number)
        assert now is not None
        assert [pk for pk, _ in one.run.version.examples] == [ids[row] for row in now.answers.rows]
        stands = [
            [ids[now.answers.rows[i]], int(now.learned.sure[i])] for i in np.flatnonzero(now.answers.stands)
        ]
        assert one.representative == stands
        said = {p.item_id: (p.rank, p.label.name) for p in one.run.predictions.select_related("label")}
        names = ["ham", "spam"]
        assert said == {
            ids[row]: (int(now.learned.ranks[row]), names[now.learned.classes[row]]) for row in now.pool
        }
    assert outcome.attempts == Sample.objects.filter(purpose=Purpose.CALIBRATION).count() > 0
    sample = Sample.objects.filter(purpose=Purpose.CALIBRATION).latest("pk")
    assert outcome.plan is not None
    assert (sample.size, sample.allowed_errors, sample.budget) == (
        outcome.plan.sample, outcome.plan.errors, outcome.plan.budget,
    )  # fmt: skip
    assert samples.count(sample).errors == outcome.errors_found
    latest = thresholds.in_force(dataset)
    assert latest is not None
    accepted = (
        set() if latest.accepts_nothing else set(thresholds.accepted(latest).values_list("item", flat=True))
    )
    assert accepted == {ids[row] for row in outcome.accepted}
    assert len(accepted) > 100
