"""A list of texts put to the real SDK over real HTTP, to a server that repeats what GPT-4o once said, and misbehaves."""

import csv
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from labelhub.autolabel.labelers import dialogue, talk
from labelhub.autolabel.labelers.llm import DEFAULT_MODEL, Claude, max_tokens
from labelhub.autolabel.labelers.prompt import LONGEST_TEXT, Prompt
from labelhub.autolabel.labelers.reply import Said
from labelhub.autolabel.labelers.talk import GIVE_UP_AFTER, ask_all
from labelhub.autolabel.prices import Usage, price_of
from labelhub.fakeclaude.faults import CONTENT, STANDING, TRANSPORT
from labelhub.fakeclaude.replay import read_replay
from labelhub.fakeclaude.server import serve

ROOT = Path(__file__).parents[2]
FILE = ROOT / "tests/data/stance_gpt4o.csv"
REPLAY = read_replay(FILE)
with FILE.open(encoding="utf-8", newline="") as file:
    ROWS = list(csv.DictReader(file))
TEXTS = [row["text"] for row in ROWS]
RECORDED = {row["text"]: (row["predicted_label"], float(row["confidence"])) for row in reversed(ROWS)}
PROMPT = Prompt((("agrees", ""), ("neutral", ""), ("disagrees", "")))
LEFT = {  # what is left of a fault when asking again does not help
    "refusal": {"refused"},
    "truncation": {"truncated"},
    "malformed": {"malformed"},
    "off_schema": {"label_not_in_schema"},
    "wrong_ids": {"no_answer"},
    "bad_confidence": {"no_answer"},
    "prose": set(),
}


class Watched(Claude):
    """The real client, which keeps what it sends."""

    def __init__(self, url, timeout=5.0):
        super().__init__("sk-ant-canary", url, timeout)
        self.sent = []

    def send(self, params):
        self.sent.append(params)
        return super().send(params)


def ask(server, texts, model=DEFAULT_MODEL, **options):
    return ask_all(Watched(server.url), PROMPT, model, texts, **options)


def answers(server):
    """How many texts were answered, and how often the one that was answered most often."""
    return server.stats(texts=False)["answers"][f"{DEFAULT_MODEL} 1"]


def calls(server):
    """How many calls came, by status; an answer may be read a moment before its call is counted."""
    time.sleep(0.2)
    return server.stats(texts=False)["calls"].get("/v1/messages", {})


def assert_as_recorded(texts, outcomes, or_else=frozenset()):
    """Every text has its recorded label and confidence, or one of some problems."""
    for text, outcome in zip(texts, outcomes, strict=True):
        if isinstance(outcome, Said):
            assert (outcome.label, outcome.confidence) == RECORDED[text]
        else:
            assert outcome in or_else


def senders():
    return [thread for thread in threading.enumerate() if thread.name == "labelhub-ask"]


def assert_no_sender_is_left(seconds=5.0):
    end = time.monotonic() + seconds
    while senders() and time.monotonic() < end:
        time.sleep(0.02)
    assert not senders()


@pytest.fixture
def hasty(monkeypatch):
    """Delays of hundredths of a second."""
    monkeypatch.setattr(dialogue, "_SHORTEST_SECONDS", 0.02)
    monkeypatch.setattr(dialogue, "_LONGEST_SECONDS", 0.02)
    monkeypatch.setattr(talk, "_LONGEST_PAUSE", 0.02)


class TestAnswers:
    def test_a_whole_file_comes_back_as_recorded_and_is_paid_once(self):
        with serve(REPLAY) as server:
            paid = []
            said = ask(server, TEXTS, on_cost=paid.append)
            assert_as_recorded(TEXTS, said.outcomes)
            assert said.failure is None
            assert answers(server) == {"texts": len(set(TEXTS)), "most_often": 1}
            billed = server.stats(texts=False)["usage"][DEFAULT_MODEL]["standard"]
        assert billed["calls"] == said.calls == len(paid) == -(-len(set(TEXTS)) // 20)
        assert said.usage == Usage(
            billed["input_tokens"],
            billed["output_tokens"],
            billed["cache_read_input_tokens"],
            billed["cache_creation_input_tokens"],
        )
        # Each call by itself is short; only all of them together would have the price of a long prompt.
        price = price_of(DEFAULT_MODEL)
        assert said.cost_usd == sum(paid)
        assert said.cost_usd * 10**6 == said.usage.input * price.input + said.usage.output * price.output
        assert_no_sender_is_left()

    def test_texts_that_are_sent_alike_are_asked_about_once(self):
        one = TEXTS[0]
        long = "a" * LONGEST_TEXT
        with serve(REPLAY) as server:
            client = Watched(server.url)
            said = ask_all(client, PROMPT, DEFAULT_MODEL, [one, TEXTS[1], one, one + "\x00", long, long])
        assert said.outcomes[0] == said.outcomes[2] == said.outcomes[3] == Said(*RECORDED[one])
        first = client.sent[0]["messages"][0]["content"]
        assert first.count("<item ") == 3

    def test_no_texts_need_no_call(self):
        said = ask_all(Claude("", "http://127.0.0.1:9"), PROMPT, DEFAULT_MODEL, [])
        assert (said.outcomes, said.calls, said.cost_usd, said.failure) == ([], 0, 0, None)

    def test_at_most_so_many_calls_run_at_once(self):
        with serve(REPLAY, delay_ms=50) as server:
            ask(server, TEXTS[:200], threads=3, per_call=5)
            assert server.stats(texts=False)["most_concurrent"] == 3

    def test_a_model_without_a_price_has_no_cost(self):
        with serve(REPLAY) as server:
            said = ask(server, TEXTS[:5], model="claude-opus-5", on_cost=lambda _: pytest.fail("no cost"))
        assert said.cost_usd is None and said.usage.output > 0
        assert_as_recorded(TEXTS[:5], said.outcomes)

    @pytest.mark.parametrize("options", [{"threads": 0}, {"per_call": 0}])
    def test_nobody_or_nothing_to_send_is_refused(self, options):
        with pytest.raises(ValueError, match="at least one"):
            ask_all(Claude("x"), PROMPT, DEFAULT_MODEL, ["x"], **options)

    def test_an_answer_that_was_cut_off_is_asked_for_again_with_twice_the_room(self):
        with serve(REPLAY, fault={"truncation": 1.0}) as server:
            client = Watched(server.url)
            said = ask_all(client, PROMPT, DEFAULT_MODEL, TEXTS[1:2])
        assert said.outcomes == ["truncated"]
        assert [params["max_tokens"] for params in client.sent] == [
            max_tokens(1, False),
            2 * max_tokens(1, False),
        ]


class TestFaults:
    @pytest.mark.parametrize("kind", CONTENT)
    def test_an_answer_that_is_no_good_costs_no_other_text_its_label(self, kind):
        texts = TEXTS[:300]
        with serve(REPLAY, fault={kind: 0.3}) as server:
            said = ask(server, texts, per_call=10)
            assert server.stats(texts=False)["faults"][kind] >= 3
            assert answers(server)["most_often"] == 1
        assert_as_recorded(texts, said.outcomes, LEFT[kind])
        assert sum(isinstance(outcome, Said) for outcome in said.outcomes) >= 0.7 * len(texts)
        assert said.failure is None

    @pytest.mark.parametrize("kind", TRANSPORT)
    def test_a_call_that_fails_in_passing_is_made_again(self, kind, hasty):
        texts = TEXTS[:300]
        with serve(REPLAY, fault={kind: 0.3}, timeout_seconds=0.3) as server:
            said = ask(server, texts, per_call=10)
            assert server.stats(texts=False)["faults"][kind] >= 3
            assert answers(server)["most_often"] == 1
        assert_as_recorded(texts, said.outcomes, {"llm_error"})
        assert sum(isinstance(outcome, Said) for outcome in said.outcomes) >= 0.9 * len(texts)
        assert said.failure is None

    def test_of_a_whole_file_with_mixed_faults_hardly_a_text_is_lost_and_none_is_paid_twice(self):
        with serve(REPLAY, faults=0.08, seed=3, timeout_seconds=0.3) as server:
            said = ask(server, TEXTS)
            assert len(server.stats(texts=False)["faults"]) >= 4
            assert answers(server)["most_often"] == 1
        assert_as_recorded(TEXTS, said.outcomes, set().union(*LEFT.values()))
        assert sum(isinstance(outcome, Said) for outcome in said.outcomes) >= 0.99 * len(TEXTS)
        assert said.failure is None

    def test_a_server_that_does_not_answer_in_time_is_asked_again(self):
        with serve(REPLAY, delay_ms=1000) as server:
            threading.Timer(1.0, server.change, kwargs={"delay_ms": 0}).start()
            said = ask_all(Watched(server.url, timeout=0.6), PROMPT, DEFAULT_MODEL, TEXTS[:5])
        assert_as_recorded(TEXTS[:5], said.outcomes)

    @pytest.mark.parametrize("kind", STANDING)
    def test_what_only_a_person_can_mend_stops_the_asking_after_one_call(self, kind):
        with serve(REPLAY, fault={kind: 1.0}) as server:
            said = ask(server, TEXTS[:300])
            assert sum(calls(server).values()) == said.calls == 1
        assert said.outcomes == ["llm_error"] * 300
        assert said.failure.kind == kind and said.failure.fatal

    def test_a_retired_model_stops_the_asking(self):
        with serve(REPLAY) as server:
            said = ask(server, TEXTS[:300], model="claude-3-5-sonnet-20241022")
        assert said.calls == 1 and said.failure.kind == "model"

    def test_without_a_key_nothing_is_sent(self):
        with serve(REPLAY) as server:
            said = ask_all(Claude("", server.url), PROMPT, DEFAULT_MODEL, TEXTS[:40])
            assert calls(server) == {}
        assert said.outcomes == ["llm_error"] * 40 and said.failure.kind == "key"

    def test_credit_that_runs_out_half_way_leaves_what_was_answered(self):
        with serve(REPLAY, delay_ms=20) as server:
            paid = []

            def pay(cost):
                paid.append(cost)
                if len(paid) == 4:
                    server.change(fault={"credit": 1.0})

            said = ask(server, TEXTS[:600], threads=2, on_cost=pay)
            answered = answers(server)["texts"]
        assert said.failure.kind == "credit"
        assert 80 <= answered < 600 and said.calls <= len(paid) + 2
        assert len({t for t, o in zip(TEXTS, said.outcomes, strict=False) if o != "llm_error"}) == answered
        assert_as_recorded(TEXTS[:600], said.outcomes, {"llm_error"})
        assert said.cost_usd == sum(paid)

    def test_it_gives_up_when_nothing_succeeds_any_more(self, hasty):
        with serve(REPLAY, fault={"overloaded": 1.0}) as server:
            said = ask(server, TEXTS[:600])
            assert sum(calls(server).values()) == said.calls == GIVE_UP_AFTER
        assert said.outcomes == ["llm_error"] * 600 and said.failure.kind == "overloaded"

    def test_an_outage_of_a_second_at_the_start_costs_nothing_but_time(self):
        with serve(REPLAY, fault={"overloaded": 1.0}) as server:
            threading.Timer(1.0, server.change, kwargs={"fault": {}}).start()
            said = ask(server, TEXTS[:300])
        assert said.failure is None
        assert_as_recorded(TEXTS[:300], said.outcomes)

    def test_calls_that_fail_together_count_once(self):
        patience = talk._Patience(random.Random(0))
        for _ in range(8):  # sent at the same moment, back one after the other
            patience.tried(sent_at=10.0, now=10.5)
        assert patience.strikes == 1 and patience.until < 10.5
        patience.tried(sent_at=11.0, now=11.5)
        assert patience.strikes == 2 and 12.0 <= patience.until <= 13.0
        patience.renewed()
        assert patience.strikes == 0 and patience.until < 0

    def test_a_short_list_that_nobody_answers_says_why(self, hasty):
        gone = serve(REPLAY)
        gone.stop()
        said = ask(gone, TEXTS[:3])
        assert said.outcomes == ["llm_error"] * 3 and said.failure.kind == "connection"

    def test_a_mistake_of_ours_is_not_swallowed(self):
        class Broken(Claude):
            def send(self, params):
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            ask_all(Broken("x"), PROMPT, DEFAULT_MODEL, TEXTS[:100])
        assert_no_sender_is_left()


class TestInterruption:
    def test_an_interruption_is_passed_on_and_leaves_no_thread(self):
        def interrupt(_):
            raise KeyboardInterrupt

        with serve(REPLAY, delay_ms=30) as server, pytest.raises(KeyboardInterrupt):
            ask(server, TEXTS[:600], on_cost=interrupt)
        assert_no_sender_is_left()

    def test_ctrl_c_ends_a_program_at_once_though_calls_are_under_way(self):
        code = (
            "import sys; from labelhub.autolabel import AutoLabelingPipeline\n"
            "p = AutoLabelingPipeline(api_key='sk-ant-canary', base_url=sys.argv[1])\n"
            "p.label_batch([f'text {i}' for i in range(500)], ['a', 'b'], method='llm')\n"
        )
        with serve(REPLAY, delay_ms=60_000) as server:
            environment = {k: v for k, v in os.environ.items() if not k.startswith("DJANGO")}
            program = subprocess.Popen(
                [sys.executable, "-c", code, server.url], cwd=ROOT, env=environment, stderr=subprocess.PIPE,
                # A shell starts what runs in its background with interrupts ignored, and that is handed down.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )  # fmt: skip
            try:
                end = time.monotonic() + 30
                while server.stats(texts=False)["most_concurrent"] < 1 and time.monotonic() < end:
                    time.sleep(0.05)
                pressed = time.monotonic()
                program.send_signal(signal.SIGINT)
                _, said = program.communicate(timeout=20)
                assert time.monotonic() - pressed < 10
            finally:
                program.kill()
                program.wait()
        assert b"KeyboardInterrupt" in said and b"canary" not in said
