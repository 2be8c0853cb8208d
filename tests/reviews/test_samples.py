"""A sample is frozen when drawn, answered blind, and concluded from once."""

from __future__ import annotations

import math

import numpy as np
import pytest
from django.db import IntegrityError, transaction

from datasets.models import Prediction
from labelhub.autolabel import certify, sampling
from reviews import decisions, queue, samples, thresholds, validity, verdicts
from reviews.models import Certificate, Decision, Outcome, Purpose, Sample, SampleItem, Verdict

pytestmark = pytest.mark.django_db


def draw(world):
    return samples.draw_spot_check(world.dataset, world.threshold, world.people["manager"])


def answer_all(world, sample, wrong=0, who="reviewer", cant_tell=0):
    """Answer every item as the machine did, but the first ``wrong`` of them."""
    for i in range(sample.size):
        held = queue.claim_drawn(world.dataset, world.people[who], "a", sample)
        machine = sample.drawn.get(item=held.item_id).machine_label
        other = next(label for label in world.labels if label != machine)
        if i < cant_tell:
            decisions.decide(held.item, world.people[who], Outcome.CANT_TELL)
        else:
            label = other if i < cant_tell + wrong else machine
            decisions.decide(held.item, world.people[who], Outcome.LABEL, label)
        samples.close_when_answered(sample)
    sample.refresh_from_db()
    return sample


def test_the_draw_can_be_repeated_from_its_seed_and_pool(make_world):
    world = make_world([0.9] * 60 + [0.2] * 10)
    pool = list(
        thresholds.accepted(world.threshold)
        .order_by("item").values_list("item", "rank", "label__name")
    )  # fmt: skip
    sample = draw(world)
    ids = [row[0] for row in pool]
    expected = np.random.Generator(np.random.PCG64(int(sample.seed, 16))).permutation(ids)[: sample.size]
    assert list(sample.drawn.values_list("item", flat=True)) == expected.tolist()
    assert sample.pool == 60
    assert sample.pool_hash == sampling.pool_hash(*zip(*pool, strict=True))


def test_two_draws_have_different_seeds(make_world):
    world = make_world([0.9] * 40)
    first = draw(world)
    samples.discard(world.dataset, world.people["manager"])
    assert draw(world).seed != first.seed


def test_a_drawn_item_leaves_the_accepted_set_until_the_sample_ends(make_world):
    world = make_world([0.9] * 3000)
    before = Prediction.objects.accepted(world.threshold.rank).count()
    sample = draw(world)
    assert Prediction.objects.accepted(world.threshold.rank).count() == before - sample.size
    samples.discard(world.dataset, world.people["manager"])
    assert Prediction.objects.accepted(world.threshold.rank).count() == before


def test_its_size_lets_one_error_pass_at_the_alpha_of_the_attempt(make_world):
    world = make_world([0.9] * 2000)
    first = samples.plan(world.dataset, 2000)
    assert first.alpha == pytest.approx(0.04)
    assert certify.most_errors_allowed(2000, first.budget, first.size, first.alpha) >= 1
    assert certify.most_errors_allowed(2000, first.budget, first.size - 1, first.alpha) < 1
    assert samples.plan(world.dataset, 10_000).size == 400
    assert samples.plan(world.dataset, 1_000_000).size == 600


def test_a_second_attempt_is_tested_at_a_fifth_of_alpha(make_world):
    world = make_world([0.9] * 500)
    assert draw(world).alpha == pytest.approx(0.04)
    samples.discard(world.dataset, world.people["manager"])
    assert draw(world).alpha == pytest.approx(0.008)


def test_only_one_sample_is_open_at_a_time(make_world):
    world = make_world([0.9] * 40)
    sample = draw(world)
    with pytest.raises(thresholds.SampleIsOpen):
        draw(world)
    with pytest.raises(IntegrityError), transaction.atomic():
        Sample.objects.create(
            dataset=world.dataset, run=world.run, purpose=Purpose.SPOT_CHECK, threshold=0,
            seed="0", pool=1, pool_hash="", size=1,
        )  # fmt: skip
    assert sample.is_open


def test_while_a_sample_is_open_the_threshold_does_not_move(make_world):
    world = make_world([0.9] * 40)
    draw(world)
    with pytest.raises(thresholds.SampleIsOpen, match="finish it, or discard its 0 answers"):
        thresholds.move(world.dataset, thresholds.typed_rank("0.5"), world.people["manager"])
    samples.discard(world.dataset, world.people["manager"])
    thresholds.move(world.dataset, thresholds.typed_rank("0.5"), world.people["manager"])


def test_nothing_accepted_is_said_and_not_drawn(make_world):
    world = make_world([0.2] * 5)
    with pytest.raises(samples.NothingToDraw):
        draw(world)


def test_an_item_on_somebodys_screen_is_asked_in_the_sample_all_the_same(make_world):
    world = make_world([0.9] * 40, threshold="0.95")
    held = queue.claim_next(world.dataset, world.people["second"], "b", world.threshold)
    assert held is not None
    sample = samples.draw_to_teach(world.dataset, world.threshold, world.people["manager"])
    assert sample.size == 40
    answer_all(world, sample)
    assert sample.closed_at is not None


def test_items_are_asked_in_the_order_of_the_draw_and_a_skipped_one_comes_last(make_world):
    world = make_world([0.9] * 30)
    sample = draw(world)
    held = queue.claim_drawn(world.dataset, world.people["reviewer"], "a", sample)
    assert held.item_id == sample.drawn.first().item_id
    assert not held.showed_machine
    decisions.remark(held.item, world.people["reviewer"], "skip")
    assert queue.claim_drawn(world.dataset, world.people["reviewer"], "a", sample).item_id != held.item_id
    assert queue.claim_drawn(world.dataset, world.people["second"], "b", sample).item_id != held.item_id
    assert not samples.close_when_answered(sample)


def test_a_sample_closes_with_its_last_answer_and_undo_before_that_asks_the_same_item_again(make_world):
    world = make_world([0.9] * 30)
    sample = draw(world)
    held = queue.claim_drawn(world.dataset, world.people["reviewer"], "a", sample)
    decisions.decide(held.item, world.people["reviewer"], Outcome.LABEL, world.labels[0])
    decisions.undo(world.dataset, world.people["reviewer"], within=sample)
    assert queue.claim_drawn(world.dataset, world.people["reviewer"], "a", sample).item_id == held.item_id
    answer_all(world, sample)
    assert sample.closed_at is not None
    assert samples.count(sample).complete


def test_cant_tell_counts_as_wrong(make_world):
    world = make_world([0.9] * 40)
    sample = answer_all(world, draw(world), wrong=1, cant_tell=2)
    seen = samples.count(sample)
    assert (seen.errors, seen.cant_tell) == (3, 2)


def test_an_answer_after_closing_is_a_correction_and_not_evidence(make_world):
    world = make_world([0.9] * 300)
    sample = answer_all(world, draw(world), wrong=1)
    before = samples.count(sample)
    wrong = verdicts.differences(sample)[0][0]
    decisions.decide(wrong.item, world.people["second"], Outcome.LABEL, wrong.machine_label)
    assert samples.count(sample) == before


def test_a_clean_check_is_approved_with_a_certificate(make_world):
    world = make_world([0.9] * 400)
    sample = answer_all(world, draw(world))
    verdicts.approve(sample, world.people["manager"], "looks right")
    certificate = Certificate.objects.get(sample=sample)
    assert certificate.evidence["errors"] == 0
    assert certificate.evidence["seed"] == sample.seed
    assert "95%" in certificate.statement
    assert "400" in certificate.statement


def test_too_many_errors_are_approved_only_without_a_certificate(make_world):
    world = make_world([0.9] * 400)
    sample = answer_all(world, draw(world), wrong=4)
    assert not verdicts.summary(sample).proven
    verdicts.approve(sample, world.people["manager"])
    assert not Certificate.objects.exists()


def test_an_alarm_forbids_approval(make_world):
    world = make_world([0.9] * 400)
    sample = draw(world)
    answer_all(world, sample, wrong=sample.size // 3)
    with pytest.raises(verdicts.CannotApprove, match="too many"):
        verdicts.approve(sample, world.people["manager"])
    assert not Verdict.objects.exists()
    verdicts.reject(sample, world.people["manager"])


def test_an_open_or_discarded_sample_gets_no_verdict_and_a_closed_one_only_one(make_world):
    world = make_world([0.9] * 60)
    sample = draw(world)
    with pytest.raises(verdicts.CannotApprove, match="no answer yet"):
        verdicts.approve(sample, world.people["manager"])
    answer_all(world, sample)
    verdicts.approve(sample, world.people["manager"])
    with pytest.raises(verdicts.CannotApprove, match="already"):
        verdicts.reject(sample, world.people["manager"])


def test_every_draw_is_kept(make_world):
    world = make_world([0.9] * 60)
    for _ in range(3):
        draw(world)
        samples.discard(world.dataset, world.people["manager"])
    assert Sample.objects.count() == 3
    assert draw(world).attempt == 4


def test_a_manager_sees_counts_in_steps_of_ten_and_then_may_not_answer(make_world):
    world = make_world([0.9] * 200)
    sample = draw(world)
    manager = world.people["manager"]
    for _ in range(13):
        held = queue.claim_drawn(world.dataset, world.people["reviewer"], "a", sample)
        decisions.decide(held.item, world.people["reviewer"], Outcome.CANT_TELL)
    assert not samples.has_looked(sample, manager)
    seen = samples.look(sample, manager)
    assert (seen.answered, seen.errors) == (10, 10)
    assert verdicts.reading(sample, seen).verdict == "failing"
    assert samples.has_looked(sample, manager)


def test_answers_of_a_discarded_sample_stay_decisions(make_world):
    world = make_world([0.9] * 30)
    sample = draw(world)
    held = queue.claim_drawn(world.dataset, world.people["reviewer"], "a", sample)
    decisions.decide(held.item, world.people["reviewer"], Outcome.LABEL, world.labels[0])
    samples.discard(world.dataset, world.people["manager"])
    assert Decision.objects.current().count() == 1
    assert not world.prediction(held.item).open


def test_every_item_is_drawn_equally_often():
    """S12, I13: chi-square over 20,000 draws of 5 from 20 with fixed seeds."""
    counts = np.zeros(20)
    draws = 20_000
    for seed in range(draws):
        counts[sampling.draw(seed, range(20), 5)] += 1
    expected = draws * 5 / 20
    # Draws without replacement vary less than independent ones: by the factor 1 - 5/20, over 19/20.
    chi_square = float(((counts - expected) ** 2 / expected).sum()) / (1 - 5 / 20) * 19 / 20
    assert chi_square < 19 + 4 * math.sqrt(2 * 19)


def test_a_sample_never_holds_an_item_twice(make_world):
    world = make_world([0.9] * 30)
    sample = draw(world)
    first = sample.drawn.first()
    with pytest.raises(IntegrityError), transaction.atomic():
        SampleItem.objects.create(sample=sample, item=first.item, place=999, machine_rank=0)


def test_undo_in_the_queue_never_reaches_the_evidence_of_a_closed_sample(make_world):
    world = make_world([0.9] * 60 + [0.1])
    decisions.decide(world.items[-1], world.people["reviewer"], Outcome.LABEL, world.labels[0])
    sample = answer_all(world, draw(world))
    assert decisions.undo(world.dataset, world.people["reviewer"]).item == world.items[-1]
    assert decisions.undo(world.dataset, world.people["reviewer"]) is None
    assert samples.count(sample).complete


def test_an_answer_taken_back_after_closing_stays_evidence_and_voids_the_certificate(make_world):
    world = make_world([0.9] * 400)
    sample = answer_all(world, draw(world))
    verdicts.approve(sample, world.people["manager"])
    assert validity.certificate_in_force(world.dataset) is not None
    before = samples.count(sample)
    taken_back = Decision.objects.filter(sample=sample).first()
    decisions.undo(world.dataset, world.people["reviewer"], uuid=taken_back.uuid)
    assert samples.count(sample) == before
    assert len([1 for _, answer in samples.evidence(sample) if answer is not None]) == sample.size
    assert "taken back" in validity.why_void(Certificate.objects.get())


def test_lowering_the_threshold_voids_a_certificate_for_good_and_raising_does_not(make_world):
    world = make_world([0.9] * 400)
    sample = answer_all(world, draw(world))
    verdicts.approve(sample, world.people["manager"])
    thresholds.move(world.dataset, thresholds.typed_rank("0.9"), world.people["manager"])
    assert validity.certificate_in_force(world.dataset) is not None
    thresholds.move(world.dataset, thresholds.typed_rank("0.8"), world.people["manager"])
    thresholds.move(world.dataset, thresholds.typed_rank("0.85"), world.people["manager"])
    assert "lowered" in validity.why_void(Certificate.objects.get())


def test_a_running_check_says_how_many_right_answers_are_missing(make_world):
    world = make_world([0.9] * 2000)
    sample = draw(world)
    start = verdicts.reading(sample, samples.count(sample))
    assert start.verdict == "open" and start.more > 50
    for _ in range(20):
        held = queue.claim_drawn(world.dataset, world.people["reviewer"], "a", sample)
        machine = sample.drawn.get(item=held.item_id).machine_label
        decisions.decide(held.item, world.people["reviewer"], Outcome.LABEL, machine)
    later = verdicts.reading(sample, samples.count(sample))
    assert later.verdict == "open" and later.more == start.more - 20
