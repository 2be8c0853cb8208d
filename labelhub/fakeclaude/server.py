"""HTTP around the recorded answers: ``serve(replay)`` runs in a thread of its own, on this machine only."""

from __future__ import annotations

import contextlib
import logging
import math
import secrets
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast
from urllib.parse import SplitResult, parse_qs, urlsplit

import orjson

from labelhub.fakeclaude.api import Api, Reply
from labelhub.fakeclaude.check import ERROR_TYPES, Refused
from labelhub.fakeclaude.faults import Behavior
from labelhub.fakeclaude.replay import Replay, read_replay

log = logging.getLogger("labelhub.fakeclaude")
HOST = "127.0.0.1"
LARGEST_BODY = 256 * 2**20  # bytes, as the API takes for batches


class Server:
    """A running server.

    Attributes:
        url: its address, such as ``http://127.0.0.1:40123``: the ``base_url`` of the SDK.
    """

    def __init__(self, replay: Replay, port: int, behavior: Behavior) -> None:
        self._http = _Http((HOST, port), _Handler)
        self.url = f"http://{HOST}:{self._http.server_address[1]}"
        self.api = self._http.api = Api(replay, behavior, self.url)
        self._thread = threading.Thread(target=self._http.serve_forever, args=[0.05], daemon=True)
        self._thread.start()

    def stats(self, texts: bool = True) -> dict[str, Any]:
        """Return what has been asked and answered; see ``counts.Counts.report``."""
        return cast("dict[str, Any]", orjson.loads(orjson.dumps(self.api.counts.report(texts))))

    def change(self, **changes: Any) -> None:
        """Change the behavior while running; see ``faults.Behavior``. Raises: ValueError."""
        self.api.behavior = self.api.behavior.changed(**changes)

    def reset(self) -> None:
        """Forget counts, batches and the prompt cache; the behavior stays."""
        self.api.reset()

    def stop(self) -> None:
        """Close all connections and stop; twice is fine."""
        self.api.closing.set()
        self._http.shutdown()
        self._http.close_connections()
        self._http.server_close()
        self._thread.join(5)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def serve(replay: Replay | Path | str | None = None, port: int = 0, **options: Any) -> Server:
    """Start a server and return it once it listens.

    Args:
        replay: the recorded answers, or a file of them with the usual columns; None for none.
        port: to listen on, on 127.0.0.1; 0 for a free one.
        options: the fields of ``faults.Behavior``.
    Raises: TableError on a file that cannot be read; ValueError on options; OSError when the port is taken.
    """
    if not isinstance(replay, Replay):
        replay = Replay() if replay is None else read_replay(Path(replay))
    return Server(replay, port, Behavior().changed(**options))


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256
    api: Api

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._open: set[socket.socket] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def close_connections(self) -> None:
        for one in list(self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("a connection ended early", exc_info=True)  # clients may go away whenever they like


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Http

    def do_GET(self) -> None:
        self._handle()

    def do_POST(self) -> None:
        self._handle()

    def do_DELETE(self) -> None:
        self._handle()

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Refuse what is no request, or has no such method, in the API's shape."""
        self.close_connection = True
        status = code if code in ERROR_TYPES else 400
        name = f"req_{secrets.token_hex(12)}"
        self._send(Reply(status, Refused(status, message or "Bad request").body(name)), name)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: thousands of calls would drown everything else."""

    def _handle(self) -> None:
        api = self.server.api
        request_id = f"req_{secrets.token_hex(12)}"
        address = urlsplit(self.path)
        billable = address.path.startswith("/v1/")
        if billable:
            api.counts.start()
        reply = self._reply(address, request_id)
        if billable:
            api.closing.wait(api.behavior.delay_ms / 1000 + reply.hold)
            # before the client can see anything, so that it finds itself in the counts
            api.counts.end(api.route(address.path), 0 if reply.drop else reply.status)
        self._send(reply, request_id)

    def _reply(self, address: SplitResult, request_id: str) -> Reply:
        """Return what to send, whatever goes wrong."""
        try:
            body = self._body()
            self._refuse_other_hosts()
            headers = {name.lower(): value for name, value in self.headers.items()}
            query = parse_qs(address.query)
            return self.server.api.answer(self.command, address.path, query, headers, body)
        except Refused as refused:
            return Reply(refused.status, refused.body(request_id), retry_after=refused.retry_after)
        except Exception:
            log.exception("the local Messages API failed")
            return Reply(500, Refused(500, "Internal server error").body(request_id))

    def _body(self) -> bytes:
        length = self.headers.get("content-length", "0")
        if "transfer-encoding" in self.headers or not length.isdecimal() or int(length) > LARGEST_BODY:
            self.close_connection = True
            raise Refused(
                413, "The request exceeds the maximum allowed number of bytes, or does not state it."
            )
        if self.headers.get("content-encoding", "identity") != "identity":
            self.close_connection = True
            raise Refused(400, "The local server reads bodies without content-encoding only.")
        return self.rfile.read(int(length))

    def _refuse_other_hosts(self) -> None:
        """Answer to our own names only: a page of another site could point its name to this machine."""
        name = self.headers.get("host", "").rpartition(":")[0] or self.headers.get("host", "")
        if name not in (HOST, "localhost"):
            raise Refused(403, "The local server answers on 127.0.0.1 only.")

    def _send(self, reply: Reply, request_id: str) -> None:
        """Send a reply, or as much of it as it is meant to."""
        if reply.drop == "before":
            self._drop()
            return
        pieces = reply.body if isinstance(reply.body, list) else [orjson.dumps(reply.body)]
        size = sum(map(len, pieces))
        head = [
            f"HTTP/1.1 {reply.status} {self.responses.get(reply.status, ('Overloaded', ''))[0]}",
            f"content-type: {reply.content_type}",
            f"content-length: {size}",
            f"request-id: {request_id}",
            "x-labelhub-fake: 1",
        ]
        if reply.retry_after is not None:
            head.append(f"retry-after: {max(1, math.ceil(reply.retry_after))}")
        if self.close_connection:
            head.append("connection: close")
        start = "\r\n".join([*head, "", ""]).encode("latin-1")
        if reply.drop:
            self.wfile.write(start + b"".join(pieces)[: size // 2])
            self._drop()
        elif len(pieces) == 1:
            self.wfile.write(start + pieces[0])  # one packet, where it fits
        else:
            self.wfile.write(start)
            for place in range(0, len(pieces), 500):
                self.wfile.write(b"".join(pieces[place : place + 500]))

    def _drop(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
