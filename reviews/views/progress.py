"""What a dataset is waiting for: its file that is being read, or its run that is under way, and what that waits for."""

from __future__ import annotations

import datetime as dt
import math
from decimal import ROUND_CEILING
from pathlib import Path
from typing import Any

from django.db.models import Count, Max, Min
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.http import require_safe

from datasets import gates, money, questions, slices
from datasets.access import Request, allows, needs
from datasets.models import Call, Dataset, Prediction, Run, Slice
from datasets.tasks import queue_answers, workers_alive
from labelhub.autolabel.rank import ACCEPT_NOTHING
from reviews import tasks, thresholds
from reviews.cards import PROBLEMS
from reviews.estimates import LEAST_BUDGET
from reviews.models import Threshold
from reviews.views.start_form import CENT

LAST = 3  # labeled items shown while a run is under way
RATE_LIMIT = "busy"  # the problem of a call that came too soon


@require_safe
@needs("read")
def progress(request: Request, dataset: Dataset) -> HttpResponse:
    """How far the reading or the run is, for a page that asks every two seconds until it is over."""
    if not request.headers.get("HX-Request"):
        return redirect("reviews:overview", dataset.pk)
    tasks.sweep()
    context = progress_of(dataset)
    response = render(request, "reviews/_progress.html", context)
    if not context["asks_again"]:
        response["HX-Refresh"] = "true"  # the page around it has other things to say now
    return response


def progress_of(dataset: Dataset) -> dict[str, Any]:
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
    context |= _asking(run)
    if run.paused_at is None and not done.worked_on and not context["waits"] and not context["batches"]:
        context |= {"no_worker": not workers_alive(), "queue_down": not queue_answers()}
    return context


def _asking(run: Run) -> dict[str, Any]:
    """Of a run that may ask a language model: what it has spent, and what it waits for."""
    crashed = Slice.objects.filter(run=run, done_at=None, attempts__gte=slices.MOST_ATTEMPTS)
    facts: dict[str, Any] = {
        "money": None,
        "waits": [],
        "batches": None,
        "crashed": run.paused_at is not None and crashed.exists(),
    }
    if run.budget_nano is None:
        return facts
    calls = Call.objects.filter(run=run, batch=None, settled_at=None, lost_at=None)
    spent, cap = money.to_usd(run.spent_nano), money.to_usd(run.budget_nano)
    facts["money"] = {
        "spent": spent,
        "cap": cap,
        "share": f"{min(spent / cap, 1):.4f}" if cap else "1",
        "under_way": calls.count(),
        "expected": run.estimate.get("expected_usd"),
        "used_up": money.is_at_cap(run),
        "next_cap": max(2 * cap, cap + LEAST_BUDGET).quantize(CENT, ROUND_CEILING),
    }
    if run.paused_at is None:
        facts["waits"] = _closed_gates(run)
        batches = run.batches.filter(collected_at=None).aggregate(
            n=Count("pk"), since=Min("submitted_at"), until=Max("expires_at")
        )
        facts["batches"] = batches if batches["n"] else None
    return facts


def _closed_gates(run: Run) -> list[dict[str, Any]]:
    """Why nobody calls a model just now, for each that the run asks."""
    found = []
    for name in sorted({question.gate for question in questions.of_version(run.version).values()}):
        gate = gates.closed(name)
        if gate is None or gate.closed_until is None:
            continue
        last = Call.objects.filter(run=run, gate=name).exclude(settled_at=None, lost_at=None).order_by("-pk")
        seconds = (gate.closed_until - slices.now()).total_seconds()
        found.append(
            {
                "limited": last.values_list("problem", flat=True).first() == RATE_LIMIT,
                "since": gate.failing_since,
                "seconds": max(math.ceil(seconds), 1),
                "reason": gate.reason,
            }
        )
    return found


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
