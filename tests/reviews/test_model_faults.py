"""Whatever goes wrong with the model, one thing or all at once: the run ends, and nothing is paid twice."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import OperationalError

from datasets import asking, gates, model_settings, money, questions, slices
from datasets.models import Call, Gate, Prediction, Run
from labelhub.autolabel.labelers import llm
from labelhub.fakeclaude.server import Server
from reviews import tasks, working
from tests.reviews import model_things as things

pytestmark = pytest.mark.django_db(transaction=True)

ITEMS = 120
SPOILT = {  # what an item says that got only answers of this kind, 100 % of them
    "refusal": {"refused"},
    "truncation": {"truncated"},
    "malformed": {"malformed"},
}


@pytest.fixture
def server(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    things.hurry(monkeypatch)
    with things.speaking(settings, things.replay_of(things.texts_of(ITEMS)), timeout_seconds=1.5) as server:
        yield server


@pytest.fixture
def run(server: Server, tmp_path: Path, boss: User) -> Run:
    things.at_most(boss)
    return things.begin(things.dataset_of(tmp_path, things.texts_of(ITEMS)), boss)


def problems(run: Run) -> set[str]:
    return set(Prediction.objects.filter(run=run, label=None).values_list("problem", flat=True))


@pytest.mark.parametrize("kind", ["overloaded", "server", "drop", "timeout", "rate_limit"])
def test_half_of_all_calls_fail_and_the_run_ends(server: Server, run: Run, kind: str) -> None:
    server.change(fault={kind: 0.25 if kind in ("timeout", "rate_limit") else 0.5}, seed=3)
    things.work(run)
    things.check_all(run, server)
    assert server.stats()["faults"][kind] >= 1
    assert problems(run) <= {"llm_error"}


@pytest.mark.parametrize("kind", ["refusal", "truncation", "malformed"])
def test_answers_that_are_of_no_use_are_asked_again_by_halves_and_then_counted(
    server: Server, run: Run, kind: str
) -> None:
    server.change(fault={kind: 1.0})
    things.work(run)
    things.check_all(run, server)
    assert problems(run) == SPOILT[kind]
    assert Prediction.objects.filter(run=run, label=None).count() == ITEMS


@pytest.mark.parametrize("kind", ["wrong_ids", "off_schema", "prose", "bad_confidence"])
def test_answers_that_are_partly_wrong_cost_only_what_is_wrong(server: Server, run: Run, kind: str) -> None:
    server.change(fault={kind: 1.0})
    things.work(run)
    things.check_all(run, server)
    lost = Prediction.objects.filter(run=run, label=None).count()
    assert problems(run) <= {"label_not_in_schema", "no_answer"}
    assert lost == 0 if kind == "prose" else lost <= ITEMS * 0.15


@pytest.mark.parametrize("seed", range(3))
def test_eight_of_a_hundred_calls_go_wrong_in_any_way(server: Server, run: Run, seed: int) -> None:
    server.change(faults=0.08, seed=seed)
    things.work(run)
    things.check_all(run, server)
    assert Prediction.objects.filter(run=run).exclude(label=None).count() >= ITEMS * 0.8


@pytest.mark.parametrize("kind", ["spend_limit", "credit", "key", "forbidden"])
def test_it_pauses_where_a_person_must_act_and_then_goes_on(
    server: Server, run: Run, boss: User, kind: str
) -> None:
    server.change(fault={kind: 1.0})
    things.work(run)
    assert run.state == "paused"
    assert run.problem == llm.CallFailed(kind, run.problem or "").sentence
    assert run.problem and run.problem.endswith(".") and things.KEY not in run.problem
    asked = sum(server.stats()["calls"]["/v1/messages"].values())
    assert asked <= 8, "a storm of calls that cannot succeed"
    things.check_money(run)
    server.change(fault={})
    tasks.resume(run, boss)
    things.work(run)
    things.check_all(run, server)
    assert problems(run) == set()


def test_it_pauses_where_the_key_is_gone_and_then_goes_on(
    server: Server, run: Run, boss: User, settings: Any
) -> None:
    settings.ANTHROPIC_API_KEY = ""
    things.work(run)
    assert (run.state, run.problem) == ("paused", model_settings.NO_KEY)
    assert not Call.objects.exists()
    settings.ANTHROPIC_API_KEY = things.KEY
    tasks.resume(run, boss)
    things.work(run)
    things.check_all(run, server)


def test_it_pauses_where_the_model_was_retired_in_mid_run(
    server: Server, run: Run, boss: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    from labelhub.fakeclaude import catalogue

    known = catalogue.find

    monkeypatch.setattr(catalogue, "find", lambda name: None if name == llm.DEFAULT_MODEL else known(name))
    things.work(run)
    assert run.state == "paused"
    assert run.problem is not None and "choose another model" in run.problem
    monkeypatch.undo()
    things.hurry(monkeypatch)
    tasks.resume(run, boss)
    things.work(run)
    things.check_all(run, server)


def test_what_may_have_been_answered_and_never_came_counts_as_paid(server: Server, run: Run) -> None:
    server.change(fault={"drop": 0.4, "timeout": 0.1}, seed=5)
    things.work(run)
    lost = money.lost_calls(run)
    assert lost and {call.problem for call in lost} <= {"connection", "timeout"}
    assert server.stats()["lost"]["calls"] >= 1
    things.check_all(run, server)


def test_what_comes_free_in_the_last_moment_is_not_labeled_unasked(
    server: Server, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All slices were held by somebody, who gives them back just then."""
    ask, times = working._ask, [0]

    def find_nothing_at_first(*given: Any) -> str:
        times[0] += 1
        return "" if times[0] <= 3 else ask(*given)

    monkeypatch.setattr(working, "_ask", find_nothing_at_first)
    things.work(run, workers=1)
    things.check_all(run, server)
    assert problems(run) == set()


def test_answers_are_not_lost_to_a_database_that_is_busy(
    server: Server, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, times = questions.store, [0]

    def busy_now_and_then(rows: Any) -> None:
        times[0] += 1
        if times[0] % 3 == 1:
            raise OperationalError("database is locked")
        store(rows)

    monkeypatch.setattr(questions, "store", busy_now_and_then)
    monkeypatch.setattr(asking, "SAVE_AGAIN", (0.01, 0.01))
    things.work(run, workers=1)
    things.check_all(run, server)
    assert not money.lost_calls(run)


def test_a_fault_of_our_own_pauses_the_run_and_pays_for_no_storm(
    server: Server, run: Run, boss: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(asking, "read", lambda *_: 1 / 0)
        patch.setattr(slices, "MOST_ATTEMPTS", 1)
        things.work(run, workers=1)
    assert run.state == "paused" and run.problem is not None
    assert run.problem.startswith("Labeling failed inside LabelHub (ZeroDivisionError)")
    assert Call.objects.filter(run=run).count() <= 4
    things.check_money(run)
    tasks.resume(run, boss)
    things.work(run)
    things.check_items(run)
    things.check_money(run)
    assert run.reserved_nano == 0 and problems(run) == set()
    assert things.billed_usd(server.stats()) <= money.to_usd(run.spent_nano)


def test_a_server_that_is_not_there_costs_nothing_and_the_run_goes_on_when_it_is_back(
    server: Server, run: Run, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gates, "SHORTEST_SECONDS", 20.0)
    monkeypatch.setattr(gates, "LONGEST_SECONDS", 20.0)
    settings.ANTHROPIC_BASE_URL = "http://127.0.0.1:9"
    assert working.work(run.pk, math.inf, rings=False) == "held"
    run.refresh_from_db()
    assert run.state == "running" and run.spent_nano == run.reserved_nano == 0
    gate = gates.closed(Gate.objects.get().pk)
    assert gate is not None and gate.reason == llm.SENTENCES["connection"]
    assert working.work(run.pk, math.inf, rings=False) == "held"
    settings.ANTHROPIC_BASE_URL = server.url
    Gate.objects.update(closed_until=None)  # the time has passed
    things.work(run)
    things.check_all(run, server)
    assert problems(run) == set()
    assert Gate.objects.get().failures == 0
