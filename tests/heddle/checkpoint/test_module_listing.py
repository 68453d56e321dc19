"""The modules of sentence-transformers that a checkpoint consists of, in the forms of all versions, and its pooling."""

from pathlib import Path
from typing import Any, get_args

import pytest

from heddle.checkpoint import Checkpoint, ModelKind
from heddle.checkpoint.json_files import CheckpointError
from heddle.checkpoint.sentence_modules import LogitScore, Pooling, PoolingSetting
from tests.checkpoints import write_json, write_old_modules
from tests.heddle.checkpoint.bert_folder import CONFIG, with_config


@pytest.mark.parametrize(
    ("settings", "pooling"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, (Pooling.CLS,)),
        ({"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}, (Pooling.MEAN,)),
        ({"pooling_mode_max_tokens": True}, (Pooling.MAX,)),
        ({"pooling_mode_mean_sqrt_len_tokens": True}, (Pooling.MEAN_SQRT_LEN,)),
        ({"pooling_mode_weightedmean_tokens": True}, (Pooling.WEIGHTED_MEAN,)),
        ({"pooling_mode_lasttoken": True}, (Pooling.LAST_TOKEN,)),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}, (Pooling.CLS, Pooling.MEAN)),
        ({"word_embedding_dimension": 32}, (Pooling.MEAN,)),
        ({"pooling_mode": "lasttoken"}, (Pooling.LAST_TOKEN,)),
        ({"pooling_mode": ["mean", "max"], "pooling_mode_cls_token": True}, (Pooling.MEAN, Pooling.MAX)),
    ],
)
def test_pooling_is_read_in_old_and_new_format(
    folder: Path, settings: dict[str, Any], pooling: tuple[Pooling, ...]
) -> None:
    write_old_modules(folder, ["Transformer", "Pooling"], settings)
    checkpoint = Checkpoint.read(folder)
    assert checkpoint.pooling == pooling
    assert checkpoint.dimension == 32 * len(pooling)
    assert not checkpoint.normalizes


def test_module_types_of_every_version_are_known(folder: Path) -> None:
    write_old_modules(
        folder,
        [
            "sentence_transformers.base.modules.transformer.Transformer",
            "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
            "sentence_transformers.models.Dropout",
            "sentence_transformers.base.modules.normalize.Normalize",
        ],
    )
    assert Checkpoint.read(folder).normalizes


@pytest.mark.parametrize(
    "module", ["WeightedLayerPooling", "LSTM", "BoW", "Router", "CNN", "custom_st.Transformer", "os.system"]
)
def test_unknown_module_is_rejected_by_name(folder: Path, module: str) -> None:
    write_old_modules(folder, ["Transformer", "Pooling", module])
    with pytest.raises(CheckpointError, match=rf"modules\.json.*{module}"):
        Checkpoint.read(folder)


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        (["Transformer", "Dense", "Pooling"], r"has a module of pooled vectors before Pooling \(Dense\)"),
        (["Transformer", "LayerNorm"], "has a module of pooled vectors, but no Pooling"),
        (["Transformer", "Pooling", "Pooling"], "has more than one module of type Pooling"),
        (["Pooling", "Transformer"], "does not begin with a Transformer module"),
    ],
)
def test_order_that_yields_no_vector_is_rejected(folder: Path, modules: list[str], message: str) -> None:
    write_old_modules(folder, modules)
    with pytest.raises(CheckpointError, match=rf"modules\.json {message}"):
        Checkpoint.read(folder)


@pytest.mark.parametrize(
    ("setting", "kind", "pooling"),
    [
        ("cls", ModelKind.EMBEDDER, (Pooling.CLS,)),
        ("last_token", ModelKind.EMBEDDER, (Pooling.LAST_TOKEN,)),
        ("splade", ModelKind.SPARSE_EMBEDDER, ()),
        ("auto", ModelKind.EMBEDDER, (Pooling.MEAN,)),
    ],
)
def test_an_operator_may_set_another_pooling(
    folder: Path, setting: PoolingSetting, kind: ModelKind, pooling: tuple[Pooling, ...]
) -> None:
    with_config(folder, architectures=["BertForMaskedLM"])
    checkpoint = Checkpoint.read(folder, pooling=setting)
    assert (checkpoint.kind, checkpoint.pooling) == (kind, pooling)
    assert (checkpoint.splade is not None) == (setting == "splade")


def test_every_pooling_can_be_set() -> None:
    assert set(get_args(PoolingSetting)) == {"auto", *Pooling, "splade"}


@pytest.mark.parametrize("head", ["ForRewardModel", "ForProcessRewardModel", "ForQuestionAnswering"])
def test_unknown_head_is_rejected_unless_pooling_is_set(folder: Path, head: str) -> None:
    with_config(folder, architectures=[f"Qwen2{head}"])
    with pytest.raises(CheckpointError, match=rf"config\.json: the output of Qwen2{head} is not supported"):
        Checkpoint.read(folder)
    assert Checkpoint.read(folder, pooling="mean").kind is ModelKind.EMBEDDER


def test_transformer_of_jina_v3_is_known(folder: Path) -> None:
    write_old_modules(folder, ["custom_st.Transformer", "Pooling", "Normalize"], {"pooling_mode_mean_tokens": True})
    with pytest.raises(CheckpointError, match=r"custom_st\.Transformer, which is not supported"):
        Checkpoint.read(folder)
    checkpoint = Checkpoint.read(with_config(folder, lora_adaptations=["retrieval.query"]))
    assert (checkpoint.pooling, checkpoint.normalizes) == ((Pooling.MEAN,), True)


def test_transformer_in_a_subfolder_is_found(tmp_path: Path) -> None:
    write_old_modules(tmp_path, ["Transformer", "Pooling"], {})
    listing = [{"type": "sentence_transformers.models.Transformer", "path": "0_Transformer"}]
    write_json(tmp_path / "modules.json", listing)
    write_json(tmp_path / "0_Transformer" / "config.json", CONFIG)
    write_json(tmp_path / "0_Transformer" / "sentence_bert_config.json", {"max_seq_length": 20})
    checkpoint = Checkpoint.read(tmp_path)
    assert checkpoint.folder == tmp_path / "0_Transformer"
    assert checkpoint.sequence_tokens_max == 20


@pytest.mark.parametrize("path", ["../elsewhere", "/etc"])
def test_module_outside_the_folder_is_rejected(folder: Path, path: str) -> None:
    write_json(folder / "modules.json", [{"type": "sentence_transformers.models.Transformer", "path": path}])
    with pytest.raises(CheckpointError, match="leads out of the folder"):
        Checkpoint.read(folder)


@pytest.mark.parametrize(
    ("changes", "pooling"),
    [
        ({}, Pooling.MEAN),
        ({"architectures": ["BertForMaskedLM"]}, Pooling.MEAN),
        ({"architectures": ["Qwen3ForCausalLM"], "_name_or_path": "Qwen/Qwen3-Embedding-8B"}, Pooling.LAST_TOKEN),
        ({"architectures": ["Qwen3ForCausalLM"], "is_causal": False}, Pooling.MEAN),
        ({"architectures": ["GPT2LMHeadModel"], "pooling": "cls"}, Pooling.MEAN),
        ({"architectures": ["MistralModel"], "model_type": "mistral"}, Pooling.MEAN),
        ({"architectures": ["LlamaBidirectionalModel"], "model_type": "llama_bidirec", "pooling": "avg"}, Pooling.MEAN),
        (
            {"architectures": ["LlamaBidirectionalModel"], "model_type": "llama_bidirec", "pooling": "last"},
            Pooling.LAST_TOKEN,
        ),
    ],
)
def test_without_modules_pooling_is_that_of_sentence_transformers(
    folder: Path, changes: dict[str, Any], pooling: Pooling
) -> None:
    checkpoint = Checkpoint.read(with_config(folder, **changes))
    assert (checkpoint.kind, checkpoint.pooling) == (ModelKind.EMBEDDER, (pooling,))


@pytest.mark.parametrize("false_id", [2, None])
def test_language_model_with_a_logit_score_is_a_reranker(folder: Path, false_id: int | None) -> None:
    with_config(folder, architectures=["Qwen3ForCausalLM"])
    write_old_modules(folder, ["Transformer", "LogitScore"])
    write_json(folder / "1_LogitScore" / "config.json", {"true_token_id": 1, "false_token_id": false_id})
    checkpoint = Checkpoint.read(folder)
    assert (checkpoint.kind, len(checkpoint.labels)) == (ModelKind.RERANKER, 1)
    assert checkpoint.logit_score == LogitScore(1, false_id)
    write_json(folder / "1_LogitScore" / "config.json", {"false_token_id": 2})
    with pytest.raises(CheckpointError, match=r"1_LogitScore/config\.json does not name the tokens"):
        Checkpoint.read(folder)
