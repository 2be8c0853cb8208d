"""What a language model answered: read by id, never beyond the labels, and never with an exception."""

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from labelhub.autolabel.labelers.reply import LONGEST_QUOTE, Reading, Said, read

LABELS = ["Billing", "Lost card", "other"]


def entry(id, label="Billing", confidence=0.9, **more):
    return {"id": id, "label": label, "confidence": confidence, **more}


def told(*entries, count=2, labels=LABELS):
    return read("end_turn", json.dumps({"labels": list(entries)}), count, labels)


def partition(reading, count):
    """Assert that every id is in exactly one place; return nothing."""
    places = [set(reading.said), set(reading.problems), set(reading.missing)]
    assert sum(map(len, places)) == len(set().union(*places))
    assert set().union(*places) == (set() if reading.whole else set(range(1, count + 1)))
    assert len(reading.missing) == len(set(reading.missing))


scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 5), st.floats(), st.text(max_size=5), st.sampled_from(LABELS)
)
entries = st.one_of(
    scalars,
    st.fixed_dictionaries(
        {},
        optional={
            "id": st.one_of(scalars, st.integers(1, 4)),
            "label": st.one_of(scalars, st.sampled_from([*LABELS, "billing.", "BILLING"])),
            "confidence": st.one_of(scalars, st.floats(0, 1)),
            "quote": scalars,
        },
    ),
)
stops = st.sampled_from(["end_turn", "stop_sequence", "refusal", "max_tokens", "tool_use", "", None])


@settings(deadline=None)
@given(st.lists(entries, max_size=8), st.integers(0, 4), stops)
def test_every_id_has_one_outcome_whatever_the_entries_are(found, count, stop):
    reading = read(stop, json.dumps({"labels": found}), count, LABELS)
    partition(reading, count)
    for said in reading.said.values():
        assert said.label in LABELS
        assert 0 <= said.confidence <= 1
    assert reading.unknown + reading.repeated <= len(found)


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=())), stops)
@example("[" * 100_000, "end_turn")
@example('{"labels":' * 5_000, "end_turn")
@example('{"labels": [{"id": ' + "9" * 5_000 + "}]}", "end_turn")
@example('{"labels": [{"id": 1, "label": "other", "confidence": 1e999}]}', "end_turn")
def test_no_text_makes_it_raise(text, stop):
    partition(read(stop, text, 3, LABELS), 3)


@pytest.mark.parametrize("thing", [None, 7, b"{}", ["x"]], ids=["none", "number", "bytes", "list"])
def test_what_is_no_text_is_malformed(thing):
    assert read("end_turn", thing, 2, LABELS) == Reading(whole="malformed")


@pytest.mark.parametrize(
    ("stop", "whole"),
    [
        ("refusal", "refused"),
        ("max_tokens", "truncated"),
        ("model_context_window_exceeded", "too_long"),
        ("pause_turn", "malformed"),
        ("tool_use", "malformed"),
        (None, "malformed"),
    ],
)
def test_an_answer_that_did_not_end_is_not_read_even_if_it_could_be(stop, whole):
    assert read(stop, json.dumps({"labels": [entry(1)]}), 1, LABELS) == Reading(whole=whole)


def test_answers_are_matched_by_id_and_not_by_place():
    reading = told(entry(2, "other", 1), entry(1, "Lost card", 0))
    assert reading.said == {1: Said("Lost card", 0.0), 2: Said("other", 1.0)}
    assert reading.missing == ()


def test_what_is_not_answered_is_missing_and_what_was_not_asked_is_counted():
    reading = told(entry(2), entry(3), entry(0), entry("1"), entry(True), entry(1.0), "x", {}, count=2)
    assert reading.said.keys() == {2}
    assert reading.missing == (1,)
    assert reading.unknown == 7


def test_repeats_that_agree_count_once_with_the_lower_confidence():
    reading = told(entry(1, confidence=0.9, quote="a"), entry(1, confidence=0.6, quote="b"), entry(2))
    assert reading.said[1] == Said("Billing", 0.6, "b")
    assert reading.repeated == 1


@pytest.mark.parametrize(
    "other",
    [entry(1, "other"), entry(1, "nonsense"), entry(1, confidence=7), entry(1, confidence="0.9")],
    ids=["label", "unknown label", "confidence", "confidence as text"],
)
def test_repeats_that_contradict_each_other_are_asked_again(other):
    for pair in ([entry(1), other], [other, entry(1)]):
        reading = told(*pair, entry(2))
        assert reading.missing == (1,)
        assert reading.said.keys() == {2}


def test_a_contradiction_is_not_settled_by_a_third_entry():
    assert told(entry(1), entry(1, "other"), entry(1), count=1).missing == (1,)


@pytest.mark.parametrize("written", ["billing", " BILLING. ", "Billing", "lost CARD.", "other"])
def test_case_spaces_and_a_full_stop_do_not_matter(written):
    assert told(entry(1, written), count=1).said[1].label.casefold() == written.strip().strip(".").casefold()


def test_the_unicode_form_does_not_matter():
    assert told(entry(1, "re\u0301clame"), count=1, labels=["R\u00e9clame"]).said[1].label == "R\u00e9clame"
    assert told(entry(1, "STRASSE"), count=1, labels=["Straße"]).said[1].label == "Straße"


@pytest.mark.parametrize("written", ["bill", "Rechnung", "billing, I think", "", "Billing.."])
def test_a_label_that_is_not_in_the_schema_is_final(written):
    reading = told(entry(1, written), count=1)
    assert reading.problems == {1: "label_not_in_schema"}
    assert reading.missing == ()


def test_between_labels_that_are_written_alike_only_the_exact_one_counts():
    labels = ["Spam", "spam", "ham"]
    assert told(entry(1, "spam"), count=1, labels=labels).said[1].label == "spam"
    assert told(entry(1, "SPAM"), count=1, labels=labels).problems == {1: "label_not_in_schema"}


@pytest.mark.parametrize("confidence", [1.7, -0.1, "0.9", "95%", None, True, [0.5]])
def test_a_confidence_that_is_no_share_is_asked_again(confidence):
    reading = told(entry(1, confidence=confidence), entry(2))
    assert reading.missing == (1,)
    assert reading.said.keys() == {2}


@pytest.mark.parametrize(
    "text",
    [
        '{"labels": [{"id": 1, "label": "other", "confidence": NaN}]}',
        '{"labels": [{"id": 1, "label": "other", "confidence": 0.1, "label": "Billing"}]}',
        '{"labels": [], "labels": [{"id": 1, "label": "other", "confidence": 1}]}',
        '{"labels": {"1": "other"}}',
        '[{"id": 1, "label": "other", "confidence": 1}]',
        '{"labels": [{"id": 1, "label": "other", "conf',
        '{"labels": []} {"labels": []}',
        "other",
        "",
    ],
    ids=["nan", "key twice", "list twice", "no list", "bare list", "half", "two objects", "prose", "empty"],
)
def test_what_is_no_strict_json_object_is_malformed(text):
    assert read("end_turn", text, 1, LABELS).whole == "malformed"


@pytest.mark.parametrize(
    "around",
    ["```json\n%s\n```", "Here you are:\n%s\nAnything else?", "\ufeff%s", "%s."],
    ids=["fence", "prose", "mark", "dot"],
)
def test_a_fence_or_prose_around_a_single_object_is_taken_off(around):
    text = around % json.dumps({"labels": [entry(1)]})
    assert read("end_turn", text, 1, LABELS).said == {1: Said("Billing", 0.9)}


def test_a_quote_is_text_without_control_characters_and_not_long():
    reading = told(entry(1, quote="  \x1b[31m<b>paid\x00 twice</b>\ud800 "), entry(2, quote="x" * 9_999))
    assert reading.said[1].quote == "[31m<b>paid twice</b>\ufffd"
    assert len(reading.said[2].quote) == LONGEST_QUOTE
    assert told(entry(1, quote=["x"]), count=1).said[1].quote == ""
