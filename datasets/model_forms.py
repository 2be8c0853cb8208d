"""What an owner says about the language model, and what its address says to that."""

from __future__ import annotations

import re
from contextlib import closing
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any

from django import forms
from django.conf import settings
from django.core.validators import RegexValidator

from datasets import model_settings
from datasets.model_settings import keep_out
from labelhub.autolabel.prices import price_of

if TYPE_CHECKING:
    from labelhub.autolabel.labelers.llm import CallFailed, Claude, Model

LIST_KEPT_SECONDS, TROUBLE_KEPT_SECONDS = 600.0, 20.0
_NO_PRICE = "LabelHub has no price for {}, so it could keep no budget: choose another model."
_ABOUT_THE_KEY = {
    "key": "{} is not accepted: copy it from the Anthropic Console once more.",
    "forbidden": "{} may not use models: use another one, or change its permissions in the Anthropic Console.",
    "credit": "{} has no credit left: add credit in the Anthropic Console, then save again.",
    "spend_limit": "{} has reached its spend limit: raise it in the Anthropic Console, then save again.",
}
_FOR_NOW = {
    "busy": "{} asks for fewer requests at the moment.",
    "overloaded": "{} is overloaded at the moment.",
    "server": "{} had an error of its own.",
    "timeout": "{} did not answer in time.",
    "connection": "{} could not be reached.",
}
MOST_ASKS, MOST_AT_ONCE, MOST_A_MINUTE = 5, 64, 100_000
_NAME = RegexValidator(
    r"\A[A-Za-z0-9][A-Za-z0-9._:@/-]*\Z", "The name of a model looks like claude-haiku-5-5, without spaces."
)
# What no address needs is not let in: such characters break headers, and hide a key from those who look for it.
_KEY = RegexValidator(
    r"\A[A-Za-z0-9._~+/=-]{8,}\Z", "This is not a key: it holds characters that no key has, or is too short."
)
_MODEL = {"list": "models", "autocapitalize": "none", "autocomplete": "off", "spellcheck": "false"}


class _Whole(forms.IntegerField):
    """A whole number from 1; whatever is wrong with it is said in one sentence."""

    def __init__(self, sentence: str, most: int, **kwargs: Any) -> None:
        wrong = dict.fromkeys(("required", "invalid", "min_value", "max_value"), sentence)
        widget = forms.NumberInput({"class": "short", "inputmode": "numeric"})
        super().__init__(min_value=1, max_value=most, error_messages=wrong, widget=widget, **kwargs)


class ModelSettingsForm(forms.Form):
    """Which model is asked, how often and how fast, and the key for it.

    Args:
        with_key: False where the key comes from the environment; then there is no field for it.
        has_key: whether one is stored already.
    """

    key = forms.CharField(
        label="Key",
        max_length=500,
        required=False,
        validators=[_KEY],
        widget=forms.PasswordInput({"autocomplete": "off", "spellcheck": "false"}),
    )
    model = forms.CharField(
        label="Model",
        max_length=100,
        validators=[_NAME],
        widget=forms.TextInput(_MODEL),
        help_text="Asked about every text.",
        error_messages={"required": "Name the model, for example claude-haiku-5-5."},
    )
    second_model = forms.CharField(
        label="Second model",
        max_length=100,
        required=False,
        validators=[_NAME],
        widget=forms.TextInput(_MODEL),
        help_text="Asked only where the labelers disagree. Often a dearer one.",
    )
    asks = _Whole(
        f"The number of wordings is a whole number from 1 to {MOST_ASKS}.",
        MOST_ASKS,
        label="Wordings",
        help_text="How often a text may be asked about, each time in other words. Further ones only where the first "
        "answer is unsure.",
    )
    at_once = _Whole(
        f"Calls at the same time are a whole number from 1 to {MOST_AT_ONCE}.",
        MOST_AT_ONCE,
        label="Calls at the same time",
        help_text="Of all workers together.",
    )
    per_minute = _Whole(
        f"Calls a minute are a whole number from 1 to {MOST_A_MINUTE:,}, or empty.",
        MOST_A_MINUTE,
        label="Calls a minute",
        required=False,
        help_text="Of all workers together. Empty for as many as the address takes.",
    )

    def __init__(self, *args: Any, with_key: bool, has_key: bool, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not with_key:
            del self.fields["key"]
        elif has_key:
            self.fields["key"].label = "New key"
            self.fields["key"].help_text = "Leave it empty to keep the stored one."
        else:
            self.fields["key"].help_text = "From the Anthropic Console. Stored encrypted, never shown again."

    def clean_key(self) -> str:
        """A key, or nothing; from here on this process keeps it out of its logs."""
        return keep_out(self.cleaned_data["key"])

    def clean_second_model(self) -> str:
        """Another model than the first, or none."""
        second: str = self.cleaned_data["second_model"]
        if second and second == self.cleaned_data.get("model"):
            raise forms.ValidationError("The second model is the same as the first: choose another, or none.")
        return second

    def clean(self) -> dict[str, Any]:
        """Ask the address, once everything else is in order; what is only to be known is in ``warnings``."""
        said: dict[str, Any] = self.cleaned_data
        self.warnings: tuple[str, ...] = ()
        if not self.errors:
            found = check(said["model"], said["second_model"], said.get("key", ""))
            self.warnings = found.warnings
            for field, sentence in found.errors.items():
                self.add_error(field if field in self.fields else None, sentence)
        return said


# What the address says about keys and models

_offers: dict[tuple[str, str], tuple[float, tuple[Model, ...], str]] = {}  # until when, models, or why none


@dataclass(frozen=True)
class Check:
    """What is wrong with settings, by field, and what only has to be known."""

    errors: dict[str, str]
    warnings: tuple[str, ...] = ()


def check(model: str, second_model: str = "", typed: str = "") -> Check:
    """Ask the address whether the key and the models are good; nothing of it costs anything.

    Args:
        model, second_model: as in ``save``.
        typed: a new key; empty for the one in force.
    Returns: errors by "key", "model", "second_model". What cannot be found out now is a warning.
    """
    from labelhub.autolabel.labelers.llm import CallFailed, Claude

    names = {field: name for field, name in (("model", model), ("second_model", second_model)) if name}
    unpriced = {field: _NO_PRICE.format(name) for field, name in names.items() if price_of(name) is None}
    plain = keep_out(typed or model_settings.key())
    if not plain:
        return Check(unpriced, ("The models could not be checked, since there is no key yet.",))
    errors: dict[str, str] = {}
    warnings: list[str] = []
    with closing(Claude(plain, settings.ANTHROPIC_BASE_URL, model_settings.PAGE_TIMEOUT_SECONDS)) as claude:
        try:
            listed = _listed(claude)
            for field, name in names.items():
                wrong = claude.check_model(name)
                if wrong:
                    errors[field] = wrong
                else:
                    warnings += [one.sentence for one in listed if is_called(one, name) and one.sentence]
        except CallFailed as failed:
            if failed.kind in _ABOUT_THE_KEY:
                sentence = _ABOUT_THE_KEY[failed.kind].format("This key" if typed else "The present key")
                return Check(unpriced | {"key": sentence})
            warnings.append(f"The key and the models could not be checked: {_why(failed)}")
    return Check(unpriced | errors, tuple(dict.fromkeys(warnings)))


def offered() -> tuple[tuple[Model, ...], str]:
    """Return the models to choose from, those that are retired left out, or one sentence why they are not known.

    Both are remembered for a while, so that opening a page rarely waits for another site.
    """
    from labelhub.autolabel.labelers.llm import CallFailed

    plain = model_settings.key()
    if not plain:
        return (), ""
    name = (plain, settings.ANTHROPIC_BASE_URL)
    until, models, trouble = _offers.get(name, (0.0, (), ""))
    if monotonic() < until:
        return models, trouble
    try:
        models = tuple(
            m
            for m in _listed(model_settings.client(model_settings.PAGE_TIMEOUT_SECONDS))
            if m.lifecycle != "retired"
        )
        trouble, until = "", monotonic() + LIST_KEPT_SECONDS
    except CallFailed as failed:
        models, until = (), monotonic() + TROUBLE_KEPT_SECONDS
        about = _ABOUT_THE_KEY.get(failed.kind, "").format("The present key")
        trouble = about or f"The list of models could not be had: {_why(failed)}"
    _offers.clear()
    _offers[name] = (until, models, trouble)
    return models, trouble


def is_called(one: Model, name: str) -> bool:
    """Whether a name is a model's own, or its own without the date at its end."""
    return one.id == name or re.fullmatch(re.escape(name) + r"-\d{8}", one.id) is not None


def _listed(claude: Claude) -> list[Model]:
    """The models; none where the address is a gateway that does not list them. Raises: CallFailed."""
    from labelhub.autolabel.labelers.llm import CallFailed

    try:
        return claude.models()
    except CallFailed as failed:
        if failed.kind != "model":
            raise
        return []


def _why(failed: CallFailed) -> str:
    return _FOR_NOW.get(failed.kind, "{} refused the question.").format(model_settings.where())
