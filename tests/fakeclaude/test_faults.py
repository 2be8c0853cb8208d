"""Every fault reaches the SDK as the real one would, and the same seed brings the same ones."""

import json
import time
from urllib.request import Request, urlopen

import anthropic
import pytest

from labelhub.autolabel.labelers.reply import read
from labelhub.fakeclaude.faults import CONTENT, KINDS, Behavior
from labelhub.fakeclaude.replay import Replay

TEXTS = ["a", "b", "c", "d"]
LABELS = ("agrees", "disagrees", "neutral")
REPLAY = Replay(TEXTS, {"": [["agrees", "disagrees", "neutral", "agrees"]]})


class TestErrors:
    @pytest.mark.parametrize(
        "kind, error, status, sort",
        [
            ("rate_limit", anthropic.RateLimitError, 429, "rate_limit_error"),
            ("overloaded", anthropic.InternalServerError, 529, "overloaded_error"),
            ("server", anthropic.InternalServerError, 500, "api_error"),
            ("spend_limit", anthropic.RateLimitError, 429, "rate_limit_error"),
            ("credit", anthropic.BadRequestError, 400, "invalid_request_error"),
            ("key", anthropic.AuthenticationError, 401, "authentication_error"),
            ("forbidden", anthropic.PermissionDeniedError, 403, "permission_error"),
        ],
    )
    def test_it_has_the_status_and_the_shape_of_the_api(
        self, served, client, request_of, kind, error, status, sort
    ):
        server = served(REPLAY, fault={kind: 1.0})
        with pytest.raises(error) as caught:
            client(server).messages.create(**request_of(TEXTS))
        body = caught.value.body
        assert (caught.value.status_code, body["type"], body["error"]["type"]) == (status, "error", sort)
        assert body["request_id"] == caught.value.request_id is not None
        assert server.stats()["faults"] == {kind: 1}
        assert server.stats()["usage"] == {}

    def test_a_rate_limit_says_how_long_to_wait(self, served, client, request_of):
        with pytest.raises(anthropic.RateLimitError) as caught:
            client(served(REPLAY, fault={"rate_limit": 1})).messages.create(**request_of(TEXTS))
        assert caught.value.response.headers["retry-after"] == "1"

    def test_a_spend_limit_has_a_code_and_no_time(self, served, client, request_of):
        with pytest.raises(anthropic.RateLimitError) as caught:
            client(served(REPLAY, fault={"spend_limit": 1})).messages.create(**request_of(TEXTS))
        assert caught.value.error_code == "enforced_spend_limit_reached"
        assert "retry-after" not in caught.value.response.headers

    def test_the_credit_is_too_low_in_the_words_of_the_api(self, served, client, request_of):
        with pytest.raises(anthropic.BadRequestError, match="credit balance is too low to access"):
            client(served(REPLAY, fault={"credit": 1})).messages.create(**request_of(TEXTS))

    def test_who_has_no_money_may_still_ask_for_the_models(self, served, client):
        assert client(served(fault={"spend_limit": 1, "credit": 1, "server": 1})).models.list().data

    def test_who_has_no_key_may_not(self, served, client):
        with pytest.raises(anthropic.AuthenticationError):
            client(served(fault={"key": 1})).models.list()

    def test_faults_can_be_everywhere(self, served, client):
        with pytest.raises(anthropic.InternalServerError):
            client(served(fault={"server": 1}, everywhere=True)).models.list()


class TestConnections:
    def test_a_timeout_holds_the_request(self, served, client, request_of):
        server = served(REPLAY, fault={"timeout": 1}, timeout_seconds=30)
        started = time.monotonic()
        with pytest.raises(anthropic.APITimeoutError):
            client(server, timeout=0.3).messages.create(**request_of(TEXTS))
        assert time.monotonic() - started < 5

    def test_and_then_drops_it_after_it_was_billed(self, served, client, request_of):
        server = served(REPLAY, fault={"timeout": 1}, timeout_seconds=0.2)
        with pytest.raises(anthropic.APIConnectionError):
            client(server).messages.create(**request_of(TEXTS))
        assert server.stats()["lost"]["calls"] == 1
        assert server.stats()["texts"] == {}

    def test_a_connection_breaks_before_and_within_an_answer(self, served, client, request_of):
        server = served(REPLAY, fault={"drop": 1})
        one = client(server)
        for _ in range(20):
            with pytest.raises(anthropic.APIConnectionError):
                one.messages.create(**request_of(TEXTS))
        stats = server.stats()
        assert stats["calls"] == {"/v1/messages": {"0": 20}}
        assert 4 <= stats["lost"]["calls"] <= 16  # what broke in mid-body was made, and costs money
        assert stats["texts"] == {}

    def test_stopping_ends_what_is_held(self, served, client, request_of):
        server = served(REPLAY, delay_ms=60_000)
        with pytest.raises(anthropic.APITimeoutError):
            client(server, timeout=0.2).messages.create(**request_of(TEXTS))
        started = time.monotonic()
        server.stop()
        assert time.monotonic() - started < 3


class TestContent:
    def readings(self, served, client, request_of, kind, texts=TEXTS, times=1):
        server = served(REPLAY, fault={kind: 1.0})
        one = client(server)
        found = []
        for _ in range(times):
            message = one.messages.create(**request_of(texts))
            text = "".join(block.text for block in message.content)
            found.append(read(message.stop_reason, text, len(texts), LABELS))
        return found, server.stats()

    @pytest.mark.parametrize(
        "kind, whole", [("refusal", "refused"), ("truncation", "truncated"), ("malformed", "malformed")]
    )
    def test_nothing_of_it_can_be_used_and_it_costs_all_the_same(
        self, served, client, request_of, kind, whole
    ):
        found, stats = self.readings(served, client, request_of, kind, times=12)
        assert {reading.whole for reading in found} == {whole}
        assert stats["texts"] in ({}, {"claude-haiku-5-5 1": {}})
        assert stats["usage"]["claude-haiku-5-5"]["standard"]["calls"] == 12

    def test_a_refusal_says_so(self, served, client, request_of):
        message = client(served(REPLAY, fault={"refusal": 1})).messages.create(**request_of(TEXTS))
        assert (message.stop_reason, message.content, message.stop_details.type) == (
            "refusal",
            [],
            "refusal",
        )

    def test_ids_are_missing_repeated_and_unknown(self, served, client, request_of):
        (reading,), stats = self.readings(served, client, request_of, "wrong_ids")
        assert sorted(reading.said) == [2, 3]
        assert (reading.missing, reading.unknown, reading.repeated) == ((1, 4), 1, 1)
        assert stats["answers"]["claude-haiku-5-5 1"]["texts"] == 2

    def test_a_label_that_nobody_offered(self, served, client, request_of):
        (reading,), _ = self.readings(served, client, request_of, "off_schema")
        assert reading.problems == {1: "label_not_in_schema"} and sorted(reading.said) == [2, 3, 4]

    def test_confidences_that_are_none(self, served, client, request_of):
        (reading,), _ = self.readings(served, client, request_of, "bad_confidence")
        assert reading.missing == (1, 2) and sorted(reading.said) == [3, 4]

    def test_prose_around_an_answer_leaves_it_whole(self, served, client, request_of):
        (reading,), stats = self.readings(served, client, request_of, "prose")
        assert sorted(reading.said) == [1, 2, 3, 4] and reading.whole is None
        assert stats["answers"]["claude-haiku-5-5 1"]["texts"] == 4

    @pytest.mark.parametrize("kind", CONTENT)
    @pytest.mark.parametrize("texts", [["a"], ["a", "b"], ["never seen"]], ids=["one", "two", "unknown"])
    def test_few_texts_go_wrong_as_well(self, served, client, request_of, kind, texts):
        (reading,), _ = self.readings(served, client, request_of, kind, texts)
        assert kind == "prose" or texts == ["never seen"] or len(reading.said) < len(texts)


class TestChoice:
    def test_a_seed_decides(self):
        def chosen(seed):
            return [Behavior(faults=0.3, seed=seed).passing(n)[0] for n in range(1, 200)]

        assert chosen(1) == chosen(1) != chosen(2)

    def test_shares_are_kept(self):
        behavior = Behavior(fault={"drop": 0.1, "prose": 0.2})
        kinds = [behavior.passing(n)[0] for n in range(5_000)]
        assert abs(kinds.count("drop") / 5_000 - 0.1) < 0.02
        assert abs(kinds.count("prose") / 5_000 - 0.2) < 0.02
        assert kinds.count(None) + kinds.count("drop") + kinds.count("prose") == 5_000

    def test_a_mix_has_every_passing_kind_and_waits_only_for_short_timeouts(self):
        patient, short = Behavior(faults=1.0), Behavior(faults=1.0, timeout_seconds=1)
        assert {patient.passing(n)[0] for n in range(2_000)} == set(KINDS[:12]) - {"timeout"}
        assert {short.passing(n)[0] for n in range(2_000)} == set(KINDS[:12])

    @pytest.mark.parametrize(
        "options",
        [
            {"faults": 1.1},
            {"fault": {"earthquake": 1.0}},
            {"fault": {"drop": -0.1}},
            {"faults": 0.6, "fault": {"drop": 0.6}},
            {"delay_ms": -1},
            {"rate": 0},
            {"color": "red"},
            {"fault": 3},
        ],
        ids=str,
    )
    def test_what_cannot_be_is_refused(self, options):
        with pytest.raises(ValueError, match=r"."):
            Behavior().changed(**options)

    def test_a_rate_lets_through_what_it_says(self, served, client, request_of):
        one = client(served(REPLAY, rate=10))
        outcomes = []
        for _ in range(4):
            try:
                one.messages.create(**request_of(TEXTS))
                outcomes.append(200)
            except anthropic.RateLimitError as error:
                outcomes.append(error.status_code)
                assert 1 <= int(error.response.headers["retry-after"]) <= 6
        assert outcomes[0] == 200 and 429 in outcomes[1:]

    def test_a_delay_delays(self, served, client, request_of):
        one = client(served(REPLAY, delay_ms=200))
        started = time.monotonic()
        one.messages.create(**request_of(TEXTS))
        assert time.monotonic() - started >= 0.2


class TestWhileRunning:
    def post(self, server, path, body):
        request = Request(server.url + path, json.dumps(body).encode(), method="POST")
        with urlopen(request, timeout=5) as answer:
            return json.load(answer)

    def test_faults_come_and_go(self, served, client, request_of):
        server = served(REPLAY)
        one = client(server)
        assert self.post(server, "/fake/faults", {"fault": {"server": 1}})["fault"] == {"server": 1}
        with pytest.raises(anthropic.InternalServerError):
            one.messages.create(**request_of(TEXTS))
        self.post(server, "/fake/faults", {"fault": {}})
        assert one.messages.create(**request_of(TEXTS)).stop_reason == "end_turn"

    def test_the_counts_can_be_asked_for_and_reset(self, served, client, request_of):
        server = served(REPLAY)
        client(server).messages.create(**request_of(TEXTS))
        with urlopen(server.url + "/fake/stats?texts=0", timeout=5) as answer:
            assert answer.headers["x-labelhub-fake"] == "1"
            stats = json.load(answer)
        assert stats["calls"] == {"/v1/messages": {"200": 1}} and "texts" not in stats
        self.post(server, "/fake/reset", {})
        assert server.stats()["calls"] == {}
