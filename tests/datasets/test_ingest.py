"""A file becomes a dataset: every row is accounted for, and an import that dies leaves nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from datasets import ingest as ingesting
from datasets.ingest import clear, ingest, text_hash
from datasets.models import Dataset, Item, Label, LabelerVersion, Vote
from datasets.schema import IngestError, check_labels, label_name
from labelhub.autolabel import tables
from labelhub.autolabel.layout import TableError

pytestmark = pytest.mark.django_db


def read(folder: Path, content: str, name: str = "rows.csv", labels: Any = (), **mapping: Any) -> Dataset:
    """Write a file, read it into a new dataset, and return that."""
    path = folder / name
    path.write_text(content, encoding="utf-8", newline="")
    dataset = Dataset.objects.create(name="Mails")
    ingest(dataset, path, tables.sniff(path), {"text": ["text"]} | mapping, labels)
    dataset.refresh_from_db()
    return dataset


def positions(dataset: Dataset, **which: Any) -> list[int]:
    return list(
        Item.objects.filter(dataset=dataset, **which).order_by("position").values_list("position", flat=True)
    )


AB = [{"name": "a", "definition": "", "rules": ""}, {"name": "b", "definition": "", "rules": ""}]


def test_every_row_is_counted_once(tmp_path: Path) -> None:
    text = 'id,text,label\n1,one,a\n2,two,b\n3,one,\n4,"  ",a\n5,five,a,too many\n6,six,c\n'
    dataset = read(tmp_path, text, labels=AB, label="label")
    report = dataset.report
    assert report["rows_read"] == 6
    assert (report["distinct"], report["copies"], report["empty"], report["skipped"]) == (2, 1, 1, 2)
    assert report["empty_rows"] == [4]
    assert [row[:2] for row in report["bad_rows"]] == [[5, 6], [6, 7]]
    assert "“c” is not in the label set" in report["bad_rows"][1][2]
    assert positions(dataset) == [1, 2, 3]
    assert dataset.ready_at is not None and dataset.columns == ["id", "text", "label"]


def test_a_copy_points_to_the_first_row_with_exactly_its_text(tmp_path: Path) -> None:
    dataset = read(tmp_path, "text\nSame\nsame\nSame\nother\nSame\nsame \n", labels=AB)
    first = Item.objects.get(dataset=dataset, position=1)
    assert positions(dataset, same_as=first) == [3, 5]
    assert positions(dataset, same_as=None) == [1, 2, 4, 6]


def test_texts_with_one_fingerprint_but_different_letters_are_no_copies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingesting, "text_hash", lambda text: 7)
    dataset = read(tmp_path, "text\none\ntwo\none\n", labels=AB)
    assert positions(dataset, same_as=None) == [1, 2]


def test_copies_are_found_across_batches_and_portions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingesting, "ROWS_IN_A_WRITE", 10)
    monkeypatch.setattr(ingesting, "ROWS_IN_A_PORTION", 7)
    dataset = read(tmp_path, "text\n" + "".join(f"row {n % 40}\n" for n in range(100)), labels=AB)
    assert positions(dataset, same_as=None) == list(range(1, 41))
    assert all(
        item.text == item.same_as.text for item in Item.objects.filter(dataset=dataset).exclude(same_as=None)
    )


def test_the_fingerprint_fits_a_signed_64_bit_column() -> None:
    hashes = [text_hash(str(n)) for n in range(200)]
    assert min(hashes) < 0 < max(hashes) and all(-(2**63) <= n < 2**63 for n in hashes)


def test_a_given_label_of_any_copy_belongs_to_the_first(tmp_path: Path) -> None:
    dataset = read(tmp_path, "text,label\none,\none,b\ntwo,a\none,b\n", label="label")
    assert positions(dataset, given_label__name="b") == [1]
    assert positions(dataset, given_label__name="a") == [3]
    assert dataset.report["given"] == 2 and dataset.report["given_conflicts"] == 0


def test_copies_with_different_given_labels_have_none_and_are_reported(tmp_path: Path) -> None:
    dataset = read(tmp_path, "text,label\none,a\ntwo,b\none,b\n", label="label")
    assert positions(dataset, given_label=None) == [1, 3]
    assert dataset.report["given_conflicts"] == 1 and dataset.report["conflict_rows"] == [1]


def test_labels_from_the_file_are_in_natural_order_and_one_spelling(tmp_path: Path) -> None:
    rows = ["item 10", "Item 2", " item 2 ", "cafe\u0301", "caf\u00e9", "item 2"]
    dataset = read(
        tmp_path, "text,label\n" + "".join(f"t{n},{name}\n" for n, name in enumerate(rows)), label="label"
    )
    assert [label.name for label in dataset.labels.all()] == ["café", "Item 2", "item 2", "item 10"]
    assert [label.key for label in dataset.labels.all()] == ["1", "2", "3", "4"]
    assert dataset.report["given"] == 6


def test_typed_labels_keep_their_order_and_definitions(tmp_path: Path) -> None:
    typed = [{"name": " zeta ", "definition": "last", "rules": "z"}, {"name": "alpha"}]
    dataset = read(tmp_path, "text\none\n", labels=typed)
    assert list(dataset.labels.values_list("name", "definition", "rules")) == [
        ("zeta", "last", "z"),
        ("alpha", "", ""),
    ]


def test_labels_marked_as_found_are_completed_from_the_file(tmp_path: Path) -> None:
    typed = [{"name": "b", "definition": "second letter", "found": "yes"}]
    dataset = read(tmp_path, "text,label\none,c\ntwo,b\nthree,a\n", labels=typed, label="label")
    assert [label.name for label in dataset.labels.all()] == ["b", "a", "c"]


def test_na_and_other_odd_labels_stay_what_they_are(tmp_path: Path) -> None:
    dataset = read(tmp_path, "text,label\none,NA\ntwo,None\nthree,null\nfour,0012\nfive,1e5\n", label="label")
    assert {label.name for label in dataset.labels.all()} == {"NA", "None", "null", "0012", "1e5"}


def test_predictions_become_votes_of_an_imported_version(tmp_path: Path) -> None:
    text = "text,pred,conf\none,a,0.9\ntwo,b,1\nthree,zzz,0.5\nfour,,\none,b,0.1\n"
    dataset = read(tmp_path, text, labels=AB, predicted="pred", confidence="conf")
    version = LabelerVersion.objects.get(dataset=dataset, method="imported")
    votes = Vote.objects.filter(version=version).order_by("item__position")
    assert list(votes.values_list("item__position", "label__name", "score")) == [
        (1, "a", 0.9),
        (2, "b", 1.0),
        (3, None, 0.5),
    ]
    assert dataset.report["predicted"] == 3 and dataset.report["predicted_unknown"] == 1
    assert dataset.report["unknown_labels"] == {"zzz": 1}


def test_without_a_label_column_the_predicted_one_gives_the_labels(tmp_path: Path) -> None:
    dataset = read(tmp_path, "text,pred,conf\none,x,0.9\ntwo,y,0.8\n", predicted="pred", confidence="conf")
    assert [label.name for label in dataset.labels.all()] == ["x", "y"]


@pytest.mark.parametrize("confidence", ["95%", "1.01", "-0.1", "nan", "inf", "high", "", "0_1", "1e9"])
def test_a_confidence_that_is_no_number_from_0_to_1_makes_a_bad_row(tmp_path: Path, confidence: str) -> None:
    text = f"text,pred,conf\none,a,{confidence}\ntwo,b,0.5\n"
    dataset = read(tmp_path, text, labels=AB, predicted="pred", confidence="conf")
    assert positions(dataset) == [2]
    assert "is not a number from 0 to 1" in dataset.report["bad_rows"][0][2]


def test_several_text_columns_are_joined_by_a_line_break(tmp_path: Path) -> None:
    dataset = read(tmp_path, "subject,body\nHi,there\n,only body\n", labels=AB, text=["subject", "body"])
    assert list(dataset.items.order_by("position").values_list("text", flat=True)) == [
        "Hi\nthere",
        "\nonly body",
    ]


def test_a_row_is_kept_as_json_and_a_jsonl_line_verbatim(tmp_path: Path) -> None:
    dataset = read(tmp_path, 'text,n\n"a ""q"" é",0010\n', labels=AB)
    assert json.loads(dataset.items.get().row) == {"text": 'a "q" é', "n": "0010"}
    line = '{"text": "hi",  "n": 1.50, "deep": {"x": [1, null]}}'
    lines = read(tmp_path, line + "\n", "rows.jsonl", labels=AB)
    assert lines.items.get().row == line


def test_texts_are_kept_exactly(tmp_path: Path) -> None:
    odd = "=SUM(A1) \u202e x \U0001f600 e\u0301 \u200b <b>"
    dataset = read(tmp_path, f"text\n{odd}\n", labels=AB)
    assert dataset.items.get().text == odd


@pytest.mark.parametrize(
    ("mapping", "words"),
    [
        ({"text": []}, "at least one column"),
        ({"text": ["nope"]}, "no column “nope”"),
        ({"label": "text"}, "one thing only"),
        ({"predicted": "label"}, "both columns"),
        ({}, "no labels"),
    ],
)
def test_a_mapping_that_cannot_work_is_one_sentence(
    tmp_path: Path, mapping: dict[str, Any], words: str
) -> None:
    with pytest.raises(IngestError, match=words):
        read(tmp_path, "text,label\none,a\n", **mapping)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ([{"name": ""}], "no name"),
        ([{"name": "a"}, {"name": " a"}], "there twice"),
        ([{"name": "x" * 201}], "longer than 200"),
        ([{"name": str(n)} for n in range(1001)], "too many"),
    ],
)
def test_a_label_set_that_cannot_work_is_one_sentence(labels: list[dict[str, str]], words: str) -> None:
    with pytest.raises(IngestError, match=words):
        check_labels(labels)


def test_a_column_with_too_many_values_is_no_label_column(tmp_path: Path) -> None:
    rows = "".join(f"text {n},label {n}\n" for n in range(1002))
    with pytest.raises(IngestError, match="more than 1,000 different values"):
        read(tmp_path, "text,label\n" + rows, label="label")


def test_a_file_without_one_usable_row_is_refused_with_the_first_reason(tmp_path: Path) -> None:
    with pytest.raises(IngestError, match=r"None of the 1 rows can be used\. Row 1 .*not in the label set"):
        read(tmp_path, "text,label\none,c\n", labels=AB, label="label")
    with pytest.raises(IngestError, match="empty text"):
        read(tmp_path, "id,text\n1,\n2, \n", labels=AB)


class Unplugged(Exception):
    pass


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("after", [1, 3, 12, 14])
def test_an_import_that_dies_leaves_no_dataset_and_starts_clean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    monkeypatch.setattr(ingesting, "ROWS_IN_A_WRITE", 10)
    path = tmp_path / "rows.csv"
    rows = "".join(f"row {n % 80},l{n % 3},{'ab'[n % 2]},0.5\n" for n in range(100))
    path.write_text("text,label,pred,conf\n" + rows, encoding="utf-8")
    dataset = Dataset.objects.create(name="Mails")
    mapping = {"text": ["text"], "label": "label", "predicted": "pred", "confidence": "conf"}
    calls = 0

    def unplug(bytes_read: int) -> None:
        nonlocal calls
        calls += 1
        if calls == after:
            raise Unplugged

    with pytest.raises(Unplugged):
        ingest(dataset, path, tables.sniff(path), mapping, on_progress=unplug)
    dataset.refresh_from_db()
    assert dataset.ready_at is None
    clear(dataset)
    assert not Item.objects.exists() and not Vote.objects.exists() and not Label.objects.exists()
    report = ingest(dataset, path, tables.sniff(path), mapping)
    assert (report["rows_read"], report["distinct"], report["copies"]) == (100, 80, 20)
    assert positions(dataset) == list(range(1, 101))


def test_an_open_dataset_is_never_cleared(tmp_path: Path) -> None:
    dataset = read(tmp_path, "text\none\n", labels=AB)
    with pytest.raises(ValueError, match="open"):
        clear(dataset)
    assert dataset.items.count() == 1


def test_a_broken_file_is_a_table_error(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="no rows"):
        read(tmp_path, "text\n", labels=AB)


def test_a_label_name_is_one_unicode_spelling() -> None:
    assert label_name("  e\u0301 ") == "é"
