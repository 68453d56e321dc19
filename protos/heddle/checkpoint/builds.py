"""Recognises checkpoint folders that `heddle build` made. Called for every folder that is served."""

from pathlib import Path


def check_build(folder: Path) -> str | None:
    """Returns the commit of the source of a build, and None for a folder that is no build. Raises CheckpointError if
    files of the build are missing or have a wrong size."""
    if not (folder / "manifest.json").is_file():
        return None
    from heddle.artifacts.manifest import check_sizes, read_manifest_if_artifact

    manifest = read_manifest_if_artifact(folder)
    if manifest is None:
        return None
    check_sizes(folder, manifest)
    return manifest.source.revision


def read_revision(folder: Path) -> str:
    """Returns the commit of a snapshot in the hub's cache or of the source of a build, and "" for other folders."""
    return folder.name if folder.parent.name == "snapshots" else check_build(folder) or ""
