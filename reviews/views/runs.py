"""The overview of a dataset: its rows, its labels, its runs, and the run that is under way."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.contrib.auth.models import User
from django.db.models import Count
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_POST, require_safe

from datasets import money
from datasets.access import Request, allows, needs
from datasets.models import Dataset, Item, Label, Run
from reviews import learning, tasks, thresholds
from reviews.states import states
from reviews.views import start_form
from reviews.views.progress import progress_of
from reviews.views.run import titles

GIVE_UP = (learning.CannotLearn, tasks.RunIsActive, thresholds.SampleIsOpen)


@require_safe
@needs("read")
def overview(request: Request, dataset: Dataset) -> HttpResponse:
    """What a dataset is made of, what machines did with it, and what is next."""
    return render(request, "reviews/overview.html", _overview(dataset, request.user))


@require_POST
@needs("manage")
def start(request: Request, dataset: Dataset) -> HttpResponse:
    """Start a run; a second click finds the first one's run."""
    typed = start_form.Typed.of(request.POST)
    try:
        learning.learn(dataset, typed.method, request.user, start_form.spend_of(typed))
    except tasks.RunIsActive as error:
        messages.info(request, str(error))
    except GIVE_UP as error:
        context = _overview(dataset, request.user) | {"form": typed, "start_error": str(error)}
        return render(request, "reviews/overview.html", context, status=422)
    return redirect("reviews:overview", dataset.pk)


@require_safe
@needs("manage")
def estimate(request: Request, dataset: Dataset) -> HttpResponse:
    """What asking the language model would cost, as a fragment, or as the page with the form around it."""
    typed = start_form.Typed.of(request.GET)
    context = start_form.told_cost(dataset, typed) | {"dataset": dataset, "form": typed}
    status = 422 if context["cost_problem"] else 200
    if request.headers.get("HX-Request"):
        return render(request, "reviews/_estimate.html", context, status=status)
    return render(request, "reviews/overview.html", _overview(dataset, request.user) | context, status=status)


@require_POST
@needs("manage")
def raise_cap(request: Request, dataset: Dataset, number: int) -> HttpResponse:
    """Give a run a higher cap, and let it go on."""
    run = get_object_or_404(Run, dataset=dataset, number=number)
    try:
        budget = start_form.read_usd(request.POST.get("budget", "").strip())
    except learning.CannotLearn as error:
        messages.error(request, str(error))
        return redirect("reviews:overview", dataset.pk)
    if tasks.raise_cap(run, money.to_nano(budget), request.user):
        messages.success(request, f"Run {run.number} goes on, with a cap of ${budget:,.2f}.")
    else:
        run.refresh_from_db()
        spent = money.to_usd(run.spent_nano)
        messages.error(
            request,
            f"Run {run.number} has spent ${spent:,.4f} already: type a higher cap."
            if run.state == "paused"
            else f"Run {run.number} is {run.state}.",
        )
    return redirect("reviews:overview", dataset.pk)


@require_POST
@needs("manage")
def pause(request: Request, dataset: Dataset, number: int) -> HttpResponse:
    """Stop a run after the slices under way."""
    return _change(request, dataset, number, "pause")


@require_POST
@needs("manage")
def resume(request: Request, dataset: Dataset, number: int) -> HttpResponse:
    """Go on with a paused run."""
    return _change(request, dataset, number, "resume")


@require_POST
@needs("manage")
def cancel(request: Request, dataset: Dataset, number: int) -> HttpResponse:
    """End a run; what it labeled stays."""
    return _change(request, dataset, number, "cancel")


@require_POST
@needs("manage")
def apply(request: Request, dataset: Dataset, number: int) -> HttpResponse:
    """Put a finished run in force."""
    run = get_object_or_404(Run, dataset=dataset, number=number)
    try:
        learning.apply(dataset, run, request.user)
    except GIVE_UP as error:
        messages.error(request, str(error))
    else:
        messages.success(request, f"Run {run.number} is in force.")
    return redirect("reviews:overview", dataset.pk)


def _change(request: Request, dataset: Dataset, number: int, act: str) -> HttpResponse:
    run = get_object_or_404(Run, dataset=dataset, number=number)
    did = {"pause": tasks.pause, "resume": tasks.resume, "cancel": tasks.cancel}[act](run, request.user)
    if not did:
        run.refresh_from_db()
        messages.info(request, f"Run {run.number} is {run.state}.")
    return redirect("reviews:overview", dataset.pk)


def _overview(dataset: Dataset, user: User) -> dict[str, Any]:
    role = dataset.role
    manages, watches = allows(role, "manage"), allows(role, "watch")
    context = progress_of(dataset) | {"tab": "overview", "manages": manages, "watches": watches}
    if dataset.ready_at is None:
        return context
    active: Run | None = context["run"]
    latest = thresholds.in_force(dataset)
    context |= {
        "states": states(dataset),
        "labels": _labels(dataset),
        "in_force": latest,
        "sample": thresholds.open_sample(dataset),
        "report": dataset.report,
        "listed_bad": (dataset.report.get("bad_rows") or [])[:100],
        "listed_empty": (dataset.report.get("empty_rows") or [])[:100],
    }
    methods = learning.methods(dataset) if watches else []
    if watches:
        runs = dataset.runs.select_related("version", "requested_by").defer("version__state")
        named = titles(methods)
        latest_runs = [(run, named.get(run.version.method, "")) for run in runs.order_by("-number")[:20]]
        context["runs"] = latest_runs
        context["runs_cost"] = any(run.spent_nano for run, _ in latest_runs)
    if manages:
        context["offer"] = learning.offer(dataset, latest) if active is None else None
        context |= start_form.form_facts(dataset, user, context["states"], methods, latest)
    return context


def _labels(dataset: Dataset) -> list[tuple[Label, int]]:
    """The labels with the number of items that came with each."""
    given = Item.objects.filter(dataset=dataset, given_label__isnull=False)
    counts = dict(given.values_list("given_label").annotate(n=Count("pk")).order_by())
    return [(label, counts.get(label.pk, 0)) for label in dataset.labels.all()]
