"""What is asked again, and what is not: failures that pass, calls that always fail, keys that are refused."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User

from datasets import gates, questions
from datasets.models import Call, Gate, Prediction, Run, Vote
from labelhub.autolabel.labelers import dialogue
from labelhub.fakeclaude.server import Server
from reviews import learning, working
from tests.reviews import model_things as things

ITEMS = 60
TEXTS = things.texts_of(ITEMS)

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def server(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    things.hurry(monkeypatch)
    with things.speaking(settings, things.replay_of(TEXTS)) as server:
        yield server


def test_an_outage_costs_no_label_though_every_probe_is_the_same_call(
    server: Server, tmp_path: Path, boss: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = things.begin(things.dataset_of(tmp_path, TEXTS[:20]), boss)  # one call
    monkeypatch.setattr(
        gates, "SHORTEST_SECONDS", 20.0
    )  # once the gate closes, the worker gives its work back
    monkeypatch.setattr(gates, "LONGEST_SECONDS", 20.0)
    server.change(fault={"overloaded": 1.0})
    for _ in range(dialogue.MOST_TRIES + 1):
        assert working.work(run.pk, math.inf, rings=False) == "held"
        Gate.objects.update(closed_until=None)  # the time has passed
    server.change(fault={})
    things.work(run, workers=1)
    assert run.state == "finished"
    assert not Prediction.objects.filter(run=run).exclude(problem=None).exists()


def test_a_call_that_always_fails_does_not_keep_its_run_for_ever(
    server: Server, tmp_path: Path, boss: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gates, "MOST_CALLS", 6)
    run = things.begin(things.dataset_of(tmp_path, TEXTS), boss)
    server.change(fault={"server": 1.0})
    things.work(run, workers=1)
    assert run.state == "finished"
    assert set(Prediction.objects.filter(run=run).values_list("problem", flat=True)) == {"llm_error"}
    assert not run.spent_nano and not run.reserved_nano


def test_another_run_asks_again_where_an_outage_was_why_there_is_no_label(
    server: Server, tmp_path: Path, boss: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = things.dataset_of(tmp_path, TEXTS)
    monkeypatch.setattr(gates, "MOST_CALLS", 6)
    first = things.begin(dataset, boss)
    server.change(fault={"server": 1.0})
    things.work(first, workers=1)
    server.change(fault={})
    second = things.work(things.begin(dataset, boss), workers=1)
    assert set(Prediction.objects.filter(run=second).values_list("problem", flat=True)) == {None}
    assert Vote.objects.filter(problem=None).count() == ITEMS
    assert set(Prediction.objects.filter(run=first).values_list("problem", flat=True)) == {"llm_error"}, (
        "what a run said stays what it said"
    )


def test_a_refusal_is_not_paid_for_twice(server: Server, tmp_path: Path, boss: User) -> None:
    dataset = things.dataset_of(tmp_path, TEXTS[:4])
    server.change(fault={"refusal": 1.0})
    things.work(things.begin(dataset, boss), workers=1)
    calls = Call.objects.count()
    second = things.work(things.begin(dataset, boss), workers=1)
    assert Call.objects.count() == calls
    assert set(Prediction.objects.filter(run=second).values_list("problem", flat=True)) == {"refused"}


def test_answers_for_want_of_a_connection_are_not_borrowed(
    server: Server, tmp_path: Path, boss: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gates, "MOST_CALLS", 6)
    server.change(fault={"server": 1.0})
    (tmp_path / "one").mkdir(), (tmp_path / "two").mkdir()
    things.work(things.begin(things.dataset_of(tmp_path / "one", TEXTS[:20]), boss), workers=1)
    server.change(fault={})
    again = things.work(things.begin(things.dataset_of(tmp_path / "two", TEXTS[:20]), boss), workers=1)
    assert set(Prediction.objects.filter(run=again).values_list("problem", flat=True)) == {None}


def test_a_refused_key_says_where_to_type_another(server: Server, tmp_path: Path, boss: User) -> None:
    server.change(fault={"key": 1.0})
    with pytest.raises(learning.CannotLearn, match="Settings > Language model"):
        things.begin(things.dataset_of(tmp_path, TEXTS[:20]), boss)
    server.change(fault={})
    run = Run.objects.first() or things.begin(things.dataset_of(tmp_path, TEXTS[20:40]), boss)
    server.change(fault={"key": 1.0})
    things.work(run, workers=1)
    assert run.state == "paused" and "Settings > Language model" in (run.problem or "")


def test_only_what_passes_is_asked_again() -> None:
    assert set(questions.PASSING) == {"llm_error", "llm_rejected"}
