"""What every answer carries, what an error looks like, and how the whole scores with a header scanner."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.template import TemplateDoesNotExist
from django.template.loader import get_template
from django.test import Client

from datasets.models import Membership
from labelhub import views

pytestmark = pytest.mark.django_db
FRAGMENT = {"HX-Request": "true"}


@pytest.fixture
def owner() -> Client:
    user = User.objects.create_user("ada")
    Membership.objects.create(user=user, role="owner")
    client = Client(raise_request_exception=False)
    client.force_login(user)
    return client


def break_(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the worker light fail, as any view might."""

    def fail() -> None:
        raise RuntimeError("secret detail\nwith a second line")

    monkeypatch.setattr(views, "look", fail)


def policy_of(response: Any) -> dict[str, list[str]]:
    directives = [directive.split() for directive in response["Content-Security-Policy"].split(";")]
    return {name: values for name, *values in directives}


class TestEveryAnswer:
    ANSWERS = (
        ("a page", "GET", "/account/", {}, 200),
        ("a fragment", "GET", "/_light", FRAGMENT, 200),
        ("a redirect", "GET", "/signin/", {}, 302),
        ("health", "GET", "/healthz", {}, 200),
        ("a used-up link", "GET", "/signin/x/", {}, 410),
        ("a bad form", "POST", "/account/", {}, 422),
        ("nothing", "GET", "/d/404/review/", {}, 404),
        ("nothing in a fragment", "GET", "/d/404/review/", FRAGMENT, 404),
        ("no such address", "GET", "/wp-login.php", {}, 404),
        ("a wrong method", "GET", "/signout/", {}, 405),
        ("an unknown method", "TRACE", "/", {}, 405),
        ("another host", "GET", "/", {"Host": "evil.example"}, 400),
    )

    @pytest.mark.parametrize(
        ("method", "url", "headers", "status"), [a[1:] for a in ANSWERS], ids=[a[0] for a in ANSWERS]
    )
    def test_it_forbids_foreign_and_inline_code(
        self, owner: Client, method: str, url: str, headers: dict[str, str], status: int
    ) -> None:
        response = owner.generic(method, url, headers=headers)
        assert response.status_code == status
        policy = policy_of(response)
        assert policy["default-src"] == policy["script-src"] == policy["style-src"] == ["'self'"]
        assert policy["object-src"] == policy["base-uri"] == policy["frame-ancestors"] == ["'none'"]
        assert policy["form-action"] == ["'self'"]
        assert response["X-Content-Type-Options"] == "nosniff"
        assert response["Referrer-Policy"] == "same-origin"
        assert response["Cache-Control"] == "no-store"
        assert "camera=()" in response["Permissions-Policy"]

    def test_a_crash_is_no_exception(self, owner: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        break_(monkeypatch)
        response = owner.get("/_light")
        assert response.status_code == 500 and policy_of(response)["script-src"] == ["'self'"]

    @pytest.mark.parametrize("url", ["/account/", "/signin/", "/wp-login.php"])
    def test_a_page_tells_htmx_to_add_no_styles_of_its_own(self, owner: Client, url: str) -> None:
        page = (Client() if url == "/signin/" else owner).get(url).content.decode()
        assert """<meta name="htmx-config" content='{"includeIndicatorCSS":false}'>""" in page

    def test_the_templates_hold_nothing_that_the_policy_forbids(self) -> None:
        forbidden = {
            "an inline script": r"<script(?![^>]*\bsrc=)(?![^>]*application/json)",
            "an inline style": r"<style|\sstyle=",
            "an event attribute": r"\son[a-z]+=",
            "code for htmx": r"hx-on|hx-(vals|headers)[^=]*=[\"']js:|javascript:",
            "a foreign address": r"(src|href)=[\"'](https?:)?//",
            "unescaped text": r"\|\s*safe\b|autoescape off",
        }
        found = [
            f"{path.name}: {what}: {match[0]}"
            for path in Path(settings.BASE_DIR, "templates").rglob("*.html")
            for what, pattern in forbidden.items()
            for match in re.finditer(pattern, path.read_text())
        ]
        assert not found

    def test_the_page_of_somebody_who_left_is_not_kept(self, owner: Client) -> None:
        assert "no-store" in owner.get("/account/")["Cache-Control"]
        owner.post("/signout/")
        assert owner.get("/account/")["Location"].startswith("/signin/")


class TestErrors:
    def test_a_crash_shows_a_sentence_and_an_id_that_the_log_knows(
        self, owner: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        break_(monkeypatch)
        with caplog.at_level(logging.INFO, "labelhub.errors"):
            page = owner.get("/_light").content.decode()
        shown = re.findall(r"E-[0-9A-F]{6}", page)
        assert len(shown) == 1 and "Something broke on our side" in page
        for secret in ("secret detail", "Traceback", "RuntimeError", settings.SECRET_KEY, "views.py"):
            assert secret not in page
        (line,) = [record for record in caplog.records if record.name == "labelhub.errors"]
        assert shown[0] in line.getMessage() and line.exc_info

    def test_a_crash_inside_a_fragment_is_a_fragment(
        self, owner: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        break_(monkeypatch)
        page = owner.get("/_light", headers=FRAGMENT).content.decode()
        assert "<html" not in page and 'role="alert"' in page and "E-" in page

    def test_when_even_the_error_page_breaks_there_are_words(
        self, owner: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        break_(monkeypatch)

        def fail(*_: Any, **__: Any) -> str:
            raise TemplateDoesNotExist("base.html")

        monkeypatch.setattr(views, "render_to_string", fail)
        response = owner.get("/_light")
        assert response.status_code == 500 and response["Content-Type"].startswith("text/plain")
        assert "Something broke on our side" in response.content.decode()

    @pytest.mark.parametrize(
        "path", ["/<script>alert(1)</script>", "/%0aforged", "/{{settings}}", "/d/1/%ff/"]
    )
    def test_an_address_is_never_echoed(self, owner: Client, path: str) -> None:
        page = owner.get(path).content.decode()
        assert "alert(1)" not in page and "forged" not in page and "settings}}" not in page

    def test_a_log_line_cannot_be_forged(self, owner: Client, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.INFO, "labelhub.errors"):
            owner.get("/x%0a2026-01-01 ERROR forged%1b[31m")
        lines = [record.getMessage() for record in caplog.records if record.name == "labelhub.errors"]
        assert len(lines) == 1 and "\n" not in lines[0] and "\x1b" not in lines[0]

    @pytest.mark.parametrize(
        "host", ["evil.example", "127.0.0.1.evil.example", "evil.example:8000", "a b", "127.0.0.1@evil"]
    )
    def test_another_host_is_refused(self, owner: Client, host: str) -> None:
        response = owner.get("/account/", headers={"Host": host})
        assert response.status_code == 400 and "evil" not in response.content.decode()

    def test_a_forwarded_host_is_ignored(self, owner: Client) -> None:
        page = owner.get("/account/", headers={"X-Forwarded-Host": "evil.example"})
        assert page.status_code == 200 and "evil" not in page.content.decode()

    def test_a_body_that_is_too_large_is_refused(self, owner: Client) -> None:
        big = b"name=" + b"x" * 10_000_000
        form = "application/x-www-form-urlencoded"
        assert Client().post("/signin/", big, content_type=form).status_code == 413
        assert owner.post("/account/", big, content_type=form).status_code in (400, 413)
        many = "&".join(f"f{n}=1" for n in range(50_000))
        assert Client().post("/signin/", many, content_type=form).status_code == 400

    def test_the_style_guide_is_for_developers(self, owner: Client, settings: Any) -> None:
        assert owner.get("/styleguide/").status_code == 404
        settings.DEBUG = True
        assert get_template("styleguide.html")
        assert owner.get("/styleguide/").status_code == 200


class TestFiles:
    @pytest.mark.parametrize(
        "path",
        ["/static/../secret_key", "/static/%2e%2e/secret_key", "/static/..%2fsecret_key", "/static..//settings.py",
         "/static//etc/passwd", "/static/../../labelhub/settings.py", "/uploads/", "/media/", "/var/labelhub.sqlite3",
         "/.git/config", "/.env"],
    )  # fmt: skip
    def test_no_file_but_our_own_is_served(self, owner: Client, path: str) -> None:
        response = owner.get(path)
        assert response.status_code == 404
        assert settings.SECRET_KEY not in response.content.decode()

    def test_uploads_and_exports_lie_outside_of_every_public_folder(self) -> None:
        public = [Path(settings.STATIC_ROOT), *map(Path, settings.STATICFILES_DIRS)]
        private = [Path(settings.FILE_UPLOAD_TEMP_DIR), settings.LABELHUB_HOME]
        assert not settings.MEDIA_ROOT
        assert not [1 for folder in private for one in public if folder.is_relative_to(one)]
        assert settings.FILE_UPLOAD_PERMISSIONS == 0o600


def outside(url: str, *arguments: str) -> str:
    """Run manage.py as it runs behind a proxy at this address."""
    ours = {name: value for name, value in os.environ.items() if name != "DJANGO_ALLOW_ASYNC_UNSAFE"}
    ours["DATABASE_URL"] = "sqlite:///:memory:"
    done = subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=settings.BASE_DIR, env={**ours, "LABELHUB_URL": url}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


VISIT = """
import json
from django.core.management import call_command
from django.test import Client
call_command("migrate", verbosity=0)
from django.contrib.auth.models import User
User.objects.create_user("ada", password="a quiet harbour")
client = Client(headers={"host": "labels.example.org", "x-forwarded-proto": "https"})
form = client.get("/signin/")
done = client.post("/signin/", {"name": "ada", "password": "a quiet harbour"})
page = client.get("/account/")
plain = Client(headers={"host": "labels.example.org"}).get("/signin/")
cookies = [str(m.OutputString()) for r in (form, done, page) for m in r.cookies.values()]
told = {"status": [form.status_code, done.status_code, page.status_code], "headers": dict(page.headers),
        "cookies": cookies, "plain": [plain.status_code, plain.headers.get("Location")], "page": page.content.decode()}
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def public() -> dict[str, Any]:
    """What a browser sees at https://labels.example.org."""
    told: dict[str, Any] = json.loads(outside("https://labels.example.org", "shell", "-v0", "-c", VISIT))
    assert told["status"] == [200, 302, 200]
    return told


def score(seen: dict[str, Any]) -> tuple[int, dict[str, int]]:
    """Grade headers as the MDN HTTP Observatory does: 100, less its penalties, plus its bonuses.

    Source: its published table of tests and modifiers; only those that can apply to us.
    """
    headers = {name.lower(): value for name, value in seen["headers"].items()}
    policy = {
        name: values
        for name, *values in (d.split() for d in headers.get("content-security-policy", "").split(";") if d)
    }
    sources = policy.get("script-src", policy.get("default-src", ["*"])) + policy.get("object-src", ["*"])
    unsafe = {"'unsafe-inline'", "'unsafe-eval'", "*", "https:", "http:", "data:"} & set(sources)
    age = int((re.search(r"max-age=(\d+)", headers.get("strict-transport-security", "")) or [0, 0])[1])
    foreign = re.findall(r"<script[^>]+src=[\"'](?:https?:)?//", seen["page"])
    cookies_safe = all("Secure" in c and "SameSite" in c and "HttpOnly" in c for c in seen["cookies"])
    marks = {
        "csp": -25 if not policy else -20 if unsafe else 10 if policy.get("default-src") == ["'none'"] else 5,
        "cookies": 5 if seen["cookies"] and cookies_safe else -40,
        "cors": -50 if headers.get("access-control-allow-origin") == "*" else 0,
        "hsts": 0 if age >= 15768000 else -20,
        "redirect": 0 if seen["plain"][0] in (301, 308) and seen["plain"][1].startswith("https://") else -20,
        "referrer": 5
        if headers.get("referrer-policy") in ("same-origin", "no-referrer", "strict-origin")
        else 0,
        "integrity": -50 if foreign else 0,
        "nosniff": 0 if headers.get("x-content-type-options") == "nosniff" else -5,
        "frames": 5 if policy.get("frame-ancestors") == ["'none'"] else -20,
        "corp": 10 if headers.get("cross-origin-resource-policy") == "same-origin" else 0,
    }
    penalties = sum(mark for mark in marks.values() if mark < 0)
    bonuses = sum(mark for mark in marks.values() if mark > 0)
    # Bonuses count only for those who need them least.
    return 100 + penalties + (bonuses if penalties >= -10 else 0), marks


class TestBehindTls:
    def test_a_header_scanner_gives_the_best_grade(self, public: dict[str, Any]) -> None:
        total, marks = score(public)
        assert total >= 125 and min(marks.values()) >= 0, marks

    def test_the_scanner_notices_what_is_missing(self, public: dict[str, Any]) -> None:
        for header in ("Content-Security-Policy", "Strict-Transport-Security", "X-Content-Type-Options"):
            without = {name: value for name, value in public["headers"].items() if name != header}
            assert min(score({**public, "headers": without})[1].values()) < 0
        loose = {**public["headers"], "Content-Security-Policy": "script-src 'self' 'unsafe-inline'"}
        assert score({**public, "headers": loose})[0] < 100

    def test_browsers_keep_to_https_and_to_themselves(self, public: dict[str, Any]) -> None:
        headers = public["headers"]
        assert headers["Strict-Transport-Security"] == "max-age=31536000"
        assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert headers["X-Frame-Options"] == "DENY"
        assert public["plain"] == [301, "https://labels.example.org/signin/"]

    def test_cookies_belong_to_this_host_alone(self, public: dict[str, Any]) -> None:
        names = {cookie.partition("=")[0] for cookie in public["cookies"]}
        assert names == {"__Host-labelhub_session", "__Host-labelhub_csrf", "__Host-browser"}
        for cookie in public["cookies"]:
            assert (
                "Secure" in cookie
                and "HttpOnly" in cookie
                and "SameSite=Lax" in cookie
                and "Path=/" in cookie
            )
            assert "Domain" not in cookie

    def test_djangos_own_check_for_deployment_finds_nothing(self) -> None:
        outside("https://labels.example.org", "check", "--deploy", "--fail-level", "WARNING")

    def test_links_are_built_from_the_configured_address(self) -> None:
        visit = VISIT.split("client =")[0] + (
            "from labelhub import accounts; print(accounts.signin_link(User.objects.get()))"
        )
        assert outside("https://labels.example.org", "shell", "-v0", "-c", visit).startswith(
            "https://labels.example.org/signin/"
        )
