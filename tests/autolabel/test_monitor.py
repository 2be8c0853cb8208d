"""Evidence that may be read after every answer: published figures, brute force, exact chances of error."""

import math

import numpy as np
import pytest
from scipy.special import betainc, betaln
from scipy.stats import betabinom, hypergeom

from labelhub.autolabel.certify import most_errors_allowed
from labelhub.autolabel.monitor import log_evidence_alarm, log_evidence_certified, read


def by_definition(pool, checked, errors, budget, prior_mean, numerator, denominator):
    """ln of (prior-weighted likelihood of the counts in ``numerator``) / (likelihood of ``denominator``)."""
    a, b = 0.5, 0.5 * (1 - prior_mean) / prior_mean
    counts = np.array(numerator)
    weights = betabinom.pmf(counts, pool, a, b)
    likelihood = hypergeom.pmf(errors, pool, counts, checked)
    mixed = (weights * likelihood).sum() / weights.sum()
    return math.log(mixed / hypergeom.pmf(errors, pool, denominator, checked))


def without_a_pool(checked, errors, target, prior_mean, alarm):
    """The same evidence for an endless stream, in closed form."""
    a, b = 0.5, 0.5 * (1 - prior_mean) / prior_mean
    prior, posterior = betainc(a, b, target), betainc(a + errors, b + checked - errors, target)
    if alarm:
        prior, posterior = 1 - prior, 1 - posterior
    mixed = betaln(a + errors, b + checked - errors) - betaln(a, b) + math.log(posterior / prior)
    return mixed - errors * math.log(target) - (checked - errors) * math.log(1 - target)


def chance_of_ever_reaching(log_evidence, pool, wrong, budget, alpha):
    """Add up the chance of crossing over every state of a pool that is answered to the end."""
    enough = math.log(1 / alpha)
    alive, crossed = {0: 1.0}, 0.0
    for checked in range(pool):
        following: dict[int, float] = {}
        for errors, chance in alive.items():
            hit = (wrong - errors) / (pool - checked)
            for found, part in ((errors + 1, hit), (errors, 1 - hit)):
                if part <= 0:
                    continue
                if log_evidence(pool, checked + 1, found, budget) >= enough:
                    crossed += chance * part
                else:
                    following[found] = following.get(found, 0.0) + chance * part
        alive = following
    return crossed


@pytest.mark.parametrize(
    ("pool", "budget", "checked", "errors", "expected"),
    [
        (8898, 444, 59, 0, 2.570),
        (8898, 444, 69, 0, 3.034),
        (8898, 444, 128, 1, 3.044),
        (8898, 444, 212, 3, 3.000),
        (8898, 444, 445, 6, 7.669),
        (300, 15, 50, 0, 2.586),
        (75, 3, 30, 0, 1.854),
    ],
)
def test_the_published_evidence_is_reproduced(pool, budget, checked, errors, expected):
    assert log_evidence_certified(pool, checked, errors, budget) == pytest.approx(expected, abs=6e-4)


def test_in_an_endless_pool_it_meets_the_published_figures_for_a_stream():
    pool = 20_000_000
    assert without_a_pool(69, 0, 0.05, 0.05 / 3, alarm=False) == pytest.approx(3.019, abs=5e-4)
    assert without_a_pool(100, 12, 0.05, 0.15, alarm=True) == pytest.approx(2.478, abs=5e-4)
    assert log_evidence_certified(pool, 69, 0, pool // 20) == pytest.approx(3.019, abs=2e-3)
    assert log_evidence_alarm(pool, 100, 12, pool // 20) == pytest.approx(2.478, abs=2e-3)


def test_both_kinds_agree_with_their_definition_in_every_state_of_small_pools():
    for pool, budget, target in [(9, 0, 0.05), (15, 2, 0.05), (40, 4, 0.1), (40, 12, 0.3), (12, 11, 0.6)]:
        for checked in range(pool + 1):
            for errors in range(min(checked, budget) + 1):
                if budget + 1 - errors <= pool - checked:
                    found = log_evidence_certified(pool, checked, errors, budget, target)
                    defined = by_definition(
                        pool, checked, errors, budget, target / 3, range(budget + 1), budget + 1
                    )
                    assert found == pytest.approx(defined, abs=1e-8)
                if budget - errors < pool - checked:
                    mean = min(3 * target, (1 + target) / 2)
                    found = log_evidence_alarm(pool, checked, errors, budget, target)
                    defined = by_definition(
                        pool, checked, errors, budget, mean, range(budget + 1, pool + 1), budget
                    )
                    assert found == pytest.approx(defined, abs=1e-8)


def test_both_kinds_agree_with_their_definition_in_a_large_pool():
    for checked, errors in [(50, 0), (600, 20), (600, 60), (5000, 251)]:
        found = log_evidence_certified(200_000, checked, errors, 10_000)
        defined = by_definition(200_000, checked, errors, 10_000, 0.05 / 3, range(10_001), 10_001)
        assert found == pytest.approx(defined, abs=1e-6)
        found = log_evidence_alarm(200_000, checked, errors, 10_000)
        defined = by_definition(200_000, checked, errors, 10_000, 0.15, range(10_001, 200_001), 10_000)
        assert found == pytest.approx(defined, abs=1e-6)


@pytest.mark.parametrize(("pool", "budget"), [(60, 3), (150, 7), (300, 15)])
@pytest.mark.parametrize("alpha", [0.05, 0.2])
def test_reading_after_every_answer_proves_falsely_at_most_as_often_as_alpha(pool, budget, alpha):
    for wrong in (budget + 1, budget + 3, 3 * budget, pool // 2):
        assert chance_of_ever_reaching(log_evidence_certified, pool, wrong, budget, alpha) <= alpha


@pytest.mark.parametrize(("pool", "budget"), [(60, 3), (150, 7), (300, 15), (60, 0)])
@pytest.mark.parametrize("alpha", [0.05, 0.2])
def test_reading_after_every_answer_alarms_falsely_at_most_as_often_as_alpha(pool, budget, alpha):
    for wrong in {budget, max(0, budget - 2), budget // 2, 0}:
        assert chance_of_ever_reaching(log_evidence_alarm, pool, wrong, budget, alpha) <= alpha


def test_an_exact_test_read_after_every_answer_would_prove_too_often():
    """Why this module exists: the same pool, the test for one look, looked at again and again."""

    def exact_test(pool, checked, errors, budget):
        return math.inf if errors <= most_errors_allowed(pool, budget, checked, 0.05) else -math.inf

    assert chance_of_ever_reaching(exact_test, 150, 8, 7, 0.05) > 0.10


def test_a_good_pool_is_proven_and_a_bad_one_alarmed_most_of_the_time():
    assert chance_of_ever_reaching(log_evidence_certified, 300, 3, 15, 0.05) > 0.99
    assert chance_of_ever_reaching(log_evidence_alarm, 300, 60, 15, 0.05) > 0.99


def test_the_verdict_follows_the_evidence():
    assert read(8898, 0, 0, 444, 0.05).verdict == "open"
    assert read(8898, 69, 0, 444, 0.05).verdict == "proven"
    assert read(8898, 59, 0, 444, 0.05).verdict == "open"
    assert read(8898, 60, 20, 444, 0.05).verdict == "failing"
    assert read(8898, 69, 0, 444, 0.008).verdict == "open"


def test_before_the_first_answer_there_is_no_evidence():
    reading = read(1000, 0, 0, 50, 0.05)
    assert reading.log_certified == pytest.approx(0, abs=1e-9)
    assert reading.log_alarm == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("state", [(8898, 59, 0, 444), (8898, 0, 0, 444), (300, 50, 2, 15), (75, 30, 3, 3)])
def test_it_says_how_many_right_answers_would_prove_it(state):
    pool, checked, errors, budget = state
    more = read(pool, checked, errors, budget, 0.04).more
    assert more is not None
    assert read(pool, checked + more, errors, budget, 0.04).verdict == "proven"
    assert read(pool, checked + more - 1, errors, budget, 0.04).verdict == "open"


def test_more_errors_than_tolerated_are_a_failure_that_no_answer_mends():
    reading = read(300, 20, 16, 15, 0.05)
    assert (reading.verdict, reading.more) == ("failing", None)
    assert (reading.log_certified, reading.log_alarm) == (-math.inf, math.inf)


def test_a_rest_that_fits_into_the_budget_completes_the_proof():
    reading = read(300, 290, 5, 15, 1e-9)
    assert (reading.verdict, reading.more) == ("proven", 0)
    assert (reading.log_certified, reading.log_alarm) == (math.inf, -math.inf)


def test_a_million_labels_are_read_while_a_page_is_built():
    reading = read(1_000_000, 600, 20, 50_000, 0.04)
    assert reading.verdict == "open"
    assert reading.more is not None and reading.more > 100


@pytest.mark.parametrize(
    "state", [(10, 11, 0, 1, 0.05), (10, 5, 6, 1, 0.05), (10, 5, 0, 10, 0.05), (10, 5, 0, 1, 0.0)]
)
def test_impossible_counts_are_refused(state):
    with pytest.raises(ValueError, match="no evidence"):
        log_evidence_certified(*state)
    with pytest.raises(ValueError, match="no evidence"):
        log_evidence_alarm(*state)


def test_an_impossible_alpha_is_refused():
    with pytest.raises(ValueError, match="alpha"):
        read(10, 5, 0, 1, 0.0)
