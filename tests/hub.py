"""A server that speaks the API of the Hugging Face Hub to the real huggingface_hub: folders are its repositories.

    with Hub({"owner/name": folder}) as hub:
        subprocess.run([...], env=os.environ | hub.environ)

or, in the process of the test, `hub.use(monkeypatch)`. It lists files, and serves them by branch, tag and commit; big
files come by a redirect to another host name with a signed address, as the hub sends those that git LFS holds. Error
codes and messages are those of the hub. See `tests.file_server` for faults and for the requests that have arrived.
"""

import hashlib
import json
import re
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, unquote

import pytest

from tests.file_server import Answer, FileServer, Request

NAME = r"(?P<name>[^/]+(?:/[^/]+)?)"
INFO = re.compile(rf"/api/models/{NAME}(?:/revision/(?P<revision>[^/]+))?")
TREE = re.compile(rf"/api/models/{NAME}/tree/(?P<revision>[^/]+)(?:/(?P<folder>.+))?")
REFS = re.compile(rf"/api/models/{NAME}/refs")
RESOLVE = re.compile(rf"/{NAME}/resolve/(?P<revision>[^/]+)/(?P<path>.+)")
LFS = re.compile(r"/lfs/(?P<sha256>[0-9a-f]{64})")

LFS_SUFFIXES = (".safetensors", ".bin", ".pt", ".onnx")
# The query of the address of a git LFS file, which can be read without a token.
SIGNATURE = "Signature=top-secret"

WRONG_TOKEN = "Invalid credentials in Authorization header"


class Hub(FileServer):
    """`revisions` are further branches and tags of a repository, each with its own folder. `tokens` says which private
    and gated repositories a token may read; any other token is invalid."""

    def __init__(
        self,
        repositories: Mapping[str, Path],
        *,
        revisions: Mapping[str, Mapping[str, Path]] | None = None,
        tokens: Mapping[str, Collection[str]] | None = None,
        private: Collection[str] = (),
        gated: Collection[str] = (),
    ) -> None:
        super().__init__()
        self.folders = {
            name: {"main": folder, **(revisions or {}).get(name, {})} for name, folder in repositories.items()
        }
        self.tokens = tokens or {}
        self.private, self.gated = private, gated
        self._home = tempfile.TemporaryDirectory(prefix="hub-")

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self._home.cleanup()

    @property
    def home(self) -> Path:
        """An empty folder for the cache of huggingface_hub. It is deleted with the server."""
        return Path(self._home.name)

    @property
    def environ(self) -> dict[str, str]:
        """Variables for a process that uses this hub: its address, an empty cache, and no token."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(self.home),
            "HF_HUB_CACHE": str(self.home / "hub"),
            "HF_TOKEN": "",
            "HF_HUB_OFFLINE": "0",
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
        }

    def use(self, monkeypatch: pytest.MonkeyPatch) -> Self:
        """Makes huggingface_hub in this process use this hub, and an empty cache."""
        for name, value in self.environ.items():
            monkeypatch.setenv(name, value)
        from huggingface_hub import constants

        monkeypatch.setattr(constants, "ENDPOINT", self.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", self.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(self.home / "hub"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(self.home / "token"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        return self

    def commit_of(self, name: str, revision: str = "main") -> str:
        """The commit changes when a file of the folder does."""
        digest = hashlib.sha1(name.encode(), usedforsecurity=False)
        for path, file in self.files_of(name, revision).items():
            digest.update(f"{path} {self.hash_of(file)}\n".encode())
        return digest.hexdigest()

    def files_of(self, name: str, revision: str) -> dict[str, Path]:
        folder = self.folders[name][revision]
        files = sorted(each for each in folder.rglob("*") if each.is_file())
        return {each.relative_to(folder).as_posix(): each for each in files}

    def answer(self, request: Request) -> Answer:
        if found := LFS.fullmatch(request.path):
            return self.send_lfs(request, found["sha256"])
        if found := INFO.fullmatch(request.path):
            return self.refuse(request, found, holds_files=False) or self.describe(found)
        if found := TREE.fullmatch(request.path):
            return self.refuse(request, found, holds_files=False) or self.list_files(found)
        if found := REFS.fullmatch(request.path):
            return self.refuse(request, found, holds_files=False) or self.list_revisions(found["name"])
        if found := RESOLVE.fullmatch(request.path):
            return self.refuse(request, found, holds_files=True) or self.send_file(found)
        return failure(404, "", "Sorry, we can't find the page you are looking for.")

    def refuse(self, request: Request, found: re.Match[str], *, holds_files: bool) -> Answer | None:
        """Returns None if the request is allowed. Anyone may read about a gated repository, but not its files."""
        name, token = unquote(found["name"]), request.headers.get("authorization", "").removeprefix("Bearer ")
        if token and token not in self.tokens:
            return failure(401, "", WRONG_TOKEN)
        may_read = name in self.tokens.get(token, ())
        if name not in self.folders or (name in self.private and not may_read):
            missing = failure(404, "RepoNotFound", "Repository not found")
            return missing if token else failure(401, "", "Invalid username or password.")
        if holds_files and name in self.gated and not may_read:
            reason = "you are not in the authorized list" if token else "you must be authenticated to access it"
            return failure(403 if token else 401, "GatedRepo", f"Access to model {name} is restricted and {reason}.")
        revision = found.groupdict().get("revision")
        if revision and self.resolve(name, unquote(revision)) is None:
            return failure(404, "RevisionNotFound", f"Invalid rev id: {unquote(revision)}")
        return None

    def resolve(self, name: str, revision: str) -> str | None:
        """Returns the branch or tag of a revision, which may be a commit."""
        if revision in self.folders[name]:
            return revision
        return next((each for each in self.folders[name] if self.commit_of(name, each) == revision), None)

    def describe(self, found: re.Match[str]) -> Answer:
        name = unquote(found["name"])
        revision = self.resolve(name, unquote(found["revision"] or "main"))
        assert revision is not None
        siblings = [{"rfilename": path} for path in self.files_of(name, revision)]
        gated = "manual" if name in self.gated else False
        return as_json(
            {
                "_id": "1",
                "id": name,
                "modelId": name,
                "sha": self.commit_of(name, revision),
                "tags": [],
                "private": name in self.private,
                "gated": gated,
                "siblings": siblings,
                "downloads": 0,
                "likes": 0,
            }
        )

    def list_files(self, found: re.Match[str]) -> Answer:
        name, revision = unquote(found["name"]), self.resolve(unquote(found["name"]), unquote(found["revision"]))
        assert revision is not None
        return as_json([self.entry(path, file) for path, file in self.files_of(name, revision).items()])

    def entry(self, path: str, file: Path) -> dict[str, Any]:
        size, sha256 = file.stat().st_size, self.hash_of(file)
        lfs = {"lfs": {"oid": sha256, "size": size, "pointerSize": 134}} if path.endswith(LFS_SUFFIXES) else {}
        return {"type": "file", "path": path, "size": size, "oid": sha256[:40], **lfs}

    def list_revisions(self, name: str) -> Answer:
        branches = [
            {"name": each, "ref": f"refs/heads/{each}", "targetCommit": self.commit_of(name, each)}
            for each in self.folders[name]
        ]
        return as_json({"branches": branches, "converts": [], "tags": []})

    def send_file(self, found: re.Match[str]) -> Answer:
        name, path = unquote(found["name"]), unquote(found["path"])
        revision = self.resolve(name, unquote(found["revision"]))
        assert revision is not None
        commit = {"X-Repo-Commit": self.commit_of(name, revision)}
        file = self.files_of(name, revision).get(path)
        if file is None:
            missing = failure(404, "EntryNotFound", "Entry not found")
            return Answer(missing.status, {**missing.headers, **commit}, missing.body)
        sha256 = self.hash_of(file)
        if not path.endswith(LFS_SUFFIXES):
            return Answer(200, {**commit, "ETag": f'"{sha256[:40]}"'}, file)
        disposition = quote(f'inline; filename="{Path(path).name}"')
        location = f"http://localhost:{self.port}/lfs/{sha256}?response-content-disposition={disposition}&{SIGNATURE}"
        linked = {"X-Linked-ETag": f'"{sha256}"', "X-Linked-Size": str(file.stat().st_size), "Location": location}
        return Answer(302, {**commit, **linked}, b"Found. Redirecting.")

    def send_lfs(self, request: Request, sha256: str) -> Answer:
        if SIGNATURE not in request.query or "authorization" in request.headers:
            return Answer(403, {}, b"AccessDenied")
        folders = [folder for revisions in self.folders.values() for folder in revisions.values()]
        files = (each for folder in folders for each in folder.rglob("*") if each.is_file())
        file = next((each for each in files if each.name.endswith(LFS_SUFFIXES) and self.hash_of(each) == sha256), None)
        return Answer(200, {"ETag": '"multipart-1"'}, file) if file else Answer(404, {}, b"NoSuchKey")


def as_json(content: Any) -> Answer:
    return Answer(200, {"Content-Type": "application/json"}, json.dumps(content).encode())


def failure(status: int, code: str, message: str) -> Answer:
    headers = {"X-Error-Message": message, "Content-Type": "application/json"}
    if code:
        headers["X-Error-Code"] = code
    return Answer(status, headers, json.dumps({"error": message}).encode())
