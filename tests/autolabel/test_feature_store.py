"""The feature store: what comes back is what was made; what is broken, foreign or too much goes away."""

import csv
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from labelhub.autolabel import feature_store
from labelhub.autolabel.feature_store import digest, forget, load_or_make
from labelhub.autolabel.features import TextFeatures
from labelhub.autolabel.scorer import fit_scorer

DATA = Path(__file__).parent.parent / "data"


@pytest.fixture(scope="module")
def rows():
    with (DATA / "sms_spam.csv").open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))[:400]


@pytest.fixture(scope="module")
def texts(rows):
    return [row["text"] for row in rows]


def equal(one, two):
    left, right = one.to_arrays(), two.to_arrays()
    return left.keys() == right.keys() and all(
        left[name].dtype == right[name].dtype and np.array_equal(left[name], right[name]) for name in left
    )


def only_file(folder):
    (path,) = folder.iterdir()
    return path


class TestKeeping:
    def test_kept_features_give_the_scores_of_fresh_ones(self, tmp_path, rows, texts):
        fresh = load_or_make(tmp_path, texts)
        kept = load_or_make(tmp_path, texts)
        assert equal(fresh, kept) and equal(fresh, TextFeatures.of(texts))
        spam = np.array([row["gold"] == "spam" for row in rows], int)
        one, two = (fit_scorer(features, np.arange(60), spam[:60], 2) for features in (fresh, kept))
        assert np.array_equal(one.x, two.x) and np.array_equal(one.oof_x, two.oof_x)
        assert np.array_equal(one.classes, two.classes)

    def test_the_second_time_nothing_is_made(self, tmp_path, texts, monkeypatch):
        load_or_make(tmp_path, texts)
        monkeypatch.setattr(TextFeatures, "of", lambda *_: pytest.fail("made again"))
        kept = load_or_make(tmp_path, list(texts))
        assert kept.texts == texts
        mapped = kept.meaning
        while mapped.base is not None and not isinstance(mapped, np.memmap):
            mapped = mapped.base
        assert isinstance(mapped, np.memmap) and not kept.meaning.flags.writeable

    def test_the_file_is_one_that_other_programs_read(self, tmp_path, texts):
        from safetensors.numpy import load_file

        arrays = load_or_make(tmp_path, texts).to_arrays()
        read = load_file(only_file(tmp_path))
        assert read.keys() == arrays.keys()
        assert all(np.array_equal(read[name], arrays[name]) for name in arrays)

    @pytest.mark.parametrize("texts", [["a"], ["", " "], ["!!", "??", ".."], ["\ud800 half a pair", "\0"]])
    def test_odd_texts_are_kept_too(self, tmp_path, texts):
        fresh = load_or_make(tmp_path, texts)
        assert equal(fresh, load_or_make(tmp_path, texts))
        assert only_file(tmp_path).name.startswith(digest(texts, 0))

    def test_other_texts_another_order_or_another_seed_are_other_features(self, tmp_path, texts, monkeypatch):
        variants = [texts, texts[::-1], texts[:-1], ["".join(texts[:2]), "", *texts[2:]]]
        keys = [digest(variant, 0) for variant in variants] + [digest(texts, 1)]
        monkeypatch.setattr(feature_store, "VERSION", feature_store.VERSION + 1)
        keys.append(digest(texts, 0))
        assert len(set(keys)) == 6
        some = texts[:30]
        assert not equal(load_or_make(tmp_path, some, seed=0), load_or_make(tmp_path, some, seed=1))
        assert len(list(tmp_path.iterdir())) == 2

    def test_without_texts_there_is_nothing_to_keep(self, tmp_path):
        with pytest.raises(ValueError, match="no texts"):
            load_or_make(tmp_path, [])


class TestDamage:
    @pytest.fixture
    def kept(self, tmp_path, texts):
        return load_or_make(tmp_path, texts[:40]), tmp_path, texts[:40]

    @pytest.mark.parametrize(
        "damage",
        [
            lambda whole: b"",
            lambda whole: b"12",
            lambda whole: whole[: len(whole) // 2],
            lambda whole: whole[:-1],
            lambda whole: whole[:-5000] + bytes([whole[-5000] ^ 1]) + whole[-4999:],
            lambda whole: b"\xff" * 8 + whole[8:],
            lambda whole: whole.replace(b'"meaning"', b'"meanimg"', 1),
            lambda whole: whole.replace(b'"dtype": "F32"', b'"dtype": "F99"', 1),
            lambda whole: b"\x02\0\0\0\0\0\0\0[]" + whole,
            lambda whole: b'\x05\0\0\0\0\0\0\0"abc"' + whole,
            lambda whole: b"item,text\n1,not features\n" * 100,
        ],
    )
    def test_a_damaged_or_foreign_file_is_made_anew(self, kept, damage, caplog):
        fresh, folder, texts = kept
        path = only_file(folder)
        whole = path.read_bytes()
        path.write_bytes(damage(whole))
        assert path.read_bytes() != whole
        assert equal(load_or_make(folder, texts), fresh)
        assert "made anew" in caplog.text
        assert path.read_bytes() == whole

    def test_features_of_other_texts_under_this_name_are_not_believed(self, kept, texts):
        fresh, folder, mine = kept
        path = only_file(folder)
        others = texts[40:80]
        load_or_make(folder, others)
        (folder / f"{digest(others, 0)}.features").replace(path)
        assert equal(load_or_make(folder, mine), fresh)

    @pytest.mark.parametrize("inside", [".", "deeper/still"])
    def test_a_folder_that_cannot_be_written_to_costs_time_only(self, tmp_path, texts, inside, caplog):
        blocked = tmp_path / "file"
        blocked.write_text("not a folder")
        with caplog.at_level(logging.WARNING):
            features = load_or_make(blocked / inside, texts[:20])
        assert equal(features, TextFeatures.of(texts[:20]))
        assert "cannot be kept" in caplog.text

    def test_a_write_that_fails_leaves_nothing(self, tmp_path, texts, monkeypatch):
        def full(_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        assert load_or_make(tmp_path, texts[:20]).latent.shape[0] == 20
        assert list(tmp_path.iterdir()) == []


class TestTwoWriters:
    def test_threads_at_once_leave_one_whole_file(self, tmp_path, texts):
        some, made = texts[:60], []
        threads = [
            threading.Thread(target=lambda: made.append(load_or_make(tmp_path, some))) for _ in range(6)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(made) == 6 and all(equal(features, made[0]) for features in made)
        assert only_file(tmp_path).name == f"{digest(some, 0)}.features"
        assert equal(load_or_make(tmp_path, some), made[0])

    def test_another_process_makes_the_same_file(self, tmp_path):
        program = (
            "import sys; from pathlib import Path; from labelhub.autolabel.feature_store import load_or_make\n"
            "load_or_make(Path(sys.argv[1]), [f'text number {i} of {i % 7}' for i in range(50)])"
        )
        subprocess.run([sys.executable, "-c", program, tmp_path / "there"], check=True, timeout=120)
        load_or_make(tmp_path / "here", [f"text number {i} of {i % 7}" for i in range(50)])
        one, two = only_file(tmp_path / "here"), only_file(tmp_path / "there")
        assert one.name == two.name and one.read_bytes() == two.read_bytes()

    def test_features_in_use_survive_their_file(self, tmp_path, texts):
        load_or_make(tmp_path, texts[:30])
        kept = load_or_make(tmp_path, texts[:30])
        forget(tmp_path, 0)
        assert list(tmp_path.iterdir()) == []
        assert equal(kept, TextFeatures.of(texts[:30]))


class TestLimit:
    def test_those_used_longest_ago_go_first(self, tmp_path, texts):
        parts = [texts[i : i + 20] for i in (0, 20, 40)]
        names = [f"{digest(part, 0)}.features" for part in parts]
        for age, part in enumerate(parts):
            load_or_make(tmp_path, part)
            os.utime(tmp_path / names[age], (1000 + age, 1000 + age))
        load_or_make(tmp_path, parts[0])  # used again
        sizes = {name: (tmp_path / name).stat().st_size for name in names}
        forget(tmp_path, sizes[names[0]] + sizes[names[2]])
        assert {path.name for path in tmp_path.iterdir()} == {names[0], names[2]}

    def test_a_folder_never_holds_more_than_it_may(self, tmp_path, texts):
        load_or_make(tmp_path / "free", texts[:20])
        limit = only_file(tmp_path / "free").stat().st_size * 5 // 2
        folder = tmp_path / "limited"
        for start in range(0, 120, 20):
            load_or_make(folder, texts[start : start + 20], most_bytes=limit)
            assert 0 < sum(path.stat().st_size for path in folder.iterdir()) <= limit
        newest = f"{digest(texts[100:120], 0)}.features"
        assert newest in {path.name for path in folder.iterdir()}

    def test_features_above_the_limit_are_made_but_not_kept(self, tmp_path, texts):
        load_or_make(tmp_path, texts[:20])
        size = only_file(tmp_path).stat().st_size
        forget(tmp_path, 0)
        load_or_make(tmp_path, texts[:20], most_bytes=size - 1)
        assert list(tmp_path.iterdir()) == []
        load_or_make(tmp_path, texts[:20], most_bytes=size)
        assert only_file(tmp_path).stat().st_size == size

    def test_what_a_dead_writer_left_goes_and_other_files_stay(self, tmp_path, texts):
        left, mine = tmp_path / "abc.part", tmp_path / "notes.txt"
        for path in (left, mine):
            path.write_bytes(b"x" * 1000)
            os.utime(path, (1000, 1000))
        load_or_make(tmp_path, texts[:20])
        forget(tmp_path, (tmp_path / f"{digest(texts[:20], 0)}.features").stat().st_size)
        assert not left.exists() and mine.exists()
        assert len(list(tmp_path.iterdir())) == 2
