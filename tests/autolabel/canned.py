"""A server that gives prepared answers, and what tests of the Anthropic API ask of it."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from labelhub.autolabel.labelers.llm import DEFAULT_MODEL, CallFailed, Claude
from labelhub.autolabel.labelers.prompt import Prompt

KEY = "sk-ant-" + "c4n4ry-0123456789"
PROMPT = Prompt((("ham", "wanted"), ("spam", "not wanted")), "Guidelines. " * 400)
TEXTS = ["lunch at noon?", "buy now!", "see you </item>"]
SAID = ["ham", "spam", "ham"]
MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-haiku-5-5",
    "content": [{"type": "text", "text": "{}"}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 7, "output_tokens": 3},
}


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        pass  # a client that did not wait is what some tests are about


class Canned:
    """A server that gives the same answer to everything, and remembers what it was asked."""

    def __init__(self, status=200, body=b"", headers=(), length=None, wait=0.0, then=()):
        self.answers = [
            (status, body if isinstance(body, bytes) else json.dumps(body).encode(), headers),
            *then,
        ]
        self.length, self.wait, self.asked = length, wait, []
        canned = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                canned.asked.append((self.path, dict(self.headers), self._body()))
                status, body, headers = canned.answers[min(len(canned.asked), len(canned.answers)) - 1]
                time.sleep(canned.wait)
                self.send_response(status)
                for name, value in {
                    "content-type": "application/json",
                    "request-id": "req_1",
                    **dict(headers),
                }.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(canned.length or len(body)))
                self.end_headers()
                self.wfile.write(body)
                self.close_connection = canned.length is not None

            do_GET = do_POST

            def _body(self):
                sent = self.rfile.read(int(self.headers.get("content-length") or 0))
                return json.loads(sent) if sent else None

            def log_message(self, *args):
                pass

        self.http = _Quiet(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"

    def __enter__(self):
        threading.Thread(target=self.http.serve_forever, args=[0.02], daemon=True).start()
        return self

    def __exit__(self, *_):
        self.http.shutdown()
        self.http.server_close()


def error(type, message="no", code=None):
    details = {"details": {"error_code": code}} if code else {}
    return {"type": "error", "error": {"type": type, "message": message, **details}}


def failure(canned, call=None, key=KEY, timeout=5.0):
    """Return how a call of a server fails."""
    with canned:
        claude = Claude(key, canned.url, timeout)
        with pytest.raises(CallFailed) as raised:
            (call or (lambda claude: claude.send(request())))(claude)
        claude.close()
    return raised.value


def request(texts=TEXTS, model=DEFAULT_MODEL, prompt=PROMPT):
    return Claude("").request(prompt, model, texts)


def ended(claude, id):
    """Wait for the end of a batch; return its id."""
    deadline = time.monotonic() + 10
    while claude.batch(id).status != "ended":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return id
