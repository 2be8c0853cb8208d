"""Spot checks: draw, answer blind, look, conclude."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_GET, require_POST

from datasets.access import Request, needs
from datasets.models import Dataset
from reviews import calibrations, certificates, path, place, samples, thresholds, verdicts
from reviews.forms import ReasonForm
from reviews.models import Purpose, Sample
from reviews.validity import void_since
from reviews.views.review import KEYS, sample_context

MANY_UNSURE = 0.10  # of a sample: beyond it no threshold can pass (E13)


def _context(dataset: Dataset) -> dict[str, object]:
    manages = dataset.role in ("owner", "manager")
    return {"dataset": dataset, "role": dataset.role, "tab": "spot", "manages": manages}


@require_GET
@needs("review")
def spot(request: Request, dataset: Dataset) -> HttpResponse:
    """The open spot check, what a new one would ask for, and every draw so far."""
    threshold = thresholds.in_force(dataset)
    planned = None
    if threshold is not None:
        accepted = thresholds.accepted(threshold).count()
        planned = samples.plan(dataset, accepted) if accepted else None
    drawn = (
        dataset.samples.filter(purpose=Purpose.SPOT_CHECK).select_related("drawn_by", "run").order_by("-pk")
    )
    context = _context(dataset) | {
        "threshold": threshold,
        "planned": planned,
        "open": thresholds.open_sample(dataset),
        "draws": [verdicts.summary(sample) for sample in drawn],
    }
    return render(request, "reviews/spot.html", context)


@require_POST
@needs("manage")
def draw(request: Request, dataset: Dataset) -> HttpResponse:
    """Freeze a fresh random sample of what is accepted now."""
    threshold = thresholds.in_force(dataset)
    try:
        if threshold is None:
            raise samples.NothingToDraw("No run has labeled anything yet.")
        sample = samples.draw_spot_check(dataset, threshold, request.user)
    except (samples.NothingToDraw, thresholds.SampleIsOpen) as error:
        messages.error(request, str(error))
        return redirect("reviews:spot", dataset.pk)
    messages.success(
        request, f"{sample.size} of {sample.pool:,} accepted items are drawn. The sample is frozen."
    )
    return redirect("reviews:sample", dataset.pk, sample.pk)


@require_GET
@needs("review")
def sample(request: Request, dataset: Dataset, sample_id: int) -> HttpResponse:
    """An open sample is answered here; a closed one shows its result."""
    found = get_object_or_404(Sample, pk=sample_id, dataset=dataset)
    if found.is_open:
        context = _context(dataset) | {"keys": KEYS} | sample_context(request, dataset, found)
        return render(request, "reviews/sample.html", context)
    if found.purpose == Purpose.TRAINING:
        return redirect("reviews:overview", dataset.pk)
    if found.purpose == Purpose.CALIBRATION:
        return render(request, "reviews/calibrated.html", _calibrated(dataset, found))
    result = verdicts.summary(found)
    context = _context(dataset) | {
        "draw": result,
        "sample": found,
        "differences": verdicts.differences(found),
        "certificate_number": certificates.number_of(result.certificate) if result.certificate else None,
    }
    return render(request, "reviews/result.html", context)


def _calibrated(dataset: Dataset, found: Sample) -> dict[str, object]:
    """What a calibration sample showed; figures only once it is closed."""
    context = _context(dataset) | {"sample": found, "tab": "guide"}
    if found.closed_at is None:
        return context
    result = calibrations.result(found)
    proven = found.thresholds.select_related("dataset").first()
    return context | {
        "result": result,
        "proven": proven,
        "held": place.accepted_words(proven, found) if proven else "",
        "void": void_since(found) if proven else "",
        "unsure": result.seen.cant_tell > MANY_UNSURE * found.size,
        "differences": verdicts.differences(found),
    }


@require_POST
@needs("manage")
def look(request: Request, dataset: Dataset, sample_id: int) -> HttpResponse:
    """Show a manager how the sample stands; whoever looked does not answer it any more."""
    found = get_object_or_404(Sample, pk=sample_id, dataset=dataset, purpose__in=samples.EVIDENCE)
    seen = samples.look(found, request.user)
    context = _context(dataset) | {"sample": found, "seen": seen, "reading": verdicts.reading(found, seen)}
    return render(request, "reviews/look.html", context)


@require_POST
@needs("manage")
def approve(request: Request, dataset: Dataset, sample_id: int) -> HttpResponse:
    """Accept the checked labels."""
    return _conclude(request, dataset, sample_id, approved=True)


@require_POST
@needs("manage")
def reject(request: Request, dataset: Dataset, sample_id: int) -> HttpResponse:
    """Turn the checked labels down."""
    return _conclude(request, dataset, sample_id, approved=False)


def _conclude(request: Request, dataset: Dataset, sample_id: int, approved: bool) -> HttpResponse:
    found = get_object_or_404(Sample, pk=sample_id, dataset=dataset, purpose__in=samples.EVIDENCE)
    form = ReasonForm(request.POST)
    reason = form.cleaned_data["reason"] if form.is_valid() else ""
    try:
        (verdicts.approve if approved else verdicts.reject)(found, request.user, reason)
    except verdicts.CannotApprove as error:
        messages.error(request, str(error))
    else:
        messages.success(
            request, "Approved." if approved else "Rejected. Raise the threshold, then check again."
        )
    if found.purpose == Purpose.CALIBRATION:
        return redirect("reviews:guide", dataset.pk)
    return redirect("reviews:sample", dataset.pk, found.pk)


@require_POST
@needs("manage")
def discard(request: Request, dataset: Dataset) -> HttpResponse:
    """Give an open sample up; its answers stay decisions."""
    given_up = samples.discard(dataset, request.user)
    path.advance(dataset.pk)
    if given_up is None:
        messages.info(request, "There is no open sample.")
    else:
        messages.success(request, "The sample is discarded. Its answers are kept as decisions.")
        if given_up.purpose == Purpose.CALIBRATION:
            return redirect("reviews:guide", dataset.pk)
    return redirect("reviews:spot", dataset.pk)
