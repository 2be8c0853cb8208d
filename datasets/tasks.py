"""The only door to the queue. The database holds the truth; Redis is a doorbell.

A job that Redis lost is enqueued again by a sweep, and a job that comes twice finds nothing
to do. Whether a worker lives is read from heartbeats in the database, because Redis forgets.
"""

from __future__ import annotations

import datetime as dt
import logging
import secrets
import threading
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import django_rq
from django.db import DatabaseError, IntegrityError, OperationalError, connection, transaction
from django.db.models import Q
from redis.exceptions import RedisError

from datasets.ingest import clear, ingest
from datasets.models import Backtest, Dataset, Heartbeat, Membership, Role, UploadDraft, record
from datasets.schema import IngestError
from datasets.slices import now
from labelhub.autolabel.layout import Layout, TableError

if TYPE_CHECKING:
    from django.contrib.auth.models import User

log = logging.getLogger(__name__)

QUEUE = "default"
JOB_SECONDS = 600  # a job that takes longer is ended; slices are short, reading a file reports as it goes
DEAD_AFTER = dt.timedelta(seconds=8)  # workers beat every 3 seconds
REPLAY_SECONDS = 14_400  # a replay cannot be cut into slices; it beats as long as it lives
READER_DEAD_AFTER = dt.timedelta(seconds=20)
READ_AT_ONCE_BYTES = 2_000_000
FORGET_AFTER = dt.timedelta(hours=1)


def enqueue(func_path: str, *ids: Any, name: str, seconds: int = JOB_SECONDS) -> None:
    """Ask a worker, after the transaction commits, to call a function with ids.

    A queue that is down is logged, not raised: the row that wants work is the truth, and a
    sweep asks again.

    Args:
        func_path: dotted path; ``ids`` must be JSON.
        name: what the job works on, letters, digits, "_" and "-"; see `is_enqueued`.
        seconds: after which it is ended.
    """

    def ring() -> None:
        try:
            django_rq.get_queue(QUEUE).enqueue(
                func_path, *ids, job_id=f"{name}-{secrets.token_hex(4)}", job_timeout=seconds, result_ttl=0,
                failure_ttl=86400,
            )  # fmt: skip
        except (RedisError, OSError) as error:
            log.warning("the queue is down, %s waits for a sweep: %s", name, error)

    transaction.on_commit(ring)


def is_enqueued(name: str) -> bool:
    """Whether a job of that name waits in the queue; False too when the queue is down."""
    try:
        return any(job_id.rpartition("-")[0] == name for job_id in django_rq.get_queue(QUEUE).job_ids)
    except (RedisError, OSError):
        return False


def queue_answers() -> bool:
    """Whether the queue can be reached right now."""
    try:
        return bool(django_rq.get_connection(QUEUE).ping())
    except (RedisError, OSError):
        return False


def beat(name: str, busy_with: str = "") -> None:
    """Note that a worker lives. Called every 3 seconds by the worker process."""
    moment = now()
    if not Heartbeat.objects.filter(name=name).update(beat_at=moment, busy_with=busy_with):
        try:
            with transaction.atomic():
                Heartbeat.objects.create(name=name, beat_at=moment, busy_with=busy_with)
        except IntegrityError:
            pass  # two beats at once
        Heartbeat.objects.filter(beat_at__lt=moment - FORGET_AFTER).delete()


def workers_alive() -> list[Heartbeat]:
    """The workers that reported within the last 8 seconds."""
    return list(Heartbeat.objects.filter(beat_at__gt=now() - DEAD_AFTER).order_by("name"))


def begin(draft: UploadDraft, name: str, by: User, source: str = "") -> Dataset:
    """Make the dataset of a draft, owned by whoever uploaded it, and have its file read.

    A draft that has its dataset already, from a second click, keeps it.
    """
    with transaction.atomic():
        known = UploadDraft.objects.select_for_update().get(pk=draft.pk)
        if known.dataset is not None:
            return known.dataset
        dataset = Dataset.objects.create(name=name, source=source or draft.file_name, created_by=by)
        Membership.objects.create(user=by, dataset=dataset, role=Role.OWNER)
        draft.dataset = dataset
        draft.save(update_fields=["dataset", "layout", "mapping", "labels"])
        record(by, dataset, "dataset uploaded", source=draft.file_name)
        read_soon(draft)
    return dataset


def read_soon(draft: UploadDraft) -> None:
    """Read a small file at once; have a worker read a big one."""
    if Path(draft.path).stat().st_size <= READ_AT_ONCE_BYTES:
        transaction.on_commit(lambda: read_file(str(draft.pk)))
    else:
        _ask_to_read(draft)


def _ask_to_read(draft: UploadDraft) -> None:
    enqueue("datasets.tasks.read_file", str(draft.pk), name=f"read-{draft.pk.hex}")


def read_file(draft_id: str) -> None:
    """Read an uploaded file into its dataset: all of it, or nothing and a sentence why.

    May be called twice: only one reader works at a time, and each starts with an empty dataset.
    """
    draft = UploadDraft.objects.select_related("dataset").filter(pk=uuid.UUID(str(draft_id))).first()
    if draft is None or draft.dataset is None or draft.dataset.ready_at or draft.dataset.problem:
        return
    reader = _Reader.begin(draft)
    if reader is None:
        return
    dataset, path = draft.dataset, Path(draft.path)
    try:
        with reader:
            clear(dataset)
            ingest(dataset, path, Layout(**draft.layout), draft.mapping, draft.labels, reader.on_progress)
    except ReaderReplaced:
        log.warning("another process reads draft %s now", draft_id)
        return
    except OperationalError:  # the database is busy, full or away: the sweep tries again
        raise
    except Exception as error:
        _give_up(dataset, _sentence(error))
    path.unlink(missing_ok=True)


def _sentence(error: Exception) -> str:
    if isinstance(error, IngestError | TableError):
        return str(error)
    if isinstance(error, MemoryError):
        return "This file needs more memory than this computer has. Split it and upload the parts."
    if isinstance(error, FileNotFoundError):
        return "The uploaded file is gone. Upload it again."
    log.exception("a file could not be read")
    return "Reading this file failed inside LabelHub; the log of the worker says where."


def _give_up(dataset: Dataset, sentence: str) -> None:
    clear(dataset)
    Dataset.objects.filter(pk=dataset.pk, ready_at=None).update(problem=sentence)


class ReaderReplaced(Exception):
    """Another process reads this draft now."""


class _Reader:
    """The one process that reads a draft: says how far it is, and notices when it was replaced.

    On PostgreSQL the reading is one transaction, so a thread reports from another connection.
    """

    def __init__(self, draft_id: uuid.UUID, beat_at: dt.datetime) -> None:
        self.draft_id, self.beat_at, self.bytes_read = draft_id, beat_at, 0
        self.replaced = False
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._report, daemon=True)

    @classmethod
    def begin(cls, draft: UploadDraft) -> _Reader | None:
        """Become the reader, or return None while another one lives."""
        moment = now()
        free = UploadDraft.objects.filter(pk=draft.pk).filter(nobody_at(moment))
        return cls(draft.pk, moment) if free.update(beat_at=moment, bytes_read=0) == 1 else None

    def __enter__(self) -> None:
        if connection.vendor == "postgresql":
            self.thread.start()

    def __exit__(self, *_: Any) -> None:
        self.stop.set()
        if self.thread.ident is not None:
            self.thread.join()

    def on_progress(self, bytes_read: int) -> None:
        """Called inside each write. Raises: ReaderReplaced."""
        self.bytes_read = bytes_read
        if connection.vendor != "postgresql":
            self._beat()
        if self.replaced:
            raise ReaderReplaced

    def _report(self) -> None:
        try:
            while not (self.stop.wait(1) or self.replaced):
                self._beat()
        except DatabaseError:
            log.exception("progress of draft %s could not be written", self.draft_id)
        finally:
            connection.close()

    def _beat(self) -> None:
        moment = now()
        mine = UploadDraft.objects.filter(pk=self.draft_id, beat_at=self.beat_at)
        self.replaced = mine.update(beat_at=moment, bytes_read=self.bytes_read) != 1
        self.beat_at = moment


def nobody_at(moment: dt.datetime) -> Q:
    """Drafts and backtests that no living process works on."""
    return Q(beat_at=None) | Q(beat_at__lt=moment - READER_DEAD_AFTER)


def replay_soon(backtest: Backtest) -> None:
    """Have a worker replay a backtest."""
    enqueue("datasets.backtests.work", str(backtest.pk), name=_replaying(backtest), seconds=REPLAY_SECONDS)


def _replaying(backtest: Backtest) -> str:
    return f"backtest-{backtest.pk.hex}"


def sweep_files() -> int:
    """Ask again for files that nobody reads or replays; returns how many."""
    moment, n = now(), 0
    for draft in UploadDraft.objects.filter(
        nobody_at(moment), dataset__isnull=False, dataset__ready_at=None, dataset__problem=None
    ):
        if not is_enqueued(f"read-{draft.pk.hex}"):
            _ask_to_read(draft)
            n += 1
    for backtest in Backtest.objects.filter(nobody_at(moment), requested_at__isnull=False, finished_at=None):
        if not is_enqueued(_replaying(backtest)):
            replay_soon(backtest)
            n += 1
    return n


_finish_soon = threading.Event()


def finish_soon() -> None:
    """Tell the work of this process to end after its slice; the worker does so when it is asked to stop."""
    _finish_soon.set()


def shall_finish() -> bool:
    """Whether this process was told to end its work soon."""
    return _finish_soon.is_set()
