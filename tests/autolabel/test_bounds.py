"""Bounds for many cuts of one order, against their definition and against counting every sample."""

import math
import time
from fractions import Fraction
from itertools import combinations, product

import numpy as np
import pytest

from labelhub.autolabel import bounds, certify
from labelhub.autolabel.bounds import bound_curve, more_answers


def tail(count: int, pool: int, marked: int, drawn: int) -> Fraction:
    """P(X <= count) in whole numbers."""
    ways = sum(
        math.comb(marked, x) * math.comb(pool - marked, drawn - x) for x in range(min(count, drawn) + 1)
    )
    return Fraction(ways, math.comb(pool, drawn))


class TestBoundCurve:
    @pytest.mark.parametrize("alpha", [0.0487, 0.3111, 0.6931])
    def test_it_is_the_definition_for_every_draw_of_every_small_pool(self, alpha):
        cuts = [
            (pool, drawn, found)
            for pool in range(13)
            for drawn in range(pool + 1)
            for found in range(drawn + 1)
        ]
        for (pool, drawn, found), bound in zip(cuts, bound_curve(*np.transpose(cuts), alpha), strict=True):
            possible = range(found, pool - drawn + found + 1)
            assert bound + found == max(m for m in possible if tail(found, pool, m, drawn) > alpha)

    def test_a_tail_that_equals_alpha_is_refuted(self):
        # One of two, none wrong: with one marked item the tail is exactly a half.
        assert bound_curve([2], [1], [0], 0.5) == [0]
        assert bound_curve([2], [1], [0], np.nextafter(0.5, 0)) == [1]

    @pytest.mark.parametrize(("pool", "drawn", "rate"), [(1_000_000, 10_000, 0.05), (4_000, 3_000, 0.4)])
    @pytest.mark.parametrize("alpha", [0.05, 0.0016, 0.6])
    def test_it_is_the_bound_of_one_pool_at_every_cut(self, pool, drawn, rate, alpha):
        items, checked, wrong = played(pool, drawn, rate, cuts=60)
        alone = [
            certify.remaining_upper(*counts, alpha) for counts in zip(items, checked, wrong, strict=True)
        ]
        assert bound_curve(items, checked, wrong, alpha) == alone

    def test_a_cut_without_a_sampled_item_may_be_all_wrong_and_a_full_count_leaves_nothing(self):
        assert bound_curve([0, 1, 5, 7, 7, 7], [0, 0, 0, 7, 7, 3], [0, 0, 0, 0, 7, 3], 0.05) == [
            0, 1, 5, 0, 0, 4,
        ]  # fmt: skip
        assert bound_curve([], [], [], 0.05) == []

    def test_no_cut_is_bounded_too_low_more_often_than_alpha(self):
        """All samples of five from an order of eight, for every pattern of errors."""
        alpha, order, draws = 0.3, 8, list(combinations(range(8), 5))
        for pattern in product((0, 1), repeat=order):
            too_low, _ = misses(pattern, draws, alpha)
            assert all(share <= alpha for share in too_low)

    def test_the_bounds_of_several_cuts_do_not_hold_together(self):
        random = np.random.default_rng(3)
        pattern = tuple(random.random(400) < 0.15)
        draws = [tuple(random.choice(400, 100, replace=False)) for _ in range(200)]
        each, either = misses(pattern, draws, 0.1)
        assert max(each) < 0.1 and either > 0.2

    def test_ten_thousand_answers_and_a_thousand_cuts_take_less_than_fifty_milliseconds(self):
        counts = played(1_000_000, 10_000, 0.05, cuts=1000)
        seconds = []
        for _ in range(7):
            began = time.process_time()
            bound_curve(*counts, 0.05)
            seconds.append(time.process_time() - began)
        assert min(seconds) < 0.05

    @pytest.mark.parametrize(
        ("items", "checked", "wrong", "alpha"),
        [([5], [6], [0], 0.05), ([5], [3], [4], 0.05), ([5], [3], [-1], 0.05), ([5, 6], [3], [1], 0.05),
         ([5], [3], [1], 0.0), ([5], [3], [1], 1.0)],
    )  # fmt: skip
    def test_counts_that_cannot_be_are_refused(self, items, checked, wrong, alpha):
        with pytest.raises(ValueError):
            bound_curve(items, checked, wrong, alpha)


def played(pool: int, drawn: int, rate: float, cuts: int) -> tuple[list[int], list[int], list[int]]:
    """Counts above evenly spaced cuts of a made-up order in which errors grow more frequent."""
    random = np.random.default_rng(7)
    places = np.sort(random.choice(pool, drawn, replace=False))
    wrong = np.concatenate([[0], np.cumsum(random.random(drawn) < 2 * rate * places / pool)])
    items = np.linspace(pool / cuts, pool, cuts).astype(int)
    checked = np.searchsorted(places, items)
    return items.tolist(), checked.tolist(), wrong[checked].tolist()


def misses(pattern: tuple[int, ...], draws: list, alpha: float) -> tuple[list[float], float]:
    """How often the bound of each cut, and of any cut, is below the wrong labels that were not sampled."""
    cuts = range(1, len(pattern) + 1, max(1, len(pattern) // 20))
    counts = [
        (cut, sum(i < cut for i in drawn), sum(pattern[i] for i in drawn if i < cut))
        for drawn in draws
        for cut in cuts
    ]
    bounds = np.reshape(bound_curve(*np.transpose(counts), alpha), (len(draws), -1))
    found = np.reshape([wrong for _, _, wrong in counts], bounds.shape)
    too_low = np.cumsum(pattern)[None, [cut - 1 for cut in cuts]] - found > bounds
    return too_low.mean(axis=0).tolist(), float(too_low.any(axis=1).mean())


class TestMoreAnswers:
    @pytest.mark.parametrize("alpha", [0.04, 0.2, 0.5])
    def test_it_is_the_least_size_of_all_in_every_small_pool(self, alpha):
        for pool in range(1, 15):
            for budget in range(pool):
                fits = [certify.most_errors_allowed(pool, budget, n, alpha) for n in range(pool + 1)]
                for checked, errors in ((c, e) for c in range(1, 9) for e in range(c + 1)):
                    rate = Fraction(errors, checked)
                    least = [n for n in range(1, pool + 1) if math.ceil(n * rate) <= fits[n]]
                    expected = least[0] if rate * pool <= budget else None
                    assert more_answers(pool, budget, checked, errors, alpha) == expected

    def test_it_is_the_least_size_in_a_large_pool(self):
        size = more_answers(8898, 444, 445, 12, 0.008)

        def does(n: int) -> bool:
            return math.ceil(Fraction(n * 12, 445)) <= certify.most_errors_allowed(8898, 444, n, 0.008)

        assert does(size) and not any(does(n) for n in range(1, size))

    def test_without_an_error_it_is_the_least_sample_that_proves_anything(self):
        assert more_answers(20_000, 1000, 60, 0, 0.05) == 59
        assert certify.most_errors_allowed(20_000, 1000, 58, 0.05) == -1

    def test_more_errors_than_the_target_are_proven_by_no_size(self):
        assert more_answers(10_000, 500, 100, 6, 0.04) is None
        assert more_answers(10_000, 500, 100, 5, 0.04) > 9000  # just at the target: nearly everything

    def test_a_search_through_many_blocks_ends_at_the_same_place(self, monkeypatch):
        size = more_answers(100_000, 5000, 1000, 45, 0.04)
        monkeypatch.setattr(bounds, "FIRST_BLOCK", 3)
        monkeypatch.setattr(bounds, "LARGEST_BLOCK", 5)
        assert more_answers(100_000, 5000, 1000, 45, 0.04) == size

    @pytest.mark.parametrize(
        "numbers", [(10, 10, 5, 1, 0.05), (10, 1, 0, 0, 0.05), (10, 1, 5, 6, 0.05), (10, 1, 5, 1, 1.0)]
    )
    def test_counts_that_cannot_be_are_refused(self, numbers):
        with pytest.raises(ValueError, match="no sample size"):
            more_answers(*numbers)
