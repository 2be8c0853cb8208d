"""Asking a language model about items: many calls under way, each reserved before it goes and stored when it is back.

The database is used by one thread, the network by others. Whatever ends this process, answers that came back are
stored with their cost; what was under way is written off by whoever takes the slice next.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

from django.db import OperationalError, connection, transaction

from datasets import gates, money, questions
from datasets.model_settings import say
from datasets.models import Call, ModelSettings, Run, Slice
from datasets.money import CannotGoOn
from datasets.questions import Question
from datasets.slices import LEASE, now
from labelhub.autolabel.labelers.dialogue import Chunk, Dialogue
from labelhub.autolabel.labelers.llm import CallFailed, Claude, Reply
from labelhub.autolabel.labelers.prompt import cut
from labelhub.autolabel.labelers.reply import read

log = logging.getLogger(__name__)

Rows = list[tuple[int, str]]  # item id, text
Stages = Iterator[tuple[Question, Rows]]

AHEAD = 3  # slices begun at once, so that a slow last answer of one does not leave the others idle
PATIENCE = 5.0  # seconds that a worker waits for leave; for longer it gives its work back
LOOK, SOON = 0.25, 0.02  # seconds between looks at clock, lease and run; at what other workers have under way
MOST_REJECTED = 5  # calls in a row that the other side rejects: then it is not the texts
SAVE_AGAIN = (0.5, 1.0, 2.0, 4.0)  # seconds between tries to store answers: they are paid for


class Waits(Exception):
    """Nobody may call for longer than a worker waits; the work goes on by itself later."""


@dataclass
class Errand:
    """A slice whose items are asked about, question by question."""

    mine: Slice
    stages: Stages
    question: Question | None = None
    rows: Rows = field(default_factory=list)
    talk: Dialogue = field(default_factory=lambda: Dialogue([]))
    suspects: dict[int, str] = field(default_factory=dict)  # by place; see ``suspect``

    def suspect(self, place: int) -> str:
        """What looks suspicious about a text; found once."""
        if self.question and place not in self.suspects:
            self.suspects[place] = questions.suspicion(self.question, self.rows[place][1])
        return self.suspects[place]

    def advance(self) -> bool:
        """Go on to the next question that has something to ask; False when there is none left."""
        for question, rows in self.stages:
            rest = questions.unanswered(question, rows, self.mine.run_id)
            if rest and questions.borrow(question, rest):
                rest = questions.unanswered(question, rest, self.mine.run_id)
            if rest:
                rest = _without_hopeless(question, rest, self.mine)
            if rest:
                self.question = question
                self.rows = [(pk, question.as_sent(text)) for pk, text in rest]
                self.talk, self.suspects = Dialogue([len(cut(text)) for _, text in self.rows]), {}
                return True
        return False


@dataclass(frozen=True)
class _Sent:
    """A call under way."""

    call: Call
    errand: Errand
    chunk: Chunk
    question: Question


@dataclass
class _Back:
    """What came back and is not stored yet."""

    answers: list[money.Settled] = field(default_factory=list)
    votes: list[questions.VoteRow] = field(default_factory=list)
    well: set[str] = field(default_factory=set)  # gates that answered
    failures: list[tuple[str, CallFailed]] = field(default_factory=list)


class Desk:
    """Where a worker asks for a run.

    Args:
        run: whose money it is.
        client: speaks to the model.
        limits: calls at once and a minute, of all workers together.
        more: claims another slice to ask about; None when there is none now.
        done: called with an errand whose answers are all in.
    """

    def __init__(
        self,
        run: Run,
        client: Claude,
        limits: ModelSettings,
        more: Callable[[], Errand | None],
        done: Callable[[Errand], None],
    ) -> None:
        self.run, self.client, self.limits, self.more, self.done = run, client, limits, more, done
        self.errands: list[Errand] = []
        self.under_way: dict[Future[Reply], _Sent] = {}
        self.back = _Back()
        self.rejected = self.failures = 0  # in a row
        self.not_before = 0.0  # of time.monotonic: no leave is asked for before
        self.dry_until = 0.0  # of time.monotonic: no further slice is looked for before
        self.renewed = self.moved = time.monotonic()  # ``moved``: when a call last went out, or came back
        self.trouble: Exception | None = None
        self.rng = random.Random()  # for jitter only

    def work(self, stops: Callable[[], bool]) -> None:
        """Ask until nothing is left to take, or ``stops``; what is under way then is awaited and stored.

        Raises: Waits or CannotGoOn; the slices of ``errands`` are still this worker's and want to be released.
        """
        with ThreadPoolExecutor(self.limits.at_once) as pool:
            try:
                self._work(pool, stops)
            finally:  # whatever went wrong, what is under way will be paid for
                while self.under_way:
                    self._collect()
        if self.trouble is not None:
            raise self.trouble

    def _work(self, pool: ThreadPoolExecutor, stops: Callable[[], bool]) -> None:
        while True:
            stopping = self.trouble is not None or stops()
            if stopping and not self.under_way:
                return
            busy = False
            if not stopping:
                self._send(pool)  # before a slice is labeled, so that calls are under way meanwhile
                busy = self._advance()
                if not busy and not self.errands and not self.under_way:
                    return
                self._send(pool)
            self._collect(0.0 if busy else LOOK)
            self._renew()

    def _advance(self) -> bool:
        """Take on an errand where nothing is left to send, else finish one that has its answers; False if neither.

        One at a time: it takes a while, and answers come back meanwhile.
        """
        dry = bool(self.errands) and time.monotonic() < self.dry_until
        if len(self.errands) < AHEAD and not dry and not self._has_ready():
            taken = self.more()
            if taken is not None:
                if taken.advance():
                    self.errands.append(taken)
                else:
                    self.done(taken)
                return True
            self.dry_until = time.monotonic() + 1.0
        for errand in self.errands:
            if errand.talk.finished:
                if not errand.advance():
                    self.errands.remove(errand)
                    self.done(errand)
                return True
        return False

    def _has_ready(self) -> bool:
        return any(not one.talk.finished and one.talk.has_ready for one in self.errands)

    def _send(self, pool: ThreadPoolExecutor) -> None:
        """Send what may be sent now: reserved first, in one transaction."""
        free, moment = self.limits.at_once - len(self.under_way), time.monotonic()
        if free <= 0 or moment < self.not_before:
            return
        ready: list[tuple[Errand, Chunk, dict[str, Any], money.Wanted]] = []
        for errand in self.errands:
            while len(ready) < free and (chunk := errand.talk.next(moment)) is not None:
                ready.append((errand, chunk, *self._prepare(errand, chunk)))
        if not ready:
            return
        try:
            with transaction.atomic():
                calls = self._reserve([(errand, wanted) for errand, _, _, wanted in ready])
        except money.BudgetReached as reached:
            calls = []
            if not self.under_way:
                self.trouble = self._over_budget(reached)
        for (errand, chunk, params, _), call in zip(ready, calls, strict=False):
            assert errand.question is not None
            future = pool.submit(self.client.send, params)
            self.under_way[future] = _Sent(call, errand, chunk, errand.question)
            self.moved = moment
        for errand, chunk, _, _ in reversed(ready[len(calls) :]):
            errand.talk.put_back(chunk)

    def _prepare(self, errand: Errand, chunk: Chunk) -> tuple[dict[str, Any], money.Wanted]:
        question = errand.question
        assert question is not None
        rows = [errand.rows[place] for place in chunk.places]
        params = self.client.request(
            question.prompt, question.model, [text for _, text in rows], question.ask
        )
        if chunk.roomier:
            params["max_tokens"] *= 2
        return params, money.wanted(question, [pk for pk, _ in rows], params)

    def _reserve(self, wanted: list[tuple[Errand, money.Wanted]]) -> list[Call]:
        """Reserve the calls that may go out, in order; those of one question only."""
        question = wanted[0][0].question
        assert question is not None
        together = list(takewhile(lambda one: one[0].question == question, wanted))
        leave = gates.ask_leave(question.gate, self.limits, len(together))
        if not leave.calls:
            self._wait_for(leave)
            return []
        calls: list[Call] = []
        for errand, one in together[: leave.calls]:
            try:
                calls += money.reserve(self.run, question, errand.mine, [one])
            except money.BudgetReached:
                if not calls:
                    raise
                break
        return calls

    def _wait_for(self, leave: gates.Leave) -> None:
        """Look again when there may be leave; give the work back where that is not soon."""
        seconds = SOON if leave.again_at is None else (leave.again_at - now()).total_seconds()
        if seconds > PATIENCE and leave.reason:
            self.trouble = Waits(leave.reason)
        elif leave.again_at is None:
            self._wait_for_others()
        self.not_before = time.monotonic() + min(max(seconds, 0.01), PATIENCE)

    def _wait_for_others(self) -> None:
        """Wait for calls of other workers, but not for long: one may be gone, and its slices want to be claimed."""
        if not self.under_way and time.monotonic() - self.moved > PATIENCE:
            self.trouble = Waits("Other workers' calls are under way.")

    def _over_budget(self, reached: money.BudgetReached) -> Exception | None:
        run = Run.objects.only("budget_nano", "spent_nano", "reserved_nano", "paused_at", "cancelled_at").get(
            pk=self.run.pk
        )
        if run.paused_at or run.cancelled_at:
            return Waits("The run was stopped.")
        if run.reserved_nano:  # another worker's calls may leave something over
            self.not_before = time.monotonic() + LOOK
            self._wait_for_others()
            return self.trouble
        return CannotGoOn(money.budget_reached(run, reached))

    def _collect(self, seconds: float = LOOK) -> None:
        """Store what came back, all in one transaction; where nothing did, wait so long for something."""
        if not self.under_way:
            time.sleep(min(max(self.not_before - time.monotonic(), 0.01), seconds))
            return
        if seconds:
            self._look_ahead()
        done, _ = wait(self.under_way, seconds, FIRST_COMPLETED)
        for future in done:
            try:
                self._take_in(self.under_way.pop(future), future)
            except Exception as fault:  # of ours; the call stays reserved until it is written off
                self.trouble = self.trouble or fault
        if done:
            self.moved = time.monotonic()
            self._save()

    def _look_ahead(self) -> None:
        """Look at texts whose answers are not back: there is time now, and none to lose once they are."""
        for sent in self.under_way.values():
            for place in sent.chunk.places:
                if any(future.done() for future in self.under_way):
                    return
                sent.errand.suspect(place)

    def _take_in(self, sent: _Sent, future: Future[Reply]) -> None:
        back, error = self.back, future.exception()
        if error is None:
            reply = future.result()
            reading = read(reply.stop_reason, reply.text, len(sent.chunk.places), sent.question.label_ids)
            back.answers.append(money.answered(sent.question, sent.call, reply, reading.whole or ""))
            back.votes += _votes(sent, sent.errand.talk.heard(sent.chunk, reading))
            back.well.add(sent.question.gate)
            self.rejected = self.failures = 0
        elif isinstance(error, CallFailed):
            back.answers.append(_not_answered(sent, error))
            back.votes += self._failed(sent, error)
            back.failures.append((sent.question.gate, error))
        else:
            raise error

    def _save(self) -> None:
        """Store what came back; a database that is busy is asked again. Raises: OperationalError."""
        back = self.back
        for seconds in (*SAVE_AGAIN, None):
            try:
                with transaction.atomic():
                    # First the gates, then the run: in the order of reserving, so that no two workers wait for each other.
                    for gate in sorted(back.well):
                        gates.note_success(gate)
                    for gate, error in sorted(back.failures, key=lambda one: one[0]):
                        if error.transient:
                            gates.note_failure(gate, error.sentence, error.retry_after, self.rng.random())
                    money.settle(back.answers)
                    questions.store(back.votes)
                break
            except OperationalError:
                if seconds is None:
                    raise
                log.warning("answers could not be stored, trying again in %s s", seconds, exc_info=True)
                time.sleep(seconds)
                connection.close_if_unusable_or_obsolete()
        self.back = _Back()

    def _failed(self, sent: _Sent, error: CallFailed) -> list[questions.VoteRow]:
        if error.fatal:
            self.trouble = CannotGoOn(say(error))
            return []
        if not error.transient:
            self.rejected += 1
            if self.rejected >= MOST_REJECTED:
                self.trouble = CannotGoOn(error.sentence)
                return []
        self.failures += 1
        # Where nobody gets an answer it is not this call's fault, unless that never ends.
        counts = not gates.MOST_FAILURES <= self.failures < gates.MOST_CALLS
        talk, moment = sent.errand.talk, time.monotonic()
        return _votes(sent, talk.failed(sent.chunk, error, moment, self.rng.random(), counts))

    def _renew(self) -> None:
        """Keep the slices; one that somebody else took meanwhile is dropped."""
        if not self.errands or time.monotonic() - self.renewed < LEASE.total_seconds() / 4:
            return
        self.renewed = time.monotonic()
        for errand in list(self.errands):
            mine = Slice.objects.filter(pk=errand.mine.pk, epoch=errand.mine.epoch, done_at=None)
            if mine.update(lease_until=now() + LEASE) != 1:
                log.warning(
                    "slice %s of run %s belongs to somebody else by now", errand.mine.number, self.run.pk
                )
                self.errands.remove(errand)


def _without_hopeless(question: Question, rows: Rows, mine: Slice) -> Rows:
    """Return the items that are worth asking about; those whose calls failed again and again have that as outcome."""
    hopeless, last = gates.hopeless(mine, question.version_id)
    if hopeless:
        questions.store(
            questions.vote_row(question, pk, text, "llm_error", last) for pk, text in rows if pk in hopeless
        )
    return [row for row in rows if row[0] not in hopeless]


def _not_answered(sent: _Sent, error: CallFailed) -> money.Settled:
    return money.Settled(sent.call, 0, error.kind, request_id=error.request_id or "", lost=error.may_be_paid)


def _votes(sent: _Sent, places: Sequence[int]) -> list[questions.VoteRow]:
    """The votes of the places that have their outcome now; a place without a label says why."""
    rows = []
    for place in places:
        item_id, text = sent.errand.rows[place]
        outcome = sent.errand.talk.outcomes[place]
        suspect = sent.errand.suspect(place)
        rows.append(questions.vote_row(sent.question, item_id, text, outcome, sent.call.pk, suspect))
    return rows
