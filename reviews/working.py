"""Carrying a run on, slice by slice, whatever happens to the workers, the database or the model that is asked.

The rows say what is left to do: a worker that starts late, or twice, finds what to do, or nothing.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable

from django.conf import settings
from django.db import OperationalError, transaction
from django.db.models import Exists, OuterRef, QuerySet
from django.utils import timezone

from datasets import gates, labeling, model_runs, money, questions, slices
from datasets.asking import Rows, Waits
from datasets.model_settings import say
from datasets.models import Dataset, Item, LabelerVersion, Run, Slice
from datasets.money import CannotGoOn
from datasets.tasks import enqueue, is_enqueued, shall_finish
from labelhub.autolabel.labelers.llm import CallFailed
from labelhub.autolabel.types import LabelerUnavailable
from reviews import rounds, samples, thresholds
from reviews.decisions import settle
from reviews.models import Decision

log = logging.getLogger(__name__)

WORK_SECONDS = 20.0
ASK_SECONDS = (
    60.0  # of a run that asks a model: what is under way at the end is awaited, so ends should be few
)
TOO_MUCH = "Learning ended its worker three times; it may need more memory than there is."
PAUSE_SECONDS = 0.002  # between two writes, so that people's writes come between


def to_label(dataset: Dataset, version: LabelerVersion) -> QuerySet[Item]:
    """The items of a run: nobody had decided them when its version was made."""
    if "only" in version.settings:
        return Item.objects.filter(dataset=dataset, pk__in=version.settings["only"])
    known = Decision.objects.answers().filter(item=OuterRef("pk"), pk__lte=version.decisions)
    return labeling.free_items(dataset).filter(~Exists(known))


def ring(run: Run) -> None:
    """Ask the workers to go on with a run."""
    enqueue("reviews.tasks.work_slices", run.pk, name=f"run-{run.pk}")


def work(run_id: int, since: float, rings: bool = True) -> str:
    """Work for a while from a moment of ``time.monotonic`` on, from infinity on without an end.

    Returns: "more" there is, all is "held" by others or waits for a model, or it is "over".
    """
    owner, parent = slices.name_owner(), os.getppid()

    def has_ended(seconds: float) -> bool:
        return time.monotonic() - since >= seconds or shall_finish() or os.getppid() != parent

    while True:
        if has_ended(WORK_SECONDS):
            return "more"
        run = (
            Run.objects.active().filter(pk=run_id, paused_at=None)
            .select_related("dataset", "version").defer("version__state").first()
        )  # fmt: skip
        if run is None:
            return "over"
        asks = model_runs.asks(run.version)
        if asks and not Slice.objects.filter(run=run, number=0, done_at=None).exists():
            state = _ask(run, owner, lambda: has_ended(ASK_SECONDS), rings)
            if state:
                return state
        mine = slices.claim_slice(run, owner)
        if mine is None:
            if Slice.objects.filter(run=run, done_at=None).exists():
                return "held"  # by others; should they vanish, the sweep finds it
            _end(run)
            return "over"
        if run.started_at is None:
            Run.objects.filter(pk=run.pk, started_at=None).update(started_at=timezone.now())
        mine.run = run
        money.write_off_before(mine)
        if asks and mine.number:  # it came free since nobody was found to ask about: it is asked about first
            slices.release_slice(mine, counts=False)
            continue
        if asks:
            state = _prepare(run, mine, lambda: has_ended(ASK_SECONDS), rings)
            if state:
                return state
            continue
        _work_slice(run, mine, rings)
        time.sleep(PAUSE_SECONDS)


def _ask(run: Run, owner: str, ends: Callable[[], bool], rings: bool) -> str:
    """Ask a model about slice after slice and label them; returns as `work`, or "" to go on without asking."""
    items = to_label(run.dataset, run.version)
    for question in questions.of_version(run.version).values():
        if gates.closed(question.gate):
            return "held"  # the sweep looks again

    def claim() -> Slice | None:
        mine = slices.claim_slice(run, owner)
        if mine is not None:
            mine.run = run
            money.write_off_before(mine)
        return mine

    def rows(mine: Slice) -> Rows:
        crashed = mine.attempts > slices.MOST_ATTEMPTS
        return [] if crashed else labeling.rows_of(mine, items)

    try:
        begun = model_runs.at_desk(
            run, _stops(run, ends), claim, rows, lambda mine: _work_slice(run, mine, rings)
        )
    except model_runs.Stopped as stopped:
        if not _is_known(stopped):
            for mine in stopped.begun:
                _trouble(run, mine, _cause(stopped))
            return "more"
        for mine in stopped.begun:
            slices.release_slice(mine, counts=False)
        return _halt(run, stopped)
    except CallFailed as error:  # there is no key any more
        return _halt(run, error)
    for mine in begun:
        slices.release_slice(mine, counts=False)
    return "more" if begun else ""


def _prepare(run: Run, mine: Slice, ends: Callable[[], bool], rings: bool) -> str:
    """Do slice 0 of a run that asks; returns as `work`, or "" to go on."""
    if mine.attempts > slices.MOST_ATTEMPTS:
        slices.fail(run, TOO_MUCH)
        return ""
    items = to_label(run.dataset, run.version)
    try:
        with slices.lease_kept(mine):
            state = model_runs.prepare(run, mine, items, _stops(run, ends))
        if state is None:
            slices.release_slice(mine, counts=False)
            return "more"
        labeling.finish_fit(mine, run.version, state)
        _call_others(run, rings)
    except slices.Fenced as error:
        log.warning("%s", error)
    except (model_runs.Stopped, Waits, CannotGoOn, CallFailed) as error:
        if not _is_known(error):
            _trouble(run, mine, _cause(error))
            return ""
        slices.release_slice(mine, counts=False)
        return _halt(run, error)
    except OperationalError:
        slices.release_slice(mine, counts=False)
        raise
    except Exception as error:
        _trouble(run, mine, error)
    return ""


def _stops(run: Run, ends: Callable[[], bool]) -> Callable[[], bool]:
    """Whether asking shall end: its time is over, or the run was paused or ended; the database is asked each second."""
    looked, stopped = -math.inf, False

    def stops() -> bool:
        nonlocal looked, stopped
        if not stopped and time.monotonic() - looked > 1.0:
            looked = time.monotonic()
            stopped = not Run.objects.active().filter(pk=run.pk, paused_at=None).exists()
        return stopped or ends()

    return stops


def _cause(error: Exception) -> BaseException:
    """What asking ended by."""
    return (error.__cause__ or error) if isinstance(error, model_runs.Stopped) else error


def _is_known(error: Exception) -> bool:
    """Whether asking ended for a reason that has its own remedy; anything else is a fault of LabelHub."""
    return isinstance(_cause(error), Waits | CannotGoOn | CallFailed | OperationalError)


def _halt(run: Run, error: Exception) -> str:
    """Pause a run that cannot go on without a person; let one that only waits wait. Raises: OperationalError."""
    cause = _cause(error)
    if isinstance(cause, OperationalError):
        raise cause
    if isinstance(cause, Waits) or (isinstance(cause, CallFailed) and cause.transient):
        return "held"
    sentence = say(cause) if isinstance(cause, CallFailed) else str(cause)
    changes = {"problem": sentence, "paused_at": timezone.now()}
    if Run.objects.active().filter(pk=run.pk, paused_at=None).update(**changes):
        log.warning("run %s pauses: %s", run.pk, sentence)
    return "over"


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
        slices.fail(run, TOO_MUCH)
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
    _call_others(run, rings)


def _call_others(run: Run, rings: bool) -> None:
    for _ in range(settings.LABELHUB_WORKERS - 1 if rings else 0):  # only now is there work for several
        ring(run)


def _trouble(run: Run, mine: Slice, error: BaseException) -> None:
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
            advance_soon(run.dataset_id)
            return
        latest = thresholds.in_force(run.dataset)
        if run.version.guess and latest is not None and latest.run_id == run.pk:
            try:
                samples.draw_to_teach(run.dataset, latest, run.requested_by)
            except (samples.NothingToDraw, thresholds.SampleIsOpen) as reason:
                log.info("run %s drew nothing to teach: %s", run.pk, reason)


def advance_soon(dataset_id: int) -> None:
    """Ask the workers for the next step on the way to a goal."""
    if not is_enqueued(f"advance-{dataset_id}"):
        enqueue("reviews.path.advance", dataset_id, name=f"advance-{dataset_id}")
