"""Replays of the whole loop on files whose right labels are known, one at a time, in the background.

An attempt holds its backtest by ``started_at`` and says every two seconds that it lives. A killed one is found by
`datasets.tasks.sweep_files`; one that was thought dead, or whose backtest was deleted, writes nothing.
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.db import DatabaseError, OperationalError, connection, transaction
from django.db.models import F, QuerySet

from datasets.models import Backtest, Dataset, Item, record
from datasets.schema import MOST_LABELS
from datasets.slices import MOST_ATTEMPTS, now
from datasets.tasks import READER_DEAD_AFTER, nobody_at, replay_soon, shall_finish
from labelhub.autolabel import tables
from labelhub.autolabel.backtest import backtest as replay
from labelhub.autolabel.known_file import read_columns, to_known
from labelhub.autolabel.layout import Layout, TableError
from labelhub.autolabel.playing import Known
from labelhub.autolabel.replay_report import Asked, Report, report

if TYPE_CHECKING:
    from django.contrib.auth.models import User

log = logging.getLogger(__name__)

MOST_ROWS = 50_000
MOST_REPETITIONS = 5
CHECKED_AT_ONCE_BYTES = 20_000_000  # a larger file is checked when its replay begins
BEAT_SECONDS = 2.0
GONE = "The uploaded file is gone. Upload it again."
TOO_OFTEN = "This replay ended its worker three times; it may need more memory than there is."


class NotMine(Exception):
    """Another process replays this backtest now, or it was deleted: nothing was written."""


class Stopped(Exception):
    """This process was told to end; another attempt begins anew."""


def from_dataset(dataset: Dataset, by: User) -> Backtest:
    """Make a backtest of the items of a dataset that have a given label, with all columns of their rows.

    Raises: TableError when there are none, or too many.
    """
    given = Item.objects.filter(dataset=dataset, given_label__isnull=False, same_as=None)
    rows = given.count()
    if not 0 < rows <= MOST_ROWS:
        known = f"{rows:,} items with a known label" if rows else "no item with a known label"
        raise TableError(f"“{dataset.name}” has {known}; a replay takes from 20 to {MOST_ROWS:,}.")
    made = Backtest(user=by, file_name=f"{dataset.name[:240]}.jsonl")
    with made.path.open("w", encoding="utf-8") as file:
        for row in given.order_by("position").values_list("row", flat=True).iterator():
            file.write(row.replace("\r", " ").replace("\n", " ") + "\n")  # JSON may be spread over lines
    return sniff(made, {"gold": dataset.mapping.get("label") or ""} | _roles(dataset.mapping))


def _roles(mapping: dict[str, Any]) -> dict[str, Any]:
    return {role: mapping[role] for role in ("text", "predicted", "confidence") if mapping.get(role)}


def sniff(made: Backtest, roles: dict[str, Any] | None = None) -> Backtest:
    """Find out how the file of a new backtest is read, and keep both. Raises: TableError, leaving nothing."""
    try:
        made.options = {"layout": asdict(tables.sniff(made.path))} | (roles or {})
    except TableError:
        made.path.unlink(missing_ok=True)
        raise
    made.save()
    return made


def read(path: Path, options: dict[str, Any]) -> Known:
    """Return what a replay is played with.

    Args:
        path: the file.
        options: ``layout``, ``text`` (names), ``gold``, and where given ``predicted`` with ``confidence``, or
            ``votes`` (names).
    Raises: TableError, ValueError with one sentence.
    """
    columns = read_columns(path, Layout(**options["layout"]), MOST_ROWS)
    roles = {role: options[role] for role in ("predicted", "confidence", "votes") if options.get(role)}
    known = to_known(columns, options["text"], options["gold"], **roles)
    if known.count > MOST_LABELS:
        raise TableError(
            f"“{options['gold']}” has {known.count:,} different labels; LabelHub takes {MOST_LABELS:,}."
        )
    return known


def start(backtest: Backtest, options: dict[str, Any]) -> None:
    """Have a backtest replayed; a second call changes nothing.

    Args:
        backtest: new.
        options: as for `read`, and ``target``, ``floor`` (or None) and ``repetitions``.
    Raises: TableError, ValueError with one sentence when the file cannot be replayed so.
    """
    if backtest.path.stat().st_size <= CHECKED_AT_ONCE_BYTES:
        read(backtest.path, options)
    with transaction.atomic():
        new = Backtest.objects.filter(pk=backtest.pk, requested_at=None)
        if new.update(options=options, requested_at=now(), total=options["repetitions"]):
            record(
                backtest.user, None, "backtest started", backtest=str(backtest.pk), file=backtest.file_name
            )
            replay_soon(backtest)


def delete(backtest: Backtest) -> None:
    """Forget a backtest with its file; a replay under way ends after the repetition it is in."""
    path = backtest.path
    backtest.delete()
    path.unlink(missing_ok=True)


def work(backtest_id: str) -> None:
    """Replay a backtest unless somebody does, or did. Called by the queue."""
    mine = _claim(uuid.UUID(backtest_id))
    if mine is None:
        return
    if mine.attempts > MOST_ATTEMPTS:
        _end(mine, problem=TOO_OFTEN)
        return
    try:
        with _alive(mine):
            result = _replay(mine)
    except (NotMine, Stopped) as reason:
        log.warning("backtest %s: %s", mine.pk, reason)
        return
    except OperationalError:  # the database is busy or away: that is no attempt
        _give_back(mine)
        raise
    except Exception as error:
        _end(mine, problem=_sentence(error))
    else:
        _end(mine, result=result)
    for following in Backtest.objects.filter(requested_at__isnull=False, finished_at=None).order_by(
        "requested_at"
    )[:1]:
        replay_soon(following)


def _claim(pk: uuid.UUID) -> Backtest | None:
    """Begin an attempt; None while this or another backtest is being replayed, so that a worker stays free."""
    moment = now()
    alive = Backtest.objects.filter(finished_at=None, beat_at__gte=moment - READER_DEAD_AFTER)
    free = Backtest.objects.filter(nobody_at(moment), pk=pk, requested_at__isnull=False, finished_at=None)
    if (
        alive.exists()
        or free.update(started_at=moment, beat_at=moment, attempts=F("attempts") + 1, done=0) != 1
    ):
        return None
    return Backtest.objects.get(pk=pk)


def _held(mine: Backtest) -> QuerySet[Backtest]:
    return Backtest.objects.filter(pk=mine.pk, started_at=mine.started_at, finished_at=None)


@contextmanager
def _alive(mine: Backtest) -> Iterator[None]:
    """Say from a thread that this attempt lives; one that is told to end soon does not count."""
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(BEAT_SECONDS):
            try:
                _held(mine).update(beat_at=now())
                if shall_finish():
                    _not_counted(mine)
            except DatabaseError:  # the next beat may come through
                log.exception("backtest %s could not say that it lives", mine.pk)
        connection.close()

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _not_counted(mine: Backtest) -> None:
    _held(mine).filter(attempts=mine.attempts).update(attempts=mine.attempts - 1)


def _give_back(mine: Backtest) -> None:
    _not_counted(mine)
    _held(mine).update(beat_at=None)


def _replay(mine: Backtest) -> dict[str, Any]:
    known = read(mine.path, mine.options)

    def on_progress(done: int, total: int) -> None:
        if _held(mine).update(done=done, total=total, beat_at=now()) != 1:
            raise NotMine("another process replays it, or it was deleted")
        if shall_finish() and done < total:
            _give_back(mine)
            raise Stopped("the worker ends")

    asked = _asked(mine, len(known.gold))
    result = replay(
        known,
        target=asked.target,
        floor=asked.floor,
        alpha=asked.alpha,
        reps=mine.options["repetitions"],
        progress=on_progress,
    )
    return {"items": asked.items, "labels": known.count, **result}


def _asked(backtest: Backtest, items: int) -> Asked:
    return Asked(items, backtest.options["target"], backtest.options["floor"])


def told(backtest: Backtest) -> Report:
    """Return the report of a finished backtest."""
    assert backtest.result is not None
    return report(backtest.result, _asked(backtest, backtest.result["items"]))


def _sentence(error: Exception) -> str:
    if isinstance(error, ValueError | TableError):
        return str(error)
    if isinstance(error, FileNotFoundError):
        return GONE
    if isinstance(error, MemoryError):
        return "This replay needs more memory than this computer has. Try fewer rows."
    log.exception("a replay failed")
    return f"The replay failed inside LabelHub ({type(error).__name__}); see the worker's log."


def _end(mine: Backtest, **outcome: Any) -> None:
    """Keep how an attempt ended, once; its file is not needed any more."""
    if _held(mine).update(finished_at=now(), **outcome) == 1:
        mine.path.unlink(missing_ok=True)
