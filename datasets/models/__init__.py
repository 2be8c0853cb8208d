"""The tables of this app: ``dataset`` what was uploaded, ``run`` what machines said, ``money`` what was paid for it."""

from datasets.models.dataset import Dataset, Item, Label, Membership, Role, UploadDraft
from datasets.models.money import Call, Gate, MessageBatch, ModelSettings
from datasets.models.run import (
    ITEMS_IN_A_SLICE,
    LabelerVersion,
    Prediction,
    PredictionQuerySet,
    Run,
    RunVotes,
    Slice,
    Tally,
    Vote,
)
from datasets.models.site import AuditEvent, Backtest, Heartbeat, record

__all__ = [
    "ITEMS_IN_A_SLICE",
    "AuditEvent",
    "Backtest",
    "Call",
    "Dataset",
    "Gate",
    "Heartbeat",
    "Item",
    "Label",
    "LabelerVersion",
    "Membership",
    "MessageBatch",
    "ModelSettings",
    "Prediction",
    "PredictionQuerySet",
    "Role",
    "Run",
    "RunVotes",
    "Slice",
    "Tally",
    "UploadDraft",
    "Vote",
    "record",
]
