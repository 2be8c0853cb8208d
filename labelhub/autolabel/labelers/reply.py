"""What a language model answered, read with suspicion: by id, never by position, and never beyond the labels.

Nothing here raises. An answer that cannot be used is a result like any other; who asked decides whether to ask again.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from .prompt import visible

NOT_IN_SCHEMA = "label_not_in_schema"
LONGEST_QUOTE = 300  # characters; a model that copies the whole text does not fill the database with it

# Why nothing of an answer can be used although the call succeeded. A refusal comes with HTTP 200.
_WHOLE = {
    "refusal": "refused",
    "max_tokens": "truncated",
    "model_context_window_exceeded": "too_long",
}
_FINISHED = ("end_turn", "stop_sequence")


@dataclass(frozen=True)
class Said:
    """What the model said about one text.

    Attributes:
        label: one of the labels that were asked for, in their spelling.
        confidence: in [0, 1], as the model stated it.
        quote: what it quoted from the text, at most LONGEST_QUOTE characters; may be empty, and may be made up.
    """

    label: str
    confidence: float
    quote: str = ""


@dataclass(frozen=True)
class Reading:
    """What an answer holds. Each id from 1 to the number of texts is in exactly one of the first three, or none when ``whole``.

    Attributes:
        said: by id.
        problems: by id, final for that text: "label_not_in_schema".
        missing: ids to be asked again, ascending: absent, contradicting themselves, or without a usable confidence.
        whole: None, or why nothing can be used: "refused", "truncated", "too_long" or "malformed".
        unknown: entries without an id that was asked for.
        repeated: entries for an id that had one before.
    """

    said: dict[int, Said] = field(default_factory=dict)
    problems: dict[int, str] = field(default_factory=dict)
    missing: tuple[int, ...] = ()
    whole: str | None = None
    unknown: int = 0
    repeated: int = 0


def read(stop_reason: str | None, text: str, count: int, labels: Collection[str]) -> Reading:
    """Return what an answer says about each of the texts 1 to ``count``; never raises.

    An answer that did not come to its end is not parsed. JSON is read strictly (no NaN, no key twice) with one repair:
    a fence or prose around a single object is taken off. A label counts if it is one of ``labels``, or is like exactly
    one of them but for case, Unicode form, white space around it and a full stop after it.

    Args:
        stop_reason: why the model stopped, as the API says it.
        text: the answer's text.
        count: how many texts were asked about.
        labels: the names that were allowed.
    """
    if stop_reason not in _FINISHED:
        return Reading(whole=_WHOLE.get(str(stop_reason), "malformed"))
    entries = _entries(text)
    if entries is None:
        return Reading(whole="malformed")
    spelling = _Spelling(labels)
    found: dict[int, Said | str | None] = {}  # None: to be asked again
    unknown = repeated = 0
    for entry in entries:
        number = entry.get("id") if isinstance(entry, dict) else None
        if type(number) is not int or not 1 <= number <= count:  # True is an int, and no id
            unknown += 1
            continue
        outcome = _outcome(entry, spelling)
        if number in found:
            repeated += 1
            outcome = _both(found[number], outcome)
        found[number] = outcome
    return Reading(
        said={number: found[number] for number in sorted(found) if isinstance(found[number], Said)},  # type: ignore[misc]
        problems={number: NOT_IN_SCHEMA for number in sorted(found) if isinstance(found[number], str)},
        missing=tuple(number for number in range(1, count + 1) if found.get(number) is None),
        unknown=unknown,
        repeated=repeated,
    )


class _Spelling:
    """The labels as they are written, found by how they are written or nearly so."""

    def __init__(self, labels: Collection[str]) -> None:
        self.exact = frozenset(labels)
        self.alike: dict[str, str | None] = {}
        for label in self.exact:
            form = _form(label)
            self.alike[form] = None if form in self.alike else label  # two labels alike: only exact will do

    def of(self, label: str) -> str | None:
        return label if label in self.exact else self.alike.get(_form(label))


def _form(label: str) -> str:
    label = unicodedata.normalize("NFC", label).strip().removesuffix(".").rstrip()
    return unicodedata.normalize("NFC", label.casefold())


def _entries(text: str) -> list[Any] | None:
    """Return the entries of an answer, or None when it is no answer."""
    if not isinstance(text, str):
        return None  # type: ignore[unreachable]  # an answer from outside is what it is, whatever the types say
    for attempt in (text, text[text.find("{") : text.rfind("}") + 1]):
        try:
            parsed = json.loads(attempt, object_pairs_hook=_once_each, parse_constant=_no_constant)
        except (ValueError, RecursionError):
            continue
        entries = parsed.get("labels") if isinstance(parsed, dict) else None
        return entries if isinstance(entries, list) else None
    return None


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object's members. Raises: ValueError when a key comes twice, for then it has two meanings."""
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a key comes twice")
    return members


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _outcome(entry: dict[str, Any], spelling: _Spelling) -> Said | str | None:
    label, confidence, quote = entry.get("label"), entry.get("confidence"), entry.get("quote")
    if not isinstance(label, str):
        return None
    known = spelling.of(label)
    if known is None:
        return NOT_IN_SCHEMA
    if type(confidence) not in (int, float) or not 0 <= confidence <= 1:  # type: ignore[operator]
        return None
    shown = visible(quote).strip()[:LONGEST_QUOTE] if isinstance(quote, str) else ""
    return Said(known, float(confidence), shown)  # type: ignore[arg-type]


def _both(first: Said | str | None, second: Said | str | None) -> Said | str | None:
    """Return what two entries for one text come to: the less sure of two that agree, else nothing."""
    if isinstance(first, Said) and isinstance(second, Said) and first.label == second.label:
        return min(first, second, key=lambda said: said.confidence)
    return first if first == second else None
