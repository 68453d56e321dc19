"""Archives of a model are unpacked, and archives that are not safe to unpack are refused."""

import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from heddle.checkpoint.json_files import CheckpointError
from heddle.checkpoint.sources import archives
from heddle.checkpoint.sources.archives import unpack
from tests.heddle.checkpoint.sources.models import WEIGHTS, files_in

SHOWN = "https://host/model.tar"


def pack_tar(folder: Path, path: Path, mode: str = "w", top: str = "") -> Path:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                tar.add(file, f"{top}{file.relative_to(folder)}")
    return path


def pack_zip(folder: Path, path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
        for file in sorted(folder.rglob("*")):
            zipped.write(file, f"model/{file.relative_to(folder)}")
    return path


def pack_zstandard(folder: Path, path: Path) -> Path:
    plain = pack_tar(folder, path.with_suffix(".plain"))
    path.write_bytes(zstandard.compress(plain.read_bytes()))
    return path


PACKERS: dict[str, Callable[[Path, Path], Path]] = {
    "tar": pack_tar,
    "tar with ./": lambda folder, path: pack_tar(folder, path, top="./"),
    "tar with a folder": lambda folder, path: pack_tar(folder, path, top="a/b/"),
    "gzip": lambda folder, path: pack_tar(folder, path, "w:gz"),
    "bzip2": lambda folder, path: pack_tar(folder, path, "w:bz2"),
    "xz": lambda folder, path: pack_tar(folder, path, "w:xz"),
    "zstandard": pack_zstandard,
    "zip": pack_zip,
}


@pytest.mark.parametrize("kind", PACKERS)
def test_every_kind_of_archive_is_unpacked(model: Path, tmp_path: Path, kind: str) -> None:
    unpacked = unpack(PACKERS[kind](model, tmp_path / "packed"), tmp_path / "target", shown=SHOWN)
    assert files_in(unpacked) == files_in(model)
    assert (unpacked / WEIGHTS).read_bytes() == (model / WEIGHTS).read_bytes()


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, link
    return made


def refusal(tmp_path: Path, *members: tarfile.TarInfo, content: bytes = b"") -> str:
    with tarfile.open(tmp_path / "packed", "w") as tar:
        for each in members:
            each.size = len(content) if each.isreg() else 0
            tar.addfile(each, io.BytesIO(content))
    with pytest.raises(CheckpointError) as caught:
        unpack(tmp_path / "packed", tmp_path / "in" / "target", shown=SHOWN)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "outside").exists()
    assert not list((tmp_path / "in" / "target").glob("*.json"))
    return str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (member("/tmp/outside"), "'/tmp/outside', which leads out of the folder"),
        (member("../../outside"), "'../../outside', which leads out of the folder"),
        (member("a/../../outside"), "which leads out of the folder"),
        (member("a\\..\\outside"), "which leads out of the folder"),
        (member("link", tarfile.SYMTYPE, "/etc/passwd"), "the link link, which leads out of the folder"),
        (member("a/link", tarfile.SYMTYPE, "../../outside"), "the link a/link, which leads out of the folder"),
        (member("link", tarfile.LNKTYPE, "../outside"), "the link link, which leads out of the folder"),
        (member("link", tarfile.SYMTYPE, "nothing"), "the link link to nothing, which is no file in it"),
        (member("link", tarfile.SYMTYPE, "link"), "the link link to link, which is no file in it"),
        (member("pipe", tarfile.FIFOTYPE), "pipe, which is neither a file nor a folder"),
        (member("disk", tarfile.BLKTYPE), "disk, which is neither a file nor a folder"),
    ],
    ids=lambda value: "" if isinstance(value, str) else f"{value.name} {value.linkname}",
)
def test_nothing_is_written_outside(tmp_path: Path, wrong: tarfile.TarInfo, reason: str) -> None:
    assert reason in refusal(tmp_path, wrong)


def test_a_link_is_never_followed(tmp_path: Path) -> None:
    """A careless program would write the second member through the link."""
    (tmp_path / "in" / "target" / "inner").mkdir(parents=True)
    link, through = member("a", tarfile.SYMTYPE, "inner"), member("a/notes.txt")
    assert "the link a to inner, which is no file in it" in refusal(tmp_path, link, through)
    assert not list((tmp_path / "in" / "target" / "inner").iterdir())


def test_a_link_within_the_archive_becomes_the_file(tmp_path: Path) -> None:
    """The hub's cache has such links, and some people pack it."""
    with tarfile.open(tmp_path / "packed", "w") as tar:
        blob = member("m/blobs/1")
        blob.size = 2
        tar.addfile(blob, io.BytesIO(b"{}"))
        tar.addfile(member("m/snapshots/2/config.json", tarfile.SYMTYPE, "../../blobs/1"))
    with pytest.raises(CheckpointError, match=r"no config.json in it, but blobs, snapshots"):
        unpack(tmp_path / "packed", tmp_path / "target", shown=SHOWN)
    linked = tmp_path / "target" / "m" / "snapshots" / "2" / "config.json"
    assert linked.read_text() == "{}"
    assert not linked.is_symlink()


def test_an_archive_that_grows_without_bounds_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "BYTES_ALWAYS_ALLOWED", 1000)
    monkeypatch.setattr(archives, "EXPANSION_MAX", 3)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_bytes(bytes(1_000_000))
    for pack in (PACKERS["gzip"], PACKERS["zstandard"], PACKERS["zip"]):
        with pytest.raises(CheckpointError, match="far more than its own"):
            unpack(pack(tmp_path / "model", tmp_path / "packed"), tmp_path / "target", shown=SHOWN)


def test_an_archive_of_countless_files_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MEMBERS_MAX", 10)
    assert "holds more than 10 files" in refusal(tmp_path, *(member(f"{index}") for index in range(11)))


def test_an_archive_that_does_not_fit_on_the_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "free_bytes", lambda _: 10)
    assert "needs 100 bytes, and the disk has 10 bytes left" in refusal(tmp_path, member("a"), content=bytes(100))


@pytest.mark.parametrize("kind", ["gzip", "xz", "bzip2", "zstandard", "zip", "tar"])
def test_a_damaged_archive_is_named(model: Path, tmp_path: Path, kind: str) -> None:
    packed = PACKERS[kind](model, tmp_path / "packed")
    packed.write_bytes(packed.read_bytes()[: packed.stat().st_size // 2])
    with pytest.raises(CheckpointError, match=f"{SHOWN} is .*damaged"):
        unpack(packed, tmp_path / "target", shown=SHOWN)


def test_a_zip_may_hold_no_links(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "packed", "w") as zipped:
        link = zipfile.ZipInfo("config.json")
        link.external_attr = 0o120777 << 16
        zipped.writestr(link, "/etc/passwd")
    with pytest.raises(CheckpointError, match="which is a link"):
        unpack(tmp_path / "packed", tmp_path / "target", shown=SHOWN)


def test_an_archive_of_something_else_says_what_it_holds(tmp_path: Path) -> None:
    assert "holds no model: there is no config.json in it, but a.txt, b.txt" in refusal(
        tmp_path, member("b.txt"), member("a.txt")
    )
