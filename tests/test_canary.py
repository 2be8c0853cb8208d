"""The key of the language model is nowhere but in memory: typed in or from the environment, it is looked for everywhere."""

from __future__ import annotations

import base64
import html
import io
import json
import logging
import os
import subprocess
import sys
import urllib.parse
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.urls import reverse

from datasets import model_forms, model_settings
from datasets.models import LabelerVersion, ModelSettings
from labelhub import views
from labelhub.autolabel.labelers.llm import CallFailed, Claude
from labelhub.fakeclaude.server import Server, serve
from labelhub.logs import OneLine
from reviews import tasks
from tests.processes import bytes_on_disk
from tests.test_access import ADDRESSES, World, fitting

pytestmark = pytest.mark.django_db(transaction=True)
ROOT = Path(__file__).resolve().parent.parent
# Behind the point it is not of the usual shape, so that nothing hides it by its shape alone.
KEY = "sk-ant-canary.4f1c9b7e2d8a60353e5b/Zm9vYmFy+bird="
GOOD = {"model": "claude-haiku-5-5", "second_model": "", "asks": "1", "at_once": "8", "per_minute": ""}
SHORTEST = 12  # characters of the key that are too many already


def shapes(key: str) -> set[str]:
    """How a key, and a good part of it, could be written."""
    raw, parts = key.encode(), {key, key[-SHORTEST:], key[14 : 14 + SHORTEST]}
    inside = base64.b64encode(b"  " + raw)[4:-4].decode()  # wherever in something longer it begins
    others = {base64.b64encode(b" " * n + raw)[4:-4].decode() for n in (0, 1)}
    quoted = {html.escape(key), urllib.parse.quote(key, safe=""), json.dumps(key)[1:-1]}
    return parts | quoted | others | {inside, raw.hex(), raw.hex().upper()}


def found(seen: str | bytes, key: str = KEY) -> set[str]:
    """The shapes of the key that something holds."""
    text = seen if isinstance(seen, str) else seen.decode("latin-1")
    return {shape for shape in shapes(key) if shape in text}


@pytest.fixture
def world(transactional_db: None, address: Server) -> World:
    """Two datasets with everything in them, and a key that was typed into the page."""
    world = World()
    answer = world.client("owner of all").post(reverse("datasets:model"), GOOD | {"key": KEY})
    assert answer.status_code == 302 and model_settings.key() == KEY
    return world


@pytest.fixture
def lines(settings: Any) -> Iterator[list[str]]:
    """Every line that would be logged if everything were."""
    settings.DEBUG = False
    seen: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(self.format(record))

    handler = Keep(logging.DEBUG)
    handler.setFormatter(OneLine())
    loggers = [logging.getLogger(), *map(logging.getLogger, logging.root.manager.loggerDict)]
    before = [(logger, logger.level, logger.disabled) for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.DEBUG)
    logging.getLogger().addHandler(handler)
    yield seen
    logging.getLogger().removeHandler(handler)
    for logger, level, disabled in before:
        logger.setLevel(level)
        logger.disabled = disabled


def test_what_is_looked_for_would_be_found() -> None:
    for written in (
        KEY, f"x={KEY}&", repr({"x-api-key": KEY}), KEY.encode().hex(), base64.b64encode(KEY.encode()),
        base64.b64encode(b"key: " + KEY.encode()), base64.b64encode(b"a key: " + KEY.encode()),
        json.dumps([KEY]), urllib.parse.urlencode({"key": KEY}), KEY[:30],
    ):  # fmt: skip
        assert found(written), written
    assert not found("a page without it")


def test_no_log_line_has_it(world: World, address: Server, lines: list[str]) -> None:
    client, page = world.client("owner of all"), reverse("datasets:model")
    model_forms._offers.clear()
    client.get(page)
    client.post(page, GOOD | {"key": KEY})
    model_settings.client().models()
    for fault in ("key", "forbidden", "server", "drop"):
        address.change(fault={fault: 1.0})
        client.post(page, GOOD | {"key": KEY})
        with pytest.raises(CallFailed) as caught:
            model_settings.client().models()
        logging.getLogger("tests").error("it failed", exc_info=caught.value)
        assert not found(repr(caught.value) + str(caught.value))
    assert any(" anthropic" in line for line in lines) and any(" httpcore2" in line for line in lines)
    assert [line for line in lines if found(line)] == []


@pytest.mark.parametrize("before", [0, 150, 165, 199])
def test_a_log_line_that_is_given_it_leaves_it_out(world: World, lines: list[str], before: int) -> None:
    """Reasons are cut after 200 characters, and half a key is bad enough."""
    log = logging.getLogger("tests")
    log.info("it is %s", KEY)
    log.info("headers %r", {"x-api-key": KEY.encode()})
    try:
        raise ValueError("x" * before + KEY)
    except ValueError:
        log.exception("failed")
    assert len(lines) == 3 and all("[key]" in line or "x" * 199 in line for line in lines)
    assert [line for line in lines if found(line)] == []


def test_a_log_line_leaves_out_what_looks_like_a_key(lines: list[str]) -> None:
    """Of somebody else, or of a process that has never met it."""
    logging.getLogger("tests").info("refused: sk-ant-api03-bm90IG91cnM_-0123, says the proxy")
    assert lines[0].endswith("refused: [key], says the proxy")


def test_no_page_and_no_file_has_it(world: World) -> None:
    answered = set()
    for entry in ADDRESSES:
        client = world.client(fitting(entry))
        response = client.get(world.url(entry))
        content = b"".join(response.streaming_content) if response.streaming else response.content
        assert not found(content), entry.name
        assert not found(str(response.headers) + str(response.cookies)), entry.name
        if response.status_code == 200:
            answered.add(entry.name)
    assert {
        "home",
        "datasets:model",
        "reviews:overview",
        "reviews:file",
        "reviews:certificate_json",
    } <= answered


def test_a_form_that_is_refused_does_not_send_it_back(world: World) -> None:
    answer = world.client("owner of all").post(reverse("datasets:model"), GOOD | {"key": KEY, "asks": "99"})
    assert answer.status_code == 422 and not found(answer.content)


def test_no_column_of_the_database_has_it(world: World) -> None:
    looked_at = 0
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f"SELECT * FROM {connection.ops.quote_name(table)}")
            for row in cursor.fetchall():
                for value in row:
                    raw = bytes(value) if isinstance(value, bytes | memoryview) else str(value)
                    looked_at += isinstance(raw, bytes)
                    assert not found(raw), table
    assert looked_at > 0, "the stored key itself is such bytes"


def test_no_dump_has_it(world: World) -> None:
    out = io.StringIO()
    call_command("dumpdata", exclude=["django_rq"], stdout=out)
    assert '"datasets.modelsettings"' in out.getvalue() and not found(out.getvalue())


def test_the_file_of_the_database_does_not_have_it(world: World) -> None:
    if connection.vendor != "sqlite":
        pytest.skip("a file of its own is SQLite's")
    name = str(connection.settings_dict["NAME"])
    whole = bytes_on_disk(name)
    stored = ModelSettings.objects.get().key
    assert stored is not None and bytes(stored) in whole and not found(whole)


def test_no_job_has_it(server: Any, world: World) -> None:
    """What the queue holds, unpacked."""
    version = LabelerVersion.objects.create(dataset=world.dataset, method="llm")
    tasks.start(world.dataset, version, world.people["owner of all"])
    queue = redis.Redis.from_url(server["now"].url)
    read = {
        b"string": queue.get, b"hash": queue.hgetall, b"set": queue.smembers,
        b"list": lambda name: queue.lrange(name, 0, -1), b"zset": lambda name: queue.zrange(name, 0, -1),
    }  # fmt: skip
    jobs = 0
    for name in queue.keys("*"):
        kind = queue.type(name)
        held = read[kind](name) if kind in read else queue.xrange(name)
        assert not found(name) and not found(repr(held)), name
        if kind == b"hash" and b"data" in held:
            data = zlib.decompress(held[b"data"])
            assert b"work_slices" in data and not found(data)
            jobs += 1
    assert jobs >= 1


class TestErrorPages:
    """A view breaks while it has the key at hand."""

    @pytest.fixture
    def broken(self, world: World, monkeypatch: pytest.MonkeyPatch) -> Client:
        def look() -> None:
            first = model_settings.key()
            plain, cut = KEY[:], ("x" * 4050 + KEY)  # long values are cut, in the middle of it
            headers = {"x-api-key": KEY.encode(), "deep": [{"down": (KEY, b"y" * 60 + KEY.encode())}]}
            client = model_settings.client()
            raise RuntimeError(f"{first} {plain} {cut} {headers} {client}")

        monkeypatch.setattr(views, "look", look)
        return world.client("owner of all", HTTP_X_COPY=KEY, MY_COPY=KEY, ANTHROPIC_API_KEY=KEY)

    @pytest.mark.parametrize("debug", [False, True])
    @pytest.mark.parametrize("accept", ["text/html", "text/plain"])
    def test_none_has_it(
        self, broken: Client, settings: Any, debug: bool, accept: str, lines: list[str]
    ) -> None:
        settings.DEBUG = debug
        answer = broken.get("/_light", headers={"Accept": accept})
        page = answer.content.decode()
        assert answer.status_code == 500 and ("RuntimeError" in page) is debug
        if debug and accept == "text/html":
            assert "headers" in page and "ANTHROPIC_API_KEY" in page and "[key]" in page
        assert not found(page)
        assert any("RuntimeError" in line for line in lines) and [line for line in lines if found(line)] == []

    @pytest.mark.parametrize("debug", [False, True])
    @pytest.mark.parametrize(
        "broken", [(Claude, "models"), (model_settings, "key_state")], ids=["late", "early"]
    )
    def test_none_has_what_was_just_typed(
        self, address: Server, settings: Any, monkeypatch: pytest.MonkeyPatch, debug: bool, broken: Any
    ) -> None:
        """Early: before anybody has looked at it."""

        def fail(*_: Any) -> None:
            raise RuntimeError("something broke")

        monkeypatch.setattr(*broken, fail)
        monkeypatch.setattr(model_settings, "_seen", set())
        settings.DEBUG = debug
        client = World().client("owner of all")
        answer = client.post(reverse("datasets:model"), GOOD | {"key": KEY})
        page = answer.content.decode()
        assert answer.status_code == 500 and ("something broke" in page) is debug
        assert not found(page)


IN_THE_ENVIRONMENT = """
import io, logging, sys
logging.getLogger().setLevel(logging.DEBUG)
for name in ("anthropic", "httpx2", "httpcore2"):
    logging.getLogger(name).setLevel(logging.DEBUG)
from django.conf import settings
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client
from datasets import model_settings
from datasets.models import Membership
from labelhub import views
call_command("migrate", verbosity=0)
settings.ALLOWED_HOSTS.append("testserver")
user = User.objects.create_user("ada")
Membership.objects.create(user=user, role="owner")
client = Client(raise_request_exception=False)
client.force_login(user)
for path in ("/", "/account/", "/new/", "/backtests/", "/settings/model/", "/_light", "/no-such-page/"):
    print(path, client.get(path).content.decode())
saved = client.post("/settings/model/", FORM)
print("saved:", saved.status_code)
client.post("/new/sample/")
print(client.get("/").content.decode())
def look():
    key, environment = settings.ANTHROPIC_API_KEY, dict(__import__("os").environ)
    raise RuntimeError(f"{key} {environment}")
views.look = look
for debug in (False, True):
    settings.DEBUG = debug
    print("broken:", client.get("/_light").content.decode())
call_command("dumpdata", exclude=["django_rq"])
model_settings.client().models()
print("asked:", model_settings.key_state())
"""


def test_the_environments_key_is_nowhere_either(tmp_path: Path) -> None:
    """A LabelHub of its own, with the key in its environment: all that it prints, and every file that it writes."""
    with serve() as server:
        done = subprocess.run(
            [sys.executable, "manage.py", "shell", "--no-imports", "-c", IN_THE_ENVIRONMENT.replace("FORM", repr(GOOD))],
            cwd=ROOT, capture_output=True, text=True, timeout=120,
            env=os.environ | {
                "LABELHUB_HOME": str(tmp_path), "DATABASE_URL": "", "ANTHROPIC_API_KEY": KEY,
                "ANTHROPIC_BASE_URL": server.url, "LABELHUB_DEBUG": "0",
            },
        )  # fmt: skip
    said = done.stdout + done.stderr
    assert done.returncode == 0, said.replace(KEY, "KEY")[-3000:]
    assert "saved: 302" in said and "asked: KeyState(source='environment'" in said
    assert "RuntimeError" in said and "httpcore2" in said and '"datasets.modelsettings"' in said
    assert [line for line in said.splitlines() if found(line)] == []
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert tmp_path / "labelhub.sqlite3" in files
    assert [path for path in files if found(path.read_bytes())] == []
