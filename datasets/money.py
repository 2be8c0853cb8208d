"""What may be spent on a language model, what was, and on what. Amounts are billionths of a USD ("nano").

A call is reserved at the most that it can cost before it is sent, and settled at what it did cost, so a run never
spends more than its budget. A call whose answer nobody will ever see is written off at what was reserved.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from typing import Any

from django.db import connection, transaction
from django.db.models import Count, Q, QuerySet, Sum

from datasets.models import Call, Dataset, MessageBatch, Run, Slice
from datasets.questions import Question
from datasets.slices import now
from labelhub.autolabel.labelers.llm import Reply, bytes_of
from labelhub.autolabel.prices import Price, cost_usd, most_usd, price_of

NANO = 1_000_000_000  # billionths in a USD
LOST_AFTER = dt.timedelta(minutes=10)  # no call takes that long

# What each call needs is written out: Django takes longer to build these statements than a database to carry them out.
_RUN, _CALL = Run._meta.db_table, Call._meta.db_table
_TAKE = (  # only from a run that is neither finished, cancelled nor paused
    f"UPDATE {_RUN} SET reserved_nano = reserved_nano + %s WHERE id = %s AND finished_at IS NULL "
    "AND cancelled_at IS NULL AND paused_at IS NULL AND budget_nano >= spent_nano + reserved_nano + %s"
)
_INSERT = (
    f"INSERT INTO {_CALL} (run_id, version_id, batch_id, gate, slice_number, epoch, items, reserved_nano, reserved_at, "
    "problem, usage, raw, request_id, fake) "
    "VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, '', '{}', '', '', FALSE) RETURNING id"
)
_SETTLED = (
    f"UPDATE {_CALL} SET settled_at = %s, cost_nano = %s, problem = %s, usage = %s, raw = %s, request_id = %s, fake = %s, "
    "lost_at = NULL WHERE id = %s AND settled_at IS NULL AND lost_at"
)
_SETTLE, _SETTLE_LOST = f"{_SETTLED} IS NULL", f"{_SETTLED} IS NOT NULL"
_LOSE = (
    f"UPDATE {_CALL} SET lost_at = %s, problem = %s, request_id = %s "
    "WHERE id = %s AND settled_at IS NULL AND lost_at IS NULL"
)
_MOVE = f"UPDATE {_RUN} SET reserved_nano = reserved_nano - %s, spent_nano = spent_nano + %s WHERE id = %s"


def to_nano(usd: Decimal) -> int:
    """Return an amount in billionths of a USD, rounded up."""
    return int((usd * NANO).to_integral_value(ROUND_CEILING))


def to_usd(nano: int | None) -> Decimal:
    """Return billionths as USD, exactly; nothing is 0."""
    return Decimal(nano or 0) / NANO


@dataclass(frozen=True, slots=True)
class Wanted:
    """A call to reserve: item ids in the order of the request, and the most that it can cost."""

    items: Sequence[int]
    most_nano: int


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of a call: its cost, and what came back.

    ``lost``: its answer may have been made, and then is paid for, but never came; it counts as what was reserved.
    """

    call: Call
    cost_nano: int
    problem: str = ""
    usage: dict[str, int] | None = None
    raw: str = ""
    request_id: str = ""
    fake: bool = False
    lost: bool = False


class CannotGoOn(Exception):
    """The run must pause; the message is a sentence that says why and what to do."""


class NoPrice(CannotGoOn):
    """Nobody knows what a model costs, so no budget could be kept."""


def price_for(model: str) -> Price:
    """Return what a model costs. Raises: NoPrice, with a sentence."""
    price = price_of(model)
    if price is None:
        raise NoPrice(
            f"LabelHub knows no price of {model}, so it cannot keep to a budget: choose another model."
        )
    return price


def wanted(asked: Question, items: Sequence[int], params: Mapping[str, Any], batch: bool = False) -> Wanted:
    """Return a request as a call to reserve, at the most that it can cost. Raises: NoPrice."""
    most = most_usd(price_for(asked.model), bytes_of(params), params["max_tokens"], batch)
    return Wanted(items, to_nano(most))


def answered(asked: Question, call: Call, reply: Reply, problem: str, batch: bool = False) -> Settled:
    """Return an answer as what became of its call, at what it did cost; ``problem``: why it is of no use, or ""."""
    usage = {name: n for name, n in vars(reply.usage).items() if n}
    cost = to_nano(cost_usd(price_for(asked.model), reply.usage, batch))
    return Settled(call, cost, problem, usage, reply.raw, reply.request_id or "", reply.fake)


class BudgetReached(Exception):
    """The next call might pass the cap; ``most_nano`` is what it might cost."""

    def __init__(self, most_nano: int) -> None:
        super().__init__(f"the next call may cost up to {to_usd(most_nano)} USD")
        self.most_nano = most_nano


def budget_reached(run: Run, reached: BudgetReached) -> str:
    """Say that the cap is near, and what to do."""
    return (
        f"{_used_up(run)}: {usd(run.spent_nano)} are spent, and the next request "
        f"could cost up to {usd(reached.most_nano)}. Raise the budget to go on."
    )


def is_at_cap(run: Run) -> bool:
    """Whether a run was paused because of its present budget."""
    return run.paused_at is not None and (run.problem or "").startswith(_used_up(run))


def _used_up(run: Run) -> str:
    return f"The budget of {usd(run.budget_nano)} is used up"


def usd(nano: int | None) -> str:
    """An amount for people: cents, or as many digits as a small one needs."""
    amount = to_usd(nano)
    return f"{amount:,.2f} USD" if amount >= 1 or not amount else f"{amount:.4f} USD"


def reserve(
    run: Run, asked: Question, mine: Slice, wanted: Sequence[Wanted], batch: MessageBatch | None = None
) -> list[Call]:
    """Reserve calls in order, as many as the budget allows, and return their rows.

    Call it inside a transaction. The cap is a condition of the statement that takes from it, so workers
    cannot pass it together.

    Returns: at least one call; fewer than wanted where the budget ends.
    Raises: BudgetReached when not even the first fits, or the run was paused or ended.
    """
    moment, calls = now(), list[Call]()
    with connection.cursor() as cursor:
        for one in wanted:
            cursor.execute(_TAKE, [one.most_nano, run.pk, one.most_nano])
            if cursor.rowcount != 1:
                break
            call = Call(
                run=run, version_id=asked.version_id, gate=asked.gate, batch=batch, slice_number=mine.number, epoch=mine.epoch,
                items=list(one.items), reserved_nano=one.most_nano, reserved_at=moment,
            )  # fmt: skip
            where = [
                run.pk,
                asked.version_id,
                batch.pk if batch else None,
                asked.gate,
                mine.number,
                mine.epoch,
            ]
            cursor.execute(_INSERT, [*where, _json(call.items), one.most_nano, _moment(moment)])
            call.pk = cursor.fetchone()[0]
            calls.append(call)
    if not calls:
        raise BudgetReached(wanted[0].most_nano)
    return calls


def settle(answers: Sequence[Settled]) -> None:
    """Settle calls, each once. Call it inside a transaction.

    One that was written off, because its worker seemed dead, turns out not to be lost: what it did cost counts
    instead of what was reserved.
    """
    moment, by_run = _moment(now()), dict[int, tuple[int, int]]()
    with connection.cursor() as cursor:
        # All in the same order, so that nobody waits in a circle.
        for one in sorted(answers, key=lambda one: one.call.pk):
            call, problem, request_id = one.call, one.problem[:32], one.request_id[:100]
            reserved, spent = by_run.get(call.run_id, (0, 0))
            usage, raw = _json(one.usage or {}), one.raw.replace("\x00", "")
            facts = [moment, one.cost_nano, problem, usage, raw, request_id, one.fake, call.pk]
            if one.lost:
                cursor.execute(_LOSE, [moment, problem, request_id, call.pk])
                if cursor.rowcount:
                    by_run[call.run_id] = reserved + call.reserved_nano, spent + call.reserved_nano
                continue
            cursor.execute(_SETTLE, facts)
            if cursor.rowcount:
                by_run[call.run_id] = reserved + call.reserved_nano, spent + one.cost_nano
                continue
            cursor.execute(_SETTLE_LOST, facts)
            if cursor.rowcount:
                by_run[call.run_id] = reserved, spent + one.cost_nano - call.reserved_nano
    for run_id, (reserved, spent) in sorted(by_run.items()):
        _move(run_id, reserved, spent)


def write_off(calls: QuerySet[Call]) -> int:
    """Count calls as spent whose answers will never be seen; returns how many."""
    with transaction.atomic():
        waiting = calls.filter(settled_at=None, lost_at=None).order_by("pk")
        n, by_run = 0, dict[int, int]()
        for pk, run_id, reserved in list(waiting.values_list("pk", "run", "reserved_nano")):
            if Call.objects.filter(pk=pk, settled_at=None, lost_at=None).update(lost_at=now()):
                by_run[run_id] = by_run.get(run_id, 0) + reserved
                n += 1
        for run_id, reserved in sorted(by_run.items()):
            _move(run_id, reserved, reserved)
        return n


def write_off_before(mine: Slice) -> int:
    """Write off what earlier owners of a slice had under way when they vanished."""
    earlier = Call.objects.filter(
        run=mine.run_id,
        slice_number=mine.number,
        epoch__lt=mine.epoch,
        batch=None,
        settled_at=None,
        lost_at=None,
    )
    return write_off(earlier)


def write_off_forgotten() -> int:
    """Write off what is under way for longer than any call takes, of runs that nobody goes on with."""
    old = Call.objects.filter(settled_at=None, lost_at=None, batch=None, reserved_at__lt=now() - LOST_AFTER)
    return write_off(old)


def _move(run_id: int, reserved: int, spent: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute(_MOVE, [reserved, spent, run_id])


def _moment(moment: dt.datetime) -> Any:
    return connection.ops.adapt_datetimefield_value(moment)


def _json(value: Any) -> Any:
    return connection.ops.adapt_json_value(value, None)


@dataclass(frozen=True, slots=True)
class Spending:
    """What a run has spent, from its calls.

    ``lost``: calls whose answers never came, counted at what was reserved for them. ``problems``: why calls
    brought nothing usable, with how many did. ``items`` that were asked about, each as often as it was.
    """

    calls: int
    items: int
    under_way: int
    spent_usd: Decimal
    lost: int
    lost_usd: Decimal
    tokens_in: int
    tokens_out: int
    problems: list[tuple[str, int]]
    fake: bool

    @property
    def usd_per_item(self) -> Decimal | None:
        """None before the first answer."""
        return self.spent_usd / self.items if self.items else None


def spending(run: Run) -> Spending:
    """Count a run's calls; three statements."""
    calls = Call.objects.filter(run=run)
    settled, lost = Q(settled_at__isnull=False), Q(lost_at__isnull=False)
    found = calls.aggregate(
        calls=Count("pk", filter=settled),
        under_way=Count("pk", filter=~settled & ~lost),
        spent=Sum("cost_nano"),
        lost=Count("pk", filter=lost),
        lost_nano=Sum("reserved_nano", filter=lost),
        fake=Count("pk", filter=Q(fake=True)),
    )
    problems = (
        calls.exclude(problem="").values_list("problem").annotate(n=Count("pk")).order_by("-n", "problem")
    )
    tokens_in, tokens_out, items = _tokens(run)
    return Spending(
        calls=found["calls"],
        items=items,
        under_way=found["under_way"],
        spent_usd=to_usd((found["spent"] or 0) + (found["lost_nano"] or 0)),
        lost=found["lost"],
        lost_usd=to_usd(found["lost_nano"]),
        tokens_in=tokens_in,
        tokens_out=tokens_out,
        problems=[(problem, n) for problem, n in problems],
        fake=bool(found["fake"]),
    )


def _tokens(run: Run) -> tuple[int, int, int]:
    """Input tokens, output tokens and texts of a run's settled calls, added up by the database."""
    if connection.vendor == "postgresql":
        number, texts = "(usage->>'{}')::bigint", "jsonb_array_length(items)"
    else:
        number, texts = "json_extract(usage, '$.{}')", "json_array_length(items)"
    tokens_in = " + ".join(
        f"coalesce({number.format(name)}, 0)"
        for name in ("input", "cache_read", "cache_write", "cache_write_1h")
    )
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT sum({tokens_in}), sum(coalesce({number.format('output')}, 0)), sum({texts}) "
            "FROM datasets_call WHERE run_id = %s AND settled_at IS NOT NULL AND cost_nano > 0",
            [run.pk],
        )
        row = cursor.fetchone()
    return int(row[0] or 0), int(row[1] or 0), int(row[2] or 0)


def lost_calls(run: Run) -> list[Call]:
    """The calls of a run whose answers never came, for its page."""
    return list(Call.objects.filter(run=run, lost_at__isnull=False).defer("raw").order_by("reserved_at")[:50])


def spent_on(dataset: Dataset) -> Decimal:
    """USD that all runs of a dataset have spent, trials included."""
    return to_usd(dataset.runs.aggregate(n=Sum("spent_nano"))["n"])
