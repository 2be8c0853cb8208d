"""What the columns of a table look like, and which of them is the text, the label, the confidence.

Only hints for a person who then chooses: each comes with its reason in words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from labelhub.autolabel.layout import Preview

LooksLike = Literal["text", "id", "label", "number", "confidence", "other"]
Role = Literal["text", "id", "label", "predicted", "confidence"]

_NAMES: dict[Role, tuple[str, ...]] = {  # likeliest first
    "text": (
        "text",
        "texts",
        "content",
        "message",
        "body",
        "sentence",
        "comment",
        "review",
        "tweet",
        "utterance",
    )
    + ("question", "description", "document", "input", "title", "headline", "abstract", "sms"),
    "id": ("id", "item_id", "row_id", "uuid", "guid", "key", "index"),
    "label": (
        "label",
        "gold",
        "gold_label",
        "labels",
        "class",
        "category",
        "target",
        "intent",
        "sentiment",
        "annotation",
    )
    + ("true_label", "ground_truth", "y"),
    "predicted": (
        "predicted_label",
        "prediction",
        "predicted",
        "pred",
        "pred_label",
        "model_label",
        "label_pred",
        "y_pred",
    ),
    "confidence": ("confidence", "conf", "score", "probability", "prob", "predicted_confidence", "certainty"),
}


@dataclass(frozen=True, slots=True)
class ColumnProfile:
    """One column of some sampled rows.

    Attributes:
        filled: rows with a value; distinct: different values among them; mean_length: their mean length, in
            characters.
        looks_like: what it seems to hold, and ``why`` in words.
    """

    name: str
    filled: int
    distinct: int
    mean_length: float
    looks_like: LooksLike
    why: str


@dataclass(frozen=True, slots=True)
class Mapping:
    """Which column plays which role, None where none does; ``why`` has the reason for each role."""

    text: str | None = None
    id: str | None = None
    label: str | None = None
    predicted: str | None = None
    confidence: str | None = None
    why: dict[Role, str] = field(default_factory=dict)


def profile(sample: Preview) -> list[ColumnProfile]:
    """Describe each column of some rows (``preview(path, layout, rows=1000)``), in their order."""
    import pandas  # half a second, and only an upload needs it

    frame = pandas.DataFrame(sample.rows, columns=range(len(sample.columns)), dtype=str)
    profiles = []
    for n, name in enumerate(sample.columns):
        cells = frame[n]
        cells = cells[cells.str.strip() != ""]
        values = pandas.to_numeric(cells, errors="coerce").dropna()
        filled, distinct = len(cells), int(cells.nunique())
        length = float(cells.str.len().mean()) if filled else 0.0
        looks: tuple[LooksLike, str]
        if not filled:
            looks = "other", "it is empty"
        elif len(values) >= 0.95 * filled:
            looks = _number(
                name,
                distinct,
                filled,
                float(values.min()),
                float(values.max()),
                bool((values % 1 == 0).all()),
            )
        elif distinct == filled > 2 and length <= 40 and (~cells.str.contains(" ")).mean() >= 0.95:
            looks = "id", "every row has a different short value without spaces"
        elif length <= 60 and distinct <= max(2, min(500, filled // 2)):
            looks = "label", f"{distinct:,} different short values in {filled:,} rows"
        else:
            looks = (
                "text",
                f"{length:,.0f} characters on average, {distinct:,} different values in {filled:,} rows",
            )
        profiles.append(ColumnProfile(name, filled, distinct, length, *looks))
    return profiles


def _number(
    name: str, distinct: int, filled: int, low: float, high: float, whole: bool
) -> tuple[LooksLike, str]:
    """Say what a column of numbers is."""
    if low >= 0 and high <= 1 and (not whole or _plain(name) in _NAMES["confidence"]):
        return "confidence", f"numbers from {low:g} to {high:g}"
    if whole and distinct == filled > 2:
        return "id", "every row has a different whole number"
    if whole and distinct <= 20 and _plain(name) in _NAMES["label"]:
        return "label", f"{distinct} different whole numbers, and its name"
    return "number", f"numbers from {low:g} to {high:g}"


def guess_mapping(profiles: Sequence[ColumnProfile]) -> Mapping:
    """Guess the role of each column by its name, where that fits what it holds, else by what it holds."""
    roles: dict[Role, str | None] = {}
    why: dict[Role, str] = {}
    kinds: dict[Role, tuple[LooksLike, ...]] = {
        "predicted": ("label", "text", "number", "id"),
        "confidence": ("confidence",),
        "label": ("label", "text", "number", "id"),
        "id": ("id",),
        "text": ("text", "label", "id"),
    }
    for role, fitting in kinds.items():
        free = [p for p in profiles if p.looks_like in fitting and p.name not in roles.values()]
        named = [p for wanted in _NAMES[role] for p in free if _plain(p.name) == wanted]
        if role == "text":
            longest = max(
                free, key=lambda p: (p.looks_like == "text", p.mean_length * p.distinct), default=None
            )
            likely = [
                p for p in named if p.looks_like == "text" or longest is None or longest.looks_like != "text"
            ]
            chosen = likely[0] if likely else longest
        elif role in ("label", "predicted"):
            chosen = named[0] if named else None
        else:
            chosen = named[0] if named else next(iter(free), None)
        if chosen is None:
            roles[role] = None
            why[role] = "no column looks like it"
        else:
            roles[role] = chosen.name
            why[role] = f"its name, and {chosen.why}" if chosen in named else chosen.why
    if roles["label"] is None:
        few = [p for p in profiles if p.looks_like == "label" and p.name not in roles.values()]
        if len(few) == 1:
            roles["label"], why["label"] = few[0].name, few[0].why
    return Mapping(why=why, **roles)


def text_problem(profiles: Sequence[ColumnProfile], names: Sequence[str]) -> str:
    """Return why these columns cannot be the text to label, in one sentence, or an empty text if they can."""
    by_name = {p.name: p for p in profiles}
    best = guess_mapping(profiles).text
    hint = f" “{best}” looks like text." if best is not None and best not in names else ""
    if not names:
        return f"Choose the column that holds the text.{hint}"
    for name in names:
        if name not in by_name:
            return f"The file has no column “{name}”.{hint}"
    chosen = [by_name[name] for name in names]
    quoted = " and ".join(f"“{name}”" for name in names)
    if not any(p.filled for p in chosen):
        return f"{quoted} is empty in all the rows that were looked at.{hint}"
    if all(
        p.looks_like in ("number", "confidence") or p.why.endswith("whole number") for p in chosen if p.filled
    ):
        return f"{quoted} holds only numbers, and LabelHub labels texts.{hint}"
    return ""


def _plain(name: str) -> str:
    return name.strip().lower().replace(" ", "_").replace("-", "_")
