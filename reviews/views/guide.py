"""The guided path: choose a promise, teach, prove it, review the rest, take the certificate."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_POST, require_safe

from datasets import slices
from datasets.access import Request, allows, needs
from datasets.models import Dataset
from reviews import calibrations, consequences, learning, path, place, samples, tasks, thresholds
from reviews.forms import GoalForm
from reviews.models import Purpose, Sample
from reviews.validity import proven_threshold

REFUSED = (
    path.CannotPromise,
    learning.CannotLearn,
    tasks.RunIsActive,
    thresholds.SampleIsOpen,
    samples.NothingToDraw,
    calibrations.NothingToPlan,
)


@require_safe
@needs("read")
def guide(request: Request, dataset: Dataset) -> HttpResponse:
    """Where the dataset stands on the way to its promise; the script asks for the same page while it waits."""
    path.advance(dataset.pk)  # whatever a lost job left undone
    template = "reviews/_guide.html" if request.headers.get("HX-Request") else "reviews/guide.html"
    return render(request, template, _context(dataset))


@require_POST
@needs("manage")
def choose(request: Request, dataset: Dataset) -> HttpResponse:
    """Set the promise, or another one."""
    form = GoalForm(request.POST)
    if not form.is_valid():
        return render(request, "reviews/guide.html", _context(dataset, form), status=422)
    try:
        path.choose(dataset, form.target_error, form.floor_error, request.user)
    except REFUSED as error:
        form.add_error(None, str(error))
        return render(request, "reviews/guide.html", _context(dataset, form), status=422)
    return redirect("reviews:guide", dataset.pk)


@require_POST
@needs("manage")
def leave(request: Request, dataset: Dataset) -> HttpResponse:
    """Go by hand again; nothing that people answered is lost."""
    try:
        left = path.leave(dataset, request.user)
    except thresholds.SampleIsOpen as error:
        messages.error(request, str(error))
    else:
        if left:
            messages.success(request, "The threshold goes by hand again. Every answer and sample is kept.")
    return redirect("reviews:guide", dataset.pk)


@require_POST
@needs("manage")
def calibrate(request: Request, dataset: Dataset) -> HttpResponse:
    """Freeze labels and order, and draw the sample that proves a threshold."""
    try:
        sample = path.prove(dataset, request.user)
    except REFUSED as error:
        messages.error(request, str(error))
        return redirect("reviews:guide", dataset.pk)
    messages.success(
        request,
        f"The sample is drawn: {sample.size:,} of {sample.pool:,} items. Labels, order and test are frozen.",
    )
    return redirect("reviews:sample", dataset.pk, sample.pk)


def _context(dataset: Dataset, form: GoalForm | None = None) -> dict[str, Any]:
    goal = path.active_goal(dataset)
    context: dict[str, Any] = {
        "dataset": dataset, "role": dataset.role, "tab": "guide", "goal": goal, "steps": place.STEPS,
        "manages": allows(dataset.role, "manage"), "answers": allows(dataset.role, "review"),
        "form": form or GoalForm(initial=_initial(dataset)), "consequences": consequences.of_new_goal(dataset),
    }  # fmt: skip
    if goal is None:
        return context
    here = place.where(goal)
    return context | {
        "place": here,
        "promise": place.promise(goal),
        "rounds": list(goal.rounds.defer("representative").order_by("-number")[:50]),
        "attempts": [
            (sample, _told(sample) if sample.closed_at else None)
            for sample in dataset.samples.filter(purpose=Purpose.CALIBRATION, drawn_at__gte=goal.at)
        ],
        "options": place.options(goal, here) if here.stuck else [],
        "done": slices.progress(here.run) if here.act == "wait" and here.run else None,
        "asks_again": here.act == "wait",
    }


def _told(closed: Sample) -> dict[str, Any]:
    """What a closed calibration sample showed, for a line of a table."""
    proven = proven_threshold(closed)
    return {"seen": samples.count(closed), "rank": proven.rank if proven is not None else None}


def _initial(dataset: Dataset) -> dict[str, Any]:
    latest = dataset.goals.order_by("-pk").first()
    target = latest.target_error if latest else dataset.target_error
    floor = latest.floor_error if latest else 0.10
    return {"target": f"{100 * (1 - target):g}", "floor": "" if floor is None else f"{100 * (1 - floor):g}"}
