"""Hours and money: measured, or not known yet."""

import math

import pytest

from labelhub.autolabel.savings import rounded_parts, savings, seconds_per_decision


def test_the_pace_is_the_median_of_measured_times():
    assert seconds_per_decision([2.0] * 10 + [4.0] * 10) == 3.0


def test_breaks_do_not_count_as_work():
    assert seconds_per_decision([5.0] * 20 + [121.0, 4000.0] * 30) == 5.0
    assert seconds_per_decision([120.0] * 20) == 120.0


def test_under_twenty_measured_decisions_the_pace_is_not_known_yet():
    assert seconds_per_decision([5.0] * 19) is None
    assert seconds_per_decision([5.0] * 19 + [500.0] * 50) is None
    assert seconds_per_decision([5.0] * 20) == 5.0


@pytest.mark.parametrize("time", [-1.0, math.nan])
def test_an_impossible_time_is_refused(time):
    with pytest.raises(ValueError, match="zero seconds or more"):
        seconds_per_decision([5.0] * 30 + [time])


def test_it_compares_answers_with_labeling_everything_by_hand():
    found = savings(10_000, 2_000, 400, [9.0] * 25, hourly_rate_usd=30.0, llm_cost_usd=12.5)
    assert found.manual_share == 0.20
    assert found.manual_share_with_spot_check == 0.24
    assert (found.hours_by_hand, found.hours_with, found.hours_saved) == pytest.approx((25.0, 6.0, 19.0))
    assert (found.cost_by_hand_usd, found.cost_with_usd) == pytest.approx((750.0, 192.5))
    assert found.money_saved_usd == pytest.approx(557.5)


def test_without_measured_times_shares_are_known_and_hours_are_not():
    found = savings(10_000, 2_000, 400, [], hourly_rate_usd=30.0)
    assert found.manual_share == 0.20
    unknown = (found.seconds_per_decision, found.hours_by_hand, found.hours_with, found.hours_saved)
    assert unknown == (None, None, None, None)
    assert (found.cost_by_hand_usd, found.cost_with_usd, found.money_saved_usd) == (None, None, None)


def test_without_a_rate_hours_are_known_and_money_is_not():
    found = savings(100, 20, 0, [9.0] * 25, llm_cost_usd=3.0)
    assert found.hours_saved == pytest.approx(0.2)
    assert found.money_saved_usd is None


def test_work_for_nothing_costs_nothing_when_the_rate_is_zero():
    assert savings(100, 20, 0, [9.0] * 25, hourly_rate_usd=0.0, llm_cost_usd=3.0).money_saved_usd == -3.0


def test_a_loss_is_shown_as_a_loss():
    found = savings(100, 100, 20, [36.0] * 20, hourly_rate_usd=10.0)
    assert found.manual_share_with_spot_check == 1.2
    assert found.hours_saved == pytest.approx(-0.2)
    assert found.money_saved_usd == pytest.approx(-2.0)


def test_an_empty_dataset_has_no_shares():
    found = savings(0, 0, 0, [9.0] * 25)
    assert (found.manual_share, found.manual_share_with_spot_check) == (None, None)


@pytest.mark.parametrize(
    "numbers", [(-1, 0, 0), (10, -1, 0), (10, 0, -1), (10, 0, 0, [], -5.0), (10, 0, 0, [], 5.0, -0.1)]
)
def test_negative_numbers_are_refused(numbers):
    items, answers, spot_check, *rest = numbers
    seconds, *money = rest or [[]]
    with pytest.raises(ValueError, match="cannot be negative"):
        savings(items, answers, spot_check, seconds, *money)


def test_rounded_lines_add_up_to_the_rounded_sum():
    amounts = [1.006, 0.0, 2.006, 0.004, 3.004]
    parts = rounded_parts(amounts)
    assert round(sum(parts), 2) == round(sum(amounts), 2) == 6.02
    assert parts[1] == 0.0
    assert all(abs(part - amount) < 0.01 for part, amount in zip(parts, amounts, strict=True))
    assert rounded_parts([0.4, 0.4, 0.4], digits=0) == [0, 1, 0]
    assert rounded_parts([]) == []
