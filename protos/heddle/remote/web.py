"""Reads files and parts of files from web servers. Called by `checkpoint.sources.web` and `artifacts.places`.

The address may hold a password. FSSPEC_HTTPS='{"client_kwargs": {"headers": {...}}}' adds headers, as for fsspec,
and HEDDLE_WEB_HEADERS='{"https://host": {...}}' for one host only. Proxies of the environment apply.
"""

import base64
import http.client
import json
import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from heddle.remote.addresses import Address
from heddle.remote.downloads import RemoteFile
from heddle.remote.errors import Reason, StoreError, on_one_line
from heddle.rpc.settings import ConfigurationError

CONNECT_S_MAX = 10.0
READ_S_MAX = 60.0
CHUNK_BYTES = 1 << 20

# JSON with headers by host, such as the host of a checkpoint whose config names a secret.
HEADERS_VARIABLE = "HEDDLE_WEB_HEADERS"

# Any other header may be a secret.
HARMLESS_HEADERS = frozenset({"Accept-encoding", "Range", "User-agent"})  # as urllib spells them
CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-\d+|\*)/(\d+)")
SHA256_DIGEST = re.compile(r"sha-256=:?([A-Za-z0-9+/]{43}=)", re.IGNORECASE)

REASONS: dict[int, Reason] = {401: "refused", 403: "refused", 404: "missing", 410: "missing"}


class KeepSecrets(urllib.request.HTTPRedirectHandler):
    """Removes secrets from a redirect to another host: urllib would send them."""

    def redirect_request(self, req: urllib.request.Request, *arguments: Any, **named: Any) -> Any:
        following = super().redirect_request(req, *arguments, **named)
        if following is not None and origin_of(following.full_url) != origin_of(req.full_url):
            for name in following.headers.keys() - HARMLESS_HEADERS:
                following.remove_header(name)
        return following


class Connection(http.client.HTTPConnection):
    """Has a shorter timeout to connect than to read."""

    def connect(self) -> None:
        super().connect()
        self.sock.settimeout(READ_S_MAX)


class SecureConnection(http.client.HTTPSConnection):
    def connect(self) -> None:
        super().connect()
        self.sock.settimeout(READ_S_MAX)


class Opener(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(Connection, req)


class SecureOpener(urllib.request.HTTPSHandler):
    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(SecureConnection, req)


class WebClient:
    """Threads may share it."""

    def __init__(self, address: Address) -> None:
        self.address = address
        parts = urlsplit(address.location)
        self.headers = {"User-Agent": "heddle", "Accept-Encoding": "identity", **stated_headers(address.location)}
        if parts.username:
            login = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
            self.headers["Authorization"] = f"Basic {base64.b64encode(login).decode()}"
        host = parts.netloc.rpartition("@")[2]
        self.url = urlunsplit((parts.scheme, host, parts.path, parts.query, ""))
        self.opener = urllib.request.build_opener(KeepSecrets(), Opener(), SecureOpener())

    def read(self, url: str, file: RemoteFile, start: int, end: int) -> bytearray:
        """Returns these bytes of the file at the URL. Raises StoreError, also if the file has changed."""
        content = bytearray(end - start)
        with self.ask(url, f"bytes={start}-{end - 1}") as answer:
            found = describe(file.path, answer)
            is_same = found.size == file.size and file.version in ("", found.version)
            if answer.status != 206 or first_byte_of(answer) != start or not is_same:
                raise StoreError(f"{file.path} of {self.address.shown} has changed since it was listed", "changed")
            view, count = memoryview(content), 0
            while count < len(content):
                if not (more := answer.readinto(view[count:])):
                    raise http.client.IncompleteRead(b"", len(content) - count)
                count += more
        return content

    def stream(self, url: str) -> Iterator[bytes]:
        """Yields the whole file. Raises StoreError. Does not notice an answer that ends too early."""
        with self.ask(url) as answer:
            while chunk := answer.read(CHUNK_BYTES):
                yield chunk

    @contextmanager
    def ask(self, url: str, range_: str = "") -> Iterator[Any]:
        """Also converts errors while the answer is read into StoreError. Yields an answer 416 to a range from the first
        byte, which means that the file is empty."""
        request = urllib.request.Request(url, headers={**self.headers, **({"Range": range_} if range_ else {})})
        try:
            with self.opener.open(request, timeout=CONNECT_S_MAX) as answer:
                yield answer
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 416 and range_.startswith("bytes=0-"):
                    yield error
                    return
            raise self.refusal(error.code) from error
        except (OSError, http.client.HTTPException) as error:  # URLError is an OSError
            cause = getattr(error, "reason", None) or error
            line = f"{self.address.shown} cannot be reached: {on_one_line(cause)}"
            raise StoreError(line, "unreachable") from error

    def refusal(self, status: int) -> StoreError:
        reason = REASONS.get(status, "failed")
        if reason == "missing":
            return StoreError(f"there is nothing at {self.address.shown} ({status})", reason)
        if reason == "refused":
            line = "check its password (https://USER:PASSWORD@host/path) or signature, which may have expired"
            return StoreError(f"{self.address.shown} may not be read ({status}): {line}", reason)
        return StoreError(f"the server of {self.address.shown} failed to answer ({status}): try later", reason)


def describe(path: str, answer: Any) -> RemoteFile:
    """Reads what the headers of an answer to a request for a part say about the file."""
    headers = answer.headers
    total = CONTENT_RANGE.fullmatch(headers.get("Content-Range") or "")
    size = total[2] if total else headers.get("Content-Length") if answer.status == 200 else None
    digest = SHA256_DIGEST.search(headers.get("Repr-Digest") or headers.get("Digest") or "")
    stated = base64.b64decode(digest[1]).hex() if digest else headers.get("X-Checksum-Sha256")
    return RemoteFile(
        path,
        int(size) if size is not None else None,
        headers.get("ETag") or headers.get("Last-Modified") or "",
        {"sha256": stated} if stated else {},
        has_ranges=total is not None,
    )


def first_byte_of(answer: Any) -> int | None:
    found = CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range") or "")
    return int(found[1]) if found and found[1] else None


def origin_of(url: str) -> str:
    """Returns scheme, host and port, without a password."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}".lower()


def stated_headers(url: str) -> dict[str, str]:
    """Raises ConfigurationError."""
    try:
        by_host = json.loads(os.environ.get(HEADERS_VARIABLE) or "{}")
        return {**headers_of_fsspec(), **by_host.get(origin_of(url), {})}
    except (ValueError, AttributeError, TypeError):
        form = '{"https://host": {"Authorization": "Bearer ..."}}'
        raise ConfigurationError(f"{HEADERS_VARIABLE} must be JSON of the form {form}") from None


def headers_of_fsspec() -> dict[str, str]:
    try:
        from fsspec import config
    except ImportError:
        return {}
    config.set_conf_env(config.conf)
    found = {**config.conf.get("http", {}), **config.conf.get("https", {})}
    return dict(found.get("client_kwargs", {}).get("headers", {}))
