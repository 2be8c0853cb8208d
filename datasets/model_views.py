"""The page of the language model: its key, its name, what it costs and what is sent to it."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.debug import sensitive_post_parameters, sensitive_variables
from django.views.decorators.http import require_http_methods, require_POST

from datasets import model_settings
from datasets.access import Request, open_to
from datasets.model_forms import ModelSettingsForm, is_called, offered
from labelhub.autolabel import prices

if TYPE_CHECKING:
    from labelhub.autolabel.labelers.llm import Model

FIELDS = ("model", "second_model", "asks", "at_once", "per_minute")
get_or_post = require_http_methods(["GET", "HEAD", "POST"])


@get_or_post
@open_to("owners")
@sensitive_post_parameters("key")
@sensitive_variables()
def model(request: Request) -> HttpResponse:
    """Show the settings; store them once the address has accepted key and models, or cannot be asked."""
    state = model_settings.key_state()
    last = model_settings.current()
    form = ModelSettingsForm(
        request.POST if request.method == "POST" else None,
        initial={name: getattr(last, name) for name in FIELDS},
        with_key=state.source != "environment",
        has_key=state.source == "stored",
    )
    if request.method == "POST" and form.is_valid():
        model_settings.save(request.user, **form.cleaned_data)
        messages.success(request, "The settings are saved.")
        for sentence in form.warnings:
            messages.warning(request, sentence)
        return redirect("datasets:model")
    models, trouble = offered()
    context = {
        "form": form,
        "state": state,
        "has_stored": model_settings.has_stored(),
        "offered": [(one.id, described(one)) for one in models],
        "trouble": trouble,
        "missing": model_settings.missing(),
        "where": model_settings.where(),
        "is_local": model_settings.is_local(),
        "last_was_fake": model_settings.last_was_fake(),
        "costs": [
            (
                name,
                prices.price_of(name),
                next((described(one) for one in models if is_called(one, name)), ""),
            )
            for name in (last.model, last.second_model)
            if name
        ],
        "as_of": dt.date.fromisoformat(prices.AS_OF),
        "long_prompt": prices.LONG_PROMPT,
    }
    return render(request, "datasets/model.html", context, status=422 if form.errors else 200)


def described(one: Model) -> str:
    """Return a model's name and where it is in its life, for people."""
    if one.retires_at and one.lifecycle != "active":
        return f"{one.name}, retires {one.retires_at.day} {one.retires_at:%b %Y}"
    return f"{one.name}, {one.lifecycle}"


@require_POST
@open_to("owners")
def forget(request: Request) -> HttpResponse:
    """Erase the stored key."""
    model_settings.forget(request.user)
    messages.success(request, "The stored key is erased. Runs that need it pause until there is another one.")
    return redirect("datasets:model")
