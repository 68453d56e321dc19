"""`heddle build`: makes an artifact of a model, in a folder or in Heddle's cache, and publishes it to a store."""

import errno
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType

from heddle.artifacts.artifact_cache import ArtifactCache
from heddle.artifacts.manifest import ManifestError, check_sizes, is_artifact, read_manifest, verify
from heddle.artifacts.store import Store
from heddle.checkpoint.cache import cache_folder
from heddle.cli.build_settings import SHARED_WITH_SERVE, BuildSettings, read_build_settings
from heddle.cli.building import Build, Made, build_into_cache, find_unused_texts, read_report
from heddle.cli.commands import LIBRARY_OF_EXTRA, missing_extras
from heddle.cli.config_command import configure_serve, print_mistakes, set_credentials, split_config_file
from heddle.cli.interrupts import leave_on_signal
from heddle.cli.output_folder import has_content, replace_folder, temporary_folder
from heddle.progress import Progress, spelled_size
from heddle.rpc.settings import EXIT_MISCONFIGURED, ConfigurationError

PROGRAM = "heddle build"


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Returns the exit code."""
    start = time.monotonic()
    before = signal.signal(signal.SIGTERM, stop)
    try:
        settings = read_settings(argv, environ)
        if settings.verify is not None:
            verify_build(settings.verify)
            return 0
        check_libraries()
        check_output(settings.output)
        if unused := find_unused_texts(settings):
            tell(unused)
        store = Store.at(settings.store) if settings.store else None
        with leave_on_signal():
            if store is not None:
                store.check_place(may_be_new=True)
            build = Build.of(settings)
        made = make(build, store)
        print(describe(build, made, time.monotonic() - start), flush=True)
        if made.report is not None and (warning := made.report.warning()):
            tell(warning)
        if store is not None:
            published = store.publish(made.folder, build.requests)
            print(f"  store    {store.name}, build {published.digest}", flush=True)
    except ConfigurationError as error:
        print_mistakes(error, PROGRAM)
        return EXIT_MISCONFIGURED
    except BrokenPipeError:  # for heddle.cli.closed_output
        raise
    except OSError as error:
        print(f"{PROGRAM}: {explain(error)}", file=sys.stderr)
        return 1
    finally:
        signal.signal(signal.SIGTERM, before)
    return 0


def stop(number: int, frame: FrameType | None) -> None:
    """Exits like Ctrl-C, so that temporary files are removed."""
    raise SystemExit(128 + number)


def explain(error: OSError) -> str:
    if error.filename is None:
        return " ".join(str(error).split())
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"no space is left in {Path(error.filename).parent}"
    return f"{error.filename}: {error.strerror}"


def read_settings(argv: Sequence[str], environ: Mapping[str, str]) -> BuildSettings:
    """Ends the process after --help. Raises ConfigurationError."""
    path, flags = split_config_file(argv)
    if path is None:
        return read_build_settings(flags, environ, {})
    try:
        configured = configure_serve(path, [], environ)
    except ModuleNotFoundError as error:
        raise ConfigurationError(f"a config file needs {error.name}; pip install 'heddle[local]'") from None
    if configured.loaded.without_effect:
        tell(f"{configured.loaded.path}: without effect here: {', '.join(configured.loaded.without_effect)}")
    set_credentials(configured)
    stated = {name: getattr(configured.settings, name) for name in SHARED_WITH_SERVE}
    return read_build_settings(flags, configured.environ, stated)


def check_libraries() -> None:
    """Raises ConfigurationError."""
    if missing := missing_extras([extra for extra in LIBRARY_OF_EXTRA if extra != "gateway"]):
        raise ConfigurationError(
            f"libraries of the {' and '.join(missing)} are not installed: pip install 'heddle[local]'"
        )


def verify_build(folder: Path) -> None:
    """Raises ManifestError if the folder differs from its manifest."""
    manifest = read_manifest(folder)
    with Progress("reading the build", manifest.size) as progress:
        verify(folder, manifest, progress.add)
    print(f"{folder} is complete and unchanged: {len(manifest.files)} files, {spelled_size(manifest.size)}", flush=True)


def check_output(output: Path | None) -> None:
    """Raises ConfigurationError if a build cannot go there. Called before the model is downloaded."""
    if output is None or not output.exists():
        return
    if not output.is_dir():
        raise ConfigurationError(f"--output {output} is a file")
    if has_content(output) and not is_artifact(output):
        raise ConfigurationError(f"--output {output} is not empty and not a Heddle build; nothing was changed")


def make(build: Build, store: Store | None) -> Made:
    output = build.settings.output
    if output is None:
        return build_into_cache(build, ArtifactCache(cache_folder(), tell), store)
    if store is not None:
        store.find(build.content_request.key)  # an unreachable store fails before the build, not after it
    if is_usable(output, build):
        return Made(output, False, read_report(output))
    with temporary_folder(output) as place:
        report = build.run(place)
        if not is_usable(output, build):  # another process may have built there meanwhile
            replace_folder(output, place)
    return Made(output, True, report)


def tell(line: str) -> None:
    print(f"{PROGRAM}: {line}", file=sys.stderr, flush=True)


def is_usable(output: Path, build: Build) -> bool:
    """Returns whether `output` already is this build. Raises ConfigurationError if it must not be overwritten."""
    check_output(output)
    if not is_artifact(output):
        return False
    if build.settings.force:
        return False
    try:
        check_sizes(output, read_manifest(output))
        is_same = build.is_made_in(output)
    except ManifestError as error:
        raise ConfigurationError(f"{error} (--force replaces it)") from None
    if not is_same:
        raise ConfigurationError(f"--output {output} is a different build (--force replaces it)")
    return True


def describe(build: Build, made: Made, seconds: float) -> str:
    manifest = read_manifest(made.folder)
    before = sum(entry.size for entry in manifest.source.files)
    return "\n".join(
        [
            f"{build.model} {f'was built in {seconds:.1f} s' if made.is_new else 'was already built'}:",
            f"  folder   {made.folder.absolute()}",
            f"  bytes    {spelled_size(manifest.size)}, from {spelled_size(before)}",
            *([] if made.report is None else made.report.to_table().splitlines()),
        ]
    )
