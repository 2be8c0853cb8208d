"""Reading a file in the background: it is killed, replaced, asked for twice, or cannot be read."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User

from datasets import slices
from datasets import tasks as below
from datasets.models import (
    Dataset,
    Item,
    Label,
    UploadDraft,
)
from labelhub.autolabel import tables
from tests.processes import wait_for

pytestmark = pytest.mark.django_db(transaction=True)


def upload(path: Path, boss: User) -> UploadDraft:
    from dataclasses import asdict

    return UploadDraft.objects.create(
        user=boss, file_name=path.name, path=str(path), layout=asdict(tables.sniff(path)),
        mapping={"text": ["text"]}, labels=[{"name": "a"}, {"name": "b"}],
    )  # fmt: skip


@pytest.mark.slow
def test_a_file_whose_reader_was_killed_is_read_again_from_the_start(
    server: Any, worker: Any, boss: User, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "big.csv"
    rows = 400_000
    with path.open("w", encoding="utf-8") as file:
        file.write("text\n" + "".join(f"row {n} with some more words to read\n" for n in range(rows)))
    first = worker()
    dataset = below.begin(upload(path, boss), "Big", boss)
    wait_for(lambda: UploadDraft.objects.get().bytes_read > 0, "being read", 30)
    os.killpg(first.pid, signal.SIGKILL)
    dataset.refresh_from_db()
    assert dataset.ready_at is None
    worker()

    def ready() -> bool:
        dataset.refresh_from_db()
        return dataset.ready_at is not None

    wait_for(ready, "read", 120)
    assert dataset.report["rows_read"] == rows == Item.objects.filter(dataset=dataset).count()
    assert Label.objects.filter(dataset=dataset).count() == 2
    assert not path.exists()


def test_a_file_that_cannot_be_read_leaves_a_sentence_and_no_rows(boss: User, tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_text("text\nfine\n" + "x" * 100 + "\n")
    draft = upload(path, boss)
    draft.mapping = {"text": ["nope"]}
    dataset = below.begin(draft, "Bad", boss)
    dataset.refresh_from_db()
    assert dataset.problem == "The file has no column “nope”; it has text."
    assert not Item.objects.exists() and not Label.objects.exists()
    assert below.sweep_files() == 0


def test_a_second_click_makes_no_second_dataset(boss: User, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text\none\ntwo\n")
    draft = upload(path, boss)
    assert below.begin(draft, "Rows", boss).pk == below.begin(draft, "Rows", boss).pk
    assert Dataset.objects.count() == 1 and Item.objects.count() == 2


def test_a_reader_that_was_replaced_stops_and_writes_nothing_more(boss: User, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text\none\ntwo\n")
    draft = upload(path, boss)
    dataset = Dataset.objects.create(name="Rows")
    draft.dataset = dataset
    draft.save()
    reader = below._Reader.begin(draft)
    assert reader is not None and below._Reader.begin(draft) is None
    UploadDraft.objects.filter(pk=draft.pk).update(beat_at=slices.now() - 2 * below.READER_DEAD_AFTER)
    assert below._Reader.begin(draft) is not None
    reader._beat()
    with pytest.raises(below.ReaderReplaced):
        reader.on_progress(5)
