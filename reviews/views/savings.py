"""The savings page: what the machine saved, how right it is, and the threshold."""

from __future__ import annotations

import math
from typing import Any

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.html import format_html
from django.views.decorators.http import require_GET, require_POST

from datasets.access import NEEDS, Request, needs
from datasets.models import Dataset
from labelhub.autolabel.rank import ACCEPT_NOTHING, confidence_of, to_rank
from reviews import metrics, thresholds
from reviews.charts import draw_calibration, draw_curve, draw_forecast
from reviews.models import Threshold

NOTHING = "nothing"  # typed, or a value above 1: accept nothing


@require_GET
@needs("watch")
def savings(request: Request, dataset: Dataset) -> HttpResponse:
    """All figures of the run in force, and with ?t= those of another threshold."""
    context: dict[str, Any] = {"dataset": dataset, "role": dataset.role, "tab": "savings"}
    threshold = thresholds.in_force(dataset)
    if threshold is None:
        context["states"] = metrics.states(dataset)
        return render(request, "reviews/savings.html", context)
    rank, problem = _typed(request, threshold)
    rate, rate_problem = _rate(request, dataset)
    report = metrics.report(dataset, threshold, rank, rate)
    context |= _control(dataset, threshold, problem, (report.now, report.typed), report.states, request)
    context |= {
        "report": report,
        "fresh": report.fresh,
        "states": report.states,
        "rate": rate,
        "rate_problem": rate_problem,
        "curve_chart": draw_curve(
            report.curve, report.points, report.states.distinct, 1 - dataset.target_error, threshold.rank
        ),
        "calibration_chart": draw_calibration(report.buckets),
        "forecast_chart": draw_forecast(report.forecast) if report.forecast else None,
        "accepted_counts": " ".join(str(n) for _, n in report.curve),
    }
    return render(request, "reviews/savings.html", context, status=422 if problem or rate_problem else 200)


@require_GET
@needs("watch")
def threshold_preview(request: Request, dataset: Dataset) -> HttpResponse:
    """What another threshold would change; nothing is written."""
    threshold = thresholds.in_force(dataset)
    if threshold is None or not request.htmx:
        return redirect(f"{reverse('reviews:savings', args=[dataset.pk])}?{request.GET.urlencode()}")
    rank, problem = _typed(request, threshold)
    known = metrics.gather(dataset, threshold, [rank])
    count = metrics.states(dataset)
    now, then = metrics.table(dataset, threshold, [threshold.rank, rank], known, count.distinct)
    context = {"dataset": dataset, "role": dataset.role}
    context |= _control(dataset, threshold, problem, (now, then), count, request)
    context["fresh"] = metrics.fresh_check(dataset, then, known)
    context["accepted_counts"] = " ".join(str(n) for _, n in metrics.curve(known))
    return render(request, "reviews/_threshold.html", context, status=422 if problem else 200)


@require_POST
@needs("manage")
def threshold(request: Request, dataset: Dataset) -> HttpResponse:
    """Put a typed threshold into force, or with ``undo`` the one before."""
    before = thresholds.in_force(dataset)
    back = redirect("reviews:savings", dataset.pk)
    if before is None:
        messages.error(request, "There is no run yet that a threshold could belong to.")
        return back
    try:
        if "undo" in request.POST:
            after = thresholds.undo_move(dataset, request.user)
            if after is None:
                messages.info(request, "There is no earlier threshold to go back to.")
                return back
            messages.success(request, f"Back to {_words(after.rank)}. No answer of a person was changed.")
            return back
        rank, problem = _typed(request, before, request.POST)
        if problem:
            messages.error(request, problem)
            return back
        change = thresholds.preview(before, rank)
        guided = dataset.goals.active().exists()
        after = thresholds.move(dataset, rank, request.user)
    except thresholds.SampleIsOpen as error:
        link = reverse("reviews:spot", args=[dataset.pk])
        messages.error(request, format_html('{} <a href="{}">Finish or discard it</a>', str(error), link))
        return back
    moved = (
        f"{change.newly_accepted:,} more items are accepted"
        if rank < before.rank
        else f"{change.newly_flagged:,} items go back to review"
    )
    left = ""
    if guided and not dataset.goals.active().exists():
        left = " It goes by hand from here on; the guided path is left."
    messages.success(
        request,
        f"The threshold is {_words(after.rank)} now: {moved}. No answer of a person was changed.{left}",
    )
    return back


def _control(
    dataset: Dataset,
    threshold: Threshold,
    problem: str,
    rows: tuple[metrics.Row, metrics.Row],
    count: metrics.States,
    request: Request,
) -> dict[str, Any]:
    """What the threshold control shows; ``rows`` are those of the threshold in force and of the typed one."""
    now, then = rows
    before = list(Threshold.objects.filter(dataset=dataset).select_related("run").order_by("-pk")[:2])
    return {
        "threshold": threshold,
        "typed": then,
        "typed_value": request.GET.get("t", "") if problem else metrics.typed_value(then.rank),
        "slide": f"{confidence_of(min(then.rank, to_rank(1.0))):.2f}",
        "problem": problem,
        "change": thresholds.Move(
            accepted=then.accepted,
            flagged=count.accepted + count.flagged - count.drawn - then.accepted,
            newly_accepted=max(then.accepted - now.accepted, 0),
            newly_flagged=max(now.accepted - then.accepted, 0),
        ),
        "target": 1 - dataset.target_error,
        "sure": 1 - dataset.alpha,
        "manages": dataset.role in NEEDS["manage"],
        "guided": (threshold.accepts_nothing or threshold.sample is not None)
        and dataset.goals.active().exists(),
        "open_sample": thresholds.open_sample(dataset) if count.drawn else None,
        "undo_to": _words(before[1].rank)
        if len(before) == 2 and before[0].run_id == before[1].run_id
        else "",
    }


def _typed(request: Request, now: Threshold, data: Any = None) -> tuple[int, str]:
    """The rank that was typed, slid or stepped to, else the one in force, and what is wrong with it.

    The slider counts only if it was moved from where the page had set it (``was``): without a script it and the
    number are two fields of one form.
    """
    data = request.GET if data is None else data
    text, slide = data.get("t", "").strip(), data.get("slide", "")
    if slide and slide != data.get("was", slide):
        text = slide
    if not text:
        return now.rank, ""
    if text.lower() == NOTHING:
        rank = ACCEPT_NOTHING
    else:
        try:
            rank = thresholds.typed_rank(text)
        except ValueError as error:
            return now.rank, str(error)
    step = data.get("by", "")
    if step in ("-0.01", "0.01"):
        hundredths = round(min(confidence_of(rank), 1.0) * 100) + (1 if step == "0.01" else -1)
        rank = to_rank(min(max(hundredths, 0), 100) / 100)
    return rank, ""


def _rate(request: Request, dataset: Dataset) -> tuple[float, str]:
    own = float(dataset.hourly_rate_usd)
    text = request.GET.get("rate", "").strip().replace(",", ".")
    if not text:
        return own, ""
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not 0 <= rate <= 100_000:
        return own, "An hourly rate is a number from 0 to 100,000, in US dollars."
    return rate, ""


def _words(rank: int) -> str:
    return "“accept nothing”" if rank >= ACCEPT_NOTHING else f"{confidence_of(rank):g}"
