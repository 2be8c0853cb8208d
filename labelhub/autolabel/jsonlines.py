"""JSON Lines in and out, every value exactly as it was written.

9007199254740993, 1e5 and 0.10 are different texts in a file and the same float in a program; so a number is
read as its text, and the object itself is kept as the text it came in. orjson reads the plain objects and is
strict where the standard library is lax; the standard library reads those with numbers that must not be
touched, under stricter hooks.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping
from typing import Any

import orjson

from labelhub.autolabel.decode import UNREADABLE
from labelhub.autolabel.layout import ENCODINGS, MAX_CELL, MAX_ROW, BadRow, Batch, Layout, TableError, clean

MAX_DEPTH = 100  # levels of lists and objects
MAX_DIGITS = 1000  # characters in a number
TOO_DEEP = f"lists and objects are nested deeper than {MAX_DEPTH} levels"
_SPACES = re.compile(r"[ \t\r\n]*")
_LINE_BREAK = re.compile(r"[ \t]*[\r\n][ \t\r\n]*")


class _Number(str):
    """A JSON number as it was written."""

    __slots__ = ()


class _Faulty(ValueError):
    """An object that is JSON by its grammar and still cannot be taken; the message is the reason."""


class _Reader:
    """The standard library's decoder; what it wrongly tolerates goes to ``fault``, and the place is kept."""

    def __init__(self) -> None:
        self.fault = ""
        self.decoder = json.JSONDecoder(
            object_pairs_hook=self._pairs,
            parse_int=self._number,
            parse_float=self._number,
            parse_constant=self._constant,
        )

    def _pairs(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1) if len(names) <= 1000 else "…"
            self.fault = f"the key “{clean(twice)[:80]}” stands twice in one object"
        return found

    def _number(self, text: str) -> _Number:
        if len(text) > MAX_DIGITS:
            self.fault = f"a number has {len(text):,} characters; LabelHub takes {MAX_DIGITS:,}"
        return _Number(text)

    def _constant(self, name: str) -> str:
        self.fault = f"{name} is not a JSON value"
        return name

    def read(self, text: str, at: int = 0) -> tuple[Any, int]:
        """Return the value that begins at a place of the text, and where it ends.

        Raises: _Faulty, ValueError for broken JSON.
        """
        self.fault = ""
        try:
            value, end = self.decoder.raw_decode(text, at)
        except RecursionError:
            raise _Faulty(TOO_DEEP) from None
        return value, end


def _render(value: Any) -> str:
    """Return the cell of a value: a string itself, null as nothing, the rest as JSON. Raises: _Faulty."""
    if type(value) is str:
        return value
    return "" if value is None else str(_dump(value, 1))


def _dump(value: Any, depth: int) -> str:
    """Return a value as JSON text, numbers as they were written."""
    if depth > MAX_DEPTH:
        raise _Faulty(TOO_DEEP)
    if isinstance(value, _Number):
        return value
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_quote(k)}: {_dump(v, depth + 1)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_dump(v, depth + 1) for v in value) + "]"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return _quote(value)


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


class JsonParser:
    """Takes decoded text in pieces and collects rows, bad rows and blank ones in ``batch``.

    ``layout.originals`` are the keys that become cells. With none, rows have no cells and ``batch.unlisted``
    gathers the keys (to find the layout).
    """

    def __init__(self, layout: Layout) -> None:
        self.batch = Batch(raws=[])
        self._keys = layout.originals
        self._known = frozenset(layout.originals)
        self._numbers = {
            key: re.compile(re.escape(_quote(key)) + r"[ \t]*:[ \t]*(-?[0-9][-+.0-9eE]*)")
            for key in self._keys
        }
        self._encoding = ENCODINGS[layout.encoding]
        self._is_list = layout.format == "json"
        self._reader = _Reader()
        self._number = 0  # data rows so far
        self._line = 0  # lines before `_rest`
        self._rest = ""  # an unfinished line, or list element
        self._unreadable = False  # UNREADABLE may find something in the text at hand
        self._dropping = False  # inside a line that is too long to keep
        self._expected = "["  # what may follow in a list file: its opening, a value, a comma, or nothing

    def feed(self, text: str, *, unreadable: bool = False, last: bool = False) -> None:
        """Parse the next piece of text. Raises: TableError where a list file breaks off."""
        self._unreadable = unreadable or (self._unreadable and bool(self._rest))
        if self._is_list:
            self._feed_list(self._rest + text, last)
        else:
            self._feed_lines(self._rest + text, last)

    def _feed_lines(self, text: str, last: bool) -> None:
        cut = len(text)
        if not last and not text.endswith("\n"):
            cut = max(text.rfind("\n"), text.rfind("\r", 0, -1)) + 1
        for line in io.StringIO(text[:cut], newline=""):
            self._line += 1
            if self._dropping:
                self._dropping = False
            elif line.isspace():
                self.batch.blank += 1
            else:
                self._add(line.rstrip("\r\n"))
        self._rest = text[cut:]
        if self._dropping or len(self._rest) > MAX_ROW:
            if not self._dropping:
                self._reject(self._line + 1, f"the line is longer than {MAX_ROW:,} characters")
            self._dropping = True
            self._rest = "\r" if self._rest.endswith("\r") else ""

    def _add(self, raw: str) -> None:
        """Make one line a row or a bad row."""
        try:
            self._check_bytes(raw)
            found = self._plain(raw)
            self._store(
                self._exact(raw) if found is None else found, raw, self._line, plain=found is not None
            )
        except _Faulty as fault:
            self._reject(self._line, str(fault))

    def _check_bytes(self, raw: str) -> None:
        if self._unreadable and (byte := UNREADABLE.search(raw)):
            value = ord(byte[0]) - 0xDC00
            raise _Faulty(f"the byte 0x{value:02X} at character {byte.start() + 1} is not {self._encoding}")

    def _plain(self, raw: str) -> dict[str, Any] | None:
        """Return an object without nesting, its values as cells, or None if `_exact` must look.

        Every quote outside of an escape belongs to a key or a string: so their count betrays a key that
        orjson dropped because it stands twice, and proves that a key is found in the text only where it is a
        key.
        """
        if "\\\\" in raw:
            return None
        try:
            found = orjson.loads(raw)
        except ValueError:
            return None
        if type(found) is not dict:
            return None
        kinds = list(map(type, found.values()))
        strings = kinds.count(str)
        if raw.count('"') - raw.count('\\"') != 2 * (len(kinds) + strings):
            return None
        if strings < len(kinds):
            for key, value in found.items():
                kind = type(value)
                if kind is bool:
                    found[key] = "true" if value else "false"
                elif kind is int or kind is float:
                    if pattern := self._numbers.get(key):
                        number = pattern.search(raw)
                        if number is None or len(number[1]) > MAX_DIGITS:
                            return None
                        found[key] = number[1]
                elif kind is dict or kind is list:
                    return None
        return found

    def _exact(self, raw: str) -> dict[str, Any]:
        """Return the object in a line with its numbers as they were written. Raises: _Faulty."""
        try:
            value, end = self._reader.read(raw, _end_of_spaces(raw, 0))
        except json.JSONDecodeError as error:
            raise _Faulty(f"not valid JSON, {error.msg} at character {error.pos + 1}") from None
        rest = raw[end:].strip(" \t\r\n")
        if rest:
            what = "a comma follows the object" if rest == "," else "something follows the JSON value"
            raise _Faulty(f"{what}; JSON Lines has one object a line and nothing else")
        return self._checked(value)

    def _checked(self, value: Any) -> dict[str, Any]:
        """Return the value if it is an object without a fault. Raises: _Faulty."""
        if self._reader.fault:
            raise _Faulty(self._reader.fault)
        if not isinstance(value, dict):
            raise _Faulty(f"this is {kind_of(value)}, not an object with named values")
        return value

    def _store(self, found: dict[str, Any], raw: str, line: int, *, plain: bool) -> None:
        """Put a row into the batch. Raises: _Faulty when a cell is too long or nested too deeply."""
        if plain:
            cells: list[str] = [found.get(key) or "" for key in self._keys]
        else:
            cells = [_render(found.get(key)) for key in self._keys]
        if not found.keys() <= self._known:
            self.batch.unlisted |= dict.fromkeys(key for key in found if key not in self._known)
        if "\\u" in raw:
            cleaned = [clean(cell) for cell in cells]
            self.batch.cleaned += sum(a != b for a, b in zip(cells, cleaned, strict=True))
            cells = cleaned
        if len(raw) > MAX_CELL and max(map(len, cells), default=0) > MAX_CELL:
            raise _Faulty(f"a cell is longer than {MAX_CELL:,} characters")
        if not found or (self._keys and not any(cells)):
            self.batch.blank += 1
            return
        self._number += 1
        self.batch.rows.append((self._number, cells))
        self.batch.lines.append(line)
        if self.batch.raws is not None:
            self.batch.raws.append(raw)

    def _reject(self, line: int, reason: str) -> None:
        self._number += 1
        self.batch.bad.append(BadRow(self._number, line, reason))

    def _feed_list(self, text: str, last: bool) -> None:
        """Take the elements of a list, which may spread over lines; ``_line`` is the line of the place."""
        self._line = self._line or 1
        at = 0
        while (at := self._pass_over(text, at, _end_of_spaces(text, at))) < len(text):
            here = text[at]
            if here == "[" and self._expected == "[":
                self._expected, at = "value or ]", at + 1
            elif here == "]" and self._expected in ("value or ]", ", or ]"):
                self._expected, at = "nothing", at + 1
            elif here == "," and self._expected == ", or ]":
                self._expected, at = "value", at + 1
            elif self._expected.startswith("value"):
                end = self._element(text, at, last)
                if not end:
                    break
                self._expected, at = ", or ]", self._pass_over(text, at, end)
            else:
                raise self._broken("something stands where a comma or the end of the list is due")
        self._rest = text[at:]
        if last and self._expected != "nothing":
            raise self._broken("the file ends before the list does")

    def _pass_over(self, text: str, begin: int, end: int) -> int:
        self._line += text.count("\n", begin, end)
        return end

    def _element(self, text: str, at: int, last: bool) -> int:
        """Make the element at a place a row or a bad row; return its end, or 0 if more text is needed."""
        try:
            value, end = self._reader.read(text, at)
        except json.JSONDecodeError as error:
            if not last and len(text) - at <= MAX_ROW:
                return 0
            raise self._broken(f"not valid JSON, {error.msg}") from None
        except _Faulty as fault:
            raise self._broken(str(fault)) from None
        if end == len(text) and not last:
            return 0  # a number could go on
        raw = _LINE_BREAK.sub(
            " ", text[at:end]
        )  # a text cannot hold a bare line break, so only spaces change
        try:
            self._check_bytes(raw)
            self._store(self._checked(value), raw, self._line, plain=False)
        except _Faulty as fault:
            self._reject(self._line, str(fault))
        return end

    def _broken(self, reason: str) -> TableError:
        row = self._number + 1
        return TableError(f"The list breaks off at row {row} (line {self._line}): {reason}.", row=row)


def _end_of_spaces(text: str, at: int) -> int:
    """Return the place of the first character from ``at`` on that JSON does not take for a space."""
    match = _SPACES.match(text, at)
    return match.end() if match else at


def kind_of(value: object) -> str:
    """Return what a JSON value is, in words."""
    if isinstance(value, _Number | int | float) and not isinstance(value, bool):
        return "a number"
    names: dict[type, str] = {dict: "an object", list: "a list", str: "a text", bool: "true or false"}
    return names.get(type(value), "null")


def jsonl_line(fields: Mapping[str, object], raw: str | None = None) -> bytes:
    """Return one line of JSON Lines, UTF-8 with its line end.

    Args:
        fields: keys and values in the order to be written; text must be free of lone surrogates, as read text
            is.
        raw: the JSON object that this row was read from (``Batch.raws``), put under the key "row" as it
            stands. It is not parsed again: what a reader here did not accept must not come here.
    Raises: TypeError for a value that JSON does not have.
    """
    if raw is not None:
        fields = {**fields, "row": orjson.Fragment(raw)}
    return orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE)
