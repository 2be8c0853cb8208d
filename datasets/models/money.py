"""What is asked of a language model elsewhere, and paid for.

Every request has its row before it is sent, with the most that it can cost; an answer settles it. What a run has
spent is the sum of its calls.
"""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q

from datasets.models.run import LabelerVersion, Run


class ModelSettings(models.Model):
    """Which language model labels, for the whole site; the newest row counts."""

    model = models.CharField(max_length=100)
    second_model = models.CharField(max_length=100, blank=True)  # asked where the labelers disagree
    asks = models.PositiveSmallIntegerField(
        default=1
    )  # wordings, of which further ones only where the first is unsure
    at_once = models.PositiveSmallIntegerField(default=8)  # calls under way, of all workers together
    per_minute = models.PositiveIntegerField(
        null=True
    )  # calls, of all workers together; empty: as many as go
    key = models.BinaryField(null=True)  # encrypted; empty: the environment's, or none
    key_at = models.DateTimeField(null=True)  # when a key was typed in
    by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    at = models.DateTimeField(auto_now_add=True)


class Gate(models.Model):
    """The way to one model, shared by all workers: how fast they may call, and what is wrong with it."""

    model = models.CharField(max_length=200, primary_key=True)  # with the address that serves it
    next_at = models.DateTimeField(
        null=True
    )  # when the next call is due, by the calls a minute that are allowed
    closed_until = models.DateTimeField(null=True)  # nobody calls before
    failures = models.PositiveIntegerField(default=0)  # in a row
    failing_since = models.DateTimeField(null=True)
    reason = models.TextField(blank=True)


class MessageBatch(models.Model):
    """Requests that are handed in together, for half the price and an answer within a day."""

    run = models.ForeignKey(Run, models.CASCADE, related_name="batches")
    token = models.CharField(max_length=32, unique=True)  # begins the id of each of its requests
    wave = (
        models.PositiveSmallIntegerField()
    )  # the next one asks again for what an earlier one did not answer
    requests = models.PositiveIntegerField()
    made_at = models.DateTimeField(auto_now_add=True)
    api_id = models.CharField(max_length=100, blank=True)  # empty: not known to have arrived
    submitted_at = models.DateTimeField(null=True)
    expires_at = models.DateTimeField(null=True)
    polled_at = models.DateTimeField(null=True)
    cancelled_at = models.DateTimeField(null=True)  # somebody asked to
    collected_at = models.DateTimeField(null=True)  # its answers are in, or given up


class Call(models.Model):
    """One request to a model. Reserved, then settled or, where nobody knows what became of it, lost."""

    run = models.ForeignKey(Run, models.CASCADE, related_name="calls", db_index=False)
    version = models.ForeignKey(
        LabelerVersion, models.PROTECT, related_name="+", db_index=False
    )  # what was asked
    batch = models.ForeignKey(MessageBatch, models.CASCADE, null=True, related_name="calls")
    gate = models.CharField(max_length=200)  # the way it went
    slice_number = models.PositiveIntegerField()
    epoch = models.PositiveIntegerField()  # of the slice, when this was sent
    items = models.JSONField()  # ids, in the order of the request
    reserved_nano = models.BigIntegerField()  # the most that it can cost, in billionths of a USD
    reserved_at = models.DateTimeField()
    cost_nano = models.BigIntegerField(null=True)
    settled_at = models.DateTimeField(null=True)
    lost_at = models.DateTimeField(
        null=True
    )  # its answer never came; counted as if it had cost what was reserved
    problem = models.CharField(max_length=32, blank=True)
    usage = models.JSONField(default=dict)  # tokens
    raw = models.TextField(blank=True)  # the answer as it came
    request_id = models.CharField(max_length=100, blank=True)
    fake = models.BooleanField(default=False)  # answered by the local stand-in, not by a model

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(settled_at=None) | Q(lost_at=None), name="call_settled_or_lost"
            ),
            models.CheckConstraint(
                condition=Q(settled_at=None, cost_nano=None)
                | Q(settled_at__isnull=False, cost_nano__isnull=False),
                name="call_settled_at_a_cost",
            ),
        ]
        indexes = [
            models.Index(fields=["run", "slice_number"], name="call_by_slice"),
            models.Index(
                fields=["reserved_at"], condition=Q(settled_at=None, lost_at=None), name="call_under_way"
            ),
        ]
