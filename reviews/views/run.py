"""The page of one run: what it did, what it cost, what went wrong, and how far its confidence goes. Reads only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db.models import Count, Exists, Max, Min, OuterRef
from django.db.models.functions import Length
from django.http import HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, render
from django.views.decorators.http import require_GET

from datasets import money, questions, slices
from datasets.access import Request, needs
from datasets.labeling import MODEL, ROUND
from datasets.models import Call, Dataset, Item, LabelerVersion, MessageBatch, Prediction, Run, Vote
from labelhub.autolabel.labelers.prompt import LONGEST_TEXT
from labelhub.autolabel.labelers.state import read_state
from labelhub.autolabel.rank import confidence_of
from reviews import learning, ledger, thresholds
from reviews.cards import PROBLEMS

CALL_PROBLEMS = {
    "busy": "came too soon for the rate limit",
    "overloaded": "the service was overloaded",
    "server": "the service had an error of its own",
    "timeout": "no answer in time",
    "connection": "the service could not be reached",
    "rejected": "the service rejected the request",
    "key": "the key was not accepted",
    "forbidden": "the key may not use the model",
    "credit": "no credit was left",
    "spend_limit": "the spend limit was reached",
    "model": "the model is unknown or retired",
    "refused": "the model refused to answer",
    "truncated": "the answer was cut off",
    "too_long": "the texts were too long",
    "malformed": "the answer could not be read",
    "errored": "failed inside a batch",
    "expired": "the batch ended before its turn",
    "canceled": "the batch was cancelled before its turn",
    "no_result": "the batch brought nothing for it",
    "not_sent": "never sent: the run had ended",
}
CALIBRATED = ("weak_model", "stack")  # ways of the ensemble whose confidence was learned from answers


@require_GET
@needs("watch")
def run(request: Request, dataset: Dataset, number: int) -> HttpResponse:
    """What a run did and cost."""
    found = _find(dataset, number)
    context = facts(found) | {"dataset": dataset, "role": dataset.role, "tab": "overview", "run": found}
    return render(request, "reviews/run.html", context)


@require_GET
@needs("watch")
def run_json(request: Request, dataset: Dataset, number: int) -> HttpResponse:
    """The same for programs; amounts are USD."""
    response = JsonResponse(as_json(_find(dataset, number)), json_dumps_params={"indent": 1})
    response["Cache-Control"] = "no-store"
    return response


def titles(methods: Sequence[learning.Method]) -> dict[str, str]:
    """The names of methods for people; a round has one too."""
    return {one.name: one.title for one in methods} | {ROUND: "Round of the guided path"}


def _find(dataset: Dataset, number: int) -> Run:
    runs = dataset.runs.select_related("version", "requested_by", "dataset").defer("version__state")
    return get_object_or_404(runs, number=number)


def facts(found: Run) -> dict[str, Any]:
    """Collect what is known of a run; what it paid only where it may pay."""
    version = found.version
    in_force, problems = thresholds.in_force(found.dataset), _problems(found)
    told: dict[str, Any] = {
        "title": titles(learning.methods(found.dataset)).get(version.method, version.method),
        "done": slices.progress(found),
        "in_force": in_force is not None and in_force.run_id == found.pk,
        "model_name": version.settings.get("model", ""),
        "prompt_hash": version.settings.get("prompt_hash", ""),
        "address": questions.options(version).get("address", ""),
        "problems": problems,
        "reasons": [(PROBLEMS.get(problem, problem), n) for problem, n in problems],
        "confidence": _confidence(version),
        "uninformative": _uninformative(found),
        "cut": _cut(found),
        "longest": LONGEST_TEXT,
        "money": None,
        "seconds": (found.finished_at - found.started_at).total_seconds()
        if found.finished_at and found.started_at
        else None,
    }
    if found.budget_nano is None:
        return told
    spending = money.spending(found)
    lost = money.lost_calls(found)
    estimate = found.estimate
    return told | {
        "money": {"spent": spending.spent_usd, "cap": money.to_usd(found.budget_nano)},
        "estimate": estimate if "high_usd" in estimate else None,
        "spending": spending,
        "call_problems": [(CALL_PROBLEMS.get(kind, kind), n) for kind, n in spending.problems],
        "cost": ledger.model_cost(spending.spent_usd, [found]),
        "lost": _named(found.dataset, lost),
        "batches": [(batch, _state(batch)) for batch in found.batches.order_by("pk")],
    }


def _problems(found: Run) -> list[tuple[str, int]]:
    """Why items have no label, most frequent first."""
    without = (
        Prediction.objects.filter(run=found, rank=0, label=None).values("problem").annotate(n=Count("pk"))
    )
    return [(one["problem"] or "", one["n"]) for one in without.order_by("-n", "problem")]


def _confidence(version: LabelerVersion) -> dict[str, Any] | None:
    """Where a run's confidence comes from: as stated by the model, or learned from answers; None for other methods."""
    if version.method == MODEL:
        return {"learned": False, "way": MODEL}
    if version.method != learning.ENSEMBLE:
        return None
    state = LabelerVersion.objects.values_list("state", flat=True).get(pk=version.pk)
    if not state:
        return None
    way = read_state(bytes(state))[0]["way"]
    given = Item.objects.filter(dataset=version.dataset_id, given_label__isnull=False, same_as=None).count()
    return {"learned": way in CALIBRATED, "way": way, "answers": len(version.examples) + given}


def _uninformative(found: Run) -> str:
    """Why a run's confidence says nothing about which labels are right; empty where it may say something."""
    labeled = Prediction.objects.filter(run=found, label__isnull=False)
    seen = labeled.aggregate(n=Count("pk"), low=Min("rank"), high=Max("rank"))
    if seen["n"] < 2:
        return ""
    if labeled.values("label").distinct().count() == 1:
        return "Every item got the same label."
    if confidence_of(seen["low"]) == confidence_of(seen["high"]):
        return "Every item got the same confidence."
    return ""


def _cut(found: Run) -> int:
    """Count the texts of which a model saw only the beginning and the end."""
    asked = [question.version_id for question in questions.of_version(found.version).values()]
    if not asked:
        return 0
    answered = Vote.objects.filter(version__in=asked, item=OuterRef("item"))
    mine = Prediction.objects.filter(run=found).annotate(length=Length("item__text"))
    return mine.filter(Exists(answered), length__gt=LONGEST_TEXT).count()


def _named(dataset: Dataset, lost: Sequence[Call]) -> list[tuple[Call, Any, list[tuple[int, int]]]]:
    """Lost calls with what was reserved for each, and their items as (id, position)."""
    ids = {pk for call in lost for pk in call.items}
    positions = dict(Item.objects.filter(dataset=dataset, pk__in=ids).values_list("pk", "position"))
    return [
        (
            call,
            money.to_usd(call.reserved_nano),
            [(pk, positions[pk]) for pk in call.items if pk in positions],
        )
        for call in lost
    ]


def _state(batch: MessageBatch) -> str:
    if batch.collected_at:
        return "answers are in"
    if batch.cancelled_at:
        return "cancelled, its answers are awaited"
    return "answers are awaited" if batch.api_id else "not handed in yet"


def as_json(found: Run) -> dict[str, Any]:
    """A run for programs: plain numbers, amounts in USD, times in ISO format."""
    told = facts(found)
    done = told["done"]
    plain: dict[str, Any] = {
        "dataset": found.dataset_id,
        "run": found.number,
        "method": found.version.method,
        "trial": found.trial,
        "state": found.state,
        "in_force": told["in_force"],
        "problem": found.problem,
        "requested_by": found.requested_by.get_username() if found.requested_by else None,
        **{
            name: moment.isoformat() if moment else None
            for name, moment in (
                ("requested_at", found.requested_at),
                ("started_at", found.started_at),
                ("finished_at", found.finished_at),
                ("cancelled_at", found.cancelled_at),
            )
        },
        "items": done.items,
        "labeled": done.done - sum(n for _, n in told["problems"]),
        "without_label": dict(told["problems"]),
        "texts_cut": told["cut"],
        "confidence": told["confidence"],
        "confidence_warning": told["uninformative"],
        "model": told["model_name"],
        "prompt_hash": told["prompt_hash"],
        "address": told["address"],
    }
    if told["money"] is None:
        return plain | {"cost": None}
    spending, cost = told["spending"], told["cost"]
    return plain | {
        "cost": {
            "usd": float(spending.spent_usd),
            "budget_usd": float(told["money"]["cap"]),
            "estimate": told["estimate"],
            "usd_per_item": float(cost.usd_per_item) if cost.usd_per_item is not None else None,
            "by_label": [
                {"label": line.label or None, "answers": line.answers, "usd": float(line.usd)}
                for line in cost.by_label
            ],
            "usd_without_answer": float(cost.usd_without_answer),
            "calls": spending.calls,
            "calls_under_way": spending.under_way,
            "calls_by_problem": dict(spending.problems),
            "tokens_in": spending.tokens_in,
            "tokens_out": spending.tokens_out,
            "lost_calls": spending.lost,
            "lost_usd": float(spending.lost_usd),
            "lost": [
                {"reserved_at": call.reserved_at.isoformat(), "reserved_usd": float(usd), "items": call.items}
                for call, usd, _ in told["lost"]
            ],
            "batches": [
                {"wave": batch.wave, "requests": batch.requests, "state": state}
                for batch, state in told["batches"]
            ],
            "local_stand_in": spending.fake,
        }
    }
