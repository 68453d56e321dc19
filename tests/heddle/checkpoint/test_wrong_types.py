"""Fields of a wrong type are reported in one sentence that names the file and the field."""

from pathlib import Path
from typing import Any

import pytest

from heddle.checkpoint import Checkpoint
from heddle.checkpoint.json_files import CheckpointError
from heddle.checkpoint.tokenizer_files import look_up_token_ids
from tests.checkpoints import write_json, write_old_modules
from tests.heddle.checkpoint.bert_folder import with_config

CLASSIFIER = {"architectures": ["BertForSequenceClassification"]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({**CLASSIFIER, "id2label": {"a": "x"}}, "id2label has the index 'a', which is not a whole number"),
        ({**CLASSIFIER, "id2label": ["x"]}, r"id2label \['x'\] is not an object"),
        ({**CLASSIFIER, "num_labels": "x"}, "num_labels 'x' is not a whole number"),
        ({"model_type": "roberta", "pad_token_id": "x"}, "pad_token_id 'x' is not a whole number"),
        ({"model_type": ["bert"]}, r"model_type \['bert'\] is not a text"),
        ({"architectures": 5}, "architectures 5 is not a list"),
        ({"architectures": ["BertForMaskedLM"], "hidden_size": "x"}, "has no hidden_size, or one that is not"),
        ({"vocab_size": [1]}, "has no vocab_size, or one that is not"),
    ],
)
def test_fields_of_config_json(folder: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=rf"{folder}/config\.json:? {message}"):
        Checkpoint.read(with_config(folder, **changes))


@pytest.mark.parametrize(
    "content",
    [
        {"model": {"vocab": 7}},
        {"model": []},
        {"added_tokens": [{"content": "yes"}]},
        {"added_tokens": [{"content": []}]},
    ],
)
def test_vocabularies(tmp_path: Path, content: Any) -> None:
    write_json(tmp_path / "tokenizer.json", content)
    with pytest.raises(CheckpointError, match=str(tmp_path)):
        look_up_token_ids(tmp_path, ["yes"])


def test_json_that_is_nested_too_deeply(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("[" * 10_000)
    with pytest.raises(CheckpointError, match="is nested too deeply"):
        Checkpoint.read(tmp_path)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("1_Pooling/config.json", {"pooling_mode": 5}, "pooling_mode 5 is neither a text nor a list of them"),
        ("1_Pooling/config.json", {"pooling_mode": [{}]}, "has the pooling mode {}, which is not supported"),
        ("1_Pooling/config.json", {"include_prompt": "no"}, "include_prompt 'no' is not true or false"),
        ("2_Dense/config.json", {"activation_function": {}}, "activation_function {} is not a text"),
        ("2_Dense/config.json", {"bias": "x"}, "bias 'x' is not true or false"),
        ("config_sentence_transformers.json", {"truncate_dim": "8"}, "truncate_dim '8' is not a whole number"),
        ("config_sentence_transformers.json", {"truncate_dim": True}, "truncate_dim True is not a whole number"),
        ("config_sentence_transformers.json", {"truncate_dim": -1}, "truncate_dim -1 is not a positive number"),
        ("config_sentence_transformers.json", {"prompts": ["query: "]}, r"prompts \['query: '\] is not an object"),
        ("config_sentence_transformers.json", {"prompts": {"query": 5}}, "prompts has 5 as query, which is not a text"),
        ("config_sentence_transformers.json", {"default_prompt_name": []}, r"default_prompt_name \[\] is not a text"),
        ("sentence_bert_config.json", {"max_seq_length": "512"}, "max_seq_length '512' is not a number"),
        ("sentence_bert_config.json", {"max_seq_length": [512]}, r"max_seq_length \[512\] is not a number"),
        ("sentence_bert_config.json", {"transformer_task": {}}, "transformer_task {} is not a text"),
    ],
)
def test_files_of_sentence_transformers(folder: Path, file: str, content: dict[str, Any], message: str) -> None:
    write_old_modules(folder, ["Transformer", "Pooling", "Dense"])
    write_json(folder / "2_Dense" / "config.json", {"in_features": 32, "out_features": 8, "bias": True})
    whole = {"in_features": 32, "out_features": 8} if file.startswith("2_Dense") else {}
    write_json(folder / file, {**whole, **content})
    with pytest.raises(CheckpointError, match=rf"{folder}/{file}:? {message}"):
        Checkpoint.read(folder)


def test_metadata_of_colbert(folder: Path) -> None:
    write_json(folder / "artifact.metadata", {"dim": "x"})
    with pytest.raises(CheckpointError, match=rf"{folder}/artifact\.metadata: dim 'x' is not a whole number"):
        Checkpoint.read(with_config(folder, architectures=["HF_ColBERT"]))


def test_null_means_unset(folder: Path) -> None:
    settings = dict.fromkeys(("truncate_dim", "prompts", "default_prompt_name"))
    write_json(folder / "config_sentence_transformers.json", settings)
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": None, "do_lower_case": None})
    assert Checkpoint.read(with_config(folder, id2label=None, num_labels=None)).prompts == {}
