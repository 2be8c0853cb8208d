"""What people send about an item, a sample or a threshold, checked before anything is stored."""

from __future__ import annotations

from typing import Any

from django import forms
from django.db.models import QuerySet

from datasets.models import Label
from reviews.models import Outcome, Remark

LONGEST_NOTE = 10_000


class DecisionForm(forms.Form):
    """One answer: a label of the dataset, “can't tell” or “leave out”."""

    uuid = forms.UUIDField(required=False)
    label = forms.ModelChoiceField(Label.objects.none(), required=False)
    outcome = forms.ChoiceField(
        choices=[(o, o) for o in (Outcome.LABEL, Outcome.CANT_TELL, Outcome.EXCLUDE)], required=False
    )
    note = forms.CharField(max_length=LONGEST_NOTE, required=False)
    seconds = forms.FloatField(min_value=0, required=False)

    def __init__(self, *args: Any, labels: QuerySet[Label], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["label"].queryset = labels  # type: ignore[attr-defined]
        self.fields["label"].error_messages["invalid_choice"] = (
            "This label is no longer in use. Choose another."
        )

    def clean(self) -> dict[str, Any]:
        """Refuse an answer that says nothing."""
        data = super().clean() or {}
        if data.get("label") is not None:
            data["outcome"] = Outcome.LABEL
        elif data.get("outcome") in ("", None, Outcome.LABEL) and not self.errors:
            raise forms.ValidationError("Choose a label, or say that you can't tell.")
        return data


class RemarkForm(forms.Form):
    """A skip, a question for the manager, or a note."""

    kind = forms.ChoiceField(choices=Remark.Kind.choices)
    text = forms.CharField(max_length=LONGEST_NOTE, required=False)

    def clean(self) -> dict[str, Any]:
        """Refuse a note without words."""
        data = super().clean() or {}
        if data.get("kind") == Remark.Kind.NOTE and not data.get("text"):
            raise forms.ValidationError("The note is empty.")
        return data


class ReasonForm(forms.Form):
    """The sentence that a manager may add to a verdict."""

    reason = forms.CharField(max_length=1000, required=False)


class GoalForm(forms.Form):
    """The promise to work towards: percentages, as people type them."""

    target = forms.CharField(max_length=10)
    floor = forms.CharField(max_length=10, required=False)

    target_error: float
    floor_error: float | None = None

    def clean_target(self) -> str:
        """Read the share of all labels that must be right."""
        self.target_error = self._error("target", 50)
        return str(self.cleaned_data["target"])

    def clean_floor(self) -> str:
        """Read the share of the unseen labels that must be right; empty for none."""
        typed = str(self.cleaned_data["floor"])
        self.floor_error = self._error("floor", 1) if typed.strip() else None
        return typed

    def _error(self, name: str, least: float) -> float:
        typed = str(self.cleaned_data[name]).strip().removesuffix("%").strip().replace(",", ".")
        try:
            percent = float(typed)
        except ValueError:
            percent = 0.0
        if not least <= percent < 100:
            raise forms.ValidationError(f"Type a percentage from {least:g} to below 100, for example 95.")
        return round((100 - percent) / 100, 6)
