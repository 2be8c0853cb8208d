"""What people are told on the way to a goal: where they are, what is proven, and the one next act."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from datasets import slices
from datasets.models import Item, Label, Prediction, Run
from labelhub.autolabel.rank import ACCEPT_NOTHING
from reviews import (
    calibrations,
    consequences,
    decisions,
    learning,
    path,
    place,
    samples,
    tasks,
    thresholds,
    verdicts,
)
from reviews.models import Certificate, Goal, Purpose, Sample
from tests.reviews.conftest import World
from tests.reviews.guided import (
    finish,
    fix_seeds,
    latest,
    once_labeled,
    say,
    with_proof_open,
    with_seed,
    work,
    worst,
)  # fmt: skip
from tests.reviews.scenario import count_statements

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


def check_words(*sentences: str) -> None:
    """Numbers agree with their nouns, and figures are written the same way everywhere."""
    for words in sentences:
        words = re.sub(r"Run \d+", "Run", words)
        assert not re.search(
            r"\b1 (items|labels|answers|samples|are|have|stand|wait|more answers)\b", words
        ), words
        assert not re.search(r"\b(?:[02-9]|\d\d+) (item|label|answer|more answer|is|has)\b", words), words
        assert not re.search(r"\d ?%", words), (
            f"a figure and its sign have a no-break space between them: {words}"
        )
        assert "  " not in words and not words.startswith(" ") and words[-1:] in ("", "."), words


def here(world: World) -> place.Place:
    """Where the dataset is; the words are checked by the way."""
    goal = path.active_goal(world.dataset)
    assert goal is not None
    found = place.where(goal)
    check_words(found.here, found.worth, *place.options(goal, found))
    if not Certificate.objects.exists():  # what that says is not ours
        check_words(found.proven)
    return found


def prove_most(world: World) -> Sample:
    """A goal without a floor whose sample proved all but a few labels: of the least sure ones it was wrong."""
    with_proof_open(world, None)
    sample = thresholds.open_sample(world.dataset)
    assert sample is not None
    return finish(world, wrong=sample.allowed_errors + 2, surest=False)


def review_all(world: World, but: int = 0) -> None:
    """Answer what is below the threshold in force, but for some."""
    now = latest(world)
    stand = thresholds.accepted(now).values("item")
    left = Prediction.objects.filter(run=now.run, open=True).exclude(item__in=stand).select_related("item")
    say(world, [one.item for one in left][but:])


# Sentence by sentence


def test_from_the_promise_to_the_spot_check(world: World) -> None:
    manager = world.people["manager"]
    path.choose(world.dataset, 0.2, 0.5, manager)
    found = here(world)
    assert (found.step, found.act, found.done, found.total) == ("seed", "review", 0, 60)
    finish(world)
    found = here(world)
    assert (found.step, found.act, found.here) == (
        "learn",
        "wait",
        "The machine learns from all answers and labels again.",
    )
    work(world, batch=1)
    found = here(world)
    assert (found.step, found.act, found.done, found.total) == ("learn", "review", 0, 1)
    assert found.here == "Round 1: 0 of 1 answer until the machine learns again, least certain items first."
    assert found.worth == (
        "Proving it now would take about 60 answers in all (50\N{NO-BREAK SPACE}% of 120); answering 50 more should lower "
        "that by about 2, even if the machine learned nothing."
    )
    say(world, worst(world, 1))
    path.advance(world.dataset.pk)
    work(world, "certify now")
    found = here(world)
    assert (found.step, found.act) == ("prove", "draw")
    assert found.here == (
        "Of the 59 open labels the machine expects about 7 to be wrong. A random sample of about 20 should prove the rest."
    )
    assert found.proven == place.NOTHING
    sample = path.prove(world.dataset, manager)
    say(world, [one.item for one in sample.drawn.select_related("item")[:3]], sample)
    found = here(world)
    assert (found.step, found.act, found.done, found.total) == ("prove", "sample", 3, sample.size)
    say(world, [one.item for one in sample.drawn.select_related("item")[3:]], sample)
    samples.close_when_answered(sample)
    sample.refresh_from_db()
    path.advance(world.dataset.pk)
    found = here(world)
    assert (found.step, found.act) == ("certificate", "approve"), (
        "no error was found, so nothing is left to review"
    )
    assert found.proven.startswith(f"{59 - sample.size} labels stand unseen, at 0")
    assert f"95\N{NO-BREAK SPACE}% confidence at most {sample.budget} are wrong" in found.proven
    verdicts.approve(sample, manager)
    found = here(world)
    assert (found.step, found.act) == ("check", "spot") and found.proven.startswith("With 95")
    check = samples.draw_spot_check(world.dataset, latest(world), manager)
    found = here(world)
    assert (found.step, found.act, found.total) == ("check", "sample", check.size)
    assert found.proven.startswith("With 95"), "what is certified stays certified while it is checked"
    finish(world)
    assert here(world).act == "certificate"


def test_what_is_below_the_threshold_is_counted_and_asked_items_wait_for_a_manager(world: World) -> None:
    prove_most(world)
    found = here(world)
    left = thresholds.preview(latest(world), latest(world).rank).flagged
    assert found.here == f"{left} items are not accepted and must be seen by a person." and left > 2
    review_all(world, but=2)
    one, two = worst(world, 2)
    decisions.remark(one, world.people["reviewer"], "ask")
    found = here(world)
    assert found.here == (
        "1 item is not accepted and must be seen by a person. 1 item waits for a manager’s answer."
    )
    assert found.worth == "The certificate waits for 2 answers." and found.act == "review"
    say(world, [two])
    assert here(world).here == "1 item waits for a manager’s answer."
    say(world, [one])
    assert here(world).act == "approve"


def test_too_many_items_without_a_label_are_told_before_anybody_asks_for_the_certificate(
    world: World,
) -> None:
    sample = prove_most(world)
    review_all(world, but=1)
    Sample.objects.filter(pk=sample.pk).update(budget=24)  # all that 120 labels may cost
    say(world, worst(world, 1), outcome="cant_tell")
    found = here(world)
    assert found.act == "overview" and found.here.startswith("1 item has no label")
    assert "but of 119 the promise allows 23" in found.worth
    sample.refresh_from_db()
    with pytest.raises(verdicts.CannotApprove):
        verdicts.approve(sample, world.people["manager"])


def test_an_answer_taken_back_from_before_the_run_is_missed(drawn: World) -> None:
    finish(drawn)
    review_all(drawn)
    assert here(drawn).act == "approve"
    early = drawn.dataset.decisions.filter(purpose=Purpose.TRAINING).first()
    assert early is not None
    decisions.undo(drawn.dataset, drawn.people["reviewer"], uuid=early.uuid)
    found = here(drawn)
    assert found.here == "1 item has neither a machine’s label nor a person’s." and found.act == "overview"


@pytest.mark.parametrize("lost", ["label", "answer", "alarm", "verdict"])
def test_a_proof_that_is_lost_is_told_and_can_be_asked_for_again(drawn: World, lost: str) -> None:
    manager, sample = drawn.people["manager"], finish(drawn)
    if lost == "label":
        Label.objects.filter(pk=drawn.labels[1].pk).update(retired_at=timezone.now())
    elif lost == "answer":
        decisions.undo(drawn.dataset, drawn.people["reviewer"], uuid=sample.decisions.latest("pk").uuid)
    else:
        check = samples.draw_spot_check(drawn.dataset, latest(drawn), manager)
        check = finish(drawn, wrong=check.size if lost == "alarm" else 0)
        if lost == "verdict":
            verdicts.reject(check, manager)
    found = here(drawn)
    assert (found.act, found.proven) == ("choose", "Nothing is proven now.")
    said = {
        "label": "retired",
        "answer": "taken back",
        "alarm": "wrong, more than was promised",
        "verdict": "rejected",
    }
    assert said[lost] in found.here
    path.choose(drawn.dataset, 0.2, 0.5, manager)
    assert here(drawn).act == "wait"


def test_after_the_last_sample_for_nothing_it_says_why_and_what_else_to_do(drawn: World) -> None:
    finish(drawn, wrong=30)
    work(drawn, "go on")
    found = here(drawn)
    assert found.here.startswith(calibrations.SENTENCES["floor"] + " Round 2: 0 of 5 answers")
    say(drawn, worst(drawn, 5))
    path.advance(drawn.dataset.pk)
    work(drawn, "certify now")
    assert here(drawn).here.endswith("One sample proved nothing already: this is the last attempt.")
    path.prove(drawn.dataset, drawn.people["manager"])
    finish(drawn, wrong=30)
    found, goal = here(drawn), path.active_goal(drawn.dataset)
    assert goal is not None and found.stuck and found.act == "review"
    assert found.here.startswith("Nothing can be promised: 2 samples proved no threshold.")
    told = place.options(goal, found)
    assert "without a share" in told[0] and "attempt 3" in told[-1] and "0.0016" in told[-1]


def test_nothing_to_gain_offers_no_smaller_floor(taught: World) -> None:
    work(taught, "nothing to gain")
    found, goal = here(taught), path.active_goal(taught.dataset)
    assert goal is not None and found.stuck and "with 60 of 120 labeled" in found.here
    assert not any("without a share" in told for told in place.options(goal, found))


def test_runs_that_wait_fail_or_are_cancelled(taught: World) -> None:
    run = taught.dataset.runs.active().get()
    tasks.pause(run, None)
    assert here(taught).here == "Run 2 is paused." and here(taught).act == "overview"
    tasks.resume(run, None)
    assert tasks.cancel(run, None)
    found = here(taught)
    assert found.here == "Run 2, a round of learning, was cancelled before it had labeled everything."
    assert "after 10 more answers" in found.worth and found.act == "review"
    say(taught, worst(taught, 9))
    assert "after 1 more answer," in here(taught).worth
    Run.objects.filter(pk=taught.run.pk).update(problem="No memory.")
    assert here(taught).here == "Run 1 failed: No memory."


def test_a_failed_run_by_hand_hides_nothing_that_is_proven(drawn: World) -> None:
    finish(drawn)
    before = here(drawn)
    slices.fail(
        learning.learn(drawn.dataset, "weak_model", drawn.people["manager"], rings=False), "No memory."
    )
    assert here(drawn) == before
    learning.learn(drawn.dataset, "weak_model", drawn.people["manager"], rings=False)
    assert here(drawn) == before


def test_people_may_label_everything_themselves(taught: World) -> None:
    work(taught, batch=500)
    say(taught, worst(taught, 200))
    assert here(taught).here == "People have labeled every item, so there is nothing left to prove."


@pytest.mark.parametrize(("target", "floor"), [(0.05, 0.1), (0.005, None), (0.1, 0.1)])
def test_a_promise_in_words(world: World, target: float, floor: float | None) -> None:
    words = place.promise(Goal(dataset=world.dataset, target_error=target, floor_error=floor))
    check_words(words + ".")
    assert f"at least {100 - 100 * target:g}\N{NO-BREAK SPACE}% of all labels right" in words
    assert ("that nobody saw" in words) == (floor is not None)


def test_the_place_takes_a_bounded_number_of_statements_whatever_the_size(make_world: Any) -> None:
    counts = []
    for n in (100, 300):
        world = make_world([0.9] * n, name=f"Size {n}")
        path.choose(world.dataset, 0.2, None, world.people["manager"])
        mine = [count_statements(lambda: here_only(world))]
        finish(world)
        for step in ("go on", "certify now"):
            work(world, step, batch=1)
            mine.append(count_statements(lambda: here_only(world)))
            say(world, worst(world, 1))
            path.advance(world.dataset.pk)
        sample = path.prove(world.dataset, world.people["manager"])
        finish(world, wrong=sample.allowed_errors + 2, surest=False)
        mine.append(count_statements(lambda: here_only(world)))
        counts.append(mine)
    assert counts[0] == counts[1]
    assert max(counts[0]) <= 22


def here_only(world: World) -> None:
    goal = path.active_goal(world.dataset)
    assert goal is not None
    place.where(goal)


# On the page


@pytest.mark.parametrize("who", ["manager", "reviewer", "viewer"])
def test_everybody_sees_what_he_may_do_and_nobody_sees_agreement(
    client: Client, drawn: World, who: str
) -> None:
    sample = thresholds.open_sample(drawn.dataset)
    assert sample is not None
    items = [one.item for one in sample.drawn.select_related("item")]
    say(drawn, items[:4], sample, wrong=4)
    client.force_login(drawn.people[who])
    url = reverse("reviews:guide", args=[drawn.dataset.pk])
    html = client.get(url).content.decode()
    assert "told when it is complete" in html and not re.search(r"4 of \d+, ", html)
    assert ("Answer the sample" in html) == (who != "viewer")
    for name in ("goal", "leave", "calibrate"):
        answer = client.post(
            reverse(f"reviews:{name}", args=[drawn.dataset.pk]), {"target": "80", "floor": ""}
        )
        assert answer.status_code in ((302, 422) if who == "manager" else (403, 404))
    assert Goal.objects.active().get().floor_error == 0.5, "it stays as long as the sample is open"
    say(drawn, items[4:], sample)
    samples.close_when_answered(sample)
    client.get(url)  # looks at it, if nobody did
    assert f"4 of {sample.size}, {sample.allowed_errors}" in client.get(url).content.decode()


def test_the_page_says_what_a_promise_keeps_and_ends(client: Client, drawn: World) -> None:
    finish(drawn)
    check_words(*consequences.of_new_goal(drawn.dataset).keeps, *consequences.of_new_goal(drawn.dataset).ends)
    check_words(*consequences.of_new_run(drawn.dataset).keeps, *consequences.of_new_run(drawn.dataset).ends)
    client.force_login(drawn.people["manager"])
    html = client.get(reverse("reviews:guide", args=[drawn.dataset.pk])).content.decode()
    assert "nothing is accepted before a sample proves it" in html and "attempt 2 on this dataset" in html


def test_a_new_run_ends_a_lane_to_teach_that_has_enough_answers(make_world: Any) -> None:
    world = make_world([0.5] * 60)
    now = thresholds.move(world.dataset, ACCEPT_NOTHING, None)
    lane = samples.draw_to_teach(world.dataset, now, None, 50)
    assert (
        consequences.of_new_run(world.dataset).blocked and not consequences.of_new_goal(world.dataset).blocked
    )
    say(world, [one.item for one in lane.drawn.select_related("item")[:20]], lane)
    assert not consequences.of_new_run(world.dataset).blocked
    assert Item.objects.filter(dataset=world.dataset).count() == 60
