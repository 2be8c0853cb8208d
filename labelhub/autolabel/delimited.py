"""Delimited text becomes rows, and a row that cannot be read is named where it begins.

The csv module parses; this adds what it leaves out. Cells are never shifted: a row has as many as the layout
has columns, or it is bad. A quote that is never closed costs its own row, not the rest of the file: reading
goes on with the next line. Checks are made on a piece of text at a time, so a good row pays for little more
than the csv module.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable

from labelhub.autolabel.decode import UNREADABLE
from labelhub.autolabel.layout import (
    DELIMITERS,
    ENCODINGS,
    MAX_CELL,
    MAX_ROW,
    BadRow,
    Batch,
    Layout,
    TableError,
)
from labelhub.autolabel.spreadsheet import unescape_cell

NO_DELIMITER = "\ud800"  # cannot occur in decoded text, so that every line is one cell
TOO_LONG = f"a cell is longer than {MAX_CELL:,} characters"
UNCLOSED = "a quote opens in this row and is never closed properly"
AFTER_QUOTE = "text follows a closing quote; a quote inside a quoted cell is written twice"


class DelimitedParser:
    """Takes decoded text in pieces and collects rows, bad rows and blank ones in ``batch``.

    ``width`` is the number of cells that a row must have, or None to take rows as they come (to find the
    layout).
    """

    def __init__(self, layout: Layout, width: int | None) -> None:
        self.batch = Batch()
        self.header: list[str] | None = None
        self._layout = layout
        self._width = width
        self._number = 0  # data rows so far
        self._line = 0  # whole lines before `_rest`
        self._rest = ""  # an unfinished row
        self._rest_unreadable = False
        self._dropping = False  # inside a row that is too long to keep
        self._in_quotes = False  # inside its quotes, while dropping

    def feed(self, text: str, *, unreadable: bool = False, last: bool = False) -> None:
        """Parse the next piece of text; ``unreadable`` says that UNREADABLE may find something in it.

        Raises: TableError when the header cannot be read, or when the end of a dropped row cannot be found.
        """
        unreadable = unreadable or self._rest_unreadable
        text = self._rest + text
        cut = len(text)
        if not last and not text.endswith("\n"):  # keep the unfinished line, and a CR whose LF may still come
            cut = max(text.rfind("\n"), text.rfind("\r", 0, -1)) + 1
        lines = list(io.StringIO(text[:cut], newline=""))  # cuts at CRLF, LF and CR, and nowhere else
        done, waiting = 0, False
        while done < len(lines) and not waiting:
            if self._dropping:
                done = self._drop(lines, done)
            else:
                done, waiting = self._parse(lines, done, unreadable, last)
        self._line += done
        self._rest = "".join(lines[done:]) + text[cut:]
        if self._dropping or len(self._rest) > MAX_ROW:
            self._drop_rest(len(lines) - done)
        self._rest_unreadable = unreadable and bool(self._rest)
        if last and self._dropping and self._in_quotes:
            worst = self.batch.bad[-1]
            raise TableError(f"Row {worst.number} (line {worst.line}): {UNCLOSED}.", row=worst.number)

    def _parse(self, lines: list[str], start: int, unreadable: bool, last: bool) -> tuple[int, bool]:
        """Take rows from ``lines[start:]``; return the lines done, and whether the next row is unfinished."""
        csv.field_size_limit(MAX_CELL)  # of the whole process, and 131,072 unless told
        reader = self._reader(lines if not start else map(lines.__getitem__, range(start, len(lines))))
        rows: list[list[str]] = []
        ends: list[int] = []
        try:
            for row in reader:
                rows.append(row)
                ends.append(reader.line_num)
            error = ""
        except csv.Error as problem:
            error = str(problem)
        done = start + (ends[-1] if ends else 0)
        first = self._line + start + 1
        self._take(rows, [first, *(first + end for end in ends[:-1])], unreadable)
        if not error:
            return done, False
        if "unexpected end" in error and not last:
            return done, True
        reached = start + reader.line_num
        if "field limit" in error:
            if not self._odd_quotes(lines[done:reached]):
                self._reject(done, TOO_LONG)
                return reached, False
            if not self._are_rows(lines[done + 1 : reached]):
                self._reject(done, TOO_LONG)
                self._dropping = self._in_quotes = True
                return reached, False
        self._reject(done, UNCLOSED if reached > done + 1 or "unexpected end" in error else AFTER_QUOTE)
        return done + 1, False

    def _reader(self, lines: Iterable[str]) -> csv._reader:  # type: ignore[name-defined]
        return csv.reader(
            lines,
            delimiter=self._layout.delimiter or NO_DELIMITER,
            quotechar=self._layout.quote or None,
            quoting=csv.QUOTE_MINIMAL if self._layout.quote else csv.QUOTE_NONE,
            strict=True,
        )

    def _odd_quotes(self, lines: list[str]) -> bool:
        quote = self._layout.quote
        return bool(quote) and sum(line.count(quote) for line in lines) % 2 == 1

    def _are_rows(self, lines: list[str]) -> bool:
        """Whether lines without quotes are rows by themselves: then the quote opened before them was a slip."""
        if any(self._layout.quote in line for line in lines):
            return False
        widths = set(map(len, self._reader(lines[:20])))
        return len(widths) == 1 and widths != {1} and (self._width is None or widths == {self._width})

    def _take(self, rows: list[list[str]], lines: list[int], unreadable: bool) -> None:
        """Check rows and put them into the batch."""
        if self._layout.header and self.header is None:
            while rows and not any(map(str.strip, rows[0])):
                rows, lines = rows[1:], lines[1:]
                self.batch.blank += 1
            if not rows:
                return
            self.header, rows, lines = rows[0], rows[1:], lines[1:]
        careful = unreadable or self._layout.unescape
        if not careful and set(map(len, rows)) == {self._width} and all(map(any, rows)):
            self.batch.rows.extend(enumerate(rows, self._number + 1))
            self.batch.lines.extend(lines)
            self._number += len(rows)
            return
        for row, line in zip(rows, lines, strict=False):
            if not any(row) or (len(row) == 1 != self._width and not row[0].strip()):
                self.batch.blank += 1
                continue
            self._number += 1
            if reason := self._fault(row, unreadable):
                self.batch.bad.append(BadRow(self._number, line, reason))
                continue
            cells = [unescape_cell(cell) for cell in row] if self._layout.unescape else row
            self.batch.rows.append((self._number, cells))
            self.batch.lines.append(line)

    def _fault(self, row: list[str], unreadable: bool) -> str:
        """Return why a row is bad, or an empty text."""
        width, names = self._width, self._layout.columns
        if unreadable:
            for n, cell in enumerate(row):
                if byte := UNREADABLE.search(cell):
                    column = names[n] if n < len(names) else f"column {n + 1}"
                    byte_name = f"0x{ord(byte[0]) - 0xDC00:02X}"
                    place = f"at character {byte.start() + 1} of “{column}”"
                    return f"the byte {byte_name} {place} is not {ENCODINGS[self._layout.encoding]}"
        if width is None or len(row) == width:
            return ""
        cells, are = "cell" if len(row) == 1 else "cells", "is" if width == 1 else "are"
        reason = f"{len(row)} {cells} where {width} {are} due"
        if len(row) < width or not self._layout.delimiter:
            return reason
        return f"{reason}; a {DELIMITERS[self._layout.delimiter]} inside a cell needs quotes around the cell"

    def _reject(self, done: int, reason: str) -> None:
        """Make the row that begins at ``lines[done]`` a bad one."""
        if self._layout.header and self.header is None:
            raise TableError(f"The header (line {self._line + done + 1}) cannot be read: {reason}.")
        self._number += 1
        self.batch.bad.append(BadRow(self._number, self._line + done + 1, reason))

    def _drop(self, lines: list[str], done: int) -> int:
        """Pass over lines of an overlong row, until one ends outside its quotes; return the lines done."""
        while self._dropping and done < len(lines):
            self._in_quotes ^= self._odd_quotes(lines[done : done + 1])
            self._dropping = self._in_quotes
            done += 1
        return done

    def _drop_rest(self, whole_lines: int) -> None:
        """Forget the unfinished row, and know that it is being dropped."""
        if not self._dropping:
            self._reject(0, f"the row is longer than {MAX_ROW:,} characters")
            self._dropping = True
        self._line += whole_lines
        self._in_quotes ^= self._odd_quotes([self._rest])
        self._rest = "\r" if self._rest.endswith("\r") else ""
