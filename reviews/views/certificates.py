"""A certificate: to read, to print, to download."""

from __future__ import annotations

import json

from django.http import Http404, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from datasets.access import Request, needs
from datasets.models import Dataset
from reviews import certificates, verdicts
from reviews.export import disposition
from reviews.models import Certificate


def _find(dataset: Dataset, number: int) -> Certificate:
    found = certificates.find(dataset, number)
    if found is None:
        raise Http404("There is no such certificate.")
    return found


@require_GET
@needs("watch")
def certificate(request: Request, dataset: Dataset, number: int) -> HttpResponse:
    """What is promised, on what evidence, under which assumptions, and whether it still holds."""
    found = _find(dataset, number)
    manages = dataset.role in ("owner", "manager")
    earlier = certificates.earlier_attempts(found.sample)
    newer = dataset.certificates.filter(pk__gt=found.pk).count()
    context = {
        "dataset": dataset,
        "role": dataset.role,
        "tab": "export" if manages else "savings",
        "manages": manages,
        "certificate": found,
        "number": number,
        "newer": number + newer if newer else 0,
        "evidence": found.evidence,
        "whole": found.evidence["promise"] == "dataset",
        "sample": found.sample,
        "draw": verdicts.summary(found.sample),
        "earlier": [(one, certificates.outcome_of(one)) for one in earlier],
    }
    return render(request, "reviews/certificate.html", context)


@require_GET
@needs("watch")
def certificate_json(request: Request, dataset: Dataset, number: int) -> HttpResponse:
    """The file that ``verify`` reads beside an export."""
    found = _find(dataset, number)
    text = json.dumps(certificates.document(found, number), indent=1, ensure_ascii=False)
    response = HttpResponse(f"{text}\n", content_type="application/json; charset=utf-8")
    response["Content-Disposition"] = disposition(f"certificate-{dataset.pk}-{number}.json")
    response["X-Content-Type-Options"] = "nosniff"
    response["Cache-Control"] = "no-store"
    return response
