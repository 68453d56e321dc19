"""Checkpoint folders, as old and new versions of transformers and sentence-transformers write them."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from heddle.checkpoint import Checkpoint, ModelKind
from heddle.checkpoint.json_files import CheckpointError
from heddle.checkpoint.model_source import locate
from heddle.checkpoint.sentence_modules import Pooling
from tests.checkpoints import write_json, write_old_modules
from tests.heddle.checkpoint.bert_folder import CONFIG, with_config


def test_packaged_minilm_is_as_its_model_card_says() -> None:
    checkpoint = Checkpoint.read(locate("sentence-transformers/all-MiniLM-L6-v2"), "minilm")
    assert checkpoint.name == "minilm"
    assert checkpoint.kind is ModelKind.EMBEDDER
    assert checkpoint.pooling == (Pooling.MEAN,)
    assert checkpoint.normalizes
    assert (checkpoint.dimension, checkpoint.sequence_tokens_max, checkpoint.vocabulary_size) == (384, 256, 30522)
    assert len(checkpoint.tokenizer_fingerprint) == 64


def test_reading_imports_no_model_library() -> None:
    """The tokenizer reads checkpoints too, and has no torch."""
    code = (
        "import sys; from heddle.checkpoint import Checkpoint; from heddle.checkpoint.model_source import locate;"
        "Checkpoint.read(locate('all-MiniLM-L6-v2'));"
        "print([name for name in ('torch', 'transformers', 'tokenizers', 'numpy', 'grpc') if name in sys.modules])"
    )
    environment = {"PYTHONPATH": ":".join(sys.path)}
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment)
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("changes", "kind", "labels"),
    [
        ({"architectures": ["BertForSequenceClassification"]}, ModelKind.CLASSIFIER, ("LABEL_0", "LABEL_1")),
        ({"id2label": {"10": "k", "2": "c", "0": "a"}}, ModelKind.CLASSIFIER, ("a", "c", "k")),
        ({"id2label": {"0": "score"}}, ModelKind.RERANKER, ("score",)),
        ({"num_labels": 1}, ModelKind.RERANKER, ("LABEL_0",)),
        ({"architectures": ["BertForTokenClassification"], "id2label": {"0": "O"}}, ModelKind.TOKEN_CLASSIFIER, ("O",)),
    ],
)
def test_head_and_labels_determine_the_kind(
    folder: Path, changes: dict[str, Any], kind: ModelKind, labels: tuple[str, ...]
) -> None:
    checkpoint = Checkpoint.read(with_config(folder, **{"architectures": ["BertForSequenceClassification"], **changes}))
    assert (checkpoint.kind, checkpoint.labels) == (kind, labels)
    assert (checkpoint.pooling, checkpoint.dimension) == ((), 0)


# As they lie on the hub, as far as reading them needs it.
QWEN3_EMBEDDING = {
    "_name_or_path": "Qwen/Qwen3-Embedding-0.6B",
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "hidden_size": 1024,
    "vocab_size": 151669,
    "max_position_embeddings": 32768,
    "rope_theta": 1000000,
    "rope_scaling": None,
    "tie_word_embeddings": True,
}
QWEN3_RERANKER = {
    **QWEN3_EMBEDDING,
    "architectures": ["Qwen3ForSequenceClassification"],
    "id2label": {"0": "LABEL_0"},
    "label2id": {"LABEL_0": 0},
}
NEMOTRON = {
    "architectures": ["LlamaBidirectionalModel"],
    "model_type": "llama_bidirec",
    "hidden_size": 2048,
    "max_position_embeddings": 131072,
    "vocab_size": 128256,
    "pooling": "avg",
    "temperature": 0.02,
}
NEMOTRON_RERANKER = {
    **NEMOTRON,
    "architectures": ["LlamaBidirectionalForSequenceClassification"],
    "id2label": {"0": "LABEL_0"},
}
EMBEDDING_GEMMA = {
    "architectures": ["Gemma3TextModel"],
    "model_type": "gemma3_text",
    "hidden_size": 768,
    "vocab_size": 262144,
    "max_position_embeddings": 2048,
    "use_bidirectional_attention": True,
    "sliding_window": 512,
}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (QWEN3_EMBEDDING, (ModelKind.EMBEDDER, (Pooling.LAST_TOKEN,), 1024, 32768)),
        (QWEN3_RERANKER, (ModelKind.RERANKER, (), 0, 32768)),
        (NEMOTRON, (ModelKind.EMBEDDER, (Pooling.MEAN,), 2048, 131072)),
        (NEMOTRON_RERANKER, (ModelKind.RERANKER, (), 0, 131072)),
        (EMBEDDING_GEMMA, (ModelKind.EMBEDDER, (Pooling.MEAN,), 768, 2048)),
    ],
)
def test_decoders_are_as_their_model_cards_say(
    tmp_path: Path, config: dict[str, Any], expected: tuple[Any, ...]
) -> None:
    """`expected`: kind, pooling, dimension, tokens of the longest sequence."""
    write_json(tmp_path / "config.json", config)
    write_json(tmp_path / "tokenizer_config.json", {"model_max_length": 131072})
    read = Checkpoint.read(tmp_path)
    assert (read.kind, read.pooling, read.dimension, read.sequence_tokens_max) == expected


def test_labels_of_an_embedder_are_not_reported(folder: Path) -> None:
    assert Checkpoint.read(with_config(folder, id2label={"0": "LABEL_0", "1": "LABEL_1"})).labels == ()


def test_distilbert_has_its_own_name_for_the_dimension(folder: Path) -> None:
    own = {"architectures": ["DistilBertModel"], "vocab_size": 97, "dim": 24, "max_position_embeddings": 64}
    write_json(folder / "config.json", own)
    checkpoint = Checkpoint.read(folder)
    assert (checkpoint.dimension, checkpoint.pooling, checkpoint.kind) == (24, (Pooling.MEAN,), ModelKind.EMBEDDER)


def test_problem_type_determines_multi_label(folder: Path) -> None:
    assert not Checkpoint.read(folder).multi_label
    assert Checkpoint.read(with_config(folder, problem_type="multi_label_classification")).multi_label


def test_splade_is_a_sparse_embedder_over_the_vocabulary(folder: Path) -> None:
    write_old_modules(
        folder,
        [
            "sentence_transformers.sparse_encoder.models.MLMTransformer",
            "sentence_transformers.sparse_encoder.models.SpladePooling",
        ],
    )
    checkpoint = Checkpoint.read(folder)
    assert (checkpoint.kind, checkpoint.dimension) == (ModelKind.SPARSE_EMBEDDER, CONFIG["vocab_size"])


@pytest.mark.parametrize(
    ("sentence_bert", "tokenizer", "config", "expected"),
    [
        (None, None, {}, 64),
        (None, 48, {}, 48),
        (None, 1e30, {}, 64),
        (32, 48, {}, 32),
        (60, 48, {}, 60),  # sentence-transformers' word counts over the tokenizer's
        (512, 48, {}, 64),
        (None, 512, {"model_type": "xlm-roberta", "max_position_embeddings": 514, "pad_token_id": 1}, 512),
        (None, 8192, {"model_type": "modernbert", "max_position_embeddings": 8192}, 8192),
        (8192, 512, {"model_type": "nomic_bert", "max_position_embeddings": 2048, "n_positions": 8192}, 8192),
        (None, None, {"model_type": "mpnet", "max_position_embeddings": 514, "pad_token_id": 1}, 512),
        (None, None, {"model_type": "roberta", "max_position_embeddings": 514}, 512),  # padding is 1 there, unsaid
        (None, None, {"model_type": "roberta", "max_position_embeddings": 513, "pad_token_id": 0}, 512),
        (None, 1e30, {"rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}}, 256),
        (None, 1e30, {"rope_scaling": {"type": "yarn", "factor": 2.0, "original_max_position_embeddings": 16}}, 64),
        (None, 1e30, {"rope_parameters": {"rope_type": "yarn", "factor": 4.0}}, 64),
        (None, 1e30, {"rope_parameters": {"rope_type": "linear", "factor": 4.0}}, 64),
        (128, 1e30, {"rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}}, 128),
    ],
)
def test_longest_sequence_is_the_stated_one_within_the_positions(
    folder: Path, sentence_bert: int | None, tokenizer: float | None, config: dict[str, Any], expected: int
) -> None:
    with_config(folder, **config)
    if sentence_bert:
        write_json(folder / "sentence_bert_config.json", {"max_seq_length": sentence_bert})
    if tokenizer:
        write_json(folder / "tokenizer_config.json", {"model_max_length": tokenizer})
    assert Checkpoint.read(folder).sequence_tokens_max == expected


def test_dimension_is_read_under_each_of_its_names(folder: Path) -> None:
    write_json(folder / "config.json", {"model_type": "nomic_bert", "vocab_size": 9, "n_embd": 16, "n_positions": 2048})
    checkpoint = Checkpoint.read(folder)
    assert (checkpoint.dimension, checkpoint.sequence_tokens_max) == (16, 2048)


def test_older_names_of_the_settings_file_are_read(folder: Path) -> None:
    write_json(folder / "sentence_xlm-roberta_config.json", {"max_seq_length": 9, "do_lower_case": True})
    checkpoint = Checkpoint.read(folder)
    assert (checkpoint.sequence_tokens_max, checkpoint.do_lower_case) == (9, True)


def test_prompts_and_dimensions_are_read(folder: Path) -> None:
    write_json(
        folder / "config_sentence_transformers.json",
        {"prompts": {"query": "Q: ", "document": None}, "default_prompt_name": "query", "truncate_dim": 8},
    )
    checkpoint = Checkpoint.read(folder)
    assert checkpoint.prompts == {"query": "Q: ", "document": ""}
    assert (checkpoint.default_prompt_name, checkpoint.dimension, checkpoint.matryoshka) == ("query", 8, True)


def test_default_prompt_must_be_one_of_the_prompts(folder: Path) -> None:
    write_json(folder / "config_sentence_transformers.json", {"prompts": {}, "default_prompt_name": "passage"})
    with pytest.raises(CheckpointError, match="passage"):
        Checkpoint.read(folder)


def test_fingerprint_changes_with_everything_that_affects_ids(folder: Path) -> None:
    fingerprints = [Checkpoint.read(folder).tokenizer_fingerprint]
    for name, content in (
        ("tokenizer.json", {"model": "b"}),
        ("tokenizer_config.json", {"model_max_length": 63}),
        ("special_tokens_map.json", {"cls_token": "<s>"}),
        ("sentence_bert_config.json", {"max_seq_length": 10}),
        ("config_sentence_transformers.json", {"prompts": {"query": "Q: "}}),
    ):
        write_json(folder / name, content)
        fingerprints.append(Checkpoint.read(folder).tokenizer_fingerprint)
    assert len(set(fingerprints)) == len(fingerprints)


def test_fingerprint_depends_on_content_not_on_place_or_name(folder: Path, tmp_path_factory: Any) -> None:
    elsewhere = tmp_path_factory.mktemp("copy")
    for file in folder.iterdir():
        (elsewhere / file.name).write_bytes(file.read_bytes())
    copy = Checkpoint.read(elsewhere, "other")
    assert copy.tokenizer_fingerprint == Checkpoint.read(folder).tokenizer_fingerprint


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", "{", r"config\.json is not valid JSON"),
        ("config.json", "[]", r"config\.json does not hold a JSON object"),
        ("config.json", "{}", "names neither an architecture nor a model_type"),
        ("config.json", '{"model_type": "bert", "vocab_size": 0, "hidden_size": 8}', "does not state how many tokens"),
        ("modules.json", "{}", r"modules\.json is not a list of modules"),
        (
            "modules.json",
            '[{"type": "sentence_transformers.models.Pooling", "path": ""}]',
            "does not begin with a Transformer module",
        ),
        ("sentence_bert_config.json", "nonsense", r"sentence_bert_config\.json is not valid JSON"),
    ],
)
def test_broken_file_is_named_in_one_sentence(folder: Path, file: str, content: str, message: str) -> None:
    (folder / file).write_text(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        Checkpoint.read(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_pooling_mode_is_rejected(folder: Path) -> None:
    write_old_modules(folder, ["Transformer", "Pooling"], {"pooling_mode": "median"})
    with pytest.raises(CheckpointError, match="median"):
        Checkpoint.read(folder)


def test_folder_without_a_model_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        Checkpoint.read(tmp_path)


def test_name_of_a_snapshot_folder_is_the_revision(tmp_path: Path) -> None:
    folder = tmp_path / "snapshots" / "0123abcd"
    write_json(folder / "config.json", CONFIG)
    assert Checkpoint.read(folder).revision == "0123abcd"
