"""Targets are grouped by model, and wrong settings are refused."""

import pytest

from http_gateway.settings import GatewaySettings


def test_targets_without_names_serve_any_model() -> None:
    settings = GatewaySettings(tokenizers=("a:1", "unix:/run/x=y", "dns:///pods:2"))
    assert settings.targets_by_model == {"": ["a:1", "unix:/run/x=y", "dns:///pods:2"]}


def test_targets_with_names_are_grouped_by_model() -> None:
    settings = GatewaySettings(tokenizers=("small=a:1", "large=b:2", "small=c:3"))
    assert settings.targets_by_model == {"small": ["a:1", "c:3"], "large": ["b:2"]}


@pytest.mark.parametrize(
    "wrong",
    [
        {"tokenizers": ()},
        {"tokenizers": ("a:1", "small=b:2")},
        {"port": -1},
        {"requests_max": 0},
        {"request_bytes_max": 1 << 30},
        {"timeout_s": 0.0},
        {"stall_s_max": 0.0},
        {"answers_bytes_max": 0},
        {"best_priority": -1},
        {"best_priority": 2**32},
        {"objectives": ("batch",)},
        {"objectives": ("batch=high",)},
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        GatewaySettings(**wrong)  # type: ignore[arg-type]
