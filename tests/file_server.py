"""A small HTTP server in a thread, with Range requests, ETags and faults on demand. `tests.hub` extends it, and
tests download models from it.

    with FileServer(folder) as server:
        server.faults.append(Fault("*.safetensors", cut_after=1000))
        download(f"{server.url}/model.tar.gz")
"""

import hashlib
import re
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, unquote, urlsplit

CHUNK_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    path: str  # without the query, as it was sent (not decoded)
    query: str
    headers: Mapping[str, str]  # names in lower case


@dataclass(frozen=True, slots=True)
class Answer:
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | Path = b""


@dataclass(slots=True)
class Fault:
    """A fault in the answers to requests whose path matches."""

    pattern: str  # of the decoded path, as in fnmatch
    method: str = "GET"
    times: int = 1  # number of requests; -1 for all
    status: int | None = None  # an error with this code
    headers: Mapping[str, str] = field(default_factory=dict)  # of that error
    cut_after: int | None = None  # bytes of the body, after which the connection is closed
    flips: bool = False  # whether the first byte of the body is wrong
    delay_s: float = 0.0  # before the answer

    def applies_to(self, request: Request) -> bool:
        return self.times != 0 and request.method == self.method and fnmatch(unquote(request.path), self.pattern)


class FileServer:
    """Serves the files of a folder, and a listing of each folder in it. `requests` holds all requests so far."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self.faults: list[Fault] = []
        self.requests: list[Request] = []
        self.sent: Counter[str] = Counter()  # bytes of the files of each path
        self.has_ranges = self.has_etags = True
        self._hashes: dict[tuple[Path, int, int], str] = {}
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def requested(self, pattern: str, method: str = "GET") -> list[Request]:
        return [each for each in self.requests if each.method == method and fnmatch(unquote(each.path), pattern)]

    def answer(self, request: Request) -> Answer:
        assert self.folder is not None
        path = (self.folder / unquote(request.path).lstrip("/")).resolve()
        if not path.is_relative_to(self.folder.resolve()) or not path.exists():
            return Answer(404, {}, b"not found")
        if path.is_dir() and not request.path.endswith("/"):
            return Answer(301, {"Location": f"{request.path}/"})
        if path.is_dir():
            names = sorted(f"{each.name}/" if each.is_dir() else each.name for each in path.iterdir())
            links = "".join(f'<li><a href="{quote(name)}">{escape(name)}</a></li>' for name in names)
            return Answer(200, {"Content-Type": "text/html"}, f"<ul><li><a href='../'>..</a></li>{links}</ul>".encode())
        return Answer(200, {"ETag": f'"{self.hash_of(path)}"'} if self.has_etags else {}, path)

    def hash_of(self, path: Path) -> str:
        """SHA-256 in hexadecimal digits, computed once for each version of the file."""
        status = path.stat()
        key = (path, status.st_mtime_ns, status.st_size)
        if key not in self._hashes:
            with path.open("rb") as file:
                self._hashes[key] = hashlib.file_digest(file, "sha256").hexdigest()
        return self._hashes[key]

    def count_sent(self, path: str, count: int) -> None:
        with self._lock:
            self.sent[path] += count

    def take_fault(self, request: Request) -> Fault | None:
        with self._lock:
            self.requests.append(request)
            for fault in self.faults:
                if fault.applies_to(request):
                    fault.times -= fault.times > 0
                    return fault
        return None


def handler_of(server: FileServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            """Tests read `requests` instead."""

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            headers = {name.lower(): value for name, value in self.headers.items()}
            request = Request(self.command, parts.path, parts.query, headers)
            fault = server.take_fault(request) or Fault("", times=0)
            time.sleep(fault.delay_s)
            answer = server.answer(request)
            if fault.status is not None:
                answer = Answer(fault.status, fault.headers, b"a fault that the test asked for")
            self.send(answer, fault, headers.get("range", "") if server.has_ranges else "")

        def do_HEAD(self) -> None:
            self.do_GET()

        def send(self, answer: Answer, fault: Fault, wanted: str) -> None:
            size = answer.body.stat().st_size if isinstance(answer.body, Path) else len(answer.body)
            status, start, end = slice_of(answer.status, size, wanted)
            self.send_response(status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            if status == 206:
                self.send_header("Content-Range", f"bytes {start}-{end - 1}/{size}")
            elif status == 416:
                self.send_header("Content-Range", f"bytes */{size}")
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(end - start))
            self.end_headers()
            if self.command == "HEAD":
                return
            left = end - start if fault.cut_after is None else min(end - start, fault.cut_after)
            try:
                self.copy(answer.body, start, left, flips=fault.flips)
            except OSError:  # the client went away
                self.close_connection = True
            if fault.cut_after is not None:
                self.close_connection = True

        def copy(self, body: bytes | Path, start: int, left: int, *, flips: bool) -> None:
            if isinstance(body, bytes):
                self.wfile.write(body[start : start + left])
                return
            with body.open("rb") as file:
                file.seek(start)
                while left and (chunk := file.read(min(CHUNK_BYTES, left))):
                    left -= len(chunk)
                    server.count_sent(self.path, len(chunk))
                    self.wfile.write(bytes([chunk[0] ^ 1]) + chunk[1:] if flips else chunk)
                    flips = False

    return Handler


def slice_of(status: int, size: int, wanted: str) -> tuple[int, int, int]:
    """Returns the status of the answer to a Range header, and the first byte and the one after the last."""
    found = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted)
    if status != 200 or not found:
        return status, 0, size
    start, end = int(found[1]), min(int(found[2]) + 1 if found[2] else size, size)
    return (206, start, end) if start < end else (416, 0, 0)
