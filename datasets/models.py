"""What was uploaded and what machines said about it.

Facts only: whether an item is accepted, a run is finished or a worker is alive follows from
timestamps and comparisons. The one cache is ``Prediction.open``; see ``reviews/decisions.py``.
"""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.db import models
from django.db.models import F, OuterRef, Q, Subquery

from labelhub.autolabel.rank import confidence_of

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractBaseUser, AnonymousUser

ITEMS_IN_A_SLICE = 500  # also the largest write while people may be deciding


class Role(models.TextChoices):
    """What somebody may do; `datasets/access.py` says what each means."""

    OWNER = "owner"
    MANAGER = "manager"
    REVIEWER = "reviewer"
    VIEWER = "viewer"


class DatasetQuerySet(models.QuerySet["Dataset"]):
    """Datasets, always looked up through a user."""

    def visible_to(self, user: AbstractBaseUser | AnonymousUser) -> DatasetQuerySet:
        """Datasets that this user has a role on, each with that ``role``.

        A role on the dataset itself wins over a role on all datasets.
        """
        role = (
            Membership.objects.filter(Q(dataset=OuterRef("pk")) | Q(dataset=None), user_id=user.pk or 0)
            .order_by(F("dataset").desc(nulls_last=True))
            .values("role")[:1]
        )
        return self.annotate(role=Subquery(role)).exclude(role=None)


class Dataset(models.Model):
    """One uploaded file, its label set and the wishes of its owner."""

    name = models.CharField(max_length=200)
    columns = models.JSONField(default=list)  # the file's column names, in order
    mapping = models.JSONField(default=dict)  # {"text": [...], "id", "label", "predicted", "confidence"}
    report = models.JSONField(default=dict)  # rows read = distinct texts + copies + empty + skipped
    source = models.CharField(max_length=300, blank=True)  # file name, and attribution of the sample
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    ready_at = models.DateTimeField(null=True)  # all rows are in
    problem = models.TextField(null=True)  # why they are not
    target_error = models.FloatField(default=0.05)
    alpha = models.FloatField(default=0.05)
    check_share = models.FloatField(default=0.04)  # of the accepted items, spot-checked
    hourly_rate_usd = models.DecimalField(max_digits=8, decimal_places=2, default=30)

    role: str  # of the user it was looked up for; set by visible_to()

    objects = DatasetQuerySet.as_manager()

    def __str__(self) -> str:
        return self.name


class Membership(models.Model):
    """What a user may do on one dataset, or on all of them when ``dataset`` is empty."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="memberships")
    dataset = models.ForeignKey(Dataset, models.CASCADE, null=True, related_name="memberships")
    role = models.CharField(max_length=10, choices=Role.choices)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["user", "dataset"], name="one_role_per_dataset"),
            models.UniqueConstraint(fields=["user"], condition=Q(dataset=None), name="one_role_on_all"),
        ]


class Label(models.Model):
    """A class, with the definition that people and machines go by."""

    dataset = models.ForeignKey(Dataset, models.CASCADE, related_name="labels")
    name = models.CharField(max_length=200)
    position = models.PositiveIntegerField()  # its key: the first ten answer to 1 … 9, 0
    definition = models.TextField(blank=True)
    rules = models.TextField(blank=True)  # keywords and /patterns/, one a line
    retired_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["position"]
        constraints = [
            models.UniqueConstraint(fields=["dataset", "name"], name="label_once_per_dataset"),
            models.UniqueConstraint(fields=["dataset", "position"], name="label_key_once_per_dataset"),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def key(self) -> str:
        """The digit that chooses this label, or nothing beyond the tenth."""
        return str((self.position + 1) % 10) if self.position < 10 else ""


class UploadDraft(models.Model):
    """A file that was sent but is not a dataset yet; layout and mapping can still be corrected."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="+")
    file_name = models.CharField(max_length=255)
    path = models.CharField(max_length=500)  # below LABELHUB_HOME, named by the id
    layout = models.JSONField(default=dict)
    mapping = models.JSONField(default=dict)
    labels = models.JSONField(default=list)  # typed: [{"name", "definition", "rules"}]
    dataset = models.OneToOneField(Dataset, models.CASCADE, null=True, related_name="draft")
    created_at = models.DateTimeField(auto_now_add=True)
    bytes_read = models.BigIntegerField(default=0)  # progress of the import
    beat_at = models.DateTimeField(null=True)  # the import is alive


class Item(models.Model):
    """One readable, non-empty row of the file."""

    dataset = models.ForeignKey(Dataset, models.CASCADE, related_name="items", db_index=False)
    position = models.PositiveBigIntegerField()  # row number in the file, from 1
    text = models.TextField()  # the chosen text columns, joined by a line break
    row = models.TextField()  # all columns as a JSON object; a JSONL line as it came
    text_hash = models.BigIntegerField()
    same_as = models.ForeignKey("self", models.CASCADE, null=True, db_index=False, related_name="copies")
    given_label = models.ForeignKey(Label, models.PROTECT, null=True, db_index=False, related_name="+")
    excluded = models.CharField(max_length=32, null=True)  # why nobody need label it

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["dataset", "position"], name="row_once_per_dataset"),
        ]
        indexes = [
            models.Index(fields=["dataset", "text_hash"], name="item_duplicates"),
            models.Index(fields=["same_as"], condition=Q(same_as__isnull=False), name="item_copies"),
            models.Index(
                fields=["dataset", "given_label"], condition=Q(given_label__isnull=False), name="item_given"
            ),
            models.Index(
                fields=["dataset", "excluded"], condition=Q(excluded__isnull=False), name="item_excluded"
            ),
        ]


class LabelerVersion(models.Model):
    """A labeler as it was fitted once: method, settings, what it learned from, and the result."""

    dataset = models.ForeignKey(Dataset, models.CASCADE, related_name="versions")
    method = models.CharField(max_length=20)
    settings = models.JSONField(default=dict)
    examples = models.JSONField(default=list)  # [[item id, label id]] that people decided; given ones beside
    decisions = models.BigIntegerField(default=0)  # id of the last decision that was known
    guess = models.BooleanField(default=False)  # nobody has labeled anything: the labels are guesses
    state = models.BinaryField(null=True)  # fitted; empty until the first slice
    at = models.DateTimeField(auto_now_add=True)


class RunQuerySet(models.QuerySet["Run"]):
    """Runs by what their timestamps say."""

    def active(self) -> RunQuerySet:
        """Runs that are neither finished nor cancelled, paused ones included."""
        return self.filter(finished_at=None, cancelled_at=None)


class Run(models.Model):
    """One pass of one labeler version over the items that nobody had decided."""

    dataset = models.ForeignKey(Dataset, models.CASCADE, related_name="runs")
    number = models.PositiveIntegerField()  # 1, 2, … within the dataset
    version = models.ForeignKey(LabelerVersion, models.PROTECT, related_name="runs")
    seed = models.CharField(max_length=32)  # hexadecimal, 128 bits; breaks ties of rank
    requested_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    requested_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True)
    paused_at = models.DateTimeField(null=True)
    cancelled_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)
    problem = models.TextField(null=True)

    objects = RunQuerySet.as_manager()

    class Meta:
        ordering = ["number"]
        constraints = [
            models.UniqueConstraint(fields=["dataset", "number"], name="run_number_once"),
            models.UniqueConstraint(
                fields=["dataset"],
                condition=Q(finished_at=None, cancelled_at=None),
                name="one_active_run_per_dataset",
            ),
        ]

    @property
    def state(self) -> str:
        """One word for people: waiting, running, paused, cancelled, failed or finished."""
        if self.cancelled_at:
            return "cancelled"
        if self.finished_at:
            return "failed" if self.problem else "finished"
        if self.paused_at:
            return "paused"
        return "running" if self.started_at else "waiting"


class Slice(models.Model):
    """A stretch of a run that one worker labels at a time; number 0 fits the labeler.

    A worker owns it by ``epoch`` until ``lease_until``; a write with another epoch is refused.
    """

    run = models.ForeignKey(Run, models.CASCADE, related_name="slices", db_index=False)
    number = models.PositiveIntegerField()
    first_id = models.BigIntegerField()
    last_id = models.BigIntegerField()
    items = models.PositiveIntegerField(default=0)
    owner = models.CharField(max_length=100, blank=True)
    epoch = models.PositiveIntegerField(default=0)
    lease_until = models.DateTimeField(null=True)
    attempts = models.PositiveSmallIntegerField(default=0)
    done_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["run", "number"], name="slice_once_per_run")]
        indexes = [models.Index(fields=["run", "done_at", "number"], name="slice_next")]


class PredictionQuerySet(models.QuerySet["Prediction"]):
    """Predictions on either side of a threshold."""

    def accepted(self, threshold: int) -> PredictionQuerySet:
        """Open predictions that stand unless a spot check says otherwise."""
        return self.filter(self._stands(threshold), open=True)

    def flagged(self, threshold: int) -> PredictionQuerySet:
        """Open predictions that a person must see: the complement of accepted()."""
        return self.filter(~self._stands(threshold), open=True)

    @staticmethod
    def _stands(threshold: int) -> Q:
        retired = Label.objects.exclude(retired_at=None).values("pk")
        return Q(rank__gte=threshold, label__isnull=False) & ~Q(label__in=retired)


class Prediction(models.Model):
    """What one run said about one item. Written once; only ``open`` is kept up to date.

    Whether a prediction is accepted is not stored: it follows from its rank and the
    threshold in force, so moving the threshold moves every item at once.
    """

    run = models.ForeignKey(Run, models.CASCADE, related_name="predictions", db_index=False)
    item = models.ForeignKey(Item, models.CASCADE, related_name="predictions", db_index=False)
    label = models.ForeignKey(Label, models.PROTECT, null=True, db_index=False)
    problem = models.CharField(max_length=32, null=True)  # why there is no label
    rank = models.BigIntegerField()  # confidence in millionths, times 10^6, plus a drawn tie-break
    open = models.BooleanField(default=True)  # undecided and free: the queue's index starts here

    objects = PredictionQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["run", "item"], name="prediction_once_per_run"),
            models.CheckConstraint(
                condition=Q(label=None, problem__isnull=False) | Q(label__isnull=False, problem=None),
                name="prediction_has_a_label_or_a_problem",
            ),
        ]
        indexes = [models.Index(fields=["run", "open", "rank", "item", "label"], name="prediction_queue")]

    @property
    def confidence(self) -> float:
        """The run's probability of being right, in [0, 1]."""
        return confidence_of(self.rank)


class Vote(models.Model):
    """What a labeler said that was paid for or came with the file, kept for every later run."""

    version = models.ForeignKey(LabelerVersion, models.CASCADE, related_name="given_votes", db_index=False)
    item = models.ForeignKey(Item, models.CASCADE, related_name="+", db_index=False)
    label = models.ForeignKey(Label, models.PROTECT, null=True, db_index=False, related_name="+")
    score = models.FloatField()
    evidence = models.TextField(blank=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["version", "item"], name="vote_once_per_version")]


class RunVotes(models.Model):
    """The votes behind one flagged prediction: {labeler: [label id, score, evidence]}."""

    run = models.ForeignKey(Run, models.CASCADE, related_name="votes", db_index=False)
    item = models.ForeignKey(Item, models.CASCADE, related_name="+", db_index=False)
    votes = models.JSONField(default=dict)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["run", "item"], name="votes_once_per_run")]


class Tally(models.Model):
    """How many items a finished run put into each thousandth of confidence, by label."""

    run = models.ForeignKey(Run, models.CASCADE, related_name="tallies", db_index=False)
    bin = models.PositiveSmallIntegerField()  # 0 … 1000: confidence * 1000, rounded down
    label = models.ForeignKey(Label, models.PROTECT, null=True, db_index=False, related_name="+")
    n = models.PositiveIntegerField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["run", "bin", "label"], name="tally_once_per_bin")]


class Heartbeat(models.Model):
    """A worker says that it lives, in the database, because Redis may forget it."""

    name = models.CharField(max_length=100, primary_key=True)
    beat_at = models.DateTimeField()
    busy_with = models.CharField(max_length=100, blank=True)


class AuditEvent(models.Model):
    """Who did what to which dataset; written once, never changed."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    dataset = models.ForeignKey(Dataset, models.CASCADE, null=True, related_name="audit")
    action = models.CharField(max_length=50)
    detail = models.JSONField(default=dict)
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        indexes = [models.Index(fields=["action", "at"], name="audit_by_action")]  # counts failed sign-ins


def record(user: Any, dataset: Dataset | None, action: str, **detail: Any) -> None:
    """Write one line of the audit trail."""
    known = user if user is not None and user.is_authenticated else None
    AuditEvent.objects.create(user=known, dataset=dataset, action=action, detail=detail)


class Backtest(models.Model):
    """A file whose right labels are known, and what the whole loop would have cost on it.

    Waiting, replaying, failed or finished follows from the timestamps. An attempt to replay is known by its
    ``started_at``: what it writes counts only while that is still the latest.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="+")
    file_name = models.CharField(max_length=255)
    options = models.JSONField(default=dict)  # {"layout", "text": […], "gold", "votes": […], "target", …}
    created_at = models.DateTimeField(auto_now_add=True)
    requested_at = models.DateTimeField(null=True)  # its columns are chosen
    started_at = models.DateTimeField(null=True)  # of the latest attempt
    beat_at = models.DateTimeField(null=True)  # the attempt is alive
    attempts = models.PositiveSmallIntegerField(default=0)
    done = models.PositiveIntegerField(default=0)  # replays of the latest attempt
    total = models.PositiveIntegerField(default=0)
    finished_at = models.DateTimeField(null=True)
    problem = models.TextField(null=True)  # why there is no result
    result = models.JSONField(null=True)

    @property
    def path(self) -> Path:
        """Where the file is, until the replay has ended."""
        return Path(settings.LABELHUB_HOME, "uploads", self.pk.hex)

    @property
    def state(self) -> str:
        """One word for people: new, waiting, replaying, failed or finished."""
        if self.finished_at:
            return "failed" if self.problem else "finished"
        if self.requested_at is None:
            return "new"
        return "replaying" if self.beat_at else "waiting"
