"""The budget of a run: kept by all workers together, whatever goes wrong, and never counted twice."""

from __future__ import annotations

import datetime as dt
import random
import threading
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection, transaction

from datasets import asking, money, questions, slices
from datasets.models import Call, Prediction, Run, Slice
from labelhub.fakeclaude.server import Server
from reviews import tasks
from tests.reviews import model_things as things

pytestmark = pytest.mark.django_db(transaction=True)

ITEMS = 120
CALL = money.to_nano(Decimal("0.001"))


@pytest.fixture
def server(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    things.hurry(monkeypatch)
    with things.speaking(settings, things.replay_of(things.texts_of(ITEMS)), timeout_seconds=1.0) as server:
        yield server


@pytest.fixture
def run(server: Server, tmp_path: Path, boss: User) -> Run:
    """Its labeler is fitted; slice 1 is free."""
    things.at_most(boss)
    run = things.begin(things.dataset_of(tmp_path, things.texts_of(ITEMS)), boss)
    first = slices.claim_slice(run, "somebody")
    assert first is not None
    slices.close_slice(first)
    return run


def reserve(run: Run, mine: Slice, n: int, nano: int = CALL) -> list[Call]:
    asked = questions.of_version(run.version)[questions.FIRST]
    items = list(things.Item.objects.filter(dataset=run.dataset).values_list("pk", flat=True)[:20])
    with transaction.atomic():
        return money.reserve(run, asked, mine, [money.Wanted(items, nano)] * n)


def claimed(run: Run, owner: str = "one") -> Slice:
    mine = slices.claim_slice(run, owner)
    assert mine is not None
    return mine


@pytest.mark.parametrize("seed", range(8))
def test_no_mixture_of_faults_budgets_and_pauses_breaks_the_accounts(
    server: Server, tmp_path: Path, boss: User, seed: int
) -> None:
    """A property of all histories, of which each seed is one."""
    chance = random.Random(seed)
    n = chance.randint(1, ITEMS)
    things.at_most(boss, at_once=chance.randint(1, 6), per_minute=chance.choice([None, None, 3_000]))
    budget = Decimal(chance.randint(5, 25)) / 10_000
    server.change(faults=chance.choice([0.0, 0.08, 0.2]), seed=seed, delay_ms=chance.choice([0, 20]))
    run = things.begin(things.dataset_of(tmp_path, things.texts_of(n)), boss, budget=budget)
    for _ in range(60):
        stopper = threading.Timer(chance.random() / 2, pause, [run, boss]) if chance.random() < 0.3 else None
        if stopper:
            stopper.start()
        things.work(run, workers=chance.randint(1, 3))
        if stopper:
            stopper.cancel()
            stopper.join()
            run.refresh_from_db()
        things.check_money(run)
        things.check_paid_once(run, server)
        assert run.reserved_nano == 0
        if run.state == "finished":
            break
        if run.problem:
            assert "Raise the budget to go on." in run.problem and run.budget_nano is not None
            Run.objects.filter(pk=run.pk).update(
                budget_nano=run.budget_nano + chance.randint(1, 4) * CALL // 4
            )
        tasks.resume(run, boss)
    things.check_all(run, server)


def pause(run: Run, by: User) -> None:
    tasks.pause(run, by)
    connection.close()


def test_a_tight_budget_is_used_as_far_as_it_goes_and_raising_it_goes_on(
    server: Server, tmp_path: Path, boss: User
) -> None:
    things.at_most(boss)
    dataset = things.dataset_of(tmp_path, things.texts_of(ITEMS))
    run = things.begin(dataset, boss, budget=Decimal("0.0015"))
    things.work(run)
    assert run.state == "paused" and run.budget_nano is not None
    assert run.problem is not None and run.problem.startswith("The budget of 0.0015 USD is used up: ")
    largest = max(Call.objects.filter(run=run).values_list("reserved_nano", flat=True))
    assert run.budget_nano - run.spent_nano < largest * 1.2, "there was room for one more call"
    things.check_money(run)
    before = server.stats()["answers"]["claude-haiku-5-5 1"]["texts"]
    assert 0 < before < ITEMS
    Run.objects.filter(pk=run.pk).update(budget_nano=money.to_nano(things.PLENTY))
    tasks.resume(run, boss)
    things.work(run)
    things.check_all(run, server)
    assert server.stats()["answers"]["claude-haiku-5-5 1"] == {"texts": ITEMS, "most_often": 1}


def test_a_cap_that_is_lowered_below_what_was_spent_ends_the_spending(
    server: Server, tmp_path: Path, boss: User
) -> None:
    server.change(delay_ms=100)
    things.at_most(boss, at_once=1)
    run = things.begin(things.dataset_of(tmp_path, things.texts_of(ITEMS)), boss)
    lower = threading.Timer(0.5, lower_budget, [run])
    lower.start()
    things.work(run, workers=1)
    lower.join()
    run.refresh_from_db()
    assert run.state == "paused" and run.reserved_nano == 0
    assert Call.objects.filter(run=run).count() < ITEMS / 20
    assert run.problem is not None and "Raise the budget" in run.problem


def lower_budget(run: Run) -> None:
    Run.objects.filter(pk=run.pk).update(budget_nano=1)
    connection.close()


def test_many_workers_at_once_cannot_pass_the_cap_together(run: Run) -> None:
    Run.objects.filter(pk=run.pk).update(budget_nano=10 * CALL + 1)
    mine, barrier, got = claimed(run), threading.Barrier(6), list[int]()

    def take() -> None:
        barrier.wait()
        try:
            for _ in range(4):
                got.append(len(reserve(run, mine, 1)))
        except money.BudgetReached:
            pass
        finally:
            connection.close()

    threads = [threading.Thread(target=take) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    run.refresh_from_db()
    assert sum(got) == 10
    assert run.reserved_nano == 10 * CALL
    things.check_money(run)


def test_nothing_is_reserved_for_a_run_that_was_paused_or_is_over(run: Run, boss: User) -> None:
    mine = claimed(run)
    tasks.pause(run, boss)
    with pytest.raises(money.BudgetReached):
        reserve(run, mine, 1)
    tasks.resume(run, boss)
    assert len(reserve(run, mine, 1)) == 1
    tasks.cancel(run, boss)
    with pytest.raises(money.BudgetReached):
        reserve(run, mine, 1)


def test_a_call_that_was_written_off_and_came_back_counts_as_what_it_cost(run: Run) -> None:
    mine = claimed(run)
    [first, second] = reserve(run, mine, 2)
    Slice.objects.filter(pk=mine.pk).update(lease_until=slices.now() - dt.timedelta(seconds=1))
    assert money.write_off_before(claimed(run, "two")) == 2
    run.refresh_from_db()
    assert (run.reserved_nano, run.spent_nano) == (0, 2 * CALL)
    assert {call.pk for call in money.lost_calls(run)} == {first.pk, second.pk}
    late = money.Settled(first, 300, usage={"input": 3, "output": 2})
    for _ in range(2):  # the second time it is settled already
        with transaction.atomic():
            money.settle([late])
    things.check_money(run)
    assert run.spent_nano == CALL + 300
    assert [call.pk for call in money.lost_calls(run)] == [second.pk]


def test_a_call_is_settled_once_and_not_written_off_afterwards(run: Run) -> None:
    mine = claimed(run)
    calls = reserve(run, mine, 2)
    for _ in range(3):
        with transaction.atomic():
            money.settle([money.Settled(calls[0], 500), money.Settled(calls[1], 0, "timeout", lost=True)])
    assert money.write_off(Call.objects.filter(run=run)) == 0
    things.check_money(run)
    assert (run.reserved_nano, run.spent_nano) == (0, 500 + CALL)
    assert [call.problem for call in money.lost_calls(run)] == ["timeout"]


def test_what_nobody_goes_on_with_is_written_off_by_the_sweep(run: Run, boss: User) -> None:
    reserve(run, claimed(run), 3)
    tasks.cancel(run, boss)
    tasks.sweep()
    run.refresh_from_db()
    assert run.reserved_nano == 3 * CALL, "their answers may still come"
    Call.objects.update(reserved_at=slices.now() - money.LOST_AFTER - dt.timedelta(seconds=1))
    tasks.sweep()
    things.check_money(run)
    assert (run.reserved_nano, run.spent_nano, len(money.lost_calls(run))) == (0, 3 * CALL, 3)


def test_a_dead_workers_reservation_does_not_stop_the_next_worker(
    server: Server, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of the budget is held by calls of a worker that is gone: they are written off, and the run says what it needs."""
    monkeypatch.setattr(asking, "PATIENCE", 1.0)
    Run.objects.filter(pk=run.pk).update(budget_nano=2 * CALL)
    gone = claimed(run, "dead")
    reserve(run, gone, 2)
    Slice.objects.filter(pk=gone.pk).update(lease_until=slices.now() + dt.timedelta(seconds=1.2))
    things.work(run, workers=1)
    assert run.state == "paused" and run.problem is not None and "Raise the budget" in run.problem
    things.check_money(run)
    assert (run.reserved_nano, run.spent_nano, len(money.lost_calls(run))) == (0, 2 * CALL, 2)
    assert not Prediction.objects.filter(run=run).exists()
