"""What a config file may say: the seed's snippets, every range, every misspelling; and the line for each mistake."""

from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from heddle.config.loading import ConfigFileError, load_config
from heddle.config.schema import TrussConfig
from tests.heddle.config.configs import BUILD, RUNTIME, SEED, config_with, find_mistakes, load

COMPLETE = ("embedding", "reranking", "classification", "entities", "key_options")
PARTS = ("builders", "token_limit")

REPOSITORY = f"{BUILD}.checkpoint_repository"
CALIBRATION = f"{BUILD}.quantization_config"

# Least and greatest value of each whole number, None for no limit, and what it must be a multiple of.
RANGES: dict[str, tuple[int, int | None, int]] = {
    f"{BUILD}.max_num_tokens": (64, 131_072, 64),
    f"{BUILD}.max_batch_size": (1, 2048, 1),
    f"{BUILD}.max_seq_len": (1, 1_048_576, 1),
    f"{BUILD}.max_beam_width": (1, 1, 1),
    f"{BUILD}.num_builder_gpus": (1, None, 1),
    f"{BUILD}.tensor_parallel_count": (1, None, 1),
    f"{CALIBRATION}.calib_size": (64, 16_384, 64),
    f"{CALIBRATION}.calib_max_seq_length": (64, 16_384, 64),
    f"{RUNTIME}.request_default_max_tokens": (1, None, 1),
}

examples = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def mistakes_of(folder: Path, fields: dict[str, Any]) -> list[str]:
    return find_mistakes(folder, config_with(fields))


@pytest.mark.parametrize("name", COMPLETE)
def test_the_seeds_configurations_are_valid_as_they_stand(name: str) -> None:
    assert not load_config(SEED / f"{name}.yaml").without_effect


@pytest.mark.parametrize("name", PARTS)
def test_a_part_of_a_configuration_names_what_it_lacks(name: str) -> None:
    path = SEED / f"{name}.yaml"
    with pytest.raises(ConfigFileError) as caught:
        load_config(path)
    assert str(caught.value).splitlines() == [
        f"{path}: {BUILD}.base_model is required",
        f"{path}: {REPOSITORY} is required",
    ]


def test_a_folder_stands_for_its_config_yaml(tmp_path: Path) -> None:
    load(tmp_path, {"model_name": "a"})
    assert load_config(tmp_path).config.model_name == "a"


@examples
@given(place=st.sampled_from(sorted(RANGES)), data=st.data())
def test_a_whole_number_is_accepted_in_its_range_only(tmp_path: Path, place: str, data: st.DataObject) -> None:
    least, greatest, step = RANGES[place]
    limits = [limit + offset for limit in (least, greatest or least) for offset in (-step, -1, 0, 1, step)]
    number = data.draw(st.sampled_from(limits) | st.integers(-10, 3000).map(lambda steps: steps * step))
    mistakes = mistakes_of(tmp_path, {place: number})
    if least <= number <= (greatest or number) and number % step == 0:
        assert not mistakes
    else:
        (mistake,) = mistakes
        assert mistake.startswith(f"{place} must be ")
        assert mistake.endswith(f", not {number}")


@pytest.mark.parametrize(
    ("place", "value", "mistake"),
    [
        (f"{BUILD}.max_num_tokens", 100, "must be a multiple of 64, not 100"),
        (f"{BUILD}.max_num_tokens", 131_136, "must be at most 131072, not 131136"),
        (f"{BUILD}.max_num_tokens", "16384", "must be a whole number, not '16384'"),
        (f"{BUILD}.max_num_tokens", True, "must be a whole number, not true"),
        (f"{BUILD}.base_model", "decoder", "must be encoder or encoder_bert, not decoder"),
        (f"{BUILD}.strongly_typed", "yes", "must be true or false, not yes"),
        (f"{BUILD}.checkpoint_repository", "BAAI/bge-m3", "must be a mapping, not BAAI/bge-m3"),
        (f"{REPOSITORY}.repo", "", "must be text that is not empty, not ''"),
        (f"{REPOSITORY}.repo", None, "must be text, not empty"),
        (f"{RUNTIME}.webserver_default_route", "/v1/systemone", "must be /v1/embeddings, /rerank, /predict or "),
        ("trt_llm.inference_stack", "v2", "must be v1, not v2"),
        ("environment_variables", ["A"], "must be a mapping"),
        ("environment_variables.A", None, "must be text"),
        ("model_name", 5, "must be text, not 5"),
        ("model_name", date(2026, 1, 2), "must be text, not 2026-01-02"),
    ],
)
def test_a_wrong_value_names_its_path_and_what_is_allowed(
    tmp_path: Path, place: str, value: object, mistake: str
) -> None:
    (line,) = mistakes_of(tmp_path, {place: value})
    assert line.startswith(f"{place} {mistake}")


def test_all_mistakes_are_reported_at_once_and_secrets_are_not_repeated(tmp_path: Path) -> None:
    fields = {f"{BUILD}.max_num_tokens": 100, f"{BUILD}.max_batch_size": 0, "secrets": {"a": 123_456}}
    mistakes = mistakes_of(tmp_path, fields)
    assert len(mistakes) == 3
    assert "123456" not in "".join(mistakes)


def test_broken_rules_are_reported_together_with_wrong_values(tmp_path: Path) -> None:
    fields = {f"{BUILD}.max_num_tokens": 100, f"{BUILD}.quantization_type": "fp8", "resources.accelerator": "A10G"}
    wrong_value, broken_rule = mistakes_of(tmp_path, fields)
    assert wrong_value.startswith(f"{BUILD}.max_num_tokens must be a multiple")
    assert broken_rule.startswith(f"{BUILD}.quantization_type fp8 needs one of L4, ")
    unknown_source = {f"{REPOSITORY}.source": "GCP", f"{REPOSITORY}.repo": "gs://bucket/model"}
    assert len(mistakes_of(tmp_path, unknown_source)) == 1


def test_names_and_values_do_not_break_the_line(tmp_path: Path) -> None:
    assert mistakes_of(tmp_path, {"environment_variables": {"A\nB": None}}) == [
        "environment_variables.A\\nB must be text"
    ]
    (mistake,) = mistakes_of(tmp_path, {f"{BUILD}.base_model": "a\x1b[2Jb\nc"})
    assert mistake.endswith("not a\\x1b[2Jb\\nc")
    assert set(load(tmp_path, {"un\nknown": 1}).without_effect) == {"un\\nknown"}


def test_a_misspelt_field_is_refused_with_a_suggestion(tmp_path: Path) -> None:
    assert mistakes_of(tmp_path, {f"{BUILD}.max_num_token": 16_384}) == [
        f"{BUILD}.max_num_token is not a field; did you mean max_num_tokens?"
    ]
    fields = {f"{BUILD}.base_modle": "encoder", "resource": {"accelerator": "L4"}}
    assert len(mistakes_of(tmp_path, fields)) == 2


def test_other_unknown_fields_and_fields_without_effect_are_accepted_and_named(tmp_path: Path) -> None:
    fields = {
        "docs": True,
        f"{BUILD}.num_builder_gpus": 4,
        f"{BUILD}.plugin_configuration": {"paged_kv_cache": True},
        f"{BUILD}.quantization_configuration": {"calib_size": 256, "calib_dataset": "a/b"},
        f"{RUNTIME}.enable_chunked_context": True,
        "environment_variables": {"HF_HOME": "/tmp", "AUTO_TRUNCATE": True, "HEDDLE_SERVE_DTYPE": "float32"},
    }
    loaded = load(tmp_path, fields)
    assert set(loaded.without_effect) == {
        "docs",
        f"{BUILD}.plugin_configuration",
        f"{BUILD}.quantization_configuration.calib_dataset",
        f"{RUNTIME}.enable_chunked_context",
        "environment_variables.HF_HOME",
    }


@examples
@given(
    values=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=2)
            | st.dictionaries(
                st.sampled_from(sorted(TrussConfig.model_fields)) | st.text(max_size=5), inner, max_size=3
            )
        ),
        max_leaves=6,
    ),
    place=st.sampled_from(["", "trt_llm", BUILD, REPOSITORY, RUNTIME, "resources", "environment_variables", "secrets"]),
)
def test_whatever_a_file_holds_is_accepted_or_refused_in_lines(tmp_path: Path, values: object, place: str) -> None:
    mistakes = find_mistakes(tmp_path, config_with({place: values}) if place else values)
    assert all(mistakes)


@pytest.mark.parametrize(
    ("content", "mistake"),
    [
        (b"trt_llm: [", "line 1, column 11: "),
        (b"a: 1\nb: 2\na: 3\n", "line 3, column 1: a appears twice"),
        (b"a: {b: [{c: 1, c: 2}]}", "line 1, column 16: c appears twice"),
        (b"a: &x [*x]", "trt_llm is required"),
        (b"? [a]\n: 1\n", "line 1, column 3: found unhashable key"),
        (b"a: 2026-13-45", "month must be in 1..12"),
        (b"[" * 5000, "maximum recursion depth exceeded"),
        (b"", "must be a mapping of fields"),
        (b"- a", "must be a mapping of fields"),
        (b"\xff\xfe\xff", "is not UTF-8 text"),
        (b"a: \x00", "unacceptable character #x0000"),
        (b"a: !!python/object:os.system x", "line 1, column 4: could not determine a constructor"),
    ],
)
def test_a_broken_file_is_reported_in_one_line(tmp_path: Path, content: bytes, mistake: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigFileError) as caught:
        load_config(path)
    assert str(caught.value).startswith(f"{path}: {mistake}")
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigFileError, match=r"other\.yaml: No such file or directory"):
        load_config(tmp_path / "other.yaml")
    with pytest.raises(ConfigFileError, match=r"config\.yaml: No such file or directory"):
        load_config(tmp_path)


def test_a_model_instead_of_a_config_points_to_the_flag(tmp_path: Path) -> None:
    (tmp_path / "config.json").touch()
    with pytest.raises(ConfigFileError, match=f"is a model folder .* use --model {tmp_path}$"):
        load_config(tmp_path)
    with pytest.raises(ConfigFileError, match=r"^BAAI/bge-m3: there is no such .* use --model BAAI/bge-m3$"):
        load_config(Path("BAAI/bge-m3"))


def test_use_gpu_is_not_reported_beside_an_accelerator(tmp_path: Path) -> None:
    assert not load(tmp_path, {"resources.use_gpu": True, "resources.accelerator": "L4"}).without_effect
    for fields in ({"resources.use_gpu": True}, {"resources.use_gpu": False, "resources.accelerator": "L4"}):
        assert list(load(tmp_path, fields).without_effect) == ["resources.use_gpu"]
