"""CSV out: exact, or safe for spreadsheets and still reversible."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labelhub.autolabel.tables import (
    Layout,
    csv_writer,
    escape_cell,
    needs_escape,
    read_batches,
    sniff,
    unescape_cell,
)

NASTY = st.text(st.sampled_from("='\"+-@\t\r\n ＝a,;\ufeff\u200bé😀א\u202e")) | st.text()
STORABLE = NASTY.filter(lambda text: "\0" not in text)


def read(path: Path, layout: Layout) -> list[list[str]]:
    batches = list(read_batches(path, layout))
    assert not any(batch.bad for batch in batches)
    return [cells for batch in batches for _, cells in batch.rows]


# X01


@pytest.mark.parametrize(
    "cell",
    [
        "=1+1",
        "+1",
        "-1",
        "@SUM(A1)",
        "\t=1",
        "\rx",
        "\nx",
        "\0=1",
        " =1",
        '"=1',
        "'=1",
        " ' \"=cmd|' /C calc'!A0",
    ]
    + ["＝1+1", "＋1", "－1", "＠x", "\u200b=1", "\ufeff=1", "\xa0=1", "\x0b=1", "“=1”", "''=1", "\tx"],
)
def test_a_cell_that_a_spreadsheet_could_run_gets_an_apostrophe(cell):
    assert needs_escape(cell)
    assert escape_cell(cell) == "'" + cell
    assert unescape_cell(escape_cell(cell)) == cell


@pytest.mark.parametrize(
    "cell", ["", "text", "1+1=2", "'tis", "it's", "a\tb", '"quoted"', "2020-01-01", "é", "'", " "]
)
def test_an_ordinary_cell_is_left_alone(cell):
    assert escape_cell(cell) == cell == unescape_cell(cell)


@settings(max_examples=1000)
@given(NASTY)
def test_escaping_is_undone_exactly(text):
    assert unescape_cell(escape_cell(text)) == text


@settings(max_examples=500)
@given(NASTY)
def test_an_escaped_cell_begins_with_nothing_that_runs(text):
    assert escape_cell(text)[:1] not in tuple("=+-@\t\r\n\0＝＋－＠")


def test_the_spreadsheet_file_lists_the_cells_it_changed():
    changed: list[tuple[int, str]] = []
    rows = [["fine", "=1"], ["-2", None], ["ok", "ok"]]
    out = b"".join(
        csv_writer(["text", "=label"], rows, spreadsheet=True, on_escape=lambda *at: changed.append(at))
    )
    assert out.decode() == "\ufefftext,'=label\r\nfine,'=1\r\n'-2,\r\nok,ok\r\n"
    assert changed == [(0, "=label"), (1, "=label"), (2, "text")]


# X10


def test_the_exact_file_follows_rfc_4180():
    rows = [['comma, quote " and', "new\nline"], ["😀 é", "שלום"], ["cr\rhere", "=1"]]
    out = b"".join(csv_writer(["a", "b"], rows))
    expected = 'a,b\r\n"comma, quote "" and","new\nline"\r\n😀 é,שלום\r\n"cr\rhere",=1\r\n'
    assert out.decode() == expected
    assert list(csv.reader(io.StringIO(expected, newline=""), strict=True))[1:] == rows


def test_a_row_of_another_length_is_an_error_not_a_shifted_row():
    with pytest.raises(ValueError, match="row 2 has 1 cells for 2 columns"):
        b"".join(csv_writer(["a", "b"], [["1", "2"], ["3"]]))


def test_a_file_is_written_piece_by_piece():
    asked = 0

    def rows():
        nonlocal asked
        for asked in range(1, 100_001):
            yield ["x", "y"]

    pieces = csv_writer(["a", "b"], rows())
    next(pieces)
    assert asked <= 1000
    assert sum(piece.count(b"\r\n") for piece in pieces) == 99_000


# X02, round trips


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(STORABLE, STORABLE, st.sampled_from(["spam", "a,b", 'x"y\nz'])), min_size=1, max_size=8
    )
)
@pytest.mark.parametrize("spreadsheet", [False, True])
def test_what_is_exported_is_imported_again_exactly(tmp_path_factory, spreadsheet, rows):
    path = tmp_path_factory.mktemp("csv") / "x.csv"
    path.write_bytes(b"".join(csv_writer(["id", "text", "label"], rows, spreadsheet=spreadsheet)))
    names = ("id", "text", "label")
    assert read(path, Layout("csv", columns=names, unescape=spreadsheet)) == [list(row) for row in rows]


@pytest.mark.parametrize("spreadsheet", [False, True])
def test_our_own_exports_are_understood_without_help(tmp_path, spreadsheet):
    texts = ["=1+1", "- item", "“Quoted” text, with commas", "two\nlines", "שלום 😀", "plain words here"]
    rows = [[str(n), text * 3, "spam" if n % 2 else "ham"] for n, text in enumerate(texts)]
    path = tmp_path / "export.csv"
    path.write_bytes(b"".join(csv_writer(["id", "text", "lh_label"], rows, spreadsheet=spreadsheet)))
    layout = sniff(path)
    assert layout.columns == ("id", "text", "lh_label") and layout.header and layout.encoding_sure
    assert any("apostrophes" in question for question in layout.questions) == spreadsheet
    assert read(path, replace(layout, unescape=spreadsheet)) == rows
