"""Requests handed in together: half the price, answers within a day, and no worker that waits for them.

A batch has its row and its reserved calls before it is handed in. Should the process end just then, the batch is
looked for among those that the other side knows before it is handed in again: nothing is paid twice. Its answers
become votes like any others; what it leaves open is asked in another batch, in the end call by call.
"""

from __future__ import annotations

import datetime as dt
import logging
import secrets
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

from django.db import transaction

from datasets import money, questions
from datasets.asking import Rows, Waits
from datasets.model_settings import client
from datasets.models import Call, Item, MessageBatch, Run, Slice
from datasets.money import CannotGoOn
from datasets.questions import Question
from datasets.slices import now
from labelhub.autolabel.labelers.dialogue import PER_CALL
from labelhub.autolabel.labelers.llm import BatchProblem, CallFailed, Claude, Reply
from labelhub.autolabel.labelers.reply import Said, read

log = logging.getLogger(__name__)

MOST_REQUESTS = 1_000  # of one batch: 20,000 texts
MOST_WAVES = 3
FEW = PER_CALL  # texts that are not worth another batch
SHORTEST_WAIT, LONGEST_WAIT = dt.timedelta(seconds=1), dt.timedelta(seconds=60)  # between two looks
GIVEN_UP = dt.timedelta(hours=1)  # after its end by the rules of the other side
AT_ONCE = 50  # answers stored in one transaction

Find = Callable[[], tuple[Question, Rows]]


def work(run: Run, mine: Slice, find: Find, stops: Callable[[], bool]) -> bool:
    """Go on with the batches of a run; True when there is nothing left to hand in or to wait for.

    Args:
        mine: the slice under which calls are reserved.
        find: the question, and the items that have no answer to it yet.
    Raises: Waits while answers are awaited; CannotGoOn; CallFailed.
    """
    for batch in run.batches.filter(collected_at=None).order_by("pk"):
        if stops():
            return False
        step(batch)
    if run.batches.filter(collected_at=None).exists():
        raise Waits("Waiting for the answers to a batch.")
    last = run.batches.order_by("-wave").values_list("wave", flat=True).first() or 0
    question, rows = find()
    again = last > 0 and not _has_new(run, rows)  # else the budget had cut the last wave short
    if not rows or (again and (last >= MOST_WAVES or len(rows) <= FEW)):
        return True
    _make(run, mine, question, rows, last + 1 if again else max(last, 1))
    for batch in run.batches.filter(collected_at=None).order_by("pk"):
        if stops():
            return False
        step(batch)
    raise Waits("Waiting for the answers to a batch.")


def _has_new(run: Run, rows: Rows) -> bool:
    """Whether an item is among them that no batch of the run has asked about."""
    asked: set[int] = set()
    for items in Call.objects.filter(run=run, batch__isnull=False).values_list("items", flat=True).iterator():
        asked.update(items)
    return any(pk not in asked for pk, _ in rows)


def _make(run: Run, mine: Slice, question: Question, rows: Rows, wave: int) -> None:
    """Reserve the calls of a wave, batch by batch, as far as the budget goes."""
    speaker, made = client(), 0
    chunks = (rows[start : start + PER_CALL] for start in range(0, len(rows), PER_CALL))
    while chunk_of := list(islice(chunks, MOST_REQUESTS)):
        wanted = []
        for chunk in chunk_of:
            params = _request(speaker, question, [text for _, text in chunk])
            wanted.append(money.wanted(question, [pk for pk, _ in chunk], params, batch=True))
        try:
            with transaction.atomic():
                batch = MessageBatch.objects.create(
                    run=run, token=secrets.token_hex(8), wave=wave, requests=len(wanted)
                )
                calls = money.reserve(run, question, mine, wanted, batch)
                MessageBatch.objects.filter(pk=batch.pk).update(requests=len(calls))
        except money.BudgetReached as reached:
            if made:
                return  # these first; what they leave of the budget may do for the rest
            run.refresh_from_db(fields=["budget_nano", "spent_nano"])
            raise CannotGoOn(money.budget_reached(run, reached)) from reached
        made += len(calls)
        if len(calls) < len(wanted):
            return


def step(batch: MessageBatch) -> None:
    """Hand a batch in, look after it, or collect its answers, whatever is next."""
    speaker, moment = client(), now()
    if not batch.api_id:
        _hand_in(speaker, batch)
        return
    if batch.polled_at is not None and batch.submitted_at is not None:
        pause = min(max((moment - batch.submitted_at) / 20, SHORTEST_WAIT), LONGEST_WAIT)
        if moment < batch.polled_at + pause:
            return
    try:
        state = speaker.batch(batch.api_id)
        if state.status == "ended":
            _collect(speaker, batch)
            return
    except CallFailed as error:
        if error.kind != "rejected":
            raise
        _give_up(batch, error.sentence)  # it is no longer kept there, and never will be again
        return
    if batch.expires_at is not None and moment > batch.expires_at + GIVEN_UP:
        _give_up(batch, "It never ended.")
    else:
        MessageBatch.objects.filter(pk=batch.pk).update(polled_at=moment)


def _give_up(batch: MessageBatch, reason: str) -> None:
    """Write off what a batch has not answered by now; it will be asked again."""
    log.error("batch %s is given up, its calls are written off: %s", batch.api_id, reason)
    money.write_off(Call.objects.filter(batch=batch))
    MessageBatch.objects.filter(pk=batch.pk).update(collected_at=now())


def _hand_in(speaker: Claude, batch: MessageBatch) -> None:
    arrived = _look_for(speaker, batch) if batch.polled_at is not None else None
    if arrived is None:
        MessageBatch.objects.filter(pk=batch.pk).update(polled_at=now())  # from now on it may have arrived
        arrived = speaker.batch(speaker.submit(_requests(speaker, batch)))
    MessageBatch.objects.filter(pk=batch.pk).update(
        api_id=arrived.id, submitted_at=arrived.created_at, expires_at=arrived.expires_at, polled_at=now()
    )


def _look_for(speaker: Claude, batch: MessageBatch) -> Any:
    """The batch as the other side knows it, should it have arrived before a process ended."""
    known = set(MessageBatch.objects.exclude(api_id="").values_list("api_id", flat=True))
    recent = speaker.recent_batches(batch.made_at - dt.timedelta(minutes=1))
    return next((one for one in recent if one.id not in known and one.total == batch.requests), None)


def _requests(speaker: Claude, batch: MessageBatch) -> list[tuple[str, dict[str, Any]]]:
    calls = list(batch.calls.order_by("pk"))
    question = questions.by_id(calls[0].version_id)
    requests = []
    for call in calls:
        texts = dict(Item.objects.filter(pk__in=call.items).values_list("pk", "text"))
        sent = [question.as_sent(texts[pk]) for pk in call.items]
        requests.append((f"{batch.token}-{call.pk}", _request(speaker, question, sent)))
    return requests


def _request(speaker: Claude, question: Question, texts: list[str]) -> dict[str, Any]:
    return speaker.request(question.prompt, question.model, texts, question.ask)


def _collect(speaker: Claude, batch: MessageBatch) -> None:
    """Store the answers of an ended batch; those that are stored already are passed over."""
    calls = {call.pk: call for call in batch.calls.filter(settled_at=None)}
    question = questions.by_id(batch.calls.values_list("version_id", flat=True)[0])
    results = speaker.results(batch.api_id)
    while part := list(islice(results, AT_ONCE)):
        found = [(calls.get(_number(batch, custom_id)), result) for custom_id, result in part]
        with transaction.atomic():
            money.settle([_settled(question, call, result) for call, result in found if call])
            questions.store(
                row
                for call, result in found
                if call and isinstance(result, Reply)
                for row in _votes(question, call, result)
            )
    with transaction.atomic():
        left = Call.objects.filter(batch=batch, settled_at=None, lost_at=None)
        money.settle([money.Settled(call, 0, "no_result") for call in left])
        MessageBatch.objects.filter(pk=batch.pk).update(collected_at=now(), polled_at=now())


def _number(batch: MessageBatch, custom_id: str) -> int:
    token, _, number = custom_id.rpartition("-")
    return int(number) if token == batch.token and number.isdecimal() else 0


def _settled(question: Question, call: Call, result: Reply | BatchProblem) -> money.Settled:
    if isinstance(result, BatchProblem):
        return money.Settled(call, 0, result.kind)
    reading = read(result.stop_reason, result.text, len(call.items), question.label_ids)
    return money.answered(question, call, result, reading.whole or "", batch=True)


def _votes(question: Question, call: Call, reply: Reply) -> Iterable[questions.VoteRow]:
    """What a request of a batch said; what it left open has no vote and is asked again."""
    reading = read(reply.stop_reason, reply.text, len(call.items), question.label_ids)
    texts = dict(Item.objects.filter(pk__in=call.items).values_list("pk", "text"))
    outcomes: dict[int, Said | str] = {**reading.said, **reading.problems}
    return [
        questions.vote_row(question, call.items[number - 1], texts[call.items[number - 1]], outcome, call.pk)
        for number, outcome in sorted(outcomes.items())
        if call.items[number - 1] in texts
    ]


def end(run: Run) -> int:
    """Cancel the batches of a run that is over, and collect what was answered; returns how many are still open."""
    for batch in run.batches.filter(collected_at=None).order_by("pk"):
        if not batch.api_id and (batch.polled_at is None or _look_for(client(), batch) is None):
            with transaction.atomic():  # never handed in, and now it will not be
                left = Call.objects.filter(batch=batch, settled_at=None, lost_at=None)
                money.settle([money.Settled(call, 0, "not_sent") for call in left])
                MessageBatch.objects.filter(pk=batch.pk).update(collected_at=now())
            continue
        if not batch.api_id:  # it had arrived: this finds it again, and stores its id
            step(batch)
            batch.refresh_from_db()
        if batch.cancelled_at is None:
            try:
                client().cancel(batch.api_id)
            except CallFailed as error:
                if error.transient or error.kind == "key":
                    raise
                log.warning("batch %s could not be cancelled: %s", batch.api_id, error)
            MessageBatch.objects.filter(pk=batch.pk).update(cancelled_at=now(), polled_at=None)
            batch.polled_at = None
        step(batch)
    return run.batches.filter(collected_at=None).count()
