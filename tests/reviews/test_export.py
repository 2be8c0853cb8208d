"""The exported file against a recount, byte for byte where it matters."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from datasets.models import Dataset, Item, Label, RunVotes
from labelhub.autolabel import tables
from labelhub.autolabel.rank import to_rank
from reviews import decisions, queue, samples, thresholds, verdicts
from reviews.export import KEYS, Export, disposition, file_name, to_file
from reviews.models import Certificate, Outcome
from reviews.validity import certificate_in_force
from tests.reviews.scenario import Recount, Story, count_statements
from tests.reviews.test_metrics import answer_all

pytestmark = pytest.mark.django_db
NASTY = [
    "=1+1",
    "+a",
    "-b",
    "@c",
    "\tx",
    "'=1",
    "＝1",
    "plain",
    'a "quoted", b',
    "two\nlines",
    "\u202eabc",
    "<b>&amp;",
    "",
]


def rows_of(dataset: Dataset) -> list[dict[str, Any]]:
    return [json.loads(line) for line in b"".join(Export(dataset).write("jsonl")).splitlines()]


@pytest.mark.parametrize("seed", range(100, 112))
def test_every_row_leaves_once_with_the_label_that_a_recount_gives(seed: int) -> None:
    story = Story(seed)
    for _ in range(3):
        story.act(25)
        recount = Recount(story)
        names = {label.pk: label.name for label in story.labels}
        rows = rows_of(story.dataset)
        assert [row["id"] for row in rows] == [
            item.pk for item in sorted(recount.items, key=lambda i: i.position)
        ]
        for row, item in zip(rows, sorted(recount.items, key=lambda i: i.position), strict=True):
            first = item.same_as or item
            answer, state = recount.current(first.pk), recount.state(first)
            said = recount.said.get(first.pk)
            expected = {
                "given": (names.get(first.given_label_id), "given"),
                "accepted": (names.get(said.label_id if said else None), "machine"),
            }.get(state, (None, "none"))
            if answer is not None and answer.outcome == Outcome.LABEL:
                expected = (names[answer.label_id], "person")
            assert (row["label"], row["source"]) == expected
            assert row["row"] == {"text": f"text {item.position}"}
            assert list(row) == [*KEYS, "row"]
            if first.pk in recount.drawn:
                assert row["predicted_label"] is row["confidence"] is row["rank"] is row["sample"] is None
            elif answer is not None and answer.run_id:
                assert row["predicted_label"] == names.get(answer.machine_label_id)
                assert row["rank"] == answer.machine_rank
            elif state in ("flagged", "accepted"):
                assert said is not None and row["predicted_label"] == names.get(said.label_id)
                assert row["confidence"] == pytest.approx(said.rank // 10**6 / 10**6)
            if answer is not None:
                assert row["outcome"] == answer.outcome and row["answered_by"] in ("R1", "R2")
                at = dt.datetime.fromisoformat(row["decided_at"])
                assert abs(at - answer.decided_at) < dt.timedelta(milliseconds=1)
        assert sum(row["label"] is not None for row in rows) == sum(
            recount.has_label(i) for i in recount.items
        )


def test_items_of_an_open_sample_leave_without_what_the_machine_said(make_world) -> None:
    world = make_world([0.9] * 100)
    sample = samples.draw_spot_check(world.dataset, world.threshold, world.people["manager"])
    claim = queue.claim_drawn(world.dataset, world.people["second"], "", sample)
    decisions.decide(claim.item, world.people["second"], "label", world.labels[0])
    drawn = set(sample.drawn.values_list("item", flat=True))
    for row in rows_of(world.dataset):
        if row["id"] in drawn:
            assert (
                row["predicted_label"]
                is row["confidence"]
                is row["rank"]
                is row["run"]
                is row["sample"]
                is None
            )
            assert row["source"] == ("person" if row["id"] == claim.item_id else "none")
        else:
            assert row["source"] == "machine"
    with_votes = b"".join(Export(world.dataset, votes=True).write("jsonl")).splitlines()
    assert all(json.loads(line)["votes"] is None for line in with_votes if json.loads(line)["id"] in drawn)
    for _ in range(sample.size - 1):
        claim = queue.claim_drawn(world.dataset, world.people["second"], "", sample)
        decisions.decide(claim.item, world.people["second"], "label", world.labels[0])
    assert samples.close_when_answered(sample)
    rows = {row["id"]: row for row in rows_of(world.dataset)}
    assert all(rows[item]["predicted_label"] and rows[item]["sample"] == sample.pk for item in drawn)
    assert sorted(rows[item]["sample_rank"] for item in drawn) == list(range(1, sample.size + 1))


def test_flagged_rows_have_no_label_but_what_the_machine_said(make_world) -> None:
    world = make_world([0.5, 0.9])
    flagged, accepted = rows_of(world.dataset)
    assert (flagged["label"], flagged["source"], flagged["predicted_label"]) == (None, "none", "spam")
    assert (accepted["label"], accepted["source"], accepted["certified"]) == ("ham", "machine", False)
    assert accepted["threshold"] == 0.85 and accepted["run"] == 1


def test_a_copy_has_what_its_first_has(make_world) -> None:
    world = make_world([0.5, 0.9])
    for n, first in enumerate(world.items):
        Item.objects.create(
            dataset=world.dataset,
            position=10 + n,
            text=first.text,
            row='{"text":"x"}',
            text_hash=1,
            same_as=first,
        )
    decisions.decide(world.items[0], world.people["reviewer"], "label", world.labels[1])
    rows = rows_of(world.dataset)
    for first, copy in zip(rows[:2], rows[2:], strict=True):
        same = set(KEYS) - {"id", "position", "same_as"}
        assert {key: first[key] for key in same} == {key: copy[key] for key in same}
        assert first["same_as"] is None and copy["same_as"] == first["id"]


def certify(world) -> Certificate:
    sample = samples.draw_spot_check(world.dataset, world.threshold, world.people["manager"])
    answer_all(world.dataset, sample, world.people["second"])
    sample.refresh_from_db()
    verdicts.approve(sample, world.people["manager"])
    return Certificate.objects.get(sample=sample)


def test_certified_rows_are_the_pool_of_a_certificate_in_force(make_world) -> None:
    world = make_world([0.9] * 400 + [0.5] * 20)
    decisions.decide(world.items[0], world.people["reviewer"], "label", world.labels[0])
    decisions.remark(world.items[1], world.people["reviewer"], "ask")
    assert not any(row["certified"] for row in rows_of(world.dataset))
    certificate = certify(world)
    assert certificate_in_force(world.dataset) == certificate
    decisions.decide(world.items[405], world.people["reviewer"], "label", world.labels[0])
    rows = rows_of(world.dataset)
    certified = {row["position"] for row in rows if row["certified"]}
    assert certified == set(range(3, 401)) and len(certified) == certificate.sample.pool
    unseen = next(row for row in rows if row["certified"] and row["source"] == "machine")
    decisions.decide(Item.objects.get(pk=unseen["id"]), world.people["reviewer"], "cant_tell")
    assert not rows_of(world.dataset)[unseen["position"] - 1]["certified"]


def test_a_certificate_is_void_when_the_threshold_is_lowered_but_not_when_it_is_raised(make_world) -> None:
    world = make_world([0.9] * 300 + [0.8] * 10)
    certificate = certify(world)
    thresholds.move(world.dataset, to_rank(0.9), world.people["manager"])
    assert certificate_in_force(world.dataset) == certificate
    thresholds.move(world.dataset, to_rank(0.7), world.people["manager"])
    assert certificate_in_force(world.dataset) is None
    assert not any(row["certified"] for row in rows_of(world.dataset))


def test_a_certificate_is_void_when_an_answer_of_its_sample_is_taken_back(make_world) -> None:
    world = make_world([0.9] * 300)
    answer = certify(world).sample.decisions.order_by("pk")[0]
    assert decisions.undo(world.dataset, world.people["second"], uuid=answer.uuid) == answer
    assert certificate_in_force(world.dataset) is None


def test_a_certificate_is_void_when_a_label_is_retired(make_world) -> None:
    world = make_world([0.9] * 300, labels=("a", "b", "unused"))
    certify(world)
    Label.objects.filter(name="unused").update(retired_at=timezone.now())
    assert certificate_in_force(world.dataset) is None


def test_pseudonyms_follow_the_first_answer_and_stay(make_world) -> None:
    world = make_world([0.5] * 4)
    for item, who in zip(world.items, ("second", "reviewer", "second", "reviewer"), strict=True):
        decisions.decide(item, world.people[who], "label", world.labels[0])
    assert [row["answered_by"] for row in rows_of(world.dataset)] == ["R1", "R2", "R1", "R2"]
    decisions.undo(world.dataset, world.people["second"])
    assert [row["answered_by"] for row in rows_of(world.dataset)] == ["R1", "R2", None, "R2"]


def nasty_world(make_world):
    world = make_world([0.5] * len(NASTY), labels=("=cmd|x", 'ham, "eggs"'))
    Dataset.objects.filter(pk=world.dataset.pk).update(columns=["text", "=head", "lh_label", "deep"])
    world.dataset.refresh_from_db()
    for item, text in zip(world.items, NASTY, strict=True):
        row = {"text": text, "=head": 1, "lh_label": None, "deep": {"a": [1, "ü"]}}
        Item.objects.filter(pk=item.pk).update(text=text, row=json.dumps(row, ensure_ascii=False))
    return world


def test_exact_csv_gives_every_cell_back(make_world) -> None:
    world = nasty_world(make_world)
    text = b"".join(Export(world.dataset).write("csv")).decode()
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [row["text"] for row in rows] == NASTY
    assert list(rows[0])[:4] == ["text", "=head", "lh_label", "deep"]
    assert list(rows[0])[4:6] == ["lh_id", "lh_position"] and "lh_lh_label" in rows[0]
    assert rows[0]["lh_predicted_label"] == "=cmd|x" and rows[0]["deep"] == '{"a":[1,"ü"]}'


def test_a_spreadsheet_runs_no_cell_and_the_way_back_is_exact(make_world) -> None:
    world = nasty_world(make_world)
    text = b"".join(Export(world.dataset).write("csv-safe")).decode("utf-8-sig")
    rows = list(csv.reader(io.StringIO(text, newline="")))
    for row in rows:
        for cell in row:
            assert not cell.startswith(("=", "+", "-", "@", "\t", "\r", "＝"))
    back = [[tables.unescape_cell(cell) for cell in row] for row in rows]
    exact = b"".join(Export(world.dataset).write("csv")).decode()
    assert back == list(csv.reader(io.StringIO(exact, newline="")))


def test_numbers_keep_the_digits_of_the_file(make_world) -> None:
    world = make_world([0.5])
    Dataset.objects.filter(pk=world.dataset.pk).update(columns=["n", "f", "b"])
    world.dataset.refresh_from_db()
    Item.objects.update(row='{"n": 123456789012345678901234567890, "f": 1.10, "b": true}')
    rows = list(csv.DictReader(io.StringIO(b"".join(Export(world.dataset).write("csv")).decode())))
    assert (rows[0]["n"], rows[0]["f"], rows[0]["b"]) == ("123456789012345678901234567890", "1.10", "true")
    assert b'"f": 1.10' in b"".join(Export(world.dataset).write("jsonl"))


def test_votes_are_a_column_if_wanted(make_world) -> None:
    world = make_world([0.5])
    RunVotes.objects.create(
        run=world.run, item=world.items[0], votes={"rules": [world.labels[1].pk, 0.7, "word"]}
    )
    row = json.loads(b"".join(Export(world.dataset, votes=True).write("jsonl")))
    assert row["votes"] == {"rules": ["ham", 0.7]}
    assert b"lh_votes" in b"".join(Export(world.dataset, votes=True).write("csv"))


def test_statements_do_not_grow_with_rows(make_world) -> None:
    small, large = make_world([0.9] * 3, name="small"), make_world([0.9] * 300, name="large")
    counts = [count_statements(lambda: rows_of(world.dataset)) for world in (small, large)]  # noqa: B023
    assert counts[0] == counts[1] <= 12


def test_the_command_writes_a_whole_file_or_none(make_world, tmp_path: Path, capsys) -> None:
    world = make_world([0.9, 0.5])
    out = tmp_path / "labels.jsonl"
    call_command("export", world.dataset.pk, "--format", "jsonl", "--out", str(out), "--json")
    told = json.loads(capsys.readouterr().out)
    assert told["rows"] == 2 and told["sources"]["machine"] == 1
    assert len(out.read_bytes().splitlines()) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["labels.jsonl"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--format", "xlsx", "--out", "x"], "The format xlsx does not exist yet"),
        (["--format", "csv", "--out", "/nowhere/at/all.csv"], "cannot be written"),
    ],
)
def test_the_command_refuses_in_one_sentence(make_world, arguments: list[str], sentence: str) -> None:
    world = make_world([0.9])
    with pytest.raises(CommandError, match=sentence):
        call_command("export", world.dataset.pk, *arguments)
    with pytest.raises(CommandError, match="There is no dataset"):
        call_command("export", 987654, "--out", "x")


def test_a_failure_half_way_leaves_the_old_file(make_world, tmp_path: Path, monkeypatch) -> None:
    world = make_world([0.9, 0.5])
    out = tmp_path / "labels.csv"
    out.write_text("old")
    Item.objects.filter(pk=world.items[1].pk).update(row="not json")
    with pytest.raises(json.JSONDecodeError):
        to_file(world.dataset, "csv", out)
    assert out.read_text() == "old" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("../../etc/passwd", "etc-passwd.csv"),
        ("CON", "dataset {pk} CON.csv"),
        ("a\r\nSet-Cookie: x=1", "a-Set-Cookie- x=1.csv".replace("=", "-")),
        ("Ünïcode \u202e 表", "Ünïcode - 表.csv"),
        ("...", "dataset {pk}.csv"),
        ("x" * 300, "x" * 100 + ".csv"),
    ],
)
def test_the_file_name_is_safe_whatever_the_dataset_is_called(name: str, file: str) -> None:
    dataset = Dataset(pk=7, name=name[:300])
    found = file_name(dataset, "csv")
    assert found == file.format(pk=7)
    header = disposition(found)
    assert header.isascii() and "\n" not in header and "\r" not in header and header.count('"') == 2


def test_the_page_streams_the_file_to_managers_only(make_world, client) -> None:
    world = make_world([0.9, 0.5], name='a"b\n<script>')
    page, file = f"/d/{world.dataset.pk}/export/", f"/d/{world.dataset.pk}/export/file/"
    client.force_login(world.people["reviewer"])
    assert client.get(page).status_code == client.get(file).status_code == 403
    client.force_login(world.people["manager"])
    shown = client.get(page).content.decode()
    assert "not certified" in shown and "<script>" not in shown.replace("<script src=", "")
    answer = client.get(file, {"format": "jsonl"})
    assert answer.streaming and len(b"".join(answer.streaming_content).splitlines()) == 2
    assert answer["X-Content-Type-Options"] == "nosniff" and "no-store" in answer["Cache-Control"]
    assert answer["Content-Disposition"].startswith("attachment; filename=")
    assert client.get(file, {"format": "exe"}).status_code == 422


def test_what_was_imported_is_exported_again(make_world, tmp_path: Path) -> None:
    world = nasty_world(make_world)
    out = tmp_path / "again.csv"
    to_file(world.dataset, "csv", out)
    layout = tables.with_columns(out, tables.sniff(out))
    read = [row.cells[0] for row in tables.read_rows(out, layout) if isinstance(row, tables.Row)]
    assert read == NASTY
