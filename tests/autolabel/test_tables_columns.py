"""What columns look like, which one is the text, and the first rows of real files."""

from __future__ import annotations

from pathlib import Path

import pytest

from labelhub.autolabel.tables import (
    BadRow,
    guess_mapping,
    preview,
    profile,
    read_batches,
    sniff,
    text_problem,
)

DATA = Path(__file__).parents[1] / "data"


@pytest.fixture
def file(tmp_path: Path):
    """Write text to a file and return its path."""

    def write(content: str) -> Path:
        path = tmp_path / "upload.csv"
        path.write_bytes(content.encode())
        return path

    return write


# U15 and the guesses


@pytest.mark.parametrize(
    ("name", "rows", "roles"),
    [
        ("banking77.csv", 13_083, ("text", "item_id", "gold", None, None)),
        ("sms_spam.csv", 5_574, ("text", "item_id", "gold", None, None)),
        ("stance_gpt4o.csv", 2_299, ("text", "item_id", "gold", "predicted_label", "confidence")),
        ("media_bias_llm_votes.csv", 3_021, ("text", "item_id", "gold", "predicted_label", "confidence")),
    ],
)
def test_real_files_are_understood_without_help(name, rows, roles):
    layout = sniff(DATA / name)
    assert layout.encoding_sure and layout.header_sure and not layout.questions
    batches = list(read_batches(DATA / name, layout))
    assert sum(len(batch.rows) for batch in batches) == rows
    assert not any(batch.bad or batch.blank or batch.cleaned for batch in batches)
    guess = guess_mapping(profile(preview(DATA / name, layout, rows=1000)))
    assert (guess.text, guess.id, guess.label, guess.predicted, guess.confidence) == roles
    assert all(guess.why.values())


def test_columns_are_told_apart_without_their_names(file):
    lines = (
        f"{n},some words of text number {n},{'yes' if n % 3 else 'no'},0.{n:03},{n % 7}" for n in range(200)
    )
    path = file("a,b,c,d,e\n" + "\n".join(lines) + "\n")
    profiles = profile(preview(path, sniff(path), rows=200))
    assert [p.looks_like for p in profiles] == ["id", "text", "label", "confidence", "number"]
    assert [(p.filled, p.distinct) for p in profiles] == [
        (200, 200),
        (200, 200),
        (200, 2),
        (200, 200),
        (200, 7),
    ]
    guess = guess_mapping(profiles)
    assert (guess.text, guess.id, guess.label, guess.predicted, guess.confidence) == (
        "b",
        "a",
        "c",
        None,
        "d",
    )
    assert guess.why["text"] == "28 characters on average, 200 different values in 200 rows"


def test_a_text_column_that_cannot_be_labeled_is_named_with_a_better_one(file):
    lines = (f"{n},some words of text number {n},,{n * 1.5}" for n in range(50))
    path = file("id,note,empty,price\n" + "\n".join(lines) + "\n")
    profiles = profile(preview(path, sniff(path), rows=50))
    assert text_problem(profiles, ["note"]) == ""
    assert text_problem(profiles, ["note", "price"]) == ""
    assert text_problem(profiles, ["missing"]) == "The file has no column “missing”. “note” looks like text."
    assert text_problem(profiles, ["empty"]).startswith("“empty” is empty in all the rows")
    assert text_problem(profiles, ["price"]).startswith("“price” holds only numbers")
    assert text_problem(profiles, ["id"]).startswith("“id” holds only numbers")
    assert text_problem(profiles, []).startswith("Choose the column")


def test_a_file_of_numbers_has_no_text(file):
    path = file("a,b\n" + "".join(f"{n},{n / 7}\n" for n in range(30)))
    guess = guess_mapping(profile(preview(path, sniff(path))))
    assert guess.text is None and guess.why["text"] == "no column looks like it"


def test_the_preview_shows_bad_rows_beside_good_ones(file):
    path = file("a,b\n1,2\n3\n4,5\n6,7\n")
    seen = preview(path, sniff(path), rows=2)
    assert seen.columns == ("a", "b")
    assert seen.rows == [["1", "2"], ["4", "5"]]
    assert seen.bad == [BadRow(2, 3, "1 cell where 2 are due")]
