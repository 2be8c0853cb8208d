"""What a run asks a language model, how fast, and what it never asks twice."""

from __future__ import annotations

import csv
import datetime as dt
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connection, transaction

from datasets import gates, model_settings, questions, slices
from datasets.models import Call, Dataset, Gate, Item, Prediction, Run, Vote
from labelhub.autolabel.labelers.suspicion import suspicious
from labelhub.autolabel.rank import to_rank
from labelhub.fakeclaude.replay import Replay
from labelhub.fakeclaude.server import Server
from reviews import metrics, tasks, thresholds
from tests.reviews import model_things as things

pytestmark = pytest.mark.django_db(transaction=True)

DATA = Path(__file__).parents[1] / "data"
ITEMS = 240
PATH = "the way to a model"


@pytest.fixture
def server(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    things.hurry(monkeypatch)
    with things.speaking(settings, things.replay_of(things.texts_of(ITEMS))) as server:
        yield server


@pytest.fixture
def dataset(server: Server, tmp_path: Path, boss: User) -> Dataset:
    things.at_most(boss)
    return things.dataset_of(tmp_path, things.texts_of(ITEMS))


# How fast


def test_two_workers_together_never_have_more_calls_under_way_than_allowed(
    server: Server, dataset: Dataset, boss: User
) -> None:
    things.at_most(boss, at_once=3)
    run = things.begin(dataset, boss)
    server.change(delay_ms=60)
    server.reset()
    things.work(run, workers=2)
    things.check_all(run, server)
    assert server.stats()["most_concurrent"] == 3


def test_two_workers_together_keep_to_the_calls_a_minute(
    server: Server, dataset: Dataset, boss: User
) -> None:
    per_second = 4.0
    things.at_most(boss, per_minute=round(per_second * 60))
    run = things.begin(dataset, boss)
    things.work(run, workers=2)
    things.check_all(run, server)
    moments = sorted(Call.objects.filter(run=run).values_list("reserved_at", flat=True))
    at_first = 1 + gates.BURST.total_seconds() * per_second
    for n, moment in enumerate(moments, 1):
        assert n <= 1.1 * (at_first + (moment - moments[0]).total_seconds() * per_second)
    seconds = (moments[-1] - moments[0]).total_seconds()
    assert seconds <= 1.1 * len(moments) / per_second + 1.0, "slower than allowed"


def leave(limits: Any, wanted: int = 8) -> int:
    with transaction.atomic():
        return gates.ask_leave(PATH, limits, wanted).calls


def test_a_gate_closes_after_failures_in_a_row_lets_one_call_through_and_opens_again(
    dataset: Dataset, boss: User
) -> None:
    run, limits = things.begin(dataset, boss), model_settings.current()
    for _ in range(gates.MOST_FAILURES - 1):
        gates.note_failure(PATH, "Overloaded.", None, 0.5)
    assert leave(limits) == 4, "too few failures to close"
    gates.note_failure(PATH, "Overloaded.", None, 0.5)
    assert leave(limits) == 0
    closed = gates.closed(PATH)
    assert closed is not None and closed.reason == "Overloaded." and closed.failing_since is not None
    Gate.objects.update(closed_until=slices.now())  # the time has passed
    assert leave(limits) == 1
    version = questions.of_version(run.version)[questions.FIRST].version_id
    probe = Call.objects.create(
        run=run, version_id=version, gate=PATH, slice_number=1, epoch=1, items=[], reserved_nano=0,
        reserved_at=slices.now(),
    )  # fmt: skip
    assert leave(limits) == 0, "a second call before the first one is back"
    probe.delete()
    gates.note_failure(PATH, "Overloaded.", None, 0.5)
    again = gates.closed(PATH)
    assert again is not None and again.closed_until is not None and closed.closed_until is not None
    Gate.objects.update(closed_until=slices.now())
    gates.note_success(PATH)
    assert gates.closed(PATH) is None and leave(limits) == 4


def test_who_is_told_how_long_to_wait_waits_though_another_call_succeeds(dataset: Dataset) -> None:
    gates.note_failure(PATH, "Too fast.", 30.0, 0.5)
    gates.note_success(PATH)  # of a call that went out before
    closed = gates.closed(PATH)
    assert closed is not None and closed.reason == "Too fast." and closed.failures == 0
    assert leave(model_settings.current()) == 0
    Gate.objects.update(closed_until=slices.now() - dt.timedelta(seconds=1))
    gates.note_success(PATH)
    assert gates.closed(PATH) is None
    assert Gate.objects.get(pk=PATH).reason == ""


def test_while_the_model_is_away_nobody_storms_it_and_the_run_goes_on_when_it_is_back(
    server: Server, dataset: Dataset, boss: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gates, "SHORTEST_SECONDS", 0.6)
    monkeypatch.setattr(gates, "LONGEST_SECONDS", 5.0)
    run = things.begin(dataset, boss)
    server.change(fault={"overloaded": 1.0})
    back = threading.Timer(1.5, server.change, kwargs={"fault": {}})
    back.start()
    things.work(run, workers=2)
    back.join()
    things.check_all(run, server)
    assert gates.MOST_FAILURES <= server.stats()["faults"]["overloaded"] <= 20
    assert not Prediction.objects.filter(run=run, label=None).exists()


@pytest.mark.parametrize("seed", range(3))
def test_pausing_and_resuming_at_any_moment_pays_nothing_twice(
    server: Server, dataset: Dataset, boss: User, seed: int
) -> None:
    server.change(delay_ms=30)
    things.at_most(boss, at_once=2)
    run = things.begin(dataset, boss)
    for moment in (0.05 + 0.11 * seed, 0.2, 0.3):
        stop = threading.Timer(moment, pause, [run, boss])
        stop.start()
        things.work(run)
        stop.join()
        tasks.resume(run, boss)
    things.work(run)
    things.check_all(run, server)
    assert server.stats()["answers"]["claude-haiku-5-5 1"] == {"texts": ITEMS, "most_often": 1}


def pause(run: Run, by: User) -> None:
    tasks.pause(run, by)
    connection.close()


def cancel(run: Run, by: User) -> None:
    tasks.cancel(run, by)
    connection.close()


def test_what_a_cancelled_run_has_paid_for_is_not_asked_again(
    server: Server, dataset: Dataset, boss: User
) -> None:
    server.change(delay_ms=80)
    things.at_most(boss, at_once=1)
    run = things.begin(dataset, boss)
    stop = threading.Timer(0.6, cancel, [run, boss])
    stop.start()
    things.work(run)
    stop.join()
    assert run.state == "cancelled" and run.reserved_nano == 0
    things.check_money(run)
    known = Vote.objects.filter(call__run=run).count()
    assert 0 < known < ITEMS
    again = things.work(things.begin(dataset, boss))
    things.check_items(again)
    assert len(things.asked_about(again)) == ITEMS - known
    assert server.stats()["answers"]["claude-haiku-5-5 1"] == {"texts": ITEMS, "most_often": 1}


# What is never asked twice


def test_a_second_run_pays_nothing(server: Server, dataset: Dataset, boss: User) -> None:
    things.work(things.begin(dataset, boss))
    asked = server.stats()["answers"]
    again = things.work(things.begin(dataset, boss))
    things.check_items(again)
    things.check_money(again)
    assert again.spent_nano == 0 and not Call.objects.filter(run=again).exists()
    assert server.stats()["answers"] == asked
    assert Prediction.objects.filter(run=again).exclude(label=None).count() == ITEMS


def test_the_same_file_uploaded_again_pays_nothing(
    server: Server, dataset: Dataset, tmp_path: Path, boss: User
) -> None:
    things.work(things.begin(dataset, boss))
    twin = things.dataset_of(tmp_path, [*things.texts_of(ITEMS - 30), "something new"])
    run = things.work(things.begin(twin, boss))
    things.check_items(run)
    new = Item.objects.get(dataset=twin, text="something new")
    assert things.asked_about(run) == {new.pk}
    of_first = dict(Prediction.objects.filter(run__dataset=dataset).values_list("item__text", "label__name"))
    for text, label in (
        Prediction.objects.filter(run=run).exclude(item=new).values_list("item__text", "label__name")
    ):
        assert label == of_first[text]


def test_a_text_that_comes_twice_is_asked_once(server: Server, tmp_path: Path, boss: User) -> None:
    things.at_most(boss)
    run = things.begin(things.dataset_of(tmp_path, things.texts_of(30) * 3), boss)
    things.work(run)
    things.check_all(run, server)
    assert server.stats()["answers"]["claude-haiku-5-5 1"] == {"texts": 30, "most_often": 1}


# Whole runs over recorded answers


@pytest.mark.parametrize(
    ("name", "labels"),
    [("stance_gpt4o", "agrees,neutral,disagrees"), ("media_bias_llm_votes", "biased,not_biased")],
)
def test_a_whole_run_by_command_has_the_threshold_table_of_the_file(
    settings: Any, name: str, labels: str
) -> None:
    path = DATA / f"{name}.csv"
    with things.speaking(settings, path) as server:
        call_command("importdata", str(path), "--text", "text", "--labels", labels, "--name", name)
        dataset = Dataset.objects.get()
        call_command("autolabel", str(dataset.pk), "--method", "llm", "--budget", "5", "--wait")
        run = Run.objects.get()
        things.check_all(run, server)
    recorded = {}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            recorded.setdefault(row["text"].strip(), (row["predicted_label"], float(row["confidence"])))
    said = [
        sure for text, (label, sure) in recorded.items() if label and not suspicious(text, labels.split(","))
    ]
    in_force = thresholds.in_force(dataset)
    assert in_force is not None
    distinct = metrics.states(dataset).distinct
    assert distinct == len(recorded)
    for value in (0.5, 0.7, 0.8, 0.85, 0.9, 0.95, 0.99):
        line = metrics.row(dataset, in_force, to_rank(value))
        assert (line.accepted, line.items) == (sum(sure >= value for sure in said), distinct), value


# Which questions


def test_further_wordings_are_asked_only_where_the_first_answer_is_unsure(
    settings: Any, tmp_path: Path, boss: User
) -> None:
    texts = things.texts_of(100)
    labels = [("fruit", "tool")[i % 2] for i in range(100)]
    sure = [0.99 if i % 5 else 0.6 for i in range(100)]
    with things.speaking(settings, Replay(texts, {"": [labels, labels, labels]}, sure)) as server:
        things.at_most(boss, asks=3)
        run = things.work(things.begin(things.dataset_of(tmp_path, texts), boss))
        things.check_all(run, server)
        answers = {name: told["texts"] for name, told in server.stats()["answers"].items()}
    assert answers == {"claude-haiku-5-5 1": 100, "claude-haiku-5-5 2": 20, "claude-haiku-5-5 3": 20}


def test_a_second_model_is_asked_only_where_answers_disagree(
    settings: Any, tmp_path: Path, boss: User
) -> None:
    texts = things.texts_of(60)
    first = [("fruit", "tool")[i % 2] for i in range(60)]
    other = [label if i >= 12 else ("tool", "fruit")[i % 2] for i, label in enumerate(first)]
    replay = Replay(texts, {"": [first, other], "claude-sonnet-5-5": [first]}, [0.6] * 60)
    with things.speaking(settings, replay) as server:
        things.at_most(boss, asks=2, second_model="claude-sonnet-5-5")
        run = things.work(things.begin(things.dataset_of(tmp_path, texts), boss))
        things.check_all(run, server)
        answers = {name: told["texts"] for name, told in server.stats()["answers"].items()}
    assert answers == {"claude-haiku-5-5 1": 60, "claude-haiku-5-5 2": 60, "claude-sonnet-5-5 1": 12}
