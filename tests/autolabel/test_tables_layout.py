"""What a file is: encoding, delimiter, header, columns, and what is refused."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from labelhub.autolabel.tables import (
    Layout,
    TableError,
    alike,
    label_counts,
    preview,
    read_batches,
    sniff,
    with_columns,
)

SENTENCES = {
    "cp1252": "Les élèves étaient déjà là — “voilà” coûte 5 € à peine.",
    "mac-roman": "Les élèves étaient déjà là — “voilà” coûte 5 € à peine.",
    "cp1250": "Dziś świeci słońce, więc idziemy się przejść.",
    "cp1254": "Bugün hava çok güzel, şimdi parkta yürüyüşe çıktık.",
    "cp1251": "Сегодня хорошая погода, и мы пошли гулять в парк.",
    "koi8-r": "Сегодня хорошая погода, и мы пошли гулять в парк.",
    "cp1253": "Σήμερα ο καιρός είναι καλός και πήγαμε στο πάρκο.",
    "cp1255": "היום מזג האוויר יפה והלכנו לפארק",
    "cp1256": "الطقس جميل اليوم وذهبنا إلى الحديقة",
    "cp932": "今日は天気がいいので、公園に行きました。",
    "euc-jp": "今日は天気がいいので、公園に行きました。",
    "gb18030": "今天天气很好，我们去公园散步了。这个产品的质量不错。",
    "big5": "今天天氣很好，我們去公園散步了。這個產品的品質不錯。",
    "cp949": "오늘은 날씨가 좋아서 공원에 갔어요.",
}
WIDE = ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"]


@pytest.fixture
def file(tmp_path: Path):
    """Write bytes or text to a file and return its path."""

    def write(content: bytes | str, name: str = "upload.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def cells(path: Path, layout: Layout) -> list[list[str]]:
    return [row for batch in read_batches(path, layout) for _, row in batch.rows]


# U01


@pytest.mark.parametrize(
    "content",
    ["", "\0", "\0", "\n\n\r\n", "   \n\t\n", "\ufeff", "text,label\n", "text,label", "[]", "{}\n{}\n"],
)
def test_it_refuses_a_file_without_rows(file, content):
    with pytest.raises(TableError, match=r"^The file has no rows\.$"):
        sniff(file(content))


def test_a_reader_too_refuses_a_file_without_rows(file):
    path = file("text,label\n\n\n")
    with pytest.raises(TableError, match=r"^The file has no rows\.$"):
        list(read_batches(path, Layout("csv", columns=("text", "label"))))


# U02, U03, U04


def test_a_byte_order_mark_is_no_part_of_the_first_name(file):
    layout = sniff(file(b"\xef\xbb\xbftext,label\nhello,a\n"))
    assert layout.columns == ("text", "label")
    assert layout.encoding == "utf-8" and layout.encoding_sure


@pytest.mark.parametrize("encoding", WIDE)
@pytest.mark.parametrize("mark", [True, False])
@pytest.mark.parametrize(
    "sentence", ["It is fine today", SENTENCES["cp1251"], SENTENCES["gb18030"], "a 😀 b"]
)
def test_it_reads_utf_16_and_32_with_and_without_a_mark(file, encoding, mark, sentence):
    text = f"id;text\r\n1;{sentence}\r\n2;x\r\n"
    path = file((("\ufeff" if mark else "") + text).encode(encoding))
    layout = sniff(path)
    assert (layout.encoding, layout.encoding_sure) == (encoding, mark)
    assert layout.columns == ("id", "text")
    assert cells(path, layout) == [["1", sentence], ["2", "x"]]


def test_stray_zero_bytes_do_not_make_a_text_utf_16(file):
    layout = sniff(file("text,label\nan\0d so\0 on,a\nmore,b\n"))
    assert layout.encoding == "utf-8"


@pytest.mark.parametrize("encoding", SENTENCES)
@pytest.mark.parametrize("rows", [1, 200])
def test_it_tells_older_encodings_by_their_letters_and_asks(file, encoding, rows):
    sentence = SENTENCES[encoding]
    path = file(b"text;label\n" + f"{sentence};a\n".encode(encoding) * rows)
    layout = sniff(path)
    assert layout.encoding == encoding
    assert not layout.encoding_sure
    assert "encoding is a guess" in layout.questions[0]
    assert cells(path, layout) == [[sentence, "a"]] * rows


def test_latin_1_reads_right_as_its_superset(file):
    path = file("text,label\nGröße und Straße,a\n".encode("latin-1"))
    assert cells(path, sniff(path)) == [["Größe und Straße", "a"]]


def test_one_curly_quote_late_in_an_ascii_file_is_seen(file):
    path = file(b"text,label\n" + b"plain words,a\n" * 60_000 + b"It\x92s late,b\n")
    layout = sniff(path)
    assert layout.encoding == "cp1252" and not layout.encoding_sure
    assert cells(path, layout)[-1] == ["It’s late", "b"]


def test_a_few_bad_bytes_do_not_make_utf_8_another_encoding(file):
    path = file(b"text,label\n" + "Überall schöne Wörter,a\n".encode() * 50 + b"bad \xff,a\n")
    layout = sniff(path)
    assert layout.encoding == "utf-8" and not layout.encoding_sure


def test_a_corrected_encoding_redraws_the_preview(file):
    path = file("имя,текст\nа,Сегодня хорошая погода\n".encode("cp1251"))
    wrong = with_columns(path, replace(sniff(path), encoding="cp1252"))
    assert wrong.columns[0] != "имя"
    right = with_columns(path, replace(wrong, encoding="windows-1251"))
    assert right.encoding == "cp1251"
    assert preview(path, right).rows == [["а", "Сегодня хорошая погода"]]
    assert right.columns == ("имя", "текст")


@pytest.mark.parametrize("name", ["rot13", "base64", "unicode_escape", "nonsense", "a\0b", ""])
def test_it_refuses_an_encoding_that_is_none(name):
    with pytest.raises(TableError, match="not a text encoding"):
        Layout("csv", name)


# U14, U42


def test_repeated_and_empty_names_get_suffixes_and_keep_the_originals(file):
    layout = sniff(file('text,,text,text (2),,"say ""hi""",a.b,__class__,😀\n' + "x," * 8 + "y\n"))
    assert layout.columns == (
        "text",
        "column 2",
        "text (3)",
        "text (2)",
        "column 5",
        'say "hi"',
        "a.b",
        "__class__",
        "😀",
    )
    assert layout.originals == ("text", "", "text", "text (2)", "", 'say "hi"', "a.b", "__class__", "😀")


@pytest.mark.parametrize("columns", [501, 2000])
def test_it_refuses_too_many_columns(file, columns):
    names = ",".join(f"c{n}" for n in range(columns))
    with pytest.raises(TableError, match=f"{columns:,} columns"):
        sniff(file(f"{names}\n{names}\n"))
    row = json.dumps({f"c{n}": "x" for n in range(columns)})
    with pytest.raises(TableError, match=f"{columns:,} columns"):
        sniff(file(row + "\n"))


def test_500_columns_are_read(file):
    names = ",".join(f"c{n}" for n in range(500))
    path = file(f"{names}\n{names}\n")
    assert len(cells(path, sniff(path))[0]) == 500


def test_labels_that_differ_in_case_spaces_or_form_are_found(file):
    labels = [
        "spam",
        "Spam",
        "caf\u00e9",
        "cafe\u0301",
        "ham",
        "not  sure",
        "not sure ",
        'a,"b"\nc',
        "x" * 300,
    ]
    rows = "".join('"t","' + label.replace('"', '""') + '"\n' for label in labels)
    path = file("text,label\n" + rows + "t,spam\nt,\n")
    counts = label_counts(path, sniff(path), "label")
    assert counts == {label: 1 + (label == "spam") for label in labels}
    assert alike(counts) == [["spam", "Spam"], ["caf\u00e9", "cafe\u0301"], ["not  sure", "not sure "]]


def test_label_counts_refuse_a_column_of_texts_and_a_column_that_is_not_there(file):
    path = file("text,label\n" + "".join(f"text {n},{n % 500}\n" for n in range(20_000)))
    layout = sniff(path)
    assert len(label_counts(path, layout, "label")) == 500
    assert sum(label_counts(path, layout, "label", limit_rows=1000).values()) == 1000
    with pytest.raises(TableError, match="more than 10,000 different values"):
        label_counts(path, layout, "text")
    with pytest.raises(TableError, match="no column “gold”; it has text, label"):
        label_counts(path, layout, "gold")


# U16, U17


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_it_finds_the_delimiter_from_the_content(file, delimiter):
    rows = [
        ["id", "text", "score"],
        ["1", "well, yes; no", "1,5"],
        ["2", "a\tb | c", "2,5"],
        ["3", "fine", "3,5"],
    ]
    quoted = [[f'"{cell}"' if delimiter in cell else cell for cell in row] for row in rows]
    path = file("\n".join(delimiter.join(row) for row in quoted) + "\n")
    layout = sniff(path)
    assert layout.delimiter == delimiter
    assert cells(path, layout) == rows[1:]


def test_european_decimals_do_not_make_the_comma_the_delimiter(file):
    layout = sniff(file("a;b\n1,5;2,5\n3,5;4,5\n"))
    assert layout.delimiter == ";"


def test_a_single_column_raises_a_question_and_keeps_its_commas(file):
    path = file("text\nHello, you\nOne, two, three\nnothing\nEnd, of it\n")
    layout = sniff(path)
    assert layout.columns == ("text",)
    assert any("Only one column" in question for question in layout.questions)
    assert cells(path, layout) == [["Hello, you"], ["One, two, three"], ["nothing"], ["End, of it"]]


def test_quotes_that_nobody_meant_as_quotes_are_ordinary_text(file):
    path = file('id\ttext\n1\t"Tis the season\n2\t"Why? he said "no"\n3\tplain\n4\t5" nails\n')
    layout = sniff(path)
    assert (layout.delimiter, layout.quote) == ("\t", "")
    assert cells(path, layout)[0] == ["1", '"Tis the season']


def test_a_file_without_header_keeps_its_first_row(file):
    path = file(
        "ham,Ok lar joking with you and more words here\nspam,Free entry in a competition now\nham,See you at home tonight\n"
    )
    layout = sniff(path)
    assert not layout.header
    assert layout.columns == ("column 1", "column 2")
    assert len(cells(path, layout)) == 3
    other = with_columns(path, replace(layout, header=True))
    assert other.columns[0] == "ham" and len(cells(path, other)) == 2


def test_numbers_alone_have_no_header(file):
    layout = sniff(file("1,0.5\n2,0.7\n3,0.9\n"))
    assert not layout.header


def test_a_single_row_of_prose_is_data(file):
    path = file("This is the one text that there is, and it is long\n")
    layout = sniff(path)
    assert cells(path, with_columns(path, replace(layout, delimiter="", header=False))) == [
        ["This is the one text that there is, and it is long"]
    ]


def test_a_header_one_name_short_is_asked_about_and_can_be_completed(file):
    path = file("text,label,score\n" + "7,hello,a,1\n" * 20)
    layout = sniff(path)
    assert any("3 columns, but most rows have 4 cells" in question for question in layout.questions)
    assert [str(row) for row in preview(path, layout, rows=1).bad] == [
        "Row 1 (line 2): 4 cells where 3 are due; a comma inside a cell needs quotes around the cell"
    ]
    fixed = replace(layout, columns=("number", *layout.columns))
    assert cells(path, fixed) == [["7", "hello", "a", "1"]] * 20


def test_questions_are_asked_of_json_too_and_go_when_they_are_settled(file):
    path = file('{"text": "déjà vu"}\n'.encode("cp1252") * 3)
    layout = sniff(path)
    assert layout.columns == ("text",) and len(layout.questions) == 1
    assert not with_columns(path, replace(layout, encoding_sure=True)).questions


def test_a_long_file_with_one_quote_is_still_understood(file):
    path = file("id\ttext\n" + '1\t"Tis\n' + "2\tsome words in a row\n" * 60_000)
    layout = sniff(path)
    assert (layout.delimiter, layout.columns) == ("\t", ("id", "text"))


def test_a_layout_survives_json(file):
    layout = sniff(file("a;b\n1;2\n".encode("utf-16")))
    assert Layout(**json.loads(json.dumps(asdict(layout)))) == layout


@pytest.mark.parametrize(
    "change", [{"format": "xml"}, {"delimiter": "x"}, {"quote": "x"}, {"bad_bytes": "ignore"}]
)
def test_a_layout_that_no_reader_could_obey_is_refused(change):
    with pytest.raises(TableError):
        replace(Layout("csv"), **change)


# U21, U24


def zipped(*names: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in names:
            archive.writestr(name, "x")
    return out.getvalue()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (zipped("[Content_Types].xml", "xl/workbook.xml"), "Excel workbook: open it, save the table as CSV"),
        (zipped("mimetype", "content.xml"), "OpenDocument"),
        (zipped("word/document.xml"), "Word document"),
        (zipped("a.csv"), "ZIP archive: unpack it"),
        (zipped("a.csv")[:40], "damaged archive"),
        (gzip.compress(b"text,label\n"), "gzip: unpack it"),
        (b"PAR1" + b"\0" * 20 + b"PAR1", "Parquet file: export"),
        (b"MZ\x90\0\x03" + b"\0" * 100, "a program"),
        (b"\x7fELF\x02" + b"\0" * 100, "a program"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 100, "old or a password-protected Excel"),
        (b"%PDF-1.7\n%\xe2\xe3", "a PDF"),
        (b"\x89PNG\r\n\x1a\n", "an image"),
        (b"SQLite format 3\0" + b"\0" * 100, "SQLite"),
        (b"<!DOCTYPE html><html><body>Sign in</body></html>", "a web page"),
        (b"\xef\xbb\xbf  <!-- x --><HTML lang=en>", "a web page"),
        (b'<?xml version="1.0"?><Workbook/>', "XML"),
        (b'{"data": [{"text": "a"}]}', "one JSON object around a list: upload the list of “data” alone"),
        (b'{\n "data": [\n' + b'  {"text": "a",\n   "n": 1},\n' * 30_000, "each object on one line"),
        (b'{\n "text": "a"\n}\n{\n "text": "b"\n}\n', "each object on one line"),
        (b'["a", "b"]', "first element is a text"),
        (b"[[1, 2], [3, 4]]", "first element is a list"),
        (b"[" * 100_000, "nested too deeply"),
        (bytes(range(256)) * 20, "not text"),
    ],
    # Archives hold the time, and a name that differs between two processes stops them all.
    ids=lambda value: "file" if isinstance(value, bytes) else None,
)
def test_what_is_no_table_of_text_is_refused_by_name(file, content, words):
    path = file(content, "upload.csv")
    with pytest.raises(TableError) as refusal:
        sniff(path)
    assert words in str(refusal.value)
    assert str(refusal.value).count("\n") == 0 and str(refusal.value).endswith(".")


def test_letters_that_begin_like_a_known_format_are_still_a_table(file):
    path = file("PAR1,BZh\nMZ,GIF\nx,y\n")
    assert cells(path, with_columns(path, replace(sniff(path), header=True))) == [["MZ", "GIF"], ["x", "y"]]


def test_the_name_of_the_file_does_not_matter(file):
    assert sniff(file('{"text": "a"}\n', "table.csv")).format == "jsonl"
    assert sniff(file("text\tlabel\na\tb\n", "table.json")).format == "csv"
