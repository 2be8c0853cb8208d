"""What a manager concludes from a closed sample, and the certificate that may follow."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from django.db import transaction

from datasets.models import record
from labelhub.autolabel import buckets, monitor
from reviews import certificates
from reviews.models import Certificate, Decision, Outcome, Sample, SampleItem, Verdict
from reviews.samples import Count, count, evidence
from reviews.thresholds import SampleIsOpen, check_no_sample
from reviews.validity import void_since, why_void

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
    """Whether the answers so far are strong evidence that the target is missed."""
    log_evidence = monitor.log_evidence_alarm(
        pool=sample.pool, budget=sample.budget, checked=seen.answered, errors=seen.errors,
        target_error=sample.target_error,
    )  # fmt: skip
    return bool(log_evidence >= math.log(1 / sample.alpha))


def proves(sample: Sample, seen: Count) -> bool:
    """Whether a complete sample proves the target for the accepted labels."""
    return seen.complete and seen.errors <= sample.allowed_errors


class CannotApprove(Exception):
    """The verdict cannot be given; the message says why."""


def approve(sample: Sample, by: User, reason: str = "") -> Verdict:
    """Accept the checked labels; with enough evidence a certificate is issued with it.

    Raises: CannotApprove while answers are missing or another sample is open, on an alarm, after another verdict,
        or where what was checked is not what is accepted now.
    """
    seen = count(sample)
    if sample.superseded_at is not None:
        raise CannotApprove("This spot check was discarded. Draw a new one.")
    if sample.closed_at is None:
        raise CannotApprove(f"{sample.size - seen.answered} of {sample.size} items have no answer yet.")
    if alarms(sample, seen):
        raise CannotApprove(
            f"{seen.errors} of {sample.size} were wrong: too many for a target of "
            f"{sample.target_error:.0%} errors. Raise the threshold and check again."
        )
    try:
        check_no_sample(sample.dataset)
    except SampleIsOpen as error:
        raise CannotApprove(f"Finish or discard the other sample first. {error}") from error
    gone = void_since(sample)
    if gone:
        raise CannotApprove(f"{gone} What was checked is not what is accepted now: draw a fresh sample.")
    if not proves(sample, seen):
        with transaction.atomic():
            return _conclude(sample, by, True, reason)
    # The file is hashed before the transaction, for a long one would keep everybody else from writing; if an answer
    # came meanwhile it is hashed again, and at the third time with everybody waiting.
    for patient in (True, True, False):
        before = certificates.last_facts(sample.dataset)
        certified = certificates.evidence_of(sample, seen) if patient else None
        with transaction.atomic():
            if patient and certificates.last_facts(sample.dataset) != before:
                continue
            verdict = _conclude(sample, by, True, reason)
            certificates.issue(sample, certified or certificates.evidence_of(sample, seen), by)
            return verdict
    raise AssertionError("the third round always ends")


def reject(sample: Sample, by: User, reason: str = "") -> Verdict:
    """Turn the checked labels down; the manager then raises the threshold or reviews more.

    Raises: CannotApprove while the sample is open or after another verdict.
    """
    if sample.closed_at is None:
        raise CannotApprove("This spot check is not finished. Discard it instead.")
    with transaction.atomic():
        return _conclude(sample, by, False, reason)


def _conclude(sample: Sample, by: User, approved: bool, reason: str) -> Verdict:
    if Verdict.objects.filter(sample=sample).exists():
        raise CannotApprove("This spot check already has its verdict.")
    record(by, sample.dataset, "spot check approved" if approved else "spot check rejected", sample=sample.pk)
    return Verdict.objects.create(sample=sample, approved=approved, by=by, reason=reason)
