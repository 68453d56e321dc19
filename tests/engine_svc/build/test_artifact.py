"""Builds have the same configuration and exactly the same outputs as their sources."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Qwen3Config, Qwen3Model

from engine_svc.backends.torch_backend import TorchBackend
from engine_svc.build.quantizer import make_quantizer
from engine_svc.sequences import Output, PackedBatch
from heddle.checkpoint import Checkpoint
from heddle.checkpoint.json_files import CheckpointError
from tests.checkpoints import write_bert, write_json, write_old_modules, write_tokenizer
from tests.engine_svc.build.building import build, read_folder, read_tensors
from tests.engine_svc.models import published_references
from tests.engine_svc.models.cases import OUTPUTS, Case
from tests.engine_svc.models.cases_of.all import CASES
from tests.engine_svc.models.cases_of.decoders import SMALL
from tests.engine_svc.models.packed import random_batch
from tests.engine_svc.models.published_checkpoints import PUBLISHED, Published
from tests.sequences import packed, run_each, sequences_of
from tests.small_models.m3 import write_m3

# A few sequences suffice, because builds do not affect batching.
COMPARED = 6


def check_equal_outputs(source: Checkpoint, artifact: Checkpoint, batch: PackedBatch, adapter: str = "") -> None:
    few = packed(sequences_of(batch)[:COMPARED])
    theirs, ours = (
        run_each(TorchBackend(checkpoint, dtype="float32", device="cpu", adapter=adapter), few)
        for checkpoint in (source, artifact)
    )
    for one, other in zip(theirs, ours, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_builds_of_every_architecture_have_equal_outputs(case: Case, tmp_path: Path) -> None:
    root = tmp_path / "source"
    root.mkdir()
    case.write(root)
    source, artifact = Checkpoint.read(root), Checkpoint.read(build(root, tmp_path / "built"))
    batch = random_batch(
        case.lengths,
        with_types=case.has_types,
        output=OUTPUTS[case.kind],
        vocabulary_size=source.vocabulary_size,
    )
    check_equal_outputs(source, artifact, batch, case.adapter)


@pytest.mark.parametrize("published", PUBLISHED, ids=lambda published: published.name)
def test_builds_of_published_checkpoints_have_equal_outputs(published: Published, tmp_path: Path) -> None:
    root = tmp_path / "source"
    root.mkdir()
    published_references.write(published, root)
    source = Checkpoint.read(root, published.name, published.pooling)
    artifact = Checkpoint.read(build(root, tmp_path / "built", name=published.name, pooling=published.pooling))
    check_equal_outputs(source, artifact, published_references.random_batch(published, source), published.adapter)


def write_decoder(folder: Path) -> Path:
    torch.manual_seed(0)
    write_tokenizer(folder)
    Qwen3Model(Qwen3Config(**SMALL)).save_pretrained(folder)
    return folder


def test_bytes_do_not_depend_on_threads_or_folders(tmp_path: Path) -> None:
    root, other = (write_decoder(tmp_path / name) for name in ("one", "other"))
    expected = read_folder(build(root, tmp_path / "built", threads=1, file_bytes_max=20_000))
    for threads in (2, 7):
        place = tmp_path / f"built-{threads}"
        assert read_folder(build(other, place, threads=threads, file_bytes_max=20_000)) == expected
    assert sum(name.endswith(".safetensors") for name in expected) > 2


def test_only_linears_are_quantized(tmp_path: Path) -> None:
    root = write_decoder(tmp_path / "source")
    quantizer = make_quantizer("fp8", Checkpoint.read(root))
    before = load_file(root / "model.safetensors")
    folders = [build(root, tmp_path / f"built-{count}", quantizer=quantizer, threads=count) for count in (1, 3)]
    after = read_tensors(folders[0] / "model.safetensors")
    weight = "layers.0.self_attn.q_proj.weight"
    restored = after[weight].float() * after[f"{weight}_scale"].reshape(-1, 1)
    assert torch.allclose(restored, before[weight], rtol=0.07, atol=1e-3)
    assert after["embed_tokens.weight"].equal(before["embed_tokens.weight"])
    names = [name for name in after if name.endswith((".weight", ".weight_scale")) and ".0.self_attn." in name]
    parts = [f"layers.0.self_attn.{part}_proj" for part in "qkv"]
    assert names[:6] == [*(f"{part}.weight" for part in parts), *(f"{part}.weight_scale" for part in parts)]
    assert read_folder(folders[0]) == read_folder(folders[1])


def test_a_model_without_linears_to_quantize_is_refused(tmp_path: Path) -> None:
    root = write_decoder(tmp_path / "source")
    quantizer = make_quantizer("fp8", Checkpoint.read(root))
    (tmp_path / "bert").mkdir()
    write_bert(tmp_path / "bert")
    write_tokenizer(tmp_path / "bert")
    with pytest.raises(CheckpointError, match="has no weights that can be quantized"):
        build(tmp_path / "bert", tmp_path / "built", quantizer=quantizer)


def write_junk(root: Path) -> None:
    for name in ("README.md", "trainer_state.json", "optimizer.pt", ".gitattributes"):
        (root / name).write_text("x")
    (root / "checkpoint-500").mkdir()
    (root / "checkpoint-500" / "config.json").write_text("{}")


def test_only_files_that_serving_needs_are_copied(tmp_path: Path) -> None:
    root = tmp_path / "source"
    write_tokenizer(root)
    write_bert(root)
    write_old_modules(root, ["Transformer", "Pooling", "Dense", "Normalize"], {"pooling_mode_cls_token": True})
    activation = "torch.nn.modules.linear.Identity"
    write_json(
        root / "2_Dense" / "config.json", {"in_features": 32, "out_features": 8, "activation_function": activation}
    )
    torch.save({"linear.weight": torch.randn(8, 32), "linear.bias": torch.randn(8)}, root / "2_Dense/pytorch_model.bin")
    (root / "chat_template.jinja").write_text("{{ messages }}")
    write_json(root / "sentence_bert_config.json", {"max_seq_length": 21})
    write_junk(root)
    files = read_folder(build(root, tmp_path / "built"))
    copied = ["1_Pooling/config.json", "chat_template.jinja", "modules.json", "sentence_bert_config.json"]
    assert {name: files[name] for name in copied} == {name: (root / name).read_bytes() for name in copied}
    assert {"2_Dense/config.json", "2_Dense/model.safetensors", "model.safetensors"} <= files.keys()
    left_out = ("README", "trainer_state", "optimizer", ".git", "checkpoint-500", "pytorch_model")
    assert not [name for name in files if name.startswith(left_out)]
    batch = random_batch((5, 9, 3))
    check_equal_outputs(Checkpoint.read(root), Checkpoint.read(tmp_path / "built"), batch)


def test_a_colbert_keeps_its_projection_and_its_width(tmp_path: Path) -> None:
    root = tmp_path / "source"
    write_tokenizer(root)
    write_bert(root)
    tensors = {f"bert.{name}": tensor for name, tensor in load_file(root / "model.safetensors").items()}
    save_file({**tensors, "linear.weight": torch.randn(16, 32)}, root / "model.safetensors", {"format": "pt"})
    config = json.loads((root / "config.json").read_text())
    write_json(root / "config.json", {**config, "architectures": ["HF_ColBERT"]})
    write_json(root / "artifact.metadata", {"dim": 16})
    artifact = Checkpoint.read(build(root, tmp_path / "built"))
    assert artifact.token_dimension == 16
    check_equal_outputs(Checkpoint.read(root), artifact, random_batch((5, 9, 3), output=Output.TOKEN_VECTORS))


@pytest.mark.parametrize("output", [Output.VECTOR, Output.SPARSE_VECTOR, Output.COLBERT_VECTORS])
def test_the_pickled_heads_of_bge_m3_become_safetensors(tmp_path: Path, output: Output) -> None:
    root = tmp_path / "source"
    root.mkdir()
    write_m3(root)
    files = read_folder(build(root, tmp_path / "built"))
    assert {"colbert_linear.safetensors", "sparse_linear.safetensors"} < files.keys()
    assert not [name for name in files if name.endswith(".pt")]
    source, artifact = Checkpoint.read(root), Checkpoint.read(tmp_path / "built")
    batch = random_batch((5, 9, 3), output=output, vocabulary_size=source.vocabulary_size)
    check_equal_outputs(source, artifact, batch)
    assert read_folder(build(tmp_path / "built", tmp_path / "again")) == files


def test_building_a_build_changes_nothing(tmp_path: Path) -> None:
    root = write_decoder(tmp_path / "source")
    quantizer = make_quantizer("fp8", Checkpoint.read(root))
    plain, quantized = build(root, tmp_path / "plain"), build(root, tmp_path / "quantized", quantizer=quantizer)
    assert read_folder(build(plain, tmp_path / "plain-again")) == read_folder(plain)
    again = build(quantized, tmp_path / "quantized-again")
    before, after = (read_tensors(folder / "model.safetensors") for folder in (quantized, again))
    assert before.keys() == after.keys()
    assert all(after[name].view(torch.uint8).equal(before[name].view(torch.uint8)) for name in before)
    assert (again / "hf_quant_config.json").read_bytes() == (quantized / "hf_quant_config.json").read_bytes()
