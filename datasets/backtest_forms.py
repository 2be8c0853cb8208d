"""What people say about a file with known labels: its columns, and what is to be promised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django import forms

from datasets.backtests import MOST_REPETITIONS

ROLES = [
    ("", "not used"),
    ("text", "text"),
    ("gold", "known label"),
    ("predicted", "predicted label"),
    ("confidence", "confidence"),
    ("votes", "one machine’s vote"),
]
SEVERAL = ("text", "votes")  # roles that more than one column may have
REPETITIONS = [(str(n), str(n)) for n in range(1, MOST_REPETITIONS + 1)]


class Percentage(forms.FloatField):
    """A percentage between 0 and 100, cleaned to a share in (0, 1); “0,5” is read as well."""

    def __init__(self, sentence: str, **kwargs: Any) -> None:
        super().__init__(error_messages={"required": sentence, "invalid": sentence}, **kwargs)
        self.sentence = sentence

    def clean(self, value: Any) -> float | None:
        """Raises: ValidationError with the one sentence."""
        share: float | None = super().clean(str(value or "").replace(",", ".").rstrip("% "))
        if share is None:
            return None
        if not 0 < share < 100:
            raise forms.ValidationError(self.sentence)
        return round(share / 100, 12)


class BacktestForm(forms.Form):
    """The role of each column, the promise, and how often to replay.

    Args:
        columns: the column names; column n answers to the field ``use-n``.
        roles: the guessed role of each column, used where nothing was sent.
    """

    target = Percentage("The target is a percentage between 0 and 100, for example 95.", initial="95")
    floor = Percentage(
        "The floor is a percentage between 0 and 100, for example 90, or empty.", initial="90", required=False
    )
    repetitions = forms.ChoiceField(
        choices=REPETITIONS,
        initial="1",
        error_messages={
            "required": "Choose how many replays.",
            "invalid_choice": f"Choose from 1 to {MOST_REPETITIONS} replays.",
        },
    )

    def __init__(self, *args: Any, columns: Sequence[str], roles: Sequence[str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.columns = list(columns)
        for n, role in enumerate(roles):
            self.fields[f"use-{n}"] = forms.ChoiceField(choices=ROLES, required=False, initial=role)

    def clean(self) -> dict[str, Any]:
        """Add ``options``, as `datasets.backtests.start` takes them."""
        data = super().clean() or {}
        if any(name.startswith("use-") for name in self.errors):
            raise forms.ValidationError("One of the columns is marked as something that does not exist.")
        if not self.errors:
            data["options"] = self._roles(data) | {
                "target": data["target"],
                "floor": data["floor"],
                "repetitions": int(data["repetitions"]),
            }
        return data

    def _roles(self, data: Mapping[str, Any]) -> dict[str, Any]:
        roles: dict[str, Any] = {"text": [], "gold": "", "predicted": "", "confidence": "", "votes": []}
        for n, name in enumerate(self.columns):
            role = data.get(f"use-{n}")
            if role in SEVERAL:
                roles[role].append(name)
            elif role and roles[role]:
                word = dict(ROLES)[role]
                raise forms.ValidationError(f"Two columns are marked as {word}: only one can be.")
            elif role:
                roles[role] = name
        return roles
