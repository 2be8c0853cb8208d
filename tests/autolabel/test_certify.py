"""The certificate: published figures, brute force, and simulation that it errs as rarely as it says."""

import math
from fractions import Fraction
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom, hypergeom

from labelhub.autolabel.certify import (
    allowed_errors,
    attempt_alpha,
    budget,
    certified_threshold,
    certify,
    least_accepted,
    level,
    most_errors_allowed,
    remaining_upper,
    sample_size,
    tolerated,
)
from labelhub.autolabel.hypergeometric import at_most, most_marked
from tests.autolabel.test_hypergeometric import exact_at_most

SIZES = [60, 100, 150, 200, 300, 400, 600, 800, 1000]


class TestPublishedFigures:
    @pytest.mark.parametrize(
        ("pool", "expected"),
        [
            (500, [0, 1, 4, 8, 24]),
            (1000, [0, 1, 3, 6, 12, 22, 55]),
            (2000, [0, 1, 3, 5, 10, 16, 30, 50, 78]),
            (5000, [0, 1, 3, 4, 9, 13, 24, 35, 48]),
            (20000, [0, 1, 2, 4, 8, 12, 21, 30, 40]),
        ],
    )
    def test_allowed_errors(self, pool, expected):
        found = [allowed_errors(pool, n, pool // 20, 0.05) for n in SIZES[: len(expected)]]
        assert found == expected

    def test_allowed_errors_at_another_alpha_and_without_a_test(self):
        assert allowed_errors(5000, 150, 250, 0.045) == 2
        assert allowed_errors(20000, 60, 1000, 0.045) == -1
        assert allowed_errors(100, 60, 40, 0.05) == 60

    @pytest.mark.parametrize(
        ("pool", "wrong", "expected"),
        [
            (1000, 50, [118, 141, 182, 235, 294, 365, 447, 533]),
            (2000, 100, [124, 150, 198, 262, 337, 437, 562, 710]),
            (8000, 500, [103, 126, 169, 229, 305, 413, 564, 767]),
            (20000, 1000, [129, 159, 213, 291, 389, 529, 729, 1004]),
        ],
    )
    def test_sample_size(self, pool, wrong, expected):
        assert [sample_size(c, pool, wrong, 0.04) for c in (2, 3, 5, 8, 12, 18, 27, 40)] == expected

    def test_level(self):
        assert level(5, 2000, 200, 100) == pytest.approx(0.0360826, abs=5e-8)
        assert level(12, 8000, 301, 500) == pytest.approx(0.0447592, abs=5e-8)

    def test_level_with_misses(self):
        noticing = Fraction(98, 100)
        exact = sum(
            math.comb(200, k) * noticing**k * (1 - noticing) ** (200 - k) * exact_at_most(5, 2000, 106, k)
            for k in range(201)
        )
        assert level(5, 2000, 200, 100, miss=0.02) == pytest.approx(float(exact), rel=1e-11)
        assert level(5, 2000, 200, 100, miss=0.02) == pytest.approx(0.0416253, abs=5e-8)

    def test_remaining_upper_and_budget(self):
        assert remaining_upper(2000, 200, 3, 0.05) == 71
        assert most_marked(3, 2000, 200, 0.05) == 74
        assert at_most(3, 2000, 101, 200) == pytest.approx(0.00624, abs=5e-6)
        assert budget(10000, 0.05) == 500
        assert budget(10000, 0.05, reviewer_error=0.02, manual=4000) == 405

    def test_certify(self):
        order, sampled, wrong = range(20), {1, 4, 6, 9, 12, 15, 18}, {6, 15, 18}
        assert certify(order, sampled, wrong, 1).accepted == [0, 2, 3, 5, 7, 8, 10, 11, 13, 14]
        assert certify(order, sampled, wrong, 0).accepted == [0, 2, 3, 5]
        floored = certify(order, sampled, wrong, 1, budget=2, floor_error=0.10)
        assert (floored.accepted, floored.problem) == ([], "floor")

    @pytest.mark.parametrize(
        ("pool", "wrong", "expected"),
        [
            (500, 25, [0, 1, 3, 5, 11, 16]),
            (1000, 50, [0, 1, 3, 5, 9, 14, 24, 35]),
            (2000, 100, [0, 1, 3, 5, 9, 13, 22, 32, 41]),
            (5000, 250, [0, 1, 2, 4, 8, 12, 21, 30, 39]),
            (20000, 1000, [0, 1, 2, 4, 8, 12, 21, 29, 38]),
            (2000, 200, [2, 4, 8, 13, 21, 31, 49, 69, 88]),
            (20000, 2000, [1, 4, 8, 12, 21, 29, 47, 66, 84]),
        ],
    )
    def test_most_errors_allowed(self, pool, wrong, expected):
        sizes = [n for n in SIZES if n <= pool][: len(expected)]
        assert [most_errors_allowed(pool, wrong, n, 0.05) for n in sizes] == expected

    @pytest.mark.parametrize(("pool", "least"), [(200, 47), (500, 54), (2000, 57), (10**6, 59)])
    def test_the_least_sample_that_can_prove_five_percent(self, pool, least):
        assert most_errors_allowed(pool, pool // 20, least, 0.05) == 0
        assert most_errors_allowed(pool, pool // 20, least - 1, 0.05) == -1


class TestTheorems:
    def test_no_pattern_of_errors_breaks_the_promise_more_often_than_the_level_and_one_attains_it(self):
        """All samples times all patterns of errors, for a pool of twelve."""
        pool = 12
        bits = np.arange(2**pool)[:, None] >> np.arange(pool) & 1  # (4096, 12), column 0 the surest
        patterns = bits.astype(np.int8)
        for checked, wrong_budget in [(3, 1), (5, 1), (5, 2), (6, 0), (8, 2)]:
            samples = np.zeros((math.comb(pool, checked), pool), dtype=bool)
            for row, chosen in enumerate(combinations(range(pool), checked)):
                samples[row, list(chosen)] = True
            for errors in range(min(3, checked)):
                broken = np.zeros(len(patterns), dtype=int)
                for sample in samples:
                    seen = (patterns * sample).cumsum(axis=1, dtype=np.int8)
                    unseen = (patterns * ~sample).cumsum(axis=1, dtype=np.int8)
                    broken += np.where(seen <= errors, unseen, 0).max(axis=1) > wrong_budget
                stated = level(errors, pool, checked, wrong_budget)
                assert broken.max() / len(samples) == pytest.approx(stated, abs=1e-12)
                first = (1 << (wrong_budget + 1 + errors)) - 1  # the first b + 1 + c items wrong, no others
                assert broken[first] == broken.max()

    def test_certify_breaks_the_promise_exactly_as_often_as_its_level(self):
        pool, checked, wrong_budget, errors = 12, 6, 1, 1
        wrong = set(range(wrong_budget + 1 + errors))
        broken = 0
        for sampled in combinations(range(pool), checked):
            kept = certify(range(pool), sampled, wrong.intersection(sampled), errors)
            broken += len(wrong.intersection(kept.accepted)) > wrong_budget
        share = Fraction(broken, math.comb(pool, checked))
        assert share == exact_at_most(errors, pool, wrong_budget + 1 + errors, checked)

    def test_overlooked_errors_stay_within_the_level_for_every_pattern(self):
        """All samples times all ways of overlooking, the chance of each summed, for a pool of eight."""
        pool, checked, wrong_budget, errors, miss = 8, 4, 1, 1, 0.2
        worst = 0.0
        for pattern in range(2**pool):
            wrong = {item for item in range(pool) if pattern >> item & 1}
            chance = 0.0
            for sampled in combinations(range(pool), checked):
                hit = sorted(wrong.intersection(sampled))
                for noticed in range(2 ** len(hit)):
                    found = {item for place, item in enumerate(hit) if noticed >> place & 1}
                    seen = unseen = 0
                    broken = False
                    for item in range(pool):
                        seen += item in found
                        unseen += item in wrong and item not in found
                        if seen > errors:
                            break
                        broken |= unseen > wrong_budget
                    if broken:
                        chance += (1 - miss) ** len(found) * miss ** (len(hit) - len(found))
            worst = max(worst, chance / math.comb(pool, checked))
        assert worst == pytest.approx(level(errors, pool, checked, wrong_budget, miss), rel=1e-9)

    def test_the_level_with_misses_is_the_average_over_what_reviewers_notice(self):
        expected = sum(
            binom.pmf(noticed, 150, 0.95) * hypergeom.cdf(3, 900, 40 + 1 + 3, noticed)
            for noticed in range(151)
        )
        assert level(3, 900, 150, 40, miss=0.05) == pytest.approx(expected, rel=1e-9)
        assert level(3, 900, 150, 40, miss=1e-12) == pytest.approx(level(3, 900, 150, 40), rel=1e-6)

    @pytest.mark.parametrize("shape", ["worst first", "at random", "at the bottom", "all wrong", "edge"])
    def test_a_simulated_promise_is_kept(self, shape):
        pool, checked, wrong_budget, alpha, repeats = 400, 100, 20, 0.05, 4000
        rng = np.random.default_rng(7)
        errors = allowed_errors(pool, checked, wrong_budget, alpha)
        marks = np.zeros(pool, dtype=bool)
        if shape == "worst first":
            marks[: wrong_budget + 1 + errors] = True
        elif shape == "at random":
            marks[rng.choice(pool, 60, replace=False)] = True
        elif shape == "at the bottom":
            marks[-120:] = True
        elif shape == "all wrong":
            marks[:] = True
        else:
            marks[rng.choice(pool, wrong_budget + 1 + errors, replace=False)] = True
        wrong = set(np.flatnonzero(marks).tolist())
        broken = floor_broken = 0
        for _ in range(repeats):
            sampled = set(rng.permutation(pool)[:checked].tolist())
            kept = certify(range(pool), sampled, wrong & sampled, errors, wrong_budget, floor_error=0.10)
            unseen = len(wrong.intersection(kept.accepted))
            broken += unseen > wrong_budget
            floor_broken += unseen > 0.10 * len(kept.accepted)
        allowed = alpha + 3 * math.sqrt(alpha * (1 - alpha) / repeats)
        assert broken / repeats <= allowed
        assert floor_broken / repeats <= allowed

    def test_the_floor_breaks_only_when_the_budget_breaks(self):
        for wrong_budget in range(30):
            for floor_error in (0.05, 0.1, 0.15, 0.29):
                accepted = least_accepted(wrong_budget, floor_error)
                assert Fraction(wrong_budget, accepted) <= Fraction(str(floor_error))
                if accepted > 1:
                    assert Fraction(wrong_budget, accepted - 1) > Fraction(str(floor_error))

    def test_all_attempts_together_stay_within_alpha(self):
        assert [attempt_alpha(0.05, k) for k in (1, 2, 3)] == pytest.approx([0.04, 0.008, 0.0016])
        assert sum(attempt_alpha(0.05, k) for k in range(1, 60)) <= 0.05 * (1 + 1e-12)

    def test_the_reserve_covers_the_slips_of_a_noisy_reviewer_nineteen_times_in_twenty(self):
        for manual in (20, 100, 400, 1000, 4000, 20_000):
            for error in (0.001, 0.005, 0.01, 0.02, 0.05, 0.1):
                reserve = tolerated(10**6, 0.05) - budget(10**6, 0.05, error, manual)
                assert binom.sf(reserve, manual, error) <= 0.05

    def test_two_simulated_attempts_together_stay_within_alpha(self):
        """One error too many in the pool: whoever tries twice proves falsely no more often than promised."""
        pool, checked, repeats, alpha = 600, 150, 20_000, 0.05
        rng = np.random.default_rng(11)
        false = np.zeros(repeats, dtype=bool)
        for attempt in (1, 2):
            allowed = most_errors_allowed(pool, 30, checked, attempt_alpha(alpha, attempt))
            false |= rng.hypergeometric(31, pool - 31, checked, repeats) <= allowed
        assert 0.01 < false.mean() <= alpha

    def test_a_spot_check_proves_falsely_at_most_as_often_as_alpha(self):
        for pool, wrong_budget, checked in [(60, 3, 30), (400, 20, 93), (5000, 250, 200)]:
            allowed = most_errors_allowed(pool, wrong_budget, checked, 0.05)
            for wrong in {wrong_budget + 1, wrong_budget + 2, 2 * wrong_budget, pool}:
                assert hypergeom.cdf(allowed, pool, wrong, checked) <= 0.05
            assert hypergeom.cdf(allowed + 1, pool, wrong_budget + 1, checked) > 0.05

    def test_credit_for_corrected_errors_never_allows_fewer(self):
        for pool in (100, 700, 4000):
            for checked in (30, 90):
                plain = most_errors_allowed(pool, pool // 20, checked, 0.05)
                assert allowed_errors(pool, checked, pool // 20, 0.05) >= plain


class TestCertify:
    def test_it_depends_on_the_order_and_not_on_the_values_of_the_score(self):
        rng = np.random.default_rng(3)
        score = rng.random(50)
        sampled = set(rng.choice(50, 15, replace=False).tolist())
        wrong = {item for item in sampled if score[item] < 0.5}
        before = certify(np.argsort(-score).tolist(), sampled, wrong, 2)
        after = certify(np.argsort(-(np.exp(9 * score) - 4)).tolist(), sampled, wrong, 2)
        assert before == after
        assert before.accepted

    def test_the_threshold_accepts_the_same_items_as_the_walk(self):
        rng = np.random.default_rng(4)
        for errors in range(4):
            ranks = rng.choice(10**6, 80, replace=False)
            sampled = rng.choice(80, 30, replace=False)
            wrong = sampled[:5]
            threshold = certified_threshold(ranks[wrong].tolist(), errors)
            by_rank = set(np.flatnonzero(ranks >= threshold).tolist()) - set(sampled.tolist())
            walk = certify(np.argsort(-ranks).tolist(), sampled.tolist(), wrong.tolist(), errors)
            assert set(walk.accepted) == by_rank

    def test_items_that_share_the_rank_of_the_deciding_error_stay_out(self):
        assert certified_threshold([700, 500, 700], 0) == 701
        assert certified_threshold([700, 500, 700], 2) == 501

    def test_no_error_too_many_accepts_the_whole_pool(self):
        assert certified_threshold([5, 9], 2) == 0
        assert certify(range(5), [0], [0], 1).accepted == [1, 2, 3, 4]

    def test_it_says_why_it_accepts_nothing(self):
        assert certify(range(5), [2], [], -1).problem == "sample"
        assert certify(range(5), [0], [0], 0).problem == "errors"
        assert certify(range(5), [0], [], 0, budget=2, floor_error=0.1).problem == "floor"

    def test_a_pool_that_was_sampled_whole_leaves_nothing_to_accept_and_no_problem(self):
        kept = certify(range(3), range(3), [0], 3)
        assert (kept.accepted, kept.problem) == ([], None)

    def test_an_error_outside_the_sample_is_refused(self):
        with pytest.raises(ValueError, match="must be sampled"):
            certify(range(5), [1], [2], 0)

    def test_a_sampled_item_outside_the_pool_is_refused(self):
        with pytest.raises(ValueError, match="must be in the order"):
            certify(range(5), [7], [], 0)

    def test_a_sample_that_proves_nothing_has_no_threshold(self):
        with pytest.raises(ValueError, match="no threshold"):
            certified_threshold([3], -1)


class TestEdges:
    def test_when_the_unchecked_rest_fits_into_the_budget_no_test_is_needed(self):
        for pool in range(1, 30):
            for wrong_budget in range(pool):
                checked = pool - wrong_budget
                assert allowed_errors(pool, checked, wrong_budget, 0.05) == checked

    def test_a_pool_that_is_too_small_gets_no_sample_size(self):
        assert sample_size(2, 12, 0, 0.04) is None  # eleven of the twelve would not do
        assert sample_size(12, 12, 0, 0.04) is None  # nor can a sample show more errors than it has items
        assert sample_size(2, 60, 3, 0.04) is not None

    def test_a_sample_size_is_the_least_that_works(self):
        for pool in (80, 300, 3000):
            for errors in (0, 1, 3):
                size = sample_size(errors, pool, pool // 20, 0.05)
                if size is not None:
                    assert allowed_errors(pool, size, pool // 20, 0.05) >= errors
                    assert allowed_errors(pool, size - 1, pool // 20, 0.05) < errors

    def test_without_a_budget_nothing_is_proven(self):
        assert budget(100, 0.05, reviewer_error=0.1, manual=100) == -1
        assert budget(10000, 0.05, earlier=501) == -1
        assert budget(10000, 0.05, earlier=100) == 400
        assert allowed_errors(1000, 500, -1, 0.05) == -1
        assert sample_size(2, 1000, -1, 0.05) is None
        assert level(-1, 1000, 500, -1) == 0.0

    def test_shares_are_counted_as_they_are_written_and_not_as_floats_round_them(self):
        assert 0.29 * 100 < 29
        assert tolerated(100, 0.29) == 29
        assert least_accepted(3, 0.3) == 10

    def test_a_tail_that_equals_alpha_proves(self):
        assert most_errors_allowed(20, 0, 19, 0.05) == 0
        assert most_errors_allowed(20, 0, 18, 0.05) == -1

    def test_checking_everything_proves_any_budget_that_is_kept(self):
        assert most_errors_allowed(50, 4, 50, 0.05) == 4

    def test_an_empty_pool_needs_no_test(self):
        assert allowed_errors(0, 0, 0, 0.05) == 0

    @pytest.mark.parametrize(
        "call",
        [
            lambda: allowed_errors(10, 11, 1, 0.05),
            lambda: allowed_errors(10, 5, -2, 0.05),
            lambda: allowed_errors(10, 5, 1, 0.0),
            lambda: level(6, 10, 5, 1),
            lambda: level(1, 10, 5, 1, miss=1.0),
            lambda: sample_size(-1, 10, 1, 0.05),
            lambda: most_errors_allowed(10, 10, 5, 0.05),
            lambda: most_errors_allowed(10, 1, 5, 1.0),
            lambda: remaining_upper(10, 5, 6, 0.05),
            lambda: attempt_alpha(0.05, 0),
            lambda: attempt_alpha(1.0, 1),
            lambda: budget(10, 1.0),
            lambda: budget(10, 0.05, manual=-1),
            lambda: least_accepted(3, 0.0),
        ],
    )
    def test_numbers_outside_their_range_are_refused(self, call):
        with pytest.raises(ValueError):
            call()


def test_every_test_that_the_statistics_page_names_exists():
    root = Path(__file__).resolve().parents[2]
    page = (root / "docs" / "statistics.md").read_text(encoding="utf-8")
    tests = "\n".join(path.read_text(encoding="utf-8") for path in (root / "tests").rglob("test_*.py"))
    named = {word for word in page.replace("`", " ").split() if word.startswith("test_") and "." not in word}
    assert len(named) > 20
    assert {name for name in named if f"def {name}(" not in tests} == set()
