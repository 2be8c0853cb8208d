"""How an uploaded table is to be read, and what reading it gives: the words of the table readers.

A Layout is found by `tables.sniff` and may be corrected field by field with ``dataclasses.replace``; every
reader obeys it and guesses nothing by itself.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

MAX_COLUMNS = 500
MAX_CELL = 1_048_576  # characters in one cell
MAX_ROW = 10 * MAX_CELL  # characters in one row: bounds the memory that a file without line ends can take

Format = Literal["csv", "jsonl", "json"]
BadBytes = Literal["report", "replace"]
Progress = Callable[[int, int], None]  # bytes read so far, bytes in the file

ENCODINGS = {
    "utf-8": "Unicode (UTF-8)",
    "utf-16-le": "Unicode (UTF-16, little-endian)",
    "utf-16-be": "Unicode (UTF-16, big-endian)",
    "utf-32-le": "Unicode (UTF-32, little-endian)",
    "utf-32-be": "Unicode (UTF-32, big-endian)",
    "cp1252": "Western European (Windows-1252)",
    "latin-1": "Western European (ISO 8859-1)",
    "mac-roman": "Western European (old Macintosh)",
    "cp1250": "Central European (Windows-1250)",
    "cp1254": "Turkish (Windows-1254)",
    "cp1251": "Cyrillic (Windows-1251)",
    "koi8-r": "Cyrillic (KOI8-R)",
    "cp1253": "Greek (Windows-1253)",
    "cp1255": "Hebrew (Windows-1255)",
    "cp1256": "Arabic (Windows-1256)",
    "cp932": "Japanese (Shift-JIS)",
    "euc-jp": "Japanese (EUC-JP)",
    "gb18030": "Chinese, simplified (GB18030, GBK, GB2312)",
    "big5": "Chinese, traditional (Big5)",
    "cp949": "Korean (Windows-949, EUC-KR)",
}
DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "vertical bar", "": "none (one column)"}


class TableError(Exception):
    """A file, or a layout, that cannot be used; the message is one sentence for the person who uploaded it.

    Attributes:
        row: the data row (from 1) that the sentence is about, or None when it is about the file.
    """

    def __init__(self, message: str, row: int | None = None) -> None:
        super().__init__(message)
        self.row = row


NO_ROWS = "The file has no rows."


@dataclass(frozen=True, slots=True)
class Layout:
    """Everything a reader must know about a file.

    Attributes:
        format: "csv" for delimited text, "jsonl" for one JSON object a line, "json" for one list of JSON
            objects.
        encoding: a key of ENCODINGS, or another name for the same codec. A byte order mark is always skipped.
        encoding_sure: False when the encoding was guessed from the look of the letters: show the preview and
            ask.
        encoding_why: the evidence for the encoding, in words.
        delimiter: one character of DELIMITERS, or "" for one cell a line.
        quote: the quote character, or "" when quotes are ordinary text.
        header: the first record holds the column names (csv only).
        header_sure: False when the header was a close call.
        columns: unique names, one a column, in order. Their number is the width that every csv row must have,
            so a missing name can be added here.
        originals: the names as the file has them, parallel to ``columns``; the keys of a JSON object.
        bad_bytes: "report" makes a row with undecodable bytes a bad row, "replace" puts U+FFFD in their
            place.
        unescape: take away the apostrophes that a CSV export for spreadsheets put before dangerous cells.
        questions: what is doubtful about this layout, one sentence each, for the person who uploaded the
            file.
    """

    format: Format
    encoding: str = "utf-8"
    encoding_sure: bool = True
    encoding_why: str = ""
    delimiter: str = ","
    quote: str = '"'
    header: bool = True
    header_sure: bool = True
    columns: tuple[str, ...] = ()
    originals: tuple[str, ...] = ()
    bad_bytes: BadBytes = "report"
    unescape: bool = False
    questions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Accept lists, as they come back from JSON, and refuse what no reader could obey.

        Raises: TableError naming the field.
        """
        for name in ("columns", "originals", "questions"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.format not in ("csv", "jsonl", "json"):
            raise TableError(f"“{self.format}” is not a format LabelHub reads; choose csv, jsonl or json.")
        if self.delimiter not in DELIMITERS:
            raise TableError("The delimiter must be a comma, a semicolon, a tab, a vertical bar, or empty.")
        if self.quote not in ('"', "'", ""):
            raise TableError("The quote must be a double quote, a single quote, or empty.")
        if self.bad_bytes not in ("report", "replace"):
            raise TableError("Unreadable bytes can be reported or replaced, nothing else.")
        object.__setattr__(self, "encoding", known_encoding(self.encoding))


@dataclass(frozen=True, slots=True)
class Row:
    """One readable row. ``number`` counts data rows from 1, good and bad; ``line`` is where it begins in the
    file.

    ``cells`` are parallel to ``Layout.columns``. ``raw`` is the JSON object as it stands in the file, None
    for csv.
    """

    number: int
    line: int
    cells: list[str]
    raw: str | None = None


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be read, and why, in words that continue “Row 12 (line 13): ”."""

    number: int
    line: int
    reason: str

    def __str__(self) -> str:
        return f"Row {self.number} (line {self.line}): {self.reason}"


@dataclass(slots=True)
class Batch:
    """Some consecutive rows of a file, as lists because a million rows pass here.

    Attributes:
        rows: (number, cells) of each readable row; cells are parallel to ``Layout.columns``.
        lines: the line where each of ``rows`` begins.
        raws: the JSON text of each of ``rows``; None for csv.
        bad: the unreadable rows among them.
        blank: rows without any text, skipped; they have no number.
        cleaned: characters that no database stores, NUL (removed) and lone surrogates (now U+FFFD).
        unlisted: JSON keys met here, in order, that ``Layout.columns`` does not have; their values stay in
            ``raws``.
        bytes_read, bytes_total: how far into the file the reader is.
    """

    rows: list[tuple[int, list[str]]] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    raws: list[str] | None = None
    bad: list[BadRow] = field(default_factory=list)
    blank: int = 0
    cleaned: int = 0
    unlisted: dict[str, None] = field(default_factory=dict)
    bytes_read: int = 0
    bytes_total: int = 0


@dataclass(frozen=True, slots=True)
class Preview:
    """The first rows as a reader sees them: ``rows`` are cells parallel to ``columns``."""

    columns: tuple[str, ...]
    rows: list[list[str]]
    bad: list[BadRow]


def known_encoding(name: str) -> str:
    """Return the key of ENCODINGS for any name of that codec, "UTF8" giving "utf-8". Raises: TableError."""
    try:
        wanted = codecs.lookup(name).name
    except (LookupError, ValueError):
        wanted = ""
    for key in ENCODINGS:
        if wanted == codecs.lookup(key).name:
            return key
    raise TableError(f"“{name}” is not a text encoding that LabelHub knows.")


def name_columns(originals: Sequence[str]) -> tuple[str, ...]:
    """Return one usable, unique name for each original, in order.

    Outer spaces, NUL and lone surrogates go; an empty name becomes “column 3”; a repeated one gets a suffix,
    “text (2)”.

    Raises: TableError above MAX_COLUMNS.
    """
    if len(originals) > MAX_COLUMNS:
        raise TableError(
            f"The file has {len(originals):,} columns and LabelHub reads at most {MAX_COLUMNS}: "
            "keep the ones that matter and upload it again."
        )
    wished = [clean(name).strip() or f"column {n}" for n, name in enumerate(originals, 1)]
    taken: set[str] = set()
    names = []
    for name in wished:
        unique, copy = name, 2
        while unique in taken or (unique != name and unique in wished):
            unique, copy = f"{name} ({copy})", copy + 1
        taken.add(unique)
        names.append(unique)
    return tuple(names)


def clean(text: str) -> str:
    """Return a text that every database stores: without NUL, and U+FFFD for each lone surrogate."""
    if text.isascii():
        return text.replace("\0", "")
    return text.replace("\0", "").encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
