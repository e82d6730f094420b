"""A proxy that stands before a real HTTP server and does to its answers what networks and servers in trouble do."""

from __future__ import annotations

import contextlib
import http.client
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HOP = {"connection", "keep-alive", "transfer-encoding"}
STATUSES = ("500", "502", "503", "504", "429")
KINDS = (*STATUSES, "reset", "cut", "short", "silent", "refused")
"""Faults: a status instead of the answer; the connection reset, or closed, in the middle of a body; a body cut with a
length to match; no answer until the client gives up; the connection closed before an answer.
Any other status may be asked for too."""


class Faults:
    """What is to go wrong: a share of the GET and HEAD requests, chosen by a hash of what is asked and how often.

    So the order in which requests come does not matter. Unless all are to fail, one that failed twice running is
    answered.
    """

    def __init__(self, upstream: tuple[str, int], seed: int = 0) -> None:
        self.upstream = upstream
        self.share = 0.0
        self.kinds: tuple[str, ...] = KINDS
        self.silence_seconds = 3.0
        self.done: Counter[str] = Counter()
        self.requests: list[tuple[str, str, str]] = []
        self._seed = seed
        self._asked: Counter[tuple[str, str, str]] = Counter()
        self._running: Counter[tuple[str, str, str]] = Counter()
        self._lock = threading.Lock()

    def choose(self, method: str, path: str, wanted_range: str) -> str:
        """The fault of a request, "" for none."""
        request = (method, path, wanted_range)
        with self._lock:
            self.requests.append(request)
            self._asked[request] += 1
            chance = random.Random(f"{self._seed} {self._asked[request]} {request}")
            # A shortened answer shows only where the client knows how long it should be: not in a listing.
            kinds = [kind for kind in self.kinds if kind != "short" or wanted_range]
            spared = self._running[request] == 2 and self.share < 1
            if method not in ("GET", "HEAD") or not kinds or spared or chance.random() >= self.share:
                self._running[request] = 0
                return ""
            kind = chance.choice(kinds)
            self._running[request] += 1
            self.done[kind] += 1
            return kind


class _Proxy(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def handle_one_request(self) -> None:
        with contextlib.suppress(ConnectionError, TimeoutError):
            super().handle_one_request()
            return
        self.close_connection = True

    def _pass_on(self) -> None:
        faults = self.server.faults
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        kind = faults.choose(self.command, self.path, self.headers.get("Range", ""))
        if kind.isdigit():
            self.send_response(int(kind))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if kind == "silent":
            time.sleep(faults.silence_seconds)
        if kind in ("silent", "refused"):
            self.close_connection = True
            return
        upstream = http.client.HTTPConnection(*faults.upstream)
        upstream.request(self.command, self.path, body, dict(self.headers))
        answer = upstream.getresponse()
        data = answer.read()
        upstream.close()
        sent = data if kind not in ("reset", "cut", "short") or len(data) < 2 else data[: len(data) // 2]
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in (*HOP, "content-length"):
                self.send_header(name, value)
        length = answer.getheader("Content-Length") if self.command == "HEAD" else None
        self.send_header("Content-Length", length or str(len(sent if kind == "short" else data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(sent)
        if kind in ("reset", "cut"):
            self.close_connection = True
            if kind == "reset":
                self.wfile.flush()
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass_on

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the test prints what it needs."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    faults: Faults

    def handle_error(self, request: object, client_address: object) -> None:
        """Nothing: connections are broken on purpose."""


@contextlib.contextmanager
def faulty(upstream: tuple[str, int], seed: int = 0) -> Iterator[tuple[str, Faults]]:
    """(URL of the proxy, its faults), while it stands before a server; nothing goes wrong until `share` is set."""
    server = _Server(("127.0.0.1", 0), _Proxy)
    server.faults = Faults(upstream, seed)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", server.faults
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
