"""What the columns of a file mean and which labels there are, checked before a row is stored."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

MOST_LABELS = 1_000
LONGEST_LABEL = 200

Typed = Sequence[Mapping[str, str]]  # labels as people typed them: {"name", "definition", "rules"}


class IngestError(Exception):
    """A file that cannot become a dataset; the message is one sentence for its owner."""


def label_name(text: str) -> str:
    """A label as it is compared and stored: one Unicode spelling, no outer spaces."""
    return unicodedata.normalize("NFC", text).strip()


def check_mapping(mapping: Mapping[str, Any], columns: Sequence[str]) -> dict[str, Any]:
    """Return the mapping with every role: text columns, and id, label, predicted, confidence or "".

    Raises: IngestError when a column is missing, used for two things, or a partner is missing.
    """
    whole: dict[str, Any] = {"text": list(mapping.get("text") or [])}
    whole |= {role: mapping.get(role) or "" for role in ("id", "label", "predicted", "confidence")}
    if not whole["text"]:
        raise IngestError("Choose at least one column as the text to label.")
    used = [*whole["text"], *(whole[role] for role in ("label", "predicted", "confidence") if whole[role])]
    for name in [*used, *([whole["id"]] if whole["id"] else [])]:
        if name not in columns:
            raise IngestError(f"The file has no column “{name}”; it has {', '.join(columns)}.")
    twice = [name for name, n in Counter(used).items() if n > 1]
    if twice:
        raise IngestError(f"Column “{twice[0]}” can be used for one thing only.")
    if bool(whole["predicted"]) != bool(whole["confidence"]):
        raise IngestError("Predicted labels need both columns: the label and its confidence.")
    return whole


def check_labels(typed: Typed) -> list[dict[str, str]]:
    """Return typed labels tidied, in their order.

    Raises: IngestError on an empty, repeated or endless name, or more than 1,000 labels.
    """
    labels: list[dict[str, str]] = []
    for one in typed:
        name = label_name(one.get("name", ""))
        if not name:
            raise IngestError("A label has no name.")
        if len(name) > LONGEST_LABEL:
            raise IngestError(f"The label “{name[:40]}…” is longer than {LONGEST_LABEL} characters.")
        if any(name == other["name"] for other in labels):
            raise IngestError(f"The label “{name}” is there twice.")
        labels.append(
            {
                "name": name,
                "definition": one.get("definition", "").strip(),
                "rules": one.get("rules", "").strip(),
            }
        )
    if len(labels) > MOST_LABELS:
        raise IngestError(f"{len(labels):,} labels are too many; LabelHub takes {MOST_LABELS:,}.")
    return labels


def natural(name: str) -> list[tuple[int, int, str]]:
    """A key that sorts “item 2” before “item 10”, whatever the case."""
    parts = re.split(r"(\d+)", name.casefold())
    return [(1, int(p), "") if p.isdecimal() else (0, 0, p) for p in parts if p] + [(0, 0, name)]
