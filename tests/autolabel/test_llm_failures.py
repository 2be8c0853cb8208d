"""How calls of the Anthropic API fail, and that no failure gives the key away."""

import json
import logging
import pickle
import time
import traceback
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from labelhub.autolabel.labelers.llm import (
    CallFailed,
    Claude,
)
from labelhub.fakeclaude.replay import Replay
from labelhub.fakeclaude.server import serve
from tests.autolabel.canned import KEY, MESSAGE, SAID, TEXTS, Canned, ended, error, failure, request

# Failures

FAILURES = {
    "key": (401, error("authentication_error"), "key"),
    "payment": (402, error("billing_error"), "credit"),
    "billing": (403, error("billing_error"), "credit"),
    "balance": (400, error("invalid_request_error", "Your credit balance is too low to go on."), "credit"),
    "permission": (403, error("permission_error"), "forbidden"),
    "model": (404, error("not_found_error", "model: claude-x"), "model"),
    "rate": (429, error("rate_limit_error"), "busy"),
    "ramp": (429, error("rate_limit_error", code="ramp_limit_exceeded"), "busy"),
    "enforced": (429, error("rate_limit_error", code="enforced_spend_limit_reached"), "spend_limit"),
    "contract": (429, error("rate_limit_error", code="contract_spend_limit_reached"), "spend_limit"),
    "linked": (429, error("rate_limit_error", code="linked_organization_spend_limit_reached"), "spend_limit"),
    "overloaded": (529, error("overloaded_error"), "overloaded"),
    "unavailable": (503, b"<html>busy</html>", "overloaded"),
    "server": (500, error("api_error"), "server"),
    "gateway": (502, b"<html>bad gateway</html>", "server"),
    "slow gateway": (504, error("timeout_error"), "server"),
    "request timeout": (408, error("timeout_error"), "server"),
    "conflict": (409, error("conflict_error"), "server"),
    "bad request": (400, error("invalid_request_error"), "rejected"),
    "too large": (413, error("request_too_large"), "rejected"),
    "unprocessable": (422, b"", "rejected"),
}
TRANSIENT = {"busy", "overloaded", "server", "timeout", "connection"}


@pytest.mark.parametrize(("status", "body", "kind"), FAILURES.values(), ids=FAILURES)
def test_a_failure_has_a_kind_and_a_sentence_and_is_not_tried_again(status, body, kind):
    server = Canned(status, body)
    failed = failure(server)
    assert (failed.kind, failed.status, failed.request_id) == (kind, status, "req_1")
    assert failed.transient == (kind in TRANSIENT)
    assert failed.fatal == (kind not in TRANSIENT | {"rejected"})
    assert failed.sentence.endswith(".")
    assert str(failed) == failed.sentence
    assert len(server.asked) == 1


def test_a_refused_request_says_why():
    body = error("invalid_request_error", "max_tokens:  must be\x1b[31m positive.\n")
    assert (
        failure(Canned(400, body)).sentence
        == "Anthropic refused this request: max_tokens: must be[31m positive."
    )


@pytest.mark.parametrize(
    ("headers", "least", "most"),
    [
        ({"retry-after": "12"}, 12, 12),
        ({"retry-after": "1", "retry-after-ms": "250"}, 0.25, 0.25),
        ({"retry-after": "-3"}, 0, 0),
    ],
    ids=["seconds", "milliseconds", "past"],
)
def test_it_says_how_long_to_wait(headers, least, most):
    assert least <= failure(Canned(429, error("rate_limit_error"), headers)).retry_after <= most


def test_a_moment_to_come_back_at_becomes_seconds():
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    assert 60 <= failure(Canned(529, error("overloaded_error"), {"retry-after": later})).retry_after <= 90


@pytest.mark.parametrize("told", ["soon", "", "nan", "inf"])
def test_nonsense_about_waiting_is_passed_over(told):
    assert failure(Canned(429, error("rate_limit_error"), {"retry-after": told})).retry_after is None


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"<html>hello</html>", {"content-type": "text/html"}),
        (b'{"id": "msg_1", ', {}),
        (b"[1, 2]", {}),
        (b"", {}),
        (b"\xff\xfe", {}),
        (json.dumps({**MESSAGE, "usage": None}).encode(), {}),
        (json.dumps({k: v for k, v in MESSAGE.items() if k != "usage"}).encode(), {}),
        (json.dumps({**MESSAGE, "content": "x"}).encode(), {}),
        (json.dumps({**MESSAGE, "usage": {"input_tokens": "many"}}).encode(), {}),
        (b"[" * 100_000, {}),
    ],
    ids=[
        "html",
        "half an object",
        "list",
        "empty",
        "no text",
        "null usage",
        "no usage",
        "content",
        "words",
        "deep",
    ],
)
def test_an_answer_that_cannot_be_read_is_a_failure_of_the_server(body, headers):
    failed = failure(Canned(200, body, headers))
    assert failed.kind == "server"
    assert failed.__context__ is None


def test_half_a_body_is_a_broken_connection():
    body = json.dumps(MESSAGE).encode()
    assert failure(Canned(200, body[:40], length=len(body))).kind == "connection"


def test_a_closed_port_is_a_broken_connection():
    with Canned() as server:
        pass
    with pytest.raises(CallFailed) as raised:
        Claude(KEY, server.url).send(request())
    assert raised.value.kind == "connection"


@pytest.mark.parametrize("address", ["nowhere", "ftp://127.0.0.1/", "http://[::1", "http://127.0.0.1:99999"])
def test_an_address_that_is_none_is_a_broken_connection(address):
    with pytest.raises(CallFailed) as raised:
        Claude(KEY, address).send(request())
    assert raised.value.kind == "connection"


def test_no_answer_in_time_is_a_timeout():
    started = time.monotonic()
    assert failure(Canned(200, MESSAGE, wait=2.0), timeout=0.2).kind == "timeout"
    assert time.monotonic() - started < 2.9


def test_a_failure_survives_pickling():
    failed = CallFailed("busy", "Wait.", 3.0, "req_1", 429)
    again = pickle.loads(pickle.dumps(failed))
    assert (again.kind, str(again), again.retry_after, again.request_id, again.status) == (
        "busy",
        "Wait.",
        3.0,
        "req_1",
        429,
    )


# The key


@pytest.mark.parametrize(
    "key", ["", "  \n", "sk-ant\nx", "sk-änt", "sk ant"], ids=["none", "blank", "line", "umlaut", "space"]
)
def test_without_a_possible_key_nothing_is_sent(key):
    server = Canned(200, MESSAGE)
    failed = failure(server, key=key)
    assert failed.kind == "key"
    assert failed.fatal
    assert "ANTHROPIC_API_KEY" in failed.sentence
    assert server.asked == []


ECHO = f"the key {KEY} and the beginning {KEY[:14]} are wrong"


@pytest.mark.parametrize(
    "server",
    [
        lambda: Canned(400, error("invalid_request_error", ECHO)),
        lambda: Canned(401, error("authentication_error", ECHO)),
        lambda: Canned(500, ECHO.encode()),
        lambda: Canned(200, ECHO.encode()),
        lambda: Canned(200, ECHO.encode(), length=9_999),
    ],
    ids=["rejected", "key", "server", "unreadable", "broken"],
)
def test_a_failure_neither_holds_nor_leads_to_the_key(server):
    failed = failure(server())
    told = traceback.TracebackException.from_exception(failed, capture_locals=True)
    shown = [
        repr(failed),
        str(failed),
        failed.sentence,
        repr(failed.args),
        "".join(traceback.format_exception(failed)),
    ]
    assert not [text for text in shown if KEY in text or KEY[:14] in text]
    assert failed.__context__ is None
    assert failed.__cause__ is None
    assert not [frame for frame in told.stack if "labelers" in frame.filename and KEY in str(frame.locals)]


def test_no_log_shows_the_key(caplog):
    caplog.set_level(logging.DEBUG)
    for name in ("anthropic", "httpx2", "httpcore2", "urllib3"):
        caplog.set_level(logging.DEBUG, name)
    with serve(Replay(TEXTS, {"": [SAID]}), batch_seconds=0) as fake:
        client = Claude(KEY, fake.url, 5.0)
        client.send(request())
        client.models()
        list(client.results(ended(client, client.submit([("a", request())]))))
        client.close()
    failure(Canned(401, error("authentication_error", "no")))
    failure(Canned(200, MESSAGE, wait=1.0), timeout=0.1)
    failure(Canned(200, b"{", length=99))
    assert {"anthropic._base_client", "httpx2"} <= {record.name for record in caplog.records}
    assert any(record.exc_info for record in caplog.records)
    assert KEY not in caplog.text
    assert not [
        record for record in caplog.records if KEY in f"{record.msg!r} {record.args!r} {record.__dict__!r}"
    ]


def test_a_client_does_not_show_its_key():
    assert KEY not in repr(Claude(KEY))
    assert KEY not in str(Claude(KEY, "http://127.0.0.1:9"))
