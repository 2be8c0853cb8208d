"""JSON Lines, and one list of objects: every value as it was written, every bad line named."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labelhub.autolabel.decode import CHUNK
from labelhub.autolabel.jsonlines import JsonParser
from labelhub.autolabel.layout import Batch
from labelhub.autolabel.tables import (
    MAX_CELL,
    Layout,
    TableError,
    jsonl_line,
    label_counts,
    preview,
    read_batches,
    read_rows,
    sniff,
)

AB = Layout("jsonl", columns=("a", "b"), originals=("a", "b"))


@pytest.fixture
def file(tmp_path: Path):
    """Write bytes or text to a file and return its path."""

    def write(content: bytes | str) -> Path:
        path = tmp_path / "upload"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def whole(path: Path, layout: Layout = AB) -> Batch:
    """Return all rows of a file as one batch."""
    all_rows = Batch(raws=[])
    for batch in read_batches(path, layout):
        all_rows.rows += batch.rows
        all_rows.lines += batch.lines
        all_rows.raws += batch.raws
        all_rows.bad += batch.bad
        all_rows.blank += batch.blank
        all_rows.cleaned += batch.cleaned
        all_rows.unlisted |= batch.unlisted
    return all_rows


def cells(path: Path, layout: Layout = AB) -> list[list[str]]:
    return [row for _, row in whole(path, layout).rows]


# U11 and U19: values


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        ('"NA"', "NA"),
        ('"0012"', "0012"),
        ("null", ""),
        ("true", "true"),
        ("false", "false"),
        ("9007199254740993", "9007199254740993"),
        ("123456789012345678901234567890", "123456789012345678901234567890"),
        ("18446744073709551616", "18446744073709551616"),
        ("1e5", "1e5"),
        ("1E+400", "1E+400"),
        ("0.10", "0.10"),
        ("-0", "-0"),
        ("-0.0", "-0.0"),
        ("0.1000000000000000055511151231257827", "0.1000000000000000055511151231257827"),
        ('{"n": 1e5, "t": ["é", null, true, false, {}]}', '{"n": 1e5, "t": ["é", null, true, false, {}]}'),
        ("[]", "[]"),
        ('[ 1.0,\t"a\\"b" ]', '[1.0, "a\\"b"]'),
        ('"a\\\\"', "a\\"),
        ('"tab\\tnew\\nline \\u00e9 \\ud83d\\ude00"', "tab\tnew\nline é 😀"),
        ('"\\"b\\": 5"', '"b": 5'),
    ],
)
@pytest.mark.parametrize("other", ['"x"', "7", "{}"])
def test_every_value_is_read_as_it_was_written(file, value, cell, other):
    raw = f'  {{"a":{value} , "b" :{other}}} '
    batch = whole(file(raw + "\r\n"))
    assert batch.rows == [(1, [cell, other.strip('"')])]
    assert batch.raws == [raw]
    assert all(type(text) is str for text in batch.rows[0][1])


def test_rows_with_different_keys_make_the_union_of_columns(file):
    path = file(
        '{"a":"1","b":"2"}\n{"c":{"d":[1,"x"]},"a":"3"}\n{"b":null}\n{"text ":"4","text":"5","":"6"}\n'
    )
    layout = sniff(path)
    assert layout.columns == ("a", "b", "c", "text", "text (2)", "column 6")
    assert layout.originals == ("a", "b", "c", "text ", "text", "")
    batch = whole(path, layout)
    assert [row for _, row in batch.rows] == [
        ["1", "2", "", "", "", ""],
        ["3", "", '{"d": [1, "x"]}', "", "", ""],
        ["", "", "", "4", "5", "6"],
    ]
    assert batch.blank == 1


def test_a_key_that_comes_too_late_for_the_layout_is_told_and_kept(file):
    batch = whole(file('{"a":"x"}\n{"a":"y","late":1,"later":"z"}\n'))
    assert list(batch.unlisted) == ["late", "later"]
    assert batch.raws[1] == '{"a":"y","late":1,"later":"z"}'


# U18


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("not json", "not valid JSON, Expecting value at character 1"),
        ('{"a": "x"', "not valid JSON, Expecting ',' delimiter at character 10"),
        ('{"a": "x",}', "not valid JSON, "),
        ("{'a': 'x'}", "not valid JSON, Expecting property name enclosed in double quotes at character 2"),
        ('{"a": 01}', "not valid JSON, Expecting ',' delimiter at character 8"),
        ('{"a": "tab\there"}', "not valid JSON, Invalid control character at at character 11"),
        ('{"a":"x"} {"a":"y"}', "something follows the JSON value; JSON Lines has one object a line"),
        ('{"a":"x"},', "a comma follows the object; JSON Lines has one object a line"),
        ('["x"]', "this is a list, not an object with named values"),
        ('"x"', "this is a text, not an object"),
        ("17", "this is a number, not an object"),
        ("true", "this is true or false, not an object"),
        ("null", "this is null, not an object"),
        ('{"a": NaN}', "NaN is not a JSON value"),
        ('{"a": [-Infinity]}', "-Infinity is not a JSON value"),
        ('{"a": "x", "a": "y"}', "the key “a” stands twice in one object"),
        ('{"a": 1, "a": 2}', "the key “a” stands twice in one object"),
        ('{"a": "\\\\", "a": "x\\\\"}', "the key “a” stands twice in one object"),
        ('{"a": {"b": 1, "b": 2}}', "the key “b” stands twice in one object"),
        ('{"a": ' + "1" * 5000 + "}", "a number has 5,000 characters; LabelHub takes 1,000"),
        ('{"a": 0.' + "1" * 5000 + "}", "a number has 5,002 characters"),
        ('{"a": ' + "[" * 100_000, "lists and objects are nested deeper than 100 levels"),
        ('{"a": ' + "[" * 101 + "]" * 101 + "}", "lists and objects are nested deeper than 100 levels"),
        ('{"a": ' + '{"a":' * 2000 + "1" + "}" * 2001, "lists and objects are nested deeper than 100 levels"),
        ('{"a": "' + "x" * (MAX_CELL + 1) + '"}', "a cell is longer than 1,048,576 characters"),
        ('{"a": "' + "x" * 11_000_000 + '"}', "the line is longer than 10,485,760 characters"),
    ],
)
def test_a_bad_line_in_the_middle_is_named_and_the_others_are_read(file, line, reason):
    batch = whole(file('{"a":"1"}\n\n' + line + '\n{"a":"2","b":3}\n'))
    assert batch.rows == [(1, ["1", ""]), (3, ["2", "3"])]
    assert [(row.number, row.line) for row in batch.bad] == [(2, 3)]
    assert batch.bad[0].reason.startswith(reason)
    assert batch.lines == [1, 4] and batch.blank == 1


def test_nesting_is_taken_up_to_the_limit(file):
    assert cells(file('{"a": ' + "[" * 100 + "]" * 100 + "}\n")) == [["[" * 100 + "]" * 100, ""]]


def test_a_bad_first_line_does_not_hide_json_lines(file):
    path = file('{"a":"x",\n{"a":"y"}\n{"a":"z"}\n')
    layout = sniff(path)
    assert layout.format == "jsonl"
    seen = preview(path, layout)
    assert seen.rows == [["y"], ["z"]] and seen.bad[0].line == 1


def test_when_no_line_can_be_read_the_first_reason_is_given(file):
    with pytest.raises(
        TableError, match=r"no row that can be read. Row 1 \(line 1\): a comma follows the object"
    ):
        sniff(file('{"a":"x"},\n{"a":"y"},\n'))


def test_a_byte_order_mark_and_empty_objects_do_no_harm(file):
    path = file("\ufeff" + '{"a":"x"}\n{}\n{"a":"y"}')
    assert sniff(path).columns == ("a",)
    batch = whole(path)
    assert [row[0] for _, row in batch.rows] == ["x", "y"] and batch.blank == 1


def test_a_line_separator_inside_a_text_does_not_cut_it(file):
    path = file('{"a":"x\u2028y\x85z"}\n' * 3)
    assert cells(path, sniff(path)) == [["x\u2028y\x85z"]] * 3


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_kind_of_line_end_gives_the_same_rows(file, end):
    batch = whole(file(end.join(['{"a":"1"}', "", '{"a":"2"}', '{"a":"3"}'])))
    assert batch.rows == [(1, ["1", ""]), (2, ["2", ""]), (3, ["3", ""])]
    assert batch.lines == [1, 3, 4] and batch.blank == 1


def test_lines_that_meet_the_edge_of_a_piece_stay_whole(file):
    for shift in range(-3, 4):
        filler = "x" * (CHUNK - len('{"a":""}\r\n') + shift)
        batch = whole(file(f'{{"a":"{filler}"}}\r\n\r\n{{"a":"é"}}\r\n'))
        assert [row[0] for _, row in batch.rows] == [filler, "é"] and batch.lines == [1, 3]


# U05, U07, U20: bytes and letters


def test_an_unreadable_byte_names_its_line(file):
    batch = whole(file(b'{"a":"x"}\n{"a":"caf\xe9"}\n'))
    assert [str(row) for row in batch.bad] == [
        "Row 2 (line 2): the byte 0xE9 at character 10 is not Unicode (UTF-8)"
    ]


def test_escaped_zeros_and_lone_surrogates_are_cleaned_in_cells_and_kept_in_the_original(file):
    raws = ['{"a":"x\\u0000y"}', '{"a":"\\ud800z","b":1}', '{"a":"\\ud83d\\ude00"}', '{"a":["\\udc00"]}']
    batch = whole(file("\n".join(raws)))
    assert [row for _, row in batch.rows] == [["xy", ""], ["\ufffdz", "1"], ["😀", ""], ['["\ufffd"]', ""]]
    assert batch.raws == raws and batch.cleaned == 3
    assert not batch.bad


def test_keys_with_odd_letters_are_names_like_others(file):
    path = file('{"__class__":1,"a.b":2,"q\\"uote":3,"\\ud800":4,"\\u0000":5,"😀":6,"new\\nline":7.50}\n')
    layout = sniff(path)
    assert layout.columns == ("__class__", "a.b", 'q"uote', "\ufffd", "column 5", "😀", "new\nline")
    assert cells(path, layout) == [["1", "2", "3", "4", "5", "6", "7.50"]]
    assert label_counts(path, layout, 'q"uote') == {"3": 1}


# A list of objects


@pytest.mark.parametrize("indent", [None, 1, 4])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_a_list_of_objects_is_read_like_json_lines(file, indent, ends):
    data = [{"a": f"line\none [, {n}] é", "b": {"n": [n, "x  y"]}} for n in range(5000)]
    path = file("\ufeff \n" + json.dumps(data, indent=indent, ensure_ascii=False).replace("\n", ends) + "\n")
    layout = sniff(path)
    assert layout.format == "json" and layout.columns == ("a", "b")
    batch = whole(path, layout)
    assert not batch.bad and not any("\n" in raw or "\r" in raw for raw in batch.raws)
    assert [json.loads(raw) for raw in batch.raws] == data
    assert batch.rows[4999][1] == ["line\none [, 4999] é", '{"n": [4999, "x  y"]}']
    assert batch.lines[:2] == ([2, 2] if indent is None else [3, 12])


def test_a_bad_element_of_a_list_is_named_and_the_others_are_read(file):
    path = file('[{"a": 1e5},\n{"a": 1, "a": 2}, 17,\n{}, {"a": "x"}]')
    batch = whole(path, sniff(path))
    assert batch.rows == [(1, ["1e5"]), (4, ["x"])]
    assert [str(row) for row in batch.bad] == [
        "Row 2 (line 2): the key “a” stands twice in one object",
        "Row 3 (line 2): this is a number, not an object with named values",
    ]
    assert batch.blank == 1


@pytest.mark.parametrize(
    ("content", "row"),
    [
        ('[{"a": 1}, {"a": 2', 2),
        ('[{"a": 1}, {"a": 2}', 3),
        ('[{"a": 1}, {"a" 2}, {"a": 3}]', 2),
        ('[{"a": 1} {"a": 2}]', 2),
        ('[{"a": 1}]\n[{"a": 2}]', 2),
        ('[{"a": 1},]', 2),
        ('[{"a": ' + "[" * 100_000, 1),
    ],
)
def test_a_list_that_breaks_off_is_an_error_with_its_row(file, content, row):
    with pytest.raises(TableError) as error:
        whole(file(content), replace(AB, format="json"))
    assert error.value.row == row and f"at row {row} (line " in str(error.value)


# Speed: a floor that only a change of the algorithm can break


def test_a_long_row_of_pieces_is_not_read_over_and_over(file):
    begun = time.perf_counter()
    path = file("[" + ",".join('{"a":' + json.dumps("x" * 200_000) + "}" for _ in range(200)) + "]")
    assert len(cells(path, sniff(path))) == 200
    assert time.perf_counter() - begun < 20


# The way out


@given(
    st.dictionaries(
        st.text(max_size=5),
        st.recursive(
            st.none()
            | st.booleans()
            | st.floats(allow_nan=False, allow_infinity=False)
            | st.integers()
            | st.text(),
            lambda inner: (
                st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
            ),
            max_leaves=5,
        ),
        min_size=1,
        max_size=4,
    ),
    st.booleans(),
)
def test_the_original_of_a_row_leaves_exactly_as_it_came(tmp_path_factory, row, escape):
    raw = json.dumps(row, ensure_ascii=escape)
    path = tmp_path_factory.mktemp("json") / "x"
    path.write_text(raw + "\n", encoding="utf-8")
    layout = Layout("jsonl", columns=tuple(f"c{n}" for n in range(len(row))), originals=tuple(row))
    try:
        found = next(iter(read_rows(path, layout)))
    except TableError:
        assert all(value is None or value == "" or value == "\0" * len(str(value)) for value in row.values())
        return
    assert found.raw == raw
    line = jsonl_line({"id": 1, "label": "é\n"}, found.raw)
    assert line == '{"id":1,"label":"é\\n","row":'.encode() + raw.encode() + b"}\n"
    for cell, value in zip(found.cells, row.values(), strict=True):
        if isinstance(value, str):
            assert cell == value.replace("\0", "")
        elif value is not None:
            assert json.loads(cell) == value


def test_a_line_without_an_original_is_plain_json():
    fields = {"id": 9007199254740993, "label": None, "confidence": 0.5, "row": {"text": 'a"b\u2028'}}
    line = jsonl_line(fields)
    assert line.endswith(b"\n") and line.count(b"\n") == 1
    assert orjson.loads(line) == fields and list(orjson.loads(line)) == list(fields)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.text(st.sampled_from('{}[]":,a1\r\n\\ '))
        | st.sampled_from(['{"a":"b"}', '{"b":1},\n', "[\n", "]", "\r"]),
        max_size=10,
    ),
    st.sampled_from(["jsonl", "json"]),
)
def test_where_the_text_is_cut_into_pieces_changes_nothing(pieces, kind):
    found = []
    for parts in (["".join(pieces)], pieces):
        parser = JsonParser(replace(AB, format=kind))
        try:
            for part in parts:
                parser.feed(part)
            parser.feed("", last=True)
        except TableError as error:
            found.append((error.row, len(parser.batch.rows)))
        else:
            batch = parser.batch
            found.append((batch.rows, batch.lines, batch.raws, batch.bad, batch.blank))
    assert found[0] == found[1]
