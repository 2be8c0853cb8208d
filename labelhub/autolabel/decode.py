"""Bytes become text: which encoding a file is in, and its text in pieces that fit in memory.

UTF-8 proves itself: a whole file of it has never been another encoding by accident. Of the older encodings
almost any byte is legal, so they are told apart by the letters they give, and a person is asked. A general
detector was tried and called French text in Windows-1252 Baltic, because it weighs a hundred encodings alike;
the ones here are those of spreadsheets in use.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from labelhub.autolabel.layout import ENCODINGS, BadBytes

CHUNK = 1 << 18  # bytes a read
SCAN = 1 << 28  # bytes that are looked at to find the encoding
SAMPLE = 1 << 17  # bytes of lines with non-ASCII letters that are weighed
UNREADABLE = re.compile("[\udc00-\udcff]")  # a byte that the codec refuses, kept as U+DC00 + byte
_LONE = "\ud800"  # stands for a surrogate without its partner until it becomes U+FFFD

_BOMS = (  # UTF-32 first: its little-endian mark begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_WESTERN = "éèêëàâáäãåçñíìîïóòôõöøúùûüßæœÉÈÀÁÂÄÅÇÑÍÓÖØÚÜŒÆ’‘“”–—…•€£°«»§©®™¡¿´·\xa0"
_HAN = (
    "一是不了在人有我他中大上和地也子道出而要就下得可你年生自那能事其里所去行家十用天如然作方成者多日都三小二"
)
_HAN += "同公心前面又定只主，。、！？：；「」《》"
# The letters that make up much of ordinary text, and the share of its non-ASCII letters that they come to.
_LATIN_LETTERS = {
    "cp1252": _WESTERN,
    "mac-roman": _WESTERN,
    "cp1250": "ąćęłńóśźżĄĆĘŁŃÓŚŹŻáéíúýčďěňřšťůžÁÉÍÚČĎĚŇŘŠŤŽőűöüäßĺľôăâîşţ„”“’–—…€\xa0",
    "cp1254": "ğışçöüİŞÇÖÜĞâîû’‘“”–—…€\xa0",
}
_OTHER_LETTERS = {
    "cp1251": ("оеаинтсрвлкм", 0.75),
    "koi8-r": ("оеаинтсрвлкм", 0.75),
    "cp1253": ("αοιετνσηυρπκς", 0.75),
    "cp1255": ("יוהלארתשמבנד", 0.75),
    "cp1256": ("الينمرتوبةعد", 0.75),
    "cp932": (
        "".join(map(chr, range(0x3041, 0x3094))) + "".join(map(chr, range(0x30A1, 0x30FD))) + "、。「」",
        0.55,
    ),
    "euc-jp": (
        "".join(map(chr, range(0x3041, 0x3094))) + "".join(map(chr, range(0x30A1, 0x30FD))) + "、。「」",
        0.55,
    ),
    "gb18030": (_HAN + "的这来个国们到说时会后对着过发经么当起与好看学进种将还分此见没从“”", 0.35),
    "big5": (_HAN + "的這來個國們到說時會後對著過發經麼當起與好看學進種將還分此見沒從", 0.35),
    "cp949": (
        "이다는을의가에고로하지은를한도기사시어서인나대아그있자리해일부만것수들게스정라과보전여장구상제주니",
        0.5,
    ),
}
_UTF8_LETTER = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")
_HIGH_RUN = re.compile(rb"[\x80-\xff]+")


class Guess(NamedTuple):
    """An encoding, whether it is proven, and the evidence in words."""

    encoding: str
    sure: bool
    why: str


class Piece(NamedTuple):
    """Some decoded text. ``unreadable`` says that UNREADABLE may find something in it."""

    text: str
    unreadable: bool
    cleaned: int
    bytes_read: int
    last: bool


def guess_encoding(path: Path) -> Guess:
    """Find the encoding of a text file by its byte order mark, zero bytes, UTF-8's own check, or letters."""
    with path.open("rb") as file:
        head = file.read(CHUNK)
    for mark, encoding in _BOMS:
        if head.startswith(mark):
            return Guess(encoding, True, "the file begins with a byte order mark")
    if b"\0" in head and (wide := _wide(head)):
        return Guess(wide, False, f"the zero bytes lie as in {ENCODINGS[wide]}")
    valid, sample = _scan(path)
    if valid:
        return Guess("utf-8", True, "every byte is valid UTF-8" if sample else "the file is plain ASCII")
    high = sum(map(len, _HIGH_RUN.findall(sample)))
    in_letters = sum(map(len, _UTF8_LETTER.findall(sample)))
    if in_letters >= 0.8 * high:
        return Guess("utf-8", False, "nearly all of it is valid UTF-8, but some bytes are not")
    return _guess_by_letters(sample)


def _scan(path: Path) -> tuple[bool, bytes]:
    """Return whether the file is valid UTF-8, and a sample of its lines that are not ASCII."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    sample = bytearray()
    valid, seen = True, 0
    with path.open("rb") as file:
        while (chunk := file.read(CHUNK)) and seen < SCAN and (valid or len(sample) < SAMPLE):
            seen += len(chunk)
            if valid:
                try:
                    decoder.decode(chunk)
                except UnicodeDecodeError:
                    valid = False
            if len(sample) < SAMPLE and not chunk.isascii():
                for line in chunk.splitlines():
                    if not line.isascii():
                        sample += line[:4096] + b"\n"
    if valid and seen < SCAN:
        try:
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            valid = False
    return valid, bytes(sample[:SAMPLE])


def _wide(head: bytes) -> str | None:
    """Return the UTF-16 or UTF-32 that a text with zero bytes is in, or None for stray zeros."""
    best, best_score = None, 0.9
    for encoding, unit in (("utf-32-le", 4), ("utf-32-be", 4), ("utf-16-le", 2), ("utf-16-be", 2)):
        try:
            text = codecs.getincrementaldecoder(encoding)().decode(head[: len(head) // unit * unit])
        except UnicodeDecodeError:
            continue
        ends = text.count("\n") + text.count("\r")
        if (
            not text
            or ends < 0.2 * (head.count(b"\n") + head.count(b"\r"))
            or (not ends and head.count(0) < 0.3 * len(head))
        ):
            continue  # zero bytes strewn over one-byte text make letters, but they do not make line ends
        text = text[:4096]
        usual = sum(c.isprintable() or c in "\t\r\n" for c in text)
        ascii_share = sum(c.isascii() and c != "\0" for c in text) / len(text)
        score = usual / len(text) + ascii_share - text.count("\0") / len(text)
        if score > best_score:
            best, best_score = encoding, score
    return best


def _guess_by_letters(sample: bytes) -> Guess:
    """Weigh the old encodings: Latin text has lone non-ASCII letters, other scripts have words of them."""
    runs = _HIGH_RUN.findall(sample)
    if sum(map(len, runs)) < 1.6 * len(runs):
        scores = {encoding: _share(sample, encoding, letters) for encoding, letters in _LATIN_LETTERS.items()}
    else:
        scores = {
            encoding: min(_share(sample, encoding, letters) / usual, 1.0)
            for encoding, (letters, usual) in _OTHER_LETTERS.items()
        }
    best = max(
        scores, key=lambda encoding: round(scores[encoding], 2)
    )  # a tie goes to the commoner, listed first
    if scores[best] < 0.4:
        return Guess(
            "cp1252", False, "it is not UTF-8, and its letters fit no encoding that LabelHub can tell"
        )
    return Guess(best, False, f"it is not UTF-8, and its letters look like {ENCODINGS[best]}")


def _share(sample: bytes, encoding: str, letters: str) -> float:
    """Return the share of the non-ASCII characters that are among the letters; undecodable ones are not."""
    other = [c for c in sample.decode(encoding, "replace") if not c.isascii()]
    return sum(map(frozenset(letters).__contains__, other)) / len(other) if other else 0.0


def _keep_byte(error: UnicodeError) -> tuple[str, int]:
    """Decode one refused byte as U+DC00 + byte, so that its row can be found and named later."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    if error.encoding.startswith("utf-") and error.encoding != "utf-8" and error.end - error.start > 1:
        return _LONE, error.end  # half of a surrogate pair: text that was cut, not a byte of another encoding
    return chr(0xDC00 + error.object[error.start]), error.start + 1


codecs.register_error("labelhub-keep-byte", _keep_byte)


def read_text(path: Path, encoding: str, bad_bytes: BadBytes = "report") -> Iterator[Piece]:
    """Yield the text of a file in pieces of CHUNK bytes, the last one marked.

    NUL is removed and a lone surrogate becomes U+FFFD, both counted in ``cleaned``: PostgreSQL stores
    neither. Bytes that the encoding does not have are kept as UNREADABLE, or become U+FFFD and are counted,
    as ``bad_bytes`` says.
    """
    decoder = codecs.getincrementaldecoder(encoding)("strict")
    bytes_read = 0
    with path.open("rb") as file:
        while True:
            chunk = file.read(CHUNK)
            last = not chunk
            begin, bytes_read = bytes_read == 0, bytes_read + len(chunk)
            state = decoder.getstate()
            unreadable, cleaned = False, 0
            try:
                text = decoder.decode(chunk, final=last)
            except UnicodeDecodeError:
                decoder.setstate(state)
                decoder.errors = "labelhub-keep-byte"
                text = decoder.decode(chunk, final=last)
                decoder.errors = "strict"
                unreadable, cleaned = bad_bytes == "report", text.count(_LONE)
                text = text.replace(_LONE, "\ufffd")
                if not unreadable:
                    text, replaced = UNREADABLE.subn("\ufffd", text)
                    cleaned += replaced
            if begin:
                text = text.removeprefix("\ufeff")
            if "\0" in text:
                cleaned += text.count("\0")
                text = text.replace("\0", "")
            yield Piece(text, unreadable, cleaned, bytes_read, last)
            if last:
                return
