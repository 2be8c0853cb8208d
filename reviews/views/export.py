"""The export page and the file."""

from __future__ import annotations

from django.http import HttpResponse, StreamingHttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from datasets.access import Request, needs
from datasets.models import Dataset, record
from reviews import certificates, thresholds
from reviews.export import FORMATS, Export, disposition, file_name
from reviews.states import count_labeled, states
from reviews.validity import certificate_in_force

COLUMNS = [
    ("id", "the item's number in LabelHub"),
    ("position", "the row's number in your file, from 1"),
    ("label", "the label to use; empty where nobody and nothing answers for one"),
    ("source", "who answers for it: given (your file), person, machine (accepted unseen) or none"),
    ("predicted_label", "what the machine said, on rows still to review too"),
    ("confidence", "how sure it was, from 0 to 1"),
    ("rank", "confidence with its tie-break: what thresholds are compared with"),
    ("run", "the number of the run that said so"),
    ("threshold", "the confidence from which labels were accepted; empty if none were"),
    ("purpose", "why a person was asked: review, calibration, spot_check or training"),
    ("sample", "the random sample that the row was drawn into"),
    ("sample_rank", "its place in the order of the draw"),
    ("outcome", "the answer: label, cant_tell or exclude"),
    ("answered_by", "who answered, as R1, R2, …: the same person everywhere in this dataset"),
    ("decided_at", "when, in UTC"),
    ("same_as", "the id of the first row with the same text; empty on the first"),
    ("certified", "true if a certificate in force covers the row"),
]


@require_GET
@needs("manage")
def export(request: Request, dataset: Dataset) -> HttpResponse:
    """Say what the file will hold, and offer its formats."""
    count = states(dataset)
    in_force = certificate_in_force(dataset)
    context = {
        "dataset": dataset,
        "role": dataset.role,
        "tab": "export",
        "states": count,
        "labeled": count_labeled(dataset, count),
        "threshold": thresholds.in_force(dataset),
        "open_sample": thresholds.open_sample(dataset),
        "certificate": in_force,
        "certificate_number": certificates.number_of(in_force) if in_force else None,
        "ever_certified": dataset.certificates.exists(),
        "columns": COLUMNS,
    }
    return render(request, "reviews/export.html", context)


@require_GET
@needs("manage")
def file(request: Request, dataset: Dataset) -> HttpResponse:
    """Stream the file as the database is now."""
    kind = request.GET.get("format", "jsonl")
    if kind not in FORMATS:
        return HttpResponse(
            "There are the formats jsonl, csv and csv-safe.", status=422, content_type="text/plain"
        )
    made = Export(dataset, votes="votes" in request.GET)
    record(request.user, dataset, "export", format=kind)
    response = StreamingHttpResponse(made.write(kind), content_type=f"{FORMATS[kind]}; charset=utf-8")
    response["Content-Disposition"] = disposition(file_name(dataset, kind))
    response["X-Content-Type-Options"] = "nosniff"
    response["Cache-Control"] = "no-store"
    return response  # type: ignore[return-value]  # the stubs know no common class that is enough
