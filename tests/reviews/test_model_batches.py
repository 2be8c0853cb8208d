"""Requests handed in together: answered once and paid once, whatever ends the worker in between."""

from __future__ import annotations

import datetime as dt
import math
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User

from datasets import batches, money, slices
from datasets.models import Call, MessageBatch, Prediction, Run, Slice, Vote
from labelhub.autolabel.labelers.llm import Claude
from labelhub.fakeclaude.server import Server
from reviews import tasks, working
from tests.processes import wait_for
from tests.reviews import model_things as things

pytestmark = pytest.mark.django_db(transaction=True)

ITEMS = 140


class Killed(BaseException):
    """What a kill is within a process: nothing catches it, and nothing is cleaned up."""


@pytest.fixture
def server(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    things.hurry(monkeypatch)
    monkeypatch.setattr(batches, "SHORTEST_WAIT", dt.timedelta(seconds=0.05))
    with things.speaking(
        settings, things.replay_of(things.texts_of(ITEMS)), batch_seconds=0.3, timeout_seconds=1.0
    ) as server:
        yield server


@pytest.fixture
def run(server: Server, tmp_path: Path, boss: User) -> Run:
    things.at_most(boss)
    return things.begin(things.dataset_of(tmp_path, things.texts_of(ITEMS)), boss, batch=True)


def handed_in(server: Server) -> int:
    return len(list(server.api._batches.newest_first()))


def tiers(server: Server) -> set[str]:
    return {tier for model in server.stats()["usage"].values() for tier in model}


def die(
    run: Run, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, instead: Callable[..., Any]
) -> None:
    """Work a run until something kills the worker; its lease ends, and what killed it is gone."""
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, instead)
        with pytest.raises(Killed):
            for _ in range(100):
                working.work(run.pk, math.inf, rings=False)
                time.sleep(0.05)
    Slice.objects.filter(run=run, done_at=None).update(lease_until=None)


def kill(*_: Any, **__: Any) -> None:
    raise Killed


def test_a_batch_costs_half_and_no_worker_waits_for_it(server: Server, run: Run) -> None:
    assert working.work(run.pk, math.inf, rings=False) == "held"
    assert run.reserved_nano == 0
    run.refresh_from_db()
    assert run.reserved_nano > 0
    assert not Slice.objects.filter(run=run, lease_until__gt=slices.now()).exists(), "a worker holds it"
    things.work(run)
    things.check_all(run, server)
    assert handed_in(server) == 1 and tiers(server) == {"batch"}
    batch = MessageBatch.objects.get()
    assert batch.requests == Call.objects.filter(batch=batch).count() == ITEMS / 20
    whole = things.billed_usd(
        {"usage": {m: {"standard": t["batch"]} for m, t in server.stats()["usage"].items()}}
    )
    rounding = Decimal(batch.requests) / money.NANO
    assert 0 <= money.to_usd(run.spent_nano) - whole / 2 <= rounding


@pytest.mark.parametrize("kind", ["batch_expired", "batch_errored", "refusal", "malformed"])
def test_what_a_batch_leaves_open_is_asked_in_another_one(server: Server, run: Run, kind: str) -> None:
    server.change(fault={kind: 0.5}, seed=2)
    things.work(run)
    server.change(fault={})
    things.check_all(run, server)
    assert 2 <= handed_in(server) <= batches.MOST_WAVES
    assert not MessageBatch.objects.filter(collected_at=None).exists()


@pytest.mark.parametrize("kind", ["batch_expired", "batch_errored"])
def test_after_three_waves_that_brought_nothing_it_is_asked_call_by_call(
    server: Server, run: Run, kind: str
) -> None:
    server.change(fault={kind: 1.0})
    things.work(run)
    things.check_all(run, server)
    assert handed_in(server) == batches.MOST_WAVES
    assert tiers(server) == {"standard"}
    assert Prediction.objects.filter(run=run).exclude(label=None).count() == ITEMS
    problems = dict(money.spending(run).problems)
    assert problems == {kind.removeprefix("batch_"): 3 * ITEMS / 20}


def test_a_slow_batch_is_waited_for(server: Server, run: Run) -> None:
    server.change(fault={"slow_batch": 1.0})
    things.work(run)
    things.check_all(run, server)
    assert handed_in(server) == 1


@pytest.mark.parametrize("seed", range(3))
def test_calls_about_batches_may_fail_too(server: Server, run: Run, seed: int) -> None:
    server.change(faults=0.25, seed=seed)
    things.work(run)
    things.check_all(run, server)


def test_it_is_killed_between_reserving_and_handing_in(
    server: Server, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    die(run, monkeypatch, batches, "step", kill)
    assert handed_in(server) == 0 and MessageBatch.objects.get().polled_at is None
    things.work(run)
    things.check_all(run, server)
    assert handed_in(server) == MessageBatch.objects.count() == 1


def test_it_is_killed_just_before_it_hands_in(
    server: Server, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    die(run, monkeypatch, Claude, "submit", kill)
    assert handed_in(server) == 0 and MessageBatch.objects.get().polled_at is not None
    things.work(run)
    things.check_all(run, server)
    assert handed_in(server) == MessageBatch.objects.count() == 1


def submit_and_die(self: Claude, requests: Any, original: Any = Claude.submit) -> str:
    original(self, requests)
    raise Killed


def test_it_is_killed_after_handing_in_before_the_id_is_stored(
    server: Server, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    die(run, monkeypatch, Claude, "submit", submit_and_die)
    assert handed_in(server) == 1 and MessageBatch.objects.get().api_id == ""
    things.work(run)
    things.check_all(run, server)
    assert handed_in(server) == 1, "a second batch was paid for"


def test_it_is_killed_while_it_stores_the_answers(
    server: Server, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "AT_ONCE", 3)
    settle, times = money.settle, [0]

    def settle_twice(answers: Any) -> None:
        times[0] += 1
        if times[0] > 2:
            raise Killed
        settle(answers)

    die(run, monkeypatch, money, "settle", settle_twice)
    assert Vote.objects.count() == 2 * 3 * 20
    things.check_money(run)
    things.work(run)
    things.check_all(run, server)
    assert handed_in(server) == 1


def test_a_paused_run_pays_once_and_collects_when_it_goes_on(server: Server, run: Run, boss: User) -> None:
    working.work(run.pk, math.inf, rings=False)
    tasks.pause(run, boss)
    time.sleep(0.5)  # meanwhile the batch ends
    assert working.work(run.pk, math.inf, rings=False) == "over"
    assert MessageBatch.objects.filter(collected_at=None).count() == 1
    tasks.resume(run, boss)
    things.work(run)
    things.check_all(run, server)
    assert handed_in(server) == 1


def end_until_over(run: Run) -> None:
    def over() -> bool:
        tasks.end_batches(run.pk)
        return not MessageBatch.objects.filter(collected_at=None).exists()

    wait_for(over, "all batches collected", 20)


def test_cancelling_a_run_cancels_its_batch_and_keeps_what_was_answered(
    server: Server, run: Run, boss: User
) -> None:
    server.change(batch_seconds=2.0)
    working.work(run.pk, math.inf, rings=False)
    time.sleep(0.7)
    tasks.cancel(run, boss)
    end_until_over(run)
    run.refresh_from_db()
    things.check_money(run)
    things.check_paid_once(run, server)
    known = Vote.objects.filter(call__run=run).count()
    assert run.reserved_nano == 0 and 0 < known < ITEMS
    assert dict(money.spending(run).problems)["canceled"] == (ITEMS - known) / 20
    again = things.begin(run.dataset, boss)
    things.work(again)
    things.check_items(again)
    assert len(things.asked_about(again)) == ITEMS - known, "what was paid for was asked again"


@pytest.mark.parametrize(("instead", "arrived"), [(kill, 0), (submit_and_die, 1)])
def test_cancelling_never_hands_in_a_batch(
    server: Server, run: Run, boss: User, monkeypatch: pytest.MonkeyPatch, instead: Any, arrived: int
) -> None:
    die(run, monkeypatch, Claude, "submit", instead)
    tasks.cancel(run, boss)
    end_until_over(run)
    assert handed_in(server) == arrived
    run.refresh_from_db()
    things.check_money(run)
    assert run.reserved_nano == 0
    things.check_paid_once(run, server)


def test_a_batch_that_the_other_side_forgot_is_written_off_and_asked_again(server: Server, run: Run) -> None:
    working.work(run.pk, math.inf, rings=False)
    server.reset()
    things.work(run)
    things.check_all(run, server)
    assert len(money.lost_calls(run)) == ITEMS / 20
    assert Prediction.objects.filter(run=run).exclude(label=None).count() == ITEMS


def test_a_batch_that_never_ends_is_given_up(server: Server, run: Run) -> None:
    server.change(batch_seconds=60.0)
    working.work(run.pk, math.inf, rings=False)
    MessageBatch.objects.update(expires_at=slices.now() - batches.GIVEN_UP - dt.timedelta(seconds=1))
    server.change(batch_seconds=0.2)
    things.work(run)
    things.check_items(run)
    things.check_money(run)
    assert len(money.lost_calls(run)) == ITEMS / 20


def test_a_batch_keeps_to_the_budget(server: Server, run: Run, boss: User) -> None:
    Run.objects.filter(pk=run.pk).update(budget_nano=money.to_nano(Decimal("0.0001")))
    things.work(run)
    assert run.state == "paused" and run.problem is not None and "Raise the budget" in run.problem
    assert not run.batches.exists() and not Vote.objects.exists()
    tasks.raise_cap(run, money.to_nano(things.PLENTY), boss)
    things.work(run)
    things.check_all(run, server)


def test_batches_that_the_budget_cut_short_are_followed_by_others_at_half_price(
    server: Server, run: Run
) -> None:
    # Enough for one request at what is reserved for it, and for all of them at what they cost.
    Run.objects.filter(pk=run.pk).update(budget_nano=money.to_nano(Decimal("0.0012")))
    things.work(run)
    things.check_all(run, server)
    assert run.batches.count() > 1
    assert set(run.batches.values_list("wave", flat=True)) == {1}, (
        "what was never handed in is no second wave"
    )
    assert not run.calls.filter(batch=None).exists()
