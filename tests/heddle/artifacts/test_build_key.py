"""Equal builds have equal keys, and different builds have different ones."""

from heddle.artifacts.build_key import BuildRequest, build_key
from heddle.artifacts.manifest import FileEntry

FILES = [FileEntry("a", 1, "0" * 64), FileEntry("b", 2, "1" * 64)]
SETTINGS = {"quantization": "fp8", "calibration": {"size": 32}}


def test_a_build_has_one_key() -> None:
    key = build_key(FILES, SETTINGS)
    assert build_key(FILES[::-1], {**dict(reversed(SETTINGS.items())), "dtype": None}) == key
    assert len(key) == 64


def test_each_input_of_a_build_changes_its_key() -> None:
    changed = [FILES[0], FileEntry("b", 2, "2" * 64)]
    keys = [
        build_key(FILES, SETTINGS),
        build_key(FILES[:1], SETTINGS),
        build_key(changed, SETTINGS),
        build_key(FILES, {**SETTINGS, "quantization": "fp4"}),
        build_key(FILES, {**SETTINGS, "calibration": {"size": 64}}),
    ]
    assert len(set(keys)) == len(keys)


def test_each_field_of_a_request_changes_its_key() -> None:
    requests = [
        BuildRequest("owner/name", "", SETTINGS),
        BuildRequest("owner/other", "", SETTINGS),
        BuildRequest("owner/name", "main", SETTINGS),
        BuildRequest("owner/name", "", {}),
    ]
    assert len({request.key for request in requests}) == len(requests)
    assert BuildRequest("owner/name", "", {**SETTINGS, "dtype": None}).key == requests[0].key
