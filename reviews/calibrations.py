"""The calibration sample: it proves the lowest threshold that keeps a promise about the whole dataset."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy.typing as npt
from django.db import transaction
from django.db.models import Count, Exists, OuterRef, Q

from datasets.labeling import free_items
from datasets.models import AuditEvent, Label, Prediction, PredictionQuerySet, record
from labelhub.autolabel import certify, loop
from reviews import samples, thresholds
from reviews.models import Decision, Goal, Outcome, Purpose, Remark, Sample, SampleItem, Threshold

if TYPE_CHECKING:
    from django.contrib.auth.models import User

CONCLUDED = "sample concluded"
SENTENCES = {
    "sample": "The pool was too small: no sample of it could prove the promise.",
    "errors": "The machine was wrong about items that it was surest of, so no threshold is proven.",
    "floor": "Too few labels stand above the proven threshold to promise how many of them are right.",
    "nothing left": "Every item of the pool was in the sample, so nothing is left to be accepted unseen.",
}


class NothingToPlan(Exception):
    """No sample could prove the promise now; the message says why."""


@dataclass(frozen=True)
class Result:
    """What a closed calibration sample says; it follows from the draw and its answers, and never changes.

    ``rank``: lowest threshold that is proven, None where none is. ``accepted``: labels of the frozen pool at or
    above it that were not drawn; ``needed``: how many the floor asks for. ``problem``: a key of SENTENCES, or empty.
    """

    seen: samples.Count
    rank: int | None
    accepted: int
    needed: int
    problem: str

    @property
    def sentence(self) -> str:
        """Why nothing is proven, for people."""
        return SENTENCES.get(self.problem, "")


def position(goal: Goal, ranks: npt.ArrayLike, attempt_alpha: float, costs: list[float]) -> loop.Position:
    """Where the loop stands: the ranks of what may be accepted, shape (pool,), and the terms of the goal."""
    p = loop.chances(ranks)
    items = free_items(goal.dataset).count()
    budget = certify.budget(items - _without_label(goal, items, len(p)), goal.target_error)
    return loop.Position(p, items, budget, attempt_alpha, goal.floor_error, costs)


def _without_label(goal: Goal, items: int, pool: int) -> int:
    """Count the items that will have no label in the end: their share of the budget is nobody's (E4).

    Those that people left out or could not tell, and as large a share of those that they are still to see.
    """
    answers = Decision.objects.current().filter(dataset=goal.dataset_id)
    n = answers.aggregate(all=Count("pk"), labels=Count("pk", filter=Q(outcome=Outcome.LABEL)))
    if n["all"] == n["labels"]:
        return 0
    before = goal.rounds.order_by("-number").values_list("manual", flat=True).first()
    to_see = max(0.0, min(pool, (items / 2 if before is None else before) - (items - pool)))
    return min(items, math.ceil((n["all"] - n["labels"]) * (1 + to_see / n["all"])))


def draw(goal: Goal, by: User | None) -> Sample:
    """Freeze the run in force and draw the sample that its plan asks for, from everything that is open.

    Raises: NothingToPlan where no sample could prove the promise; samples.NothingToDraw; thresholds.SampleIsOpen.
    """
    dataset = goal.dataset
    with transaction.atomic():
        thresholds.check_no_sample(dataset)
        now = thresholds.in_force(dataset)
        if now is None:
            raise samples.NothingToDraw("No run has labeled anything yet.")
        pool = thresholds.accepted(now, 0)
        attempt, alpha = samples.next_attempt(dataset)
        _, chosen = position(goal, list(pool.values_list("rank", flat=True)), alpha, []).judge()
        if chosen is None:
            raise NothingToPlan(
                "No sample could prove the promise with the labels as they are: answer more items first, or promise less."
            )
        size, budget, floor = chosen.sample, chosen.budget, goal.floor_error

        def terms(n: int) -> samples.Plan:
            allowed = certify.allowed_errors(n, size, budget, alpha)
            return samples.Plan(n, size, attempt, alpha, budget, allowed, goal.target_error, floor)

        return samples.draw(now, Purpose.CALIBRATION, pool, terms, by)


def wrong_ranks(sample: Sample) -> list[int]:
    """Ranks of the sampled items whose machine label people did not confirm, by their first answers."""
    return [
        drawn.machine_rank
        for drawn, answer in samples.evidence(sample)
        if answer is None or answer.outcome != Outcome.LABEL or answer.label_id != drawn.machine_label_id
    ]


def result(sample: Sample) -> Result:
    """Return what a closed calibration sample proves."""
    seen = samples.count(sample)
    needed = certify.least_accepted(sample.budget, sample.floor_error) if sample.floor_error else 1
    if sample.allowed_errors < 0:
        return Result(seen, None, 0, needed, "sample")
    rank = certify.certified_threshold(wrong_ranks(sample), sample.allowed_errors)
    drawn = SampleItem.objects.filter(sample=sample).values("item")
    accepted = frozen_pool(sample).filter(rank__gte=rank).exclude(item__in=drawn).count()
    if not accepted:
        return Result(seen, None, 0, needed, "errors" if sample.pool > sample.size else "nothing left")
    if accepted < needed:
        return Result(seen, None, accepted, needed, "floor")
    return Result(seen, rank, accepted, needed, "")


def frozen_pool(sample: Sample) -> PredictionQuerySet:
    """What a calibration sample was drawn from: whatever became of it since, an item of it stays in it (E11)."""
    at = sample.drawn_at
    taken_back = Decision.objects.filter(revokes=OuterRef("pk"), decided_at__lte=at)
    decided = Decision.objects.exclude(outcome=Outcome.UNDO).filter(
        ~Exists(taken_back), dataset=sample.dataset_id, decided_at__lt=at
    )
    asked = Remark.objects.filter(dataset=sample.dataset_id, kind=Remark.Kind.ASK, at__lt=at)
    retired = Label.objects.filter(dataset=sample.dataset_id, retired_at__lte=at)
    labeled = Prediction.objects.filter(run=sample.run_id, label__isnull=False)
    return (
        labeled.exclude(label__in=retired.values("pk"))
        .exclude(item__in=decided.values("item"))
        .exclude(item__in=asked.values("item"))
    )


def conclude(sample: Sample) -> Threshold | None:
    """Put the proven threshold of a closed calibration sample into force, once; None where nothing is proven.

    Nothing is decided here: one exact test, fixed before the draw, says which threshold it is. Does nothing when
    another threshold took force meanwhile.
    """
    with transaction.atomic():
        if is_concluded(sample):
            return Threshold.objects.filter(sample=sample).order_by("pk").first()
        now = thresholds.in_force(sample.dataset)
        if now is None or sample.closed_at is None:
            return None
        # While it was open nothing could take force; so these are no clocks of different machines.
        still = now.run_id == sample.run_id and now.at <= sample.closed_at
        proven = result(sample).rank if still else None
        record(None, sample.dataset, CONCLUDED, sample=sample.pk)
        if proven is None:
            return None
        return thresholds.move(sample.dataset, proven, None, sample=sample)


def is_concluded(sample: Sample) -> bool:
    """Whether it was looked at, the one time that it may be."""
    told = AuditEvent.objects.filter(dataset=sample.dataset_id, action=CONCLUDED)
    return told.filter(detail={"sample": sample.pk}).exists()


def last_drawn(goal: Goal) -> Sample | None:
    """The calibration sample of a goal that was drawn last, with its run; it may be open, or discarded."""
    drawn = goal.dataset.samples.filter(purpose=Purpose.CALIBRATION, drawn_at__gte=goal.at)
    return drawn.select_related("run").order_by("-pk").first()


def failed_attempts(goal: Goal) -> list[Sample]:
    """The closed calibration samples of a goal that proved nothing, oldest first."""
    closed = goal.dataset.samples.filter(
        purpose=Purpose.CALIBRATION, closed_at__isnull=False, drawn_at__gte=goal.at, thresholds=None
    )
    return list(closed.order_by("pk"))
