"""The checker reports each change of a source tree, a wheel or an installed package, and nothing else."""

import sys
import zipfile
from pathlib import Path

import pytest

from engine_svc.backends.tensorrt_llm.support import choose_api
from tests.engine_svc.backends.tensorrt_llm import drift
from tests.engine_svc.backends.tensorrt_llm.drift import DRIFTED, UNUSABLE, Package, find_drift
from tests.engine_svc.backends.tensorrt_llm.records import CONTRACT, Callee, Members, Text

ENCODE, GENERATE = "1.4.0rc1", "1.2.1"
LLM, ARGUMENTS = "tensorrt_llm/llmapi/llm.py", "tensorrt_llm/llmapi/llm_args.py"
GENERATORS, LLAMA = "tensorrt_llm/_torch/model_config.py", "tensorrt_llm/_torch/models/modeling_llama.py"
MASKS, ATTENTION = "tensorrt_llm/_torch/attention_backend/interface.py", "tensorrt_llm/_torch/modules/attention.py"


@pytest.mark.parametrize("version", [ENCODE, GENERATE])
def test_a_package_like_the_records_has_no_drift(tmp_path: Path, version: str) -> None:
    assert find_drift(Package.at(str(write_package(tmp_path, version)))) == []


@pytest.mark.parametrize(
    ("version", "file", "change", "line"),
    [
        (ENCODE, LLM, ("def encode(", "def encode_batch("), "BaseLLM.encode is gone"),
        (ENCODE, LLM, ("inputs, add_special", "inputs, stream, add_special"), "BaseLLM.encode needs stream"),
        (ENCODE, LLM, ("to_host=True", "to_host=False"), "copy_logits_to_host=False, not True"),
        (GENERATE, LLM, ("sampling_params=None", "sampling=None"), "generate_async does not take sampling_params"),
        (ENCODE, ARGUMENTS, ("encode_only", "encoding_only"), "TorchLlmArgs has no encode_only"),
        (ENCODE, GENERATORS, ("LlamaForTextEmbedding", "LlamaEmbedding"), "'LlamaForTextEmbedding' is gone"),
        (GENERATE, LLAMA, ("self_attn", "attention"), "LlamaDecoderLayer has no self_attn"),
        (ENCODE, MASKS, ("FULL", "ALL"), "PredefinedAttentionMask has no FULL"),
        (ENCODE, ATTENTION, ("PredefinedAttentionMask.CAUSAL", "None"), "attention_mask=None, not PredefinedAttention"),
    ],
)
def test_each_change_of_what_we_call_is_reported_in_one_line(
    tmp_path: Path, version: str, file: str, change: tuple[str, str], line: str
) -> None:
    path = write_package(tmp_path, version) / file
    text = path.read_text()
    changed = text.replace(*change)
    assert changed != text
    path.write_text(changed)
    [found] = find_drift(Package.at(str(tmp_path)))
    assert line in found


def test_inherited_members_count(tmp_path: Path) -> None:
    path = write_package(tmp_path, ENCODE) / ARGUMENTS
    path.write_text(
        path.read_text().replace("class TorchLlmArgs:", "class BaseLlmArgs:") + "class TorchLlmArgs(BaseLlmArgs): ...\n"
    )
    assert find_drift(Package.at(str(tmp_path))) == []


def test_members_that_are_assigned_to_self_count(tmp_path: Path) -> None:
    path = write_package(tmp_path, ENCODE) / "tensorrt_llm/_torch/models/modeling_qwen.py"
    assigned = "    def __init__(self, config):\n        self.self_attn = Attention(config)"
    path.write_text(path.read_text().replace("    self_attn: int = 0", assigned))
    assert find_drift(Package.at(str(tmp_path))) == []


def test_a_wheel_is_read_without_being_installed(tmp_path: Path) -> None:
    tree, wheel = write_package(tmp_path / "tree", ENCODE), tmp_path / "tensorrt_llm-1.4.0rc1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path in tree.rglob("*.py"):
            archive.write(path, path.relative_to(tree))
    assert find_drift(Package.at(str(wheel))) == []


def test_the_installed_package_is_found_without_importing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_package(tmp_path, ENCODE)
    (tmp_path / "tensorrt_llm" / "__init__.py").write_text("raise ImportError('libcuda.so.1')")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert drift.main([]) == 0
    assert capsys.readouterr().out == "tensorrt_llm 1.4.0rc1: 0 differences from the records\n"
    assert "tensorrt_llm" not in sys.modules


def test_the_exit_code_distinguishes_drift_from_a_missing_package(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert drift.main([str(tmp_path)]) == UNUSABLE
    write_package(tmp_path, "1.4.0rc1")
    (tmp_path / LLM).write_text("class BaseLLM: ...\n")
    assert drift.main([str(tmp_path / "tensorrt_llm")]) == DRIFTED
    (tmp_path / "tensorrt_llm/version.py").write_text("__version__ = '1.6.0'\n")
    assert drift.main([str(tmp_path)]) == UNUSABLE
    assert "tensorrt-llm 1.6.0 is not supported (supported: 1.2, and 1.3.0rc22 to 1.4)" in capsys.readouterr().out


def write_package(folder: Path, version: str) -> Path:
    """Writes each record into the last of its files, which a search must find too."""
    classes: dict[tuple[str, str], list[str]] = {}
    lines: dict[str, list[str]] = {"tensorrt_llm/version.py": [f"__version__ = {version!r}"]}
    for record in CONTRACT[choose_api(version)]:
        match record:
            case Text(place, text):
                lines.setdefault(place if place.endswith(".py") else f"{place}/inside.py", []).append(
                    f"NAME = {text!r}"
                )
            case Members(files, name, members):
                classes.setdefault((files[-1], name), []).extend(f"    {member}: int = 0" for member in members)
            case Callee(files, name, parameters):
                class_name, _, function = name.rpartition(".")
                if class_name:
                    method = f"    def {function}(self, {parameters}): ..."
                    classes.setdefault((files[-1], class_name), []).append(method)
                else:
                    lines.setdefault(files[-1], []).append(f"def {function}({parameters}): ...")
    for (file, name), body in classes.items():
        lines.setdefault(file, []).extend([f"class {name}:", *body])
    for file, content in lines.items():
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(content) + "\n")
    return folder
