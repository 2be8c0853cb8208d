"""`manage.py up`: the whole of LabelHub in one process tree, started in order and stopped in order.

Queue, database and static files first, then the web server, then the workers. Whatever ends by itself
is started again, the queue empty. Nothing outlives this process, even if it is killed.
"""

import contextlib
import errno
import fcntl
import http.client
import os
import socket
import sys
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import urlsplit

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import OperationalError, connection
from django.db.migrations.executor import MigrationExecutor

from labelhub import embedded, staticfiles
from labelhub.processes import Kept, Process, Signals, launch, stop

READY_SECONDS = 30
STOP_SECONDS = 9.0  # a worker lets its slice end within this
# Listening on all addresses, if asked to, and where to find that.
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104


class Command(BaseCommand):
    """Start everything, keep it running, stop everything."""

    help = "Start LabelHub: the web server, the workers and, unless REDIS_URL is set, the queue."
    requires_system_checks = ["labelhub"]

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options."""
        parser.add_argument("--port", type=int, default=settings.LABELHUB_PORT, help="default: LABELHUB_PORT")
        parser.add_argument(
            "--workers", type=int, default=settings.LABELHUB_WORKERS, help="default: LABELHUB_WORKERS"
        )
        parser.add_argument("--host", default="127.0.0.1", help="address to listen on, default 127.0.0.1")

    def handle(self, *args: Any, port: int, workers: int, host: str, **options: Any) -> None:
        """Run until a signal."""
        if not 1 <= port <= 65535 or not 0 <= workers <= 64:
            raise CommandError("The port is a number from 1 to 65535, and there are 0 to 64 workers.")
        signals = Signals()
        env = child_environment(host, port)
        address = env["LABELHUB_URL"]
        queue: list[Kept] = []
        servers: list[Kept] = []
        with hold_home(settings.LABELHUB_HOME, address):
            refuse_taken_port(host, port)
            remove_unfinished_uploads()
            try:
                if settings.EMBEDDED_REDIS:
                    queue.append(Kept("The queue", start_queue))
                prepare_database()
                staticfiles.collect()
                servers.append(Kept("The web server", lambda: start_web(host, port, env)))
                wait_until_ready(host, port, address, servers[0].process, signals)
                if not signals.told_to_stop:
                    self._announce(host, address)
                    servers += [Kept(f"Worker {n + 1}", lambda: start_worker(env)) for n in range(workers)]
                while not signals.wait(0.5):
                    for sentence in filter(None, [one.tend() for one in queue + servers]):
                        self.stderr.write(sentence)
            except RuntimeError as error:
                raise CommandError(str(error)) from error
            finally:
                stop([one.process for one in servers], STOP_SECONDS)
                stop([one.process for one in queue], 3)  # last, so that workers can say goodbye
        self.stdout.write("LabelHub has stopped.")

    def _announce(self, host: str, address: str) -> None:
        from labelhub.accounts import first_link

        self.stdout.write(f"LabelHub is ready: {address}")
        if path := first_link():
            self.stdout.write(f"Nobody has an account yet. Make the first one here: {address}{path}")
        if host in EVERYWHERE and not os.environ.get("LABELHUB_URL"):
            self.stdout.write(
                f"Only {address} is answered: set LABELHUB_URL to the address that people will type."
            )
        self.stdout.write("Stop it with Ctrl-C.")
        self.stdout.flush()
        connection.close()


def child_environment(host: str, port: int) -> dict[str, str]:
    """Return the environment of web server and workers: where LabelHub is, where the queue is, one thread each."""
    reached = EVERYWHERE.get(host, host)
    here = f"http://[{reached}]:{port}" if ":" in reached else f"http://{reached}:{port}"
    env = dict(os.environ, LABELHUB_PORT=str(port), REDIS_URL=settings.REDIS_URL)
    env["LABELHUB_URL"] = settings.LABELHUB_URL if os.environ.get("LABELHUB_URL") else here
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        env.setdefault(name, "1")  # two threads on two busy cores took ten times as long as one
    return env


@contextlib.contextmanager
def hold_home(home: Path, address: str) -> Any:
    """Hold the data folder for ourselves; the kernel lets go of it however we end."""
    path = home / "up.lock"
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CommandError(_already_runs(home, file)) from None
        file.truncate(0)
        file.write(f"{address} as process {os.getpid()}")
        file.flush()
        yield


def _already_runs(home: Path, file: TextIO) -> str:
    file.seek(0)
    return f"LabelHub already runs on {home}: {file.read()}. Stop that one, or set LABELHUB_HOME to another folder."


def refuse_taken_port(host: str, port: int) -> None:
    """Raise CommandError unless we could listen there."""
    try:
        family, kind, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(where)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise CommandError(
                f"Port {port} is taken: stop what listens there, or set LABELHUB_PORT."
            ) from error
        raise CommandError(f"LabelHub cannot listen on {host}, port {port}: {error.strerror}.") from error


def remove_unfinished_uploads() -> None:
    """Delete what uploads left behind that were under way when an earlier LabelHub was killed."""
    for path in Path(settings.FILE_UPLOAD_TEMP_DIR).glob("tmp*.upload*"):
        path.unlink(missing_ok=True)


def prepare_database() -> None:
    """Bring the tables up to date; cheap when they are."""
    try:
        executor = MigrationExecutor(connection)
        if executor.migration_plan(executor.loader.graph.leaf_nodes()):
            call_command("migrate", interactive=False, verbosity=0)
    except OperationalError as error:
        raise CommandError(f"The database does not answer: {str(error).partition(chr(10))[0]}") from error


def start_queue() -> Process:
    """Start the embedded server, empty."""
    return embedded.start(settings.LABELHUB_HOME).process


def start_web(host: str, port: int, env: dict[str, str]) -> Process:
    """Start the web server."""
    return launch([sys.executable, "-m", "labelhub.serve", host, str(port)], cwd=settings.BASE_DIR, env=env)


def start_worker(env: dict[str, str]) -> Process:
    """Start one worker."""
    return launch([sys.executable, "manage.py", "worker"], cwd=settings.BASE_DIR, env=env)


def wait_until_ready(host: str, port: int, address: str, web: Process, signals: Signals) -> None:
    """Wait for the first answer of the web server; raise CommandError if there is none."""
    for _ in range(READY_SECONDS * 20):
        if signals.wait(0.05):
            return
        if web.poll() is not None:
            raise CommandError("The web server ended at once; what it said is above.")
        with contextlib.suppress(OSError, http.client.HTTPException):
            client = http.client.HTTPConnection(EVERYWHERE.get(host, host), port, timeout=5)
            client.request("GET", "/healthz", headers={"Host": urlsplit(address).netloc})
            client.getresponse().read()
            client.close()
            return
    raise CommandError(f"The web server has not answered for {READY_SECONDS} seconds.")
