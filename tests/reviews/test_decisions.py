"""Answers are kept once, in order, for ever."""

from __future__ import annotations

import uuid

import pytest
from django.db import IntegrityError, connection, transaction

from datasets.models import Item, Prediction
from reviews import decisions, queue, samples
from reviews.models import Claim, Decision, Outcome, Purpose, Sample, Threshold

pytestmark = pytest.mark.django_db


def decide(world, item, who="reviewer", label="spam", **more):
    return decisions.decide(item, world.people[who], Outcome.LABEL, world.label(label), **more)


def test_an_answer_closes_the_prediction_and_an_undo_opens_it_again(make_world):
    world = make_world([0.5, 0.6])
    decide(world, world.items[0])
    assert not world.prediction(world.items[0]).open
    assert decisions.undo(world.dataset, world.people["reviewer"]).item == world.items[0]
    assert world.prediction(world.items[0]).open
    assert decisions.current(world.items[0].pk) is None
    assert Decision.objects.count() == 2, "history grows, it never shrinks"


def test_the_same_answer_sent_twice_is_stored_once(make_world):
    world, sent = make_world([0.5]), uuid.uuid4()
    first = decide(world, world.items[0], uuid=sent)
    again = decide(world, world.items[0], uuid=sent)
    assert (first.kind, again.kind) == ("current", "repeat")
    assert first.decision == again.decision
    assert Decision.objects.count() == 1


def test_the_same_uuid_with_another_answer_is_a_conflict_and_the_first_stands(make_world):
    world, sent = make_world([0.5]), uuid.uuid4()
    decide(world, world.items[0], uuid=sent)
    with pytest.raises(decisions.Conflict):
        decide(world, world.items[0], uuid=sent, label="ham")
    assert decisions.current(world.items[0].pk).label.name == "spam"


def test_a_second_persons_answer_is_an_extra_vote_and_never_an_overwrite(make_world):
    world = make_world([0.5])
    decide(world, world.items[0])
    extra = decide(world, world.items[0], who="second", label="ham")
    assert extra.kind == "extra"
    assert extra.current.label.name == "spam"
    assert decisions.current(world.items[0].pk).label.name == "spam"
    assert Decision.objects.answers().count() == 2


def test_the_same_person_changes_his_answer_by_adding_a_row(make_world):
    world = make_world([0.5])
    first = decide(world, world.items[0]).decision
    change = decide(world, world.items[0], label="ham").decision
    assert change.revokes == first
    assert decisions.current(world.items[0].pk) == change
    assert decisions.undo(world.dataset, world.people["reviewer"]) == change
    assert decisions.current(world.items[0].pk) is None


def test_undo_goes_back_as_far_as_there_are_answers(make_world):
    world = make_world([0.5] * 20)
    for item in world.items:
        decide(world, item)
    undone = [decisions.undo(world.dataset, world.people["reviewer"]).item for _ in world.items]
    assert undone == world.items[::-1]
    assert decisions.undo(world.dataset, world.people["reviewer"]) is None
    assert Prediction.objects.filter(open=True).count() == 20


def test_nobody_takes_back_what_somebody_else_said(make_world):
    world = make_world([0.5])
    decide(world, world.items[0])
    assert decisions.undo(world.dataset, world.people["second"]) is None


def test_the_database_refuses_to_change_a_decision(make_world):
    world = make_world([0.5])
    decide(world, world.items[0])
    with pytest.raises(Exception, match="append-only"), transaction.atomic():
        Decision.objects.update(note="rewritten")
    with connection.cursor() as cursor, pytest.raises(Exception, match="append-only"), transaction.atomic():
        cursor.execute("UPDATE reviews_decision SET label_id = NULL")


def test_the_database_refuses_a_label_without_the_outcome_and_the_reverse(make_world):
    world = make_world([0.5])
    common = {
        "dataset": world.dataset, "item": world.items[0], "reviewer": world.people["reviewer"],
        "purpose": Purpose.REVIEW, "decided_at": "2026-01-01T00:00Z",
    }  # fmt: skip
    for wrong in (
        {"outcome": "label"},
        {"outcome": "cant_tell", "label": world.labels[0]},
        {"outcome": "undo"},
    ):
        with pytest.raises(IntegrityError), transaction.atomic():
            Decision.objects.create(**common, **wrong)


def test_an_answer_cannot_be_taken_back_twice(make_world):
    world = make_world([0.5])
    first = decide(world, world.items[0]).decision
    decisions.undo(world.dataset, world.people["reviewer"])
    with pytest.raises(IntegrityError), transaction.atomic():
        Decision.objects.create(
            dataset=world.dataset, item=world.items[0], reviewer=world.people["reviewer"],
            purpose=Purpose.REVIEW, outcome="undo", revokes=first, decided_at="2026-01-01T00:00Z",
        )  # fmt: skip


def test_a_label_of_another_dataset_is_refused(make_world):
    world, other = make_world([0.5]), make_world([0.5], name="Other")
    with pytest.raises(decisions.NotAllowed):
        decisions.decide(world.items[0], world.people["reviewer"], Outcome.LABEL, other.labels[0])
    assert not Decision.objects.exists()


def test_a_decision_remembers_what_the_machine_said_and_whether_it_was_shown(make_world):
    world = make_world([0.5])
    queue.claim_next(world.dataset, world.people["reviewer"], "a", world.threshold)
    stored = decide(world, world.items[0]).decision
    assert stored.machine_label.name == "spam"
    assert stored.machine_rank == world.prediction(world.items[0]).rank
    assert stored.run == world.run
    assert stored.showed_machine
    assert not Claim.objects.exists()


def test_purpose_and_sample_come_from_the_claim_and_not_from_the_caller(make_world):
    world = make_world([0.95] * 30)
    sample = samples.draw_spot_check(world.dataset, world.threshold, world.people["manager"])
    claim = queue.claim_drawn(world.dataset, world.people["reviewer"], "a", sample)
    stored = decide(world, Item.objects.get(pk=claim.item_id)).decision
    assert (stored.purpose, stored.sample, stored.showed_machine) == (Purpose.SPOT_CHECK, sample, False)


def test_an_item_of_an_open_sample_is_not_decided_outside_of_it(make_world):
    world = make_world([0.95] * 30)
    sample = samples.draw_spot_check(world.dataset, world.threshold, world.people["manager"])
    with pytest.raises(decisions.NotAllowed):
        decide(world, sample.drawn.first().item)


def recount(world):
    """``open`` from the facts, without the function that writes it."""
    wrong = []
    for prediction in Prediction.objects.select_related("item"):
        item = prediction.item
        decided = any(
            d.outcome != "undo" and not Decision.objects.filter(revokes=d).exists()
            for d in item.decisions.all()
        )
        drawn = any(s.sample.is_open for s in item.samplings.all())
        is_open = not (decided or drawn or item.given_label_id or item.same_as_id or item.excluded)
        if is_open != prediction.open:
            wrong.append(item.pk)
    return wrong


def test_the_open_cache_equals_its_recount_after_any_sequence_of_acts(make_world):
    import random

    world = make_world([i / 40 for i in range(40)], threshold="0.5")
    dice = random.Random(7)
    people = [world.people[name] for name in ("reviewer", "second", "owner")]
    for _ in range(150):
        who, act = dice.choice(people), dice.random()
        if act < 0.55:
            item = dice.choice(world.items)
            try:
                decisions.decide(item, who, Outcome.LABEL, dice.choice(world.labels))
            except decisions.NotAllowed:
                pass
        elif act < 0.8:
            decisions.undo(world.dataset, who)
        elif act < 0.9:
            if not Sample.objects.filter(closed_at=None, superseded_at=None).exists():
                samples.draw_spot_check(world.dataset, Threshold.objects.get(), who)
        else:
            samples.discard(world.dataset, who)
        assert recount(world) == []
