"""The RQ worker: one queue, a fork for each job, heavy imports done once before the fork.

The queue is only a doorbell. Should Redis go away or come back empty, the worker waits and goes on;
what was queued is found again in the database by `datasets.tasks.sweep`.
"""

import contextlib
import gc
import importlib
import logging
import os
import signal
import sys
import time
from typing import Any

from django.conf import settings
from django.db import DatabaseError, connections
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError
from rq import Queue, Worker
from rq.job import Job

from labelhub.processes import die_with_parent

log = logging.getLogger(__name__)

GONE = (RedisConnectionError, RedisTimeoutError)
PRELOADED = (
    "numpy",
    "scipy.sparse",
    "sklearn.calibration",
    "sklearn.feature_extraction.text",
    "sklearn.linear_model",
    "sklearn.model_selection",
    "labelhub.autolabel",
    "datasets.backtests",
    "reviews.tasks",
    "reviews.path",
)
FOR_THE_MODEL = ("anthropic", "anthropic.resources.messages")


def work(name: str) -> None:
    """Work on the queue until SIGTERM or SIGINT, through any absence of Redis."""
    while True:
        try:
            queue = Queue("default", connection=Redis.from_url(settings.REDIS_URL), serializer="json")
            worker = Preloaded(
                [queue], name=name, connection=queue.connection, serializer="json", **INTERVALS
            )
        except GONE as error:
            log.warning("the queue does not answer: %s", error)
        else:
            with contextlib.suppress(RedisError):  # a goodbye that nobody hears
                worker.work(logging_level="WARNING")
            if worker.told_to_stop:
                return
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)  # no job runs, so a wish to stop is granted at once
        time.sleep(1)


# A dead worker is noticed, and an idle one looks around, after half of worker_ttl; RQ's default is seven minutes.
INTERVALS: dict[str, Any] = {"worker_ttl": 30, "maintenance_interval": 60, "job_monitoring_interval": 10}


class Preloaded(Worker):
    """An RQ worker whose jobs start at once, and never outlive it.

    Exactly one queue, so that RQ moves a job instead of popping it and a crash between the two
    loses nothing. No command channel: it would be a thread in a process that forks, and a run is
    stopped by its row in the database.
    """

    max_connection_wait_time = 2.0  # seconds; Redis is back sooner than RQ's minute
    log_job_description = False
    told_to_stop = False

    def subscribe(self) -> None:
        """Open no command channel."""

    def request_stop(self, signum: Any, frame: Any) -> None:
        """Stop after the job under way; a second signal ends that too."""
        self.told_to_stop = True
        super().request_stop(signum, frame)

    def handle_warm_shutdown_request(self) -> None:
        """Let the job know, so that it ends after its slice."""
        if self.horse_pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.horse_pid, signal.SIGTERM)

    def execute_job(self, job: Job, queue: Queue) -> None:
        """Run a job in a fork that has everything imported and shares no connection."""
        preload()
        connections.close_all()  # after the look into the settings
        super().execute_job(job, queue)

    def maintain_heartbeats(self, *args: Any) -> None:
        """Tell Redis that the job is alive, if Redis listens: the job goes on either way."""
        with contextlib.suppress(*GONE):
            super().maintain_heartbeats(*args)

    def main_work_horse(self, job: Job, queue: Queue) -> None:
        """Begin the job's process: it dies with this worker, even if that is killed."""
        die_with_parent(self.pid or 0)
        super().main_work_horse(job, queue)

    def setup_work_horse_signals(self) -> None:
        """On SIGTERM the job ends after its slice; it is killed if that takes too long."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, _finish_soon)

    def perform_job(self, *args: Any) -> bool:
        """Run the job and close its database connections properly: the process ends without cleaning up."""
        try:
            return bool(super().perform_job(*args))
        finally:
            connections.close_all()


def preload() -> None:
    """Import what jobs need, so that every fork has it: seconds for each job otherwise."""
    missing = [name for name in PRELOADED if name not in sys.modules]
    if not all(name in sys.modules for name in FOR_THE_MODEL) and _asks_a_model():
        missing += FOR_THE_MODEL
    if not missing:
        return
    for name in missing:
        try:
            importlib.import_module(name)
        except ImportError as error:  # the job that needs it will fail, and say so
            log.warning("%s cannot be imported: %s", name, error)
    gc.collect()
    gc.freeze()  # what is there by now stays: looking through it again and again would stop a job for 0.2 s at a time


def _asks_a_model() -> bool:
    """Whether there is a key: without one nobody needs the megabytes of its client."""
    from datasets import model_settings

    try:
        return not model_settings.missing()
    except DatabaseError:
        return False


def _finish_soon(*_: Any) -> None:
    from datasets import tasks

    tasks.finish_soon()
