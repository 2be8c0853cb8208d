"""Who works on which slice of a run, and what counts when a worker vanishes.

A worker claims a slice by one conditional update that raises its epoch, and holds it by a lease.
A write closes the slice in its own transaction and only under that epoch: a worker that was
thought dead and wakes up again writes nothing.
"""

from __future__ import annotations

import datetime as dt
import logging
import os
import secrets
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from django.db import connection, transaction
from django.db.models import F, Q, QuerySet, Sum
from django.db.models.expressions import Window
from django.db.models.functions import RowNumber
from django.utils import timezone

from datasets.models import ITEMS_IN_A_SLICE, Item, Run, Slice

log = logging.getLogger(__name__)

LEASE = dt.timedelta(seconds=20)
MOST_ATTEMPTS = 3


class Fenced(Exception):
    """Another worker owns this slice now, or its run was cancelled: nothing was written."""


def now() -> dt.datetime:
    """The database's time, so that leases hold between machines whose clocks differ."""
    if connection.vendor != "postgresql":
        return timezone.now()  # one machine, one clock
    with connection.cursor() as cursor:
        cursor.execute("SELECT statement_timestamp()")
        moment: dt.datetime = cursor.fetchone()[0]
        return moment


def make_slices(run: Run, items: QuerySet[Item]) -> int:
    """Cut these items into slices, and add slice 0 that fits the labeler; returns the number of items."""
    numbered = items.annotate(n=Window(RowNumber(), order_by=F("id").asc())).values("id", "n")
    sql, values = numbered.query.sql_with_params()
    Slice.objects.create(run=run, number=0, first_id=0, last_id=0)
    with connection.cursor() as cursor:
        cursor.execute(
            f"""INSERT INTO datasets_slice (run_id, number, first_id, last_id, items, owner, epoch, attempts)
            SELECT %s, 1 + (numbered.n - 1) / {ITEMS_IN_A_SLICE}, min(numbered.id), max(numbered.id),
                count(*), '', 0, 0
            FROM ({sql}) AS numbered GROUP BY 1 + (numbered.n - 1) / {ITEMS_IN_A_SLICE}""",
            [run.pk, *values],
        )
    return run.slices.aggregate(n=Sum("items"))["n"] or 0


def name_owner() -> str:
    """A name for whoever works here: machine, process and four random bytes."""
    return f"{socket.gethostname()[:60]}-{os.getpid()}-{secrets.token_hex(4)}"


def claim_slice(run: Run, owner: str) -> Slice | None:
    """Lease the next slice that is neither done nor leased; None when there is none.

    Slice 0 comes first and alone. A slice whose worker vanished comes again when its lease is over.
    """
    with transaction.atomic():
        moment = now()
        undone = Slice.objects.filter(run=run, done_at=None).order_by("number")
        head = undone.first()
        if head is None:
            return None
        free = undone.filter(Q(lease_until=None) | Q(lease_until__lt=moment))
        if head.number == 0:
            free = free.filter(number=0)
        if connection.vendor == "postgresql":
            free = free.select_for_update(skip_locked=True)
        found = free.first()
        if found is None:
            return None
        found.epoch += 1
        found.attempts += 1
        found.owner, found.lease_until = owner, moment + LEASE
        mine = Slice.objects.filter(pk=found.pk, epoch=found.epoch - 1, done_at=None).update(
            epoch=found.epoch, attempts=found.attempts, owner=owner, lease_until=found.lease_until
        )
        return found if mine == 1 else None


def release_slice(mine: Slice, counts: bool) -> None:
    """Give a slice back undone; ``counts`` says whether this was one of its three attempts."""
    changes: dict[str, Any] = {"lease_until": None, "owner": ""}
    if not counts:
        changes["attempts"] = max(mine.attempts - 1, 0)
    Slice.objects.filter(pk=mine.pk, epoch=mine.epoch, done_at=None).update(**changes)


@contextmanager
def lease_kept(mine: Slice) -> Iterator[None]:
    """Keep a lease alive from a thread while the work inside takes longer than the lease."""
    stop = threading.Event()

    def renew() -> None:
        try:
            while not stop.wait(LEASE.total_seconds() / 4):
                Slice.objects.filter(pk=mine.pk, epoch=mine.epoch, done_at=None).update(
                    lease_until=now() + LEASE
                )
        except Exception:  # the lease runs out; the fence keeps the data right
            log.exception("the lease of slice %s could not be renewed", mine.pk)
        finally:
            connection.close()

    thread = threading.Thread(target=renew, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def close_slice(mine: Slice) -> None:
    """Close a slice that is still this worker's, in the transaction that writes its results. Raises: Fenced."""
    if connection.vendor == "postgresql":  # a cancellation waits for writers, or they see it
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM datasets_run WHERE id = %s FOR SHARE", [mine.run_id])
    held = Slice.objects.filter(pk=mine.pk, epoch=mine.epoch, done_at=None, run__cancelled_at=None)
    if held.update(done_at=timezone.now(), lease_until=None) != 1:
        raise Fenced(f"slice {mine.number} of run {mine.run_id} belongs to somebody else by now")


def finish(run: Run) -> bool:
    """End a run whose slices are all done, with its tally; True for the one call that ended it."""
    with transaction.atomic():
        if Slice.objects.filter(run=run, done_at=None).exists():
            return False
        open_runs = Run.objects.filter(pk=run.pk, finished_at=None, cancelled_at=None)
        if open_runs.update(finished_at=timezone.now(), paused_at=None) != 1:
            return False
        write_tally(run)
    return True


def fail(run: Run, sentence: str) -> bool:
    """End a run that cannot go on; True for the one call that ended it."""
    with transaction.atomic():
        open_runs = Run.objects.filter(pk=run.pk, finished_at=None, cancelled_at=None)
        if open_runs.update(finished_at=timezone.now(), paused_at=None, problem=sentence) != 1:
            return False
        write_tally(run)
    return True


def write_tally(run: Run) -> None:
    """Count a run's predictions by thousandth of confidence and label, once, when it ends."""
    with connection.cursor() as cursor:
        cursor.execute(
            """INSERT INTO datasets_tally (run_id, bin, label_id, n)
            SELECT run_id, rank / 1000000000, label_id, count(*) FROM datasets_prediction
            WHERE run_id = %s GROUP BY run_id, rank / 1000000000, label_id""",
            [run.pk],
        )


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is, counted from its slices.

    ``per_second`` is the rate of the last two minutes, None while it is not known; ``worked_on``
    the number of slices with a live lease; ``fitted`` whether the labeler is ready.
    """

    items: int
    done: int
    fitted: bool
    worked_on: int
    per_second: float | None

    @property
    def percent(self) -> int:
        """Whole percents, rounded down: 100 only when all is done."""
        return 100 if self.items == 0 and self.fitted else self.done * 100 // max(self.items, 1)

    @property
    def seconds_left(self) -> float | None:
        """None while the rate is not known."""
        return (self.items - self.done) / self.per_second if self.per_second else None


def progress(run: Run) -> Progress:
    """Count how far a run is; three statements over at most one row per 500 items."""
    moment = now()
    mine = Slice.objects.filter(run=run)
    counts = mine.aggregate(planned=Sum("items"), done=Sum("items", filter=Q(done_at__isnull=False)))
    since = moment - dt.timedelta(minutes=2)
    recent = mine.filter(done_at__gte=since, number__gt=0)
    first = recent.order_by("done_at").values_list("done_at", flat=True).first()
    rate = None
    if first is not None:
        spent = (moment - first).total_seconds()
        after_first = recent.filter(done_at__gt=first).aggregate(n=Sum("items"))["n"] or 0
        rate = after_first / spent if spent > 1 and after_first else None
    return Progress(
        items=counts["planned"] or 0,
        done=counts["done"] or 0,
        fitted=not mine.filter(number=0, done_at=None).exists(),
        worked_on=mine.filter(done_at=None, lease_until__gt=moment).count(),
        per_second=rate,
    )
