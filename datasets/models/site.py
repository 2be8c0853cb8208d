"""What belongs to the whole site: workers alive, who did what, and backtests."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import models

from datasets.models.dataset import Dataset


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
