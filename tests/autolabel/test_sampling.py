"""The draw repeats, the pool has one fingerprint, and a spot check is as large as its test needs."""

import hashlib
import itertools
import time
from collections import Counter

import numpy as np
import pytest
from scipy.stats import chisquare, hypergeom

from labelhub.autolabel.certify import attempt_alpha, most_errors_allowed
from labelhub.autolabel.sampling import draw, pool_hash, spot_check_size


class TestDraw:
    def test_a_seed_and_a_pool_always_give_the_same_people_the_same_items(self):
        assert draw(20240607, range(10, 30), 5) == [29, 28, 17, 22, 26]
        assert draw(2**127 + 5, range(1_000_000), 5) == [385508, 402190, 551591, 730187, 308669]

    def test_it_is_the_permutation_that_the_docs_promise(self):
        ids = np.array([3, 8, 9, 40, 41, 77])
        expected = np.random.Generator(np.random.PCG64(2**100 + 1)).permutation(ids)[:4].tolist()
        assert draw(2**100 + 1, ids, 4) == expected

    def test_a_smaller_sample_is_the_beginning_of_a_larger_one(self):
        assert draw(5, range(100), 10) == draw(5, range(100), 40)[:10]

    def test_every_pair_of_items_is_equally_likely(self):
        counts = Counter(tuple(sorted(draw(seed, range(6), 2))) for seed in range(6000))
        assert len(counts) == 15
        assert chisquare(list(counts.values())).pvalue > 0.001

    def test_every_item_is_equally_likely_at_every_place(self):
        counts = Counter(itertools.chain.from_iterable(enumerate(draw(s, range(5), 5)) for s in range(5000)))
        assert chisquare([counts[place, item] for place in range(5) for item in range(5)]).pvalue > 0.001

    def test_items_are_plain_numbers_and_none_comes_twice(self):
        drawn = draw(9, np.arange(50), 50)
        assert sorted(drawn) == list(range(50))
        assert all(type(item) is int for item in drawn)

    def test_an_empty_pool_gives_an_empty_sample(self):
        assert draw(1, [], 0) == []

    @pytest.mark.parametrize("ids", [[3, 2], [2, 2]])
    def test_a_pool_that_does_not_ascend_is_refused(self, ids):
        with pytest.raises(ValueError, match="ascending"):
            draw(1, ids, 1)

    @pytest.mark.parametrize(("seed", "n"), [(-1, 1), (2**128, 1), (1, 4), (1, -1)])
    def test_a_seed_or_size_outside_its_range_is_refused(self, seed, n):
        with pytest.raises(ValueError, match=r"128 bits|cannot draw"):
            draw(seed, [1, 2, 3], n)


class TestPoolHash:
    def test_it_is_the_hash_of_the_lines_that_the_docs_describe(self):
        lines = b'3\t850000000123\t"spam"\n7\t12\t"na\\u00efve\\t"\n'
        found = pool_hash([3, 7], [850000000123, 12], ["spam", "naïve\t"])
        assert found == hashlib.sha256(lines).hexdigest()

    def test_an_empty_pool_is_the_hash_of_nothing(self):
        assert pool_hash([], [], []) == hashlib.sha256(b"").hexdigest()

    def test_it_reads_streams_across_its_batches(self):
        n = 25_001
        whole = "".join(f'{i}\t{2 * i}\t"a"\n' for i in range(n)).encode()
        found = pool_hash(iter(range(n)), (2 * i for i in range(n)), itertools.repeat("a", n))
        assert found == hashlib.sha256(whole).hexdigest()

    def test_it_changes_with_any_id_rank_or_label(self):
        base = ([1, 2], [10, 20], ["a", "b"])
        others = [
            ([1, 3], [10, 20], ["a", "b"]),
            ([1, 2], [10, 21], ["a", "b"]),
            ([1, 2], [10, 20], ["b", "a"]),
            ([1], [10], ["a"]),
        ]
        assert len({pool_hash(*pool) for pool in [base, *others]}) == 5

    def test_a_label_cannot_pass_for_another_line(self):
        forged = pool_hash([1], [10], ['a"\n2\t20\t"b'])
        assert forged != pool_hash([1, 2], [10, 20], ["a", "b"])

    def test_a_pool_out_of_order_is_refused(self):
        with pytest.raises(ValueError, match="ascending"):
            pool_hash([2, 1], [1, 1], ["a", "a"])

    def test_columns_of_different_length_are_refused(self):
        with pytest.raises(ValueError):
            pool_hash([1, 2], [1], ["a", "a"])

    def test_a_million_items_take_less_than_three_seconds(self):
        n = 1_000_000
        ranks = [850_000 * 10**6 + i for i in range(n)]
        labels = ["ham", "spam"] * (n // 2)
        started = time.process_time()
        pool_hash(range(n), ranks, labels)
        assert time.process_time() - started < 3


class TestSpotCheckSize:
    def test_the_least_sample_that_passes_with_one_error_depends_on_alpha(self):
        """93 belongs to the whole alpha; the first attempt, at 0.8 of it, needs 99, the second 135."""
        sizes = [spot_check_size(10**6, alpha=alpha, most=0) for alpha in (0.05, 0.04, 0.008)]
        assert sizes == [93, 99, 135]
        assert [attempt_alpha(0.05, k) for k in (1, 2)] == pytest.approx([0.04, 0.008])

    @pytest.mark.parametrize("accepted", [40, 100, 500, 2000, 30_000])
    @pytest.mark.parametrize("alpha", [0.05, 0.04, 0.008])
    def test_it_is_the_least_by_brute_force(self, accepted, alpha):
        budget = accepted // 20
        n = spot_check_size(accepted, alpha=alpha, most=0)
        assert hypergeom.cdf(1, accepted, budget + 1, n) <= alpha
        assert hypergeom.cdf(1, accepted, budget + 1, n - 1) > alpha
        assert most_errors_allowed(accepted, budget, n, alpha) >= 1

    @pytest.mark.parametrize(
        ("accepted", "share", "expected"),
        [(5000, 0.04, 200), (5000, 0.03, 150), (5001, 0.04, 201), (10_000, 0.05, 500), (50_000, 0.04, 600)],
    )
    def test_beyond_that_it_is_a_share_of_the_accepted_up_to_six_hundred(self, accepted, share, expected):
        assert spot_check_size(accepted, share=share) == expected

    def test_a_share_is_counted_as_it_is_written(self):
        assert 0.035 * 6000 > 210  # a float would ask for 211
        assert spot_check_size(6000, share=0.035) == 210

    def test_a_small_pool_is_checked_whole(self):
        assert [spot_check_size(n) for n in (0, 1, 10, 19)] == [0, 1, 10, 19]

    @pytest.mark.parametrize(
        "terms",
        [{"share": 0.02}, {"share": 0.06}, {"alpha": 0.0}, {"most": -1}, {"target_error": 1.0}],
    )
    def test_terms_outside_their_range_are_refused(self, terms):
        with pytest.raises(ValueError):
            spot_check_size(1000, **terms)

    def test_less_than_nothing_cannot_be_checked(self):
        with pytest.raises(ValueError, match="no spot check"):
            spot_check_size(-1)
