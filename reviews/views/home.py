"""All datasets of a person, each with its state and the next useful act for his role."""

from __future__ import annotations

from dataclasses import dataclass

from django.db.models import Exists, OuterRef, Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_safe

from datasets import slices
from datasets.access import allows, may_create, open_to
from datasets.models import Dataset, Run
from reviews.models import Goal, Purpose, Sample, Threshold, Verdict
from reviews.states import States, states_of

SHOWN = 200  # datasets on the page; the search finds the others


@dataclass
class Line:
    """One dataset on the page. ``urgency`` sorts: what waits for this person comes first."""

    dataset: Dataset
    states: States | None
    act: str = "Open"
    address: str = ""
    urgency: int = 9
    progress: slices.Progress | None = None
    trouble: str = ""
    note: str = ""

    @property
    def bar(self) -> list[tuple[str, int, int]]:
        """(state, start, width) of the strip; the widths sum to ``total``."""
        if self.states is None:
            return []
        parts, start = [], 0
        for state, n in (
            ("accepted", self.states.accepted),
            ("decided", self.states.decided),
            ("given", self.states.given),
            ("review", self.states.flagged),
            ("waiting", self.states.pending),
        ):
            if n:
                parts.append((state, start, n))
                start += n
        return parts

    @property
    def total(self) -> int:
        """The width of the strip."""
        return max(sum(width for _, _, width in self.bar), 1)


@require_safe
@open_to("signed_in")
def home(request: HttpRequest) -> HttpResponse:
    """List the datasets of this person, what needs him first."""
    asked, order = request.GET.get("q", "").strip()[:200], request.GET.get("sort", "needs")
    datasets = Dataset.objects.visible_to(request.user).order_by("-pk")
    found = list(datasets.filter(name__icontains=asked)[:SHOWN] if asked else datasets[:SHOWN])
    lines = _lines(found)
    if order == "name":
        lines.sort(key=lambda line: line.dataset.name.casefold())
    elif order != "newest":
        lines.sort(key=lambda line: line.urgency)  # stable: newest first among equals
    context = {
        "lines": lines,
        "asked": asked,
        "sort": order if order in ("name", "newest") else "needs",
        "creates": may_create(request.user),
        "more": len(found) == SHOWN,
    }
    return render(request, "reviews/home.html", context)


def _lines(found: list[Dataset]) -> list[Line]:
    """Gather all facts of all datasets in a few statements, then say what is next for each."""
    ready = [dataset for dataset in found if dataset.ready_at]
    counts = states_of(ready)
    latest = {t.dataset_id: t for t in Threshold.objects.filter(dataset__in=ready).order_by("pk")}
    samples = {
        sample.dataset_id: sample
        for sample in Sample.objects.filter(dataset__in=ready, superseded_at=None)
        .annotate(judged=Exists(Verdict.objects.filter(sample=OuterRef("pk"))))
        .order_by("pk")
    }
    guided = set(Goal.objects.active().filter(dataset__in=ready).values_list("dataset", flat=True))
    runs: dict[int, Run] = {}
    # A trial that is over changed nothing, so nobody has to hear of it here.
    heard_of = Q(trial=False) | Q(finished_at=None, cancelled_at=None)
    for run in Run.objects.filter(heard_of, dataset__in=ready).order_by("number"):
        runs[run.dataset_id] = run
    return [
        _line(
            dataset,
            counts.get(dataset.pk),
            latest.get(dataset.pk),
            samples.get(dataset.pk),
            runs.get(dataset.pk),
            dataset.pk in guided,
        )
        for dataset in found
    ]


def _line(
    dataset: Dataset,
    states: States | None,
    latest: Threshold | None,
    sample: Sample | None,
    run: Run | None,
    guided: bool,
) -> Line:
    role = dataset.role
    manages, answers = allows(role, "manage"), allows(role, "review")
    line = Line(dataset, states)

    def next_is(act: str, page: str, urgency: int, *args: int) -> Line:
        line.act, line.urgency = act, urgency
        line.address = reverse(f"reviews:{page}", args=[dataset.pk, *args])
        return line

    if dataset.problem:
        line.trouble = dataset.problem
        return next_is("See why", "overview", 0 if manages else 9)
    if dataset.ready_at is None:
        line.note = "reading the file"
        return next_is("Watch", "overview", 5)
    if run is not None and run.state in ("waiting", "running", "paused"):
        line.progress = slices.progress(run)
        if run.state == "paused":
            line.trouble = run.problem or "labeling is paused"
        if manages:
            return next_is("Go on" if line.trouble else "Watch", "overview", 1 if line.trouble else 5)
    if sample is not None and sample.is_open and answers:
        if sample.purpose == Purpose.TRAINING:
            return next_is("Teach", "review", 1)
        return next_is("Check", "sample", 1, sample.pk)
    if run is not None and run.state == "failed" and manages:
        line.trouble = run.problem or "labeling failed"
        return next_is("See why", "overview", 1)
    if latest is None:
        if manages:
            return next_is("Start labeling", "overview", 1)
        line.note = "not labeled yet"
        return next_is("Open", "overview", 9)
    if guided and manages:
        return next_is("Go on", "guide", 2)
    if manages and run is not None and run.state == "finished" and run.pk != latest.run_id:
        line.note = f"run {run.number} can be applied"
        return next_is(f"See run {run.number}", "overview", 2)
    if manages and sample is not None and sample.closed_at and _needs_verdict(sample):
        return next_is("Conclude the check", "sample", 2, sample.pk)
    if answers and states is not None and states.flagged > states.drawn:
        return next_is("Review", "review", 3)
    if manages:
        if states is not None and states.accepted and not _approved(sample, latest):
            return next_is("Spot check", "spot", 4)
        return next_is("Export", "export", 6)
    return next_is("See savings", "savings", 6) if allows(role, "watch") else next_is("Open", "overview", 9)


def _needs_verdict(sample: Sample) -> bool:
    return sample.purpose == Purpose.SPOT_CHECK and not sample.judged  # type: ignore[attr-defined]


def _approved(sample: Sample | None, latest: Threshold) -> bool:
    """Whether the labels accepted now were spot-checked and judged."""
    return bool(
        sample is not None
        and sample.purpose == Purpose.SPOT_CHECK
        and sample.judged  # type: ignore[attr-defined]
        and sample.run_id == latest.run_id
        and sample.threshold <= latest.rank
    )
