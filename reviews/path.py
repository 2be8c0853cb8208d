"""The way to a goal: what happens by itself between two answers, and what a manager decides.

seed (random items) → rounds of learning, worst items first → calibration sample → certified threshold → review of
the rest → certificate. Everything follows from rows, so ``advance`` may be called at any time, by anybody, twice.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from django.db import IntegrityError, transaction
from django.utils import timezone

from datasets.labeling import ROUND, free_items
from datasets.models import Dataset, Run, record
from labelhub.autolabel import loop, planner
from labelhub.autolabel.rank import ACCEPT_NOTHING
from reviews import calibrations, learning, rounds, samples, tasks, thresholds
from reviews.models import Decision, Goal, Purpose, Round, Sample

if TYPE_CHECKING:
    from django.contrib.auth.models import User

FIRST_METHOD = "ensemble"  # labels everything once, so that there is something to draw from and to show


class CannotPromise(Exception):
    """A goal that cannot be set; the message says why."""


def active_goal(dataset: Dataset) -> Goal | None:
    """The goal that people work towards, if the threshold goes by target."""
    return Goal.objects.active().filter(dataset=dataset).select_related("dataset").first()


def choose(dataset: Dataset, target_error: float, floor_error: float | None, by: User | None) -> Goal:
    """Set a goal, or another one, and start towards it. From here on nothing is accepted until it is proven.

    Args:
        target_error: share of all labels that may be wrong, in (0, 0.5].
        floor_error: share of the labels accepted unseen that may be wrong, at least the target's, or None.
    Raises: CannotPromise, thresholds.SampleIsOpen, learning.CannotLearn, tasks.RunIsActive, each with a sentence.
    """
    if not 0 < target_error <= 0.5:
        raise CannotPromise("The target is a share of right labels from 50 % to below 100 %.")
    if floor_error is not None and not target_error <= floor_error < 1:
        raise CannotPromise(
            "The accepted labels cannot be promised to be better than the whole dataset: give a smaller share."
        )
    with transaction.atomic():
        sample = thresholds.open_sample(dataset)
        if sample is not None and sample.purpose != Purpose.TRAINING:
            thresholds.check_no_sample(dataset)
        Goal.objects.active().filter(dataset=dataset).update(left_at=timezone.now())
        goal = Goal.objects.create(dataset=dataset, target_error=target_error, floor_error=floor_error, by=by)
        record(by, dataset, "goal chosen", target_error=target_error, floor_error=floor_error)
        now = thresholds.in_force(dataset)
        if now is None:
            if not dataset.runs.active().exists():
                learning.learn(dataset, FIRST_METHOD, by)
        elif not now.accepts_nothing:
            thresholds.move(dataset, ACCEPT_NOTHING, by)
    advance(dataset.pk)
    return goal


def advance(dataset_id: int) -> None:
    """Do what is due and needs no person: conclude a sample, put a round in force, draw the seed, learn again."""
    dataset = Dataset.objects.get(pk=dataset_id)
    goal = active_goal(dataset)
    if goal is None or dataset.runs.active().exists() or thresholds.open_sample(dataset) is not None:
        return
    with suppress(thresholds.SampleIsOpen, tasks.RunIsActive, learning.CannotLearn, IntegrityError):
        _advance(goal)  # whoever came first did it


def _advance(goal: Goal) -> None:
    dataset = goal.dataset
    now = thresholds.in_force(dataset)
    if now is None or (now.sample is not None and now.sample.drawn_at >= goal.at):
        return
    drawn = dataset.samples.filter(
        purpose=Purpose.CALIBRATION, drawn_at__gte=goal.at, closed_at__isnull=False
    )
    last_drawn = drawn.order_by("-pk").first()
    if last_drawn is not None and calibrations.conclude(last_drawn) is not None:
        return
    finished = dataset.runs.filter(finished_at__isnull=False, problem=None).order_by("-number").first()
    if finished is not None and finished.number > now.run.number and hasattr(finished, "round"):
        now = thresholds.move(dataset, ACCEPT_NOTHING, None, run=finished)
    latest = goal.rounds.select_related("run__version").defer("run__version__state").last()
    if latest is None:
        missing = seed_missing(dataset)
        if missing:
            samples.draw_to_teach(dataset, now, None, missing)
        else:
            learn_again(goal, None)
    elif _due(goal, latest, last_drawn):
        learn_again(goal, None)


def _due(goal: Goal, latest: Round, last_drawn: Sample | None) -> bool:
    """Whether a next round would learn what was asked for."""
    if last_drawn is not None and last_drawn.drawn_at > latest.at:  # it proved nothing, and its answers teach
        return len(calibrations.failed_attempts(goal)) < loop.ATTEMPTS
    return latest.step == "go on" and rounds.answered_since(latest) >= latest.batch


def seed_missing(dataset: Dataset) -> int:
    """How many random answers are missing until a first round can judge itself by them."""
    items, labels = free_items(dataset).count(), dataset.labels.filter(retired_at=None).count()
    random = Decision.objects.current().filter(dataset=dataset, sample__purpose__in=rounds.RANDOM).count()
    return max(0, planner.seed_size(items, labels) - random)


def learn_again(goal: Goal, by: User | None, rings: bool = True) -> Run:
    """Start a round: learn from all answers and score what is open, in the background.

    Raises: thresholds.SampleIsOpen, tasks.RunIsActive, learning.CannotLearn.
    """
    dataset = goal.dataset
    with transaction.atomic():
        thresholds.check_no_sample(dataset)
        active = dataset.runs.active().first()
        if active is not None:
            raise tasks.RunIsActive(active)
        version = learning.make_version(dataset, ROUND, {"goal": goal.pk})
        return tasks.start(dataset, version, by, rings)
