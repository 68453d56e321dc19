"""`heddle serve` chooses a build from the store, a current one from the cache, or makes one."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from heddle.artifacts.artifact_cache import ArtifactCache
from heddle.artifacts.manifest import read_manifest
from heddle.artifacts.store import Store
from heddle.checkpoint.json_files import CheckpointError
from heddle.cli import served_build
from heddle.cli.build_settings import BuildSettings
from heddle.cli.building import Build, build_into_cache, make_request
from heddle.cli.serve_settings import NAME_VARIABLES, ServeSettings
from heddle.cli.served_build import needs_build, to_flags, use_build
from heddle.remote.errors import StoreError
from heddle.rpc.settings import load
from tests.checkpoints import write_bert, write_old_modules, write_tokenizer
from tests.hub import Hub

NAME = "owner/small"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with one model, and an empty cache."""
    write_bert(tmp_path / "model")
    write_tokenizer(tmp_path / "model")
    write_old_modules(tmp_path / "model", ["Transformer", "Pooling"], {"pooling_mode_mean_tokens": True})
    monkeypatch.setenv("HEDDLE_CACHE", str(tmp_path / "cache"))
    with Hub({NAME: tmp_path / "model"}) as hub:
        yield hub.use(monkeypatch)


@pytest.fixture(autouse=True)
def builds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[BuildSettings]:
    """Records builds, and makes them in this process, which has already imported torch."""
    made: list[BuildSettings] = []

    def run(settings: BuildSettings, _: Mapping[str, str]) -> None:
        made.append(settings)
        build_into_cache(Build.of(settings), ArtifactCache(tmp_path / "cache"))

    monkeypatch.setattr(served_build, "run_build", run)
    return made


@pytest.fixture
def settings(tmp_path: Path) -> ServeSettings:
    return ServeSettings(model=NAME, store=str(tmp_path / "store"), publish=True)


def find(settings: ServeSettings, **environ: str) -> Path:
    found, _ = use_build(settings, environ, lambda _: None)
    return Path(found.model)


def test_a_build_is_made_once_and_published(
    hub: Hub, settings: ServeSettings, builds: list[BuildSettings], tmp_path: Path
) -> None:
    folder = find(settings)
    assert read_manifest(folder).source.revision == hub.commit_of(NAME)
    assert find(settings) == folder
    assert len(builds) == 1
    # Requests by settings, by commit and by content.
    store = Store.at(settings.store)
    requests = Build.of(builds[0]).requests
    assert {store.find(request.key) for request in requests} == {folder.name}
    assert len(list((tmp_path / "store" / "refs").iterdir())) == len(requests) == 3


def test_the_build_is_served_under_the_models_name(hub: Hub, settings: ServeSettings) -> None:
    stated = replace(settings, revision=hub.commit_of(NAME), pooling="cls", quantization="no_quant", dtype="float16")
    found, environ = use_build(stated, {"A": "b"}, lambda _: None)
    assert (found.revision, found.pooling, found.dtype) == ("", "auto", "float16")
    assert environ == {"A": "b", **dict.fromkeys(NAME_VARIABLES, NAME)}
    own = dict.fromkeys(NAME_VARIABLES, "mine")
    assert use_build(stated, own, lambda _: None)[1] == own


def test_a_store_answers_without_the_hub(
    hub: Hub, settings: ServeSettings, builds: list[BuildSettings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = find(settings)
    count = len(hub.requests)
    monkeypatch.setenv("HEDDLE_CACHE", str(tmp_path / "other"))
    elsewhere = find(settings)
    assert (elsewhere.name, elsewhere.parents[1]) == (folder.name, tmp_path / "other")
    assert find(replace(settings, revision=hub.commit_of(NAME))) == elsewhere
    assert (len(hub.requests), len(builds)) == (count, 1)


def test_a_store_keeps_what_was_built_while_the_branch_moves(hub: Hub, settings: ServeSettings, tmp_path: Path) -> None:
    folder = find(settings)
    write_bert(tmp_path / "model", hidden_act="relu")
    assert find(settings) == folder


def test_a_cached_build_follows_the_branch(
    hub: Hub, settings: ServeSettings, builds: list[BuildSettings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served_build, "needs_build", lambda _: True)  # as if the format needed calibration
    lines: list[str] = []
    settings = replace(settings, store="", publish=False)
    old, commit = find(settings), hub.commit_of(NAME)
    write_bert(tmp_path / "model", hidden_act="relu")
    found, _ = use_build(settings, {}, lines.append)
    assert (Path(found.model) != old, len(builds)) == (True, 2)
    assert lines[0] == f"{NAME} has changed on the hub since it was built"
    # A config that states the commit gets its build without asking the hub.
    count = len(hub.requests)
    assert find(replace(settings, revision=commit)) == old
    assert len(hub.requests) == count


def test_a_cached_build_is_served_if_nothing_else_can_be_reached(
    hub: Hub, settings: ServeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = find(settings)
    monkeypatch.setattr("heddle.remote.downloads.FIRST_WAIT_S", 0.01)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    lines: list[str] = []
    away = replace(settings, store="http://127.0.0.1:9/store", publish=False)
    assert use_build(away, {}, lines.append)[0].model == str(folder)
    assert "cannot be reached" in lines[0]
    assert lines[0].endswith("; serving the build in the cache")
    with pytest.raises(StoreError, match="cannot be reached"):
        find(replace(away, model="owner/other"))


def test_a_folder_is_identified_by_its_content(
    hub: Hub, settings: ServeSettings, builds: list[BuildSettings], tmp_path: Path
) -> None:
    settings = replace(settings, model=str(tmp_path / "model"))
    folder = find(settings)
    (tmp_path / "model").rename(tmp_path / "moved")
    settings = replace(settings, model=str(tmp_path / "moved"))
    assert (find(settings), len(builds)) == (folder, 1)
    write_bert(tmp_path / "moved", hidden_act="relu")
    assert find(settings) != folder


def test_an_unknown_model_is_reported(hub: Hub, settings: ServeSettings) -> None:
    with pytest.raises(CheckpointError, match="the hub has no public model nobody/nothing"):
        find(replace(settings, model="nobody/nothing"))


def test_a_store_that_does_not_exist_is_an_error(
    hub: Hub, settings: ServeSettings, builds: list[BuildSettings], tmp_path: Path
) -> None:
    mistyped = replace(settings, publish=False)
    with pytest.raises(StoreError, match=f"the store {tmp_path}/store cannot be used: there is no such folder"):
        find(mistyped)
    assert not builds
    (tmp_path / "store").mkdir()
    find(mistyped)
    assert len(builds) == 1


def test_an_unavailable_model_names_hub_and_store(
    hub: Hub, settings: ServeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(CheckpointError, match=f"cannot be reached: .*; and {settings.store} has no build of it"):
        find(settings)


def test_only_what_needs_a_build_gets_one(hub: Hub, settings: ServeSettings) -> None:
    assert not needs_build(ServeSettings(model=NAME))
    assert not needs_build(ServeSettings(model=NAME, quantization="fp8"))
    assert not needs_build(replace(settings, engine="simulated"))
    assert needs_build(settings)
    assert not needs_build(replace(settings, model=str(find(settings))))


def test_settings_that_change_the_bytes_change_the_request() -> None:
    changed = [
        BuildSettings(NAME),
        BuildSettings(NAME, dtype="float16"),
        BuildSettings(NAME, quantization="fp8"),
        BuildSettings(NAME, pooling="cls"),
        BuildSettings(NAME, revision="v2"),
    ]
    requests = [make_request(settings) for settings in changed]
    assert len({request.key for request in requests if request}) == len(changed)


def test_requests_do_not_depend_on_file_size_or_report() -> None:
    plain = BuildSettings(NAME, quantization="weights_int8")
    assert make_request(replace(plain, report=False, file_gb_max=1.0)) == make_request(plain)


def test_flags_reproduce_the_settings() -> None:
    settings = BuildSettings(
        model=NAME, score_tokens="-1,2", calibration_texts=Path("a b"), report=False, file_gb_max=0.5, cores=3
    )
    assert load(BuildSettings, to_flags(settings), {}, prog="heddle build", env_prefix="HEDDLE_BUILD_") == settings
