"""Drawing a random sample, answering it blind, and concluding from it.

A sample is frozen when it is drawn: seed, pool, order and test are stored with it. Nothing
about agreement is told to the people who answer until the last answer is in.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from django.db import connection, transaction
from django.db.models import Exists, OuterRef, Subquery
from django.utils import timezone

from datasets.bulk import insert_rows
from datasets.models import AuditEvent, Dataset, Prediction, PredictionQuerySet, record
from labelhub.autolabel import certify, sampling
from reviews.decisions import settle
from reviews.models import (
    Claim,
    Decision,
    Outcome,
    Purpose,
    Sample,
    SampleItem,
    Threshold,
)
from reviews.thresholds import accepted, check_no_sample, in_force, open_sample

if TYPE_CHECKING:
    from django.contrib.auth.models import User

TEACH_ITEMS = 50  # random items that a dataset without any label asks for first (E18)
ENOUGH_TO_LEARN = 20
LOOK_EVERY = 10  # answers between two looks at the counts (E7)
EVIDENCE = (Purpose.CALIBRATION, Purpose.SPOT_CHECK)


class NothingToDraw(Exception):
    """The pool is empty; the message says what to do."""


@dataclass(frozen=True)
class Plan:
    """What a spot check would ask for, and what it could show."""

    pool: int
    size: int
    attempt: int  # 1, 2, … of the evidential samples; 0 for one that teaches, or checks what is proven
    alpha: float
    budget: int  # wrong labels that the target tolerates in the pool
    allowed_errors: int  # -1 where the sample cannot prove anything
    target_error: float
    floor_error: float | None = None  # of a calibration


@dataclass(frozen=True)
class Count:
    """How the answers of a sample compare with the frozen machine labels."""

    size: int
    answered: int
    errors: int  # wrong, or nobody could tell
    cant_tell: int

    @property
    def complete(self) -> bool:
        """Whether every item has its answer."""
        return self.answered == self.size


def plan(dataset: Dataset, pool: int) -> Plan:
    """Return the terms of the next spot check of a pool of at least one item (E3, E12).

    The size is such that one error can still pass at the alpha that this attempt is tested at. Where a calibration
    sample has proven the threshold already, the check proves nothing more and costs no alpha: it can only raise the
    alarm, if more labels are wrong than that sample's budget allows.
    """
    now = in_force(dataset)
    if now is not None and now.sample is not None:
        budget = min(now.sample.budget, pool - 1)
        share = max(budget / pool, 1 / pool)
        size = sampling.spot_check_size(pool, share, dataset.alpha, dataset.check_share)
        return Plan(pool, size, 0, dataset.alpha, budget, -1, share)
    attempt, alpha = next_attempt(dataset)
    size = sampling.spot_check_size(pool, dataset.target_error, alpha, dataset.check_share)
    budget = certify.tolerated(pool, dataset.target_error)
    allowed = certify.most_errors_allowed(pool, budget, size, alpha)
    return Plan(pool, size, attempt, alpha, budget, allowed, dataset.target_error)


def next_attempt(dataset: Dataset) -> tuple[int, float]:
    """The number of the next evidential sample and its share of alpha (E3)."""
    attempt = 1 + dataset.samples.filter(attempt__gt=0).count()
    return attempt, certify.attempt_alpha(dataset.alpha, attempt)


def draw_spot_check(dataset: Dataset, threshold: Threshold, by: User) -> Sample:
    """Draw a blind spot check from everything that is accepted now.

    Raises: NothingToDraw when nothing is accepted; SampleIsOpen while another is answered.
    """
    return draw(threshold, Purpose.SPOT_CHECK, accepted(threshold), lambda pool: plan(dataset, pool), by)


def draw_to_teach(dataset: Dataset, threshold: Threshold, by: User | None, size: int = TEACH_ITEMS) -> Sample:
    """Draw random items to label before anything is learned (E18)."""
    pool = Prediction.objects.filter(run=threshold.run_id, open=True)

    def terms(n: int) -> Plan:
        return Plan(n, min(size, n), 0, dataset.alpha, 0, -1, dataset.target_error)

    return draw(threshold, Purpose.TRAINING, pool, terms, by)


def draw(
    threshold: Threshold,
    purpose: str,
    pool: PredictionQuerySet,
    terms_of: Callable[[int], Plan],
    by: User | None,
) -> Sample:
    """Freeze a pool of predictions of the run in force, and draw a sample from it.

    Args:
        threshold: the one in force.
        purpose: the lane that the sample is answered in.
        pool: what it is drawn from.
        terms_of: size and test of the sample, from the size of the pool.
        by: who asked for it.
    Raises: NothingToDraw when the pool is empty; SampleIsOpen while another is answered.
    """
    dataset = threshold.dataset
    with transaction.atomic():
        check_no_sample(dataset)
        rows = list(pool.order_by("item").values_list("item", "rank", "label", "label__name"))
        if not rows:
            raise NothingToDraw("Nothing is accepted yet, so there is nothing to check.")
        terms = terms_of(len(rows))
        seed = secrets.randbits(128)
        order = sampling.draw(seed, [row[0] for row in rows], terms.size)
        sample = Sample.objects.create(
            dataset=dataset,
            run_id=threshold.run_id,
            purpose=purpose,
            threshold=threshold.rank if purpose == Purpose.SPOT_CHECK else 0,
            seed=f"{seed:032x}",
            pool=terms.pool,
            pool_hash=sampling.pool_hash(
                (row[0] for row in rows), (row[1] for row in rows), (row[3] or "" for row in rows)
            ),
            size=terms.size,
            attempt=terms.attempt,
            target_error=terms.target_error,
            floor_error=terms.floor_error,
            alpha=terms.alpha,
            budget=terms.budget,
            allowed_errors=terms.allowed_errors,
            drawn_by=by,
        )
        frozen = {item: (rank, label) for item, rank, label, _ in rows}
        insert_rows(
            SampleItem,
            ("sample_id", "item_id", "place", "machine_rank", "machine_label_id"),
            ((sample.pk, item, place, *frozen[item]) for place, item in enumerate(order, 1)),
        )
        settle(dataset.pk, order)
        # Whoever has such an item on screen in another lane would keep it from this one for ten minutes.
        Claim.objects.filter(dataset=dataset, item__in=sample.drawn.values("item")).delete()
        record(
            by, dataset, "sample drawn", sample=sample.pk, purpose=purpose, seed=sample.seed, size=sample.size
        )
    return sample


def evidence(sample: Sample) -> list[tuple[SampleItem, Decision | None]]:
    """Each drawn item with its first answer that nobody took back before closing (E7)."""
    revoked = Decision.objects.filter(revokes=OuterRef("pk"))
    if sample.closed_at is not None:
        revoked = revoked.filter(decided_at__lte=sample.closed_at)
    first = (
        Decision.objects.exclude(outcome=Outcome.UNDO)
        .filter(~Exists(revoked), sample=OuterRef("sample"), item=OuterRef("item"))
        .order_by("pk")
        .values("pk")[:1]
    )
    drawn = list(
        SampleItem.objects.filter(sample=sample)
        .annotate(answer=Subquery(first))
        .select_related("machine_label", "item")
    )
    answers = Decision.objects.in_bulk([d.answer for d in drawn if d.answer])
    return [(d, answers.get(d.answer)) for d in drawn]


def count(sample: Sample) -> Count:
    """Count answers and errors of a sample in one statement.

    "Can't tell" is wrong (E13). What is taken back after closing stays evidence (E7).
    """
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT count(*),
                count(d.id),
                coalesce(sum(CASE WHEN d.id IS NOT NULL AND (d.outcome <> 'label'
                    OR si.machine_label_id IS NULL OR d.label_id <> si.machine_label_id) THEN 1 ELSE 0 END), 0),
                coalesce(sum(CASE WHEN d.outcome = 'cant_tell' THEN 1 ELSE 0 END), 0)
            FROM reviews_sampleitem si
            JOIN reviews_sample s ON s.id = si.sample_id
            LEFT JOIN reviews_decision d ON d.id = (
                SELECT min(f.id) FROM reviews_decision f
                WHERE f.sample_id = si.sample_id AND f.item_id = si.item_id AND f.outcome <> 'undo'
                AND NOT EXISTS (SELECT 1 FROM reviews_decision r WHERE r.revokes_id = f.id
                    AND (s.closed_at IS NULL OR r.decided_at <= s.closed_at)))
            WHERE si.sample_id = %s""",
            [sample.pk],
        )
        return Count(*(int(value) for value in cursor.fetchone()))


def close_when_answered(sample: Sample) -> bool:
    """Close a sample whose last item was just answered; True when this call closed it."""
    with transaction.atomic():
        if not count(sample).complete:
            return False
        closed = Sample.objects.open().filter(pk=sample.pk)
        if closed.update(closed_at=timezone.now()) == 0:
            return False
        settle(sample.dataset_id, sample.drawn.values_list("item", flat=True))
        record(None, sample.dataset, "sample closed", sample=sample.pk, purpose=sample.purpose)
    return True


def discard(dataset: Dataset, by: User) -> Sample | None:
    """End the open sample without a verdict. It stays listed, and its answers stay decisions."""
    with transaction.atomic():
        sample = open_sample(dataset)
        if sample is None:
            return None
        sample.superseded_at = timezone.now()
        sample.save(update_fields=["superseded_at"])
        settle(dataset.pk, sample.drawn.values_list("item", flat=True))
        record(by, dataset, "sample discarded", sample=sample.pk, purpose=sample.purpose)
    return sample


def look(sample: Sample, user: User) -> Count:
    """Show the counts so far to a manager, who may not answer this sample any more (E7).

    The counts move in steps of ten answers, so that no single answer can be read off.
    """
    AuditEvent.objects.get_or_create(
        user=user, dataset=sample.dataset, action="sample looked at", detail={"sample": sample.pk}
    )
    whole = count(sample)
    if whole.complete:
        return whole
    seen = whole.answered - whole.answered % LOOK_EVERY
    first = [answer for _, answer in evidence(sample)]
    ordered = sorted((d for d in first if d), key=lambda d: d.pk)[:seen]
    labels = dict(sample.drawn.values_list("item", "machine_label"))
    wrong = sum(d.outcome != Outcome.LABEL or d.label_id != labels[d.item_id] for d in ordered)
    return Count(sample.size, seen, wrong, sum(d.outcome == Outcome.CANT_TELL for d in ordered))


def has_looked(sample: Sample, user: User) -> bool:
    """Whether this manager saw counts of the open sample."""
    return AuditEvent.objects.filter(
        user=user, dataset=sample.dataset_id, action="sample looked at", detail={"sample": sample.pk}
    ).exists()
