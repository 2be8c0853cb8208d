"""Workers that are killed while they ask: what was under way is counted, and nothing else is asked twice.

Real workers (`manage.py worker`), a real Valkey, kill -9.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from datasets import money
from datasets.models import Call, MessageBatch, Prediction, Run, Slice, Vote
from datasets.tasks import workers_alive
from labelhub.fakeclaude.server import Server
from reviews import learning, tasks
from tests.processes import horse_of, wait_for
from tests.reviews import model_things as things

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]

ITEMS = 1_200  # three slices, sixty calls
AT_ONCE = 4


@pytest.fixture
def fake(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The model, also for workers that are processes of their own."""
    with things.speaking(settings, things.replay_of(things.texts_of(ITEMS)), delay_ms=250) as server:
        monkeypatch.setenv("ANTHROPIC_API_KEY", things.KEY)
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
        yield server


def start(folder: Path, boss: User, **spend: Any) -> Run:
    things.at_most(boss, at_once=AT_ONCE)
    spend = {"budget_usd": things.PLENTY} | spend
    dataset = things.dataset_of(folder, things.texts_of(ITEMS))
    return learning.learn(dataset, "llm", boss, learning.Spend(**spend))


def is_over(run: Run) -> bool:
    run.refresh_from_db()
    tasks.sweep()
    return run.state == "finished"


def is_in_mid_call(run: Run, answered: int = 100) -> bool:
    waiting = Call.objects.filter(run=run, settled_at=None, lost_at=None).count()
    return waiting == AT_ONCE and answered <= Vote.objects.filter(call__run=run).count() < ITEMS - 400


def kill(worker: subprocess.Popen[bytes]) -> None:
    """Kill a worker with all its processes; nobody waits twenty seconds for the leases of what is known to be dead."""
    horse = horse_of(worker)
    os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()
    let_leases_end(horse)


def let_leases_end(horse: int | None) -> None:
    held = Slice.objects.filter(done_at=None, owner__contains=f"-{horse}-")
    held.update(lease_until=timezone.now())


def check_lost(run: Run, fake: Server, kills: int) -> None:
    """Only what was under way at a kill was lost, and only that was answered a second time."""
    things.check_items(run)
    things.check_money(run)
    assert run.reserved_nano == 0
    assert Prediction.objects.filter(run=run).exclude(label=None).count() == ITEMS
    lost = money.lost_calls(run)
    assert len(lost) <= kills * AT_ONCE
    stats = fake.stats()
    again = sum(n - 1 for n in stats["texts"]["claude-haiku-5-5 1"].values())
    assert again <= sum(len(call.items) for call in lost)
    assert things.billed_usd(stats) <= money.to_usd(run.spent_nano)


@pytest.mark.parametrize("victim", ["worker", "horse"])
def test_a_worker_is_killed_in_mid_call(
    server: Any, worker: Any, fake: Server, tmp_path: Path, boss: User, victim: str
) -> None:
    first = worker()
    run = start(tmp_path, boss)
    wait_for(lambda: is_in_mid_call(run), "in mid-call")
    if victim == "worker":
        kill(first)
        worker()
    else:
        horse = horse_of(first)
        assert horse is not None
        os.kill(horse, signal.SIGKILL)
        let_leases_end(horse)
    wait_for(lambda: is_over(run), "finished")
    check_lost(run, fake, kills=1)
    assert money.lost_calls(run), "nothing was under way"


def test_one_of_two_workers_is_killed_again_and_again(
    server: Any, worker: Any, fake: Server, tmp_path: Path, boss: User
) -> None:
    workers = [worker(), worker()]
    wait_for(lambda: len(workers_alive()) == 2, "two workers", 30)
    run = start(tmp_path, boss)
    for answered in (60, 300, 540):
        wait_for(lambda answered=answered: is_in_mid_call(run, answered), "in mid-call")
        kill(workers.pop(0))
        workers.append(worker())
    wait_for(lambda: is_over(run), "finished")
    assert fake.stats()["most_concurrent"] <= 2 * AT_ONCE  # those of the dead are still being answered
    check_lost(run, fake, kills=3)


def test_a_worker_is_killed_while_a_batch_is_under_way(
    server: Any, worker: Any, fake: Server, tmp_path: Path, boss: User
) -> None:
    fake.change(batch_seconds=4.0, delay_ms=20)
    first = worker()
    run = start(tmp_path, boss, batch=True)
    wait_for(lambda: MessageBatch.objects.exclude(api_id="").exists(), "handed in")
    kill(first)
    worker()
    wait_for(lambda: is_over(run), "finished")
    things.check_all(run, fake)
    assert len(list(fake.api._batches.newest_first())) == 1
    assert not money.lost_calls(run)
    assert Prediction.objects.filter(run=run).exclude(label=None).count() == ITEMS
