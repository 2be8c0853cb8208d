"""Every figure of the dashboard against a recount from the raw rows."""

from __future__ import annotations

from collections import Counter

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from datasets.models import Dataset, Item, Label, LabelerVersion, Prediction, Run, RunVotes
from datasets.slices import write_tally
from labelhub.autolabel import buckets, certify
from labelhub.autolabel.rank import ACCEPT_NOTHING, to_rank
from reviews import decisions, metrics, queue, samples, thresholds
from reviews.models import Purpose, Sample
from tests.reviews.scenario import Recount, Story, count_statements

pytestmark = pytest.mark.django_db
RANKS = [to_rank(v) for v in (0, 0.3, 0.5, 0.7, 0.8, 0.85, 0.9, 0.95, 0.99)] + [ACCEPT_NOTHING]
ODD = to_rank(0.8531)


def answer_all(dataset: Dataset, sample: Sample, person: User, wrong: int = 0) -> None:
    """Answer a sample as the machine did, but for the first ``wrong`` items."""
    labels = list(Label.objects.filter(dataset=dataset))
    for n in range(sample.size):
        claim = queue.claim_drawn(dataset, person, "", sample)
        assert claim is not None
        said = sample.drawn.get(item=claim.item).machine_label
        other = next(label for label in labels if label != said)
        decisions.decide(claim.item, person, "label", other if n < wrong else said, seconds=5)
    assert samples.close_when_answered(sample)


def draw_calibration(dataset: Dataset, person: User, size: int = 20) -> Sample:
    """A sample of everything that is open, as the way to a goal draws it."""
    now = thresholds.in_force(dataset)
    assert now is not None

    def terms(pool: int) -> samples.Plan:
        attempt, alpha = samples.next_attempt(dataset)
        return samples.Plan(pool, min(size, pool), attempt, alpha, 3, 1, 0.1, 0.2)

    return samples.draw(now, Purpose.CALIBRATION, thresholds.accepted(now, 0), terms, person)


class BothSamples(Story):
    """A history whose samples are now spot checks, now calibrations."""

    def _draw(self) -> None:
        if self.dice.random() < 0.5:
            return super()._draw()
        try:
            draw_calibration(self.dataset, self.people[0])
        except (samples.NothingToDraw, thresholds.SampleIsOpen):
            pass


@pytest.mark.parametrize("seed", range(16))
def test_states_and_rows_equal_a_recount_of_any_history(seed: int) -> None:
    story = Story(seed) if seed % 2 else BothSamples(seed)
    for _ in range(3):
        story.act(25)
        recount = Recount(story)
        count = metrics.states(story.dataset)
        by_state = Counter(recount.state(item) for item in recount.items)
        assert {name: getattr(count, name) for name in by_state} == dict(by_state)
        assert count.items == len(recount.items)
        assert metrics.count_labeled(story.dataset, count) == sum(
            recount.has_label(item) for item in recount.items
        )
        assert count.drawn == sum(pk in recount.drawn and not recount.current(pk) for pk in recount.drawn)
        known = metrics.gather(story.dataset, recount.threshold, [ODD], by_label=True)
        plain = metrics.gather(story.dataset, recount.threshold, [ODD])
        rows = metrics.table(story.dataset, recount.threshold, [*RANKS, ODD], known, count.distinct)
        for row in rows:
            assert row.accepted == sum(recount.state(item, row.rank) == "accepted" for item in recount.items)
            assert row.items == sum(
                recount.state(i) not in ("given", "excluded", "copies") for i in recount.items
            )
            check_accuracy(row.accuracy, row.sample, recount, row.rank)
            check_bound(row, recount)
        assert rows == metrics.table(story.dataset, recount.threshold, [*RANKS, ODD], plain, count.distinct)
        for low, high in zip(RANKS, RANKS[1:], strict=False):
            found, drawn = known.accuracy(low, high)
            check_accuracy(found, drawn.sample if drawn else None, recount, low, high)
        for label in story.labels:
            if label.pk in recount.alive:
                found, drawn = known.accuracy(to_rank(0.8), label=label.pk)
                sample = drawn.sample if drawn else None
                check_accuracy(found, sample, recount, to_rank(0.8), ACCEPT_NOTHING, label.pk)


def check_bound(row: metrics.Row, recount: Recount) -> None:
    """The one-sided bound is the lower end of an interval at twice the alpha."""
    if row.accuracy is None or row.accuracy.census:
        assert row.at_least is None
        return
    found = recount.evidence(row.rank)
    assert found is not None
    again = buckets.accuracy(
        found["outside"], found["outside_wrong"], found["items"] - found["outside"], found["checked"],
        found["wrong"], 2 * recount.dataset.alpha, found["later"], found["later_wrong"],
    )  # fmt: skip
    assert again is not None and row.at_least == pytest.approx(again.low, abs=1e-12)
    assert row.accuracy.low <= row.at_least <= row.accuracy.value


def check_accuracy(
    found: buckets.Estimate | None,
    sample: Sample | None,
    recount: Recount,
    low: int,
    high: int = ACCEPT_NOTHING,
    label: int | None = None,
) -> None:
    expected = recount.evidence(low, high, label) if low < ACCEPT_NOTHING else None
    if expected is None:
        assert found is None
        return
    assert found is not None
    assert found.items == expected["items"]
    if expected["sample"] is None or expected["answered"] == expected["items"]:
        assert found.census and found.value == found.low == found.high
        assert found.value == pytest.approx(1 - expected["answered_wrong"] / expected["answered"])
        return
    assert sample is not None and sample.pk == expected["sample"]
    again = buckets.accuracy(
        expected["outside"], expected["outside_wrong"], expected["items"] - expected["outside"],
        expected["checked"], expected["wrong"], 0.05, expected["later"], expected["later_wrong"],
    )  # fmt: skip
    assert found == again


def test_the_pool_of_a_sample_is_found_again_from_the_facts(make_world) -> None:
    world = make_world([0.9, 0.95, 0.99, 0.5] * 30)
    decisions.decide(world.items[0], world.people["reviewer"], "label", world.labels[0])
    decisions.remark(world.items[1], world.people["reviewer"], "ask")
    sample = samples.draw_spot_check(world.dataset, world.threshold, world.people["manager"])
    answer_all(world.dataset, sample, world.people["second"])
    known = metrics.gather(world.dataset, world.threshold)
    drawn = known.drawn[0]
    low = sample.threshold
    items = known.items.between(low, ACCEPT_NOTHING)
    pool = items - drawn.outside.between(low, ACCEPT_NOTHING) - drawn.excused.between(low, ACCEPT_NOTHING)
    assert pool == sample.pool == 88


def test_accuracy_is_unknown_without_a_sample_and_never_a_hundred_percent(make_world) -> None:
    world = make_world([0.9] * 40 + [0.5] * 10)
    for item in world.items[40:]:
        decisions.decide(item, world.people["reviewer"], "label", world.labels[0])
    row = metrics.row(world.dataset, world.threshold, to_rank(0.85))
    assert row.accuracy is None and row.accepted == 40 and row.manual == 10


def test_an_answered_open_sample_changes_no_accuracy_until_it_closes(make_world) -> None:
    world = make_world([0.9] * 300)
    first = samples.draw_spot_check(world.dataset, world.threshold, world.people["manager"])
    answer_all(world.dataset, first, world.people["second"])
    before = metrics.report(world.dataset, world.threshold)
    second = samples.draw_spot_check(world.dataset, world.threshold, world.people["manager"])
    for _ in range(second.size - 1):
        claim = queue.claim_drawn(world.dataset, world.people["reviewer"], "", second)
        said = second.drawn.get(item=claim.item).machine_label
        decisions.decide(
            claim.item, world.people["reviewer"], "label", next(x for x in world.labels if x != said)
        )
    during = metrics.report(world.dataset, world.threshold)
    assert [row.accuracy for row in during.rows] == [row.accuracy for row in before.rows]
    assert [bucket.accuracy for bucket in during.buckets] == [bucket.accuracy for bucket in before.buckets]
    assert [line.confusion for line in during.labels] == [line.confusion for line in before.labels]
    mine = next(p for p in during.people if p.person == world.people["reviewer"])
    assert mine.answers == second.size - 1 and mine.blind == 0
    assert during.methods == before.methods


def test_can_t_tell_counts_as_wrong(make_world) -> None:
    world = make_world([0.9] * 20, target_error=0.3)
    sample = samples.draw_spot_check(world.dataset, world.threshold, world.people["manager"])
    for _ in range(sample.size):
        claim = queue.claim_drawn(world.dataset, world.people["second"], "", sample)
        decisions.decide(claim.item, world.people["second"], "cant_tell")
    samples.close_when_answered(sample)
    accuracy = metrics.row(world.dataset, world.threshold, to_rank(0.85)).accuracy
    assert accuracy is not None and accuracy.value == pytest.approx(0)


def test_a_threshold_set_after_the_check_is_marked_as_chosen_on_it(make_world) -> None:
    world = make_world([0.9, 0.95] * 100)
    sample = samples.draw_spot_check(world.dataset, world.threshold, world.people["manager"])
    answer_all(world.dataset, sample, world.people["second"], wrong=1)
    assert not metrics.row(world.dataset, world.threshold, world.threshold.rank).chosen_here
    raised = thresholds.move(world.dataset, to_rank(0.92), world.people["manager"])
    assert metrics.row(world.dataset, raised, raised.rank).chosen_here
    assert not metrics.row(world.dataset, raised, to_rank(0.95)).chosen_here
    back = thresholds.undo_move(world.dataset, world.people["manager"])
    assert back is not None and not metrics.row(world.dataset, back, back.rank).chosen_here


def test_a_spot_check_says_nothing_below_its_own_threshold(make_world) -> None:
    world = make_world([0.9] * 100 + [0.7] * 50)
    sample = samples.draw_spot_check(world.dataset, world.threshold, world.people["manager"])
    answer_all(world.dataset, sample, world.people["second"])
    assert metrics.row(world.dataset, world.threshold, to_rank(0.9)).accuracy is not None
    assert metrics.row(world.dataset, world.threshold, to_rank(0.7)).accuracy is None


def test_a_calibration_sample_speaks_for_every_threshold(make_world) -> None:
    world = make_world([0.99, 0.9, 0.7, 0.3] * 50)
    decisions.remark(world.items[0], world.people["reviewer"], "ask")  # not accepted, hence not in the pool
    decisions.decide(world.items[1], world.people["reviewer"], "label", world.labels[1])
    sample = draw_calibration(world.dataset, world.people["manager"], 80)
    assert sample.pool == 198
    answer_all(world.dataset, sample, world.people["second"], wrong=2)
    report = metrics.report(world.dataset, world.threshold, typed=0)
    assert all(row.sample == sample and row.at_least is not None for row in report.rows)
    everything = report.typed.accuracy
    assert everything is not None
    assert (everything.items, everything.n, everything.sampled) == (199, 81, 80)
    upper = certify.remaining_upper(198, 80, 2, 0.05)
    assert report.typed.at_least == pytest.approx(1 - (2 + upper) / 199)
    assert all(bucket.sampled for bucket in report.buckets)


def test_a_threshold_that_its_sample_proved_is_marked_and_not_called_chosen(make_world) -> None:
    world = make_world([0.99, 0.9, 0.7, 0.3] * 50)
    sample = draw_calibration(world.dataset, world.people["manager"], 30)
    answer_all(world.dataset, sample, world.people["second"])
    proven = thresholds.move(world.dataset, to_rank(0.7), None, sample=sample)
    row = metrics.row(world.dataset, proven, proven.rank)
    assert row.by_target and not row.chosen_here
    assert not metrics.row(world.dataset, proven, to_rank(0.9)).by_target
    by_hand = thresholds.move(world.dataset, to_rank(0.3), world.people["manager"])
    row = metrics.row(world.dataset, by_hand, by_hand.rank)
    assert row.chosen_here and not row.by_target


def test_how_large_a_fresh_check_would_have_to_be(make_world) -> None:
    world = make_world([0.9] * 400, target_error=0.05)
    assert metrics.report(world.dataset, world.threshold).fresh is None  # no errors to go by
    sample = samples.draw_spot_check(world.dataset, world.threshold, world.people["manager"])
    answer_all(world.dataset, sample, world.people["second"], wrong=2)
    fresh = metrics.report(world.dataset, world.threshold).fresh
    assert fresh is not None
    assert (fresh.checked, fresh.wrong, fresh.attempt) == (sample.size, 2, 2)
    assert fresh.alpha == certify.attempt_alpha(0.05, 2)
    left = 400 - sample.size
    budget = certify.tolerated(left, 0.05)

    def proves(n: int) -> bool:
        return -(-n * 2 // sample.size) <= certify.most_errors_allowed(left, budget, n, fresh.alpha)

    assert fresh.size is not None and proves(fresh.size)
    assert not any(proves(n) for n in range(1, fresh.size))
    strict = Dataset.objects.get(pk=world.dataset.pk)
    strict.target_error = 0.01
    nothing = metrics.report(strict, world.threshold).fresh
    assert nothing is not None and nothing.size is None


def test_work_counts_samples_and_needs_twenty_times(make_world) -> None:
    world = make_world([0.9] * 300 + [0.5] * 100, hourly_rate_usd=36)
    work = metrics.report(world.dataset, world.threshold).work
    assert work.answers == 100 and work.spot_check_planned and work.savings.seconds_per_decision is None
    assert work.savings.manual_share == pytest.approx(0.25)
    sample = samples.draw_spot_check(world.dataset, world.threshold, world.people["manager"])
    answer_all(world.dataset, sample, world.people["second"])
    work = metrics.report(world.dataset, world.threshold).work
    assert (work.answers, work.spot_check, work.spot_check_planned) == (100, sample.size, False)
    assert work.savings.seconds_per_decision == 5
    hours = (400 - 100 - sample.size) * 5 / 3600
    assert work.savings.hours_saved == pytest.approx(hours)
    assert work.savings.money_saved_usd == pytest.approx(36 * hours)
    assert metrics.report(world.dataset, world.threshold, hourly_rate=0).work.savings.money_saved_usd == 0


def test_methods_are_compared_on_the_queue_and_on_a_sample_apart(make_world) -> None:
    world = make_world([0.5] * 6 + [0.9] * 94)
    spam, ham = world.labels
    for item in world.items[:6]:
        RunVotes.objects.create(
            run=world.run, item=item, votes={"rules": [spam.pk, 1.0, ""], "weak_model": [None, 0, ""]}
        )
        decisions.decide(item, world.people["reviewer"], "label", spam if item.position < 5 else ham)
    lines = {line.method: line for line in metrics.report(world.dataset, world.threshold).methods}
    assert (lines["rules"].source, lines["rules"].voted, lines["rules"].right) == ("queue", 6, 4)
    assert lines["rules"].interval is None
    assert (lines["weak_model"].looked_at, lines["weak_model"].voted) == (6, 0)


def test_the_most_frequent_confusion_is_named(make_world) -> None:
    world = make_world([0.5] * 12, labels=("a", "b", "c"))
    a, b, c = world.labels
    said_a = [item for item in world.items if world.prediction(item).label == a]
    for item, label in zip(said_a, (b, c, c, a), strict=True):
        decisions.decide(item, world.people["reviewer"], "label", label)
    line = next(line for line in metrics.report(world.dataset, world.threshold).labels if line.label == a)
    assert (line.confusion, line.answered, line.wrong) == (("c", 2), 4, 3)


def test_statements_do_not_grow_with_items_or_datasets(make_world) -> None:
    small, large = make_world([0.9, 0.5] * 5, name="small"), make_world([0.9, 0.5] * 100, name="large")
    for world in (small, large):
        write_tally(world.run)
        for item in world.items[: len(world.items) // 2 : 2]:
            decisions.decide(item, world.people["reviewer"], "label", world.labels[0])
    both = [small.dataset, large.dataset]
    assert count_statements(lambda: metrics.states_of(both[:1])) == count_statements(
        lambda: metrics.states_of(both)
    )
    assert count_statements(lambda: metrics.states_of(both)) <= 7
    counts = [
        count_statements(lambda: metrics.report(world.dataset, world.threshold))
        for world in (small, large)  # noqa: B023
    ]
    assert counts[0] == counts[1] <= 40
    tables = [
        count_statements(lambda: metrics.gather(world.dataset, world.threshold)) for world in (small, large)
    ]  # noqa: B023
    assert tables[0] == tables[1] <= 7


def test_a_dataset_without_a_run_is_all_pending(make_world) -> None:
    dataset = Dataset.objects.create(name="new", ready_at=timezone.now())
    Item.objects.create(dataset=dataset, position=1, text="a", row="{}", text_hash=1)
    assert metrics.states(dataset).pending == 1
    assert metrics.states_of([]) == {}


def test_predictions_of_a_running_run_are_counted_without_its_tally(make_world) -> None:
    world = make_world([0.9] * 3)
    Item.objects.create(dataset=world.dataset, position=9, text="b", row="{}", text_hash=2)
    count = metrics.states(world.dataset)
    assert (count.accepted, count.flagged, count.pending) == (3, 0, 1)
    Run.objects.filter(pk=world.run.pk).update(finished_at=None)
    version = LabelerVersion.objects.create(dataset=world.dataset, method="rules")
    assert version.pk and metrics.states(world.dataset) == count
    write_tally(world.run)
    assert metrics.states(world.dataset) == count


def test_checks_needed_are_computed() -> None:
    assert metrics.checks_needed(0.05, 0.05) == 59
    assert metrics.checks_needed(0.01, 0.05) == 299
    assert Prediction.objects.count() == 0
