"""`manage.py fakeclaude` is a process of its own that ends when told to."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import anthropic
import pytest
from django.core.management import CommandError, call_command

ROOT = Path(__file__).parent.parent.parent
REPLAY = str(ROOT / "tests/data/stance_gpt4o.csv")


@pytest.fixture
def run():
    """Start the command; return the process and its first line."""
    started = []

    def start(*arguments):
        command = [sys.executable, "manage.py", "fakeclaude", *arguments]
        env = {**os.environ, "DJANGO_SETTINGS_MODULE": "labelhub.settings"}
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True)
        started.append(process)
        return process, process.stdout.readline()

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


class TestProcess:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_it_answers_until_a_signal(self, run, request_of, number):
        process, line = run("--replay", REPLAY, "--json")
        with anthropic.Anthropic(
            api_key="fake-key", base_url=json.loads(line)["url"], max_retries=0
        ) as client:
            message = client.messages.create(**request_of(["Global warming is a hoax."]))
            assert json.loads(message.content[0].text)["labels"][0]["label"] == "disagrees"
            process.send_signal(number)
            assert process.wait(10) == 0

    def test_it_says_how_to_use_it(self, run):
        _, line = run("--replay", REPLAY, "--fault", "drop:0.1", "--fault", "key", "--rate", "100")
        assert (
            "ANTHROPIC_BASE_URL=http://127.0.0.1:" in line and "ANTHROPIC_API_KEY=fake-key make run" in line
        )
        assert "answers for 2,046 texts" in line


class TestArguments:
    @pytest.mark.parametrize(
        "arguments, sentence",
        [
            (["--replay", REPLAY, "--predicted", "nothing"], "nothing"),
            (["--replay", "/does/not/exist.csv"], "exist"),
            (["--fault", "earthquake"], "There is no fault “earthquake”"),
            (["--fault", "drop:many"], "share of “drop”"),
            (["--faults", "2"], "from 0 to 1"),
            (["--voter", "claude-haiku-5-5"], "MODEL=COL"),
            (["--voter", "claude-9=label"], "There is no model “claude-9”"),
            (["--port", "70000"], "port"),
        ],
    )
    def test_what_cannot_be_is_refused_in_one_sentence(self, arguments, sentence):
        with pytest.raises(CommandError, match=".") as caught:
            call_command("fakeclaude", *arguments)
        assert sentence in str(caught.value)

    def test_a_taken_port_is_refused(self, served):
        port = served().url.rpartition(":")[2]
        with pytest.raises(CommandError, match=f"Port {port} cannot be used"):
            call_command("fakeclaude", "--port", port)
