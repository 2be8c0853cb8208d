"""The review page: one item, one key, the next item."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_GET, require_POST

from datasets.access import Request, needs
from datasets.models import Dataset, Item, Label
from reviews import cards, decisions, path, queue, rounds, samples, thresholds
from reviews.forms import DecisionForm, RemarkForm
from reviews.models import Decision, Purpose, Remark, Sample

KEYS = [  # the cheat sheet and the buttons are made from this table, so they cannot differ
    ("1 … 0", "Choose a label and go on", ""),
    ("Enter", "Confirm the suggestion, or the first label found", "enter"),
    ("/", "Find a label by typing", "/"),
    ("s", "Skip: it comes back at the end, to others first", "s"),
    ("c", "Can't tell", "c"),
    ("f", "Ask the manager", "f"),
    ("e", "Write a note (Esc goes back)", "e"),
    ("u", "Undo, as often as you like", "u"),
    ("?", "All keys", "?"),
]


def client_of(request: Request) -> str:
    """What holds a claim beside the user: this browser session."""
    return request.session.session_key or ""


@require_GET
@needs("review")
def review(request: Request, dataset: Dataset) -> HttpResponse:
    """The queue, least certain first; a lane to teach the machine comes before it."""
    return render(request, "reviews/review.html", _page(request, dataset))


@require_GET
@needs("review")
def next_card(request: Request, dataset: Dataset) -> HttpResponse:
    """The next card alone, for a page that is already open."""
    if not request.htmx:
        return redirect("reviews:review", dataset.pk)
    return render(request, "reviews/_card.html", _page(request, dataset))


@require_POST
@needs("review")
def decide(request: Request, dataset: Dataset, item_id: int) -> HttpResponse:
    """Store a decision and answer with the next card."""
    item = get_object_or_404(Item, pk=item_id, dataset=dataset)
    form = DecisionForm(request.POST, labels=Label.objects.filter(dataset=dataset, retired_at=None))
    if not form.is_valid():
        return _refuse(request, dataset, item, _sentences(form), 422)
    data = form.cleaned_data
    try:
        stored = decisions.decide(
            item, request.user, data["outcome"], data["label"], data["uuid"], data["note"], data["seconds"]
        )
    except decisions.Conflict as error:
        return _refuse(request, dataset, item, str(error), 409)
    except decisions.NotAllowed as error:
        return _refuse(request, dataset, item, str(error), 422)
    sample = stored.decision.sample
    closed = sample is not None and sample.is_open and samples.close_when_answered(sample)
    path.advance(dataset.pk)
    if closed and sample is not None:
        if sample.purpose == Purpose.TRAINING:
            messages.success(request, "That was the last one.")
            return _go(
                request, "reviews:guide" if path.active_goal(dataset) else "reviews:overview", dataset.pk
            )
        messages.success(request, "That was the last one. The result is below.")
        return _go(request, "reviews:sample", dataset.pk, sample.pk)
    if stored.kind == "extra" and stored.current is not None:
        said = stored.current.label or "can't tell"
        messages.info(
            request,
            f"{stored.current.reviewer.get_username()} had already answered {said} for item {item.position}. "
            "Your answer is kept beside it, as a second vote.",
        )
    return _onward(request, dataset, sample)


@require_POST
@needs("review")
def undo(request: Request, dataset: Dataset) -> HttpResponse:
    """Take back the last answer and show its item again."""
    within = _lane(request, dataset)
    undone = decisions.undo(dataset, request.user, within)
    if undone is None:
        messages.info(request, "There is no answer of yours left to take back.")
        return _onward(request, dataset, within)
    sample = undone.sample if undone.sample is not None and undone.sample.is_open else None
    claim = queue.claim_again(dataset, request.user, client_of(request), undone.item_id, sample)
    what = undone.label.name if undone.label else undone.get_outcome_display().lower()
    messages.success(request, f"Took back “{what}” for item {undone.item.position}.")
    return _onward(request, dataset, sample, claim)


@require_POST
@needs("review")
def remark(request: Request, dataset: Dataset, item_id: int) -> HttpResponse:
    """Skip an item, ask the manager about it, or note something on it."""
    item = get_object_or_404(Item, pk=item_id, dataset=dataset)
    form = RemarkForm(request.POST)
    if not form.is_valid():
        return _refuse(request, dataset, item, _sentences(form), 422)
    lane = _lane(request, dataset)
    decisions.remark(item, request.user, form.cleaned_data["kind"], form.cleaned_data["text"])
    told = {
        Remark.Kind.SKIP: f"Item {item.position} comes back at the end.",
        Remark.Kind.ASK: f"The manager is asked about item {item.position}.",
        Remark.Kind.NOTE: "The note is kept.",
    }
    messages.info(request, told[form.cleaned_data["kind"]])
    return _onward(request, dataset, lane)


@require_POST
@needs("review")
def renew(request: Request, dataset: Dataset, item_id: int) -> HttpResponse:
    """Keep the item on screen for this reviewer; 409 once it went to somebody else."""
    get_object_or_404(Item, pk=item_id, dataset=dataset)
    held = queue.renew(item_id, request.user, client_of(request))
    return HttpResponse(status=204 if held else 409)


@require_GET
@needs("read")
def item(request: Request, dataset: Dataset, item_id: int) -> HttpResponse:
    """One item with its whole history; a reviewer can answer it again."""
    found = get_object_or_404(Item, pk=item_id, dataset=dataset)
    card = cards.card_of_item(found, dataset, thresholds.in_force(dataset))
    context = {
        "dataset": dataset,
        "role": dataset.role,
        "tab": "review",
        "card": card,
        "single": True,
        "keys": KEYS,
    }
    return render(request, "reviews/item.html", context)


def _sentences(form: forms.Form) -> str:
    return " ".join(str(error) for errors in form.errors.values() for error in errors)


def _lane(request: Request, dataset: Dataset) -> Sample | None:
    """The open sample that the page says it is working on; nothing else is believed."""
    lane = request.POST.get("lane", "")
    if not lane.isdigit():
        return None
    return Sample.objects.open().filter(pk=int(lane), dataset=dataset).first()


def _page(request: Request, dataset: Dataset, claim: Any = None, error: str = "") -> dict[str, Any]:
    threshold = thresholds.in_force(dataset)
    by_target = threshold is not None and (threshold.accepts_nothing or threshold.sample_id is not None)
    goal = path.active_goal(dataset) if by_target else None
    context: dict[str, Any] = {
        "dataset": dataset, "role": dataset.role, "tab": "review", "keys": KEYS, "error": error,
        "threshold": threshold, "goal": goal, "asked": dataset.role in ("owner", "manager") and queue.first_asked(dataset),
    }  # fmt: skip
    if threshold is None:
        return context
    teaching = thresholds.open_sample(dataset)
    if teaching is not None and teaching.purpose == Purpose.TRAINING:
        return context | sample_context(request, dataset, teaching, claim)
    skipped = request.GET.get("skipped") == "1"
    if claim is None:
        claim = queue.claim_next(dataset, request.user, client_of(request), threshold, skipped=skipped)
    return context | {
        "card": cards.card_of(claim, dataset, threshold) if claim else None,
        "left": queue.count_left(threshold),
        "many": queue.COUNT_AT_MOST,
        "skipped": 0 if claim else queue.count_skipped(threshold, request.user),
        "blocking": teaching,
        "lesson": rounds.lesson(goal) if goal and threshold.sample is None else None,
        "last": cards.last_answers(dataset, request.user, None),
    }


def sample_context(request: Request, dataset: Dataset, sample: Sample, claim: Any = None) -> dict[str, Any]:
    """What the page of an open sample shows: a blind card and how many are answered."""
    looked = sample.purpose != Purpose.TRAINING and samples.has_looked(sample, request.user)
    if claim is None and not looked:
        claim = queue.claim_drawn(dataset, request.user, client_of(request), sample)
    answered = Decision.objects.answers().filter(sample=sample).values("item").distinct().count()
    return {
        "sample": sample,
        "card": cards.card_of(claim, dataset, None) if claim else None,
        "answered": answered,
        "place": answered + 1,
        "looked": looked,
        "ready_to_learn": sample.purpose == Purpose.TRAINING and answered >= samples.ENOUGH_TO_LEARN,
        "last": cards.last_answers(dataset, request.user, sample),
    }


def _onward(request: Request, dataset: Dataset, sample: Sample | None, claim: Any = None) -> HttpResponse:
    """The next card for a script, or the page for plain HTML."""
    in_check = sample is not None and sample.purpose != Purpose.TRAINING
    if not request.htmx:
        if in_check and sample is not None:
            return redirect("reviews:sample", dataset.pk, sample.pk)
        return redirect("reviews:review", dataset.pk)
    if in_check and sample is not None:
        context = {"dataset": dataset, "role": dataset.role, "tab": "spot", "keys": KEYS}
        return render(
            request, "reviews/_card.html", context | sample_context(request, dataset, sample, claim)
        )
    return render(request, "reviews/_card.html", _page(request, dataset, claim))


def _refuse(request: Request, dataset: Dataset, item: Item, sentence: str, status: int) -> HttpResponse:
    """The same item again with the reason; nothing was stored."""
    lane = _lane(request, dataset)
    claim = queue.claim_again(dataset, request.user, client_of(request), item.pk, lane)
    context = _page(request, dataset, claim, sentence)
    if lane is not None:
        context |= sample_context(request, dataset, lane, claim)
    template = "reviews/_card.html" if request.htmx else "reviews/review.html"
    return render(request, template, context, status=status)


def _go(request: Request, name: str, *args: int) -> HttpResponse:
    """Leave the page, also from within a fragment."""
    answer = redirect(name, *args)
    if request.htmx:
        return HttpResponse(status=204, headers={"HX-Redirect": answer["Location"]})
    return answer
