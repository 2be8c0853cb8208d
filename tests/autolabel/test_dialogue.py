"""What is asked next: whatever comes back, every text gets one outcome, and none is paid for twice."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labelhub.autolabel.labelers.dialogue import MOST_TRIES, PER_CALL, Chunk, Dialogue
from labelhub.autolabel.labelers.llm import CallFailed
from labelhub.autolabel.labelers.reply import Reading, Said

YES = Said("yes", 0.9)
PASSING = ("busy", "overloaded", "server", "timeout", "connection")


def reading(said=(), problems=(), whole=None):
    return Reading(said=dict(said), problems=dict(problems), missing=(), whole=whole, unknown=0, repeated=0)


def all_said(chunk):
    return reading(said=dict.fromkeys(range(1, len(chunk.places) + 1), YES))


def failure(kind, retry_after=None):
    return CallFailed(kind, "It failed.", retry_after=retry_after)


def sent(dialogue, now=0.0):
    """Everything that may be sent at this moment."""
    return list(iter(lambda: dialogue.next(now), None))


def talk(dialogue, answer):
    """Answer every chunk at once until nothing is asked any more; return what was asked."""
    asked = []
    now = 0.0
    while not dialogue.finished:
        chunk = dialogue.next(now)
        if chunk is None:
            now = dialogue.ready_at()
            continue
        asked.append(chunk)
        said = answer(chunk, len(asked))
        if isinstance(said, CallFailed):
            dialogue.failed(chunk, said, now, 0.5)
        else:
            dialogue.heard(chunk, said)
    return asked


class TestChunks:
    def test_texts_go_in_order_and_at_most_so_many_to_a_call(self):
        chunks = sent(Dialogue([10] * 45))
        assert [place for chunk in chunks for place in chunk.places] == list(range(45))
        assert [len(chunk.places) for chunk in chunks] == [PER_CALL, PER_CALL, 5]

    def test_a_call_holds_at_most_so_many_characters(self):
        chunks = sent(Dialogue([400, 400, 300, 900, 1500, 1], most_characters=1000))
        assert [chunk.places for chunk in chunks] == [(0, 1), (2,), (3,), (4,), (5,)]

    def test_no_texts_are_finished_at_once(self):
        dialogue = Dialogue([])
        assert dialogue.finished and dialogue.next(0.0) is None and dialogue.ready_at() is None

    def test_a_call_without_texts_is_refused(self):
        with pytest.raises(ValueError, match="at least one text"):
            Dialogue([1], per_call=0)

    def test_it_counts_what_was_sent_and_not_answered(self):
        dialogue = Dialogue([1] * 30)
        first, second = sent(dialogue)
        assert dialogue.waiting == 2
        assert dialogue.heard(second, all_said(second)) == list(range(20, 30))
        assert dialogue.waiting == 1 and not dialogue.finished
        dialogue.heard(first, all_said(first))
        assert dialogue.waiting == 0 and dialogue.finished

    def test_an_answer_that_nobody_waits_for_is_refused(self):
        dialogue = Dialogue([1])
        with pytest.raises(ValueError, match="no answer was awaited"):
            dialogue.heard(Chunk((0,)), all_said(Chunk((0,))))
        (chunk,) = sent(dialogue)
        dialogue.heard(chunk, all_said(chunk))
        with pytest.raises(ValueError, match="no answer was awaited"):
            dialogue.heard(chunk, all_said(chunk))
        with pytest.raises(ValueError, match="no answer was awaited"):
            dialogue.failed(chunk, failure("server"), 0.0, 0.0)


class TestLeftOut:
    def test_a_text_left_out_is_asked_again_with_others_then_alone_then_given_up(self):
        def answer(chunk, _):
            return reading(said={i: YES for i, place in enumerate(chunk.places, 1) if place not in (3, 7)})

        dialogue = Dialogue([1] * 10)
        asked = [chunk.places for chunk in talk(dialogue, answer)]
        assert asked == [tuple(range(10)), (3, 7), (3, 7), (3,), (7,)]
        assert dialogue.outcomes == {i: "no_answer" if i in (3, 7) else YES for i in range(10)}

    def test_ids_that_a_reading_says_nothing_about_count_as_left_out(self):
        dialogue = Dialogue([1, 1])
        (chunk,) = sent(dialogue)
        assert dialogue.heard(chunk, reading(said={2: YES, 3: YES, 0: YES})) == [1]
        assert dialogue.next(0.0).places == (0,)

    def test_a_label_outside_the_schema_is_final(self):
        dialogue = Dialogue([1, 1])
        (chunk,) = sent(dialogue)
        assert dialogue.heard(chunk, reading({1: YES}, {2: "label_not_in_schema"})) == [0, 1]
        assert dialogue.outcomes == {0: YES, 1: "label_not_in_schema"}


class TestUnusable:
    @pytest.mark.parametrize("problem", ["refused", "too_long", "malformed", "truncated"])
    def test_halving_finds_the_one_text_to_blame(self, problem):
        def answer(chunk, _):
            return reading(whole=problem) if 5 in chunk.places else all_said(chunk)

        dialogue = Dialogue([1] * 8)
        asked = talk(dialogue, answer)
        assert dialogue.outcomes == {i: problem if i == 5 else YES for i in range(8)}
        again = 1 if problem in ("malformed", "truncated") else 0
        assert [chunk.places for chunk in asked if 5 in chunk.places] == [
            tuple(range(8)),
            (4, 5, 6, 7),
            (4, 5),
            *[(5,)] * (1 + again),
        ]

    def test_an_answer_that_was_cut_off_gets_more_room_once(self):
        def answer(chunk, _):
            return all_said(chunk) if chunk.roomier else reading(whole="truncated")

        dialogue = Dialogue([1])
        assert [chunk.roomier for chunk in talk(dialogue, answer)] == [False, True]
        assert dialogue.outcomes == {0: YES}


class TestFailures:
    @pytest.mark.parametrize("kind", PASSING)
    def test_what_passes_is_tried_so_many_times_with_growing_delays(self, kind):
        dialogue = Dialogue([1, 1])
        now, delays = 0.0, []
        for _ in range(MOST_TRIES - 1):
            chunk = dialogue.next(now)
            assert dialogue.failed(chunk, failure(kind), now, 0.5) == []
            assert dialogue.next(now) is None
            delays.append(dialogue.ready_at() - now)
            assert dialogue.next(dialogue.ready_at() - 0.001) is None
            now = dialogue.ready_at()
        assert delays == [0.5, 1.0, 2.0, 4.0]
        assert dialogue.failed(dialogue.next(now), failure(kind), now, 0.5) == [0, 1]
        assert dialogue.outcomes == {0: "llm_error", 1: "llm_error"}

    def test_jitter_spreads_the_delay_between_half_and_one_and_a_half(self):
        for jitter, delay in [(0.0, 0.25), (0.5, 0.5), (0.99, 0.745)]:
            dialogue = Dialogue([1])
            dialogue.failed(dialogue.next(10.0), failure("server"), 10.0, jitter)
            assert dialogue.ready_at() == pytest.approx(10.0 + delay)

    def test_a_longer_time_that_the_other_side_names_is_kept(self):
        for told, delay in [(12.0, 12.0), (0.1, 0.5), (0.0, 0.5), (math.inf, 3600.0)]:
            dialogue = Dialogue([1])
            dialogue.failed(dialogue.next(0.0), failure("overloaded", told), 0.0, 0.5)
            assert dialogue.ready_at() == pytest.approx(delay)

    def test_a_rate_limit_that_names_a_time_holds_everything_back(self):
        dialogue = Dialogue([1] * 40)
        chunk = dialogue.next(0.0)
        dialogue.failed(chunk, failure("busy", 12.0), 0.0, 0.5)
        assert dialogue.next(11.9) is None and dialogue.ready_at() == 12.0
        assert len(sent(dialogue, 12.0)) == 2

    def test_other_failures_hold_nobody_else_back(self):
        dialogue = Dialogue([1] * 40)
        chunk = dialogue.next(0.0)
        dialogue.failed(chunk, failure("overloaded", 12.0), 0.0, 0.5)
        assert dialogue.next(0.0).places == tuple(range(20, 40))

    def test_a_rejected_call_is_repeated_text_by_text(self):
        def answer(chunk, _):
            return failure("rejected") if 1 in chunk.places else all_said(chunk)

        dialogue = Dialogue([1] * 3)
        assert [chunk.places for chunk in talk(dialogue, answer)] == [(0, 1, 2), (0,), (1,), (2,)]
        assert dialogue.outcomes == {0: YES, 1: "llm_rejected", 2: YES}

    @pytest.mark.parametrize("kind", ["key", "forbidden", "credit", "spend_limit", "model"])
    def test_a_fatal_failure_is_not_for_it_to_settle(self, kind):
        dialogue = Dialogue([1])
        with pytest.raises(ValueError, match="nothing can be asked"):
            dialogue.failed(dialogue.next(0.0), failure(kind), 0.0, 0.0)
        assert dialogue.waiting == 1


def events(count):
    """Anything that can come back for a call with so many texts."""
    ids = st.integers(-1, count + 1)
    said = st.dictionaries(ids, st.builds(Said, st.just("yes"), st.floats(0, 1)), max_size=count + 2)
    problems = st.dictionaries(ids, st.just("label_not_in_schema"), max_size=2)
    whole = st.sampled_from(["refused", "truncated", "too_long", "malformed"])
    seconds = st.none() | st.floats(0, 100)
    return (
        st.builds(reading, said, problems)
        | st.builds(reading, whole=whole)
        | st.builds(failure, st.sampled_from([*PASSING, "rejected"]), seconds)
    )


def most_calls(count, per_call):
    """No path of one text is longer: halvings, three repeats, two more where it is alone; each tried five times."""
    readings = math.ceil(math.log2(per_call)) + 1 + 3 + 2 + 1
    return count * readings * MOST_TRIES


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_whatever_comes_back_in_whatever_order_every_text_gets_one_outcome(data):
    sizes = data.draw(st.lists(st.integers(0, 300), max_size=12))
    per_call = data.draw(st.integers(1, 6))
    dialogue = Dialogue(sizes, per_call=per_call, most_characters=400)
    threads = data.draw(st.integers(1, 4))
    now, calls, known = 0.0, 0, {}
    waiting, not_before = [], {}
    while not dialogue.finished:
        chunk = dialogue.next(now) if len(waiting) < threads else None
        if chunk is not None:
            calls += 1
            assert calls <= most_calls(len(sizes), per_call)
            assert 1 <= len(chunk.places) <= per_call and len(set(chunk.places)) == len(chunk.places)
            assert len(chunk.places) == 1 or sum(sizes[i] for i in chunk.places) <= 400
            assert not set(chunk.places) & known.keys()
            assert all(not_before.get(i, 0.0) <= now for i in chunk.places)
            assert not {i for other in waiting for i in other.places} & set(chunk.places)
            waiting.append(chunk)
            continue
        if not waiting:  # the driver sleeps until something may go
            assert dialogue.ready_at() > now
            now = dialogue.ready_at()
            continue
        assert dialogue.waiting == len(waiting)
        chunk = waiting.pop(data.draw(st.integers(0, len(waiting) - 1)))
        came = data.draw(events(len(chunk.places)))
        if isinstance(came, CallFailed):
            settled = dialogue.failed(chunk, came, now, data.draw(st.floats(0, 0.99)))
            if came.transient:
                wait = max(0.25 * 2**chunk.tries, came.retry_after or 0.0)
                not_before |= dict.fromkeys(chunk.places, now + wait)
        else:
            settled = dialogue.heard(chunk, came)
        assert set(settled) <= set(chunk.places) and not set(settled) & known.keys()
        known |= {i: dialogue.outcomes[i] for i in settled}
        assert dialogue.outcomes == known
    assert sorted(known) == list(range(len(sizes)))
    assert dialogue.next(math.inf) is None and dialogue.waiting == 0
    assert all(isinstance(outcome, str | Said) for outcome in known.values())
