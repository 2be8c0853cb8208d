"""The way to a model, shared by all workers: how many calls at once, how many a minute, and when nobody calls.

The database holds it, so that workers on several machines keep one limit and stop calling together when the
model is busy or away. Whoever waits, waits by giving work back, not by sleeping.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from dataclasses import dataclass

from django.db import connection
from django.db.models import F, Q

from datasets.models import Call, Gate, ModelSettings, Slice
from datasets.slices import now
from labelhub.autolabel.labelers.calls import TRANSIENT

MOST_FAILURES = 4  # in a row, of any calls: then nobody calls for a while
SHORTEST_SECONDS, LONGEST_SECONDS = 2.0, 60.0  # that a gate stays closed after further failures
STALE = dt.timedelta(seconds=150)  # a call that old does not count as under way: its worker is gone
# About one item that may fail, whatever else is wrong: that is about a quarter of an hour of an outage.
MOST_CALLS = 20
BURST = dt.timedelta(seconds=1)  # how far calls may run ahead of their pace


@dataclass(frozen=True, slots=True)
class Leave:
    """How many calls may go out now; if none, when to ask again (None: when one of those under way is back)."""

    calls: int
    again_at: dt.datetime | None = None
    reason: str = ""


def ask_leave(name: str, limits: ModelSettings, wanted: int) -> Leave:
    """Return how many of the wanted calls may go out now. Call it in the transaction that reserves them.

    Args:
        name: of the model, with the address that serves it.
        limits: calls at once and calls a minute.
        wanted: at least 1.
    """
    gate = _locked(name)
    if gate is None:
        Gate.objects.get_or_create(pk=name)
        gate = _locked(name)
        assert gate is not None
    moment = now()
    if gate.closed_until is not None and gate.closed_until > moment:
        return Leave(0, gate.closed_until, gate.reason)
    # A gate that was closed opens for one call first: if that fails too, it closes for longer.
    at_once = 1 if gate.failures >= MOST_FAILURES else limits.at_once
    free = at_once - under_way(name, moment)
    if free <= 0:
        return Leave(0)
    allowed = min(wanted, free)
    if limits.per_minute:
        pace = dt.timedelta(minutes=1) / limits.per_minute
        due = max(gate.next_at or moment, moment - BURST)
        in_time = int((moment - due) / pace) + 1 if due <= moment else 0
        allowed = min(allowed, in_time)
        if allowed <= 0:
            return Leave(0, due)
        Gate.objects.filter(pk=name).update(next_at=due + allowed * pace)
    return Leave(allowed)


# What each call needs is written out: Django takes longer to build these statements than a database to carry them out.
_GATE, _CALL = Gate._meta.db_table, Call._meta.db_table
_UNDER_WAY = (
    f"SELECT count(*) FROM {_CALL} WHERE settled_at IS NULL AND lost_at IS NULL AND batch_id IS NULL "
    "AND reserved_at > %s AND gate = %s"
)
_IS_OVER = "failures >= %s OR closed_until IS NULL OR closed_until <= %s"
_SUCCESS = (
    f"UPDATE {_GATE} SET failures = 0, failing_since = NULL, "
    f"reason = CASE WHEN {_IS_OVER} THEN '' ELSE reason END, "
    f"closed_until = CASE WHEN {_IS_OVER} THEN NULL ELSE closed_until END "
    "WHERE model = %s AND (failures <> 0 OR reason <> '')"
)


def _locked(name: str) -> Gate | None:
    """The gate, which nobody else may take until the transaction ends; None where there is none yet."""
    lock = " FOR UPDATE" if connection.features.has_select_for_update else ""
    return next(iter(Gate.objects.raw(f"SELECT * FROM {_GATE} WHERE model = %s{lock}", [name])), None)


def under_way(name: str, moment: dt.datetime) -> int:
    """Count the calls to a model that wait for their answers, batches apart."""
    since = connection.ops.adapt_datetimefield_value(moment - STALE)
    with connection.cursor() as cursor:
        cursor.execute(_UNDER_WAY, [since, name])
        return int(cursor.fetchone()[0])


def note_success(name: str) -> None:
    """An answer came: whatever was wrong is over. But where the other side said how long to wait, that stands."""
    over = [MOST_FAILURES, connection.ops.adapt_datetimefield_value(now())]
    with connection.cursor() as cursor:
        cursor.execute(_SUCCESS, [*over, *over, name])


def note_failure(name: str, reason: str, retry_after: float | None, jitter: float) -> None:
    """A call failed for a reason that passes.

    Args:
        reason: what to tell people meanwhile.
        retry_after: seconds that the other side asked for; then nobody calls before.
        jitter: a random number in [0, 1), so that not all come back at the same moment.
    """
    moment = now()
    Gate.objects.get_or_create(pk=name)
    Gate.objects.filter(pk=name).update(failures=F("failures") + 1, reason=reason)
    Gate.objects.filter(pk=name, failing_since=None).update(failing_since=moment)
    failures = Gate.objects.values_list("failures", flat=True).get(pk=name)
    seconds = retry_after or 0.0
    if failures >= MOST_FAILURES:
        grown = min(SHORTEST_SECONDS * 2 ** min(failures - MOST_FAILURES, 20), LONGEST_SECONDS)
        seconds = max(seconds, grown * (0.5 + jitter))
    if seconds > 0:
        until = moment + dt.timedelta(seconds=min(seconds, 3600.0))
        Gate.objects.filter(Q(closed_until=None) | Q(closed_until__lt=until), pk=name).update(
            closed_until=until
        )


def closed(name: str) -> Gate | None:
    """The gate, while nobody may call; None while it is open."""
    return Gate.objects.filter(pk=name, closed_until__gt=now()).first()


def hopeless(mine: Slice, version_id: int) -> tuple[set[int], int]:
    """Items of a slice whose calls failed so often that they may be why, and the last call that failed (0: none did).

    Without an end to it a text that the other side cannot bear would keep its run waiting for ever.
    """
    failed = Call.objects.filter(
        run=mine.run_id, slice_number=mine.number, version=version_id, batch=None, problem__in=TRANSIENT
    )
    tries: Counter[int] = Counter()
    last = 0
    for pk, items in failed.order_by("pk").values_list("pk", "items"):
        tries.update(items)
        last = pk
    return {item for item, n in tries.items() if n >= MOST_CALLS}, last
