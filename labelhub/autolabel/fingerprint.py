r"""Fingerprints of a file and of a certificate, so that one changed character shows.

SHA-256 over lines of ASCII that anybody can write: fields separated by one tab, closed by one line feed, labels as
JSON strings (non-ASCII as ``\uXXXX``, so that no label can pass for another line).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

LINES_AT_ONCE = 10_000


def content_hash(rows: Iterable[tuple[int, str | None, str, str | None]]) -> tuple[str, int]:
    """Return the fingerprint of certified rows and their number: 64 hex digits, and a count.

    One line per row, ascending by id: ``id TAB label TAB source TAB outcome LF``; the outcome is empty where
    nobody answered. Reads its argument once; memory does not grow with it.

    Args:
        rows: (id, label, source, outcome), strictly ascending by id.
    Raises: ValueError when ids do not ascend.
    """
    digest, quoted, lines = hashlib.sha256(), _Quoted(), []
    count, previous = 0, None
    for item, label, source, outcome in rows:
        if previous is not None and item <= previous:
            raise ValueError("rows must come in ascending order of id, without repeats")
        previous = item
        lines.append(f"{item}\t{quoted[label]}\t{source}\t{outcome or ''}\n")
        count += 1
        if len(lines) == LINES_AT_ONCE:
            digest.update("".join(lines).encode("ascii"))
            lines.clear()
    digest.update("".join(lines).encode("ascii"))
    return digest.hexdigest(), count


def answers_hash(answers: Iterable[Mapping[str, Any]]) -> str:
    """Return the fingerprint of a sample's answers in the order of the draw, as 64 hex digits.

    One line per answer: ``id TAB rank TAB predicted_label TAB outcome TAB label LF``.
    """
    digest, quoted = hashlib.sha256(), _Quoted()
    for a in answers:
        digest.update(
            f"{a['id']}\t{a['rank']}\t{quoted[a['predicted_label']]}\t{a['outcome']}\t{quoted[a['label']]}\n".encode()
        )
    return digest.hexdigest()


def figures_hash(statement: str, evidence: Mapping[str, Any]) -> str:
    """Return the fingerprint of a certificate itself: of its statement and all of its evidence but this hash."""
    rest = {key: value for key, value in evidence.items() if key != "figures_hash"}
    text = json.dumps([statement, rest], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()


class _Quoted(dict[str | None, str]):
    """Labels as JSON strings: there are few, and quoting each once is most of the speed."""

    def __missing__(self, label: str | None) -> str:
        text = self[label] = "" if label is None else json.dumps(label)
        return text
