"""From a file to a dataset: the file, its columns, its labels."""

from __future__ import annotations

import json
import shutil
import uuid
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.core.files.uploadedfile import TemporaryUploadedFile
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from datasets.access import open_to
from datasets.forms import ONE_COLUMN, ColumnsForm, LayoutForm, UploadForm
from datasets.models import UploadDraft
from datasets.schema import label_name
from datasets.tasks import begin
from labelhub.autolabel import tables
from labelhub.autolabel.layout import DELIMITERS, ENCODINGS, Layout, TableError

SAMPLE = Path(__file__).parent / "samples" / "bank_support_questions.csv"
SHOWN = 20  # rows of the preview
LOOKED_AT = 1_000  # rows that guesses are made from
COUNTED = 200_000  # rows in which labels are counted before the file is read as a whole
get_or_post = require_http_methods(["GET", "HEAD", "POST"])


@get_or_post
@open_to("creators")
def new(request: HttpRequest) -> HttpResponse:
    """Take a file; a file that cannot be read is a form error."""
    form = UploadForm(request.POST, request.FILES) if request.method == "POST" else UploadForm()
    if request.method == "POST" and form.is_valid():
        upload: TemporaryUploadedFile = form.cleaned_data["file"]
        made = _keep(upload, request)
        try:
            layout = tables.sniff(made.path)
        except TableError as error:
            Path(made.path).unlink(missing_ok=True)
            form.add_error("file", str(error))
        else:
            made.layout = asdict(layout)
            made.save()
            return redirect("datasets:draft", made.pk)
    context = {"form": form, "most_mb": settings.LABELHUB_MAX_UPLOAD_MB}
    return render(request, "datasets/new.html", context, status=422 if form.errors else 200)


def _keep(upload: TemporaryUploadedFile, request: HttpRequest) -> UploadDraft:
    """Give the upload a name of our own, below LABELHUB_HOME; the sent name is only shown."""
    made = UploadDraft(id=uuid.uuid4(), user=_user(request), file_name=Path(upload.name or "file").name[:255])
    made.path = str(settings.LABELHUB_HOME / "uploads" / made.pk.hex)
    Path(upload.temporary_file_path()).replace(made.path)
    return made


@get_or_post
@open_to("creators")
def draft(request: HttpRequest, draft_id: uuid.UUID) -> HttpResponse:
    """Show how the file is read and what its columns are; make the dataset when that is right."""
    found = get_object_or_404(UploadDraft, pk=draft_id, user_id=request.user.pk)
    if found.dataset_id is not None:
        return redirect("reviews:overview", found.dataset_id)
    if not Path(found.path).exists():
        found.delete()
        return redirect("datasets:new")
    try:
        context = _columns(found, request.POST if request.method == "POST" else request.GET)
    except TableError as error:
        return render(request, "datasets/draft.html", {"draft": found, "problem": str(error)}, status=422)
    form: ColumnsForm = context["form"]
    if request.method == "POST":
        if form.is_valid():
            found.layout = asdict(context["layout"])
            found.mapping, found.labels = form.cleaned_data["mapping"], form.cleaned_data["labels"]
            dataset = begin(found, form.cleaned_data["name"], _user(request))
            return redirect("reviews:overview", dataset.pk)
        return render(request, "datasets/draft.html", context, status=422)
    return render(request, "datasets/draft.html", context)


@require_GET
@open_to("creators")
def preview(request: HttpRequest, draft_id: uuid.UUID) -> HttpResponse:
    """The columns and labels again, after another encoding, delimiter or column was chosen."""
    found = get_object_or_404(UploadDraft, pk=draft_id, user_id=request.user.pk, dataset=None)
    try:
        context = _columns(found, request.GET)
    except TableError as error:
        context = {"draft": found, "problem": str(error)}
        return render(request, "datasets/_columns.html", context, status=422)
    return render(request, "datasets/_columns.html", context)


def _columns(found: UploadDraft, sent: QueryDict) -> dict[str, Any]:
    """Read the first rows as wished, guess the roles, and find the labels of the label column.

    Choices about columns count only if they were made on this reading (``read_as``), and
    definitions only if they were typed for this label column (``labels_of``).
    """
    path = Path(found.path)
    layout = Layout(**found.layout)
    reading = LayoutForm(sent)
    changes = reading.changes(layout)
    if changes:
        layout = tables.with_columns(path, replace(layout, **changes))
    sample = tables.preview(path, layout, LOOKED_AT)
    profiles = tables.profile(sample)
    guess = tables.guess_mapping(profiles)
    read_as = f"{layout.encoding} {layout.delimiter} {layout.header}"
    roles = [next((r for r in ("text", "id", "label", "predicted", "confidence") if getattr(guess, r) == name), "")
             for name in layout.columns]  # fmt: skip
    chosen = sent.get("read_as") == read_as
    if chosen:
        roles = [sent.get(f"use-{n}", "") for n in range(len(layout.columns))]
    column = next(
        (
            name
            for role in ("label", "predicted")
            for name, r in zip(layout.columns, roles, strict=True)
            if r == role
        ),
        "",
    )
    counts, trouble = _count_labels(path, layout, column)
    data = sent.copy() if chosen else None
    if data is not None and sent.get("labels_of") != column:
        for key in [key for key in data if key.startswith("definition-")]:
            del data[key]
    form = ColumnsForm(
        data,
        columns=layout.columns,
        roles=roles,
        found=counts,
        initial={"name": Path(found.file_name).stem[:200]},
    )
    texts = [n for n, role in enumerate(roles) if role == "text"]
    return {
        "draft": found,
        "layout": layout,
        "encodings": ENCODINGS,
        "encoding_word": ENCODINGS[layout.encoding],
        "delimiters": {sign or ONE_COLUMN: word for sign, word in DELIMITERS.items()},
        "delimiter": layout.delimiter or ONE_COLUMN,
        "delimiter_word": DELIMITERS[layout.delimiter],
        "read_as": read_as,
        "form": form,
        "heads": [(profile, form[f"use-{n}"]) for n, profile in enumerate(profiles)],
        "rows": sample.rows[:SHOWN],
        "looked_at": len(sample.rows) + len(sample.bad),
        "bad": sample.bad[:5],
        "bad_count": len(sample.bad),
        "why": [(role, getattr(guess, role), guess.why.get(role, ""))
                for role in ("text", "label", "predicted", "confidence") if getattr(guess, role)],
        "texts": ["\n".join(row[n] for n in texts) for row in sample.rows[:3]] if texts else [],
        "text_names": [layout.columns[n] for n in texts],
        "text_trouble": tables.text_problem(profiles, [layout.columns[n] for n in texts]),
        "labels_of": column,
        "label_trouble": trouble,
        "alike": tables.alike(counts),
        "counted": COUNTED,
    }  # fmt: skip


def _count_labels(path: Path, layout: Layout, column: str) -> tuple[dict[str, int], str]:
    if not column:
        return {}, ""
    try:
        written = tables.label_counts(path, layout, column, limit_rows=COUNTED, limit_values=1_000)
    except TableError as error:
        return {}, str(error)
    counts: dict[str, int] = {}
    for name, n in written.items():
        if label_name(name):
            counts[label_name(name)] = counts.get(label_name(name), 0) + n
    return counts, ""


@require_POST
@open_to("creators")
def sample(request: HttpRequest) -> HttpResponse:
    """Make the sample dataset, through the same steps as any file."""
    facts = json.loads(SAMPLE.with_suffix(".json").read_text("utf-8"))
    made = UploadDraft(id=uuid.uuid4(), user=_user(request), file_name=SAMPLE.name)
    made.path = str(settings.LABELHUB_HOME / "uploads" / made.pk.hex)
    shutil.copyfile(SAMPLE, made.path)
    made.layout = asdict(tables.sniff(SAMPLE))
    made.mapping, made.labels = facts["mapping"], facts["labels"]
    made.save()
    return redirect("reviews:overview", begin(made, facts["name"], _user(request), facts["source"]).pk)


def _user(request: HttpRequest) -> User:
    assert isinstance(request.user, User)  # creators are signed in
    return request.user
