"""The labeled dataset as a file: every row once, with the history of its label.

One SELECT, iterated: it sees one moment of the database, memory stays constant, and nothing is locked. Items of an
open sample leave blind, without what the machine said (E7).
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson
from django.db import connection

from datasets.models import Dataset, Label, Run
from labelhub.autolabel.rank import ACCEPT_NOTHING
from labelhub.autolabel.spreadsheet import escape_cell
from labelhub.autolabel.verify_dataset import Labels
from reviews.models import Purpose, Sample, Threshold
from reviews.queue import as_stored
from reviews.thresholds import in_force
from reviews.validity import certificate_in_force, certified_rank

FORMATS = {"jsonl": "application/x-ndjson", "csv": "text/csv", "csv-safe": "text/csv"}
KEYS = (
    "id", "position", "label", "source", "predicted_label", "confidence", "rank", "run", "threshold", "purpose",
    "sample", "sample_rank", "outcome", "answered_by", "decided_at", "same_as", "certified",
)  # fmt: skip
ROWS_IN_A_PIECE = 2000
CSV_PREFIX = "lh_"


class NotExported(Exception):
    """A file that cannot be made; the message is one sentence."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What an export said so far about its rows, by ``source``, and how many are certified."""

    rows: int
    by_source: dict[str, int]
    certified: int


_CURRENT = """(SELECT min(a.id) FROM reviews_decision a WHERE a.item_id = {first} AND a.outcome <> 'undo'
        AND NOT EXISTS (SELECT 1 FROM reviews_decision r WHERE r.revokes_id = a.id))"""
_IN_POOL = """NOT EXISTS (SELECT 1 FROM reviews_decision e WHERE e.item_id = {first} AND e.outcome <> 'undo'
        AND e.decided_at < %s AND NOT EXISTS (SELECT 1 FROM reviews_decision r
            WHERE r.revokes_id = e.id AND r.decided_at < %s))
    AND NOT EXISTS (SELECT 1 FROM reviews_remark k WHERE k.item_id = {first} AND k.kind = 'ask' AND k.at < %s)"""
_SELECT = """
SELECT i.id, i.same_as_id, i.position, {row}, {given}, {excluded},
    p.label_id, p.rank, p.open,
    d.outcome, d.label_id, d.run_id, d.machine_label_id, d.machine_rank, d.purpose, d.reviewer_id, d.decided_at,
    s.id, si.place, (s.id IS NOT NULL AND s.closed_at IS NULL AND s.superseded_at IS NULL), d.sample_id,
    EXISTS (SELECT 1 FROM reviews_remark m WHERE m.item_id = {first} AND m.kind = 'ask'),
    {in_pool}, {votes}
FROM datasets_item i {join_first}
LEFT JOIN datasets_prediction p ON p.run_id = %s AND p.item_id = {first}
LEFT JOIN reviews_decision d ON d.id = {current}
LEFT JOIN reviews_sample s ON s.id = (SELECT max(z.sample_id) FROM reviews_sampleitem z WHERE z.item_id = {first})
LEFT JOIN reviews_sampleitem si ON si.sample_id = s.id AND si.item_id = {first}
{join_votes}
WHERE i.dataset_id = %s ORDER BY {order}"""


def _statement(
    dataset: Dataset, threshold: Threshold | None, sample: Sample | None, votes: bool, order: str
) -> tuple[str, list[Any]]:
    # A copy has what its first has (E15). Without copies the second look into the wide table is spared.
    copies = dataset.items.filter(same_as__isnull=False).exists()
    first = "f.id" if copies else "i.id"
    values: list[Any] = []
    in_pool = "0 = 1"
    if sample is not None:
        in_pool = _IN_POOL.format(first=first)
        values += [as_stored(sample.drawn_at)] * 3
    run = threshold.run_id if threshold else 0
    values.append(run)
    if votes:
        values += [run, threshold.run.version_id if threshold else 0]
    sql = _SELECT.format(
        first=first,
        order=order,
        row="i.row" if order == "i.position" else "NULL",  # nobody hashes it, and it is dear to sort
        given="f.given_label_id" if copies else "i.given_label_id",
        excluded="f.excluded" if copies else "i.excluded",
        join_first="JOIN datasets_item f ON f.id = coalesce(i.same_as_id, i.id)" if copies else "",
        current=_CURRENT.format(first=first),
        in_pool=in_pool,
        votes="v.votes, g.label_id, g.score" if votes else "NULL, NULL, NULL",
        join_votes=f"""LEFT JOIN datasets_runvotes v ON v.run_id = %s AND v.item_id = {first}
            LEFT JOIN datasets_vote g ON g.version_id = %s AND g.item_id = {first}""" if votes else "",
    )  # fmt: skip
    return sql, [*values, dataset.pk]


def _fetch(sql: str, values: list[Any]) -> Iterator[tuple[Any, ...]]:
    """Iterate over a SELECT that the database keeps open: a cursor of its own on PostgreSQL, steps on SQLite."""
    with connection.chunked_cursor() as cursor:
        cursor.execute(sql, values)
        while rows := cursor.fetchmany(ROWS_IN_A_PIECE):
            yield from rows


class Export:
    """The final label of every row of a dataset, to be written once. Counts are complete when all rows were read."""

    def __init__(self, dataset: Dataset, votes: bool = False, sample: Sample | None = None) -> None:
        """Read as the database is now; ``certified`` is about a sample, or else about the certificate in force."""
        self.dataset, self.votes = dataset, votes
        self.threshold = in_force(dataset)
        if sample is None and (certificate := certificate_in_force(dataset)) is not None:
            sample = certificate.sample
        self.sample = sample
        self.whole = (
            sample is not None and sample.purpose == Purpose.CALIBRATION
        )  # the promise is about all labels
        self.left_out: list[dict[str, Any]] = []  # what is promised about, but without a label to certify
        self.outside_pool: list[int] = []  # labeled by the run, but not in the frozen pool
        self.above_threshold = 0  # of the frozen pool, sampled or not
        self.labels = Labels()
        self.rows = self.certified = 0
        self.by_source = {"given": 0, "person": 0, "machine": 0, "none": 0}
        labels = list(Label.objects.filter(dataset=dataset).values_list("pk", "name", "retired_at"))
        self._names: dict[int | None, str | None] = {None: None, **{pk: name for pk, name, _ in labels}}
        self._retired = {pk for pk, _, retired in labels if retired is not None}
        self._runs = dict(Run.objects.filter(dataset=dataset).values_list("pk", "number"))
        self._people: dict[int, str] = pseudonyms(dataset)

    def summary(self) -> Summary:
        """What was read so far."""
        return Summary(self.rows, dict(self.by_source), self.certified)

    def certified_rows(self) -> Iterator[tuple[int, str | None, str, str | None]]:
        """Yield id, label, source and outcome of the certified rows, ascending by id: what a certificate hashes."""
        for record, _ in self.records(order="i.id"):
            if record["certified"]:
                yield record["id"], record["label"], record["source"], record["outcome"]

    def records(self, order: str = "i.position") -> Iterator[tuple[dict[str, Any], str]]:
        """Yield our keys and the original row, a JSON object as text, of every row in the order of the file."""
        sample = self.sample
        sql, values = _statement(self.dataset, self.threshold, sample, self.votes, order)
        names, rank = self._names, self.threshold.rank if self.threshold else ACCEPT_NOTHING
        typed = None if rank >= ACCEPT_NOTHING or self.threshold is None else self.threshold.confidence
        lowest = certified_rank(sample) if sample else ACCEPT_NOTHING
        number = self._runs.get(self.threshold.run_id) if self.threshold else None
        for (
            item, same_as, position, row, given, excluded, label, place, is_open, outcome, said, run, machine, machine_rank,
            purpose, person, decided_at, drawn_in, drawn_at, blind, _, asked, in_pool, kept, paid, score,
        ) in _fetch(sql, values):  # fmt: skip
            labeled, stands = label is not None, label is not None and label not in self._retired
            frozen = bool(in_pool and stands)
            in_pool = frozen and place >= lowest
            accepted = bool(is_open and stands and place >= rank and not asked)
            final, source = None, "none"
            if outcome is not None:  # a person's word, if it is one, comes before all others
                final, source = (names[said], "person") if outcome == "label" else (None, "none")
                if run is not None:
                    label, place = machine, machine_rank
            elif excluded is not None:
                outcome = "exclude"
            elif given is not None:
                final, source = names[given], "given"
            elif accepted and not blind:
                final, source = names[label], "machine"
            if blind or excluded is not None or (given is not None and outcome is None):
                label = place = None
            if self.whole:
                ours = given is None and excluded is None
                certified = ours and final is not None and (in_pool or source == "person")
                if ours and same_as is None:
                    self.labels.count(source, certified)
                    self.above_threshold += in_pool
                    if labeled and not frozen:
                        self.outside_pool.append(item)
                    if outcome is not None and final is None:
                        self.left_out.append({"id": item, "outcome": outcome})
            else:
                certified = in_pool and final is not None and source != "given"
                # What a raised threshold shut out needs no list: its rank tells.
                if in_pool and not certified and same_as is None and (outcome is not None or place >= rank):
                    self.left_out.append(
                        {"id": item, "rank": place, "predicted_label": names[label], "outcome": outcome}
                    )
            self.rows += 1
            self.by_source[source] += 1
            self.certified += certified
            record = {
                "id": item,
                "position": position,
                "label": final,
                "source": source,
                "predicted_label": names[label],
                "confidence": None if place is None else place // 1_000_000 / 1_000_000,
                "rank": place,
                "run": None if place is None else number if run is None else self._runs.get(run),
                "threshold": typed,
                "purpose": purpose,
                "sample": None if blind else drawn_in,
                "sample_rank": None if blind else drawn_at,
                "outcome": outcome,
                "answered_by": None if person is None else self._people.get(person) or self._name(person),
                "decided_at": _moment(decided_at),
                "same_as": same_as,
                "certified": certified,
            }
            if self.votes:
                record["votes"] = None if blind else self._said(kept, paid, score)
            yield record, row

    def _name(self, person: int) -> str:
        """A pseudonym for somebody whose first answer came between our two looks at the database."""
        return self._people.setdefault(person, f"R{len(self._people) + 1}")

    def _said(self, kept: Any, paid: int | None, score: float | None) -> dict[str, Any]:
        votes = orjson.loads(kept) if isinstance(kept, str) else kept or {}
        said = {name: [self._names.get(vote[0]), vote[1]] for name, vote in votes.items()}
        if score is not None and self.threshold is not None:
            said.setdefault(self.threshold.run.version.method, [self._names.get(paid), score])
        return said

    def write(self, format: str) -> Iterator[bytes]:
        """Yield the file in pieces: ``jsonl``, ``csv`` (exact) or ``csv-safe`` (for spreadsheets).

        Raises: NotExported for any other format, before the first piece.
        """
        check_format(format)
        return self._jsonl() if format == "jsonl" else self._csv(safe=format == "csv-safe")

    def _jsonl(self) -> Iterator[bytes]:
        piece = bytearray()
        for n, (record, row) in enumerate(self.records(), 1):
            piece += orjson.dumps(record)[:-1] + b',"row":' + _one_line(row) + b"}\n"
            if n % ROWS_IN_A_PIECE == 0:
                yield bytes(piece)
                piece.clear()
        yield bytes(piece)

    def _csv(self, safe: bool) -> Iterator[bytes]:
        keys = (*KEYS, "votes") if self.votes else KEYS
        columns = list(self.dataset.columns)
        header = columns + own_names(keys, columns)
        out = io.StringIO(newline="")
        writer = csv.writer(out, lineterminator="\r\n")
        if safe:
            yield b"\xef\xbb\xbf"
        writer.writerow([escape_cell(name) for name in header] if safe else header)
        for n, (record, row) in enumerate(self.records(), 1):
            cells = read_cells(row, columns) + [_cell(record[key]) for key in keys]
            writer.writerow([escape_cell(cell) for cell in cells] if safe else cells)
            if n % ROWS_IN_A_PIECE == 0:
                yield out.getvalue().encode()
                out.seek(0)
                out.truncate()
        yield out.getvalue().encode()


def check_format(format: str) -> None:
    """Raise NotExported, with one sentence, for a format that there is not."""
    if format not in FORMATS:
        raise NotExported(f"The format {format} does not exist yet; there are jsonl, csv and csv-safe.")


def pseudonyms(dataset: Dataset) -> dict[int, str]:
    """R1, R2, … in the order of each person's first answer, so that they never change."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT reviewer_id, min(id) FROM reviews_decision WHERE dataset_id = %s GROUP BY reviewer_id ORDER BY 2",
            [dataset.pk],
        )
        return {int(person): f"R{n}" for n, (person, _) in enumerate(cursor.fetchall(), 1)}


def own_names(keys: Sequence[str], taken: Sequence[str]) -> list[str]:
    """Our column names: with lh_ in front, and once more where the file has such a column itself."""
    names = []
    for key in keys:
        name = CSV_PREFIX + key
        while name in taken:
            name = CSV_PREFIX + name
        names.append(name)
    return names


def read_cells(row: str, columns: Sequence[str]) -> list[str]:
    """The cells of a stored row as text, in the order of the columns. Numbers keep the digits they were written with."""
    with suppress(orjson.JSONDecodeError):
        plain = orjson.loads(row)
        if all(type(value) is str for value in plain.values()):
            return [plain.get(column, "") for column in columns]
    loaded = json.loads(row, parse_int=str, parse_float=str, parse_constant=str)
    cells = []
    for column in columns:
        value = loaded.get(column)
        if isinstance(value, (dict, list)):
            value = json.dumps(json.loads(row)[column], ensure_ascii=False, separators=(",", ":"))
        cells.append(_cell(value))
    return cells


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return repr(value) if isinstance(value, float) else str(value)


def _one_line(row: str) -> bytes:
    text = row.strip()
    if "\n" in text or "\r" in text:  # between tokens only: inside a JSON text they are escaped
        text = text.replace("\r", " ").replace("\n", " ")
    return text.encode()


def _moment(value: Any) -> str | None:
    """A stored moment as ISO 8601 in UTC; SQLite hands out its text."""
    if value is None:
        return None
    text = value if isinstance(value, str) else value.isoformat(sep=" ")
    return text[:10] + "T" + text[11:].removesuffix("+00:00") + "Z"


def to_file(dataset: Dataset, format: str, path: Path, votes: bool = False) -> Summary:
    """Write an export beside its place and move it there when it is whole.

    Raises: NotExported when the format is unknown or the place cannot be written to.
    """
    check_format(format)
    export = Export(dataset, votes)
    try:
        with tempfile.NamedTemporaryFile(
            "wb", dir=path.parent, prefix=f".{path.name[:50]}.", delete=False
        ) as file:
            draft = Path(file.name)
            try:
                for piece in export.write(format):
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())
                draft.replace(path)
            except BaseException:
                with suppress(FileNotFoundError):
                    draft.unlink()
                raise
    except OSError as error:
        raise NotExported(f"{path} cannot be written: {error.strerror}.") from error
    return export.summary()


_RESERVED = {"CON", "PRN", "AUX", "NUL", *(f"{port}{n}" for port in ("COM", "LPT") for n in range(1, 10))}


def file_name(dataset: Dataset, format: str) -> str:
    """A file name that every system takes, from a dataset name that may be anything."""
    name = re.sub(r"[^\w.() -]+", "-", dataset.name, flags=re.UNICODE)
    name = re.sub(r"\s+", " ", name).strip(" .-")[:100].strip(" .-")
    if not name or name.split(".")[0].upper() in _RESERVED:
        name = f"dataset {dataset.pk} {name}".strip()
    return f"{name}.{'jsonl' if format == 'jsonl' else 'csv'}"


def disposition(name: str) -> str:
    """A Content-Disposition header by RFC 6266: plain ASCII for old clients, UTF-8 for the others."""
    plain = re.sub(r"[^A-Za-z0-9._() -]", "_", name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
