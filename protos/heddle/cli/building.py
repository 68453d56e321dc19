"""Builds a model into a folder or into Heddle's cache, unless it already holds the same build.

Called by `heddle build`, and by `heddle serve` if loading cannot quantize the model. Needs torch only to build, not to
find an existing build.
"""

import hashlib
import importlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from heddle.artifacts.artifact_cache import ArtifactCache
from heddle.artifacts.build_key import BuildRequest, build_key, without_absent
from heddle.artifacts.manifest import FileEntry, describe_file, read_manifest
from heddle.artifacts.store import Store
from heddle.checkpoint import Checkpoint
from heddle.checkpoint.model_source import locate, name_of, without_secrets
from heddle.cli.build_settings import BuildSettings
from heddle.machine import usable_cores
from heddle.progress import Progress
from heddle.quantization import NO_QUANT

# Settings that do not change what a build computes. A pod accepts a build with any value of these.
NOT_IN_REQUEST = ("file_bytes_max", "report")


@dataclass(frozen=True, slots=True)
class Build:
    """A build that can be looked up and run."""

    settings: BuildSettings
    root: Path  # of the checkpoint
    checkpoint: Checkpoint
    configuration: Any  # engine_svc.build.configuration.Configuration
    samples: Any  # engine_svc.build.sample_texts.SampleTexts, None for a build without quantization
    sources: tuple[FileEntry, ...]

    @classmethod
    def of(cls, settings: BuildSettings) -> "Build":
        """Downloads the model if necessary, and reads all of its files. Raises ConfigurationError and OSError."""
        configurations = importlib.import_module("engine_svc.build.configuration")
        root = locate(settings.model, settings.revision or None)
        checkpoint = Checkpoint.read(root, name_of(settings.model), settings.pooling, settings.score_tokens)
        configuration = configurations.Configuration.of(root, checkpoint, data_type=settings.data_type)
        return cls(
            settings,
            root,
            checkpoint,
            configuration,
            read_samples(settings),
            hash_files(root, configuration.sources),
        )

    @property
    def described_settings(self) -> Mapping[str, Any]:
        return describe_settings(self.settings)

    @property
    def content_request(self) -> BuildRequest:
        """Identifies the build by the content of the checkpoint, independent of its name."""
        written = {path: hashlib.sha256(content).hexdigest() for path, content in self.configuration.written.items()}
        key = build_key(self.sources, {**self.described_settings, "written": written})
        return BuildRequest(f"sha256:{key}", "", self.described_settings)

    @property
    def requests(self) -> list[BuildRequest]:
        """All requests that this build satisfies."""
        named = make_request(self.settings)
        if named is None:
            return [self.content_request]
        by_commit = replace(named, revision=self.checkpoint.revision or named.revision)
        return [self.content_request, named, *([] if by_commit == named else [by_commit])]

    @property
    def model(self) -> str:
        """The name in the manifest. Leaves out the path of a folder, which differs between machines."""
        is_folder = Path(self.settings.model).expanduser().is_dir()
        return self.root.absolute().name if is_folder else without_secrets(self.settings.model)

    def is_made_in(self, folder: Path) -> bool:
        """Returns whether the artifact in `folder` is this build."""
        manifest = read_manifest(folder)
        found = {entry.path: entry.sha256 for entry in manifest.files}
        return (
            manifest.source.files == self.sources
            and manifest.settings == self.described_settings
            and all(
                found.get(path) == hashlib.sha256(content).hexdigest()
                for path, content in self.configuration.written.items()
            )
        )

    def run(self, output: Path) -> Any:
        """Fills the new folder `output`. Returns an engine_svc.build.report.Report, or None. Raises ConfigurationError
        and OSError."""
        jobs = importlib.import_module("engine_svc.build.job")
        samples = importlib.import_module("tokenizer_svc.text.samples")
        settings = self.settings
        output.mkdir(parents=True, exist_ok=True)
        job = jobs.Job(
            root=self.root,
            checkpoint=self.checkpoint,
            configuration=self.configuration,
            model=self.model,
            sources=self.sources,
            settings=self.described_settings,
            data_type=settings.data_type,
            quantization=settings.quantization,
            samples=self.samples,
            compares=settings.report,
            tokenize=partial(samples.tokenize_samples, self.checkpoint, tokens_max=settings.calibration_tokens_max),
            file_bytes_max=settings.file_bytes_max,
            gpus=settings.builder_gpus,
            cores=settings.cores or usable_cores(),
        )
        return jobs.run(job, output)


@dataclass(frozen=True, slots=True)
class Made:
    folder: Path
    is_new: bool
    report: Any  # engine_svc.build.report.Report, None without a comparison


def build_into_cache(build: Build, cache: ArtifactCache, store: Store | None = None) -> Made:
    """Fetches the build if the store has it. Raises ConfigurationError and OSError."""
    request = build.content_request
    with cache.building(request.key) as place:
        found = None if build.settings.force else find(build, cache, store)
        if found is not None:
            cache.remember(found.name, build.requests)
            return Made(found, False, read_report(found))
        report = build.run(place)
        return Made(cache.adopt(place, build.requests), True, report)


def find(build: Build, cache: ArtifactCache, store: Store | None) -> Path | None:
    """Returns the build's folder in the cache, after fetching it from the store if necessary."""
    key = build.content_request.key
    if found := cache.find(key):
        return found
    digest = store.find(key) if store else None
    return cache.fetch(store, digest, name=build.model) if store and digest else None


def read_report(folder: Path) -> Any:
    """Returns the comparison in the manifest of an artifact, or None."""
    values = read_manifest(folder).report
    return None if values is None else importlib.import_module("engine_svc.build.report").Report.from_json(values)


def make_request(settings: BuildSettings) -> BuildRequest | None:
    """Returns a request by model name, which needs no checkpoint, or None for a folder, whose content may change.
    Raises ConfigurationError if the texts for calibration cannot be read."""
    if Path(settings.model).expanduser().is_dir():
        return None
    asked = {name: value for name, value in describe_settings(settings).items() if name not in NOT_IN_REQUEST}
    return BuildRequest(without_secrets(settings.model), settings.revision, asked)


def describe_settings(settings: BuildSettings) -> Mapping[str, Any]:
    """Returns the settings that change the bytes of a build, as JSON values. Raises ConfigurationError."""
    samples = read_samples(settings)
    calibration = None
    if samples is not None:
        texts = "\n".join((*samples.calibration, "", *samples.held_out))
        calibration = {
            "texts": hashlib.sha256(texts.encode()).hexdigest(),
            "tokens_max": settings.calibration_tokens_max,
        }
    return without_absent(
        {
            "dtype": settings.dtype,
            "quantization": settings.quantization,
            "pooling": None if settings.pooling == BuildSettings.pooling else settings.pooling,
            "score_tokens": None if settings.score_tokens == BuildSettings.score_tokens else settings.score_tokens,
            "calibration": calibration,
            "report": True if calibration and settings.report else None,
            "file_bytes_max": settings.file_bytes_max,
        }
    )


def read_samples(settings: BuildSettings) -> Any:
    """Returns None without quantization, which needs no texts."""
    if settings.quantization == NO_QUANT:
        return None
    texts = importlib.import_module("engine_svc.build.sample_texts")
    return texts.read_sample_texts(settings.calibration_texts, settings.calibration_size)


def find_unused_texts(settings: BuildSettings) -> str:
    """Returns why --calibration-texts has no effect, or "" if it has one or is not set."""
    if settings.calibration_texts is None:
        return ""
    if settings.quantization == NO_QUANT:
        return "--calibration-texts has no effect without --quantization"
    quantizer = importlib.import_module("engine_svc.build.quantizer")
    if settings.report or quantizer.needs_calibration(settings.quantization):
        return ""
    return f"--calibration-texts has no effect: {settings.quantization} needs no calibration, and there is no report"


def hash_files(root: Path, paths: Sequence[str]) -> tuple[FileEntry, ...]:
    """Hashes several files in parallel. Raises OSError."""
    size = sum((root / path).stat().st_size for path in paths)
    with Progress("reading the checkpoint", size) as progress, ThreadPoolExecutor(usable_cores()) as pool:

        def hash_one(path: str) -> FileEntry:
            entry = describe_file(root, path)
            progress.add(entry.size)
            return entry

        return tuple(pool.map(hash_one, paths))
