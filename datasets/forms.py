"""What people say about a file: how it is read, what its columns are, which labels there are."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django import forms

from datasets.schema import IngestError, check_labels, check_mapping, label_name
from labelhub.autolabel.labelers.rules import check_rules, rules_in
from labelhub.autolabel.layout import DELIMITERS, ENCODINGS, Layout

ROLES = [
    ("", "not used"),
    ("text", "text"),
    ("id", "id"),
    ("label", "given label"),
    ("predicted", "predicted label"),
    ("confidence", "confidence"),
]
ONE_COLUMN = "none"  # sent where no delimiter cuts the lines; an empty field means “as it is”
MOST_SHOWN = 200  # found labels that can get a definition here
_COMMENT = re.compile(r":\s+")


class UploadForm(forms.Form):
    """One file."""

    file = forms.FileField(
        max_length=5_000,  # of its name
        error_messages={
            "required": "Choose a file first.",
            "empty": "This file is empty.",
            "max_length": "The name of this file is longer than 5,000 characters.",
        },
    )


class LayoutForm(forms.Form):
    """Corrections of how a file is read; fields that were not sent leave the layout as it is."""

    encoding = forms.ChoiceField(choices=list(ENCODINGS.items()), required=False)
    delimiter = forms.ChoiceField(
        choices=[(sign or ONE_COLUMN, word) for sign, word in DELIMITERS.items()], required=False
    )
    header = forms.ChoiceField(
        choices=[("yes", "first row names the columns"), ("no", "first row is data")], required=False
    )

    def changes(self, layout: Layout) -> dict[str, Any]:
        """What differs from a layout, for ``dataclasses.replace``; empty when nothing valid does."""
        self.is_valid()
        wanted: dict[str, Any] = {}
        if self.cleaned_data.get("encoding"):
            wanted["encoding"] = self.cleaned_data["encoding"]
        if layout.format == "csv":
            if self.cleaned_data.get("delimiter"):
                sign = self.cleaned_data["delimiter"]
                wanted["delimiter"] = "" if sign == ONE_COLUMN else sign
            if self.cleaned_data.get("header"):
                wanted["header"] = self.cleaned_data["header"] == "yes"
        return {name: value for name, value in wanted.items() if getattr(layout, name) != value}


@dataclass(frozen=True)
class Found:
    """A label that the file has, how often among the rows looked at, and what was typed about it."""

    number: int
    name: str
    n: int
    definition: str = ""


class ColumnsForm(forms.Form):
    """The role of each column, the name of the dataset, and its labels.

    Args:
        columns: the column names; column n answers to the field ``use-n``.
        roles: the guessed role of each column, used where nothing was sent.
        found: labels of the label column; label n answers to ``definition-n``.
    """

    name = forms.CharField(
        max_length=200,
        error_messages={
            "required": "Give the dataset a name.",
            "max_length": "The name is longer than 200 characters.",
        },
    )
    more = forms.CharField(widget=forms.Textarea, required=False, max_length=1_000_000)

    def __init__(
        self, *args: Any, columns: Sequence[str], roles: Sequence[str] = (), found: Mapping[str, int] | None = None,
        **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(*args, **kwargs)
        self.columns = list(columns)
        for n, _ in enumerate(self.columns):
            initial = roles[n] if n < len(roles) else ""
            self.fields[f"use-{n}"] = forms.ChoiceField(choices=ROLES, required=False, initial=initial)
        self.found = [
            Found(n, name, count, str(self.data.get(f"definition-{n}", "")) if self.is_bound else "")
            for n, (name, count) in enumerate(list((found or {}).items())[:MOST_SHOWN])
        ]

    def clean(self) -> dict[str, Any]:
        """Put the mapping and the labels together; each mistake is one sentence."""
        data = super().clean() or {}
        try:
            data["mapping"] = check_mapping(self._mapping(data), self.columns)
            data["labels"] = self._labels(data)
            if not data["labels"] and not data["mapping"]["label"] and not data["mapping"]["predicted"]:
                raise IngestError("Type the labels, one a line, or choose the column that holds them.")
            check_rules({one["name"]: rules_in(one["definition"]) for one in data["labels"]})
        except (IngestError, ValueError) as error:
            raise forms.ValidationError(str(error)) from error
        return data

    def _mapping(self, data: Mapping[str, Any]) -> dict[str, Any]:
        mapping: dict[str, Any] = {"text": []}
        for n, name in enumerate(self.columns):
            role = data.get(f"use-{n}")
            if role == "text":
                mapping["text"].append(name)
            elif role:
                if role in mapping:
                    raise IngestError(f"Two columns are marked as {dict(ROLES)[role]}: only one can be.")
                mapping[role] = name
        return mapping

    def _labels(self, data: Mapping[str, Any]) -> list[dict[str, str]]:
        """Typed labels, and those found if one of them was described: the others are found again when reading."""
        typed = parse_labels(data.get("more", ""))
        described = [
            {"name": one.name, "definition": one.definition.strip(), "rules": "", "found": "yes"}
            for one in self.found
        ]
        if not typed and not any(one["definition"] for one in described):
            return []
        labels = [*described, *typed]
        tidy = check_labels(labels)
        return [one | {"found": "yes"} if n < len(described) else one for n, one in enumerate(tidy)]


def parse_labels(text: str) -> list[dict[str, str]]:
    """Read labels typed one a line, as “name” or “name: definition”."""
    labels = []
    for line in text.splitlines():
        name, _, definition = _COMMENT.sub("\0", line.strip(), count=1).partition("\0")
        if label_name(name):
            labels.append({"name": name, "definition": definition, "rules": ""})
    return labels
