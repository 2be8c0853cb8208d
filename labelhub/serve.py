"""The web server process: `python -m labelhub.serve HOST PORT`. Granian in front, one worker with threads behind."""

import os
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from granian import Granian
from granian.constants import Interfaces
from granian.log import LogLevels

from labelhub.processes import die_with_parent

THREADS = 8  # requests at the same time; the database is busy long before
CONNECTIONS = 512  # open at the same time, idle ones counted: a browser keeps up to six, for half a minute
STOP_SECONDS = 4  # for requests under way when we are told to stop


def load(parent: int, _target: str) -> Callable[..., Any]:
    """Return the application. Granian calls this in its worker process, which must not outlive Granian."""
    die_with_parent(parent)
    from labelhub.wsgi import application  # here, so that only the worker pays for Django

    return application


def main(host: str, port: int) -> None:
    """Serve until a signal."""
    Granian(
        "labelhub.wsgi:application",
        address=host,
        port=port,
        interface=Interfaces.WSGI,
        workers=1,
        blocking_threads=THREADS,
        backpressure=CONNECTIONS,
        workers_kill_timeout=STOP_SECONDS,
        log_level=LogLevels.error,
    ).serve(target_loader=partial(load, os.getpid()))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
