"""Headers on every answer, and bodies refused before they are read."""

import io
import logging

import pytest
from django.contrib.auth.models import User
from django.core.files.uploadhandler import TemporaryFileUploadHandler
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory
from django.urls import path

from labelhub import urls
from labelhub.logs import OneLine
from labelhub.middleware import FORM_BYTES, ResponseHeaders, UploadLimit


def fail(request: HttpRequest) -> HttpResponse:
    raise ValueError("canary-secret")


def take(request: HttpRequest) -> HttpResponse:
    files = [(file.size, hasattr(file, "temporary_file_path")) for file in request.FILES.values()]
    return HttpResponse(f"{request.method} {files}")


urlpatterns = [path("fail", fail), path("take", take), path("api/v1/take", take), *urls.urlpatterns]

pytestmark = [pytest.mark.urls(__name__), pytest.mark.django_db]


class TestHeaders:
    @pytest.mark.parametrize(
        ("method", "address", "host", "status"),
        [("get", "/take", "localhost", 200), ("get", "/none", "localhost", 404), ("get", "/take", "evil.example", 400),
         ("trace", "/take", "localhost", 405), ("get", "/fail", "localhost", 500)],
    )  # fmt: skip
    def test_every_answer_carries_them(self, client, method, address, host, status):
        client.raise_request_exception = False
        answer = getattr(client, method)(address, headers={"host": host})
        assert answer.status_code == status
        policy = dict(rule.split(" ", 1) for rule in answer["Content-Security-Policy"].split("; "))
        assert policy["default-src"] == policy["script-src"] == policy["style-src"] == "'self'"
        assert policy["object-src"] == policy["base-uri"] == policy["frame-ancestors"] == "'none'"
        assert "unsafe" not in answer["Content-Security-Policy"]
        assert answer["X-Content-Type-Options"] == "nosniff"
        assert answer["Referrer-Policy"] == "same-origin"
        assert answer["Cross-Origin-Resource-Policy"] == "same-origin"
        assert "camera=()" in answer["Permissions-Policy"]
        assert answer["Cache-Control"] == "no-store"

    def test_framing_and_opening_are_refused_too(self, client):
        answer = client.get("/take")
        assert answer["X-Frame-Options"] == "DENY"
        assert answer["Cross-Origin-Opener-Policy"] == "same-origin"

    def test_an_error_shows_no_settings_and_no_message(self, client):
        client.raise_request_exception = False
        assert b"canary-secret" not in client.get("/fail").content

    def test_a_view_may_set_its_own_rule(self):
        def view(request: HttpRequest) -> HttpResponse:
            return HttpResponse(headers={"Cache-Control": "private"})

        assert ResponseHeaders(view)(RequestFactory().get("/"))["Cache-Control"] == "private"

    @pytest.mark.parametrize("method", ["TRACE", "BREW", "CONNECT"])
    def test_an_unknown_method_is_405(self, client, method):
        answer = client.generic(method, "/take")
        assert answer.status_code == 405
        assert "POST" in answer["Allow"]

    def test_plain_http_is_sent_to_https_but_for_the_machine_that_asks_for_health(self, client, settings):
        settings.SECURE_SSL_REDIRECT, settings.SECURE_HSTS_SECONDS = True, 100
        assert client.get("/take").status_code == 301
        assert client.get("/healthz").status_code == 200
        assert client.get("/take", secure=True)["Strict-Transport-Security"] == "max-age=100"


class TestUploads:
    @pytest.fixture
    def member(self, client):
        client.force_login(User.objects.create_user("ann"))
        return client

    def test_a_file_below_the_limit_becomes_a_file_on_disk(self, member):
        assert member.post("/take", {"file": io.BytesIO(b"a" * 1000)}).content == b"POST [(1000, True)]"

    def test_one_above_the_limit_is_refused_in_one_sentence(self, member, settings, monkeypatch):
        settings.LABELHUB_MAX_UPLOAD_MB = 1
        read = []
        monkeypatch.setattr(TemporaryFileUploadHandler, "receive_data_chunk", lambda *_: read.append(1))
        answer = member.post("/take", {"file": io.BytesIO(b"a" * 1_200_000)})
        assert answer.status_code == 413
        assert answer.content.decode() == (
            "This file is too large: 1 MB is the most that this LabelHub takes (LABELHUB_MAX_UPLOAD_MB)."
        )
        assert not read

    def test_a_program_gets_the_refusal_as_json(self, member, settings):
        settings.LABELHUB_MAX_UPLOAD_MB = 1
        answer = member.post("/api/v1/take", {"file": io.BytesIO(b"a" * 1_200_000)})
        assert answer.status_code == 413
        error = answer.json()["error"]
        assert error["code"] == "too_large"
        assert len(error["id"]) == 12

    def test_a_stranger_cannot_fill_the_disk(self, client):
        answer = client.post("/take", {"file": io.BytesIO(b"a" * (FORM_BYTES + 1))})
        assert answer.status_code == 413
        assert answer.content == b"Sign in before you send a file."

    def test_a_token_gets_as_far_as_the_view_that_checks_it(self):
        request = RequestFactory().post(
            "/api/v1/x", b"a" * (FORM_BYTES + 1), "text/csv", HTTP_AUTHORIZATION="Bearer x"
        )
        request.user = type("Stranger", (), {"is_authenticated": False})()
        assert UploadLimit(lambda _: HttpResponse("seen"))(request).content == b"seen"

    def test_a_body_of_unstated_length_is_refused(self):
        request = RequestFactory().post("/take", HTTP_TRANSFER_ENCODING="chunked")
        del request.META["CONTENT_LENGTH"]
        assert UploadLimit(lambda _: HttpResponse())(request).status_code == 411

    def test_an_understated_length_cuts_the_body_off(self):
        request = RequestFactory().generic("POST", "/", b"x" * 1000, CONTENT_LENGTH=10)
        assert request.body == b"x" * 10

    @pytest.mark.parametrize("stated", ["-1", "1e9", "١٢", "abc", "1, 2"])
    def test_a_length_that_is_no_number_is_refused(self, stated):
        request = RequestFactory().generic("POST", "/", b"x" * 1000, CONTENT_LENGTH=stated)
        assert UploadLimit(lambda seen: HttpResponse(seen.body))(request).status_code == 400


class TestLog:
    def line(self, message: str, *args: object, exc_info: object = None) -> str:
        record = logging.LogRecord("labelhub", logging.INFO, "f.py", 1, message, args, exc_info)
        return OneLine().format(record)

    @pytest.mark.parametrize(
        "evil", ["\n2026 forged", "\x1b[31mred", "\r", "\x85", "\u2028", "\u202e", "\x00"]
    )
    def test_a_name_cannot_forge_or_colour_a_line(self, evil):
        line = self.line("dataset %s", f"a{evil}b")
        assert evil[0] not in line
        assert len(line.splitlines()) == 1

    def test_it_is_utc_and_says_so(self):
        assert self.line("hello")[10] == "T"
        assert self.line("hello").split()[0].endswith("Z")

    def test_an_error_is_one_line_without_the_row_that_a_database_quotes(self):
        try:
            raise ValueError("duplicate key\nDETAIL: Key (text)=(a private text)")
        except ValueError as error:
            line = self.line("failed", exc_info=(ValueError, error, error.__traceback__))
        assert "ValueError: duplicate key" in line
        assert "test_middleware.py" in line
        assert "private" not in line

    def test_a_key_and_a_one_time_link_are_not_written(self, settings):
        settings.ANTHROPIC_API_KEY = "sk-canary"
        line = self.line("401 for sk-canary at /welcome/abc.def:ghi/ and /signin/xyz/")
        assert "canary" not in line
        assert "abc" not in line
        assert "xyz" not in line
