"""Calibration: strictly increasing, close to the truth, never certain."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from labelhub.autolabel.calibration import LEAST_SLOPE, Platt, fit_platt, reliability_curve

SCORES = st.lists(st.floats(-40, 40), min_size=1, max_size=60)


def test_it_agrees_with_scikit_learn_on_many_scores():
    random = np.random.default_rng(0)
    x = random.normal(0, 3, 20_000)
    right = random.random(20_000) < 1 / (1 + np.exp(-(0.6 * x - 0.4)))
    ours = fit_platt(x, right)
    reference = LogisticRegression(C=1e9, tol=1e-8).fit(x[:, None], right)
    assert ours.slope == pytest.approx(reference.coef_[0, 0], rel=2e-3)
    assert ours.offset == pytest.approx(reference.intercept_[0], abs=2e-3)
    assert ours.slope == pytest.approx(0.6, abs=0.03)


def test_it_brings_overconfident_scores_down_to_the_share_that_was_right():
    random = np.random.default_rng(1)
    stated = random.normal(4, 1, 5_000)
    right = random.random(5_000) < 0.7
    assert fit_platt(stated, right)(stated).mean() == pytest.approx(0.7, abs=0.01)


@pytest.mark.parametrize("right", [True, False])
def test_answers_that_were_all_right_or_all_wrong_promise_nothing_certain(right):
    p = fit_platt(np.linspace(-3, 3, 100), np.full(100, right))(np.linspace(-3, 3, 100))
    assert ((p > 0) & (p < 1)).all()
    assert (p.mean() > 0.9) == right


def test_a_score_that_points_the_wrong_way_keeps_its_order_and_says_little():
    x = np.linspace(-3, 3, 200)
    platt = fit_platt(x, x < 0)
    assert platt.slope == LEAST_SLOPE
    assert np.ptp(platt(x)) < 0.1
    assert platt(x).mean() == pytest.approx(0.5, abs=0.02)


@given(SCORES, st.randoms(use_true_random=False))
def test_any_fit_is_finite_and_strictly_increasing(scores, random):
    platt = fit_platt(scores, [random.random() < 0.5 for _ in scores])
    assert platt.slope >= LEAST_SLOPE and math.isfinite(platt.slope) and math.isfinite(platt.offset)
    low, high = platt([-1.0, 1.0])
    assert low <= high


def test_infinite_scores_are_cut_and_not_passed_on():
    assert 0 < fit_platt([np.inf, -np.inf, 1.0], [True, False, True])(np.array([np.inf]))[0] <= 1


def test_it_refuses_no_scores_and_scores_without_answers():
    with pytest.raises(ValueError, match="0 scores"):
        fit_platt([], [])
    with pytest.raises(ValueError, match="2 scores to 1"):
        fit_platt([1, 2], [True])


def test_a_map_is_two_numbers_that_json_can_hold():
    assert Platt(*[1.5, -0.25])(0.0) == pytest.approx(1 / (1 + math.exp(0.25)))


def test_a_reliability_curve_counts_every_label_once_with_its_number():
    curve = reliability_curve([0.0, 0.05, 0.1, 0.95, 1.0], [False, True, True, True, True])
    assert [b.n for b in curve] == [2, 1, 0, 0, 0, 0, 0, 0, 0, 2]
    assert curve[0].accuracy == 0.5 and curve[0].confidence == pytest.approx(0.025)
    assert (curve[0].low, curve[0].high, curve[-1].high) == (0.0, 0.1, 1.0)


def test_an_empty_bin_knows_nothing():
    empty = reliability_curve([0.95], [True])[0]
    assert empty.n == 0 and math.isnan(empty.accuracy) and math.isnan(empty.confidence)
