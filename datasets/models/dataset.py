"""What was uploaded, and who may see it. Facts only."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from django.conf import settings
from django.db import models
from django.db.models import F, OuterRef, Q, Subquery

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractBaseUser, AnonymousUser


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
    guidelines = models.TextField(blank=True)  # how to label, for people and for the language model

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
