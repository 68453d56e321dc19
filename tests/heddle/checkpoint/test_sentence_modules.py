"""The settings of sparse encoders in the files of sentence-transformers, and the tasks of a checkpoint with adapters,
with their prompts. Pooling and other prompts are tested with the checkpoint."""

from pathlib import Path
from typing import Any

import pytest

from heddle.checkpoint import Checkpoint
from heddle.checkpoint.json_files import CheckpointError
from heddle.checkpoint.sentence_modules import SentenceModules, Splade
from tests.checkpoints import write_json, write_old_modules
from tests.heddle.checkpoint.bert_folder import with_config

NAMES = ["retrieval.query", "separation"]
INSTRUCTIONS = {"retrieval.query": "Ask: ", "unknown": "Say: "}


def written(
    folder: Path, pooling: dict[str, Any] | None = None, *, modules: tuple[str, ...] = (), **model: Any
) -> Path:
    write_old_modules(folder, ["MLMTransformer", "SpladePooling", *modules])
    if pooling is not None:
        write_json(folder / "1_SpladePooling" / "config.json", pooling)
    write_json(folder / "config_sentence_transformers.json", model)
    return folder


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        (None, Splade()),
        ({"pooling_strategy": "max", "word_embedding_dimension": None}, Splade()),
        ({"pooling_strategy": "sum", "activation_function": "relu"}, Splade(sums=True)),
        ({"pooling_strategy": "max", "activation_function": "log1p_relu"}, Splade(logs_twice=True)),
    ],
)
def test_settings_of_splade_pooling_are_read(tmp_path: Path, pooling: dict[str, Any] | None, expected: Splade) -> None:
    assert SentenceModules.read(written(tmp_path, pooling)).splade == expected


def test_limit_of_active_components_is_read(tmp_path: Path) -> None:
    assert SentenceModules.read(written(tmp_path, max_active_dims=256)).splade == Splade(active_max=256)


def test_model_that_is_not_sparse_has_no_splade(tmp_path: Path) -> None:
    write_old_modules(tmp_path, ["Transformer", "Pooling"], {})
    assert SentenceModules.read(tmp_path).splade is None


@pytest.mark.parametrize(
    ("pooling", "modules", "model", "message"),
    [
        ({"pooling_strategy": "mean"}, (), {}, "1_SpladePooling/config.json has 'mean' of 'relu'"),
        ({"activation_function": "gelu"}, (), {}, "has 'max' of 'gelu'"),
        ({}, (), {"max_active_dims": 0}, "max_active_dims 0 is not a positive number"),
        ({}, ("Normalize",), {}, "SpladePooling beside Pooling or Normalize"),
        ({}, ("Pooling",), {}, "SpladePooling beside Pooling or Normalize"),
    ],
)
def test_unsupported_settings_are_rejected(
    tmp_path: Path, pooling: dict[str, Any], modules: tuple[str, ...], model: dict[str, Any], message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        SentenceModules.read(written(tmp_path, pooling, modules=modules, **model))


def test_placeholder_prompts_may_be_the_default_without_text(tmp_path: Path) -> None:
    """sentence-transformers gives every model the prompts query and document."""
    write_json(tmp_path / "config_sentence_transformers.json", {"default_prompt_name": "query", "prompts": {"a": "b"}})
    assert SentenceModules.read(tmp_path).default_prompt_name == ""
    write_json(tmp_path / "config_sentence_transformers.json", {"default_prompt_name": "other"})
    with pytest.raises(CheckpointError, match="'other' is not among the prompts"):
        SentenceModules.read(tmp_path)


def test_transformer_must_output_token_embeddings(tmp_path: Path) -> None:
    write_old_modules(tmp_path, ["Transformer"])
    write_json(tmp_path / "sentence_bert_config.json", {"module_output_name": "sentence_embedding"})
    with pytest.raises(CheckpointError, match="module_output_name 'sentence_embedding' is not supported"):
        SentenceModules.read(tmp_path)


def read_checkpoint(folder: Path, **config: Any) -> Checkpoint:
    return Checkpoint.read(with_config(folder, **config))


def test_tasks_are_the_adapters_in_their_stored_order_with_their_instructions(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(tmp_path, lora_adaptations=NAMES, task_instructions=INSTRUCTIONS)
    assert checkpoint.tasks == tuple(NAMES)
    assert checkpoint.prompts == {"retrieval.query": "Ask: "}


def test_prompts_of_sentence_transformers_take_precedence_over_instructions(tmp_path: Path) -> None:
    write_json(tmp_path / "config_sentence_transformers.json", {"prompts": {"retrieval.query": "Find: "}})
    checkpoint = read_checkpoint(tmp_path, lora_adaptations=NAMES, task_instructions=INSTRUCTIONS)
    assert checkpoint.prompts == {"retrieval.query": "Find: "}


@pytest.mark.parametrize(
    "config", [{}, {"lora_adaptations": None}, {"lora_adaptations": NAMES, "load_trained_adapters": False}]
)
def test_without_trained_adapters_there_are_no_tasks(tmp_path: Path, config: dict[str, Any]) -> None:
    checkpoint = read_checkpoint(tmp_path, **config, task_instructions=INSTRUCTIONS)
    assert (checkpoint.tasks, checkpoint.prompts) == ((), {})


def test_classifier_has_no_tasks(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(tmp_path, lora_adaptations=NAMES, architectures=["BertForSequenceClassification"])
    assert checkpoint.tasks == ()


@pytest.mark.parametrize("names", ["separation", [1], {"separation": 0}])
def test_tasks_must_be_a_list_of_names(tmp_path: Path, names: Any) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json: lora_adaptations .* is not a list of names"):
        read_checkpoint(tmp_path, lora_adaptations=names)
