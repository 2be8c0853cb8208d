"""The ledger: every line against a recount, and lines that add up."""

from __future__ import annotations

from collections import Counter

import pytest

from reviews import decisions, ledger, metrics, samples
from reviews.models import Decision
from tests.reviews.scenario import Recount, Story
from tests.reviews.test_metrics import BothSamples, answer_all, draw_calibration

pytestmark = pytest.mark.django_db
OPEN = {"to_review", "open_sample"}


@pytest.mark.parametrize("seed", range(3))
def test_every_line_equals_a_recount_of_any_history(seed: int) -> None:
    story = Story(seed) if seed % 2 else BothSamples(seed)
    for _ in range(2):
        story.act(25)
        recount = Recount(story)
        count = metrics.states(story.dataset)
        known = metrics.gather(story.dataset, recount.threshold)
        found = ledger.work(story.dataset, recount.threshold, count, known, 36.0)
        lines = {line.who: line for line in found.lines}
        assert sum(line.items for line in found.lines) == found.total.items == count.distinct
        assert sum(line.answers for line in found.lines) == found.total.answers
        assert found.total.answers == found.answers + found.spot_check
        free = {item.pk for item in story.free}
        items, answers = Counter[str](), Counter[str]()
        for pk in free:
            standing = recount.standing(pk)
            answers.update(answer.purpose for answer in standing)
            items.update(answer.purpose for answer in standing[:1])
        for purpose in ("review", "training", "calibration", "spot_check"):
            line = lines.get(purpose)
            assert (
                (line.items, line.answers) == (items[purpose], answers[purpose])
                if line
                else not answers[purpose]
            )
        states = Counter(recount.state(item) for item in recount.items)
        waiting = sum(lines[who].items for who in OPEN & lines.keys())
        assert waiting == states["flagged"]
        assert (lines["accepted"].items if "accepted" in lines else 0) == states["accepted"]
        assert (lines["pending"].items if "pending" in lines else 0) == states["pending"]


def test_hours_and_money_add_up_as_they_are_shown(make_world) -> None:
    world = make_world([0.9] * 300 + [0.5] * 100, hourly_rate_usd=33.33)
    for item in world.items[300:307]:
        decisions.decide(item, world.people["reviewer"], "label", world.labels[0], seconds=4)
    found = metrics.report(world.dataset, world.threshold).work
    assert {line.hours for line in found.lines if line.who != "model"} == {None}
    assert (found.total.hours, found.by_hand.cost_usd, found.saved.hours) == (None, None, None)
    sample = samples.draw_spot_check(world.dataset, world.threshold, world.people["manager"])
    answer_all(world.dataset, sample, world.people["second"], wrong=1)
    found = metrics.report(world.dataset, world.threshold).work
    hours = [line.hours for line in found.lines]
    money = [line.cost_usd for line in found.lines]
    assert all(value == round(value, 2) for value in hours + money)
    assert round(sum(hours), 2) == found.total.hours == round((100 + sample.size) * 5 / 3600, 2)
    assert round(sum(money), 2) == found.total.cost_usd == round((100 + sample.size) * 5 / 3600 * 33.33, 2)
    assert found.saved.hours == round(found.by_hand.hours - found.total.hours, 2)
    assert found.saved.cost_usd == round(found.by_hand.cost_usd - found.total.cost_usd, 2)
    assert found.saved.answers == 400 - 100 - sample.size
    assert found.by_hand.hours == round(400 * 5 / 3600, 2)


def test_second_readings_are_answers_and_each_item_is_one_item(make_world) -> None:
    world = make_world([0.5] * 10)
    for person in ("reviewer", "second", "manager"):
        decisions.decide(world.items[0], world.people[person], "label", world.labels[0], seconds=3)
    found = metrics.report(world.dataset, world.threshold).work
    review = next(line for line in found.lines if line.who == "review")
    assert (review.items, review.answers) == (1, 3)
    assert (found.answers, found.savings.manual_share) == (12, 1.2)
    assert Decision.objects.count() == 3


def test_training_and_calibration_are_work_and_spot_checks_stand_beside_it(make_world) -> None:
    world = make_world([0.9] * 200 + [0.5] * 40)
    teach = samples.draw_to_teach(world.dataset, world.threshold, world.people["manager"])
    answer_all(world.dataset, teach, world.people["second"])
    prove = draw_calibration(world.dataset, world.people["manager"], 30)
    answer_all(world.dataset, prove, world.people["second"])
    drawn = samples.draw_spot_check(world.dataset, world.threshold, world.people["manager"])
    found = metrics.report(world.dataset, world.threshold).work
    lines = {line.who: line for line in found.lines}
    assert (lines["training"].answers, lines["calibration"].answers) == (50, 30)
    assert (lines["open_sample"].answers, lines["open_sample"].checks) == (drawn.size, True)
    assert found.answers == 80 + lines["to_review"].answers and found.spot_check == drawn.size
    assert found.savings.manual_share == pytest.approx(found.answers / 240)
    assert found.savings.manual_share_with_spot_check == pytest.approx(found.total.answers / 240)
    assert "planned_check" not in lines


def test_what_language_models_cost_is_a_line_of_its_own(make_world) -> None:
    world = make_world([0.9] * 30 + [0.5] * 30, hourly_rate_usd=30)
    assert metrics.report(world.dataset, world.threshold).work.model is None
    world.run.spent_nano = 1_250_000_000
    world.run.save()
    for item in world.items[30:]:
        decisions.decide(item, world.people["reviewer"], "label", world.labels[0], seconds=6)
    found = metrics.report(world.dataset, world.threshold).work
    model = next(line for line in found.lines if line.who == "model")
    assert (model.cost_usd, model.answers) == (1.25, 0)
