"""Texts in disguise: written in other letters, in characters that nobody sees, or encoded; and what they say."""

from __future__ import annotations

import base64
import binascii
import codecs
import html
import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import unquote

GAP = re.compile(r"[\W_]")


class Seen(NamedTuple):
    """A text as patterns see it, and where each of its characters comes from; None: from the same place."""

    text: str
    starts: Sequence[int] | None = None
    ends: Sequence[int] | None = None

    def source(self, start: int, end: int) -> tuple[int, int]:
        """Return where a stretch of the seen text comes from."""
        if self.starts is None or self.ends is None:
            return start, end
        if start >= end:
            return 0, 0
        return min(self.starts[start:end]), max(self.ends[start:end])


_UNSEEN = "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0"
_NOTHING = re.compile(f"[{_UNSEEN}\U000e0000-\U000e0fff]")
_ALIKE = str.maketrans(
    "авекмнорстухіѕјԛԝԁһӏьзбɡαβγεικνορτυχωηѵցոսօհքʀɴɪʟᴀᴇᴏᴜ",
    "abekmhopctyxisjqwdhlb36gabyeiknoptuxwnvgnuohprnilaeou",
)
_LEET = str.maketrans("0134578@$!|+", "oieastbasiit")


@lru_cache(4096)
def fold_character(character: str) -> str:
    """Return a character without accents, compatibility forms and case; nothing for one that is not seen."""
    if "\U000e0020" <= character <= "\U000e007e":  # tags: ASCII that no font shows
        return chr(ord(character) - 0xE0000).lower()
    if _NOTHING.match(character):
        return ""
    if "\ud800" <= character <= "\udfff":  # half a character, which RE2 does not accept
        return "?"
    apart = unicodedata.normalize("NFKD", character)
    # A few characters stand for a whole sentence, and a text full of them must not grow.
    return "".join(c for c in apart if unicodedata.category(c)[0] != "M" and c != "\x01").casefold()[:4]


def fold(text: str, of: Seen | None = None) -> Seen:
    """Return a text in one spelling per character and lower case, with the places that ``of`` gives it."""
    if text.isascii():
        return Seen(text.replace("\x01", " ").lower(), of and of.starts, of and of.ends)
    pieces = [fold_character(c) for c in text]
    places = [i for i, piece in enumerate(pieces) for _ in piece]
    if of is None or of.starts is None or of.ends is None:
        return Seen("".join(pieces), places, [i + 1 for i in places])
    return Seen("".join(pieces), [of.starts[i] for i in places], [of.ends[i] for i in places])


_WRAPS = {  # what looks encoded; the first that fits is tried
    "entities": r"(?:&(?:\x23\d{1,7}|\x23[xX][0-9a-fA-F]{1,6}|[a-zA-Z]{2,8});)+",
    "tags": r"</?[a-zA-Z][^<>]{0,200}>",
    "percent": r"(?:%[0-9a-fA-F]{2})+",
    "escapes": r"(?:\\u[0-9a-fA-F]{4}|\\x[0-9a-fA-F]{2})+",
    "bits": r"(?:[01]{8}\s?){4,}",
    "hex": r"(?:(?:0x)?[0-9a-fA-F]{2}[ ,:-]?){8,}",
    "codes": r"(?:\b\d{2,3}[ ,;]{1,2}){7,}\d{2,3}\b",
    "base64": r"[A-Za-z0-9+/_-]{16,}={0,2}",
}
_WRAPPED = "|".join(_WRAPS.values())
_FIRST = {"&": "entities", "<": "tags", "%": "percent", "\\": "escapes"}


def _whole(text: str) -> str:
    """Return a text with a question mark for every half of a surrogate pair."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def _unwrap(kind: str, run: str) -> str | None:
    """Decode one run of characters that looks encoded; None where nothing readable comes out."""
    if kind == "entities":
        return html.unescape(run)
    if kind == "tags":
        return " "
    if kind == "percent":
        return unquote(run, errors="replace")
    if kind == "escapes":
        return _whole("".join(chr(int(code, 16)) for code in re.findall(r"\\[ux]([0-9a-fA-F]+)", run)))
    try:
        if kind == "hex":
            raw = bytes.fromhex(re.sub(r"0x|[ ,:-]", "", run))
        elif kind == "bits":
            raw = bytes(int(byte, 2) for byte in re.findall("[01]{8}", run))
        elif kind == "codes":
            raw = bytes(int(code) for code in re.findall(r"\d+", run))
        else:
            letters = run.rstrip("=").translate(str.maketrans("-_", "+/"))
            raw = base64.b64decode(letters[: len(letters) // 4 * 4 + (len(letters) % 4 != 1) * 3] + "==")
        text = raw.decode("utf-8")
    except (ValueError, binascii.Error):
        return None
    return text if all(c.isprintable() or c.isspace() for c in text) else None


def _unwrapped(seen: Seen) -> tuple[Seen, int] | None:
    """Decode every run that looks encoded, where it stands, and give points; None when there is none."""
    text, size = _whole(seen.text), len(seen.text)
    old_starts, old_ends = seen.starts or range(size), seen.ends or range(1, size + 1)
    pieces: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    last = points = 0
    for match in compiled(_WRAPPED, True).finditer(text):
        a, b = match.span()
        run = text[a:b]
        kind = _FIRST.get(run[0]) or next(
            name for name in ("bits", "hex", "codes", "base64") if compiled(_WRAPS[name], True).fullmatch(run)
        )
        decoded = _unwrap(kind, run)
        if not decoded:
            continue
        points = max(points, 1 if kind in ("entities", "percent", "tags") else 2)
        pieces += (text[last:a], decoded)
        starts += (*old_starts[last:a], *([old_starts[a]] * len(decoded)))
        ends += (*old_ends[last:a], *([old_ends[b - 1]] * len(decoded)))
        last = b
    if not points:
        return None
    pieces.append(text[last:])
    return Seen("".join(pieces), [*starts, *old_starts[last:]], [*ends, *old_ends[last:]]), points


_HIDDEN = re.compile(
    # Tags, but for the flags that are written with up to six of them; whole rows of what nobody sees.
    "[\U000e0020-\U000e007e]{7,}|[\u200b-\u200f\u2060-\u2064\ufeff]{6,}|[\ufe00-\ufe0f\U000e0100-\U000e01ef]{4,}"
)
_STRANGE = re.compile(
    f"[{_UNSEEN}\U000e0000-\U000e0fff\u2460-\u24ff\uff01-\uff5e\U0001d400-\U0001d7ff\U0001f130-\U0001f189]"
)
_OTHER_ALPHABET = re.compile("[\u0250-\u02af\u0370-\u058f\u1d00-\u1d7f\ua730-\ua7ff]")
_SECRETS = (
    *("ignore", "disregard", "forget", "instruct", "previous", "answer", "label", "classif", "confiden"),
    *("respond", "correct"),
)
_SECRET = "|".join(_SECRETS)
_ROTATED = "|".join(codecs.encode(word, "rot13") for word in _SECRETS)
_REVERSED = "|".join(word[::-1] for word in _SECRETS)
_SPELLED = re.compile("[0134578@$!|+]")


def unseen(text: str) -> bool:
    """Tell whether a text holds characters that nobody sees, or letters in a form that is not for writing."""
    return not text.isascii() and _STRANGE.search(text) is not None


def hidden(text: str) -> tuple[int, int] | None:
    """Return where a text holds a row of invisible characters that serves nothing but to hide something."""
    match = None if text.isascii() else _HIDDEN.search(text)
    return match.span() if match else None


def disguised(text: str, plain: Seen) -> Iterator[tuple[Seen, str, int]]:
    """Yield what a text may say under a disguise, with the kind of suspicion and the points for hiding it.

    Args:
        text: the original.
        plain: the same, folded.
    """
    if plain.starts is not None and _OTHER_ALPHABET.search(plain.text):
        yield plain._replace(text=plain.text.translate(_ALIKE)), "invisible", 2
    unwrapped = _unwrapped(Seen(text))
    if unwrapped:
        yield fold(unwrapped[0].text, unwrapped[0]), "encoding", unwrapped[1]
        again = _unwrapped(unwrapped[0])
        if again:
            yield fold(again[0].text, again[0]), "encoding", 2
    size = len(plain.text)
    starts, ends = plain.starts or range(size), plain.ends or range(1, size + 1)
    if compiled(_ROTATED).search(plain.text):
        yield plain._replace(text=codecs.encode(plain.text, "rot13")), "encoding", 2
    if compiled(_REVERSED).search(plain.text):
        yield Seen(plain.text[::-1], starts[::-1], ends[::-1]), "encoding", 2
    if _SPELLED.search(plain.text):
        spelled = plain.text.translate(_LEET)
        if compiled(_SECRET).search(spelled):
            yield plain._replace(text=spelled), "encoding", 1


@lru_cache(256)
def compiled(pattern: str, case_sensitive: bool = False) -> Any:
    """Return a pattern that RE2 has compiled."""
    import re2

    return re2.compile(pattern, options(case_sensitive))


def options(case_sensitive: bool = False) -> Any:
    """Return RE2's options: quiet, and with room for large sets of patterns."""
    import re2

    chosen = re2.Options()
    chosen.case_sensitive = case_sensitive
    chosen.log_errors = False
    chosen.max_mem = 64 << 20
    return chosen
