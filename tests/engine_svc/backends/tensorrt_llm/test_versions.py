"""The version decides how TensorRT-LLM is called."""

import pytest

from engine_svc.backends.tensorrt_llm.support import Api, choose_api
from heddle.rpc.settings import ConfigurationError


@pytest.mark.parametrize("version", ["1.2.0", "1.2.1", "1.2.1.post1"])
def test_stable_versions_generate(version: str) -> None:
    assert choose_api(version) is Api.GENERATE


@pytest.mark.parametrize("version", ["1.3.0rc22", "1.3.0rc29", "1.3.0", "1.4.0rc1", "1.4.0.rc4", "1.4.0", "1.4.2"])
def test_newer_versions_encode(version: str) -> None:
    assert choose_api(version) is Api.ENCODE


@pytest.mark.parametrize("version", ["0.21.0", "1.1.0", "1.2.0rc3", "1.3.0rc21", "1.5.0rc1", "2.0.0", "main"])
def test_others_are_refused_in_a_line_with_the_supported_range(version: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        choose_api(version)
    assert str(caught.value) == f"tensorrt-llm {version} is not supported (supported: 1.2, and 1.3.0rc22 to 1.4)"
