"""Rules: what is one, what it matches, what a match is worth."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelhub.autolabel.labelers import Example, build, check_rules, check_schema, explain, learn
from labelhub.autolabel.labelers import rules as module
from labelhub.autolabel.labelers.rules import RulesLabeler, gather, rules_in, without_rules
from labelhub.autolabel.types import Vote

CARDS = {
    "lost": 'The customer lost the card: "lost my card", /stol[ae]n/.',
    "fee": 'Charges and/or fees, see he/she/they, http://a.b/c/d, 1/2/3: "fee"',
    "other": "",
}


def label(schema, texts, *, examples=(), typed=None):
    state = learn("rules", schema, list(examples), settings={"rules": typed or {}}, seed=0)
    return build("rules", schema, state).label(texts)


def vote(rules, text):
    return RulesLabeler(rules, {}).vote([text])[0]


def test_quoted_phrases_and_patterns_in_a_definition_are_rules_and_its_prose_is_not():
    assert rules_in(CARDS["lost"]) == ['"lost my card"', "/stol[ae]n/"]
    assert rules_in(CARDS["fee"]) == ['"fee"']
    assert rules_in("“curly quotes”, a 'single' one, 5\" of screen") == ['"curly quotes"']
    assert without_rules('Lost: "lost my card", /stol[ae]n/.') == "Lost: lost my card,  ."


def test_a_slash_inside_a_pattern_is_escaped():
    assert rules_in(r"either /a\/b/ or") == [r"/a\/b/"]
    assert vote({"x": [r"/a\/b/"]}, "see a/b").label == "x"


def test_it_answers_with_the_label_whose_rule_matches_and_quotes_the_match():
    answers = label(CARDS, ["Help, I LOST   my\u00a0card!", "it was Stolen", "what fee?", "hello", ""])
    assert [a.label for a in answers] == ["lost", "lost", "fee", None, None]
    assert answers[0].votes["rules"].evidence == "LOST   my card"
    assert [a.problem for a in answers] == [None, None, None, "abstained", "abstained"]
    assert answers[3].confidence == 0.0


def test_a_phrase_matches_whole_words_only():
    assert vote({"x": ["fee"]}, "coffee").label is None
    assert vote({"x": ["fee"]}, "a fee.").label == "x"
    assert vote({"x": ["école"]}, "l'École ferme").label == "x"
    assert vote({"x": ["école"]}, "préécoles").label is None
    assert vote({"x": ["c++"]}, "I like C++!").label == "x"
    assert vote({"x": ["a.b"]}, "acb").label is None


def test_a_phrase_in_a_script_without_spaces_matches_anywhere():
    assert vote({"x": ["银行卡"]}, "我的银行卡丢了").label == "x"
    assert vote({"x": ["สวัสดี"]}, "คุณสวัสดีครับ").label == "x"


def test_decomposed_and_full_width_spellings_match_too():
    assert vote({"x": ["café"]}, "cafe\u0301 noir").label == "x"
    assert vote({"x": ["spam"]}, "ｓｐａｍ").label == "x"


def test_an_untried_rule_scores_two_thirds_and_disagreement_lowers_it():
    rules = {"a": ["one", "two"], "b": ["three"]}
    assert vote(rules, "one").score == pytest.approx(2 / 3)
    assert vote(rules, "one two").score == pytest.approx(2 / 3)
    assert vote(rules, "one two three") == Vote("a", pytest.approx(2 / 3 * 2 / 3), "one")


def test_a_tie_between_labels_is_an_abstention():
    assert vote({"a": ["one"], "b": ["two"]}, "one two") == Vote(None, 0.0)


def test_examples_raise_and_lower_the_score_by_the_rule_of_succession():
    schema = {"spam": '"free"', "ham": '"mum"'}
    good = [Example("free money", "spam")] * 27
    bad = [Example("hi mum", "spam")] * 9
    spam, ham = label(schema, ["free", "mum"], examples=good + bad)
    assert spam.confidence == pytest.approx((27 + 2) / (27 + 3))
    assert ham.confidence == pytest.approx(2 / (9 + 3))


def test_typed_rules_join_those_of_the_definitions_and_count_once():
    assert gather(CARDS, {"lost": ['"lost my card"', "gone"], "other": ["hello"]}) == {
        "lost": ['"lost my card"', "/stol[ae]n/", "gone"],
        "fee": ['"fee"'],
        "other": ["hello"],
    }
    assert label(CARDS, ["hello"], typed={"other": ["hello"]})[0].label == "other"


def test_labels_without_rules_make_a_labeler_that_always_abstains():
    assert [a.problem for a in label({"a": "", "b": ""}, ["x", "y"])] == ["abstained", "abstained"]


@pytest.mark.parametrize(
    ("rule", "complaint"),
    [
        ("/(/", "missing )"),
        ("/)(/", "unexpected )"),
        ("/(?=a)b/", "invalid perl operator"),
        (r"/(a)\1/", "invalid escape"),
        ("/a{5000}/", "repetition"),
        (r"/(\pL{10}){50}/", "too large"),
        ("/a*/", "even an empty text"),
        ("", "is empty"),
        ('""', "is empty"),
        ("x" * 501, "longer than 500"),
    ],
)
def test_it_refuses_a_rule_that_cannot_work_in_one_sentence(rule, complaint):
    with pytest.raises(ValueError, match=re.escape(complaint)) as caught:
        check_rules({"lost": [rule]})
    assert "lost" in str(caught.value) and "\n" not in str(caught.value)


def test_it_refuses_rules_for_an_unknown_label_and_rules_that_are_not_a_list():
    with pytest.raises(ValueError, match="“gone”, which is not one of the labels"):
        check_rules({"gone": ["x"]}, ["lost"])
    with pytest.raises(ValueError, match="must be a list of texts"):
        check_rules({"lost": "x"})
    with pytest.raises(ValueError, match="must be a list of texts"):
        check_rules({"lost": [1]})
    with pytest.raises(ValueError, match="a list for each label"):
        check_rules(["x"])
    check_rules({"lost": ["x", "/y+/"]}, ["lost"])


def test_it_refuses_a_definition_with_a_broken_pattern():
    with pytest.raises(ValueError, match="missing"):
        check_schema({"a": "see /(/"})


def test_a_pattern_that_hangs_other_engines_is_quick(benchmark_seconds=2.0):
    import time

    started = time.perf_counter()
    assert vote({"x": ["/(a+)+$/"]}, "a" * 19_000 + "b").label is None
    assert time.perf_counter() - started < benchmark_seconds


def test_hundreds_of_rules_find_the_same_as_one_by_one():
    rules = {f"label {i}": [f"word{i}", rf"/\bnumber{i}\b.*end/"] for i in range(300)}
    labeler = RulesLabeler(rules, {})
    assert labeler.vote(["xx word17 yy"])[0].label == "label 17"
    assert labeler.vote(["number299 and the end"])[0].label == "label 299"
    assert labeler.vote(["word5 word250 number250 end"])[0].label == "label 250"


def test_it_falls_back_to_single_searches_when_a_joint_search_runs_out_of_memory(monkeypatch):
    labeler = RulesLabeler({"a": ["one"], "b": ["two"]}, {})

    class Exhausted:
        def Match(self, text):
            return None

    labeler._sets = [(0, Exhausted())]
    assert labeler.vote(["two"])[0].label == "b"


def test_only_the_beginning_of_a_very_long_text_is_read():
    assert vote({"x": ["end"]}, "word " * 3_000 + "end").label == "x"
    assert vote({"x": ["end"]}, "word " * 5_000 + "end").label is None


def test_explain_quotes_what_the_rules_of_a_label_match():
    state = learn("rules", CARDS, [], settings={}, seed=0)
    labeler = build("rules", CARDS, state)
    assert explain(labeler, "stolen! I lost my card", "lost") == ["lost my card", "stolen"]
    assert explain(labeler, "stolen", "fee") == []


@given(st.text(max_size=80))
def test_any_text_gets_an_answer(text):
    vote = RulesLabeler({"a": ["one", "/[0-9]{3}/"], "b": ["two"]}, {}).vote([text])[0]
    assert vote.label in (None, "a", "b") and 0 <= vote.score <= 1


@given(st.text(min_size=1, max_size=30).filter(str.strip))
def test_any_phrase_that_is_accepted_matches_itself(phrase):
    try:
        check_rules({"a": [f'"{phrase}"']})
    except ValueError:
        return
    assert vote({"a": [f'"{phrase}"']}, phrase).label == "a"


@given(st.text(max_size=60))
def test_any_definition_is_either_read_or_refused_with_a_sentence(definition):
    try:
        gather({"a": definition}, {})
    except ValueError as error:
        assert str(error).endswith(".")


def test_the_module_says_how_a_score_is_made():
    assert "2/3" in module.__doc__
