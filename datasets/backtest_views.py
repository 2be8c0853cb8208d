"""Backtests: a file with known labels goes in, what LabelHub would have saved comes out. Each is its user's alone."""

from __future__ import annotations

import json
import uuid
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib import messages
from django.core.files.uploadedfile import TemporaryUploadedFile
from django.db.models import Exists, OuterRef
from django.http import HttpResponse, QueryDict
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from datasets import backtests
from datasets.access import Request, allows, check, open_to
from datasets.backtest_forms import BacktestForm
from datasets.forms import ONE_COLUMN, LayoutForm, UploadForm
from datasets.models import Backtest, Dataset, Item
from datasets.tasks import READER_DEAD_AFTER, queue_answers, sweep_files, workers_alive
from labelhub.autolabel import tables
from labelhub.autolabel.layout import DELIMITERS, ENCODINGS, Layout, TableError
from labelhub.autolabel.replay_report import HEADS

SHOWN = 20  # rows of the preview
LOOKED_AT = 1_000  # rows that guesses are made from
LISTED = 100  # datasets to choose from, and past backtests
get_or_post = require_http_methods(["GET", "HEAD", "POST"])


@get_or_post
@open_to("creators")
def listing(request: Request) -> HttpResponse:
    """Take a file, or the given labels of a dataset, and list this person's backtests."""
    form, trouble = UploadForm(), ""
    if request.method == "POST":
        try:
            if "dataset" in request.POST:
                return redirect("datasets:backtest", _from_dataset(request).pk)
            form = UploadForm(request.POST, request.FILES)
            if form.is_valid():
                return redirect("datasets:backtest", _from_upload(request, form.cleaned_data["file"]).pk)
        except TableError as error:
            if form.is_bound:
                form.add_error("file", str(error))
            else:
                trouble = str(error)
    mine = Backtest.objects.filter(user=request.user).order_by("-created_at")[:LISTED]
    given = Item.objects.filter(dataset=OuterRef("pk"), given_label__isnull=False)
    labeled = Dataset.objects.visible_to(request.user).filter(Exists(given)).order_by("-pk")[:LISTED]
    context = {
        "form": form,
        "trouble": trouble,
        "most_mb": settings.LABELHUB_MAX_UPLOAD_MB,
        "most_rows": backtests.MOST_ROWS,
        "lines": [(one, backtests.told(one) if one.state == "finished" else None) for one in mine],
        "labeled": [dataset for dataset in labeled if allows(dataset.role, "manage")],
        "chosen": request.POST.get("dataset") or request.GET.get("dataset", ""),
    }
    return render(request, "datasets/backtests.html", context, status=422 if form.errors or trouble else 200)


def _from_upload(request: Request, upload: TemporaryUploadedFile) -> Backtest:
    made = Backtest(user=request.user, file_name=Path(upload.name or "file").name[:255])
    Path(upload.temporary_file_path()).replace(made.path)
    return backtests.sniff(made)


def _from_dataset(request: Request) -> Backtest:
    sent = request.POST["dataset"]
    pk = int(sent) if sent.isascii() and sent.isdigit() and len(sent) < 19 else 0
    dataset = get_object_or_404(Dataset.objects.visible_to(request.user), pk=pk)
    check(request.user, dataset, "manage", request.path)
    return backtests.from_dataset(dataset, request.user)


@get_or_post
@open_to("creators")
def backtest(request: Request, backtest_id: uuid.UUID) -> HttpResponse:
    """Choose the columns and start; later, see how far it is and what came out."""
    mine = _mine(request, backtest_id)
    if mine.state != "new":
        context = _progress(mine) | {"told": backtests.told(mine) if mine.state == "finished" else None}
        return render(request, "datasets/backtest.html", context)
    if not mine.path.exists():
        gone = {"backtest": mine, "problem": backtests.GONE, "gone": True}
        return render(request, "datasets/backtest_columns.html", gone, status=422)
    bound = request.method == "POST"
    try:
        context = _columns(mine, request.POST if bound else request.GET, bound)
    except TableError as error:
        context = {"backtest": mine, "problem": str(error)}
        return render(request, "datasets/backtest_columns.html", context, status=422)
    form: BacktestForm = context["form"]
    if bound and form.is_valid():
        try:
            backtests.start(mine, {"layout": asdict(context["layout"])} | form.cleaned_data["options"])
            return redirect("datasets:backtest", mine.pk)
        except (TableError, ValueError) as error:
            form.add_error(None, str(error))
    return render(request, "datasets/backtest_columns.html", context, status=422 if form.errors else 200)


@require_safe
@open_to("creators")
def progress(request: Request, backtest_id: uuid.UUID) -> HttpResponse:
    """How far a replay is, for a page that asks every two seconds until it is over."""
    mine = _mine(request, backtest_id)
    if not request.headers.get("HX-Request"):
        return redirect("datasets:backtest", mine.pk)
    sweep_files()
    response = render(request, "datasets/_backtest_progress.html", _progress(mine))
    if mine.finished_at:
        response["HX-Refresh"] = "true"  # the page around it has other things to say now
    return response


@require_POST
@open_to("creators")
def delete(request: Request, backtest_id: uuid.UUID) -> HttpResponse:
    """Forget a backtest, whatever its state."""
    mine = _mine(request, backtest_id)
    backtests.delete(mine)
    messages.success(request, f"“{mine.file_name}” is deleted.")
    return redirect("datasets:backtests")


@require_safe
@open_to("creators")
def as_json(request: Request, backtest_id: uuid.UUID) -> HttpResponse:
    """The result as a file: what `manage.py backtest` prints, and what it rests on."""
    mine = get_object_or_404(Backtest, pk=backtest_id, user=request.user, result__isnull=False)
    whole = {"file": mine.file_name, "finished_at": mine.finished_at, **mine.options, **(mine.result or {})}
    response = HttpResponse(json.dumps(whole, indent=1, default=str), content_type="application/json")
    response["Content-Disposition"] = f'attachment; filename="backtest-{mine.pk.hex[:8]}.json"'
    return response


def _mine(request: Request, backtest_id: uuid.UUID) -> Backtest:
    return get_object_or_404(Backtest.objects.select_related("user"), pk=backtest_id, user=request.user)


def _progress(mine: Backtest) -> dict[str, Any]:
    """The facts of the fragment; ``ready_at`` is known once a replay is done."""
    context: dict[str, Any] = {"backtest": mine, "heads": HEADS}
    if mine.finished_at:
        return context
    moment = timezone.now()
    alive = Backtest.objects.filter(finished_at=None, beat_at__gt=moment - READER_DEAD_AFTER)
    if mine.started_at is None or not alive.filter(pk=mine.pk).exists():
        waits = {"no_worker": not workers_alive(), "queue_down": not queue_answers()}
        return context | waits | {"others": alive.exists()}
    spent = moment - mine.started_at
    left = spent / mine.done * (mine.total - mine.done) if mine.done else None
    return context | {"began": mine.started_at, "ready_at": moment + left if left is not None else None}


def _columns(mine: Backtest, sent: QueryDict, bound: bool) -> dict[str, Any]:
    """Read the first rows as wished, and guess what each column is unless it was said."""
    layout = Layout(**mine.options["layout"])
    changes = LayoutForm(sent).changes(layout)
    if changes:
        layout = tables.with_columns(mine.path, replace(layout, **changes))
    sample = tables.preview(mine.path, layout, LOOKED_AT)
    form = BacktestForm(sent if bound else None, columns=layout.columns, roles=_guess(mine, layout, sample))
    return {
        "backtest": mine,
        "layout": layout,
        "form": form,
        "encodings": ENCODINGS,
        "encoding_word": ENCODINGS[layout.encoding],
        "delimiter_word": DELIMITERS[layout.delimiter],
        "delimiters": {sign or ONE_COLUMN: word for sign, word in DELIMITERS.items()},
        "delimiter": layout.delimiter or ONE_COLUMN,
        "heads": [(name, form[f"use-{n}"]) for n, name in enumerate(layout.columns)],
        "rows": sample.rows[:SHOWN],
        "most_rows": backtests.MOST_ROWS,
    }


def _guess(mine: Backtest, layout: Layout, sample: tables.Preview) -> list[str]:
    """The role of each column: as its dataset had it, else by its name and what it holds."""
    known = mine.options
    if not known.get("text"):
        guess = tables.guess_mapping(tables.profile(sample))
        known = {"text": [guess.text], "gold": guess.label}
        if guess.predicted and guess.confidence:
            known |= {"predicted": guess.predicted, "confidence": guess.confidence}
    single = {known.get(role): role for role in ("confidence", "predicted", "gold")}
    return ["text" if name in known["text"] else single.get(name, "") for name in layout.columns]
