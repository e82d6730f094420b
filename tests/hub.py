"""A server on loopback that answers what reading a data set of the Hugging Face Hub asks, with faults on request."""

from __future__ import annotations

import hashlib
import http.server
import json
import re
import threading
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, unquote

COMMIT = "0" * 39 + "1"


class Hub(http.server.ThreadingHTTPServer):
    """One data set, `files` by path; every `every`-th answer is a 503, every `every`-th part of a file is cut short."""

    daemon_threads = True

    def __init__(self, repository: str, files: Mapping[str, bytes], every: int = 0, token: str = "") -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repository, self.files, self.every, self.token = repository, files, every, token
        self.asked: list[str] = []
        self.parts = 0
        self.faults = {"busy": 0, "cut": 0}
        self.lock = threading.Lock()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def entries(self, folder: str, recursive: bool) -> list[dict[str, Any]]:
        """What lies in a folder, as the Hub's tree has it."""
        prefix, found = f"{folder}/" if folder else "", dict[str, dict[str, Any]]()
        for path, data in self.files.items():
            if not path.startswith(prefix):
                continue
            steps = path[len(prefix) :].split("/")
            for depth in range(1, len(steps)):
                name = prefix + "/".join(steps[:depth])
                if recursive or depth == 1:
                    found[name] = {
                        "type": "directory",
                        "path": name,
                        "oid": hashlib.sha1(name.encode()).hexdigest(),
                        "size": 0,
                    }
            if recursive or len(steps) == 1:
                found[path] = self.entry(path, data)
        return list(found.values())

    def entry(self, path: str, data: bytes) -> dict[str, Any]:
        return {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self) -> None:
        hub = self.server
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path, _, query = self.path.partition("?")
        with hub.lock:
            hub.asked.append(f"{self.command} {path}")
            busy = hub.every and not len(hub.asked) % hub.every
        if hub.token and self.headers.get("Authorization") != f"Bearer {hub.token}":
            return self._send(401, b"{}", {"X-Error-Message": "Invalid credentials"})
        if busy:
            hub.faults["busy"] += 1
            return self._send(503, b"busy")
        api, rest = f"/api/datasets/{hub.repository}", unquote(path)
        if rest in (api, f"{api}/revision/main"):
            return self._json({"id": hub.repository, "sha": COMMIT, "private": False, "siblings": [], "tags": []})
        if rest.startswith(f"{api}/refs"):
            return self._json(
                {
                    "branches": [{"name": "main", "ref": "refs/heads/main", "targetCommit": COMMIT}],
                    "converts": [],
                    "tags": [],
                }
            )
        if tree := re.fullmatch(re.escape(api) + rf"/tree/(?:main|{COMMIT})/?(.*)", rest):
            entries = hub.entries(tree[1], parse_qs(query).get("recursive", [""])[0].lower() in ("true", "1"))
            return self._json(entries) if entries else self._send(404, b"{}", {"X-Error-Code": "EntryNotFound"})
        if re.fullmatch(re.escape(api) + rf"/paths-info/(?:main|{COMMIT})", rest):
            wanted = json.loads(body)["paths"] if body.startswith(b"{") else parse_qs(body.decode())["paths"]
            folders = {entry["path"]: entry for entry in hub.entries("", True)}
            return self._json([folders[name] for name in wanted if name in folders])
        if file := re.fullmatch(rf"/datasets/{hub.repository}/resolve/(?:main|{COMMIT})/(.+)", rest):
            return self._file(hub.files.get(file[1]))
        return self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    do_GET = do_HEAD = do_POST = _answer

    def _file(self, data: bytes | None) -> None:
        if data is None:
            return self._send(404, b"{}", {"X-Error-Code": "EntryNotFound"})
        with self.server.lock:
            self.server.parts += self.command == "GET"
            fault = bool(self.server.every) and self.command == "GET" and not self.server.parts % self.server.every
        fields = {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if span is None:
            return self._send(200, data, fields, cut=fault)
        begin, end = int(span[1]), min(int(span[2] or len(data)), len(data) - 1)
        if begin >= len(data):
            return self._send(416, b"")
        fields["Content-Range"] = f"bytes {begin}-{end}/{len(data)}"
        return self._send(206, data[begin : end + 1], fields, cut=fault)

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes, fields: Mapping[str, str] | None = None, cut: bool = False) -> None:
        self.send_response(status)
        for name, value in {**(fields or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if cut else body)
        if cut:
            self.server.faults["cut"] += 1
            self.close_connection = True
