"""One command starts everything, keeps it running and leaves nothing behind. Real processes, SQLite, a real queue."""

import http.client
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
import rq

from labelhub import embedded

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def environment(home: Path, **more: str) -> dict[str, str]:
    return os.environ | {"LABELHUB_HOME": str(home), "DATABASE_URL": "", "PYTHONUNBUFFERED": "1"} | more


def manage(home: Path, *words: str, **more: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "manage.py", *words]
    env = environment(home, **more)
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)


def until(true: Callable[[], object], seconds: float = 20) -> object:
    give_up = time.monotonic() + seconds
    while time.monotonic() < give_up:
        if found := true():
            return found
        time.sleep(0.05)
    raise AssertionError(f"waited {seconds} s in vain")


def parents() -> dict[int, int]:
    """Parent of each process that runs."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                state, parent, *_ = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if state != "Z":
                found[int(folder.name)] = int(parent)
    return found


def below(pid: int) -> set[int]:
    """All descendants of a process."""
    family, grown = {pid}, True
    everybody = parents()
    while grown:
        more = {child for child, parent in everybody.items() if parent in family} - family
        family |= more
        grown = bool(more)
    return family - {pid}


def words_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def one_below(pid: int, word: str) -> set[int]:
    return {child for child in below(pid) if word in words_of(child)}


class Up:
    """A running LabelHub, and what it has said."""

    def __init__(self, process: subprocess.Popen, home: Path, port: int, log: Path) -> None:
        self.process, self.home, self.port, self._log = process, home, port, log

    @property
    def said(self) -> str:
        return self._log.read_text()

    def get(self, path: str, host: str | None = None) -> tuple[int, str]:
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        client.request("GET", path, headers={"Host": host or f"127.0.0.1:{self.port}"})
        answer = client.getresponse()
        return answer.status, answer.read().decode()

    def queue(self) -> rq.Queue:
        return rq.Queue(connection=redis.Redis.from_url(embedded.url(self.home)), serializer="json")

    def works(self, seconds: float = 20) -> None:
        """Wait until a worker has taken and done a job."""
        path = self.home / f"done-{time.monotonic_ns()}"

        def asked() -> bool:
            try:
                self.queue().enqueue("os.mkdir", str(path))
            except redis.RedisError:
                return False
            return True

        until(asked)
        until(path.exists, seconds)


@contextmanager
def running(children: list, home: Path, *words: str, **more: str) -> Iterator[Up]:
    port, log = free_port(), home / "said"
    command = [sys.executable, "manage.py", "up", "--port", str(port), "--workers", "1", *words]
    with log.open("wb") as file:
        process = subprocess.Popen(command, cwd=ROOT, env=environment(home, **more), stdout=file, stderr=file)
    children.append(process)
    up = Up(process, home, port, log)
    until(lambda: "Stop it with Ctrl-C" in up.said or process.poll() is not None, 40)
    assert process.poll() is None, up.said
    yield up
    family = below(process.pid)
    process.kill()
    until(lambda: not family & parents().keys())


@pytest.fixture
def home():
    with tempfile.TemporaryDirectory(prefix="lh-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def test_an_empty_folder_becomes_a_running_labelhub_with_a_link_for_the_first_account(children, home):
    with running(children, home) as up:
        assert up.get("/healthz")[0] == 200
        link = re.search(rf"http://127\.0\.0\.1:{up.port}(/welcome/\S+)", up.said)
        assert link, up.said
        assert (home / "secret_key").stat().st_mode & 0o777 == 0o600
        assert home.stat().st_mode & 0o077 == 0
        up.works()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_everything_within_seconds(children, home, number):
    with running(children, home) as up:
        up.works()
        family = below(up.process.pid)
        assert len(family) >= 5  # queue, web server and its worker, worker and its companion
        began = time.monotonic()
        up.process.send_signal(number)
        assert up.process.wait(20) == 0
        assert time.monotonic() - began < 5
        assert not family & parents().keys()
        assert "Traceback" not in up.said


def test_a_signal_stops_a_long_job_too(children, home):
    with running(children, home) as up:
        up.queue().enqueue("time.sleep", 300)
        horse = until(lambda: busy(up))
        up.process.terminate()
        assert up.process.wait(20) == 0
        assert not horse & parents().keys()


def test_a_kill_leaves_no_process_not_even_a_job(children, home):
    with running(children, home) as up:
        up.queue().enqueue("time.sleep", 300)
        until(lambda: busy(up))
        family = below(up.process.pid)
        assert len(family) >= 6
        up.process.kill()
        until(lambda: not family & parents().keys(), 5)


def test_a_killed_worker_takes_its_job_along_and_is_started_again(children, home):
    with running(children, home) as up:
        up.queue().enqueue("time.sleep", 300)
        horse = until(lambda: busy(up))
        [worker] = {parents()[pid] for pid in horse}
        os.kill(worker, signal.SIGKILL)
        until(lambda: not horse & parents().keys(), 5)
        up.works()
        assert "Worker 1 ended" in up.said


def busy(up: Up) -> set[int]:
    """Jobs under way: the third generation of `manage.py worker`."""
    everybody = parents()
    found = {pid for pid in below(up.process.pid) if "manage.py worker" in words_of(pid)}
    return {pid for pid in found if everybody.get(everybody.get(pid, 0), 0) in found}


def test_a_killed_web_server_is_started_again(children, home):
    with running(children, home) as up:
        for victim in (min, max):  # granian, then its worker
            os.kill(victim(one_below(up.process.pid, "labelhub.serve")), signal.SIGKILL)

            def answers() -> bool:
                try:
                    return up.get("/healthz")[0] == 200 and bool(one_below(up.process.pid, "labelhub.serve"))
                except OSError:
                    return False

            time.sleep(0.3)
            until(answers)


def test_work_goes_on_after_the_queue_was_killed_and_came_back_empty(children, home):
    with running(children, home) as up:
        up.works()
        until(
            lambda: len(one_below(up.process.pid, "manage.py worker")) == 2
        )  # the fork of the last job is gone
        workers = one_below(up.process.pid, "manage.py worker")
        up.queue().enqueue("os.system", f"sleep 2; touch {home}/finished")
        until(lambda: busy(up))
        [server] = one_below(up.process.pid, "valkey-server")
        os.kill(server, signal.SIGKILL)
        until((home / "finished").exists)  # the job under way ends well
        up.works(8)  # and the worker is back at its place
        until(lambda: workers == one_below(up.process.pid, "manage.py worker"))
        assert "The queue ended" in up.said
        assert "Traceback" not in up.said


def test_an_idle_worker_finds_the_queue_again(children, home):
    with running(children, home) as up:
        up.works()
        [server] = one_below(up.process.pid, "valkey-server")
        os.kill(server, signal.SIGKILL)
        time.sleep(2)
        up.works(8)
        assert "Worker 1 ended" not in up.said


def test_the_database_hears_from_a_worker_every_three_seconds_even_without_a_queue(children, home):
    with running(children, home, REDIS_URL="unix:///nowhere/redis.sock") as up:

        def beat() -> str | None:
            with sqlite3.connect(home / "labelhub.sqlite3") as database:
                found = database.execute("SELECT beat_at FROM datasets_heartbeat").fetchone()
            return found and found[0]

        first = until(beat)
        until(lambda: beat() != first, 6)
        assert up.get("/healthz")[0] in (200, 503)


def test_a_second_start_on_the_same_folder_says_so_and_breaks_nothing(children, home):
    with running(children, home) as up:
        second = manage(home, "up", "--port", str(free_port()))
        assert second.returncode == 1
        assert f"already runs on {home.resolve()}" in second.stderr
        assert f"http://127.0.0.1:{up.port} as process {up.process.pid}" in second.stderr
        assert "Traceback" not in second.stderr
        up.works()


def test_a_taken_port_is_one_sentence(home):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        answer = manage(home, "up", "--port", str(port))
    assert answer.returncode == 1
    assert answer.stderr.strip().endswith(
        f"Port {port} is taken: stop what listens there, or set LABELHUB_PORT."
    )
    assert len(answer.stderr.strip().splitlines()) == 1


def test_an_address_that_is_not_ours_is_one_sentence(home):
    answer = manage(home, "up", "--host", "192.0.2.1", "--port", str(free_port()))
    assert answer.returncode == 1
    assert "cannot listen on 192.0.2.1" in answer.stderr
    assert len(answer.stderr.strip().splitlines()) == 1


def test_a_database_that_does_not_answer_is_one_sentence(home):
    answer = manage(
        home, "up", "--port", str(free_port()), DATABASE_URL=f"postgres://x@127.0.0.1:{free_port()}/x"
    )
    assert answer.returncode == 1
    assert "The database does not answer" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_redis_url_is_used_instead_of_a_server_of_our_own(children, home, valkey):
    redis.Redis.from_url(valkey.url).flushall()
    with running(children, home, REDIS_URL=valkey.url) as up:
        assert not one_below(up.process.pid, "valkey-server")
        path = home / "done"
        rq.Queue(connection=redis.Redis.from_url(valkey.url), serializer="json").enqueue(
            "os.mkdir", str(path)
        )
        until(path.exists)


def test_only_its_own_address_is_answered(children, home):
    with running(children, home) as up:
        assert up.get("/healthz", host="evil.example")[0] == 400
        assert up.get("/healthz", host=f"localhost:{up.port}")[0] == 200


def test_static_files_are_collected_once_and_served_compressed_for_ever(children, home):
    with running(children, home) as up:
        names = [path.name for path in (home / "static" / "vendor").iterdir()]
        [name] = [name for name in names if re.fullmatch(r"htmx\.min\.[0-9a-f]{12}\.js", name)]
        client = http.client.HTTPConnection("127.0.0.1", up.port, timeout=10)
        client.request("GET", f"/static/vendor/{name}", headers={"Accept-Encoding": "br"})
        answer = client.getresponse()
        assert answer.headers["Content-Encoding"] == "br"
        assert "immutable" in answer.headers["Cache-Control"]
        assert answer.headers["Content-Security-Policy"].startswith("default-src 'self'")
        assert len(answer.read()) < 16_000


def test_what_killed_uploads_have_left_is_removed_at_the_next_start(children, home):
    (home / "uploads").mkdir()
    left = home / "uploads" / "tmpabc.upload.csv"
    left.write_text("a")
    kept = home / "uploads" / "draft.csv"
    kept.write_text("a")
    with running(children, home):
        assert not left.exists()
        assert kept.exists()


def test_the_web_server_does_without_the_heavy_libraries(home):
    heavy = "pandas", "sklearn", "pyarrow", "anthropic", "tokenizers"
    check = f"import sys, labelhub.wsgi, labelhub.urls; print(sorted(sys.modules.keys() & set({heavy})))"
    env = environment(home)
    found = subprocess.run(
        [sys.executable, "-c", check], cwd=ROOT, env=env, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"
