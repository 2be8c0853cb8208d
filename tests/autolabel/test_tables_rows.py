"""Rows of delimited text: all of them, none shifted, none coerced, the bad ones named where they begin."""

from __future__ import annotations

import csv
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labelhub.autolabel.decode import CHUNK
from labelhub.autolabel.delimited import DelimitedParser
from labelhub.autolabel.tables import (
    ENCODINGS,
    MAX_CELL,
    BadRow,
    Layout,
    Row,
    TableError,
    read_batches,
    read_rows,
    sniff,
)

AB = Layout("csv", columns=("a", "b"), originals=("a", "b"))


@pytest.fixture
def file(tmp_path: Path):
    """Write bytes or text to a file and return its path."""

    def write(content: bytes | str) -> Path:
        path = tmp_path / "upload.csv"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def read(path: Path, layout: Layout = AB) -> tuple[list[list[str]], list[str], int, int]:
    """Return the cells of the good rows, the bad rows as text, and the counts of blank rows and cleaned letters."""
    batches = list(read_batches(path, layout))
    rows = [cells for batch in batches for _, cells in batch.rows]
    bad = [str(row) for batch in batches for row in batch.bad]
    return rows, bad, sum(b.blank for b in batches), sum(b.cleaned for b in batches)


# U06


@pytest.mark.parametrize("end", ["\r\n", "\n", "\r"])
@pytest.mark.parametrize("last_end", [True, False])
def test_every_kind_of_line_end_gives_the_same_rows(file, end, last_end):
    text = end.join(["a,b", "1,x", '2,"y', 'z"', "3,w"]) + (end if last_end else "")
    assert read(file(text))[:2] == ([["1", "x"], ["2", f"y{end}z"], ["3", "w"]], [])


def test_mixed_line_ends_and_separators_that_are_no_line_ends(file):
    path = file('a,b\r\n1,x\r2,"p\nq\r\nr\rs"\n3,u\u2028v\x85w\x0bx\x0cy\x1cz\r\n')
    rows, bad, blank, _ = read(path)
    assert rows == [["1", "x"], ["2", "p\nq\r\nr\rs"], ["3", "u\u2028v\x85w\x0bx\x0cy\x1cz"]]
    assert not bad and not blank
    assert [row.line for row in read_rows(path, AB)] == [2, 3, 7]


@pytest.mark.parametrize("end", ["\r\n", "\n", "\r"])
def test_rows_that_meet_the_edge_of_a_piece_stay_whole(file, end):
    for shift in range(-4, 5):
        filler = "x" * (CHUNK - len(f"a,b{end}1,{end}") + shift - len('2,"'))
        path = file(f'a,b{end}1,{filler}{end}2,"é{end}""q""{end}"{end}3,w{end}')
        assert read(path)[:3] == ([["1", filler], ["2", f'é{end}"q"{end}'], ["3", "w"]], [], 0)


def test_a_cell_may_spread_over_many_pieces(file):
    cell = "line, of “text”\n" * (3 * CHUNK // 16)
    path = file(f'a,b\n1,"{cell}"\n2,x\n')
    assert len(cell) < MAX_CELL
    assert read(path)[:2] == ([["1", cell], ["2", "x"]], [])


# U05


def bad_byte_file(rows: int) -> bytes:
    return b"a,b\n" + b"1,\xc3\xa9t\xc3\xa9\n" * rows + b"2,caf\xe9 cr\xc3\xa8me\n" + b"3,\xc3\xa9t\xc3\xa9\n"


def test_a_bad_byte_late_in_the_file_names_its_row_line_and_byte(file):
    path = file(bad_byte_file(300_000))
    layout = sniff(path)
    assert layout.encoding == "utf-8" and not layout.encoding_sure
    bad = [row for batch in read_batches(path, layout) for row in batch.bad]
    assert bad == [BadRow(300_001, 300_002, "the byte 0xE9 at character 4 of “b” is not Unicode (UTF-8)")]


def test_bad_bytes_are_replaced_if_a_person_says_so(file):
    path = file(bad_byte_file(2))
    rows, bad, _, cleaned = read(path, replace(AB, bad_bytes="replace"))
    assert rows[2:] == [["2", "caf\ufffd crème"], ["3", "été"]]
    assert not bad and cleaned == 1


@pytest.mark.parametrize(
    ("encoding", "good", "wrong", "name"),
    [
        ("cp932", "日本", b"\x82\n", "0x82"),
        ("gb18030", "中文", b"\xff", "0xFF"),
        ("cp1252", "é", b"\x81", "0x81"),
        ("euc-jp", "日本", b"\xff", "0xFF"),
        ("cp949", "한국", b"\xff", "0xFF"),
    ],
)
def test_bytes_that_an_older_encoding_lacks_cost_one_row(file, encoding, good, wrong, name):
    path = file(
        f"a,b\n1,{good}\n".encode(encoding) + b"2," + wrong.rstrip(b"\n") + f"\n3,{good}\n".encode(encoding)
    )
    rows, bad, _, _ = read(path, replace(AB, encoding=encoding))
    assert rows == [["1", good], ["3", good]]
    assert len(bad) == 1 and bad[0].startswith(
        f"Row 2 (line 3): the byte {name} at character 1 of “b” is not"
    )


def test_a_file_cut_in_the_middle_of_a_letter_names_its_last_row(file):
    rows, bad, _, _ = read(file("a,b\n1,x\n2,é".encode()[:-1]))
    assert rows == [["1", "x"]]
    assert bad == ["Row 2 (line 3): the byte 0xC3 at character 1 of “b” is not Unicode (UTF-8)"]
    rows, bad, _, _ = read(file("a,b\n1,x\n2,y".encode("utf-16-le")[:-1]), replace(AB, encoding="utf-16-le"))
    assert rows == [["1", "x"]] and bad[0].startswith("Row 2 (line 3): the byte 0x79")


# U07, D07


def test_zero_characters_are_removed_and_counted(file):
    rows, bad, _, cleaned = read(file("a,b\n1,x\0y\0\n2,\x01\x1b[0m\x7f\n"))
    assert rows == [["1", "xy"], ["2", "\x01\x1b[0m\x7f"]]
    assert not bad and cleaned == 2


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_a_lone_surrogate_becomes_a_replacement_character_and_is_counted(file, encoding):
    path = file("a,b\n1,x\ud83dy\udc00 😀\n2,z\ud800".encode(encoding, "surrogatepass"))
    rows, bad, _, cleaned = read(path, replace(AB, encoding=encoding))
    assert rows == [["1", "x\ufffdy\ufffd 😀"], ["2", "z\ufffd"]]
    assert not bad and cleaned == 3


# U08


def test_a_short_row_and_a_long_row_are_bad_and_nothing_shifts(file):
    rows, bad, _, _ = read(file("a,b\n1,x\n2\n3,y,z\n4,w\n"))
    assert rows == [["1", "x"], ["4", "w"]]
    assert bad == [
        "Row 2 (line 3): 1 cell where 2 are due",
        "Row 3 (line 4): 3 cells where 2 are due; a comma inside a cell needs quotes around the cell",
    ]


def test_when_all_rows_are_one_cell_too_long_all_are_bad(file):
    rows, bad, _, _ = read(file("a,b\n" + "1,x,extra\n" * 1000))
    assert not rows and len(bad) == 1000


# U09


@pytest.mark.parametrize("tail", ["", '13,"quoted, later"\n', '13,"a ""b"" c"\n14,"d"\n'])
def test_an_unclosed_quote_names_its_own_row_and_costs_only_that(file, tail):
    good = [[str(n), f"text {n}"] for n in range(1, 13) if n != 10]
    lines = "".join(f"{n},text {n}\n" if n != 10 else '10,"text 10\n' for n in range(1, 13))
    rows, bad, _, _ = read(file("a,b\n" + lines + tail))
    assert rows[:11] == good
    assert len(rows) == 11 + len(list(csv.reader(tail.splitlines())))
    assert bad == ["Row 10 (line 11): a quote opens in this row and is never closed properly"]


def test_an_unclosed_quote_in_a_long_file_costs_only_its_row(file):
    lines = "".join(
        f"{n},some text of ordinary length here\n" if n != 10 else f'{n},"slip\n' for n in range(60_000)
    )
    path = file("a,b\n" + lines)
    assert path.stat().st_size > 2 * MAX_CELL
    rows, bad, _, _ = read(path)
    assert len(rows) == 59_999
    assert bad == ["Row 11 (line 12): a quote opens in this row and is never closed properly"]


def test_text_after_a_closing_quote_is_named(file):
    rows, bad, _, _ = read(file('a,b\n1,"x" y\n2,z\n'))
    assert rows == [["2", "z"]]
    assert bad == [
        "Row 1 (line 2): text follows a closing quote; a quote inside a quoted cell is written twice"
    ]


def test_a_header_that_cannot_be_read_is_an_error(file):
    with pytest.raises(TableError, match=r"^The header \(line 1\) cannot be read: a quote opens"):
        read(file('a,"b\n1,x\n'))


@pytest.mark.parametrize("content", ['"a"b\n', '"a\n"b\n', 'x,"\n'])
def test_a_file_full_of_stray_quotes_ends_in_good_time(file, content):
    path = file("a,b\n" + content * 100_000)
    rows, bad, blank, _ = read(path)
    assert len(bad) + len(rows) + blank >= 50_000


# U10


def test_blank_lines_are_counted_not_lost(file):
    rows, bad, blank, _ = read(file("\n\na,b\n1,x\n\n   \n,\n2,y\n\n"))
    assert rows == [["1", "x"], ["2", "y"]]
    assert not bad and blank == 6
    assert [row.line for row in read_rows(file("\n\na,b\n1,x\n\n   \n,\n2,y\n\n"), AB)] == [4, 8]


# U11

KEPT = [
    "NA",
    "None",
    "null",
    "nan",
    "n/a",
    "",
    "0012",
    "1e5",
    "TRUE",
    "2020-01-01",
    "9007199254740993",
    " x ",
    "-0",
    "1,5",
]


@pytest.mark.parametrize("value", KEPT)
def test_no_value_is_coerced(file, value):
    rows, bad, _, _ = read(file(f'a,b\n"{value}",x\n'))
    assert rows == [[value, "x"]] and not bad


# U12


def test_a_long_cell_is_accepted_up_to_the_limit(file):
    for length in (130_000, 140_000, MAX_CELL):
        rows, bad, _, _ = read(file(f"a,b\n1,{'x' * length}\n2,y\n"))
        assert [len(row[1]) for row in rows] == [length, 1] and not bad


@pytest.mark.parametrize("length", [MAX_CELL + 1, 10 * MAX_CELL])
@pytest.mark.parametrize("quote", ["", '"'])
def test_a_longer_cell_costs_its_row_only(file, length, quote):
    rows, bad, _, _ = read(file(f"a,b\n1,x\n2,{quote}{'é' * length}{quote}\n3,y\n"))
    assert rows == [["1", "x"], ["3", "y"]]
    assert len(bad) == 1 and bad[0].startswith("Row 2 (line 3): ") and "is longer than" in bad[0]


def test_a_longer_cell_of_many_lines_costs_its_row_only(file):
    lines = 'prose with, commas and ""quotes"" in it\n' * 50_000
    rows, bad, _, _ = read(file(f'a,b\n1,x\n2,"{lines}",\n3,"{lines}"\n4,y\n5,"z\n"\n'))
    assert rows == [["1", "x"], ["4", "y"], ["5", "z\n"]]
    assert [text.split(":")[0] for text in bad] == ["Row 2 (line 3)", "Row 3 (line 50004)"]


def test_a_file_that_is_one_endless_line_takes_little_memory(file):
    path = file(b"a,b\n1," + b"x" * 60_000_000 + b"\n2,y\n")
    tracemalloc.start()
    rows, bad, _, _ = read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert rows == [["2", "y"]] and bad == ["Row 1 (line 2): the row is longer than 10,485,760 characters"]
    assert peak < 60_000_000


def test_an_endless_quoted_cell_stops_the_reading_rather_than_lose_rows(file):
    with pytest.raises(TableError, match=r"^Row 1 \(line 2\): a quote opens") as error:
        read(file('a,b\n1,"' + "no row, here, at all\n" * 600_000))
    assert error.value.row == 1


# Batches, progress, memory


def test_batches_hold_every_row_once_and_progress_reaches_the_end(file):
    path = file("a,b\n" + "".join(f"{n},x\n" if n % 100 else f"{n}\n" for n in range(1, 40_001)))
    heard: list[tuple[int, int]] = []
    batches = list(read_batches(path, AB, size=700, on_progress=lambda *at: heard.append(at)))
    numbers = [number for batch in batches for number, _ in batch.rows]
    bad = [row.number for batch in batches for row in batch.bad]
    assert numbers == [n for n in range(1, 40_001) if n % 100]
    assert bad == list(range(100, 40_001, 100))
    assert max(len(batch.rows) for batch in batches) <= 700
    for batch in batches:
        assert [line - 1 for line in batch.lines] == [number for number, _ in batch.rows]
        assert batch.raws is None
    assert heard[-1] == (path.stat().st_size,) * 2 and heard == sorted(heard)
    assert batches[-1].bytes_read == batches[-1].bytes_total == path.stat().st_size


def test_rows_come_one_by_one_in_the_order_of_the_file(file):
    rows = list(read_rows(file("a,b\n1,x\n2\n3,y\n"), AB))
    assert rows == [Row(1, 2, ["1", "x"]), BadRow(2, 3, "1 cell where 2 are due"), Row(3, 4, ["3", "y"])]


def test_a_big_file_is_read_in_constant_memory(file):
    path = file("a,b\n" + "".join(f"{n},{'word ' * 30}\n" for n in range(200_000)))
    tracemalloc.start()
    count = sum(len(batch.rows) for batch in read_batches(path, AB))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 200_000
    assert peak < 12_000_000 < path.stat().st_size


# U37

ODD_TEXTS = [
    "😀 👩\u200d👩\u200d👧 🇩🇪",
    "e\u0301 versus é",
    "שלום עולם",
    "\u202eabc\u202c \u2066x\u2069",
    "zero\u200bwidth\u200d\ufeff",
    "tag \U000e0041\U000e007f",
    "\ufffe\uffff",
    "\ufeffmark first",
]


@pytest.mark.parametrize("text", ODD_TEXTS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-be", "gb18030"])
def test_unusual_letters_are_kept_exactly(file, text, encoding):
    rows, bad, _, cleaned = read(file(f"a,b\n1,{text}\n".encode(encoding)), replace(AB, encoding=encoding))
    assert rows == [["1", text]] and not bad and not cleaned


# Pieces


PIECES = st.lists(st.text(st.sampled_from('a,b"\r\n \u2028é'), max_size=8), max_size=12)


@settings(max_examples=400, deadline=None)
@given(PIECES, st.sampled_from(['"', ""]), st.sampled_from([",", ""]), st.booleans())
def test_where_the_text_is_cut_into_pieces_changes_nothing(pieces, quote, delimiter, header):
    layout = replace(AB, quote=quote, delimiter=delimiter, header=header)
    parsers = DelimitedParser(layout, 2), DelimitedParser(layout, 2)
    found = []
    for parser, parts in zip(parsers, (["".join(pieces)], pieces)):
        try:
            for part in parts:
                parser.feed(part)
            parser.feed("", last=True)
        except TableError as error:
            found.append(str(error))
        else:
            batch = parser.batch
            found.append((batch.rows, batch.lines, batch.bad, batch.blank, parser.header))
    assert found[0] == found[1]


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.sampled_from([",", ";", "\t", ""]), st.sampled_from(list(ENCODINGS)))
def test_no_bytes_crash_the_reader_and_each_row_is_told_once(tmp_path_factory, content, delimiter, encoding):
    path = tmp_path_factory.mktemp("bytes") / "x"
    path.write_bytes(content)
    layout = replace(AB, encoding=encoding, delimiter=delimiter, header=False)
    try:
        rows = list(read_rows(path, layout))
    except TableError:
        return
    assert [row.number for row in rows] == list(range(1, len(rows) + 1))
    for row in rows:
        if isinstance(row, Row):
            assert len(row.cells) == 2
            "".join(row.cells).encode()
            assert "\0" not in "".join(row.cells)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200) | st.text(st.sampled_from('{}[]":,a1\n\\ eE-.'), max_size=60).map(str.encode))
def test_no_bytes_crash_the_search_for_a_layout(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("bytes") / "x"
    path.write_bytes(content)
    try:
        layout = sniff(path)
        for row in read_rows(path, layout):
            assert isinstance(row, BadRow) or len(row.cells) == len(layout.columns)
    except TableError as error:
        assert str(error).endswith(".") and len(str(error)) < 1000
