"""What every test stands on: a data folder of its own, a chosen database, a real queue, a real browser, no internet.

The environment is set before Django reads its settings, so nothing that a developer has in `.env` or in
the shell reaches a test: no key, no production database, no queue.
"""

import contextlib
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import environ

environ.Env.read_env(Path(__file__).parent.parent / ".env")  # for TEST_DATABASE_URL
HOME = Path(tempfile.mkdtemp(prefix="labelhub-"))
REQUIRED = os.environ.get("LABELHUB_BROWSER_TESTS") == "required"

for name in [name for name in os.environ if name.startswith(("LABELHUB_", "ANTHROPIC_"))]:
    os.environ[name] = ""  # not deleted: settings would fill it in again from .env
os.environ |= dict.fromkeys(("REDIS_URL", "LABELHUB_MODEL", "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL"), "")
os.environ |= {
    "DJANGO_SETTINGS_MODULE": "labelhub.settings",
    "LABELHUB_HOME": str(HOME),
    "DATABASE_URL": os.environ.get("TEST_DATABASE_URL", ""),
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "DJANGO_ALLOW_ASYNC_UNSAFE": "1",  # playwright keeps an event loop in the thread that tests run in
}

import django  # noqa: E402

django.setup()
# Processes of pytest-xdist inherit this environment. With the name in it they would read the settings before they come
# here, with our data folder instead of one of their own, and share its queue.
del os.environ["DJANGO_SETTINGS_MODULE"]

import pytest  # noqa: E402
import redis  # noqa: E402
from django.conf import settings  # noqa: E402

from labelhub import embedded  # noqa: E402

settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # others are slow by design


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --database-only: for a second run on another database."""
    parser.addoption("--database-only", action="store_true", help="only tests that use the database")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what does not touch the database in this process, or has a whole browser in between."""
    if config.getoption("--database-only"):
        uses = {"db", "transactional_db", "django_db_reset_sequences", "django_db_serialized_rollback"}
        chosen = [
            item
            for item in items
            if "browser" not in item.fixturenames
            and (uses.intersection(item.fixturenames) or item.get_closest_marker("django_db"))
        ]
        config.hook.pytest_deselected(items=[item for item in items if item not in set(chosen)])
        items[:] = chosen


def pytest_unconfigure() -> None:
    """Leave nothing behind."""
    shutil.rmtree(HOME, ignore_errors=True)


# The database


@pytest.fixture(autouse=True)
def _emptied_at_once(request: pytest.FixtureRequest) -> Iterator[None]:
    """Empty SQLite after a test with real transactions, without looking up references row by row.

    References to items have no index of their own, since no page follows them; Django's flush would
    look through a whole table for each row that it deletes.
    """
    from django.db import connection

    marker = request.node.get_closest_marker("django_db")
    real = {"transactional_db", "live_server"} & set(request.fixturenames)
    if not (real or (marker and marker.kwargs.get("transaction"))):
        yield
        return
    request.getfixturevalue("transactional_db")  # so that this ends before it
    yield
    if connection.vendor == "sqlite":
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA foreign_keys=OFF")
            for table in connection.introspection.django_table_names(only_existing=True, include_views=False):
                cursor.execute(f"DELETE FROM {table}")
            cursor.execute("PRAGMA foreign_keys=ON")


# The queue


@pytest.fixture(scope="session")
def valkey() -> Iterator[embedded.Server]:
    """An embedded server in a folder of its own; one for the whole session."""
    server = embedded.start(HOME / "session")
    yield server
    server.stop()


@pytest.fixture
def empty_valkey(valkey: embedded.Server) -> "redis.Redis":
    """A client of the embedded server, which holds nothing."""
    client = redis.Redis.from_url(valkey.url)
    client.flushall()
    return client


# The browser

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium without a window. Absent, its tests are skipped, unless LABELHUB_BROWSER_TESTS=required."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None and not REQUIRED:
        pytest.skip("no chromium on PATH")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program or "chromium", args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Any, live_server: Any) -> Iterator[Any]:
    """A page of a fresh browser profile on the live server. Script errors and CSP violations fail the test."""
    context = browser.new_context(base_url=live_server.url)
    context.set_default_timeout(10_000)
    page = context.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda said: "Content Security Policy" in said.text and faults.append(said.text))
    yield page
    context.close()
    assert not faults, faults


# No internet: a test that tries is a test that sends data away

_connect, _connect_ex, _getaddrinfo = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo
_outbound: list[str] = []


def _is_local(host: Any) -> bool:
    host = host.decode() if isinstance(host, bytes) else host
    return host in (None, "", "localhost", "::1", "0.0.0.0", "::") or str(host).startswith("127.")


def _refuse_outbound(host: Any) -> None:
    if not _is_local(host):
        _outbound.append(str(host))
        raise OSError(f"a test tried to reach {host}")


def _guarded_connect(self: socket.socket, address: Any) -> None:
    if self.family != socket.AF_UNIX:
        _refuse_outbound(address[0])
    _connect(self, address)


def _guarded_connect_ex(self: socket.socket, address: Any) -> int:
    if self.family != socket.AF_UNIX:
        _refuse_outbound(address[0])
    return _connect_ex(self, address)


def _guarded_getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
    _refuse_outbound(host)
    return _getaddrinfo(host, *args, **kwargs)


socket.socket.connect = _guarded_connect  # type: ignore[method-assign]
socket.socket.connect_ex = _guarded_connect_ex  # type: ignore[method-assign]
socket.getaddrinfo = _guarded_getaddrinfo


@pytest.fixture
def outbound() -> list[str]:
    """The hosts that were asked for during this test; a test that means to ask clears the list."""
    return _outbound


@pytest.fixture(autouse=True)
def _no_outbound() -> Iterator[None]:
    """Fail a test that tried to leave this machine, even where the code swallowed the error."""
    _outbound.clear()
    yield
    tried = _outbound.copy()
    _outbound.clear()
    assert not tried, f"tried to reach {tried}"


# Processes


@pytest.fixture
def children() -> Iterator[list[Any]]:
    """Processes started by a test; whatever still runs at its end is killed."""
    started: list[Any] = []
    yield started
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()


@pytest.fixture
def server() -> Iterator[dict[str, Any]]:
    """The embedded server at its usual place, which tests may kill and start again under ``["now"]``."""
    box: dict[str, Any] = {"now": embedded.start(settings.LABELHUB_HOME)}
    yield box
    box["now"].stop()


@pytest.fixture
def worker(children: list[Any], tmp_path: Path) -> Iterator[Any]:
    """Starts real workers on the database of the test."""
    from tests.processes import Workers

    workers = Workers(children, tmp_path)
    yield workers
    print(workers.logs())


# People


@pytest.fixture
def boss(db: None) -> Any:
    """Somebody who owns everything."""
    from django.contrib.auth.models import User

    from datasets.models import Membership

    user = User.objects.create_user("boss", password="x")
    Membership.objects.create(user=user, role="owner")
    return user


@pytest.fixture
def at(client: Any, boss: Any) -> Any:
    """A client with somebody signed in who owns everything."""
    client.force_login(boss)
    return client


@pytest.fixture
def address(settings: Any) -> Iterator[Any]:
    """The local stand-in for the address of the language model, where keys and models are looked up."""
    from datasets import model_forms
    from labelhub.fakeclaude.server import serve

    model_forms._offers.clear()
    with serve(everywhere=True) as server:
        settings.ANTHROPIC_BASE_URL = server.url
        yield server
