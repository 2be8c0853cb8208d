"""Hypergeometric tails against whole-number arithmetic and scipy."""

import math
from fractions import Fraction

import numpy as np
import pytest
from scipy.stats import hypergeom

from labelhub.autolabel.hypergeometric import least_marked, most_marked, tails


def exact_at_most(count, pool, marked, drawn):
    """The same tail in whole numbers."""
    ways = sum(
        math.comb(marked, x) * math.comb(pool - marked, drawn - x) for x in range(min(count, drawn) + 1)
    )
    return Fraction(ways, math.comb(pool, drawn))


class TestTails:
    def test_they_agree_with_whole_number_arithmetic_in_every_small_case(self):
        for pool in range(15):
            for marked in range(pool + 1):
                for drawn in range(pool + 1):
                    for count in range(-1, drawn + 2):
                        below, above = tails(count, pool, marked, drawn)
                        exact = exact_at_most(count, pool, marked, drawn)
                        assert below == pytest.approx(float(exact), rel=1e-13)
                        assert above == pytest.approx(float(1 - exact), rel=1e-13)

    @pytest.mark.parametrize(
        ("count", "pool", "marked", "drawn"),
        [
            (6, 900, 60, 200),
            (0, 900, 60, 200),
            (40, 900, 60, 200),
            (3, 5000, 250, 300),
            (150, 3000, 2000, 250),
        ],
    )
    def test_they_keep_eleven_digits_far_from_the_middle(self, count, pool, marked, drawn):
        below, above = tails(count, pool, marked, drawn)
        exact = exact_at_most(count, pool, marked, drawn)
        assert abs(Fraction(below) / exact - 1) < Fraction(1, 10**11)
        assert abs(Fraction(above) / (1 - exact) - 1) < Fraction(1, 10**11)

    def test_they_agree_with_scipy_up_to_a_million_items(self):
        rng = np.random.default_rng(1)
        for _ in range(200):
            pool = int(rng.integers(1000, 1_000_001))
            marked, drawn = int(rng.integers(0, pool // 5)), int(rng.integers(1, 2000) % pool)
            count = int(hypergeom(pool, marked, drawn).ppf(rng.uniform(0.001, 0.999)))
            below, above = tails(count, pool, marked, drawn)
            assert below == pytest.approx(hypergeom.cdf(count, pool, marked, drawn), rel=1e-6)
            assert above == pytest.approx(hypergeom.sf(count, pool, marked, drawn), rel=1e-6, abs=1e-12)

    def test_the_bounds_are_the_last_counts_that_a_tail_does_not_refute(self):
        for pool in range(1, 13):
            for drawn in range(pool + 1):
                for found in range(drawn + 1):
                    for alpha in (0.3003, 0.0501, 0.001003):  # no tail of so small a pool
                        possible = range(found, pool - drawn + found + 1)
                        high = [m for m in possible if exact_at_most(found, pool, m, drawn) > alpha]
                        low = [m for m in possible if 1 - exact_at_most(found - 1, pool, m, drawn) > alpha]
                        assert most_marked(found, pool, drawn, alpha) == max(high)
                        assert least_marked(found, pool, drawn, alpha) == min(low)

    def test_the_bounds_agree_with_a_plain_search_over_scipy_in_large_pools(self):
        rng = np.random.default_rng(2)
        for _ in range(60):
            pool = int(rng.integers(100, 200_000))
            drawn = int(rng.integers(1, min(pool, 1500)))
            found = int(rng.binomial(drawn, rng.choice([0.0, 0.01, 0.05, 0.4, 0.95])))
            alpha = float(rng.choice([0.05, 0.025, 0.008, 1e-5]))
            high = most_marked(found, pool, drawn, alpha)
            low = least_marked(found, pool, drawn, alpha)
            assert hypergeom.cdf(found, pool, high, drawn) > alpha
            assert high == pool - drawn + found or hypergeom.cdf(found, pool, high + 1, drawn) <= alpha
            assert hypergeom.sf(found - 1, pool, low, drawn) > alpha
            assert low == found or hypergeom.sf(found - 1, pool, low - 1, drawn) <= alpha

    def test_a_sample_of_nothing_bounds_nothing(self):
        assert (least_marked(0, 1000, 0, 0.05), most_marked(0, 1000, 0, 0.05)) == (0, 1000)

    @pytest.mark.parametrize("counts", [(1, 10, 11, 5), (1, 10, 5, 11), (1, 10, -1, 5)])
    def test_impossible_counts_are_refused(self, counts):
        with pytest.raises(ValueError, match="cannot draw"):
            tails(*counts)
