"""Whether a certificate still holds: derived from what happened since its draw, never stored (E20)."""

from __future__ import annotations

from datasets.models import Dataset, Label
from labelhub.autolabel.rank import ACCEPT_NOTHING
from reviews.models import Certificate, Decision, Outcome, Purpose, Sample, Threshold


def why_void(certificate: Certificate) -> str:
    """Why a certificate no longer holds, as a sentence; empty while it does."""
    return void_since(certificate.sample)


def proven_threshold(sample: Sample) -> Threshold | None:
    """The row that a calibration sample put into force; None where it proved nothing, and for other samples."""
    return Threshold.objects.filter(sample=sample).order_by("pk").first()


def certified_rank(sample: Sample) -> int:
    """The rank from which a sample speaks for the machine's labels: proven by it, or set by hand before its draw."""
    if sample.purpose != Purpose.CALIBRATION:
        return sample.threshold
    proven = proven_threshold(sample)
    return proven.rank if proven is not None else ACCEPT_NOTHING


def void_since(sample: Sample) -> str:
    """What happened since a draw that makes it speak for something else; empty where nothing did."""
    lowest = certified_rank(sample)
    for newer in Threshold.objects.filter(dataset=sample.dataset_id, at__gt=sample.drawn_at).order_by("pk"):
        if newer.sample_id == sample.pk:
            continue  # what it proved itself
        if newer.run_id != sample.run_id:
            return f"Another run took force on {newer.at:%d %b %Y}."
        if newer.rank < lowest:
            return f"The threshold was lowered on {newer.at:%d %b %Y}."
    if Label.objects.filter(dataset=sample.dataset_id, retired_at__gt=sample.drawn_at).exists():
        return "A label was retired since."
    if sample.closed_at is not None:
        revoked = Decision.objects.filter(sample=sample, revoked_by__decided_at__gt=sample.closed_at)
        if revoked.exclude(outcome=Outcome.UNDO).exists():
            return "An answer of its sample was taken back."
    return ""


def certificate_in_force(dataset: Dataset) -> Certificate | None:
    """The latest certificate of a dataset, if it still holds."""
    latest = Certificate.objects.filter(dataset=dataset).select_related("sample").order_by("-pk").first()
    return latest if latest is not None and not why_void(latest) else None
