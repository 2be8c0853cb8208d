"""What happens by itself on the way to a goal, once each, and what a manager may do when."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from django.db import connections
from django.utils import timezone

from datasets import slices
from datasets.labeling import ROUND
from datasets.models import AuditEvent, Prediction, Run
from datasets.tasks import is_enqueued
from labelhub.autolabel.rank import ACCEPT_NOTHING
from reviews import learning, path, rounds, samples, tasks, thresholds
from reviews.models import Goal, Purpose, Sample, Threshold
from tests.reviews.conftest import World
from tests.reviews.guided import (
    finish,
    fix_seeds,
    latest,
    once_labeled,
    purposes,
    say,
    with_proof_open,
    with_seed,
    work,
    worst,
)
from tests.reviews.scenario import count_statements
from tests.reviews.things import import_rows, things

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def dice(monkeypatch: pytest.MonkeyPatch) -> None:
    fix_seeds(monkeypatch)


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    return once_labeled(make_world)


@pytest.fixture
def taught(world: World) -> World:
    return with_seed(world)


@pytest.fixture
def drawn(world: World) -> World:
    return with_proof_open(world)


# By itself


def test_from_the_choice_to_a_proven_threshold_nothing_is_accepted(world: World) -> None:
    path.choose(world.dataset, 0.2, 0.5, world.people["manager"])
    assert latest(world).accepts_nothing
    seed = thresholds.open_sample(world.dataset)
    assert seed is not None and (seed.purpose, seed.size) == (Purpose.TRAINING, 60)
    path.advance(world.dataset.pk)
    assert purposes(world) == ["training"]
    finish(world)
    first = work(world)
    now = latest(world)
    assert (now.run_id, now.rank, now.by) == (first.pk, ACCEPT_NOTHING, None)
    say(world, worst(world, 4))
    path.advance(world.dataset.pk)
    assert not world.dataset.runs.active().exists()
    say(world, worst(world, 1))
    path.advance(world.dataset.pk)
    second = work(world, "certify now")
    assert latest(world).run_id == second.pk and latest(world).accepts_nothing
    sample = path.prove(world.dataset, world.people["manager"])
    assert (sample.purpose, sample.attempt, sample.pool, sample.run_id) == ("calibration", 1, 55, second.pk)
    finish(world)
    now = latest(world)
    assert now.sample_id == sample.pk and not now.accepts_nothing
    assert thresholds.accepted(now).count() == 55 - sample.size
    path.advance(world.dataset.pk)
    assert world.dataset.runs.count() == 3 and purposes(world) == ["training", "calibration"]


def test_advance_twice_or_at_any_time_changes_nothing_more(taught: World) -> None:
    for act in (lambda: None, lambda: work(taught), lambda: say(taught, worst(taught, 5))):
        act()
        before = None
        for _ in range(3):
            path.advance(taught.dataset.pk)
            rows = [
                list(model.objects.filter(dataset=taught.dataset).values_list("pk", flat=True))
                for model in (Run, Sample, Threshold, AuditEvent)
            ]
            assert before in (None, rows)
            before = rows


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("due", ["seed", "learn", "conclude", "apply"])
def test_many_at_once_do_what_is_due_once(world: World, due: str) -> None:
    manager = world.people["manager"]
    if due == "seed":
        Goal.objects.create(dataset=world.dataset, target_error=0.2)
        thresholds.move(world.dataset, ACCEPT_NOTHING, None)
    else:
        path.choose(world.dataset, 0.2, None, manager)
        finish(world, advance=due != "learn")
    if due in ("apply", "conclude"):
        work(world, "certify now", advance=due != "apply")
    if due == "conclude":
        path.prove(world.dataset, manager)
        finish(world, advance=False)
    before = [Run.objects.count(), Sample.objects.count(), Threshold.objects.count()]
    gate = Barrier(4)

    def go(_: int) -> None:
        try:
            gate.wait(10)
            path.advance(world.dataset.pk)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(go, range(4)))
    after = [Run.objects.count(), Sample.objects.count(), Threshold.objects.count()]
    added = {"seed": [0, 1, 0], "learn": [1, 0, 0], "conclude": [0, 0, 1], "apply": [0, 0, 1]}[due]
    assert [b - a for a, b in zip(before, after, strict=True)] == added


@pytest.mark.django_db(transaction=True)
def test_two_managers_who_choose_at_once_leave_one_goal(world: World) -> None:
    gate = Barrier(2)

    def go(target_error: float) -> int:
        try:
            gate.wait(10)
            return path.choose(world.dataset, target_error, None, world.people["manager"]).pk
        finally:
            connections.close_all()

    with ThreadPoolExecutor(2) as pool:
        chosen = list(pool.map(go, [0.1, 0.2]))
    assert Goal.objects.active().get().pk in chosen
    assert purposes(world) == ["training"]


def test_the_seed_is_topped_up_by_what_a_lane_to_teach_has_brought(world: World) -> None:
    now = thresholds.move(world.dataset, ACCEPT_NOTHING, None)
    lane = samples.draw_to_teach(world.dataset, now, None, 50)
    path.choose(world.dataset, 0.2, None, world.people["manager"])
    assert purposes(world) == ["training"]
    finish(world)
    more = thresholds.open_sample(world.dataset)
    assert more is not None and (more.purpose, more.size) == (Purpose.TRAINING, 10)
    assert not set(more.drawn.values_list("item")) & set(lane.drawn.values_list("item"))
    finish(world)
    assert world.dataset.runs.active().get().version.method == ROUND
    assert len(world.dataset.runs.active().get().version.examples) == 60


def test_a_run_by_hand_from_the_lane_and_the_seed_of_the_goal_do_not_fight(world: World) -> None:
    manager = world.people["manager"]
    goal = path.choose(world.dataset, 0.2, 0.5, manager)
    lane = thresholds.open_sample(world.dataset)
    assert lane is not None
    say(world, [one.item for one in lane.drawn.select_related("item")[:25]], lane)
    by_hand = learning.learn(world.dataset, "weak_model", manager, rings=False)  # ends the lane (E18)
    path.advance(world.dataset.pk)
    assert purposes(world) == ["training"]
    by_hand.slices.update(done_at=timezone.now())
    slices.finish(by_hand)
    path.advance(world.dataset.pk)
    more = thresholds.open_sample(world.dataset)
    assert more is not None and more.size == 35 and latest(world).run_id == world.run.pk
    assert path.seed(world.dataset) == (25, 60) and path.active_goal(world.dataset) == goal


def test_a_round_that_ends_after_its_goal_was_left_changes_nothing(taught: World) -> None:
    before = latest(taught)
    assert path.leave(taught.dataset, taught.people["manager"])
    work(taught)
    assert latest(taught) == before
    path.choose(taught.dataset, 0.1, None, taught.people["manager"])
    assert taught.dataset.runs.active().get().version.settings["goal"] == Goal.objects.active().get().pk


def test_an_ordinary_answer_costs_at_most_six_statements_more_and_one_without_a_goal(taught: World) -> None:
    work(taught, batch=50)
    say(taught, worst(taught, 1))
    assert count_statements(lambda: path.advance(taught.dataset.pk)) <= 6
    work_of_nobody = count_statements(lambda: rounds.lesson(Goal.objects.get()))
    assert work_of_nobody <= 5
    path.leave(taught.dataset, None)
    assert count_statements(lambda: path.advance(taught.dataset.pk)) == 1


def test_after_two_samples_for_nothing_an_answer_is_still_cheap(drawn: World) -> None:
    finish(drawn, wrong=30)
    work(drawn, "certify now")
    path.prove(drawn.dataset, drawn.people["manager"])
    finish(drawn, wrong=30)
    assert not drawn.dataset.runs.active().exists()
    say(drawn, worst(drawn, 1))
    assert count_statements(lambda: path.advance(drawn.dataset.pk)) <= 6


# When a run comes to nothing


def test_a_round_that_failed_or_was_cancelled_is_tried_again_only_for_new_answers(taught: World) -> None:
    work(taught, problem="There is nothing to learn from yet.")
    path.advance(taught.dataset.pk)
    assert not taught.dataset.runs.active().exists(), "a failing round would be started again at every look"
    say(taught, worst(taught, 9))
    path.advance(taught.dataset.pk)
    assert not taught.dataset.runs.active().exists()
    say(taught, worst(taught, 1))
    path.advance(taught.dataset.pk)
    again = taught.dataset.runs.active().get()
    assert tasks.cancel(again, None)
    path.advance(taught.dataset.pk)
    assert not taught.dataset.runs.active().exists()
    goal = path.active_goal(taught.dataset)
    same = path.choose(taught.dataset, 0.2, 0.5, taught.people["manager"])  # a person asks for it
    assert same == goal
    assert taught.dataset.runs.active().get().number == again.number + 1


def test_the_first_labeling_may_fail_and_be_asked_for_again(tmp_path: Any, boss: Any) -> None:
    dataset = import_rows(tmp_path, [row.split(",")[0] for row in things(8)])
    goal = path.choose(dataset, 0.2, None, boss)
    slices.fail(dataset.runs.active().get(), "No memory.")
    path.advance(dataset.pk)
    assert path.due(goal) is None and not dataset.samples.exists()
    assert path.choose(dataset, 0.2, None, boss) == goal
    second = dataset.runs.active().get()
    now = thresholds.in_force(dataset)
    assert now is not None and (now.run_id, now.rank) == (second.pk, ACCEPT_NOTHING)


def test_another_first_labeling_takes_force_where_one_was_cancelled_half_way(world: World) -> None:
    Run.objects.filter(pk=world.run.pk).update(finished_at=None, cancelled_at=timezone.now())
    goal = path.choose(world.dataset, 0.2, None, world.people["manager"])
    second = world.dataset.runs.active().get()
    assert latest(world).run_id == world.run.pk
    slices.fail(second, "No memory.")
    assert path.due(goal) is None
    path.choose(world.dataset, 0.2, None, world.people["manager"])
    tasks.work_here(world.dataset.runs.active().get())
    path.advance(world.dataset.pk)
    assert latest(world).run.number == 3 and latest(world).accepts_nothing
    assert purposes(world) == ["training"]


def test_a_paused_run_holds_everything(taught: World) -> None:
    tasks.pause(taught.dataset.runs.active().get(), None)
    say(taught, worst(taught, 20))
    path.advance(taught.dataset.pk)
    assert taught.dataset.runs.count() == 2 and purposes(taught) == ["training"]


@pytest.mark.django_db(transaction=True)
def test_a_round_whose_job_was_lost_is_found_by_the_sweep(world: World, server: Any) -> None:
    path.choose(world.dataset, 0.2, 0.5, world.people["manager"])
    finish(world)
    run = work(world, advance=False)
    assert latest(world).run_id == world.run.pk
    tasks.sweep()
    assert is_enqueued(f"advance-{world.dataset.pk}")
    path.advance(world.dataset.pk)  # what the job calls
    assert latest(world).run_id == run.pk


# Odd datasets


def test_a_dataset_without_anything_to_label_can_promise_nothing(tmp_path: Any, boss: Any) -> None:
    dataset = import_rows(tmp_path, things(6, 6), "text,label", label="label")
    with pytest.raises(learning.CannotLearn, match="Nothing is left"):
        path.choose(dataset, 0.2, None, boss)
    assert not Goal.objects.exists() and not dataset.runs.exists()


def test_three_items_are_all_labeled_by_people(make_world: Callable[..., World]) -> None:
    world = make_world([0.5, 0.9, 0.95])
    path.choose(world.dataset, 0.05, 0.1, world.people["manager"])
    finish(world)
    path.advance(world.dataset.pk)
    assert world.dataset.runs.count() == 1 and not Prediction.objects.filter(open=True).exists()


def test_a_seed_cannot_be_drawn_from_nothing(make_world: Callable[..., World]) -> None:
    world = make_world([0.5, 0.9])
    say(world, world.items)
    path.choose(world.dataset, 0.05, 0.1, world.people["manager"])
    assert not world.dataset.samples.exists() and not world.dataset.runs.active().exists()


@pytest.mark.parametrize(("target", "floor"), [(0.0, None), (0.6, None), (0.1, 0.05), (0.1, 1.0)])
def test_impossible_promises_are_refused(world: World, target: float, floor: float | None) -> None:
    with pytest.raises(path.CannotPromise):
        path.choose(world.dataset, target, floor, None)
