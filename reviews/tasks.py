"""Starting a run and carrying it on, whatever happens to workers and queue.

The rows say what is left to do. A job works slices for twenty seconds and enqueues itself
again; a job that got lost is found by `sweep`, a job too many finds nothing to do.
"""

from __future__ import annotations

import contextlib
import logging
import math
import secrets
import time
from typing import TYPE_CHECKING

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import Exists, Max, OuterRef
from django.utils import timezone

from datasets import batches, money, slices
from datasets.asking import Waits
from datasets.models import Dataset, LabelerVersion, MessageBatch, Run, Slice, record
from datasets.tasks import enqueue, is_enqueued, sweep_files
from labelhub.autolabel.labelers.llm import CallFailed
from reviews.models import Goal, Sample
from reviews.working import advance_soon, ring, to_label, work

if TYPE_CHECKING:
    from django.contrib.auth.models import User

log = logging.getLogger(__name__)


class RunIsActive(Exception):
    """A run of this dataset is under way; the message says so, ``run`` is the one."""

    def __init__(self, run: Run | None) -> None:
        super().__init__(f"Run {run.number} is under way." if run else "A run is under way.")
        self.run = run


def start(
    dataset: Dataset,
    version: LabelerVersion,
    by: User | None,
    rings: bool = True,
    *,
    budget: int | None = None,
    estimate: dict[str, object] | None = None,
    trial: bool = False,
) -> Run:
    """Make a run with its slices and ask for a worker; ``rings=False`` leaves the work to the caller.

    Args:
        budget: the most that it may pay a language model, in billionths of a USD.
        estimate: what it is expected to pay.
        trial: it labels the items that its version's settings name, and never takes force.
    Raises: RunIsActive when there is one already; the database decides who was first.
    """
    try:
        with transaction.atomic():
            last = dataset.runs.aggregate(n=Max("number"))["n"] or 0
            run = Run.objects.create(
                dataset=dataset, number=last + 1, version=version, seed=secrets.token_hex(16), requested_by=by,
                budget_nano=budget, estimate=estimate or {}, trial=trial,
            )  # fmt: skip
            items = slices.make_slices(run, to_label(dataset, version))
            record(by, dataset, "run started", run=run.number, method=version.method, items=items)
    except IntegrityError as error:
        raise RunIsActive(dataset.runs.active().first()) from error
    if rings:
        ring(run)
    return run


def work_slices(run_id: int) -> None:
    """Work slices of a run for a while, then ask to be called again. Called by the queue."""
    if work(run_id, time.monotonic()) == "more":
        ring(Run(pk=run_id))


def work_here(run: Run) -> Run:
    """Work a run in this process until it is over or paused, beside any workers."""
    while True:
        state = work(run.pk, math.inf, rings=False)
        if state == "over":
            run.refresh_from_db()
            return run
        time.sleep(0.5)


def _waiting_goals() -> list[int]:
    """Datasets with a goal, labeled once, on which neither a round nor a sample has begun."""
    run = Run.objects.active().filter(dataset=OuterRef("dataset"))
    sample = Sample.objects.filter(dataset=OuterRef("dataset"), drawn_at__gte=OuterRef("at"))
    done = Run.objects.filter(
        dataset=OuterRef("dataset"), finished_at__isnull=False, problem=None, trial=False
    )
    goals = Goal.objects.active().filter(~Exists(run), ~Exists(sample), Exists(done), rounds=None)
    return list(goals.values_list("dataset", flat=True))


def pause(run: Run, by: User | None) -> bool:
    """Stop a run after the slices under way; False when it was not running."""
    changed = Run.objects.active().filter(pk=run.pk, paused_at=None).update(paused_at=timezone.now())
    if changed:
        record(by, run.dataset, "run paused", run=run.number)
    return bool(changed)


def resume(run: Run, by: User | None) -> bool:
    """Go on with a paused run where it stopped; False when it was not paused."""
    with transaction.atomic():
        paused = Run.objects.active().filter(pk=run.pk, paused_at__isnull=False)
        if not paused.update(paused_at=None, problem=None):
            return False
        Slice.objects.filter(run=run, done_at=None).update(attempts=0)
        record(by, run.dataset, "run resumed", run=run.number)
    for _ in range(max(settings.LABELHUB_WORKERS, 1)):
        ring(run)
    return True


def raise_cap(run: Run, budget: int, by: User | None) -> bool:
    """Set another cap for what a run may pay a language model, and let a paused run go on.

    Args:
        budget: billionths of a USD, more than the run has spent.
    Returns: False, with nothing changed, when it has spent as much already, pays nothing, or has ended.
    """
    with transaction.atomic():
        capped = Run.objects.active().filter(pk=run.pk, budget_nano__isnull=False, spent_nano__lt=budget)
        if not capped.update(budget_nano=budget):
            return False
        record(by, run.dataset, "budget changed", run=run.number, usd=f"{money.to_usd(budget):f}")
    resume(run, by)
    return True


def cancel(run: Run, by: User | None) -> bool:
    """End a run for good; what it labeled stays. False when it had ended already."""
    with transaction.atomic():
        if not Run.objects.active().filter(pk=run.pk).update(cancelled_at=timezone.now(), paused_at=None):
            return False
        slices.write_tally(run)
        record(by, run.dataset, "run cancelled", run=run.number)
    return True


def sweep() -> int:
    """Ask again for every run and file that nobody works on; returns how many that were.

    Called every ten seconds by workers, by the progress page, and by `manage.py sweep`.
    """
    moment = slices.now()
    held = Slice.objects.filter(run=OuterRef("pk"), done_at=None, lease_until__gt=moment)
    n = 0
    for run in Run.objects.active().filter(~Exists(held), paused_at=None):
        if not is_enqueued(f"run-{run.pk}"):
            ring(run)
            n += 1
    ended = Run.objects.filter(finished_at__isnull=False, problem=None, thresholds=None, round__isnull=False)
    for dataset_id in set(ended.filter(round__goal__left_at=None).values_list("dataset", flat=True)):
        advance_soon(dataset_id)  # a round that did not take force
    for dataset_id in _waiting_goals():
        advance_soon(dataset_id)  # a first labeling whose end nobody heard of
    for run_id in MessageBatch.objects.filter(collected_at=None).values_list("run", flat=True).distinct():
        if not Run.objects.active().filter(pk=run_id).exists() and not is_enqueued(f"batches-{run_id}"):
            enqueue("reviews.tasks.end_batches", run_id, name=f"batches-{run_id}")
    money.write_off_forgotten()
    return n + sweep_files()


def end_batches(run_id: int) -> None:
    """Cancel what a run that is over has handed in, and keep the answers that came. Called by the queue."""
    run = Run.objects.get(pk=run_id)
    with contextlib.suppress(Waits):
        try:
            batches.end(run)
        except CallFailed as error:
            log.warning("batches of run %s are looked after later: %s", run_id, error)
