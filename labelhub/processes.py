"""Starting child processes that never outlive us, keeping them running, and stopping them."""

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 30.0
STEADY_SECONDS = 30.0  # after so long a life, the next failure counts as the first

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
# Loaded here, since nothing should be imported between fork and exec.
_prctl = getattr(ctypes.CDLL(None), "prctl", None) if sys.platform == "linux" else None


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent ends, however the parent ends.

    Holds for the calling process only, not for its children, and survives exec. Elsewhere than
    on Linux there is no such service, and only the check of the parent is made.

    Args:
        parent: process id of the expected parent; when it has gone already, this process ends here.
    """
    if _prctl is not None:
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


Process = subprocess.Popen[bytes]


def launch(
    command: Sequence[str],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    log: IO[bytes] | None = None,
) -> Process:
    """Start a command in a session of its own, so that Ctrl-C reaches only us; it dies with us.

    Call it from the main thread: the kernel watches the thread that forks.
    """
    return subprocess.Popen(
        command,
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT if log else None,
        start_new_session=True,
        # Only a system call, and nothing that another thread could hold.
        preexec_fn=partial(die_with_parent, os.getpid()),  # noqa: PLW1509
    )


def stop(processes: Sequence[Process], seconds: float) -> None:
    """Ask processes to end, all at once, and kill what is left of their sessions after some seconds each."""
    for process in processes:
        process.terminate()
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


class Kept:
    """A process that is started again whenever it ends, after a pause that grows with each failure.

    Args:
        name: what people call it.
        start: starts the process; a RuntimeError counts as a failure, except at the first time.
    """

    def __init__(self, name: str, start: Callable[[], Process]) -> None:
        self.name = name
        self._start = start
        self._pause_seconds = 0.0
        self._again_at: float | None = None
        self._started_at = time.monotonic()
        self.process = start()

    def tend(self) -> str | None:
        """Start the process again where that is due; return a sentence when it has ended."""
        now = time.monotonic()
        if self._again_at is None and self.process.poll() is not None:
            return self._plan(f"{self.name} ended (code {self.process.returncode})", now)
        if self._again_at is not None and now >= self._again_at:
            try:
                self.process = self._start()
            except RuntimeError as error:
                return self._plan(f"{self.name}: {error}", now)
            self._started_at, self._again_at = now, None
        return None

    def _plan(self, what: str, now: float) -> str:
        grown = min(self._pause_seconds * 2, LONGEST_PAUSE_SECONDS)
        steady = now - self._started_at > STEADY_SECONDS
        self._pause_seconds = FIRST_PAUSE_SECONDS if steady else max(grown, FIRST_PAUSE_SECONDS)
        self._again_at = now + self._pause_seconds
        return f"{what}; starting it again in {self._pause_seconds:g} s."


class Signals:
    """The wish to stop, and the end of a child, as events to wait for. For the main thread, once per process."""

    def __init__(self) -> None:
        self.told_to_stop = False
        self._ready, wakeup = os.pipe()
        os.set_blocking(self._ready, False)
        os.set_blocking(wakeup, False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                continue  # started by nohup
            signal.signal(number, lambda *_: None)
        signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)

    def wait(self, seconds: float) -> bool:
        """Wait for the first signal, at most some seconds; return whether we were ever told to stop."""
        if not self.told_to_stop and select.select([self._ready], [], [], seconds)[0]:
            self.told_to_stop = bool(set(os.read(self._ready, 4096)) - {signal.SIGCHLD})
        return self.told_to_stop
