"""Whether a worker is there to do the labeling, in one word and one number."""

from __future__ import annotations

from dataclasses import dataclass

from datasets.models import Backtest, Run, UploadDraft
from datasets.tasks import workers_alive


@dataclass(frozen=True)
class Light:
    """``state`` is ready, busy or down; ``waiting`` counts runs, files and replays that no worker has begun."""

    state: str
    waiting: int = 0


def look() -> Light:
    """Read the light from the database, because Redis may have forgotten who works."""
    workers = workers_alive()
    waiting = Run.objects.active().filter(started_at=None, paused_at=None).count()
    waiting += UploadDraft.objects.filter(
        dataset__isnull=False, dataset__ready_at=None, dataset__problem=None, beat_at=None
    ).count()
    waiting += Backtest.objects.filter(requested_at__isnull=False, started_at=None, finished_at=None).count()
    if not workers:
        return Light("down", waiting)
    return Light("busy" if waiting or all(worker.busy_with for worker in workers) else "ready", waiting)
