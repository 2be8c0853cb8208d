"""Ranks: one comparison decides what is accepted, and it decides consistently."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelhub.autolabel.rank import ACCEPT_NOTHING, MILLION, confidence_of, draw_ties, to_rank, to_ranks

CONFIDENCE = st.floats(0, 1)
TIE = st.integers(0, MILLION - 1)


def test_a_typed_085_is_the_rank_that_every_stated_085_reaches():
    assert to_rank(0.85) == 850_000 * MILLION
    assert all(to_rank(0.85, tie) >= to_rank(0.85) for tie in (0, 1, MILLION - 1))
    assert to_rank(0.849999, MILLION - 1) < to_rank(0.85)


@given(CONFIDENCE, TIE)
def test_a_threshold_accepts_its_own_confidence_whatever_the_tie(confidence, tie):
    assert to_rank(confidence, tie) >= to_rank(confidence)


@given(CONFIDENCE, CONFIDENCE, TIE, TIE)
def test_a_surer_item_never_ranks_lower_by_a_millionth_or_more(low, high, tie, other):
    low, high = sorted((low, high))
    assert to_rank(low) <= to_rank(high)
    if high - low > 2e-6:
        assert to_rank(low, tie) < to_rank(high, other)


@given(st.lists(st.tuples(CONFIDENCE, TIE), max_size=30), CONFIDENCE, CONFIDENCE)
def test_what_a_higher_threshold_accepts_a_lower_one_accepts_too(items, one, other):
    low, high = sorted((to_rank(one), to_rank(other)))
    ranks = [to_rank(*item) for item in items]
    assert {r for r in ranks if r >= high} <= {r for r in ranks if r >= low}


@given(CONFIDENCE, TIE)
def test_no_rank_reaches_accept_nothing(confidence, tie):
    assert 0 <= to_rank(confidence, tie) < ACCEPT_NOTHING


@given(st.integers(0, MILLION), TIE)
def test_the_confidence_in_a_rank_gives_that_rank_back(millionths, tie):
    rank = millionths * MILLION + tie
    assert to_rank(confidence_of(rank), tie) == rank


@given(st.lists(CONFIDENCE, max_size=30))
def test_many_at_once_rank_as_one_by_one(confidences):
    ties = draw_ties(3, len(confidences))
    expected = [to_rank(c, int(t)) for c, t in zip(confidences, ties, strict=True)]
    assert to_ranks(confidences, ties).tolist() == expected


@pytest.mark.parametrize(
    ("confidence", "tie"), [(-0.1, 0), (1.1, 0), (float("nan"), 0), (0.5, -1), (0.5, MILLION)]
)
def test_it_refuses_what_has_no_rank(confidence, tie):
    with pytest.raises(ValueError, match="no rank"):
        to_rank(confidence, tie)


def test_ties_follow_the_seed_and_are_spread_evenly():
    ties = draw_ties(7, 100_000)
    assert (draw_ties(7, 100_000) == ties).all() and (draw_ties(8, 100_000) != ties).any()
    assert ties.min() >= 0 and ties.max() < MILLION
    assert np.histogram(ties, bins=10, range=(0, MILLION))[0] == pytest.approx([10_000] * 10, rel=0.06)
    assert len(draw_ties(2**127, 3)) == 3, "a 128-bit seed is fine"
