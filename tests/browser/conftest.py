"""A whole LabelHub for tests in the browser: `manage.py up` on a fresh data folder, as a newcomer starts it."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Error

ROOT = Path(__file__).parent.parent.parent
DATA = ROOT / "tests/data"


@dataclass
class Site:
    """A running application, its address and the one-time link that it printed."""

    home: Path
    url: str
    link: str

    def manage(self, *words: str) -> str:
        done = subprocess.run(
            [sys.executable, "manage.py", *words],
            cwd=ROOT, env=_environment(self.home, self.url), capture_output=True, text=True, timeout=120, check=True,
        )  # fmt: skip
        return done.stdout


def _environment(home: Path, url: str) -> dict[str, str]:
    return os.environ | {
        "LABELHUB_HOME": str(home), "DATABASE_URL": "", "LABELHUB_URL": url, "PYTHONUNBUFFERED": "1",
        "LABELHUB_WORKERS": "1",
    }  # fmt: skip


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """One application for the tests of a module."""
    yield from running()


def running() -> Iterator[Site]:
    """Start LabelHub by its own command in a temporary folder; stop it by a signal."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory(prefix="labelhub-site-") as folder:
        log = Path(folder) / "up.log"
        with open(log, "wb") as out:
            process = subprocess.Popen(
                [sys.executable, "manage.py", "up", "--port", str(port), "--workers", "1"],
                cwd=ROOT, env=_environment(Path(folder), url), stdout=out, stderr=subprocess.STDOUT,
            )  # fmt: skip
        try:
            give_up = time.monotonic() + 60
            while not (link := re.search(r"http\S+/welcome/\S+", log.read_text())):
                if process.poll() is not None or time.monotonic() > give_up:
                    raise AssertionError(f"no sign-in link was printed:\n{log.read_text()}")
                time.sleep(0.1)
            _wait_until_served(port)
            yield Site(Path(folder), url, link[0])
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def until(page: Any, script: str, arg: Any = None, seconds: float = 15) -> None:
    """Ask the page again and again until ``script`` is true.

    `wait_for_function` asks from inside the page by `eval`, which our Content Security Policy forbids from the
    second asking on.
    """
    give_up = time.monotonic() + seconds
    while True:
        try:
            if page.evaluate(script, arg):
                return
        except Error as error:  # a new page came in between
            if "context was destroyed" not in str(error):
                raise
        assert time.monotonic() < give_up, f"never true on {page.url}: {script}"
        page.wait_for_timeout(30)


def _wait_until_served(port: int) -> None:
    give_up = time.monotonic() + 30
    while time.monotonic() < give_up:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError("the web server does not answer")


@pytest.fixture(scope="module")
def visitor(browser: Any, site: Site) -> Iterator[Any]:
    """A browser page, signed in by the one-time link; script errors and CSP violations fail the module."""
    context = browser.new_context(base_url=site.url, accept_downloads=True)
    context.set_default_timeout(15_000)
    page = context.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda said: "Content Security Policy" in said.text and faults.append(said.text))
    page.goto(site.link)
    page.fill("input[name=name]", "ada")
    page.click("main form button")
    page.wait_for_url(site.url + "/")
    yield page
    context.close()
    assert not faults, faults
