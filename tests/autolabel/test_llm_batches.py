"""Batches of the Anthropic API: by custom id, and with whatever came of each request."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from labelhub.autolabel.labelers.llm import (
    BatchProblem,
    CallFailed,
    Claude,
)
from labelhub.autolabel.labelers.reply import read
from tests.autolabel.canned import KEY, MESSAGE, TEXTS, Canned, ended, request

# Batches


def test_a_batch_is_answered_by_custom_id(claude):
    before = datetime.now(UTC) - timedelta(minutes=1)
    id = claude.submit([(f"run-{i}", request([text])) for i, text in enumerate(TEXTS)])
    state = claude.batch(id)
    assert (state.id, state.total) == (id, 3)
    assert state.created_at < state.expires_at
    assert [one.id for one in claude.recent_batches(before)] == [id]
    assert claude.recent_batches(datetime.now(UTC) + timedelta(minutes=1)) == []
    answers = dict(claude.results(ended(claude, id)))
    assert claude.batch(id).ended_at is not None
    labels = {
        name: read(r.stop_reason, r.text, 1, ["ham", "spam"]).said[1].label for name, r in answers.items()
    }
    assert labels == {"run-0": "ham", "run-1": "spam", "run-2": "ham"}
    assert all(reply.fake and json.loads(reply.raw)["type"] == "message" for reply in answers.values())


def test_a_canceled_batch_says_so(claude, fake):
    fake.change(batch_seconds=30)
    try:
        id = claude.submit([("a", request())])
        claude.cancel(id)
        ((name, problem),) = claude.results(ended(claude, id))
    finally:
        fake.change(batch_seconds=0.2)
    assert name == "a"
    assert isinstance(problem, BatchProblem)
    assert problem.kind == "canceled"


@pytest.mark.parametrize(("fault", "kind"), [("batch_expired", "expired"), ("batch_errored", "errored")])
def test_a_request_of_a_batch_may_have_no_answer(claude, fake, fault, kind):
    fake.change(fault={fault: 1.0})
    try:
        ((_, problem),) = claude.results(ended(claude, claude.submit([("a", request())])))
    finally:
        fake.change(fault={})
    assert problem.kind == kind
    assert problem.sentence.endswith(".")


def test_a_batch_that_is_not_there_or_not_ended_has_no_results(claude, fake):
    for call in (claude.batch, claude.cancel, lambda id: list(claude.results(id))):
        with pytest.raises(CallFailed) as raised:
            call("msgbatch_unknown")
        assert raised.value.kind == "rejected"
    fake.change(batch_seconds=30)
    try:
        id = claude.submit([("a", request())])
        with pytest.raises(CallFailed, match="not ended") as raised:
            list(claude.results(id))
        claude.cancel(id)
    finally:
        fake.change(batch_seconds=0.2)
    assert raised.value.kind == "rejected"


def test_results_that_break_off_are_a_failure_after_what_was_read():
    line = (
        json.dumps({"custom_id": "a", "result": {"type": "succeeded", "message": MESSAGE}}).encode() + b"\n"
    )
    with Canned(200, b"{}") as server:
        batch = {
            "id": "b",
            "type": "message_batch",
            "processing_status": "ended",
            "request_counts": {"succeeded": 2},
            "created_at": "2026-01-01T00:00:00Z",
            "expires_at": "2026-01-02T00:00:00Z",
            "results_url": f"{server.url}/results",
        }
        server.answers = [(200, json.dumps(batch).encode(), ()), (200, line + line[:50], ())]
        results = Claude(KEY, server.url).results("b")
        assert next(results)[0] == "a"
        with pytest.raises(CallFailed) as raised:
            next(results)
    assert raised.value.kind == "server"


def test_a_batch_that_is_refused_says_why(claude):
    with pytest.raises(CallFailed, match="not unique") as raised:
        claude.submit([("a", request()), ("a", request())])
    assert raised.value.kind == "rejected"
