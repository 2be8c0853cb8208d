"""What the language model is told, a trial of it, and which prompt would save most: before a run is paid for."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.db.models.functions import Length
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from datasets import questions
from datasets.access import Request, needs
from datasets.model_settings import current, is_local, missing, where
from datasets.models import Dataset, Item, Vote
from datasets.money import NoPrice
from labelhub.autolabel.labelers.llm import CallFailed
from labelhub.autolabel.labelers.prompt import BEGINNING, LONGEST_TEXT, WORDINGS
from reviews import comparisons, estimates, learning, prompts, tasks, thresholds, trials
from reviews.cards import PROBLEMS
from reviews.export import disposition
from reviews.model_forms import PromptForm, TrialForm, VariantForm
from reviews.models import Decision
from reviews.views.progress import progress_of
from reviews.views.start_form import cap_for, read_usd

GIVE_UP = (learning.CannotLearn, tasks.RunIsActive, thresholds.SampleIsOpen)
SHOWN_TEXTS = 2  # items of the dataset in the request that is shown
get_or_post = require_http_methods(["GET", "HEAD", "POST"])


@get_or_post
@needs("manage")
def prompt(request: Request, dataset: Dataset) -> HttpResponse:
    """Show what is sent, and store other guidelines and definitions."""
    form = PromptForm(request.POST if request.method == "POST" else None, dataset=dataset)
    if request.method == "POST" and form.is_valid():
        said = form.cleaned_data
        if prompts.change(dataset, request.user, said["guidelines"], said["definitions"]):
            messages.success(
                request, "The prompt is changed. It holds for runs that are started from now on."
            )
        else:
            messages.info(request, "Nothing was changed.")
        return redirect("reviews:prompt", dataset.pk)
    status = 422 if form.is_bound else 200
    return render(request, "reviews/prompt.html", _prompt(dataset) | {"form": form}, status=status)


def _page(dataset: Dataset, here: str) -> dict[str, Any]:
    return {
        "dataset": dataset, "role": dataset.role, "tab": "model", "here": here, "site": current(), "where": where(),
        "is_local": is_local(), "lacks": missing(),
    }  # fmt: skip


def _prompt(dataset: Dataset) -> dict[str, Any]:
    context = _page(dataset, "prompt")
    if not dataset.labels.filter(retired_at=None).exists():
        return context | {"told": None}
    site, told = current(), prompts.compose(dataset)
    texts = Item.objects.filter(dataset=dataset, same_as=None, excluded=None)
    two = list(texts.order_by("text_hash").values_list("text", flat=True)[:SHOWN_TEXTS])
    return context | {
        "told": told,
        "paid": prompts.paid(dataset),
        "system": told.prompt.system(),
        "body": told.prompt.body(two) if two else "",
        "schema": json.dumps(told.prompt.schema(), indent=1, ensure_ascii=False),
        "columns": dataset.mapping.get("text") or [],
        "examples": _examples(dataset, told),
        "enough": prompts.ENOUGH,
        "reviewed": len(prompts.reviewed(dataset)),
        "fingerprint": told.prompt.fingerprint(site.model),
        "wordings": [(n, words, n <= site.asks) for n, words in enumerate(WORDINGS, 1)],
        "longest": LONGEST_TEXT,
        "beginning": BEGINNING,
        "ending": LONGEST_TEXT - BEGINNING,
        "cut": texts.annotate(n=Length("text")).filter(n__gt=LONGEST_TEXT).count(),
        "suspects": _suspects(dataset),
    }


def _examples(dataset: Dataset, told: prompts.Told) -> list[tuple[str, str, str]]:
    """Text, label and origin of each example that is shown."""
    given = set(
        Item.objects.filter(pk__in=told.shown, given_label__isnull=False).values_list("pk", flat=True)
    )
    answers = Decision.objects.current().filter(dataset=dataset, item__in=told.shown)
    lanes = dict(answers.values_list("item", "purpose"))
    words = {"training": "answered in the lane to teach", "review": "answered in review"}
    return [
        (
            one.text,
            one.label,
            words.get(lanes.get(pk, ""), "came with the file" if pk in given else "answered before"),
        )
        for pk, one in zip(told.shown, told.prompt.examples, strict=True)
    ]


def _suspects(dataset: Dataset) -> dict[str, int] | None:
    """How many texts of the last run look as if they told the model what to say; None before a first run."""
    asked = questions.latest(dataset).get(questions.FIRST)
    if asked is None:
        return None
    votes = Vote.objects.filter(version=asked.version_id)
    certain = votes.filter(suspect__startswith="certain").count()
    return {"certain": certain, "possible": votes.exclude(suspect="").count() - certain, "of": votes.count()}


@get_or_post
@needs("manage")
def trial(request: Request, dataset: Dataset) -> HttpResponse:
    """Start a trial, and show what the last one brought."""
    form = TrialForm(request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        try:
            budget = read_usd(form.cleaned_data["budget"]) if form.cleaned_data["budget"] else None
            trials.try_out(dataset, request.user, form.cleaned_data["size"], budget)
            return redirect("reviews:trial", dataset.pk)
        except tasks.RunIsActive as error:
            messages.info(request, str(error))
            return redirect("reviews:trial", dataset.pk)
        except GIVE_UP as error:
            form.add_error(None, str(error))
    status = 422 if form.is_bound else 200
    return render(request, "reviews/trial.html", _trial(dataset) | {"form": form}, status=status)


def _trial(dataset: Dataset) -> dict[str, Any]:
    context = _page(dataset, "trial") | progress_of(dataset) | {"blocked": _blocked(dataset)}
    context |= {"least": trials.LEAST, "most": trials.MOST}
    if context["run"] is not None:
        return context
    last = trials.latest(dataset)
    if last is not None:
        found = trials.results(last)
        said = [(one, PROBLEMS.get(one.problem, one.problem)) for one in found.lines]
        context |= {"results": found, "lines": said}
    if context["lacks"]:
        return context
    try:
        learning.check(dataset, learning.MODEL)
        whole = estimates.estimate(dataset, learning.MODEL)
    except (learning.CannotLearn, NoPrice, CallFailed) as error:
        return context | {"no_estimate": str(error)}
    return context | {"whole": whole, "cap": cap_for(whole.per_item_usd * trials.USUAL * 2)}


def _blocked(dataset: Dataset) -> str:
    """Why nothing can be started now, besides a run that is under way."""
    try:
        thresholds.check_no_sample(dataset)
    except thresholds.SampleIsOpen as error:
        return str(error)
    return ""


@dataclass(frozen=True)
class Offer:
    """What asking costs: prompt A about the items that it has not answered, and prompt B about all of them, in USD."""

    missing: int
    present_usd: float = 0.0
    variant_usd: float = 0.0
    why_not: str = ""


@get_or_post
@needs("manage")
def whatif(request: Request, dataset: Dataset) -> HttpResponse:
    """Ask prompt A or B about reviewed items, say what that would cost, and compare the ways to label."""
    name = request.POST.get("ask", "")
    form = VariantForm(request.POST if request.method == "POST" and name != prompts.PRESENT else None)
    problem = ""
    if request.method == "POST" and (name == prompts.PRESENT or form.is_valid()):
        said = form.cleaned_data if name != prompts.PRESENT else {}
        try:
            if "estimate" not in request.POST:
                comparisons.ask(dataset, request.user, name or comparisons.VARIANT, **said)
                return redirect("reviews:whatif", dataset.pk)
            told, only = comparisons.to_ask(dataset, comparisons.VARIANT, **said)
            cost = trials.cost_of(dataset, told, only)
            context = _whatif(dataset, form) | {"typed_cost": cost, "typed_items": len(only) - cost.known}
            return render(request, "reviews/whatif.html", context)
        except tasks.RunIsActive as error:
            messages.info(request, str(error))
            return redirect("reviews:whatif", dataset.pk)
        except GIVE_UP as error:
            problem = str(error)
    context = _whatif(dataset, form) | {"start_error": problem}
    return render(request, "reviews/whatif.html", context, status=422 if request.method == "POST" else 200)


def _whatif(dataset: Dataset, form: VariantForm) -> dict[str, Any]:
    context = _page(dataset, "whatif") | progress_of(dataset) | {"blocked": _blocked(dataset), "form": form}
    context |= {"least": comparisons.LEAST, "most": comparisons.MOST}
    if dataset.ready_at is None or not dataset.labels.filter(retired_at=None).exists():
        return context | {"now": None}
    now = comparisons.trying(dataset)
    context |= {"now": now, "enough": len(now.items) >= comparisons.LEAST}
    if not form.is_bound:
        before = now.variant or now.present
        context["form"] = VariantForm(
            initial={
                "guidelines": before.guidelines,
                "examples": bool(before.told.shown) or now.variant is None,
            }
        )
    if not context["enough"]:
        return context
    if context["run"] is None:
        context["found"] = comparisons.compare(dataset, now)
        context |= {"offer": _offer(dataset, now), "cap": estimates.LEAST_BUDGET}
    return context


def _offer(dataset: Dataset, now: comparisons.Trying) -> Offer:
    left = now.present.missing(now.items)
    try:
        cost = trials.cost_of(dataset, (now.variant or now.present).told, [pk for pk, _ in now.items])
    except learning.CannotLearn as error:
        return Offer(len(left), why_not=str(error))
    return Offer(len(left), cost.per_item_usd * len(left), cost.per_item_usd * len(now.items))


@require_POST
@needs("manage")
def whatif_use(request: Request, dataset: Dataset) -> HttpResponse:
    """Make prompt B the prompt of the dataset."""
    if comparisons.use_variant(dataset, request.user):
        messages.success(
            request,
            "Prompt B is the prompt of this dataset now. It holds for runs that are started from now on.",
        )
    else:
        messages.info(request, "There is no prompt B that could be used.")
    return redirect("reviews:prompt", dataset.pk)


@require_GET
@needs("manage")
def whatif_json(request: Request, dataset: Dataset) -> HttpResponse:
    """The comparison as a file for machines."""
    now = comparisons.trying(dataset) if dataset.labels.filter(retired_at=None).exists() else None
    found = comparisons.compare(dataset, now) if now else None
    plain = comparisons.as_json(dataset, now, found) if now else {}
    text = json.dumps(plain, indent=1, ensure_ascii=False)
    response = HttpResponse(f"{text}\n", content_type="application/json; charset=utf-8")
    response["Content-Disposition"] = disposition(f"whatif-{dataset.pk}.json")
    response["X-Content-Type-Options"] = "nosniff"
    response["Cache-Control"] = "no-store"
    return response
