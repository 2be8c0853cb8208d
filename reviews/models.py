"""What people said: thresholds, claims, decisions, samples, verdicts and certificates.

Decisions, verdicts and certificates are only ever added; triggers refuse to change them.
"""

from __future__ import annotations

import uuid

from django.conf import settings
from django.db import models
from django.db.models import Exists, OuterRef, Q

from datasets.models import Dataset, Item, Label, Run
from labelhub.autolabel.rank import ACCEPT_NOTHING, confidence_of


class Purpose(models.TextChoices):
    """The lane in which an answer was asked for."""

    REVIEW = "review"
    CALIBRATION = "calibration"
    SPOT_CHECK = "spot_check"
    TRAINING = "training"


class Outcome(models.TextChoices):
    """What an answer says."""

    LABEL = "label", "Label"
    CANT_TELL = "cant_tell", "Can't tell"
    EXCLUDE = "exclude", "Left out"
    UNDO = "undo", "Undo"


class Threshold(models.Model):
    """The run and the rank in force from ``at`` on; the latest row of a dataset counts."""

    dataset = models.ForeignKey(Dataset, models.CASCADE, related_name="thresholds", db_index=False)
    run = models.ForeignKey(Run, models.PROTECT, related_name="thresholds")
    rank = models.BigIntegerField()
    # By target: the calibration sample that proved this rank, or a lower one. By hand: empty.
    sample = models.ForeignKey("Sample", models.PROTECT, null=True, related_name="thresholds")
    by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        indexes = [models.Index(fields=["dataset", "id"], name="threshold_latest")]

    @property
    def accepts_nothing(self) -> bool:
        """Whether it is above every rank."""
        return self.rank >= ACCEPT_NOTHING

    @property
    def confidence(self) -> float:
        """The typed threshold in [0, 1]; 1.0 also where nothing is accepted."""
        return min(confidence_of(self.rank), 1.0)


class GoalQuerySet(models.QuerySet["Goal"]):
    """Goals by what their timestamps say."""

    def active(self) -> GoalQuerySet:
        """Those that people work towards; the database allows one per dataset."""
        return self.filter(left_at=None)


class Goal(models.Model):
    """A promise about a whole dataset that people work towards, round by round: the threshold goes by target."""

    dataset = models.ForeignKey(Dataset, models.CASCADE, related_name="goals")
    target_error = models.FloatField()  # share of all labels that may be wrong
    floor_error = models.FloatField(null=True)  # share of the accepted labels that may be; empty = no floor
    by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    at = models.DateTimeField(auto_now_add=True)
    left_at = models.DateTimeField(null=True)  # given up, or replaced by another goal

    objects = GoalQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["dataset"], condition=Q(left_at=None), name="one_active_goal_per_dataset"
            ),
        ]


class Round(models.Model):
    """One time of learning on the way to a goal, and what the planner said then. Written once."""

    goal = models.ForeignKey(Goal, models.CASCADE, related_name="rounds")
    run = models.OneToOneField(Run, models.PROTECT, related_name="round")
    number = models.PositiveIntegerField()  # 1, 2, … towards this goal
    attempt = models.PositiveSmallIntegerField()  # the certificate attempt it prepares
    items = models.PositiveIntegerField()  # labels that the promise is about (N)
    labelled = models.PositiveIntegerField()  # of these outside the pool: people answer them
    # [item id, out-of-fold confidence in millionths] of random answers that stand for what is left
    representative = models.JSONField(default=list)
    expected_errors = models.FloatField()  # wrong labels predicted in the pool
    step = models.CharField(max_length=16)  # of planner.Step
    batch = models.PositiveIntegerField()  # answers until the next round
    sample = models.PositiveIntegerField(
        null=True
    )  # of the certificate that could be tried now; empty = none
    manual = models.FloatField()  # predicted answers for the whole dataset if it were
    saved_by_fifty = models.FloatField()  # by how much the next 50 answers are predicted to lower that
    reason = models.TextField()
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["number"]
        constraints = [models.UniqueConstraint(fields=["goal", "number"], name="round_number_once")]


class SampleQuerySet(models.QuerySet["Sample"]):
    """Samples by what their timestamps say."""

    def open(self) -> SampleQuerySet:
        """Those that people are answering; the database allows one per dataset."""
        return self.filter(closed_at=None, superseded_at=None)


class Sample(models.Model):
    """A frozen random draw from a named pool, with everything its test needs."""

    dataset = models.ForeignKey(Dataset, models.CASCADE, related_name="samples")
    run = models.ForeignKey(Run, models.PROTECT, related_name="samples")
    purpose = models.CharField(max_length=12, choices=Purpose.choices)
    threshold = models.BigIntegerField()  # the pool is what was accepted at this rank; 0 = all
    seed = models.CharField(max_length=32)  # hexadecimal, 128 bits
    pool = models.PositiveIntegerField()  # items it was drawn from
    pool_hash = models.CharField(max_length=64)  # SHA-256 of their sorted ids, ranks and labels
    size = models.PositiveIntegerField()
    attempt = models.PositiveSmallIntegerField(default=0)  # 1, 2, … of the evidential ones
    target_error = models.FloatField(default=0.05)
    floor_error = models.FloatField(null=True)  # of the accepted labels; calibration only, empty = no floor
    alpha = models.FloatField(default=0.05)  # of this attempt
    budget = models.PositiveIntegerField(default=0)  # wrong labels tolerated among those accepted unseen
    allowed_errors = models.IntegerField(default=-1)  # the sample may show; -1 = nothing can be proven
    drawn_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    drawn_at = models.DateTimeField(auto_now_add=True)
    closed_at = models.DateTimeField(null=True)  # every item has its answer
    superseded_at = models.DateTimeField(null=True)  # discarded; its answers stay decisions

    objects = SampleQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["dataset"],
                condition=Q(closed_at=None, superseded_at=None),
                name="one_open_sample_per_dataset",
            ),
        ]

    @property
    def is_open(self) -> bool:
        """Whether people are answering it."""
        return self.closed_at is None and self.superseded_at is None


class SampleItem(models.Model):
    """One drawn item, in the order of answering, with the machine's label as it was frozen."""

    sample = models.ForeignKey(Sample, models.CASCADE, related_name="drawn", db_index=False)
    item = models.ForeignKey(Item, models.PROTECT, related_name="samplings")
    place = models.PositiveIntegerField()  # 1 … size
    machine_label = models.ForeignKey(Label, models.PROTECT, null=True, db_index=False, related_name="+")
    machine_rank = models.BigIntegerField()

    class Meta:
        ordering = ["place"]
        constraints = [
            models.UniqueConstraint(fields=["sample", "item"], name="item_once_per_sample"),
            models.UniqueConstraint(fields=["sample", "place"], name="place_once_per_sample"),
        ]


class Claim(models.Model):
    """A reviewer's lease on one item, and what was shown with it."""

    item = models.OneToOneField(Item, models.CASCADE, primary_key=True, related_name="claim")
    dataset = models.ForeignKey(Dataset, models.CASCADE, related_name="+", db_index=False)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="+", db_index=False)
    client = models.CharField(max_length=64)
    purpose = models.CharField(max_length=12, choices=Purpose.choices)
    sample = models.ForeignKey(Sample, models.CASCADE, null=True, db_index=False, related_name="+")
    showed_machine = models.BooleanField()
    claimed_at = models.DateTimeField()
    expires_at = models.DateTimeField()

    class Meta:
        indexes = [models.Index(fields=["dataset", "user", "client"], name="claim_of_client")]


class DecisionQuerySet(models.QuerySet["Decision"]):
    """Decisions that stand."""

    def answers(self) -> DecisionQuerySet:
        """Decisions that nobody took back."""
        revoked = Decision.objects.filter(revokes=OuterRef("pk"))
        return self.exclude(outcome=Outcome.UNDO).filter(~Exists(revoked))

    def current(self) -> DecisionQuerySet:
        """The answer in force of each item: the oldest that nobody took back."""
        older = Decision.objects.answers().filter(item=OuterRef("item"), pk__lt=OuterRef("pk"))
        return self.answers().filter(~Exists(older))


class Decision(models.Model):
    """A person's answer to one item. Append-only: an undo is a row of its own."""

    uuid = models.UUIDField(default=uuid.uuid4, unique=True)  # given by the client: sent twice, stored once
    dataset = models.ForeignKey(Dataset, models.CASCADE, related_name="decisions", db_index=False)
    item = models.ForeignKey(Item, models.PROTECT, related_name="decisions", db_index=False)
    reviewer = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="decisions")
    purpose = models.CharField(max_length=12, choices=Purpose.choices)
    outcome = models.CharField(max_length=9, choices=Outcome.choices)
    label = models.ForeignKey(Label, models.PROTECT, null=True, db_index=False, related_name="decisions")
    revokes = models.OneToOneField("self", models.PROTECT, null=True, related_name="revoked_by")
    run = models.ForeignKey(Run, models.PROTECT, null=True, db_index=False, related_name="+")
    machine_label = models.ForeignKey(Label, models.PROTECT, null=True, db_index=False, related_name="+")
    machine_rank = models.BigIntegerField(null=True)
    showed_machine = models.BooleanField(default=True)
    sample = models.ForeignKey(Sample, models.PROTECT, null=True, db_index=False, related_name="decisions")
    seconds = models.FloatField(null=True)  # from the card on screen to the answer
    note = models.TextField(blank=True)
    decided_at = models.DateTimeField()

    objects = DecisionQuerySet.as_manager()

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(outcome=Outcome.LABEL, label__isnull=False)
                | (~Q(outcome=Outcome.LABEL) & Q(label=None)),
                name="decision_has_a_label_or_another_outcome",
            ),
            models.CheckConstraint(
                condition=~Q(outcome=Outcome.UNDO) | Q(revokes__isnull=False),
                name="undo_names_what_it_takes_back",
            ),
        ]
        indexes = [
            models.Index(fields=["item", "id"], name="decision_history"),
            models.Index(fields=["dataset", "run", "machine_rank"], name="decision_by_rank"),
            models.Index(fields=["dataset", "reviewer", "id"], name="decision_of_reviewer"),
            models.Index(
                fields=["sample", "item"], condition=Q(sample__isnull=False), name="decision_evidence"
            ),
        ]


class Remark(models.Model):
    """Something said about an item that is not an answer to it."""

    class Kind(models.TextChoices):
        SKIP = "skip"
        ASK = "ask"  # the manager
        NOTE = "note"

    item = models.ForeignKey(Item, models.CASCADE, related_name="remarks", db_index=False)
    dataset = models.ForeignKey(Dataset, models.CASCADE, related_name="remarks", db_index=False)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+", db_index=False)
    kind = models.CharField(max_length=4, choices=Kind.choices)
    text = models.TextField(blank=True)
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        indexes = [
            models.Index(fields=["item", "kind", "user"], name="remark_on_item"),
            models.Index(fields=["dataset", "kind", "item"], name="remark_by_kind"),
        ]


class Verdict(models.Model):
    """What a manager concluded from a closed sample."""

    sample = models.OneToOneField(Sample, models.PROTECT, related_name="verdict")
    approved = models.BooleanField()
    by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    at = models.DateTimeField(auto_now_add=True)
    reason = models.TextField(blank=True)


class Certificate(models.Model):
    """A promise with its evidence, inserted complete when a sample is approved."""

    dataset = models.ForeignKey(Dataset, models.CASCADE, related_name="certificates")
    sample = models.OneToOneField(Sample, models.PROTECT, related_name="certificate")
    statement = models.TextField()
    evidence = models.JSONField()
    by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    at = models.DateTimeField(auto_now_add=True)
