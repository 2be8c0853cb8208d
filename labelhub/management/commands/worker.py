"""`manage.py worker`: one RQ worker, with a companion that keeps the database informed.

The process that starts is the companion. It forks the worker, reports to the database that the
worker lives, and sweeps up work that the queue has lost; for both it needs no Redis. The worker forks
again for each job, and must not do so beside a thread that holds a database connection: hence two
processes. Each dies with the one above it.
"""

import logging
import os
import signal
import socket
import threading
import time
from typing import Any

from django.core.management.base import BaseCommand
from django.db import close_old_connections, connections

from labelhub.processes import Signals, die_with_parent

log = logging.getLogger("labelhub.worker")

BEAT_SECONDS = 3.0
SWEEP_SECONDS = 10.0
PATIENCE_SECONDS = 6.0  # for the slice under way when we are told to stop


class Command(BaseCommand):
    """Work on the queue until told to stop."""

    help = "Label in the background: one worker. `up` starts some; on other machines start more by hand."
    requires_system_checks = ["labelhub"]

    def handle(self, *args: Any, **options: Any) -> None:
        """Fork the worker, report and sweep until it ends, and end as it ended."""
        name = f"{socket.gethostname()}-{os.getpid()}"
        connections.close_all()
        companion = os.getpid()
        worker = os.fork()
        if worker == 0:
            self._become_worker(name, companion)
        signals = Signals()
        threading.Thread(target=report, args=[name], daemon=True).start()
        raise SystemExit(wait(worker, signals))

    def _become_worker(self, name: str, companion: int) -> None:
        code = 1
        try:
            die_with_parent(companion)
            from labelhub.worker import work

            work(name)
            code = 0
        except BaseException:
            log.exception("the worker failed")
        finally:
            logging.shutdown()
            os._exit(code)


def wait(worker: int, signals: Signals) -> int:
    """Wait until the worker ends, passing on the wish to stop; return the exit code for us."""
    give_up = None
    while True:
        found, status = os.waitpid(worker, os.WNOHANG)
        if found:
            return 0 if status == 0 or give_up is not None else 1
        if give_up is None and signals.wait(BEAT_SECONDS):
            give_up = time.monotonic() + PATIENCE_SECONDS
            os.kill(worker, signal.SIGTERM)
        elif give_up is not None:
            if time.monotonic() > give_up:
                os.kill(worker, signal.SIGKILL)  # and with it the job
            time.sleep(0.05)


def report(name: str) -> None:
    """Tell the database again and again that this worker lives, and sweep up what the queue has lost."""
    from datasets.tasks import beat
    from reviews.tasks import sweep

    next_sweep = 0.0
    while True:
        try:
            beat(name)
            if time.monotonic() >= next_sweep:
                next_sweep = time.monotonic() + SWEEP_SECONDS
                if count := sweep():
                    log.info("asked again for %d pieces of work that the queue had lost", count)
        except Exception:  # whatever it was, the next beat must come
            log.exception("the report failed")
        close_old_connections()
        time.sleep(BEAT_SECONDS)
