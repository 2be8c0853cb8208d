"""Storing what a reviewer says, and taking it back.

Nothing is overwritten: a change and an undo are rows of their own, and the answer in force
is the oldest that nobody took back.
"""

from __future__ import annotations

import uuid as uuids
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from django.db import IntegrityError, connection, transaction
from django.db.models import Q
from django.utils import timezone

from datasets.models import Dataset, Item, Label, Prediction
from reviews.models import Claim, Decision, Outcome, Purpose, Remark, Sample, SampleItem, Threshold

if TYPE_CHECKING:
    from django.contrib.auth.models import User

LONGEST_SECONDS = 3600.0  # beyond this nobody was reading


class Conflict(Exception):
    """The same UUID was sent before with another answer; the first one stands."""


class NotAllowed(Exception):
    """The answer cannot be taken; the message says why."""


@dataclass(frozen=True)
class Stored:
    """What became of an answer: new, repeated, changed or extra, and the answer in force."""

    decision: Decision
    kind: str  # "current" | "extra" | "repeat"
    current: Decision | None


# ``open`` as a fact of SQL: given, copies, excluded, decided and drawn items are not free.
_SETTLE = """
UPDATE datasets_prediction SET open = (
    NOT EXISTS (SELECT 1 FROM reviews_decision d WHERE d.item_id = datasets_prediction.item_id
                AND d.outcome <> 'undo'
                AND NOT EXISTS (SELECT 1 FROM reviews_decision r WHERE r.revokes_id = d.id))
    AND NOT EXISTS (SELECT 1 FROM reviews_sampleitem si JOIN reviews_sample s ON s.id = si.sample_id
                    WHERE si.item_id = datasets_prediction.item_id
                    AND s.closed_at IS NULL AND s.superseded_at IS NULL)
    AND EXISTS (SELECT 1 FROM datasets_item i WHERE i.id = datasets_prediction.item_id
                AND i.given_label_id IS NULL AND i.same_as_id IS NULL AND i.excluded IS NULL)
) WHERE item_id IN ({items}) AND run_id IN (SELECT id FROM datasets_run WHERE dataset_id = %s)
"""


def settle(dataset_id: int, item_ids: Iterable[int]) -> None:
    """Bring ``Prediction.open`` of these items up to date: the only writer of that cache."""
    ids = list(item_ids)
    with connection.cursor() as cursor:
        for start in range(0, len(ids), 500):
            part = ids[start : start + 500]
            sql = _SETTLE.format(items=",".join(["%s"] * len(part)))
            cursor.execute(sql, [*part, dataset_id])


def machine_says(dataset: Dataset, item_id: int) -> Prediction | None:
    """The prediction of the run in force for an item, if there is one."""
    latest = Threshold.objects.filter(dataset=dataset).order_by("-pk").values("run")[:1]
    return Prediction.objects.filter(run=latest, item=item_id).select_related("label").first()


def decide(
    item: Item,
    reviewer: User,
    outcome: str,
    label: Label | None = None,
    uuid: uuids.UUID | None = None,
    note: str = "",
    seconds: float | None = None,
) -> Stored:
    """Store one answer, once, and free the claim.

    Purpose, sample and whether the machine's label was shown come from the claim, never from
    the caller. A second person's answer to a decided item is kept as an extra vote; the same
    person's is a change of the first.

    Raises: Conflict when the UUID was used for another answer; NotAllowed when the outcome
        and the label do not fit together or the label is not one of the dataset's.
    """
    if (outcome == Outcome.LABEL) != (label is not None) or outcome == Outcome.UNDO:
        raise NotAllowed("An answer is a label, “can't tell” or “leave out”.")
    if label is not None and label.dataset_id != item.dataset_id:
        raise NotAllowed("That label belongs to another dataset.")
    uuid = uuid or uuids.uuid4()
    try:
        with transaction.atomic():
            known = Decision.objects.filter(uuid=uuid).first()
            if known is not None:
                return _repeat(known, item, reviewer, outcome, label)
            return _store(item, reviewer, outcome, label, uuid, note, seconds)
    except IntegrityError:  # the same answer sent twice at once: the other copy won
        known = Decision.objects.filter(uuid=uuid).first()
        if known is None:
            raise
        return _repeat(known, item, reviewer, outcome, label)


def _repeat(known: Decision, item: Item, reviewer: User, outcome: str, label: Label | None) -> Stored:
    same = (known.item_id, known.reviewer_id, known.outcome, known.label_id)
    if same != (item.pk, reviewer.pk, outcome, label.pk if label else None):
        raise Conflict("This answer was already sent with other contents; the first one stands.")
    return Stored(known, "repeat", current(item.pk))


def _store(
    item: Item,
    reviewer: User,
    outcome: str,
    label: Label | None,
    uuid: uuids.UUID,
    note: str,
    seconds: float | None,
) -> Stored:
    claim = Claim.objects.filter(item=item, user=reviewer).first()
    standing = list(Decision.objects.answers().filter(item=item).order_by("pk"))
    own = next((d for d in standing if d.reviewer_id == reviewer.pk), None)
    prediction = machine_says(Dataset(pk=item.dataset_id), item.pk)
    drawn = open_draw(item.pk)
    if drawn is not None and (claim is None or claim.sample_id != drawn.sample_id):
        raise NotAllowed("This item is part of an open sample and is answered there.")
    now = timezone.now()
    if seconds is None and claim is not None:  # no script on the page: the claim's age is the best there is
        seconds = (now - claim.claimed_at).total_seconds()
    decision = Decision.objects.create(
        uuid=uuid,
        dataset_id=item.dataset_id,
        item=item,
        reviewer=reviewer,
        purpose=claim.purpose if claim else Purpose.REVIEW,
        outcome=outcome,
        label=label,
        revokes=own,
        run_id=prediction.run_id if prediction else None,
        machine_label_id=prediction.label_id if prediction else None,
        machine_rank=prediction.rank if prediction else None,
        showed_machine=claim.showed_machine if claim else True,
        sample=claim.sample if claim else None,
        seconds=None if seconds is None else min(max(seconds, 0.0), LONGEST_SECONDS),
        note=note,
        decided_at=now,
    )
    settle(item.dataset_id, [item.pk])
    if claim is not None:  # after settle: whoever claims locks the prediction first and the claim then, too
        claim.delete()
    others = [d for d in standing if d is not own]
    return Stored(decision, "extra" if others else "current", others[0] if others else decision)


def open_draw(item_id: int) -> SampleItem | None:
    """The place of an item in a sample that is being answered, if it was drawn into one."""
    return SampleItem.objects.filter(item=item_id, sample__in=Sample.objects.open()).first()


def current(item_id: int) -> Decision | None:
    """The answer in force of one item."""
    return Decision.objects.answers().filter(item=item_id).select_related("label").order_by("pk").first()


def undo(
    dataset: Dataset, reviewer: User, within: Sample | None = None, uuid: uuids.UUID | None = None
) -> Decision | None:
    """Take back this person's latest answer: of an open sample, or of the queue.

    Answers of a sample that is closed are evidence: only ``uuid``, which names one answer,
    reaches them.
    Returns: the decision that was taken back, or None when there is none left.
    """
    with transaction.atomic():
        mine = Decision.objects.answers().filter(dataset=dataset, reviewer=reviewer)
        if uuid is not None:
            mine = mine.filter(uuid=uuid)
        elif within is not None:
            mine = mine.filter(sample=within)
        else:
            taught = Q(sample__purpose=Purpose.TRAINING, sample__closed_at__isnull=False)
            mine = mine.filter(Q(sample=None) | Q(sample__superseded_at__isnull=False) | taught)
        last = mine.select_related("item", "label", "sample").order_by("-pk").first()
        if last is None:
            return None
        Decision.objects.create(
            dataset=dataset,
            item=last.item,
            reviewer=reviewer,
            purpose=last.purpose,
            outcome=Outcome.UNDO,
            revokes=last,
            run_id=last.run_id,
            machine_label_id=last.machine_label_id,
            machine_rank=last.machine_rank,
            showed_machine=last.showed_machine,
            sample_id=last.sample_id,
            decided_at=timezone.now(),
        )
        settle(dataset.pk, [last.item_id])
    return last


def remark(item: Item, user: User, kind: str, text: str = "") -> Remark:
    """Keep a skip, a question for the manager or a note; skip and question free the claim."""
    with transaction.atomic():
        said = Remark.objects.create(item=item, dataset_id=item.dataset_id, user=user, kind=kind, text=text)
        if kind != Remark.Kind.NOTE:
            Claim.objects.filter(item=item, user=user).delete()
    return said
