"""Starting a run and carrying it on, whatever happens to workers and queue.

The rows say what is left to do. A job works slices for twenty seconds and enqueues itself
again; a job that got lost is found by `sweep`, a job too many finds nothing to do.
"""

from __future__ import annotations

import logging
import os
import secrets
import time
from typing import TYPE_CHECKING

from django.conf import settings
from django.db import IntegrityError, OperationalError, transaction
from django.db.models import Exists, Max, OuterRef, QuerySet
from django.utils import timezone

from datasets import labeling, slices
from datasets.models import Dataset, Item, LabelerVersion, Run, Slice, record
from datasets.tasks import enqueue, is_enqueued, shall_finish, sweep_files
from labelhub.autolabel.types import LabelerUnavailable
from reviews import rounds, samples, thresholds
from reviews.decisions import settle
from reviews.models import Decision, Goal, Sample

if TYPE_CHECKING:
    from django.contrib.auth.models import User

log = logging.getLogger(__name__)

WORK_SECONDS = 20.0
PAUSE_SECONDS = 0.002  # between two writes, so that people's writes come between


class RunIsActive(Exception):
    """A run of this dataset is under way; the message says so, ``run`` is the one."""

    def __init__(self, run: Run | None) -> None:
        super().__init__(f"Run {run.number} is under way." if run else "A run is under way.")
        self.run = run


def to_label(dataset: Dataset, version: LabelerVersion) -> QuerySet[Item]:
    """The items of a run: nobody had decided them when its version was made."""
    known = Decision.objects.answers().filter(item=OuterRef("pk"), pk__lte=version.decisions)
    return labeling.free_items(dataset).filter(~Exists(known))


def start(dataset: Dataset, version: LabelerVersion, by: User | None, rings: bool = True) -> Run:
    """Make a run with its slices and ask for a worker; ``rings=False`` leaves the work to the caller.

    Raises: RunIsActive when there is one already; the database decides who was first.
    """
    try:
        with transaction.atomic():
            last = dataset.runs.aggregate(n=Max("number"))["n"] or 0
            run = Run.objects.create(
                dataset=dataset, number=last + 1, version=version, seed=secrets.token_hex(16), requested_by=by
            )
            items = slices.make_slices(run, to_label(dataset, version))
            record(by, dataset, "run started", run=run.number, method=version.method, items=items)
    except IntegrityError as error:
        raise RunIsActive(dataset.runs.active().first()) from error
    if rings:
        _ring(run)
    return run


def _ring(run: Run) -> None:
    enqueue("reviews.tasks.work_slices", run.pk, name=f"run-{run.pk}")


def work_slices(run_id: int) -> None:
    """Work slices of a run for twenty seconds, then ask to be called again. Called by the queue."""
    if _work(run_id, time.monotonic() + WORK_SECONDS) == "more":
        _ring(Run(pk=run_id))


def work_here(run: Run) -> Run:
    """Work a run in this process until it is over or paused, beside any workers."""
    while True:
        state = _work(run.pk, float("inf"), rings=False)
        if state == "over":
            run.refresh_from_db()
            return run
        time.sleep(0.5)


def _work(run_id: int, until: float, rings: bool = True) -> str:
    """Work until a moment of ``time.monotonic``; returns whether there is "more", all is "held", or it is "over"."""
    owner, parent = slices.name_owner(), os.getppid()
    while True:
        if time.monotonic() >= until or shall_finish() or os.getppid() != parent:
            return "more"
        run = (
            Run.objects.active().filter(pk=run_id, paused_at=None)
            .select_related("dataset", "version").defer("version__state").first()
        )  # fmt: skip
        if run is None:
            return "over"
        mine = slices.claim_slice(run, owner)
        if mine is None:
            if Slice.objects.filter(run=run, done_at=None).exists():
                return "held"  # by others; should they vanish, the sweep finds it
            _end(run)
            return "over"
        if run.started_at is None:
            Run.objects.filter(pk=run.pk, started_at=None).update(started_at=timezone.now())
        mine.run = run
        _work_slice(run, mine, rings)
        time.sleep(PAUSE_SECONDS)


def _work_slice(run: Run, mine: Slice, rings: bool) -> None:
    try:
        if mine.number == 0:
            _fit(run, mine, rings)
        else:
            items = to_label(run.dataset, run.version)
            if mine.attempts > slices.MOST_ATTEMPTS:
                log.error("slice %s of run %s ended its worker three times: set aside", mine.number, run.pk)
                said = labeling.set_aside(mine, items)
            else:
                with slices.lease_kept(mine):
                    said = labeling.label_slice(mine, items)
            latest = thresholds.in_force(run.dataset)
            labeling.write_slice(mine, said, latest.rank if latest else 0, settle)
        if run.problem:
            Run.objects.filter(pk=run.pk).update(problem=None)
    except slices.Fenced as error:
        log.warning("%s", error)
    except OperationalError:  # the database is busy or away: that is no attempt
        slices.release_slice(mine, counts=False)
        raise
    except Exception as error:
        _trouble(run, mine, error)


def _fit(run: Run, mine: Slice, rings: bool) -> None:
    if mine.attempts > slices.MOST_ATTEMPTS:
        slices.fail(run, "Learning ended its worker three times; it may need more memory than there is.")
        return
    items = to_label(run.dataset, run.version)
    if run.version.method == labeling.ROUND:
        with slices.lease_kept(mine):
            state, this_round = rounds.fit(run, items)
        with transaction.atomic():
            labeling.finish_fit(mine, run.version, state)
            this_round.save()
    else:
        with slices.lease_kept(mine):
            state = labeling.fit(mine, items)
        labeling.finish_fit(mine, run.version, state)
    for _ in range(settings.LABELHUB_WORKERS - 1 if rings else 0):  # only now is there work for several
        _ring(run)


def _trouble(run: Run, mine: Slice, error: Exception) -> None:
    """Keep what went wrong; after three attempts a person must look. What was labeled stays."""
    known = isinstance(error, ValueError | LabelerUnavailable)
    sentence = (
        str(error)
        if known
        else f"Labeling failed inside LabelHub ({type(error).__name__}); see the worker's log."
    )
    log.exception("slice %s of run %s failed", mine.number, run.pk, exc_info=error)
    slices.release_slice(mine, counts=True)
    if mine.number == 0 and (known or mine.attempts >= slices.MOST_ATTEMPTS):
        slices.fail(run, sentence)
        return
    changes: dict[str, object] = {"problem": sentence}
    if mine.attempts >= slices.MOST_ATTEMPTS:
        changes["paused_at"] = timezone.now()
    Run.objects.active().filter(pk=run.pk).update(**changes)
    time.sleep(mine.attempts)


def _end(run: Run) -> None:
    """Finish a run once; one that only guessed gets a lane of random items to learn from (E18)."""
    with transaction.atomic():
        if not slices.finish(run):
            return
        if run.dataset.goals.active().exists():
            _advance_soon(run.dataset_id)
            return
        latest = thresholds.in_force(run.dataset)
        if run.version.guess and latest is not None and latest.run_id == run.pk:
            try:
                samples.draw_to_teach(run.dataset, latest, run.requested_by)
            except (samples.NothingToDraw, thresholds.SampleIsOpen) as reason:
                log.info("run %s drew nothing to teach: %s", run.pk, reason)


def _waiting_goals() -> list[int]:
    """Datasets with a goal, labeled once, on which neither a round nor a sample has begun."""
    run = Run.objects.active().filter(dataset=OuterRef("dataset"))
    sample = Sample.objects.filter(dataset=OuterRef("dataset"), drawn_at__gte=OuterRef("at"))
    done = Run.objects.filter(dataset=OuterRef("dataset"), finished_at__isnull=False, problem=None)
    goals = Goal.objects.active().filter(~Exists(run), ~Exists(sample), Exists(done), rounds=None)
    return list(goals.values_list("dataset", flat=True))


def _advance_soon(dataset_id: int) -> None:
    if not is_enqueued(f"advance-{dataset_id}"):
        enqueue("reviews.path.advance", dataset_id, name=f"advance-{dataset_id}")


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
        _ring(run)
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
            _ring(run)
            n += 1
    ended = Run.objects.filter(finished_at__isnull=False, problem=None, thresholds=None, round__isnull=False)
    for dataset_id in set(ended.filter(round__goal__left_at=None).values_list("dataset", flat=True)):
        _advance_soon(dataset_id)  # a round that did not take force
    for dataset_id in _waiting_goals():
        _advance_soon(dataset_id)  # a first labeling whose end nobody heard of
    return n + sweep_files()
