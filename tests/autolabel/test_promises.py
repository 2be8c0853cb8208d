"""The simulations behind docs/statistics.md, small: kept promises are kept, and broken ones are seen to be broken."""

import json
import math
from itertools import product

import numpy as np
import pytest

from benchmarks import borders, peeking, promises
from benchmarks.borders import ALPHA, FINE, FLOOR, NAIVE, Figure, beyond_chance
from labelhub.autolabel.certify import certify, tolerated
from labelhub.autolabel.monitor import read


@pytest.fixture(scope="module")
def data():
    names = ("stance, GPT-4o", "media bias, 32 votes")
    loaded = {name: promises.load(name) for name in names}
    return loaded | {"sms spam": promises.load("sms spam, weak model of 10 %", 1000)}


def as_rare_as_said(found):
    """Whether a share is within alpha, up to what chance does less than once in a million runs."""
    return found.share <= beyond_chance(found.n, errors=5)


def as_often_as(found):
    return abs(found.share - found.exact) <= 5 * math.sqrt(found.exact * (1 - found.exact) / found.n)


class TestConfidencesThatSayNothing:
    @pytest.mark.parametrize("name", ["stance, GPT-4o", "media bias, 32 votes", "sms spam"])
    @pytest.mark.parametrize("order", promises.ORDERS)
    def test_shuffled_and_reversed_confidences_break_no_promise(self, data, name, order):
        known = promises.disturb(data[name], order)
        kept, *refused, missed = promises.worthless_confidences(name, known, order, 1500)
        assert as_rare_as_said(kept)
        assert as_rare_as_said(missed)
        assert as_often_as(missed)
        assert missed.violations > 0
        # Where too many labels are wrong for the floor, nothing is accepted, whatever they say of themselves.
        assert len(refused) == (promises.freeze(known).wrong.mean() > FLOOR)
        assert all(as_rare_as_said(found) for found in refused)

    def test_a_certificate_that_allows_too_many_errors_is_seen_to_break_its_word(self, data):
        pool = promises.freeze(data["stance, GPT-4o"])
        checked, budget, errors = promises.border(pool)
        looks = promises.look(pool, checked, errors + 10, budget - 10, None, 1000)
        assert (looks[:, 1] > budget - 10).mean() > 2 * ALPHA

    def test_what_a_model_learned_from_is_in_no_pool(self, data):
        known = data["sms spam"]
        labeled = int((known.given >= 0).sum())
        assert labeled == len(known.gold) - round(0.1 * len(known.gold))
        assert len(promises.freeze(known).wrong) == labeled

    def test_reversed_means_that_the_wrong_ones_look_surest(self, data):
        known = data["media bias, 32 votes"]
        places = np.flatnonzero(promises.freeze(known).wrong)
        turned = np.flatnonzero(promises.freeze(promises.disturb(known, "reversed")).wrong)
        assert places.mean() > 0.6 * len(known.gold)
        assert turned.mean() < 0.4 * len(known.gold)

    def test_the_quick_walk_accepts_what_certify_accepts(self):
        random = np.random.default_rng(1)
        for errors, floor in product(range(-1, 4), (None, 0.2)):
            for _ in range(50):
                wrong = random.random(80) < 0.1
                drawn = random.permutation(80)[:30]
                slow = certify(range(80), drawn.tolist(), drawn[wrong[drawn]].tolist(), errors, 6, floor)
                accepted, missed, walked = borders.walk(wrong, drawn, errors, 6, floor)
                assert (accepted, walked) == (len(slow.accepted), slow.walked if slow.accepted else 0)
                assert missed == wrong[slow.accepted].sum()


class TestReviewersWhoSlip:
    @pytest.mark.parametrize("name", ["stance, GPT-4o", "media bias, 32 votes"])
    def test_the_truth_is_as_good_as_promised(self, data, name):
        for found in promises.slips(name, data[name], 200):
            assert as_rare_as_said(found)

    def test_second_readings_save_work(self, data):
        known = data["media bias, 32 votes"]
        result = promises.backtest(known, reps=100, sample=promises.SAMPLE, reviewer_error=promises.SLIPS)
        _, once = promises.once_read(known, FLOOR, 300)
        assert result["summary"]["coverage"] > once.mean() + 0.05


class TestAttempts:
    @pytest.mark.parametrize("pool", [400, 2000, 8898])
    def test_five_spot_checks_in_a_row_prove_falsely_within_alpha_together(self, pool):
        assert borders.by_hand(pool, FINE, 20_000).mean() <= beyond_chance(20_000, errors=5)
        assert borders.by_hand(pool, NAIVE, 20_000).mean() > 2 * ALPHA

    def test_learning_between_attempts_cannot_break_the_promise(self):
        assert borders.by_target(2000, FINE, 300).mean() <= beyond_chance(300, errors=5)
        assert borders.by_target(2000, NAIVE, 300).mean() > 2 * ALPHA

    def test_a_sample_that_was_learned_from_proves_nothing_any_more(self):
        assert borders.by_target(2000, FINE, 50, fresh=False).mean() > 0.5

    def test_a_spot_check_at_the_border_proves_falsely_as_often_as_computed(self):
        for found in borders.spot_checks(1000):
            assert as_rare_as_said(found)
            assert as_often_as(found)


class TestReading:
    @pytest.mark.parametrize("pool", [300, 1000])
    def test_evidence_may_be_read_after_every_answer_and_the_exact_test_may_not(self, pool):
        for made, by_evidence, by_test in (
            (peeking.proven, peeking.most_that_prove, peeking.most_by_test),
            (peeking.failing, peeking.least_that_alarm, peeking.least_by_test),
        ):
            kept, naive = made("", pool, by_evidence(pool), 1000), made("", pool, by_test(pool), 1000, True)
            assert kept.exact <= ALPHA and as_rare_as_said(kept) and as_often_as(kept)
            assert naive.exact > 4 * ALPHA and naive.passed and as_often_as(naive)

    def test_evidence_and_the_exact_test_may_not_be_combined(self):
        found = peeking.proven("", 2000, peeking.either(2000, 600), 100, True)
        assert found.exact > 1.4 * ALPHA

    def test_the_limits_are_those_that_people_are_told(self):
        pool, budget = 60, tolerated(60, 0.05)
        most, least = peeking.most_that_prove(pool), peeking.least_that_alarm(pool)
        for checked in range(pool + 1):
            for errors in range(checked + 1):
                told = read(pool, checked, errors, budget, ALPHA).verdict
                assert (told == "proven") == (errors <= most[checked])
                assert (told == "failing") == (errors >= least[checked])


class TestIntervals:
    def test_no_pool_is_missed_too_often(self):
        found = borders.intervals(30)
        assert found.n == sum(pool * (pool + 1) for pool in range(1, 31))
        assert found.violations == 0 and found.passed

    def test_no_answers_given_later_make_one_miss_too_often(self):
        found = borders.hunted_intervals(8)
        assert found.n > 1000
        assert found.violations == 0 and found.passed

    def test_chances_are_those_of_a_draw_without_replacement(self):
        table = borders.chances(9, 4)
        assert table.sum(axis=1) == pytest.approx(1)
        assert table[3, 1] == pytest.approx(3 * math.comb(6, 3) / math.comb(9, 4))


class TestFigures:
    def test_a_broken_promise_fails_and_so_does_a_naive_way_that_holds(self, capsys):
        good = Figure("a", "b", 1000, 40, 0.0, beyond_chance(1000))
        bad = Figure("a", "b", 1000, 80, 0.0, beyond_chance(1000))
        dull = Figure("a", "b", 1000, 40, 0.0, beyond_chance(1000), naive=True)
        assert [found.passed for found in (good, bad, dull)] == [True, False, False]
        assert promises.table(iter([good]))
        assert not promises.table(iter([bad, good]))
        assert "NOT AS IT SHOULD BE" in capsys.readouterr().out

    def test_they_can_be_written_as_json(self):
        figures = [borders.intervals(3), borders.hunted_intervals(3), *borders.spot_checks(10)]
        assert json.loads(json.dumps([found.as_json() for found in figures]))[0]["n"] == 20
