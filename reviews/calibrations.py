"""The calibration sample: it proves the lowest threshold that keeps a promise about the whole dataset."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from django.db import transaction

from datasets.labeling import free_items
from datasets.models import Prediction
from labelhub.autolabel import certify, loop
from reviews import samples, thresholds
from reviews.models import Goal, Outcome, Purpose, Sample, SampleItem, Threshold

if TYPE_CHECKING:
    from django.contrib.auth.models import User

SENTENCES = {
    "sample": "The pool is too small: no sample of it could prove the promise.",
    "errors": "The machine was wrong about items that it was surest of, so no threshold is proven.",
    "floor": "Too few labels stand above the proven threshold to promise how many of them are right.",
}


class NothingToPlan(Exception):
    """No sample could prove the promise now; the message says why."""


@dataclass(frozen=True)
class Result:
    """What a closed calibration sample says.

    ``rank``: lowest threshold that is proven, None where none is. ``accepted``: labels that stand at it unseen;
    ``needed``: how many the floor asks for. ``problem``: a key of SENTENCES, or empty.
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


def position(goal: Goal, threshold: Threshold, attempt_alpha: float, costs: list[float]) -> loop.Position:
    """Where the loop stands now: what is open in the run in force, and the terms of the goal."""
    dataset = goal.dataset
    ranks = list(thresholds.accepted(threshold, 0).values_list("rank", flat=True))
    items = free_items(dataset).count()
    budget = certify.budget(items, goal.target_error)
    return loop.Position(loop.chances(ranks), items, budget, attempt_alpha, goal.floor_error, costs)


def draw(goal: Goal, by: User | None) -> Sample:
    """Freeze the run in force and draw the sample that its plan asks for, from everything that is open.

    Raises: NothingToPlan where no sample could prove the promise; samples.NothingToDraw; thresholds.SampleIsOpen.
    """
    dataset = goal.dataset
    with transaction.atomic():
        now = thresholds.in_force(dataset)
        if now is None:
            raise samples.NothingToDraw("No run has labeled anything yet.")
        attempt, alpha = samples.next_attempt(dataset)
        where = position(goal, now, alpha, [])
        _, chosen = where.judge()
        if chosen is None:
            raise NothingToPlan(
                "No sample could prove the promise with the labels as they are: answer more items first, or promise less."
            )

        def terms(pool: int) -> samples.Plan:
            allowed = certify.allowed_errors(pool, chosen.sample, chosen.budget, alpha)
            return samples.Plan(
                pool,
                chosen.sample,
                attempt,
                alpha,
                chosen.budget,
                allowed,
                goal.target_error,
                goal.floor_error,
            )

        return samples.draw(now, Purpose.CALIBRATION, thresholds.accepted(now, 0), terms, by)


def wrong_ranks(sample: Sample) -> list[int]:
    """Ranks of the sampled items whose machine label people did not confirm, by their first answers."""
    return [
        drawn.machine_rank
        for drawn, answer in samples.evidence(sample)
        if answer is None or answer.outcome != Outcome.LABEL or answer.label_id != drawn.machine_label_id
    ]


def result(sample: Sample) -> Result:
    """Return what a closed calibration sample proves; ``accepted`` counts what is open now."""
    seen = samples.count(sample)
    needed = certify.least_accepted(sample.budget, sample.floor_error) if sample.floor_error else 1
    if sample.allowed_errors < 0:
        return Result(seen, None, 0, needed, "sample")
    rank = certify.certified_threshold(wrong_ranks(sample), sample.allowed_errors)
    stands = Prediction.objects.filter(run=sample.run_id, open=True, rank__gte=rank, label__isnull=False)
    drawn = SampleItem.objects.filter(sample=sample).values("item")
    accepted = stands.exclude(item__in=drawn).count()
    if not accepted:
        return Result(seen, None, 0, needed, "errors")
    if accepted < needed:
        return Result(seen, None, accepted, needed, "floor")
    return Result(seen, rank, accepted, needed, "")


def conclude(sample: Sample) -> Threshold | None:
    """Put the proven threshold of a closed calibration sample into force, once; None where nothing is proven.

    Nothing is decided here: one exact test, fixed before the draw, says which threshold it is. Does nothing when
    another threshold took force since the draw.
    """
    with transaction.atomic():
        known = Threshold.objects.filter(sample=sample).first()
        now = thresholds.in_force(sample.dataset)
        if known is not None or now is None or now.at > sample.drawn_at or now.run_id != sample.run_id:
            return known
        proven = result(sample)
        if proven.rank is None:
            return None
        return thresholds.move(sample.dataset, proven.rank, None, sample=sample)


def failed_attempts(goal: Goal) -> list[Sample]:
    """The closed calibration samples of a goal that proved nothing, oldest first."""
    closed = goal.dataset.samples.filter(
        purpose=Purpose.CALIBRATION, closed_at__isnull=False, drawn_at__gte=goal.at, thresholds=None
    )
    return list(closed.order_by("pk"))
