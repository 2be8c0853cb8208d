"""What managers type about the language model: the prompt, the size of a trial, a variant to compare."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from django import forms

from datasets.models import Dataset, Label
from labelhub.autolabel.labelers.rules import check_rules, rules_in
from reviews.trials import LEAST, MOST, USUAL

LONGEST_GUIDELINES = 20_000  # characters
LONGEST_DEFINITION = 4_000


class _Words(forms.CharField):
    """Text of several lines, with the line ends that it is stored with; browsers send others."""

    def __init__(self, label: str, rows: int, most: int, **kwargs: Any) -> None:
        widget = forms.Textarea({"rows": rows, "dir": "auto"})
        long = {"max_length": f"This is longer than {most:,} characters."}
        super().__init__(
            label=label, required=False, max_length=most, widget=widget, error_messages=long, **kwargs
        )

    def to_python(self, value: Any) -> str:
        return one_line_end(str(super().to_python(value))).strip()


class PromptForm(forms.Form):
    """Guidelines and definitions; the definition of label n answers to ``definition-n``, n its id.

    ``was`` says what they were when the page was shown, so that two people do not overwrite each other.
    """

    guidelines = _Words("Guidelines", 6, LONGEST_GUIDELINES)
    was = forms.CharField(widget=forms.HiddenInput)

    def __init__(self, data: Any = None, *, dataset: Dataset) -> None:
        self.labels: list[Label] = list(dataset.labels.filter(retired_at=None))
        super().__init__(
            data, initial={"guidelines": dataset.guidelines, "was": state_of(dataset, self.labels)}
        )
        self._now = self.initial["was"]
        for label in self.labels:
            self.fields[f"definition-{label.pk}"] = _Words(label.name, 2, LONGEST_DEFINITION)
            self.initial[f"definition-{label.pk}"] = label.definition

    def definition_fields(self) -> list[forms.BoundField]:
        """The field of each label's definition, in the order of the labels."""
        return [self[f"definition-{label.pk}"] for label in self.labels]

    @property
    def overtaken(self) -> bool:
        """Whether somebody stored something else since the page was shown."""
        return self.is_bound and self.data.get("was") != self._now

    def clean(self) -> dict[str, Any]:
        """Refuse rules that cannot be read, and what would overwrite another person's change."""
        said: dict[str, Any] = self.cleaned_data
        said["definitions"] = {one.name: said.get(f"definition-{one.pk}", "") for one in self.labels}
        try:
            check_rules({name: rules_in(text) for name, text in said["definitions"].items()})
        except ValueError as error:
            self.add_error(None, str(error))
        if self.overtaken:
            self.add_error(
                None,
                "Somebody stored another prompt since this page was opened. It is shown below as it is sent now; what "
                "you typed is kept in the fields. Save again to replace it.",
            )
            self.data = dict(self.data.items()) | {"was": self._now}
        return said


def state_of(dataset: Dataset, labels: list[Label]) -> str:
    """A short name for guidelines and definitions as they are stored."""
    told = [dataset.guidelines, [[one.pk, one.definition] for one in labels]]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]


class TrialForm(forms.Form):
    """How many items a trial takes, and the most that it may cost."""

    size = forms.IntegerField(
        label="Items",
        min_value=LEAST,
        max_value=MOST,
        initial=USUAL,
        widget=forms.NumberInput({"class": "short"}),
        error_messages=dict.fromkeys(
            ("required", "invalid", "min_value", "max_value"), f"A trial takes {LEAST} to {MOST} items."
        ),
    )
    budget = forms.CharField(
        label="At most, in USD",
        required=False,
        max_length=20,
        widget=forms.TextInput({"class": "short", "inputmode": "decimal", "autocomplete": "off"}),
    )


class VariantForm(forms.Form):
    """Prompt B: other guidelines, with or without examples."""

    guidelines = _Words("Guidelines of prompt B", 6, LONGEST_GUIDELINES)
    examples = forms.BooleanField(label="Show reviewed examples", required=False)


def one_line_end(text: str) -> str:
    """Return a text with line feeds alone at its line ends."""
    return text.replace("\r\n", "\n").replace("\r", "\n")
