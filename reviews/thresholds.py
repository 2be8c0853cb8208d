"""The threshold in force: one row, and every item stands on its other side of it at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from django.db import transaction
from django.utils import timezone

from datasets.models import Dataset, Prediction, PredictionQuerySet, Run, record
from labelhub.autolabel.rank import ACCEPT_NOTHING, to_rank
from reviews.models import Goal, Remark, Sample, Threshold

if TYPE_CHECKING:
    from django.contrib.auth.models import User

BY_HAND = 0.85  # where a dataset starts


class SampleIsOpen(Exception):
    """A sample is being answered; the message says how to go on."""


@dataclass(frozen=True)
class Move:
    """What another threshold would change, in items."""

    accepted: int
    flagged: int
    newly_accepted: int
    newly_flagged: int


def in_force(dataset: Dataset) -> Threshold | None:
    """The latest threshold row names the run and the rank in force; nothing else does."""
    rows = Threshold.objects.filter(dataset=dataset).select_related("dataset", "run__version", "sample")
    return rows.defer("run__version__state", "run__version__examples").order_by("-pk").first()


def typed_rank(text: str) -> int:
    """Turn what a person typed, such as 0.85, “0,85” or 85 %, into a rank.

    Raises: ValueError with a sentence for people.
    """
    typed = text.strip().replace(",", ".")
    try:
        value = float(typed.rstrip("% ")) / (100 if typed.endswith("%") else 1)
        return to_rank(value)
    except ValueError:
        raise ValueError("A threshold is a number from 0 to 1, for example 0.85.") from None


def open_sample(dataset: Dataset) -> Sample | None:
    """The sample that is being answered, if there is one."""
    return Sample.objects.open().filter(dataset=dataset).first()


def accepted(threshold: Threshold, rank: int | None = None) -> PredictionQuerySet:
    """What stands unseen at a threshold, or at another rank: no manager was asked about it."""
    asked = Remark.objects.filter(dataset=threshold.dataset_id, kind=Remark.Kind.ASK).values("item")
    stands = Prediction.objects.filter(run=threshold.run_id).accepted(
        threshold.rank if rank is None else rank
    )
    return stands.exclude(item__in=asked)


def preview(now: Threshold, rank: int) -> Move:
    """Count what moving the threshold would change; nothing is written."""
    low, high = sorted((now.rank, rank))
    between = accepted(now, low).filter(rank__lt=high).count()
    stand = accepted(now, rank).count()
    return Move(
        accepted=stand,
        flagged=Prediction.objects.filter(run=now.run_id, open=True).count() - stand,
        newly_accepted=between if rank < now.rank else 0,
        newly_flagged=between if rank > now.rank else 0,
    )


def move(
    dataset: Dataset, rank: int, by: User | None, run: Run | None = None, sample: Sample | None = None
) -> Threshold:
    """Put a rank, and with ``run`` another run, into force by adding one row; ``sample`` is what proved it.

    A threshold that was raised stays proven. A person who sets any other one leaves the goal, if there is one.

    Raises: SampleIsOpen while people are answering a sample (E2).
    """
    with transaction.atomic():
        check_no_sample(dataset)
        before = in_force(dataset)
        run = run or (before.run if before else None)
        if run is None:
            raise ValueError("There is no run yet that a threshold could belong to.")
        raised = before is not None and run.pk == before.run_id and before.rank <= rank < ACCEPT_NOTHING
        if sample is None and raised and before is not None:
            sample = before.sample
        if by is not None and sample is None and rank < ACCEPT_NOTHING:
            leave_goal(dataset, by)
        now = Threshold.objects.create(
            dataset=dataset, run=run, rank=min(max(rank, 0), ACCEPT_NOTHING), by=by, sample=sample
        )
        record(
            by, dataset, "threshold",
            run=now.run.number, rank=now.rank, before=before.rank if before else None,
        )  # fmt: skip
    return now


def leave_goal(dataset: Dataset, by: User | None) -> bool:
    """Go by hand from now on; False when the threshold did so already."""
    left = Goal.objects.active().filter(dataset=dataset).update(left_at=timezone.now())
    if left:
        record(by, dataset, "goal left")
    return bool(left)


def undo_move(dataset: Dataset, by: User) -> Threshold | None:
    """Return to the threshold before the latest, by adding a row; None when there is none."""
    latest = list(Threshold.objects.filter(dataset=dataset).order_by("-pk")[:2])
    if len(latest) < 2:
        return None
    return move(dataset, latest[1].rank, by, run=latest[1].run, sample=latest[1].sample)


def check_no_sample(dataset: Dataset) -> None:
    """Raise SampleIsOpen while a sample is being answered."""
    sample = open_sample(dataset)
    if sample is not None:
        given = sample.decisions.answers().count()
        raise SampleIsOpen(
            f"A sample of {sample.size:,} item{'s' * (sample.size != 1)} is being answered: finish it, or discard its "
            f"{given:,} answer{'s' * (given != 1)}."
        )
