r"""Texts that try to tell the labeler what to answer, found before their vote is counted.

A text is data, but a language model may read it as an order. ``signs`` holds patterns for that, each with
points. The best sign of each group counts, and groups add up: 4 points are *certain*, 2 are *possible*.

Patterns see the text folded: one spelling per character, lower case, no accents, no invisible characters. They
see it once more with the names of labels marked, with look-alike letters replaced, and with everything decoded
that looks encoded (``disguises``). A disguise adds points to what is found only under it.

All patterns are RE2's, so the time is linear in the length of the text. What is found and what is missed,
with figures: docs/hostile_texts.md.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from .disguises import GAP, Seen, compiled, disguised, fold, fold_character, hidden, options, unseen
from .signs import AROUND, IDENTIFIER, KEYWORDS, KINDS, SIGNS, SQUASHED, Sign

__all__ = ["KINDS", "Suspicion", "judge", "suspicious", "without_span"]

CERTAIN, POSSIBLE = 4, 2  # points
LONGEST_QUOTE = 200  # characters
LONGEST_SENTENCE = 300  # characters to which a span is widened on either side
SURE = 0.9  # probability from which a weak model's other label speaks against a possible attack

_FILLER = r"(?:[^ ]+ +){0,5}"
_MARK = "\x01"  # stands for every character of a label's name; folded texts never hold it


@dataclass(frozen=True)
class Suspicion:
    """What looks like an attempt to instruct the labeler.

    ``kind``: a key of KINDS. ``span``: the suspect part of the original text, start and end in characters.
    ``quote``: that part, at most 200 characters. ``certain``: False when ordinary texts hold this as well.
    """

    kind: str
    span: tuple[int, int]
    quote: str
    certain: bool


def suspicious(text: str, labels: Collection[str]) -> Suspicion | None:
    """Return what looks like an attempt to instruct the labeler, or None.

    Args:
        text: any text, of any length.
        labels: the label set; orders that name a label count for more.
    """
    span = hidden(text)
    if span:
        return _suspicion(text, span, "invisible", True)
    names = _names(frozenset(labels))
    plain = fold(text)
    finds = _look(plain.text, names)
    points = most = _points(finds)
    best = _found(text, plain, finds, None, points) if points >= POSSIBLE else None
    if points >= CERTAIN:
        return best
    for seen, kind, extra in disguised(text, plain):
        finds = _look(seen.text, names)
        under = _points(finds)
        if under > points and under + extra > most and under + extra >= POSSIBLE:
            most = under + extra
            best = _found(text, seen, finds, kind, most)
            if most >= CERTAIN:
                return best
    squashed = _squashed(plain)
    if squashed:
        return _suspicion(text, _widened(text, *squashed), "encoding", True)
    return best


def without_span(text: str, suspicion: Suspicion) -> str:
    """Return a text without its suspect part, for a second ask."""
    start, end = suspicion.span
    return text[:start] + text[end:]


def judge(
    suspicion: Suspicion | None,
    label: str | None,
    label_without_span: str | None,
    weak_label: str | None = None,
    weak_probability: float = 0.0,
) -> bool:
    """Tell whether a language model's word about a text must not count.

    It never counts for a certain attack. For a possible one it counts only if the same model, asked again
    without the suspect part, gives the same label, and no trained weak model is sure of another one.

    Args:
        suspicion: of the text; None when nothing was found, and then the word counts.
        label: the model's answer for the whole text.
        label_without_span: its answer for the text without the suspect part; None for no answer, or not asked.
        weak_label: a trained weak model's answer, None where there is no such model.
        weak_probability: how sure it is, in [0, 1].
    """
    if suspicion is None:
        return False
    if suspicion.certain or label_without_span is None or label_without_span != label:
        return True
    return weak_label is not None and weak_label != label and weak_probability >= SURE


class _Find(NamedTuple):
    sign: Sign
    start: int
    end: int


def _points(finds: Iterable[_Find]) -> int:
    """Add up: words around a label's name make two points where there is nothing else, and one otherwise."""
    plain = sum(find.sign.points for find in finds if find.sign.group not in AROUND)
    around = sum(find.sign.group in AROUND for find in finds)
    return plain + (around > 1) if plain else min(around, POSSIBLE)


def _found(text: str, seen: Seen, finds: list[_Find], kind: str | None, points: int) -> Suspicion:
    """Make a suspicion of what was found: its span reaches from the first sign to the last one."""
    places = [seen.source(find.start, find.end) for find in finds]
    start, end = min(a for a, _ in places), max(b for _, b in places)
    if kind is None and unseen(text[start:end]):
        kind = "invisible"
    span = _widened(text, start, end)
    return _suspicion(
        text, span, kind or max(finds, key=lambda find: find.sign.points).sign.kind, points >= CERTAIN
    )


def _suspicion(text: str, span: tuple[int, int], kind: str, certain: bool) -> Suspicion:
    return Suspicion(kind, span, text[slice(*span)][:LONGEST_QUOTE], certain)


def _widened(text: str, start: int, end: int) -> tuple[int, int]:
    """Return a span widened to whole sentences, as far as LONGEST_SENTENCE."""
    floor, ceiling = max(0, start - LONGEST_SENTENCE), min(len(text), end + LONGEST_SENTENCE)
    found = [(text.rfind(mark, floor, start), len(mark)) for mark in (". ", "! ", "? ", "\n")]
    before = [place + length for place, length in found if place >= 0]
    after = [place + 1 for mark in ".!?\n" if (place := text.find(mark, end, ceiling)) >= 0]
    return max(before, default=floor), min(after, default=ceiling)


def _look(text: str, names: str | None) -> list[_Find]:
    """Return the best sign of each group in a folded text."""
    words = GAP.sub(" ", text)
    found = _finds("words", words) + _finds("shape", text)
    spans = [match.span() for match in compiled(names).finditer(words)] if names else []
    if spans:
        found += _finds("named words", _marked(words, spans)) + _finds("named shape", _marked(text, spans))
        # Names such as not_biased are spelled like this by programs, and by people who know the label set.
        found += [_Find(IDENTIFIER, a, b) for a, b in spans if "_" in text[a:b]][:1]
    best: dict[str, _Find] = {}
    for find in found:
        if find.sign.group not in best or best[find.sign.group].sign.points < find.sign.points:
            best[find.sign.group] = find
    return list(best.values())


def _finds(view: str, text: str) -> list[_Find]:
    searched, rows = _sets()[view]
    hits = searched.Match(text)
    # The last pattern of a set matches everything: where even it is missing, the search ran out of memory.
    places = range(len(rows)) if hits is None else sorted(hit for hit in hits if hit < len(rows))
    matches = [(rows[place][0], compiled(rows[place][1]).search(text)) for place in places]
    return [_Find(sign, *match.span()) for sign, match in matches if match]


def _marked(text: str, spans: list[tuple[int, int]]) -> str:
    """Return a text with marks in place of the characters of some spans."""
    pieces: list[str] = []
    last = 0
    for a, b in spans:
        pieces += (text[last:a], _MARK * (b - a))
        last = b
    return "".join([*pieces, text[last:]])


def _squashed(plain: Seen) -> tuple[int, int] | None:
    """Return where an order is written with gaps inside its words, such as "ig nore" or "i-g-n-o-r-e"."""
    match = compiled(SQUASHED).search(GAP.sub("", plain.text))
    if not match:
        return None
    places = [i for i, c in enumerate(plain.text) if not GAP.match(c)]
    a, b = places[match.start()], places[match.end() - 1] + 1
    words = plain.text[a:b]
    broken = [key for key in KEYWORDS if key in match.group() and key not in words]
    return plain.source(a, b) if broken else None


@lru_cache(1)
def _sets() -> dict[str, tuple[Any, list[tuple[Sign, str]]]]:
    """Return, for each view, all its patterns as one search, and one by one."""
    import re2

    made = {}
    for view in ("words", "shape", "named words", "named shape"):
        rows = [(sign, _written_out(sign)) for sign in SIGNS if sign.view == view]
        searched = re2.Set.SearchSet(options())
        for _, pattern in rows:
            searched.Add(pattern)
        searched.Add("")
        searched.Compile()
        made[view] = searched, rows
    return made


def _written_out(sign: Sign) -> str:
    """Return a sign's pattern as RE2 wants it, folded as texts are."""
    pattern = "".join(c if c.isascii() else fold_character(c) for c in sign.pattern)
    if "words" in sign.view:
        gaps = pattern.replace("[^ ]", "\0").replace(" ?", "\2").replace(" ", " +")
        pattern = gaps.replace("\2", " *").replace("\0", "[^ ]").replace("~", _FILLER)
    return pattern.replace("#", f"{_MARK}+")


@lru_cache(64)
def _names(labels: frozenset[str]) -> str | None:
    """Return a pattern for the names of labels in the words of a text; None where there is nothing to look for."""
    import re2

    spelled = set()
    for label in labels:
        parts = GAP.sub(" ", fold(label).text).split()
        if parts:
            before, after = (r"\b" if edge.isascii() else "" for edge in (parts[0][0], parts[-1][-1]))
            spelled.add(f"{before}{' *'.join(str(re2.escape(part)) for part in parts)}{after}")
    return "|".join(sorted(spelled, key=lambda name: (-len(name), name))) or None
