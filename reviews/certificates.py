"""The certificate of a sample: what it is issued with, and how it leaves."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from django.db.models import Max
from django.utils import timezone

from datasets.models import Dataset, LabelerVersion
from labelhub.autolabel import certify, fingerprint, verify, verify_dataset
from reviews.export import Export
from reviews.models import Certificate, Purpose, Remark, Sample
from reviews.samples import Count, evidence
from reviews.validity import certified_rank, why_void

if TYPE_CHECKING:
    from django.contrib.auth.models import User


def last_facts(dataset: Dataset) -> tuple[int | None, ...]:
    """The newest decision, remark, threshold and sample: as long as they stay, so does the file."""
    of = {"dataset": dataset}
    return tuple(
        model.objects.filter(**of).aggregate(last=Max("pk"))["last"]
        for model in (dataset.decisions.model, Remark, dataset.thresholds.model, Sample)
    )


def evidence_of(sample: Sample, seen: Count) -> dict[str, Any]:
    """Everything that ``verify`` needs beside the exported file: terms, draw, answers and digests (E20).

    Reads the whole file once, as a stream.
    """
    of_promise = _dataset if sample.purpose == Purpose.CALIBRATION else _accepted
    dataset, as_of = sample.dataset, timezone.now()
    file = Export(dataset, sample=sample)
    content_hash, rows = fingerprint.content_hash(file.certified_rows())
    answers = _answers(sample)
    return {
        "run": sample.run.number,
        "labeler": _labeler(sample),
        "threshold_rank": certified_rank(sample),
        "pool": sample.pool,
        "pool_hash": sample.pool_hash,
        "seed": sample.seed,
        "drawn_at": sample.drawn_at.isoformat(),
        "size": sample.size,
        "errors": seen.errors,
        "cant_tell": seen.cant_tell,
        "allowed_errors": sample.allowed_errors,
        "budget": sample.budget,
        "target_error": sample.target_error,
        "alpha": dataset.alpha,
        "alpha_of_this_attempt": sample.alpha,
        "attempt": sample.attempt,
        "earlier_attempts": [_told(one) for one in earlier_attempts(sample)],
        "answers": answers,
        "answers_hash": fingerprint.answers_hash(answers),
        "as_of": as_of.isoformat(),
        "rows": rows,
        "content_hash": content_hash,
        "left_out": file.left_out,
    } | of_promise(sample, file)


def _accepted(sample: Sample, file: Export) -> dict[str, Any]:
    """What belongs to the promise about labels that were accepted by hand."""
    asked = sample.dataset.remarks.filter(kind=Remark.Kind.ASK, at__lt=sample.drawn_at)
    return {
        "promise": "accepted",
        "covers": "the rows of the JSONL export with certified = true: every label of the frozen pool that stood when "
        "the certificate was issued, machine's or person's, and the copies of the same text",
        "asked_before": sorted(set(asked.values_list("item", flat=True))),
    }


def _dataset(sample: Sample, file: Export) -> dict[str, Any]:
    """What belongs to the promise about the whole dataset: its labels by who answers for them, and the floor."""
    labels = file.labels
    covered = labels.people + labels.accepted
    return {
        "promise": "dataset",
        "covers": "the rows of the JSONL export with certified = true: every label but those given in the file, "
        "machine's or person's, and the copies of the same text",
        "floor_error": sample.floor_error,
        "level": certify.level(sample.allowed_errors, sample.pool, sample.size, sample.budget),
        "above_threshold": file.above_threshold
        - sample.drawn.filter(machine_rank__gte=certified_rank(sample)).count(),
        "items": covered + len(file.left_out) + labels.uncovered,
        "labels": covered,
        "people": labels.people,
        "accepted": labels.accepted,
        "uncovered": labels.uncovered,
        "file_rows": file.rows,
        "outside_pool": file.outside_pool,
    }


def _answers(sample: Sample) -> list[dict[str, Any]]:
    """The evidence of a sample, in the order of the draw."""
    names: dict[int | None, str | None] = {
        None: None,
        **dict(sample.dataset.labels.values_list("pk", "name")),
    }
    return [
        {
            "id": drawn.item_id,
            "rank": drawn.machine_rank,
            "predicted_label": names[drawn.machine_label_id],
            "outcome": answer.outcome,
            "label": names[answer.label_id],
        }
        for drawn, answer in evidence(sample)
        if answer is not None
    ]


def _labeler(sample: Sample) -> dict[str, Any]:
    """Which labeler said it: its method, and SHA-256 over its fitted state and its settings."""
    version = LabelerVersion.objects.get(pk=sample.run.version_id)
    digest = hashlib.sha256(bytes(version.state or b""))
    digest.update(json.dumps(version.settings, sort_keys=True, separators=(",", ":")).encode("ascii"))
    asked = {key: version.settings[key] for key in ("model", "prompt_hash") if key in version.settings}
    return {"method": version.method, "hash": digest.hexdigest()} | asked


def earlier_attempts(sample: Sample) -> list[Sample]:
    """The evidential samples of the dataset before this one; each was given its share of alpha (E3)."""
    earlier = sample.dataset.samples.filter(attempt__gt=0, pk__lt=sample.pk)
    return list(earlier.select_related("verdict").order_by("pk"))


def outcome_of(sample: Sample) -> str:
    """How an attempt ended, in a word or two."""
    if sample.superseded_at is not None:
        return "discarded"
    if hasattr(sample, "verdict"):
        return "approved" if sample.verdict.approved else "rejected"
    return "open" if sample.closed_at is None else "without a verdict"


def _told(sample: Sample) -> dict[str, Any]:
    return {
        "sample": sample.pk,
        "drawn_at": sample.drawn_at.isoformat(),
        "size": sample.size,
        "alpha": sample.alpha,
        "outcome": outcome_of(sample),
    }


def issue(sample: Sample, found: dict[str, Any], by: User) -> Certificate:
    """Insert a certificate, complete: a row of its table never changes."""
    if found["promise"] == "dataset":
        statement = verify_dataset.statement_of(
            found["labels"], sample.budget, found["accepted"], sample.floor_error, found["alpha"]
        )
    else:
        statement = verify.statement_of(sample.pool, sample.budget, sample.threshold, found["alpha"])
    found = found | {"figures_hash": fingerprint.figures_hash(statement, found)}
    return Certificate.objects.create(
        dataset=sample.dataset, sample=sample, by=by, statement=statement, evidence=found
    )


def number_of(certificate: Certificate) -> int:
    """Its number in its dataset, from 1."""
    return Certificate.objects.filter(dataset=certificate.dataset_id, pk__lte=certificate.pk).count()


def find(dataset: Dataset, number: int) -> Certificate | None:
    """The certificate with this number, if there is one."""
    if number < 1:
        return None
    every = dataset.certificates.select_related("dataset", "by", "sample__run", "sample__dataset")
    return every.order_by("pk")[number - 1 : number].first()


def document(certificate: Certificate, number: int) -> dict[str, Any]:
    """The certificate as it leaves, a JSON object that ``verify`` reads beside the exported file."""
    return {
        "format": verify.FORMAT,
        "dataset": {"id": certificate.dataset_id, "name": certificate.dataset.name},
        "number": number,
        "statement": certificate.statement,
        "issued_at": certificate.at.isoformat(),
        "issued_by": certificate.by.get_username(),
        "void": why_void(certificate),
        "evidence": certificate.evidence,
    }
