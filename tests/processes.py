"""Real worker processes for tests, and waiting for what they do."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import connection, transaction

from datasets.models import Slice

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 60.0  # seconds


def bytes_on_disk(database: str) -> bytes:
    """The bytes of an SQLite file and of its log, read by another process.

    Closing the file in this one would drop the locks that its connections hold: then the next process that closes the
    database takes itself for the last one and takes the log away from under them.
    """
    names = [name for name in (database, f"{database}-wal") if Path(name).exists()]
    return subprocess.run(["cat", *names], capture_output=True, check=True).stdout


class Workers:
    """Starts `manage.py worker` on the database of a test; their logs are in ``folder``."""

    def __init__(self, started: list[Any], folder: Path) -> None:
        self.started, self.folder = started, folder

    def __call__(self) -> subprocess.Popen[bytes]:
        database = connection.settings_dict
        url = f"sqlite:///{database['NAME']}"
        if connection.vendor == "postgresql":
            who = f"{database['USER']}:{database['PASSWORD']}"
            url = f"postgres://{who}@{database['HOST']}:{database['PORT']}/{database['NAME']}"
        env = os.environ | {
            "DATABASE_URL": url,
            "LABELHUB_HOME": str(settings.LABELHUB_HOME),
            "REDIS_URL": settings.REDIS_URL,
        }
        command = [sys.executable, "manage.py", "worker"]
        with (self.folder / f"worker-{len(self.started)}.log").open("wb") as log:
            process = subprocess.Popen(
                command, cwd=ROOT, env=env, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        self.started.append(process)
        return process

    def logs(self) -> str:
        """What they said last, for the report of a failed test."""
        paths = [*sorted(self.folder.glob("worker-*.log")), *Path(settings.LABELHUB_HOME).glob("run/*.log")]
        return "\n".join(f"--- {path.name}\n{path.read_text(errors='replace')[-3000:]}" for path in paths)


def wait_for(true: Callable[[], Any], what: str, seconds: float = PATIENCE) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if true():
            return
        time.sleep(0.05)
    raise AssertionError(f"after {seconds} s: not {what}")


def children_of(pid: int) -> list[int]:
    listed = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False
    )
    return [int(word) for word in listed.stdout.split()]


def horse_of(worker: subprocess.Popen[bytes]) -> int | None:
    """The process that works on a job: the grandchild of the command."""
    for child in children_of(worker.pid):
        for grandchild in children_of(child):
            return grandchild
    return None


def can_write(held: Slice) -> bool:
    """Whether nobody is inside a write of this slice; on SQLite, inside any write."""
    if connection.vendor == "sqlite":
        other = sqlite3.connect(connection.settings_dict["NAME"], timeout=0.3, isolation_level=None)
        try:
            other.execute("BEGIN IMMEDIATE")
            other.execute("ROLLBACK")
        except sqlite3.OperationalError:
            return False
        finally:
            other.close()
        return True
    with transaction.atomic():
        return Slice.objects.select_for_update(skip_locked=True).filter(pk=held.pk).exists()
