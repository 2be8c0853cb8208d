"""The planner: the published figures, the same plan by hand, and advice that follows from it."""

import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labelhub.autolabel.certify import level, sample_size
from labelhub.autolabel.planner import (
    ERRORS,
    WORLDS,
    advice,
    batch_size,
    hopeless,
    limit,
    plan,
    ready,
    seed_size,
    worth,
)

BIG = np.r_[np.full(7000, 0.005), np.full(1000, 0.05), np.full(1000, 0.4)]
SMALL = np.r_[np.full(700, 0.005), np.full(200, 0.05), np.full(100, 0.4)]
CHANCES = st.lists(st.floats(0, 1), min_size=1, max_size=400).map(sorted)


class TestPlan:
    def test_it_reproduces_the_published_plan_of_9000(self):
        chosen = plan(BIG, 1000, 10_000, 500, 0.04, 0.10)
        assert (chosen.sample, chosen.errors, chosen.budget, chosen.prefix) == (190, 5, 500, 8438)
        assert chosen.manual == pytest.approx(1764.4, abs=0.05)

    def test_it_reproduces_the_published_plan_of_1000(self):
        chosen = plan(SMALL, 200, 1200, 60, 0.04, 0.10)
        assert (chosen.sample, chosen.errors, chosen.prefix) == (99, 2, 929)

    @settings(max_examples=60, deadline=None)
    @given(CHANCES, st.integers(0, 200), st.integers(0, 60))
    def test_no_other_choice_is_cheaper(self, p, labelled, budget):
        items = len(p) + labelled
        chosen = plan(p, labelled, items, budget, 0.04)
        costs = {}
        for errors in ERRORS:
            sample = sample_size(errors, len(p), budget, 0.04)
            if sample is not None:
                costs[errors] = by_hand(p, labelled, errors, sample)
        assert (chosen is None) == (not costs)
        if chosen is not None:
            assert chosen.manual == pytest.approx(min(costs.values()), abs=1e-6)
            assert level(chosen.errors, len(p), chosen.sample, budget) <= 0.04 * (1 + 1e-9)
            assert labelled + chosen.sample <= chosen.manual + 1e-9 <= items + 1e-6

    @settings(max_examples=60, deadline=None)
    @given(CHANCES, st.sampled_from([0.05, 0.1, 0.2]))
    def test_a_plan_with_a_floor_promises_what_the_floor_can_carry(self, p, floor_error):
        budget = len(p) // 20
        chosen = plan(p, 0, len(p), budget, 0.04, floor_error)
        if chosen is not None:
            assert chosen.budget <= budget
            assert chosen.accepted >= chosen.budget / floor_error

    def test_a_machine_that_is_often_wrong_promises_less(self):
        p = np.r_[np.full(600, 0.01), np.full(1400, 0.45)]
        free, floored = plan(p, 0, 2000, 100, 0.04), plan(p, 0, 2000, 100, 0.04, 0.10)
        assert free.budget == 100
        assert floored.budget < 100
        assert floored.manual > free.manual

    @pytest.mark.parametrize("p", [[], [0.5] * 30, [0.0] * 45])
    def test_a_pool_too_small_to_prove_anything_has_no_plan(self, p):
        assert plan(p, 10, len(p) + 10, 2, 0.04, 0.10) is None

    def test_it_has_no_plan_without_a_budget(self):
        assert plan(SMALL, 0, 1000, -1, 0.04) is None

    def test_it_refuses_a_pool_that_does_not_make_the_items(self):
        with pytest.raises(ValueError, match="do not make"):
            plan(SMALL, 10, 1000, 50, 0.04)

    @pytest.mark.parametrize(("items", "seconds"), [(10_000, 0.05), (1_000_000, 1.0)])
    def test_it_is_fast(self, items, seconds):
        p = np.sort(np.random.default_rng(0).beta(0.2, 2, items))
        best = math.inf
        for attempt in range(3):  # the shared machine may be busy; another budget defeats the cache
            started = time.process_time()
            plan(p, 0, items, items // 20 + attempt, 0.04, 0.10)
            best = min(best, time.process_time() - started)
        assert best < seconds


def by_hand(p, labelled, errors, sample):
    """The cost of one choice, item by item."""
    share, total = sample / len(p), 0.0
    for factor, weight in WORLDS:
        met, cut = 0.0, 0
        for chance in p:
            met += min(1.0, chance * factor)
            if met > (errors + 0.5) / share:
                break
            cut += 1
        total += weight * (labelled + len(p) - cut + share * cut)
    return total


class TestReady:
    def test_it_freezes_the_published_example(self):
        assert BIG.sum() == pytest.approx(485)
        assert ready(BIG, 1000, 10_000, 500, 0.10, plan(BIG, 1000, 10_000, 500, 0.04, 0.10))

    def test_it_goes_on_while_too_many_labels_are_expected_to_be_wrong(self):
        p = np.r_[BIG[:-500], np.full(500, 0.6)]
        assert not ready(p, 1000, 10_000, 500, 0.10, plan(p, 1000, 10_000, 500, 0.04, 0.10))

    def test_it_goes_on_until_there_are_answers_enough_to_judge_by(self):
        p = np.full(9_900, 0.01)
        assert not ready(p, 100, 10_000, 500, 0.10, plan(p, 100, 10_000, 500, 0.04, 0.10))
        assert ready(p[50:], 150, 10_000, 500, 0.10, plan(p[50:], 150, 10_000, 500, 0.04, 0.10))

    def test_it_never_freezes_without_a_plan(self):
        assert not ready([0.0] * 100, 900, 1000, 50, 0.10, None)

    def test_it_freezes_on_a_flat_cost_only_near_the_mark(self):
        near, far = np.r_[BIG, np.full(0, 1.0)] * 1.3, BIG * 1.7
        for p, expected in ((near, True), (far, False)):
            chosen = plan(p, 1000, 10_000, 500, 0.04, 0.10)
            cost = chosen.manual
            assert not ready(p, 1000, 10_000, 500, 0.10, chosen, [cost + 50, cost - 50, cost, cost])
            flat = [cost + 50, cost - 50, cost, cost, cost]
            assert ready(p, 1000, 10_000, 500, 0.10, chosen, flat) == expected

    def test_the_floor_lowers_the_mark_for_a_small_pool(self):
        assert limit(9000, 500) == 500
        assert limit(9000, 500, 0.10) == 500
        assert limit(5000, 500, 0.10) == pytest.approx(400)


class TestSizes:
    @pytest.mark.parametrize(
        ("items", "classes", "expected"),
        [(5160, 2, 104), (13_071, 77, 262), (3021, 2, 61), (1000, 77, 60), (4000, 77, 200), (30, 3, 30), (0, 2, 0)],
    )  # fmt: skip
    def test_the_seed(self, items, classes, expected):
        assert seed_size(items, classes) == expected

    @pytest.mark.parametrize(
        ("items", "labelled", "expected"),
        [(10_000, 1000, 200), (100_000, 2000, 400), (100_000, 20_000, 2000), (5160, 104, 21), (200, 60, 10), (200, 197, 3), (200, 200, 0)],
    )  # fmt: skip
    def test_the_batch(self, items, labelled, expected):
        assert batch_size(items, labelled) == expected

    @given(st.integers(1, 100_000), st.integers(0, 100_000))
    def test_batches_end_exactly_when_everything_is_labelled(self, items, labelled):
        labelled = min(labelled, items)
        batch = batch_size(items, labelled)
        assert batch <= max(10, items // 50 + 1)
        assert (batch == 0) == (labelled == items)
        assert labelled + batch <= items


class TestAdvice:
    def test_it_says_certify_now_with_the_plan(self):
        said = advice(BIG, 1000, 10_000, 500, 0.04, 0.10)
        assert said.step == "certify now"
        assert (said.plan.sample, said.batch) == (190, 0)
        assert said.manual == pytest.approx(1764.4, abs=0.05)
        assert "190" in said.reason and "485" in said.reason

    def test_it_says_what_the_next_batch_buys(self):
        p = np.r_[BIG[:-500], np.full(500, 0.9)]
        said = advice(p, 1000, 10_000, 500, 0.04, 0.10)
        assert said.step == "go on"
        assert said.batch == 200
        later = plan(p[:-200], 1200, 10_000, 500, 0.04, 0.10)
        assert said.saved_by_batch == pytest.approx(said.manual - later.manual)
        assert "200" in said.reason

    def test_it_says_when_there_is_nothing_to_gain(self):
        assert advice(np.full(40, 0.01), 960, 1000, 50, 0.04, 0.10).step == "nothing to gain"
        assert advice(np.full(20, 0.01), 40, 60, 1, 0.04, 0.10).step == "nothing to gain"

    def test_a_machine_that_knows_nothing_is_taught_and_not_certified(self):
        said = advice(np.full(4900, 0.5), 100, 5000, 250, 0.04, 0.10)
        assert said.step == "go on"
        assert said.plan is None and said.manual == 5000

    @settings(max_examples=50, deadline=None)
    @given(CHANCES, st.integers(0, 500))
    def test_it_always_is_one_sentence_that_fits_its_figures(self, p, labelled):
        items = len(p) + labelled
        said = advice(p, labelled, items, items // 20, 0.04, 0.10)
        assert said.reason.endswith(".") and ". " not in said.reason
        assert (said.batch > 0) == (said.step == "go on")
        if said.step == "certify now":
            assert worth(said.plan, items)
        if said.step == "nothing to gain":
            assert hopeless(labelled, items, items // 20, 0.04)
