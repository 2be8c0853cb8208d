"""What a manager concludes from a closed sample, and the certificate that may follow."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.db import transaction

from datasets.models import record
from labelhub.autolabel import buckets, certify, monitor
from reviews import certificates
from reviews.models import Certificate, Decision, Outcome, Purpose, Sample, SampleItem, Verdict
from reviews.samples import Count, count, evidence
from reviews.states import states
from reviews.thresholds import SampleIsOpen, check_no_sample
from reviews.validity import proven_threshold, void_since, why_void

if TYPE_CHECKING:
    from django.contrib.auth.models import User


@dataclass(frozen=True)
class Summary:
    """One draw, as listed: figures only once it is closed."""

    sample: Sample
    seen: Count | None
    accuracy: buckets.Estimate | None
    proven: bool
    alarm: bool
    verdict: Verdict | None
    certificate: Certificate | None
    void: str  # why the certificate no longer holds


def summary(sample: Sample) -> Summary:
    """Return what may be told about a draw; nothing about agreement while it is open (E7)."""
    verdict = Verdict.objects.filter(sample=sample).select_related("by").first()
    certificate = Certificate.objects.filter(sample=sample).first()
    if sample.closed_at is None:
        return Summary(sample, None, None, False, False, verdict, certificate, "")
    seen = count(sample)
    accuracy = buckets.accuracy(
        known=0, known_errors=0, remainder=sample.pool, sampled=sample.size, sample_errors=seen.errors
    )
    void = why_void(certificate) if certificate else ""
    return Summary(
        sample, seen, accuracy, proves(sample, seen), alarms(sample, seen), verdict, certificate, void
    )


def differences(sample: Sample) -> list[tuple[SampleItem, Decision]]:
    """The items of a closed sample that people answered otherwise than the machine."""
    return [
        (drawn, answer)
        for drawn, answer in evidence(sample)
        if answer is not None
        and (answer.outcome != Outcome.LABEL or answer.label_id != drawn.machine_label_id)
    ]


def reading(sample: Sample, seen: Count) -> monitor.Reading:
    """What the answers so far have shown; may be read after every answer without spoiling the sample (E12).

    It is for display: a certificate rests on the exact test of the complete sample alone.
    """
    return monitor.read(
        pool=sample.pool, checked=seen.answered, errors=seen.errors, budget=sample.budget, alpha=sample.alpha,
        target_error=sample.target_error,
    )  # fmt: skip


def alarms(sample: Sample, seen: Count) -> bool:
    """Whether the answers so far are strong evidence that the target is missed.

    Never those of a calibration sample: its pool holds the items below the threshold too.
    """
    if sample.purpose == Purpose.CALIBRATION:
        return False
    log_evidence = monitor.log_evidence_alarm(
        pool=sample.pool, budget=sample.budget, checked=seen.answered, errors=seen.errors,
        target_error=sample.target_error,
    )  # fmt: skip
    return bool(log_evidence >= math.log(1 / sample.alpha))


def proves(sample: Sample, seen: Count) -> bool:
    """Whether a complete sample proves the target: for the accepted labels, or from some threshold on."""
    if sample.purpose == Purpose.CALIBRATION:
        return proven_threshold(sample) is not None
    return seen.complete and seen.errors <= sample.allowed_errors


class CannotApprove(Exception):
    """The verdict cannot be given; the message says why."""


def approve(sample: Sample, by: User, reason: str = "") -> Verdict:
    """Accept what a closed sample says of the labels; with enough evidence a certificate is issued with it.

    A spot check that proves nothing may be approved too, without a certificate. A calibration sample is approved only
    when the whole dataset has its labels: the promise is about all of them (E4).
    Raises: CannotApprove, with a sentence that says what to do first.
    """
    seen = count(sample)
    if sample.superseded_at is not None:
        raise CannotApprove("This sample was discarded. Draw a new one.")
    if sample.closed_at is None:
        raise CannotApprove(f"{sample.size - seen.answered} of {sample.size} items have no answer yet.")
    if alarms(sample, seen):
        raise CannotApprove(
            f"{seen.errors} of {sample.size} were wrong: too many for a target of "
            f"{sample.target_error:.0%} errors. Raise the threshold and check again."
        )
    if not proves(sample, seen):
        if sample.purpose == Purpose.CALIBRATION:
            raise CannotApprove("This sample proves no threshold, so there is nothing to certify.")
        _check(sample)
        with transaction.atomic():
            return _conclude(sample, by, True, reason)
    # The file is hashed before the transaction, for a long one would keep everybody else from writing; if an answer
    # came meanwhile it is hashed again, and at the third time with everybody waiting.
    for patient in (True, True, False):
        before = certificates.last_facts(sample.dataset)
        found = _evidence(sample, seen) if patient else None
        with transaction.atomic():
            if patient and certificates.last_facts(sample.dataset) != before:
                continue
            verdict = _conclude(sample, by, True, reason)
            certificates.issue(sample, found or _evidence(sample, seen), by)
            return verdict
    raise AssertionError("the third round always ends")


def _check(sample: Sample) -> None:
    """Raise CannotApprove where the labels of now are not those that the sample was drawn from."""
    try:
        check_no_sample(sample.dataset)
    except SampleIsOpen as error:
        raise CannotApprove(f"Finish or discard the other sample first. {error}") from error
    gone = void_since(sample)
    if gone:
        raise CannotApprove(f"{gone} What was checked is not what is accepted now: draw a fresh sample.")


def _evidence(sample: Sample, seen: Count) -> dict[str, Any]:
    """What a certificate is issued with. Raises: CannotApprove where none can be, now."""
    _check(sample)
    whole = sample.purpose == Purpose.CALIBRATION
    if whole:
        now = states(sample.dataset)
        if now.flagged:
            are = "flagged item is" if now.flagged == 1 else "flagged items are"
            raise CannotApprove(f"The promise will hold once the {now.flagged:,} {are} decided.")
        if now.pending:
            raise CannotApprove(f"{now.pending:,} items have neither the machine's label nor a person's.")
    found = certificates.evidence_of(sample, seen)
    if whole:
        _check_whole(sample, found)
    return found


def _check_whole(sample: Sample, found: dict[str, Any]) -> None:
    """Raise CannotApprove where the labels that stand are too few for the budget (E4) or for the floor."""
    most = certify.tolerated(found["labels"], sample.target_error)
    if sample.budget > most:
        raise CannotApprove(
            f"Up to {sample.budget:,} labels may be wrong, but the promise allows {most:,} in a file of "
            f"{found['labels']:,}: {found['items'] - found['labels']:,} items have no label. Label some of them first."
        )
    floor = sample.floor_error
    if floor is not None and found["above_threshold"] < certify.least_accepted(sample.budget, floor):
        raise CannotApprove(
            "Too few labels stand above the proven threshold to promise how many of them are right."
        )


def reject(sample: Sample, by: User, reason: str = "") -> Verdict:
    """Turn the checked labels down; the manager then raises the threshold or reviews more.

    Raises: CannotApprove while the sample is open, after another verdict, and for a calibration sample.
    """
    if sample.purpose == Purpose.CALIBRATION:
        raise CannotApprove("This sample proves a threshold or it does not; there is nothing to reject.")
    if sample.closed_at is None:
        raise CannotApprove("This sample is not finished. Discard it instead.")
    with transaction.atomic():
        return _conclude(sample, by, False, reason)


def _conclude(sample: Sample, by: User, approved: bool, reason: str) -> Verdict:
    if Verdict.objects.filter(sample=sample).exists():
        raise CannotApprove("This sample already has its verdict.")
    what = "calibration" if sample.purpose == Purpose.CALIBRATION else "spot check"
    record(by, sample.dataset, f"{what} {'approved' if approved else 'rejected'}", sample=sample.pk)
    return Verdict.objects.create(sample=sample, approved=approved, by=by, reason=reason)
