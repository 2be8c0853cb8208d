"""What promises are predicted to cost: the planner's answer, from counts alone."""

from __future__ import annotations

import numpy as np
import pytest

from datasets.models import Item, LabelerVersion
from datasets.slices import write_tally
from labelhub.autolabel import planner
from labelhub.autolabel.certify import attempt_alpha, budget
from labelhub.autolabel.rank import to_rank
from reviews import charts, decisions, evidence, forecast, metrics, samples
from reviews.models import Goal
from tests.reviews.conftest import World
from tests.reviews.scenario import count_statements
from tests.reviews.test_metrics import answer_all

pytestmark = pytest.mark.django_db
SURE = {0.9995: 700, 0.95: 200, 0.6: 100}


def found(world: World) -> forecast.Forecast | None:
    known = metrics.gather(world.dataset, world.threshold)
    return forecast.forecast(world.dataset, world.threshold, known, metrics.states(world.dataset))


def imagined(world: World, open_items: dict[float, int]) -> forecast.Forecast:
    """The forecast for a dataset of which nothing is decided, without the rows that it would take."""
    known = evidence.Evidence(world.run)
    for confidence, n in open_items.items():
        known.items.add(to_rank(round(confidence, 3)), 0, n)
    n = sum(open_items.values())
    count = metrics.States(given=0, decided=0, accepted=n, flagged=0, pending=0, excluded=0, copies=0)
    seen = forecast.forecast(world.dataset, world.threshold, known, count)
    assert seen is not None
    return seen


def test_each_promise_is_what_the_planner_says_of_the_open_items(make_world) -> None:
    world = make_world([0.9995] * 350 + [0.95] * 100 + [0.6] * 50)
    write_tally(world.run)
    for item in world.items[-20:]:
        decisions.decide(item, world.people["reviewer"], "label", world.labels[0])
    decisions.remark(world.items[0], world.people["reviewer"], "ask")
    seen = found(world)
    assert seen is not None and (seen.items, seen.labelled, seen.attempt) == (500, 21, 1)
    assert [p.quality for p in seen.promises] == [0.90, 0.95, 0.97, 0.98, 0.99]
    assert [p.wanted for p in seen.promises] == [False, True, False, False, False]
    p = 1 - np.array([0.9995] * 349 + [0.9505] * 100 + [0.6005] * 30)
    for promise in seen.promises[1:]:
        error = 1 - promise.quality
        alone = planner.plan(
            p, 21, 500, budget(500, error), attempt_alpha(0.05, 1), 0.10 * min(1, error / 0.05)
        )
        assert (None if alone is None else round(alone.manual)) == promise.answers
        assert promise.sample == (alone.sample if alone else 0)
    assert seen.promises[1].answers is not None and seen.promises[1].answers < 400


def test_no_promise_costs_more_than_a_stricter_one(make_world) -> None:
    world = make_world([0.9])
    ramp = {float(c): 10 for c in np.linspace(0.5, 0.999, 120)}
    for open_items in (SURE, {0.93: 500, 0.7: 500}, ramp, {0.8: 1000, 0.79: 1000}):
        seen = imagined(world, open_items)
        costs = [seen.items + 1 if p.answers is None else p.answers for p in seen.promises]
        assert costs == sorted(costs)
    sure = imagined(world, SURE).promises
    assert sure[0].answers is not None and sure[0].answers < (sure[-1].answers or 1000)


def test_a_goal_brings_its_own_promise_and_floor(make_world) -> None:
    world = make_world([0.9])
    assert [p.floor for p in imagined(world, SURE).promises] == pytest.approx([0.90, 0.90, 0.94, 0.96, 0.98])
    Goal.objects.create(dataset=world.dataset, target_error=0.04, floor_error=0.20)
    seen = imagined(world, SURE)
    assert [(p.quality, p.wanted) for p in seen.promises] == [
        (0.90, False), (0.95, False), (0.96, True), (0.97, False), (0.98, False), (0.99, False),
    ]  # fmt: skip
    assert [p.floor for p in seen.promises] == pytest.approx([0.80, 0.80, 0.80, 0.85, 0.90, 0.95])
    Goal.objects.update(floor_error=None)
    assert {p.floor for p in imagined(world, SURE).promises} == {None}


def test_a_pool_that_no_sample_can_prove_says_none(make_world) -> None:
    world = make_world([0.9] * 30)
    seen = found(world)
    assert seen is not None and {p.answers for p in seen.promises} == {None}
    drawn = charts.draw_forecast(seen)
    assert {column.top for column in drawn.columns} == {None}
    assert all("no sample could prove it" in column.words for column in drawn.columns)


def test_nothing_is_forecast_while_labeling_runs_or_when_all_is_decided(make_world) -> None:
    world = make_world([0.9] * 4)
    for item in world.items:
        decisions.decide(item, world.people["reviewer"], "label", world.labels[0])
    assert found(world) is None
    busy = make_world([0.9] * 4, name="busy")
    Item.objects.create(dataset=busy.dataset, position=9, text="b", row="{}", text_hash=2)
    assert metrics.states(busy.dataset).pending == 1 and found(busy) is None


def test_the_alpha_is_that_of_the_next_attempt(make_world) -> None:
    world = make_world([0.99] * 20 + [0.5] * 5)
    sample = samples.draw_spot_check(world.dataset, world.threshold, world.people["manager"])
    answer_all(world.dataset, sample, world.people["second"])
    seen = found(world)
    assert seen is not None and (seen.attempt, seen.alpha) == (2, attempt_alpha(0.05, 2))


@pytest.mark.parametrize(
    ("method", "examples", "said"),
    [("imported", 0, "labels of the file"), ("imported", 90, "labels of the file"), ("rules", 90, "rules"),
     ("weak_model", 20, "learned from answers"), ("weak_model", 50, ""), ("ensemble", 60, ""), ("round", 5, "")],
)  # fmt: skip
def test_it_says_whose_chances_they_are(make_world, method: str, examples: int, said: str) -> None:
    world = make_world([0.9] * 4)
    pairs = [[n, world.labels[0].pk] for n in range(examples)]
    LabelerVersion.objects.filter(pk=world.run.version_id).update(method=method, examples=pairs)
    world.run.version.refresh_from_db()
    seen = found(world)
    assert seen is not None and seen.stated_by == said


def test_it_asks_the_database_for_the_goal_and_the_attempts_only(make_world) -> None:
    world = make_world([0.9] * 5)
    known, count = metrics.gather(world.dataset, world.threshold), metrics.states(world.dataset)
    assert count_statements(lambda: forecast.forecast(world.dataset, world.threshold, known, count)) == 2


def test_the_chart_has_a_column_for_each_promise(make_world) -> None:
    drawn = charts.draw_forecast(imagined(make_world([0.9]), SURE))
    assert [column.under[0] for column in drawn.columns] == ["90 %", "95 %", "97 %", "98 %", "99 %"]
    tops = [column.top for column in drawn.columns if column.top is not None]
    assert tops == sorted(tops, reverse=True)  # the stricter, the higher
    assert drawn.columns[1].current and "of the work" in drawn.columns[1].words
