"""Which tasks a checkpoint has adapters for, and the prompts that come with them."""

from pathlib import Path
from typing import Any

import pytest

from heddle.checkpoint import Checkpoint
from heddle.checkpoint_files import CheckpointError
from tests.checkpoints import write_json
from tests.heddle.bert_folder import with_config

NAMES = ["retrieval.query", "separation"]
INSTRUCTIONS = {"retrieval.query": "Ask: ", "unknown": "Say: "}


def read(folder: Path, **config: Any) -> Checkpoint:
    return Checkpoint.read(with_config(folder, **config))


def test_tasks_are_the_adapters_in_their_stored_order_with_their_instructions(tmp_path: Path) -> None:
    checkpoint = read(tmp_path, lora_adaptations=NAMES, task_instructions=INSTRUCTIONS)
    assert checkpoint.tasks == tuple(NAMES)
    assert checkpoint.prompts == {"retrieval.query": "Ask: "}


def test_prompts_of_sentence_transformers_go_before_the_instructions(tmp_path: Path) -> None:
    write_json(tmp_path / "config_sentence_transformers.json", {"prompts": {"retrieval.query": "Find: "}})
    checkpoint = read(tmp_path, lora_adaptations=NAMES, task_instructions=INSTRUCTIONS)
    assert checkpoint.prompts == {"retrieval.query": "Find: "}


@pytest.mark.parametrize(
    "config", [{}, {"lora_adaptations": None}, {"lora_adaptations": NAMES, "load_trained_adapters": False}]
)
def test_without_trained_adapters_there_are_no_tasks(tmp_path: Path, config: dict[str, Any]) -> None:
    checkpoint = read(tmp_path, **config, task_instructions=INSTRUCTIONS)
    assert (checkpoint.tasks, checkpoint.prompts) == ((), {})


def test_classifier_has_no_tasks(tmp_path: Path) -> None:
    checkpoint = read(tmp_path, lora_adaptations=NAMES, architectures=["BertForSequenceClassification"])
    assert checkpoint.tasks == ()


@pytest.mark.parametrize("names", ["separation", [1], {"separation": 0}])
def test_names_that_are_none_are_refused(tmp_path: Path, names: Any) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json: lora_adaptations .* is not a list of names"):
        read(tmp_path, lora_adaptations=names)
