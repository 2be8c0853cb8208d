"""A certificate is issued with an approval, and the exported file proves it without the database."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import IntegrityError, connection, transaction

from datasets.models import Dataset, Item
from labelhub.autolabel.verify import verify
from reviews import certificates, decisions, samples, thresholds, validity, verdicts
from reviews.export import Export, to_file
from reviews.models import Certificate, Decision, Verdict
from tests.reviews.test_metrics import answer_all

pytestmark = pytest.mark.django_db


def rows_of(dataset: Dataset) -> list[dict[str, Any]]:
    return [json.loads(line) for line in b"".join(Export(dataset).write("jsonl")).splitlines()]


def approved(world, wrong: int = 0) -> Certificate:
    now = thresholds.in_force(world.dataset)
    sample = samples.draw_spot_check(world.dataset, now, world.people["manager"])
    answer_all(world.dataset, sample, world.people["second"], wrong)
    sample.refresh_from_db()
    verdicts.approve(sample, world.people["manager"])
    return Certificate.objects.get(sample=sample)


def as_json(certificate: Certificate) -> dict[str, Any]:
    found = certificates.find(certificate.dataset, certificates.number_of(certificate))
    assert found == certificate
    return json.loads(json.dumps(certificates.document(found, 1)))


@pytest.fixture
def world(make_world):
    """300 accepted items with copies, some decided or asked about before the draw, one unsure in the sample."""
    world = make_world([0.9] * 300 + [0.5] * 20, labels=("spam", "häm\t"))
    for n, first in enumerate(world.items[10:30]):
        Item.objects.create(
            dataset=world.dataset, position=1000 + n, text=first.text, row="{}", text_hash=1, same_as=first
        )
    decisions.decide(world.items[0], world.people["reviewer"], "label", world.labels[0])
    decisions.decide(world.items[1], world.people["reviewer"], "cant_tell")
    decisions.remark(world.items[2], world.people["reviewer"], "ask")
    return world


def whats(certificate: dict[str, Any], rows: list[dict[str, Any]]) -> set[str]:
    return {one.what for one in verify(certificate, rows)}


def test_the_file_proves_it_and_any_change_of_a_certified_row_does_not(world) -> None:
    certificate = approved(world, wrong=1)
    assert certificate.evidence["pool"] == 297 and certificate.evidence["rows"] == 317
    document, rows = as_json(certificate), rows_of(world.dataset)
    assert verify(document, rows) == []
    certified = [n for n, row in enumerate(rows) if row["certified"]]
    assert len(certified) == 317
    for n in certified[::40]:
        for field, value in {
            "label": "another", "source": "none", "outcome": "exclude", "rank": 9 * 10**11,
            "predicted_label": "another", "certified": False,
        }.items():  # fmt: skip
            assert rows[n][field] != value
            assert verify(document, [*rows[:n], rows[n] | {field: value}, *rows[n + 1 :]]), (n, field)
        assert "rows" in whats(document, rows[:n] + rows[n + 1 :])
    for key, value in {"seed": "1" * 32, "errors": 0, "alpha": 0.01, "alpha_of_this_attempt": 0.05}.items():
        forged = document | {"evidence": document["evidence"] | {key: value}}
        assert verify(forged, rows), key


def test_what_people_could_not_tell_leaves_the_file_and_stays_in_the_pool(world) -> None:
    now = thresholds.in_force(world.dataset)
    sample = samples.draw_spot_check(world.dataset, now, world.people["manager"])
    answers = [
        claim_and_answer(world, sample, "cant_tell" if n == 3 else "label") for n in range(sample.size)
    ]
    assert len(answers) == sample.size and samples.close_when_answered(sample)
    accepted = [item for item in world.items[3:300] if item.pk not in answers]
    decisions.decide(accepted[0], world.people["reviewer"], "exclude")  # after the draw, before the verdict
    decisions.remark(accepted[1], world.people["reviewer"], "ask")
    sample.refresh_from_db()
    verdicts.approve(sample, world.people["manager"])
    certificate = Certificate.objects.get()
    left = {entry["id"]: entry["outcome"] for entry in certificate.evidence["left_out"]}
    assert left == {answers[3]: "cant_tell", accepted[0].pk: "exclude", accepted[1].pk: None}
    assert verify(as_json(certificate), rows_of(world.dataset)) == []


def claim_and_answer(world, sample, outcome: str) -> int:
    from reviews import queue

    claim = queue.claim_drawn(world.dataset, world.people["second"], "", sample)
    said = sample.drawn.get(item=claim.item_id).machine_label
    decisions.decide(claim.item, world.people["second"], outcome, said if outcome == "label" else None)
    return claim.item_id


def test_a_second_attempt_names_the_first(world) -> None:
    samples.draw_spot_check(world.dataset, world.threshold, world.people["manager"])
    samples.discard(world.dataset, world.people["manager"])
    certificate = approved(world)
    earlier = certificate.evidence["earlier_attempts"]
    assert [one["outcome"] for one in earlier] == ["discarded"] and certificate.evidence["attempt"] == 2
    assert verify(as_json(certificate), rows_of(world.dataset)) == []


def test_corrections_since_are_counted_and_spoil_only_the_digest_of_the_file(world) -> None:
    certificate = approved(world)
    machine = [row for row in rows_of(world.dataset) if row["source"] == "machine" and row["certified"]]
    firsts = [row for row in machine if row["same_as"] is None and row["position"] > 50]
    for n, row in enumerate(firsts[:12]):
        how = ("cant_tell", None) if n == 0 else ("label", world.labels[n % 2])
        decisions.decide(Item.objects.get(pk=row["id"]), world.people["reviewer"], *how)
    found = verify(as_json(certificate), rows_of(world.dataset))
    assert {one.what for one in found} == {"rows", "content_hash"}
    assert any("12 answers changed since" in one.sentence for one in found)
    assert validity.why_void(certificate) == ""


def test_a_raise_keeps_it_valid_and_the_file_says_why_it_is_smaller(make_world, client) -> None:
    world = make_world([0.9] * 200 + [0.87] * 100)
    certificate = approved(world)
    thresholds.move(world.dataset, thresholds.typed_rank("0.9"), world.people["manager"])
    client.force_login(world.people["viewer"])
    page = client.get(f"/d/{world.dataset.pk}/certificates/1/").content.decode()
    assert "in force" in page and "no longer holds" not in page
    found = verify(as_json(certificate), rows_of(world.dataset))
    assert {one.what for one in found} == {"rows", "content_hash"}
    assert any("threshold was raised" in one.sentence for one in found)
    thresholds.move(world.dataset, thresholds.typed_rank("0.8"), world.people["manager"])
    page = client.get(f"/d/{world.dataset.pk}/certificates/1/").content.decode()
    assert "no longer holds" in page and "The threshold was lowered" in page and "in force" not in page
    assert any(
        "No row of the file" in d.sentence for d in verify(as_json(certificate), rows_of(world.dataset))
    )


def test_an_answer_that_comes_while_the_file_is_hashed_is_in_the_hash(world, monkeypatch) -> None:
    real, calls = certificates.evidence_of, []

    def slow(sample, seen):
        found = real(sample, seen)
        if not calls:
            free = world.run.predictions.filter(open=True, rank__gte=world.threshold.rank).last()
            decisions.decide(free.item, world.people["reviewer"], "label", world.labels[0])
        calls.append(found["content_hash"])
        return found

    monkeypatch.setattr(certificates, "evidence_of", slow)
    certificate = approved(world)
    assert len(calls) == 2 and calls[0] != calls[1]
    assert verify(as_json(certificate), rows_of(world.dataset)) == []


def test_what_is_no_longer_accepted_is_not_approved(make_world) -> None:
    world = make_world([0.9] * 120)
    sample = samples.draw_spot_check(world.dataset, world.threshold, world.people["manager"])
    answer_all(world.dataset, sample, world.people["second"])
    sample.refresh_from_db()
    thresholds.move(world.dataset, thresholds.typed_rank("0.5"), world.people["manager"])
    with pytest.raises(verdicts.CannotApprove, match="lowered .* fresh sample"):
        verdicts.approve(sample, world.people["manager"])
    assert not Verdict.objects.exists() and not Certificate.objects.exists()


def test_an_open_sample_blocks_the_verdict_on_another(make_world) -> None:
    world = make_world([0.9] * 200)
    sample = samples.draw_spot_check(world.dataset, world.threshold, world.people["manager"])
    answer_all(world.dataset, sample, world.people["second"])
    sample.refresh_from_db()
    samples.draw_spot_check(world.dataset, world.threshold, world.people["manager"])
    with pytest.raises(verdicts.CannotApprove, match="other sample first"):
        verdicts.approve(sample, world.people["manager"])


def test_the_database_refuses_to_change_a_certificate(make_world) -> None:
    certificate = approved(make_world([0.9] * 120))
    with pytest.raises(Exception, match="append|added|changed|never"), transaction.atomic():
        Certificate.objects.filter(pk=certificate.pk).update(statement="100 %")
    with pytest.raises(IntegrityError), transaction.atomic():
        certificates.issue(certificate.sample, certificate.evidence, certificate.by)


def test_statements_do_not_grow_with_rows(make_world) -> None:
    from tests.reviews.scenario import count_statements

    counts = []
    for n in (100, 400):
        world = make_world([0.9] * n, name=f"of {n}", check_share=0.03)
        sample = samples.draw_spot_check(world.dataset, world.threshold, world.people["manager"])
        answer_all(world.dataset, sample, world.people["second"])
        sample.refresh_from_db()
        seen = samples.count(sample)
        counts.append(count_statements(lambda: certificates.evidence_of(sample, seen)))  # noqa: B023
    assert counts[0] == counts[1] <= 20, connection.vendor


def test_page_and_file_are_for_those_who_watch(world, client) -> None:
    sample = approved(world, wrong=1).sample
    page = f"/d/{world.dataset.pk}/certificates/1/"
    client.force_login(world.people["reviewer"])
    assert client.get(page).status_code == client.get(f"{page}json").status_code == 403
    client.force_login(world.people["viewer"])
    shown = client.get(page).content.decode()
    for text in ("With 95% confidence", "What it does not say", "What it assumes", "Earlier attempts", sample.seed,
                 sample.pool_hash, "317 rows", "verify certificate-"):  # fmt: skip
        assert text in shown
    answer = client.get(f"{page}json")
    assert answer["Content-Disposition"].startswith("attachment")
    assert verify(json.loads(answer.content), rows_of(world.dataset)) == []
    assert client.get(f"/d/{world.dataset.pk}/certificates/2/").status_code == 404
    assert client.get(f"/d/{world.dataset.pk}/certificates/0/").status_code == 404
    client.force_login(world.people["manager"])
    assert page in client.get(f"/d/{world.dataset.pk}/export/").content.decode()
    assert page in client.get(f"/d/{world.dataset.pk}/spot/{sample.pk}/").content.decode()


def test_the_command_answers_with_a_sentence_and_a_code(world, tmp_path: Path, capsys) -> None:
    certificate = approved(world)
    paper, file = tmp_path / "certificate.json", tmp_path / "export.jsonl"
    paper.write_text(json.dumps(as_json(certificate)))
    to_file(world.dataset, "jsonl", file)
    call_command("verify", str(paper), str(file))
    assert capsys.readouterr().out.startswith("Everything agrees: 317 certified rows, the pool of 297")
    lines = file.read_text().splitlines(keepends=True)
    broken = next(n for n, line in enumerate(lines) if json.loads(line)["certified"])
    file.write_text("".join(lines[:broken] + lines[broken + 1 :]))
    with pytest.raises(SystemExit) as stopped:
        call_command("verify", str(paper), str(file), "--json")
    told = json.loads(capsys.readouterr().out)
    assert stopped.value.code == 1 and told["agrees"] is False
    with pytest.raises(SystemExit):
        call_command("verify", str(paper), str(file))
    assert len(capsys.readouterr().out.splitlines()) == len(told["differences"]) >= 2
    with pytest.raises(CommandError, match="cannot be read"):
        call_command("verify", str(tmp_path / "none.json"), str(file))
    with pytest.raises(CommandError, match="cannot be read"):
        call_command("verify", str(paper), str(tmp_path / "none.jsonl"))
    file.write_text("{")
    with pytest.raises(CommandError, match="Line 1 of .* is not JSON"):
        call_command("verify", str(paper), str(file))


def test_an_answer_taken_back_voids_it_on_the_page(world, client) -> None:
    certificate = approved(world)
    answer = Decision.objects.filter(sample=certificate.sample).first()
    decisions.undo(world.dataset, world.people["second"], uuid=answer.uuid)
    client.force_login(world.people["owner"])
    assert (
        "An answer of its sample was taken back"
        in client.get(f"/d/{world.dataset.pk}/certificates/1/").content.decode()
    )
