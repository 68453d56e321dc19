"""Parses the address of a model that is neither a folder nor on the hub, and that of a store of builds.

    s3://bucket/path    gs://bucket/path    az://container/path    abfs[s]://container@account.dfs.core.windows.net/path
    azure://account/container/path          https://account.blob.core.windows.net/container/path
    https://host/model.tar.gz               https://host/folder/

Called by `checkpoint.model_source` for every model, so it imports no library, and by `artifacts.places`.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from heddle.checkpoint.json_files import CheckpointError

ARCHIVE_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst", ".zip")

AZURE_HOST = re.compile(r"(?P<account>[a-z0-9]{3,24})\.(?:blob|dfs)\.(?P<cloud>core\.[a-z.]+)")
SCHEME = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://")
QUERY = re.compile(r"([a-z][a-z0-9+.-]*://[^\s?\"']+)\?[^\s\"']*")
# A user without a password may be a token; abfs://container@account is none.
PASSWORD = re.compile(r"(?<=://)[^\s/@]*:[^\s/@]*@|(?<=http://)[^\s/@]+@|(?<=https://)[^\s/@]+@")
SHA256 = re.compile(r"sha256=([0-9a-f]{64})")
FORMS = "s3://bucket/path, gs://bucket/path, az://container/path or https://host/path"

# fsspec: any other address that fsspec knows, and folders. Only stores of builds may be there.
Store = Literal["s3", "gcs", "azure", "web", "fsspec"]

SCHEMES = ("s3", "gs", "gcs", "az", "azure", "abfs", "abfss", "http", "https")


@dataclass(frozen=True, slots=True)
class Address:
    """`shown` may be printed: it has no password and no signature. `location` is what the store is asked for: the path
    with its bucket, or the URL."""

    store: Store
    shown: str
    location: str
    options: Mapping[str, str] = field(default_factory=dict)  # of the fsspec file system
    sha256: str = ""  # of an archive, if the address states it

    @property
    def is_bucket(self) -> bool:
        return self.store in ("s3", "gcs", "azure")

    @property
    def is_archive(self) -> bool:
        return self.shown.lower().endswith(ARCHIVE_SUFFIXES)

    @property
    def name(self) -> str:
        """The last part, for people: `minilm` of `s3://bucket/models/minilm/`, and of `https://host/minilm.tar.gz`."""
        last = PurePosixPath(urlsplit(self.shown).path).name or urlsplit(self.shown).netloc
        suffix = next((each for each in ARCHIVE_SUFFIXES if last.lower().endswith(each)), "")
        return last[: len(last) - len(suffix)] or last

    @property
    def key(self) -> str:
        """Names the folder in the cache. Does not depend on a signature or on a slash at the end."""
        stem = re.sub(r"[^A-Za-z0-9._-]+", "-", self.name)[:60].strip(".-") or "model"
        return f"{stem}-{hashlib.sha256(self.shown.rstrip('/').encode()).hexdigest()[:16]}"


def is_address(model: str) -> bool:
    return SCHEME.match(model) is not None


def parse_address(model: str) -> Address:
    """Raises CheckpointError for an address of any other form. Errors never repeat a password or a signature."""
    try:
        parts = urlsplit(model)
    except ValueError:  # its message may repeat the password
        raise CheckpointError(f"an address cannot be parsed: it must be of the form {FORMS}") from None
    scheme, host = parts.scheme.lower(), parts.hostname or ""
    shown = urlunsplit((scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    if scheme in ("http", "https"):
        if found := AZURE_HOST.fullmatch(host):
            return azure_address(shown, found, *split_container(parts.path, shown), sas_token=parts.query)
        return web_address(parts, shown)
    if scheme == "s3" or scheme in ("gs", "gcs"):
        check_location(parts.netloc, parts.path, shown)
        return Address("s3" if scheme == "s3" else "gcs", shown, f"{parts.netloc}{parts.path}".rstrip("/"))
    if scheme == "azure":
        container, path = split_container(parts.path, shown)
        check_location(host, container, shown)
        return Address("azure", shown, f"{container}/{path}".rstrip("/"), {"account_name": host})
    if scheme in ("az", "abfs", "abfss"):
        return azure_folder(parts)
    raise CheckpointError(f"{shown} is not an address that models are loaded from, such as {FORMS}")


def parse_store_address(address: str) -> Address:
    """Parses the address of a store of builds, which may also be a folder or any other address that fsspec knows."""
    if not is_address(address):
        return Address("fsspec", address, str(Path(address).expanduser().absolute()))
    if address.partition("://")[0].lower() in SCHEMES:
        return parse_address(address)
    return Address("fsspec", hide_secrets(address), address)


def hide_secrets(text: str) -> str:
    """Returns a text whose addresses have no passwords and no queries, which may hold a signature."""
    return QUERY.sub(r"\1", PASSWORD.sub("", text))


def web_address(parts: SplitResult, shown: str) -> Address:
    if not parts.hostname:
        raise CheckpointError(f"{shown} names no host")
    found = SHA256.fullmatch(parts.fragment)
    if parts.fragment and not found:
        raise CheckpointError(f"{shown} ends with a # that is not followed by sha256= and 64 hexadecimal digits")
    location = urlunsplit((parts.scheme, parts.netloc, parts.path or "/", parts.query, ""))
    return Address("web", shown, location, sha256=found[1] if found else "")


def azure_folder(parts: SplitResult) -> Address:
    """`az://container/path`, or `abfs://container@account.dfs.core.windows.net/path`."""
    container, at, host = parts.netloc.rpartition("@")
    shown = hide_secrets(urlunsplit((parts.scheme.lower(), parts.netloc, parts.path, "", "")))
    if not at:
        check_location(host, parts.path, shown)
        return Address("azure", shown, f"{host}{parts.path}".rstrip("/"))
    if not (found := AZURE_HOST.fullmatch(host)):
        raise CheckpointError(f"{shown} names {host}, which is not of the form ACCOUNT.dfs.core.windows.net")
    return azure_address(shown, found, container, parts.path.strip("/"), sas_token=parts.query)


def azure_address(shown: str, found: re.Match[str], container: str, path: str, *, sas_token: str) -> Address:
    options = {"account_name": found["account"]}
    if found["cloud"] != "core.windows.net":
        options["account_host"] = f"{found['account']}.blob.{found['cloud']}"
    if "sig=" in sas_token:
        options["sas_token"] = sas_token
    return Address("azure", shown, f"{container}/{path}".rstrip("/"), options)


def split_container(path: str, shown: str) -> tuple[str, str]:
    container, _, rest = unquote(path).strip("/").partition("/")
    check_location(container, rest, shown)
    return container, rest


def check_location(bucket: str, path: str, shown: str) -> None:
    if not bucket or "@" in bucket or ".." in PurePosixPath(path).parts:
        raise CheckpointError(f"{shown} is not an address that models are loaded from, such as {FORMS}")
