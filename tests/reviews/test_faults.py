"""What breaks while a run is under way, and that nobody needs to do anything about it.

Real workers (`manage.py worker`), a real Valkey, real signals. Whatever was killed: every free item gets exactly
one prediction, and the run ends by itself within a minute of a worker being there.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import redis
from django.conf import settings
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.test import Client
from django.urls import reverse

from datasets import labeling, slices
from datasets import tasks as below
from datasets.ingest import ingest
from datasets.models import (
    Dataset,
    Item,
    LabelerVersion,
    Prediction,
    Run,
    Slice,
)
from labelhub import embedded
from labelhub.autolabel import tables
from reviews import learning, tasks
from reviews.models import Threshold
from tests.processes import can_write, children_of, horse_of, wait_for

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]

ITEMS = 30_000  # sixty slices: some seconds of work


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Many short texts with two labels, forty of them given."""
    path = tmp_path / "rows.csv"
    with path.open("w", encoding="utf-8") as file:
        file.write("text,label\n")
        for n in range(ITEMS):
            word, label = (("apple", "fruit"), ("hammer", "tool"))[n % 2]
            file.write(
                f"the {word} number {n} of a long and winding list of things,{label if n < 40 else ''}\n"
            )
    dataset = Dataset.objects.create(name="Things")
    ingest(dataset, path, tables.sniff(path), {"text": ["text"], "label": "label"})
    return dataset


def labeled(run: Run) -> int:
    return Prediction.objects.filter(run=run).count()


def is_over(run: Run) -> bool:
    run.refresh_from_db()
    return run.state == "finished"


def check_whole(run: Run) -> None:
    """Every free item has exactly one prediction, and none was set aside."""
    free = Item.objects.filter(dataset=run.dataset_id, given_label=None, same_as=None).count()
    found = Prediction.objects.filter(run=run)
    assert found.count() == found.values("item").distinct().count() == free == ITEMS - 40
    assert not found.exclude(problem=None).exists()
    assert not Slice.objects.filter(run=run, done_at=None).exists()


def in_the_middle(run: Run) -> bool:
    return 500 <= labeled(run) < ITEMS - 2_000


def test_a_run_is_worked_by_a_worker_and_ends(server: Any, worker: Any, dataset: Dataset, boss: User) -> None:
    worker()
    run = learning.learn(dataset, "weak_model", boss)
    wait_for(lambda: is_over(run), "finished")
    check_whole(run)


@pytest.mark.parametrize("victim", ["all", "horse", "worker"])
def test_it_goes_on_after_a_kill(server: Any, worker: Any, dataset: Dataset, boss: User, victim: str) -> None:
    """R01, R02: kill -9 of the whole worker, of the process at work, and of the one between them."""
    first = worker()
    run = learning.learn(dataset, "weak_model", boss)
    wait_for(lambda: in_the_middle(run), "under way")
    if victim == "all":
        os.killpg(first.pid, signal.SIGKILL)
    elif victim == "horse":
        horse = horse_of(first)
        assert horse is not None
        os.kill(horse, signal.SIGKILL)
    else:
        os.kill(children_of(first.pid)[0], signal.SIGKILL)
    before = labeled(run)
    done = set(Slice.objects.filter(run=run).exclude(done_at=None).values_list("number", "epoch"))
    assert before < ITEMS - 40, "it was over before the kill"
    if victim != "horse":
        worker()
    wait_for(lambda: is_over(run), "finished")
    check_whole(run)
    assert done <= set(Slice.objects.filter(run=run).values_list("number", "epoch")), (
        "a finished slice was repeated"
    )


def test_a_frozen_worker_that_wakes_up_is_fenced(
    server: Any, worker: Any, dataset: Dataset, boss: User, tmp_path: Path
) -> None:
    """R21, R01: a horse stopped in mid-slice, overtaken by another worker, then woken."""
    first = worker()
    run = learning.learn(dataset, "weak_model", boss)
    wait_for(lambda: in_the_middle(run), "under way")
    horse = horse_of(first)
    assert horse is not None
    for _ in range(100):  # until it is stopped inside a slice, and not while it writes
        os.kill(horse, signal.SIGSTOP)
        time.sleep(0.3)
        held = Slice.objects.filter(run=run, done_at=None).exclude(lease_until=None).first()
        if held is not None and can_write(held):
            break
        held = None
        os.kill(horse, signal.SIGCONT)
        time.sleep(0.01)
    assert held is not None
    worker()
    wait_for(lambda: is_over(run), "finished", 90)
    assert Slice.objects.get(pk=held.pk).epoch > held.epoch
    os.kill(horse, signal.SIGCONT)
    log = tmp_path / "worker-0.log"
    wait_for(lambda: b"belongs to somebody else" in log.read_bytes(), "refused", 20)
    check_whole(run)


def test_it_goes_on_after_the_queue_was_killed_and_came_back_empty(
    server: Any, worker: Any, dataset: Dataset, boss: User
) -> None:
    """R05."""
    worker()
    run = learning.learn(dataset, "weak_model", boss)
    wait_for(lambda: in_the_middle(run), "under way")
    server["now"].process.kill()
    server["now"].process.wait()
    time.sleep(2)
    server["now"] = embedded.start(settings.LABELHUB_HOME)
    wait_for(lambda: is_over(run), "finished")
    check_whole(run)


def test_what_waited_in_a_queue_that_was_lost_is_found_again(
    server: Any, worker: Any, dataset: Dataset, boss: User
) -> None:
    """R05: the job was enqueued, then the queue lost it before any worker came."""
    run = learning.learn(dataset, "weak_model", boss)
    client = redis.Redis.from_url(settings.REDIS_URL)
    assert below.is_enqueued(f"run-{run.pk}")
    client.flushall()
    assert not below.is_enqueued(f"run-{run.pk}")
    worker()
    wait_for(lambda: is_over(run), "finished")
    check_whole(run)


def test_starting_while_the_queue_is_down_stores_the_run_and_says_so(
    worker: Any, dataset: Dataset, boss: User, client: Client
) -> None:
    """R06: no 500, and labeling starts by itself when the queue is back."""
    client.force_login(boss)
    answer = client.post(reverse("reviews:start", args=[dataset.pk]), {"method": "weak_model"}, follow=True)
    assert answer.status_code == 200
    assert "The queue is down." in answer.content.decode()
    run = Run.objects.get()
    assert run.state == "waiting"
    server = embedded.start(settings.LABELHUB_HOME)
    try:
        worker()
        wait_for(lambda: is_over(run), "finished")
    finally:
        server.stop()
    check_whole(run)


def test_within_ten_seconds_the_page_says_that_no_worker_is_there(
    server: Any, worker: Any, dataset: Dataset, boss: User, client: Client
) -> None:
    """R09, after a worker that was there is killed."""
    client.force_login(boss)
    process = worker()
    wait_for(below.workers_alive, "a worker alive", 20)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    learning.learn(dataset, "weak_model", boss)
    address = reverse("reviews:progress", args=[dataset.pk])

    def told() -> bool:
        return (
            "No labeling worker is running"
            in client.get(address, headers={"HX-Request": "true"}).content.decode()
        )

    wait_for(told, "told", 10)
    assert (
        "No worker running" in client.get(reverse("light"), headers={"HX-Request": "true"}).content.decode()
    )


def test_two_workers_share_a_run(server: Any, worker: Any, dataset: Dataset, boss: User) -> None:
    """R23."""
    worker()
    worker()
    wait_for(lambda: len(below.workers_alive()) == 2, "two workers", 30)
    run = learning.learn(dataset, "weak_model", boss)
    wait_for(lambda: is_over(run), "finished")
    check_whole(run)
    owners = set(Slice.objects.filter(run=run, number__gt=0).values_list("owner", flat=True))
    assert len(owners) >= 2


def test_many_starts_at_once_make_one_run(dataset: Dataset, boss: User) -> None:
    """R10: the database decides who was first; the others hear that a run is under way."""
    told: list[str] = []
    gate = threading.Barrier(6)

    def press() -> None:
        gate.wait()
        try:
            learning.learn(dataset, "weak_model", boss)
            told.append("started")
        except tasks.RunIsActive as error:
            told.append(str(error))
        finally:
            connection.close()

    threads = [threading.Thread(target=press) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(told) == ["Run 1 is under way."] * 5 + ["started"]
    assert Run.objects.count() == LabelerVersion.objects.count() == Threshold.objects.count() == 1


def test_the_same_job_twice_at_once_labels_nothing_twice(dataset: Dataset, boss: User) -> None:
    """R11."""
    run = learning.learn(dataset, "weak_model", boss, rings=False)
    faults: list[BaseException] = []

    def work() -> None:
        try:
            while not is_over(Run.objects.get(pk=run.pk)):
                tasks.work_slices(run.pk)
                time.sleep(0.05)
        except BaseException as error:
            faults.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not faults
    check_whole(Run.objects.get(pk=run.pk))
    tasks.work_slices(run.pk)  # and once more, long after
    check_whole(Run.objects.get(pk=run.pk))


def test_a_start_that_is_rolled_back_leaves_no_run_and_no_job(
    server: Any, dataset: Dataset, boss: User
) -> None:
    """R12."""
    with pytest.raises(RuntimeError), transaction.atomic():
        run = learning.learn(dataset, "weak_model", boss)
        raise RuntimeError("rolled back")
    assert not Run.objects.exists() and not Slice.objects.exists()
    assert not below.is_enqueued(f"run-{run.pk}")


def test_a_job_never_starts_before_its_run_is_stored(
    server: Any, worker: Any, dataset: Dataset, boss: User
) -> None:
    """R13: a slow commit."""
    if connection.vendor == "sqlite":
        seconds = 1.0  # workers cannot beat meanwhile
    else:
        seconds = 3.0
    worker()
    wait_for(below.workers_alive, "a worker alive", 20)
    with transaction.atomic():
        run = learning.learn(dataset, "weak_model", boss)
        time.sleep(seconds)
        assert not below.is_enqueued(f"run-{run.pk}")
    wait_for(lambda: is_over(run), "finished")
    check_whole(run)


def test_pause_resume_and_cancel_reach_a_worker_at_work(
    server: Any, worker: Any, dataset: Dataset, boss: User
) -> None:
    """R16."""
    worker()
    run = learning.learn(dataset, "weak_model", boss)
    wait_for(lambda: in_the_middle(run), "under way")
    assert tasks.pause(run, boss)
    wait_for(
        lambda: not Slice.objects.filter(run=run, done_at=None).exclude(lease_until=None).exists(),
        "stopped",
        5,
    )
    stopped = labeled(run)
    assert stopped < ITEMS - 40
    time.sleep(12)  # longer than a sweep
    assert labeled(run) == stopped
    assert tasks.resume(run, boss)
    wait_for(lambda: labeled(run) > stopped, "going on", 20)
    assert tasks.cancel(run, boss)
    kept = labeled(run)
    time.sleep(2)
    assert labeled(run) == kept
    second = learning.learn(dataset, "weak_model", boss)
    wait_for(lambda: is_over(second), "finished")
    check_whole(second)


def test_a_worker_told_to_stop_ends_its_slice_and_another_goes_on(
    server: Any, worker: Any, dataset: Dataset, boss: User
) -> None:
    """R03: SIGTERM loses no attempt."""
    first = worker()
    run = learning.learn(dataset, "weak_model", boss)
    wait_for(lambda: in_the_middle(run), "under way")
    first.terminate()
    first.wait(15)
    assert not is_over(run)
    worker()
    wait_for(lambda: is_over(run), "finished")
    check_whole(run)
    assert set(Slice.objects.filter(run=run).values_list("attempts", flat=True)) == {1}


def test_a_lease_is_renewed_while_the_work_takes_longer(
    dataset: Dataset, boss: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datetime as dt

    monkeypatch.setattr(slices, "LEASE", dt.timedelta(seconds=0.8))
    run = learning.learn(dataset, "weak_model", boss, rings=False)
    mine = slices.claim_slice(run, "slow")
    assert mine is not None
    with slices.lease_kept(mine):
        time.sleep(2)
        assert slices.claim_slice(run, "greedy") is None
        state = labeling.fit(mine, tasks.to_label(dataset, run.version))
    labeling.finish_fit(mine, run.version, state)
    other = slices.claim_slice(run, "slow")
    assert other is not None
    time.sleep(1)
    assert slices.claim_slice(run, "greedy") is not None  # nobody kept that one
