"""What machines said about items, and how far they are.

Facts only: whether an item is accepted or a run is finished follows from timestamps and comparisons. The one
cache is ``Prediction.open``; see ``reviews/decisions.py``.
"""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q

from datasets.models.dataset import Dataset, Item, Label
from labelhub.autolabel.rank import confidence_of

ITEMS_IN_A_SLICE = 500  # also the largest write while people may be deciding


class LabelerVersion(models.Model):
    """A labeler as it was fitted once: method, settings, what it learned from, and the result."""

    dataset = models.ForeignKey(Dataset, models.CASCADE, related_name="versions")
    method = models.CharField(max_length=20)
    settings = models.JSONField(default=dict)
    examples = models.JSONField(default=list)  # [[item id, label id]] that people decided; given ones beside
    decisions = models.BigIntegerField(default=0)  # id of the last decision that was known
    guess = models.BooleanField(default=False)  # nobody has labeled anything: the labels are guesses
    state = models.BinaryField(null=True)  # fitted; empty until the first slice
    # Of the method "ask" (one wording of one prompt to one model): equal where equal questions are asked.
    fingerprint = models.CharField(max_length=64, blank=True)
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        indexes = [
            models.Index(fields=["fingerprint"], condition=~Q(fingerprint=""), name="version_asked"),
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["dataset", "fingerprint"],
                condition=~Q(fingerprint=""),
                name="question_once_per_dataset",
            )
        ]


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
    trial = models.BooleanField(
        default=False
    )  # a few items, to see what it says and costs; never takes force
    # Money, in billionths of a USD. The sums of `calls`: kept here so that the cap is a condition of one statement.
    budget_nano = models.BigIntegerField(null=True)  # the cap; empty: nothing may be spent
    reserved_nano = models.BigIntegerField(default=0)
    spent_nano = models.BigIntegerField(default=0)
    estimate = models.JSONField(default=dict)  # what it was expected to cost, when it was started

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
    problem = models.CharField(max_length=32, null=True)  # asked, and there is no label: why
    # "certain" or "possible", and how the text looks as if it told the model what to say; see labelers/suspicion.py.
    suspect = models.CharField(max_length=60, blank=True, default="", db_default="")
    call = models.ForeignKey("Call", models.SET_NULL, null=True, db_index=False, related_name="votes")

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
