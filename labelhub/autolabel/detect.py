"""What a file is, found from its content and never from its name: format, delimiter, header, columns.

What is not a table of text is refused by its name, with what to do about it.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from labelhub.autolabel.decode import UNREADABLE, guess_encoding, read_text
from labelhub.autolabel.delimited import DelimitedParser
from labelhub.autolabel.jsonlines import JsonParser, kind_of
from labelhub.autolabel.layout import DELIMITERS, MAX_CELL, NO_ROWS, Format, Layout, TableError, name_columns

SAMPLE = 1 << 19  # characters that are looked at for the layout
KEYS_SAMPLE = 1 << 24  # characters that are looked at for the keys of JSON objects
RECORDS = 1000  # rows that are looked at

_SAVE = "save the table as CSV and upload that"
_MAGIC: tuple[tuple[bytes, str], ...] = (
    (
        b"\xd0\xcf\x11\xe0",
        f"an old or a password-protected Excel file: open it in a spreadsheet program, {_SAVE}",
    ),
    (b"\x1f\x8b", "compressed with gzip: unpack it and upload what is inside"),
    (b"BZh", "compressed with bzip2: unpack it and upload what is inside"),
    (b"\xfd7zXZ\0", "compressed with xz: unpack it and upload what is inside"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd: unpack it and upload what is inside"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive: unpack it and upload the table inside"),
    (b"Rar!\x1a\x07", "a RAR archive: unpack it and upload the table inside"),
    (b"%PDF-", f"a PDF: copy its table into a spreadsheet program, {_SAVE}"),
    (b"{\\rtf", f"a rich-text document: {_SAVE}"),
    (b"SQLite format 3\0", "an SQLite database: export the table as CSV and upload that"),
    (b"ARROW1\0\0", "an Arrow file: export the table as CSV and upload that"),
    (b"\x93NUMPY", "a NumPy file: export the table as CSV and upload that"),
    (b"\x7fELF", "a program, not a table"),
    (b"\x89PNG", "an image, not a table"),
    (b"GIF8", "an image, not a table"),
    (b"\xff\xd8\xff", "an image, not a table"),
)
_PAGE = re.compile(
    rb"\s*(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html|head|body|table)\b", re.IGNORECASE | re.DOTALL
)
_NUMBER = re.compile(r"\s*[+-]?(?:\d[\d., ]*|\.\d+)(?:[eE][+-]?\d+)?\s*%?\s*")
_NAME = re.compile(r"[^\W\d][\w .:/()#-]{0,39}")
_USUAL_NAMES = frozenset(
    """
    id item_id uuid index key text texts content message body sentence comment review question title
    y description document tweet utterance input label labels gold class category target intent
    sentiment annotation prediction predicted predicted_label confidence score probability prob
    split date time source url author user name lang language topic rating stars
    """.split()
)


def sniff(path: str | Path) -> Layout:
    """Find out how a file is to be read, from its content.

    Raises: TableError for what is not a table of text, has no rows, or has more than MAX_COLUMNS columns.
    """
    path = Path(path)
    _refuse(path)
    guess = guess_encoding(path)
    text, whole = _head(path, guess.encoding)
    if not text.strip():
        raise TableError(NO_ROWS)
    _refuse_binary(text)
    layout = Layout("csv", guess.encoding, encoding_sure=guess.sure, encoding_why=guess.why)
    if kind := _json_format(text, whole):
        return with_columns(path, replace(layout, format=kind))
    layout, records = _delimiter(layout, text, whole)
    if records:
        header, sure = _header(records)
        layout = replace(layout, header=header, header_sure=sure)
        if whole and len(records) <= header:
            raise TableError(NO_ROWS)
    return with_columns(path, layout)


def with_columns(path: str | Path, layout: Layout) -> Layout:
    """Return the layout with the column names read again, and with the questions that are left.

    For use after any other field was changed; who has settled a question sets ``encoding_sure`` or ``header_sure``.

    Raises: TableError when there are none, or more than MAX_COLUMNS.
    """
    path = Path(path)
    if layout.format == "csv":
        text, whole = _head(path, layout.encoding)
        parser = DelimitedParser(layout, None)
        parser.feed(text, last=whole)
        rows = [cells for _, cells in parser.batch.rows[:RECORDS]]
        if layout.header and parser.header is not None:
            originals = parser.header
        elif rows:
            originals = [""] * Counter(map(len, rows)).most_common(1)[0][0]
        else:
            raise TableError(NO_ROWS)
        layout = replace(layout, columns=name_columns(originals), originals=tuple(originals))
        return replace(layout, questions=tuple(_questions(layout, rows)))
    finder = JsonParser(replace(layout, columns=(), originals=()))
    seen = 0
    for piece in read_text(path, layout.encoding):
        finder.feed(piece.text, last=piece.last)
        seen += len(piece.text)
        if seen > KEYS_SAMPLE:
            break
    keys = tuple(finder.batch.unlisted)
    if not keys:
        bad = finder.batch.bad
        raise TableError(f"The file has no row that can be read. {bad[0]}." if bad else NO_ROWS)
    layout = replace(layout, columns=name_columns(keys), originals=keys, header=True, header_sure=True)
    return replace(layout, questions=tuple(_questions(layout, [])))


def _head(path: Path, encoding: str) -> tuple[str, bool]:
    """Return the first SAMPLE characters (more if the first line is longer), and whether that is the file."""
    parts, size = [], 0
    for piece in read_text(path, encoding):
        parts.append(piece.text)
        size += len(piece.text)
        if piece.last:
            return "".join(parts), True
        if size >= SAMPLE and ("\n" in piece.text or "\r" in piece.text or size > 10 * MAX_CELL):
            break
    return "".join(parts), False


def _refuse(path: Path) -> None:
    """Raise TableError for an empty file and for known formats that are not text."""
    with path.open("rb") as file:
        head = file.read(4096)
        size = file.seek(0, 2)
        file.seek(max(0, size - 4))
        tail = file.read(4)
    if not head:
        raise TableError(NO_ROWS)
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        raise TableError(f"This file is {_zip_content(path)}.")
    if head.startswith(b"PAR1") and tail == b"PAR1":
        raise TableError(
            "This file is a Parquet file: export the table as CSV or JSON Lines and upload that."
        )
    if head.startswith(b"MZ") and b"\0" in head[:64]:
        raise TableError("This file is a program, not a table.")
    for magic, what in _MAGIC:
        if head.startswith(magic) and (magic != b"BZh" or head[4:10] == b"1AY&SY"):
            raise TableError(f"This file is {what}.")
    if _PAGE.match(head.removeprefix(b"\xef\xbb\xbf")):
        raise TableError(
            "This file is a web page, perhaps a sign-in page that was saved instead of the table."
        )
    if head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"<?xml"):
        raise TableError(f"This file is XML: open it in a spreadsheet program, {_SAVE}.")


def _zip_content(path: Path) -> str:
    """Return what a zip file is, by the names in its directory; nothing is unpacked."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()[:1000]
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return "a damaged archive or Excel file: upload it again, or save the table as CSV"
    if any(name.startswith("xl/") for name in names):
        return f"an Excel workbook: open it, {_SAVE} (one sheet a file)"
    if "content.xml" in names:
        return f"an OpenDocument file: open it, {_SAVE}"
    if any(name.startswith("word/") for name in names):
        return f"a Word document: put its table into a spreadsheet program, {_SAVE}"
    return "a ZIP archive: unpack it and upload the table inside"


def _refuse_binary(text: str) -> None:
    """Raise TableError for text that is mostly no text: control characters and bytes that no letter has."""
    text = text[:65536]
    odd = sum(c < " " and c not in "\t\r\n\f\v\x1b" for c in text) + len(UNREADABLE.findall(text))
    if odd > 0.1 * len(text):
        raise TableError(f"This file is not text: if it comes from a spreadsheet program, {_SAVE}.")


def _json_format(text: str, whole: bool) -> Format | None:
    """Return the JSON format of a text, or None. Raises: TableError for JSON that is no table."""
    begun = text.lstrip()
    lines = [line.strip() for line in re.split(r"[\r\n]+", begun, maxsplit=RECORDS)[:RECORDS]]
    lines = [line for line in (lines if whole else lines[:-1] or lines) if line]
    if begun.startswith("[") and (inside := begun[1:].lstrip()):
        if inside.startswith("{"):
            return "json"
        if inside.startswith("]") and whole and not inside[1:].strip():
            raise TableError(NO_ROWS)
    objects = [found for line in lines if (found := _object(line)) is not None]
    if len(lines) == len(objects) == 1 and whole:
        lists = [name for name, value in objects[0].items() if isinstance(value, list) and value]
        if any(isinstance(objects[0][name][0], dict) for name in lists):
            raise TableError(
                f"This file is one JSON object around a list: upload the list of “{lists[0]}” alone."
            )
    if len(objects) >= 0.5 * len(lines):
        return "jsonl"
    if not begun.startswith(("{", "[")):
        return None
    spread = "A JSON object in this file spreads over several lines: put each object on one line."
    try:
        value, end = json.JSONDecoder().raw_decode(begun)
    except RecursionError:
        raise TableError("This file is JSON nested too deeply to be a table.") from None
    except json.JSONDecodeError:
        if lines[0].endswith(("{", "[")) and len(lines) > 1 and re.match(r'[{["]', lines[1]):
            raise TableError(spread) from None
        return "jsonl" if re.match(r'\{\s*"(?:[^"\\]|\\.)*"\s*:', begun) else None
    if isinstance(value, dict):
        if end > len(lines[0]):
            raise TableError(spread)
        return "jsonl"
    if begun[end:].strip():
        return None
    inner = kind_of(value[0])
    raise TableError(f"This file is a JSON list whose first element is {inner}: upload a list of objects.")


def _object(line: str) -> dict[str, Any] | None:
    """Return the JSON object that a line is, or None."""
    if not line.startswith("{"):
        return None
    try:
        found = orjson.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _delimiter(layout: Layout, text: str, whole: bool) -> tuple[Layout, list[list[str]]]:
    """Choose the delimiter and the quote that cut the rows most evenly; return the first rows, header
    included.

    Where two do it alike, the rarer one in texts wins: commas are in every sentence.
    """
    layout = replace(layout, header=False)
    if not whole:
        text = text[: max(text.rfind("\n"), text.rfind("\r")) + 1] or text
    best, best_score, best_records = replace(layout, delimiter=""), 0.0, None
    for delimiter in ("\t", "|", ";", ","):
        if delimiter not in text:
            continue
        for quote in ('"', "") if '"' in text else ('"',):
            trial = replace(layout, delimiter=delimiter, quote=quote)
            records, bad = _records(trial, text)
            score = _evenness(records, bad)
            if score > best_score + 0.02:
                best, best_score, best_records = trial, score, records
    if best_records is None:
        best_records, bad = _records(best, text)
        if bad:
            best = replace(best, quote="")
            best_records, _ = _records(best, text)
    return best, best_records


def _records(layout: Layout, text: str) -> tuple[list[list[str]], int]:
    """Return the rows of a sample text, and how many more could not be read."""
    parser = DelimitedParser(layout, None)
    try:
        parser.feed(text, last=False)
        if not parser.batch.rows:  # one line without a line end, or a quote that is open to the end
            parser.feed("", last=True)
    except TableError:
        return [], 1
    return [cells for _, cells in parser.batch.rows[:RECORDS]], len(parser.batch.bad)


def _evenness(records: list[list[str]], bad: int) -> float:
    """Return the share of rows with the usual number of cells, 0 where that is one or there is no table."""
    if not records:
        return 0.0
    width, count = Counter(map(len, records)).most_common(1)[0]
    share = count / (len(records) + bad)
    first = len(records[0])
    if width > 1 and share >= (0.5 if first == width else 0.9):
        return share
    at_least = sum(len(row) >= first for row in records) / (len(records) + bad)
    return (
        0.3 * at_least if first > 1 and at_least >= 0.9 else 0.0
    )  # ragged: delimiters in cells without quotes


def _header(records: Sequence[list[str]]) -> tuple[bool, bool]:
    """Return whether the first row holds names, and whether that is clear."""
    first, rest = records[0], records[1:200]
    if not rest:
        usual = any(cell.strip().lower() in _USUAL_NAMES for cell in first)
        return usual or all(_NAME.fullmatch(c) and " " not in c for c in first), usual
    votes = 0
    for n, name in enumerate(map(str.strip, first)):
        cells = [row[n] for row in rest if n < len(row) and row[n].strip()]
        numbers = bool(cells) and sum(map(bool, map(_NUMBER.fullmatch, cells))) >= 0.9 * len(cells)
        long = sum(map(len, cells)) / len(cells) if cells else 0
        if name.lower().replace(" ", "_") in _USUAL_NAMES:
            votes += 3
        elif _NUMBER.fullmatch(name):
            votes -= 2
        elif name:
            votes += 2 if numbers else 0
            votes -= 2 if name in (cell.strip() for cell in cells) else 0
            votes -= 3 if "\n" in name or len(name) > 80 else 0
            if long >= 25:
                votes += 1 if len(name) < min(long / 3, 40) else -1
    likely = all(_NAME.fullmatch(name.strip()) for name in first if name.strip())
    return votes > 0 or (votes == 0 and likely), abs(votes) >= 2


def _questions(layout: Layout, rows: list[list[str]]) -> list[str]:
    """Put into words what a person should look at; ``rows`` are the first ones, without the header."""
    questions = []
    if not layout.encoding_sure:
        questions.append(f"Are all letters right? The encoding is a guess: {layout.encoding_why}.")
    if len(layout.columns) == 1 and layout.format == "csv":
        questions.append("Only one column was found: is that right, or is another delimiter used?")
    if not layout.header_sure:
        first = "the names of the columns" if layout.header else "data"
        questions.append(f"The first row was taken for {first}: is that right?")
    widths = Counter(map(len, rows))
    if widths and len(layout.columns) > 1:
        width = widths.most_common(1)[0][0]
        if width != len(layout.columns):
            questions.append(
                f"The header names {len(layout.columns)} columns, but most rows have {width} cells: is a name "
                f"missing, or a {DELIMITERS[layout.delimiter]} without quotes around its cell?"
            )
    if any(cell.startswith("'=") for row in rows for cell in row):
        questions.append(
            "Some cells begin with '= as in an export for spreadsheets: take the apostrophes away?"
        )
    return questions
