"""Batches are worked off in the background, and their results come in no order."""

import json
import time
from concurrent.futures import ThreadPoolExecutor

import anthropic
import pytest

from labelhub.fakeclaude.replay import Replay

TEXTS = [f"text {n}" for n in range(40)]
REPLAY = Replay(TEXTS, {"": [["agrees"] * 40]})


def ended(client, batch):
    """Wait for the end of a batch; return it."""
    for _ in range(500):
        batch = client.messages.batches.retrieve(batch.id)
        if batch.processing_status == "ended":
            return batch
        time.sleep(0.02)
    raise AssertionError("the batch has not ended")


@pytest.fixture
def submit(request_of):
    """Send one request per text."""

    def send(client, texts=TEXTS, **changes):
        requests = [
            {"custom_id": f"n-{n}", "params": request_of([text], **changes)} for n, text in enumerate(texts)
        ]
        return client.messages.batches.create(requests=requests)

    return send


class TestResults:
    def test_they_come_in_another_order_and_each_once(self, served, client, submit):
        one = client(served(REPLAY, batch_seconds=0.1))
        batch = submit(one)
        assert (batch.processing_status, batch.results_url) == ("in_progress", None)
        assert batch.request_counts.processing == 40
        assert (batch.expires_at - batch.created_at).total_seconds() == 24 * 3600
        batch = ended(one, batch)
        results = list(one.messages.batches.results(batch.id))
        names = [result.custom_id for result in results]
        assert sorted(names) == sorted(f"n-{n}" for n in range(40))
        assert names != [f"n-{n}" for n in range(40)]
        assert batch.request_counts.succeeded == 40 and batch.request_counts.processing == 0
        assert batch.ended_at is not None
        message = results[0].result.message
        assert json.loads(message.content[0].text)["labels"][0]["label"] == "agrees"
        assert message.usage.service_tier == "batch"

    def test_they_stay_the_same(self, served, client, submit):
        one = client(served(REPLAY, batch_seconds=0))
        batch = ended(one, submit(one))
        first, second = (
            [result.to_json() for result in one.messages.batches.results(batch.id)] for _ in range(2)
        )
        assert first == second

    def test_they_are_billed_once_as_a_batch(self, served, client, submit):
        server = served(REPLAY, batch_seconds=0)
        one = client(server)
        batch = ended(one, submit(one))
        for _ in range(2):
            list(one.messages.batches.results(batch.id))
        stats = server.stats()
        assert stats["usage"]["claude-haiku-5-5"].keys() == {"batch"}
        assert stats["usage"]["claude-haiku-5-5"]["batch"]["calls"] == 40
        assert stats["answers"]["claude-haiku-5-5 1"] == {"texts": 40, "most_often": 1}

    def test_there_are_none_before_the_end(self, served, client, submit):
        one = client(served(REPLAY, batch_seconds=30))
        batch = submit(one)
        with pytest.raises(anthropic.AnthropicError, match="in_progress"):
            one.messages.batches.results(batch.id)

    def test_a_request_that_is_wrong_fails_alone(self, served, client, request_of):
        one = client(served(REPLAY, batch_seconds=0))
        good, bad = request_of(["text 1"]), request_of(["text 2"], max_tokens=0)
        gone = request_of(["text 3"], model="claude-3-5-haiku-20241022")
        requests = [
            {"custom_id": name, "params": params}
            for name, params in [("good", good), ("bad", bad), ("gone", gone)]
        ]
        batch = ended(one, one.messages.batches.create(requests=requests))
        results = {r.custom_id: r.result for r in one.messages.batches.results(batch.id)}
        assert results["good"].type == "succeeded"
        assert results["bad"].error.error.type == "invalid_request_error"
        assert results["gone"].error.error.type == "not_found_error"
        assert (batch.request_counts.succeeded, batch.request_counts.errored) == (1, 2)


class TestTrouble:
    @pytest.mark.parametrize("kind, outcome", [("batch_expired", "expired"), ("batch_errored", "errored")])
    def test_a_share_of_the_requests_ends_badly(self, served, client, submit, kind, outcome):
        server = served(REPLAY, batch_seconds=0, fault={kind: 0.5})
        one = client(server)
        batch = ended(one, submit(one))
        kinds = [result.result.type for result in one.messages.batches.results(batch.id)]
        assert set(kinds) == {"succeeded", outcome} and 8 <= kinds.count(outcome) <= 32
        assert getattr(batch.request_counts, outcome) == kinds.count(outcome)
        assert server.stats()["answers"]["claude-haiku-5-5 1"]["texts"] == kinds.count("succeeded")

    def test_the_same_request_need_not_fail_twice(self, served, client, submit):
        one = client(served(REPLAY, batch_seconds=0, fault={"batch_expired": 0.5}))
        kinds = set()
        for _ in range(20):
            batch = ended(one, submit(one, TEXTS[:1]))
            kinds |= {result.result.type for result in one.messages.batches.results(batch.id)}
        assert kinds == {"succeeded", "expired"}

    def test_canceling_keeps_what_is_done(self, served, client, submit):
        server = served(REPLAY, batch_seconds=4)
        one = client(server)
        batch = submit(one)
        time.sleep(1)
        canceled = one.messages.batches.cancel(batch.id)
        assert canceled.processing_status == "canceling" and canceled.cancel_initiated_at is not None
        batch = ended(one, batch)
        counts = batch.request_counts
        assert counts.succeeded + counts.canceled == 40 and counts.succeeded > 0 < counts.canceled
        kinds = [result.result.type for result in one.messages.batches.results(batch.id)]
        assert kinds.count("canceled") == counts.canceled
        assert server.stats()["usage"]["claude-haiku-5-5"]["batch"]["calls"] == counts.succeeded
        with pytest.raises(anthropic.BadRequestError, match="already ended"):
            one.messages.batches.cancel(batch.id)

    def test_a_slow_one_takes_ten_times_as_long_and_does_nothing_before(self, served, client, submit):
        one = client(served(REPLAY, batch_seconds=0.1, fault={"slow_batch": 1}))
        started = time.monotonic()
        ended(one, submit(one))
        assert time.monotonic() - started >= 1

    def test_answers_go_wrong_in_batches_too(self, served, client, submit):
        one = client(served(REPLAY, batch_seconds=0, fault={"refusal": 0.5}))
        batch = ended(one, submit(one))
        reasons = [r.result.message.stop_reason for r in one.messages.batches.results(batch.id)]
        assert set(reasons) == {"refusal", "end_turn"}

    def test_a_batch_whose_id_was_lost_is_in_the_list(self, served, client, submit):
        server = served(REPLAY, batch_seconds=0)
        one = client(server)
        made = 0
        for seed in range(20):  # half of the dropped ones were never made
            server.change(fault={"drop": 1}, seed=seed)
            with pytest.raises(anthropic.APIConnectionError):
                submit(one)
            server.change(fault={})
            made = len(list(one.messages.batches.list()))
            if made and made < seed + 1:
                break
        assert 0 < made < 20


class TestLists:
    def test_pages_hold_all_newest_first(self, served, client, submit):
        one = client(served(REPLAY, batch_seconds=0))
        made = [submit(one, TEXTS[:1]).id for _ in range(5)]
        page = one.messages.batches.list(limit=2)
        assert [batch.id for batch in page.data] == made[:2:-1] and page.has_more
        assert [batch.id for batch in one.messages.batches.list(limit=2)] == made[::-1]
        before = one.messages.batches.list(limit=2, before_id=made[0])
        assert [batch.id for batch in before.data] == [made[2], made[1]]

    def test_a_batch_can_be_deleted_when_it_has_ended(self, served, client, submit):
        one = client(served(REPLAY, batch_seconds=0))
        batch = ended(one, submit(one))
        assert one.messages.batches.delete(batch.id).type == "message_batch_deleted"
        with pytest.raises(anthropic.NotFoundError):
            one.messages.batches.retrieve(batch.id)

    def test_several_at_once(self, served, client, submit):
        one = client(served(REPLAY, batch_seconds=0.2))
        with ThreadPoolExecutor(8) as pool:
            batches = list(pool.map(lambda _: submit(one), range(8)))
        assert [ended(one, batch).request_counts.succeeded for batch in batches] == [40] * 8
