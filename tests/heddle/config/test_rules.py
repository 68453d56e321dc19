"""What goes together: base model, quantization, card and source."""

from pathlib import Path
from typing import get_args, get_type_hints

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine_svc.settings import EngineSettings
from heddle.cli.serve_settings import ServeSettings
from heddle.config.rules import QUANTIZATIONS
from heddle.config.schema import ACCELERATORS
from tests.heddle.config.configs import BUILD, config_with, find_mistakes

REPOSITORY = f"{BUILD}.checkpoint_repository"
FP8_CARDS = {"L4", "L40S", "H100", "H100_40GB", "H200", "B200", "B300", "GB300", "RTX_PRO_6000"}
FP4_CARDS = {"B200", "B300", "GB300", "RTX_PRO_6000"}
NEVER = ("weights_kv_int8", "weights_int4", "weights_int4_kv_int8")


def refusal(folder: Path, fields: dict[str, object]) -> str:
    """The mistakes that are reported; "" for a valid config."""
    return "\n".join(find_mistakes(folder, config_with(fields)))


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    base_model=st.sampled_from(["encoder", "encoder_bert"]),
    quantization=st.sampled_from([*QUANTIZATIONS, *NEVER]),
    card=st.none() | st.sampled_from(sorted(ACCELERATORS)),
    count=st.integers(1, 8),
)
def test_quantization_base_model_and_card_go_together_as_on_baseten(
    tmp_path: Path, base_model: str, quantization: str, card: str | None, count: int
) -> None:
    fields: dict[str, object] = {f"{BUILD}.base_model": base_model, f"{BUILD}.quantization_type": quantization}
    if card:
        fields["resources.accelerator"] = card if count == 1 else f"{card}:{count}"
    if base_model == "encoder_bert":
        expected = quantization == "no_quant"
    else:
        cards = {"fp8": FP8_CARDS, "fp4": FP4_CARDS}.get(quantization[:3], set(ACCELERATORS) - {"T4", "V100"})
        expected = quantization not in NEVER and (card is None or card in cards)
    assert bool(refusal(tmp_path, fields)) is not expected


@pytest.mark.parametrize("quantization", NEVER)
def test_a_quantization_that_is_not_supported_names_those_that_are(tmp_path: Path, quantization: str) -> None:
    supported = "no_quant, fp8, fp8_kv, fp8_mlp_only, fp4, fp4_kv, fp4_mlp_only, weights_int8, smooth_quant"
    line = f"quantization_type must be one of {supported}, not {quantization}, which Heddle does not support"
    assert line in refusal(tmp_path, {f"{BUILD}.quantization_type": quantization})


def test_a_wrong_quantization_is_offered_only_those_that_are_supported(tmp_path: Path) -> None:
    line = refusal(tmp_path, {f"{BUILD}.quantization_type": "fp9"})
    assert line.endswith("weights_int8, smooth_quant, not fp9")
    assert not any(quantization in line for quantization in NEVER)


def test_the_engine_takes_every_quantization_that_a_config_may_name() -> None:
    assert set(get_args(get_type_hints(EngineSettings)["quantization"])) == set(QUANTIZATIONS)
    assert set(get_args(get_type_hints(ServeSettings)["quantization"])) == set(QUANTIZATIONS)


ADDRESSES = {
    "S3": ["s3://bucket/models/m", "bucket/models/m"],
    "GCS": ["gs://bucket/m", "bucket/m"],
    "AZURE": ["azure://account/container/m", "az://container/m", "https://a23.blob.core.windows.net/c/m", "c/m"],
    "REMOTE_URL": ["https://host/m.tar.gz", "http://host/folder/"],
}


@pytest.mark.parametrize("source", ADDRESSES)
def test_a_source_takes_its_own_addresses(tmp_path: Path, source: str) -> None:
    for repo in {address for addresses in ADDRESSES.values() for address in addresses if "://" in address}:
        line = refusal(tmp_path, {f"{REPOSITORY}.source": source, f"{REPOSITORY}.repo": repo})
        assert bool(line) is (repo not in ADDRESSES[source])
        assert not line or f"{REPOSITORY}.repo must be an address such as" in line
    for repo in ADDRESSES[source]:
        assert not refusal(tmp_path, {f"{REPOSITORY}.source": source, f"{REPOSITORY}.repo": repo})


@pytest.mark.parametrize("source", ["S3", "REMOTE_URL"])
def test_a_malformed_address_is_named(tmp_path: Path, source: str) -> None:
    fields: dict[str, object] = {f"{REPOSITORY}.source": source, f"{REPOSITORY}.repo": "ftp://host/m"}
    assert f"{REPOSITORY}.repo: ftp://host/m is not an address" in refusal(tmp_path, fields)


def test_the_refusal_of_a_checkpoint_on_baseten_says_what_to_do(tmp_path: Path) -> None:
    line = refusal(tmp_path, {f"{REPOSITORY}.source": "BASETEN_TRAINING"})
    assert line == (
        f"{REPOSITORY}.source BASETEN_TRAINING is only on Baseten: "
        f"download the checkpoint with truss train, and set source: LOCAL"
    )


def test_an_address_has_no_revision(tmp_path: Path) -> None:
    bucket: dict[str, object] = {f"{REPOSITORY}.source": "S3", f"{REPOSITORY}.repo": "s3://bucket/m"}
    assert not refusal(tmp_path, {**bucket, f"{REPOSITORY}.revision": "main"})
    line = refusal(tmp_path, {**bucket, f"{REPOSITORY}.revision": "v2"})
    assert line == f"{REPOSITORY}.revision must be unset for source S3, not v2"


def test_a_card_names_those_that_fit(tmp_path: Path) -> None:
    fields: dict[str, object] = {"resources.accelerator": "A10G", f"{BUILD}.quantization_type": "fp8"}
    assert "fp8 needs one of L4, L40S, H100" in refusal(tmp_path, fields)
    assert "not T4, which serves encoder_bert only" in refusal(tmp_path, {"resources.accelerator": "T4"})
    assert not refusal(tmp_path, {"resources.accelerator": "T4", f"{BUILD}.base_model": "encoder_bert"})
    for wrong in ("L4:" + "9" * 5000, "A10", "L4:0", "L4:", "L4:two", "l4"):
        line = refusal(tmp_path, {"resources.accelerator": wrong})
        assert line.startswith("resources.accelerator must be one of T4,")
        assert line.endswith(f"not {wrong}")


@pytest.mark.parametrize("repo", ["/models/x", "./x", "a/b/c", "a--b/c", "a b", "../x", "-" * 97])
def test_a_hub_name_that_is_none_points_to_local_folders(tmp_path: Path, repo: str) -> None:
    assert f"not {repo}; for a folder" in refusal(tmp_path, {f"{REPOSITORY}.repo": repo})
    assert not refusal(tmp_path, {f"{REPOSITORY}.repo": repo, f"{REPOSITORY}.source": "LOCAL"})


def test_a_folder_has_no_revision(tmp_path: Path) -> None:
    folder: dict[str, object] = {f"{REPOSITORY}.source": "LOCAL"}
    assert not refusal(tmp_path, {**folder, f"{REPOSITORY}.revision": "main"})
    line = refusal(tmp_path, {**folder, f"{REPOSITORY}.revision": "v2"})
    assert line == f"{REPOSITORY}.revision must be unset for a folder, not v2"


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("AUTO_TRUNCATE", "maybe", "must be one of true, 1, false, 0, not maybe"),
        ("DTYPE", "int8", "must be one of float16, float32, bfloat16, not int8"),
        ("POOLING", "max", "must be one of cls, mean, splade, last-token, not max"),
        ("MAX_BATCH_TOKENS", "many", "must be a whole number above 0, not many"),
        ("MAX_CONCURRENT_REQUESTS", 0, "must be a whole number above 0, not 0"),
        ("PAYLOAD_LIMIT", 268_435_457, "must be at most 268435456, not 268435457"),
        ("LOG_LEVEL", "loud", "must be one of trace, debug, info, warn, error, not loud"),
        ("HEDDLE_API_KEYS", "a", "must begin with one of HEDDLE_SERVE_,"),
    ],
)
def test_a_wrong_variable_names_itself(tmp_path: Path, name: str, text: object, line: str) -> None:
    assert refusal(tmp_path, {f"environment_variables.{name}": text}).startswith(f"environment_variables.{name} {line}")


def test_there_is_one_default_prompt(tmp_path: Path) -> None:
    both: dict[str, object] = {"environment_variables": {"DEFAULT_PROMPT": "a", "DEFAULT_PROMPT_NAME": "b"}}
    assert refusal(tmp_path, both) == "environment_variables.DEFAULT_PROMPT and DEFAULT_PROMPT_NAME exclude each other"
