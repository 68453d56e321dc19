"""Finds the build that `heddle serve` serves: in the store, in the cache, or made now. Called by `serve`.

With a store, a pod asks it first, and needs neither the hub nor the checkpoint if it has the build. A build is asked
for by what the config says (model, revision, quantization and so on), then by the content of the checkpoint.
"""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from heddle.artifacts.artifact_cache import ArtifactCache
from heddle.artifacts.build_key import BuildRequest
from heddle.artifacts.manifest import is_artifact, read_manifest
from heddle.artifacts.store import Store
from heddle.checkpoint.cache import cache_folder
from heddle.checkpoint.json_files import CheckpointError
from heddle.checkpoint.language_models import AUTO
from heddle.checkpoint.model_source import name_of, without_secrets
from heddle.cli import die_with_parent
from heddle.cli.build_settings import BUILD_PREFIX, SHARED_WITH_SERVE, BuildSettings, read_build_settings
from heddle.cli.building import Build, make_request
from heddle.cli.serve_settings import ServeSettings, add_model_name
from heddle.remote.errors import StoreError
from heddle.rpc.settings import EXIT_MISCONFIGURED, ConfigurationError

# These cannot be made while the engine loads a checkpoint.
CALIBRATED = frozenset({"smooth_quant", "fp8_kv", "fp4_kv"})

COMMIT = re.compile(r"[0-9a-f]{40}")
HUB_S_MAX = 10.0


class BuildFailedError(ConfigurationError):
    """`heddle build` has printed the reason."""


def use_build(
    settings: ServeSettings, environ: Mapping[str, str], tell: Callable[[str], None]
) -> tuple[ServeSettings, Mapping[str, str]]:
    """Returns settings and environment that serve the build under the model's own name; both unchanged if no build is
    needed. `tell` shows a line to the operator. Raises ConfigurationError."""
    if not needs_build(settings):
        return settings, environ
    folder = Finder.of(settings, environ, tell).find()
    # The build states in its own files what these settings said.
    of_build = replace(
        settings, model=str(folder), revision="", quantization="no_quant", pooling="auto", score_tokens=AUTO
    )
    return of_build, add_model_name(environ, name_of(settings.model))


def needs_build(settings: ServeSettings) -> bool:
    is_wanted = bool(settings.store) or settings.quantization in CALIBRATED
    return is_wanted and settings.engine != "simulated" and not is_artifact(Path(settings.model).expanduser())


@dataclass(frozen=True, slots=True)
class Finder:
    """Looks for one build."""

    settings: BuildSettings
    request: BuildRequest | None  # None for a folder, which may be another model on another machine
    cache: ArtifactCache
    store: Store | None
    publishes: bool
    environ: Mapping[str, str]
    tell: Callable[[str], None]

    @classmethod
    def of(cls, settings: ServeSettings, environ: Mapping[str, str], tell: Callable[[str], None]) -> "Finder":
        stated = {name: getattr(settings, name) for name in SHARED_WITH_SERVE}
        environ = {name: value for name, value in environ.items() if value}
        own = {name: environ[name] for name in environ if name.startswith(BUILD_PREFIX)}
        build = replace(read_build_settings([], own, stated), output=None, store="", force=False, verify=None)
        return cls(
            settings=build,
            request=make_request(build),
            cache=ArtifactCache(cache_folder(), tell),
            store=Store.at(settings.store) if settings.store else None,
            publishes=settings.publish,
            environ={name: environ[name] for name in environ if name not in own},
            tell=tell,
        )

    def find(self) -> Path:
        """Raises ConfigurationError."""
        if found := self._find_in_store([self.request] if self.request else []):
            return found
        cached = self.cache.find(self.request.key) if self.request else None
        if cached and self.request and self._is_current(cached, self.request):
            self._publish(cached, [self.request])
            return cached
        try:
            build = Build.of(self.settings)
        except CheckpointError as error:
            if cached is None and self.store is not None:
                raise CheckpointError(f"{error}; and {self.store.name} has no build of it") from error
            if cached is None:
                raise
            self.tell(f"{error}; serving the build in the cache")
            return cached
        return self._find_by_content(build)

    def _find_by_content(self, build: Build) -> Path:
        request = build.content_request
        if found := self._find_in_store([request]):
            return found
        found = self.cache.find(request.key)
        if found is None:
            if self.store is not None:
                self.tell(f"{self.store.name} has no build of {self.settings.model} with these settings: building it")
            run_build(self.settings, self.environ)
            found = self.cache.find(request.key)
            if found is None:
                raise ConfigurationError(f"{without_secrets(self.settings.model)} was changed while it was being built")
        self.cache.remember(found.name, build.requests)
        self._publish(found, build.requests)
        return found

    def _find_in_store(self, requests: Sequence[BuildRequest]) -> Path | None:
        """If the store fails, the build in the cache is good enough. Raises StoreError if there is none."""
        if self.store is None:
            return None
        for request in requests:
            try:
                digest = self.store.find(request.key)
                if digest is not None:
                    folder = self.cache.fetch(self.store, digest, name=without_secrets(self.settings.model))
                    self.cache.remember(digest, [request])
                    return folder
                self.store.check_place(may_be_new=self.publishes)
            except StoreError as error:
                cached = self.cache.find(request.key)
                if cached is None:
                    raise
                self.tell(f"{error}; serving the build in the cache")
                return cached
        return None

    def _is_current(self, folder: Path, request: BuildRequest) -> bool:
        """Whether a build in the cache is still what the request asks for. A branch or a tag may have moved; if the hub
        cannot be asked, it has not. The files behind an address are compared by their content instead."""
        built = read_manifest(folder).source.revision
        if not COMMIT.fullmatch(built):
            return False
        if COMMIT.fullmatch(request.revision):
            return True
        commit = ask_commit(request)
        if commit in (None, built):
            return True
        self.tell(f"{request.model} has changed on the hub since it was built")
        return False

    def _publish(self, folder: Path, requests: Sequence[BuildRequest]) -> None:
        if self.store is not None and self.publishes:
            self.store.publish(folder, requests)


def ask_commit(request: BuildRequest) -> str | None:
    """Returns the commit of a hub model, or None if the hub cannot be asked."""
    try:
        from huggingface_hub import HfApi

        info = HfApi().model_info(request.model, revision=request.revision or None, timeout=HUB_S_MAX)
    except Exception:  # noqa: BLE001  huggingface_hub's errors have no common base class
        return None
    return info.sha


def run_build(settings: BuildSettings, environ: Mapping[str, str]) -> None:
    """Builds into the cache, in a process of its own that gives its memory back. Raises ConfigurationError."""
    heddle = (sys.executable, "-m", "heddle", "build", *to_flags(settings))
    command = (sys.executable, str(die_with_parent.__file__), str(os.getpid()), *heddle)
    # Only the welcome goes to stdout.
    done = subprocess.run(command, env=dict(environ), stdin=subprocess.DEVNULL, stdout=sys.stderr, check=False)
    if done.returncode == EXIT_MISCONFIGURED:
        raise BuildFailedError
    if done.returncode != 0:
        raise ConfigurationError(
            f"{without_secrets(settings.model)} could not be built: heddle build ended with {done.returncode}"
        )


def to_flags(settings: BuildSettings) -> list[str]:
    """Returns the flags of `heddle build` for all settings that are not the default."""
    flags: list[str] = []
    for field in fields(settings):
        value, flag = getattr(settings, field.name), f"--{field.name.replace('_', '-')}"
        if value == field.default:
            continue
        if isinstance(value, bool):
            flags.append(flag if value else flag.replace("--", "--no-", 1))
        else:
            flags.append(f"{flag}={value}")
    return flags
