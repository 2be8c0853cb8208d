"""The overview of a dataset: its rows, its labels, its runs, and the run that is under way."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from django.contrib import messages
from django.contrib.auth.models import User
from django.db.models import Count
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_POST, require_safe

from datasets import slices
from datasets.access import Request, allows, may_create, needs
from datasets.labeling import ROUND
from datasets.models import Dataset, Item, Label, Prediction, Run
from datasets.tasks import queue_answers, workers_alive
from labelhub.autolabel.rank import ACCEPT_NOTHING
from reviews import consequences, learning, path, tasks, thresholds
from reviews.cards import PROBLEMS
from reviews.models import Threshold
from reviews.states import states

LAST = 3  # labeled items shown while a run is under way
GIVE_UP = (learning.CannotLearn, tasks.RunIsActive, thresholds.SampleIsOpen)


@require_safe
@needs("read")
def overview(request: Request, dataset: Dataset) -> HttpResponse:
    """What a dataset is made of, what machines did with it, and what is next."""
    return render(request, "reviews/overview.html", _overview(dataset, request.user))


@require_safe
@needs("read")
def progress(request: Request, dataset: Dataset) -> HttpResponse:
    """How far the reading or the run is, for a page that asks every two seconds until it is over."""
    if not request.headers.get("HX-Request"):
        return redirect("reviews:overview", dataset.pk)
    tasks.sweep()
    context = _progress(dataset)
    response = render(request, "reviews/_progress.html", context)
    if not context["asks_again"]:
        response["HX-Refresh"] = "true"  # the page around it has other things to say now
    return response


@require_POST
@needs("manage")
def start(request: Request, dataset: Dataset) -> HttpResponse:
    """Start a run; a second click finds the first one's run."""
    method, typed = request.POST.get("method", ""), request.POST.get("budget", "").strip()
    try:
        learning.learn(dataset, method, request.user, _spend(request, typed))
    except tasks.RunIsActive as error:
        messages.info(request, str(error))
    except GIVE_UP as error:
        context = _overview(dataset, request.user) | {
            "method": method,
            "budget": typed,
            "start_error": str(error),
        }
        return render(request, "reviews/overview.html", context, status=422)
    return redirect("reviews:overview", dataset.pk)


def _spend(request: Request, typed: str) -> learning.Spend | None:
    """How a run may ask the language model, as it was typed. Raises: CannotLearn on a budget that is no number above 0."""
    if not typed:
        return None
    try:
        budget = Decimal(typed.replace(",", "."))
    except InvalidOperation:
        budget = Decimal(0)
    if not 0 < budget < 1_000_000:
        raise learning.CannotLearn("The budget is a number of USD above 0, for example 5.")
    return learning.Spend(budget, bool(request.POST.get("batch")), bool(request.POST.get("renew")))


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
    context = _progress(dataset) | {"tab": "overview", "manages": manages, "watches": watches}
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
    if watches:
        runs = dataset.runs.select_related("version", "requested_by").defer("version__state")
        titles = {one.name: one.title for one in learning.methods(dataset)} | {
            ROUND: "Round of the guided path"
        }
        context["runs"] = [(run, titles.get(run.version.method, "")) for run in runs.order_by("-number")[:20]]
    if manages:
        context |= {
            "methods": learning.methods(dataset),
            "method": "ensemble",
            "offer": learning.offer(dataset, latest) if active is None else None,
            "teaching": learning.can_end_teaching(dataset),
            "known": learning.count_known(dataset),
            "consequences": consequences.of_new_run(dataset) if latest is not None else None,
            "goal": path.active_goal(dataset),
            "replayable": context["states"].given and may_create(user),
        }
    return context


def _labels(dataset: Dataset) -> list[tuple[Label, int]]:
    """The labels with the number of items that came with each."""
    given = Item.objects.filter(dataset=dataset, given_label__isnull=False)
    counts = dict(given.values_list("given_label").annotate(n=Count("pk")).order_by())
    return [(label, counts.get(label.pk, 0)) for label in dataset.labels.all()]


def _progress(dataset: Dataset) -> dict[str, Any]:
    """The facts of the fragment; ``asks_again`` says whether there is anything left to wait for."""
    role = dataset.role
    context: dict[str, Any] = {
        "dataset": dataset,
        "role": role,
        "manages": allows(role, "manage"),
        "run": None,
        "asks_again": False,
    }
    if dataset.ready_at is None:
        return context | _reading(dataset)
    run = dataset.runs.active().select_related("version").defer("version__state").first()
    if run is None:
        return context
    done = slices.progress(run)
    latest = thresholds.in_force(dataset)
    context |= {
        "run": run,
        "done": done,
        "asks_again": True,
        "ready_at": _clock(done.seconds_left) if run.state == "running" else None,
        "sides": _sides(run, latest),
        "threshold": latest,
        "problems": _problems(run),
        "last": _last(run),
    }
    if run.paused_at is None and not done.worked_on:
        context |= {"no_worker": not workers_alive(), "queue_down": not queue_answers()}
    return context


def _reading(dataset: Dataset) -> dict[str, Any]:
    draft = getattr(dataset, "draft", None)
    if dataset.problem or draft is None:
        return {"reading": None}
    path = Path(draft.path)
    size = path.stat().st_size if path.exists() else 0
    fresh = draft.beat_at is not None and slices.now() - draft.beat_at < dt.timedelta(seconds=10)
    waits = {} if fresh else {"no_worker": not workers_alive(), "queue_down": not queue_answers()}
    return {"reading": {"read": draft.bytes_read, "size": size}, "asks_again": True} | waits


def _clock(seconds: float | None) -> dt.datetime | None:
    return timezone.now() + dt.timedelta(seconds=seconds) if seconds is not None else None


def _sides(run: Run, latest: Threshold | None) -> dict[str, int]:
    """What this run would accept and flag at the threshold in force; its problems are among the flagged."""
    mine = Prediction.objects.filter(run=run)
    rank = latest.rank if latest else ACCEPT_NOTHING
    problems = mine.filter(open=True, rank=0, label=None).count()
    accepted = mine.accepted(rank).count() if rank < ACCEPT_NOTHING else 0
    return {
        "accepted": accepted,
        "flagged": mine.filter(open=True).count() - accepted - problems,
        "problems": problems,
    }


def _problems(run: Run) -> list[tuple[str, int]]:
    found = (
        Prediction.objects.filter(run=run, open=True, rank=0, label=None)
        .values("problem")
        .annotate(n=Count("pk"))
    )
    return [(PROBLEMS.get(word := one["problem"] or "", word), one["n"]) for one in found.order_by("-n")]


def _last(run: Run) -> list[Prediction]:
    """The items labeled last, without those that somebody answers blind just now."""
    newest = Prediction.objects.filter(run=run, open=True).exclude(label=None).order_by("-pk")
    return list(newest.select_related("item", "label")[:LAST])
