"""Accuracy from mixed answers: exact cover by enumeration, and unknown wherever nothing may speak."""

import subprocess
import sys
import time
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import beta, binomtest, hypergeom

from labelhub.autolabel.buckets import (
    Estimate,
    RowSample,
    accuracy,
    bucket_of,
    clopper_pearson,
    threshold_row,
    wilson,
)


def known(*args, **kwargs) -> Estimate:
    found = accuracy(*args, **kwargs)
    assert found is not None
    return found


class TestAccuracy:
    def test_it_counts_the_known_and_estimates_the_rest(self):
        # 40 known with 10 wrong; 200 of 2000 sampled with 3 wrong; bounds of 2.5 % each from a plain search.
        low = min(m for m in range(3, 500) if hypergeom.sf(2, 2000, m, 200) > 0.025)
        high = max(m for m in range(3, 500) if hypergeom.cdf(3, 2000, m, 200) > 0.025)
        found = known(40, 10, 2000, 200, 3)
        assert found.value == pytest.approx(1 - (10 + 30) / 2040)
        assert found.low == pytest.approx(1 - (10 + high) / 2040)
        assert found.high == pytest.approx(1 - (10 + low) / 2040)
        assert (found.n, found.items, found.sampled, found.census) == (240, 2040, 200, False)

    def test_a_census_is_exact_whatever_made_people_look(self):
        found = known(50, 5, 0, 0, 0)
        assert (found.value, found.low, found.high) == pytest.approx((0.9, 0.9, 0.9))
        assert (found.n, found.census) == (50, True)

    def test_a_pool_that_was_sampled_whole_is_exact_too(self):
        found = known(0, 0, 30, 30, 3)
        assert (found.value, found.low, found.high) == pytest.approx((0.9, 0.9, 0.9))

    def test_nothing_drawn_is_unknown_and_not_perfect(self):
        assert accuracy(500, 0, 1, 0, 0) is None

    def test_no_items_are_unknown(self):
        assert accuracy(0, 0, 0, 0, 0) is None

    def test_no_errors_found_is_not_the_same_as_no_errors(self):
        found = known(0, 0, 5000, 100, 0)
        assert found.value == 1
        assert found.low < 0.97

    def test_the_interval_misses_at_most_as_often_as_alpha_for_every_number_of_errors(self):
        """Every size of small pools, every sample size, every number of wrong labels: the exact chance."""
        for pool, alpha in product([1, 2, 5, 9, 23], [0.05, 0.3]):
            for sampled in range(1, pool + 1):
                found = [known(0, 0, pool, sampled, k, alpha) for k in range(sampled + 1)]
                for wrong in range(pool + 1):
                    missed = sum(
                        hypergeom.pmf(k, pool, wrong, sampled)
                        for k in range(sampled + 1)
                        if not found[k].low - 1e-9 <= 1 - wrong / pool <= found[k].high + 1e-9
                    )
                    assert missed <= alpha + 1e-9

    def test_it_holds_and_has_no_bias_in_a_simulated_mix_of_census_and_sample(self):
        """A queue has taken the worst-looking 30 %, a sample speaks for the rest."""
        rng = np.random.default_rng(5)
        score = rng.random(3000)
        wrong = rng.random(3000) > 0.6 + 0.4 * score
        reviewed = score < 0.3
        rest = np.flatnonzero(~reviewed)
        truth = 1 - wrong.mean()
        found = []
        for _ in range(1000):
            sample = rng.choice(rest, 150, replace=False)
            census, hit = int(reviewed.sum()), int(wrong[sample].sum())
            found.append(known(census, int(wrong[reviewed].sum()), len(rest), 150, hit))
        assert np.mean([e.low <= truth <= e.high for e in found]) >= 0.95 - 3 * 0.007
        assert np.mean([e.value for e in found]) == pytest.approx(truth, abs=0.002)
        only_reviewed = 1 - wrong[reviewed].mean()
        assert abs(only_reviewed - truth) > 0.05

    def test_bulk_approving_what_looks_right_does_not_raise_the_estimate(self):
        """Of 1000 labels 100 are wrong; people approve 800 right ones after the draw of 100."""
        found = known(0, 0, 1000, 100, 10, later=800, later_errors=0)
        assert found.low <= 0.90 <= found.high
        assert found.value == pytest.approx(0.9)
        # Taking the 800 out of the pool, as if chance had removed them, would claim a narrow 98 %.
        naive = known(800, 0, 200, 100, 10)
        assert not naive.low <= 0.90 <= naive.high

    def test_hunting_errors_after_the_draw_cannot_break_the_interval(self):
        rng = np.random.default_rng(6)
        pool, wrong, sampled = 400, 40, 80
        missed = plain = 0
        for _ in range(1500):
            hit = int(rng.hypergeometric(wrong, pool - wrong, sampled))
            hunted = min(25, wrong - hit)
            found = known(0, 0, pool, sampled, hit, later=hunted + 5, later_errors=hunted)
            missed += not found.low - 1e-9 <= 0.9 <= found.high + 1e-9
            before = known(0, 0, pool, sampled, hit)
            plain += not before.low - 1e-9 <= 0.9 <= before.high + 1e-9
        assert missed <= plain <= 1500 * 0.05 + 3 * 8.5

    def test_later_answers_close_the_interval_as_they_complete_the_pool(self):
        found = known(0, 0, 100, 20, 1, later=80, later_errors=30)
        assert (found.value, found.low, found.high) == pytest.approx((0.69, 0.69, 0.69))
        assert found.census
        partly = known(0, 0, 100, 20, 1, later=40, later_errors=30)
        assert partly.high <= 0.69
        assert partly.low >= 1 - (31 + 40) / 100

    @pytest.mark.parametrize(
        "counts", [(5, 6, 0, 0, 0), (5, 0, 3, 4, 0), (5, 0, 3, 2, 3), (-1, 0, 3, 2, 0), (5, 0, -1, 0, 0)]
    )
    def test_counts_that_contradict_each_other_are_refused(self, counts):
        with pytest.raises(ValueError, match="counts do not fit"):
            accuracy(*counts)
        with pytest.raises(ValueError, match="counts do not fit"):
            accuracy(5, 0, 10, 4, 0, later=7)

    def test_thirty_rows_of_a_million_labels_take_less_than_a_seventh_of_a_second(self):
        started = time.process_time()
        for row in range(30):
            known(1000, 10, 999_000, 200 + 15 * row, 2 * row)
        assert time.process_time() - started < 30 * 0.005


class TestThresholdRow:
    CALIBRATION = RowSample(threshold=0, checked=120, wrong=6)

    def test_a_calibration_sample_speaks_for_every_row(self):
        found = threshold_row(850, 3000, 120, 6, [self.CALIBRATION])
        assert found == accuracy(0, 0, 3000, 120, 6)

    def test_without_a_sample_a_row_is_unknown(self):
        assert threshold_row(850, 3000, 2999, 0, []) is None

    def test_a_row_that_people_decided_whole_is_a_census_even_without_a_sample(self):
        found = threshold_row(850, 60, 60, 3, [])
        assert found is not None
        assert (found.value, found.census, found.n) == (0.95, True, 60)

    def test_a_row_without_items_is_unknown(self):
        assert threshold_row(990, 0, 0, 0, [self.CALIBRATION]) is None

    def test_a_spot_check_says_nothing_below_its_own_threshold(self):
        spot_check = RowSample(threshold=850, checked=100, wrong=1)
        assert threshold_row(849, 3000, 100, 1, [spot_check]) is None
        assert threshold_row(850, 3000, 100, 1, [spot_check]) == accuracy(0, 0, 3000, 100, 1)
        assert threshold_row(900, 2000, 70, 1, [RowSample(850, 70, 1)]) == accuracy(0, 0, 2000, 70, 1)

    def test_one_undecided_item_outside_the_pool_makes_it_unknown(self):
        sample = RowSample(threshold=0, checked=100, wrong=1, uncovered=1)
        assert threshold_row(850, 3000, 100, 1, [sample]) is None

    def test_what_was_decided_before_the_draw_counts_as_it_is(self):
        sample = RowSample(threshold=0, checked=100, wrong=4, outside=500, outside_wrong=50)
        found = threshold_row(700, 3000, 600, 54, [sample])
        assert found == accuracy(500, 50, 2500, 100, 4)

    def test_what_was_decided_after_the_draw_stays_in_the_pool(self):
        sample = RowSample(threshold=0, checked=100, wrong=4, later=900, later_wrong=2)
        found = threshold_row(700, 3000, 1000, 6, [sample])
        assert found == accuracy(0, 0, 3000, 100, 4, later=900, later_errors=2)

    def test_of_two_samples_the_larger_one_speaks_alone(self):
        spot_check = RowSample(threshold=850, checked=300, wrong=3, outside=120, outside_wrong=6)
        samples = [self.CALIBRATION, spot_check]
        assert threshold_row(850, 3000, 420, 9, samples) == accuracy(120, 6, 2880, 300, 3)
        assert threshold_row(800, 3000, 420, 9, samples) == accuracy(0, 0, 3000, 120, 6)
        assert threshold_row(850, 3000, 420, 9, samples[::-1]) == threshold_row(850, 3000, 420, 9, samples)

    def test_a_sample_that_drew_nothing_from_a_row_says_nothing_about_it(self):
        assert threshold_row(990, 40, 0, 0, [RowSample(threshold=0, checked=0, wrong=0)]) is None

    def test_a_row_with_more_decided_than_items_is_refused(self):
        with pytest.raises(ValueError, match="counts do not fit"):
            threshold_row(850, 10, 11, 0, [])

    def test_a_sample_larger_than_its_row_is_refused(self):
        with pytest.raises(ValueError, match="counts do not fit"):
            threshold_row(850, 100, 50, 0, [RowSample(threshold=0, checked=101, wrong=0)])


class TestBucketOf:
    EDGES = (0.0, 0.5, 0.85, 0.95)

    def test_a_value_on_an_edge_belongs_above_it(self):
        places = [bucket_of(value, self.EDGES) for value in (0.0, 0.499999, 0.5, 0.85, 0.95)]
        assert places == [0, 0, 1, 2, 3]

    def test_full_confidence_is_in_the_last_bucket(self):
        assert bucket_of(1.0, self.EDGES) == 3

    def test_it_works_on_ranks_as_on_confidences(self):
        edges = (0, 850_000 * 10**6)
        assert bucket_of(850_000 * 10**6 - 1, edges) == 0
        assert bucket_of(850_000 * 10**6, edges) == 1

    @pytest.mark.parametrize("edges", [(), (0.5, 0.5), (0.6, 0.5)])
    def test_edges_that_do_not_ascend_are_refused(self, edges):
        with pytest.raises(ValueError, match="ascend"):
            bucket_of(0.7, edges)

    @pytest.mark.parametrize("value", [-0.1, float("nan")])
    def test_a_value_below_every_bucket_is_refused(self, value):
        with pytest.raises(ValueError, match="below"):
            bucket_of(value, self.EDGES)


class TestShares:
    @pytest.mark.parametrize(("count", "n"), [(0, 1), (0, 30), (3, 30), (30, 30), (59, 1000)])
    @pytest.mark.parametrize("alpha", [0.05, 0.01])
    def test_both_intervals_agree_with_scipy(self, count, n, alpha):
        test = binomtest(count, n)
        exact = test.proportion_ci(1 - alpha, method="exact")
        assert clopper_pearson(count, n, alpha) == pytest.approx((exact.low, exact.high), abs=1e-9)
        score = test.proportion_ci(1 - alpha, method="wilson")
        assert wilson(count, n, alpha) == pytest.approx((score.low, score.high), abs=1e-12)

    def test_the_exact_interval_is_made_of_beta_quantiles(self):
        assert clopper_pearson(3, 30)[1] == pytest.approx(beta.ppf(0.975, 4, 27), abs=1e-12)

    @pytest.mark.parametrize("interval", [clopper_pearson, wilson])
    def test_a_share_of_nothing_is_refused(self, interval):
        with pytest.raises(ValueError, match="no interval"):
            interval(0, 0)
        with pytest.raises(ValueError, match="no interval"):
            interval(3, 2)


def test_the_statistics_of_a_page_load_neither_numpy_nor_scipy():
    """The web process imports these; the packages above them are left out, for they answer for themselves."""
    modules = ["buckets", "certify", "hypergeometric", "monitor", "sampling", "savings"]
    code = (
        "import importlib, pathlib, sys, types\n"
        "package = types.ModuleType('labelhub.autolabel')\n"
        "package.__path__ = [str(pathlib.Path('labelhub', 'autolabel').resolve())]\n"
        "sys.modules['labelhub.autolabel'] = package\n"
        f"for name in {modules!r}: importlib.import_module('labelhub.autolabel.' + name)\n"
        "print([name for name in ('numpy', 'scipy', 'pandas', 'django') if name in sys.modules])\n"
    )
    root = Path(__file__).resolve().parents[2]
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root
    )
    assert result.stdout.strip() == "[]"
