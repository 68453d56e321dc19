"""Small checkpoints with random weights for the seed's configurations: with the same architecture, labels, pooling and
files, under the same names on a local hub."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, processors
from transformers import (
    BertConfig,
    BertModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForSequenceClassification,
    Qwen3Model,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
)

from tests.checkpoints import SMALL_BERT, write_json, write_old_modules
from tests.small_tokenizers import small_tokenizer

LANGUAGES = (
    *("ja", "nl", "ar", "pl", "de", "it", "pt", "tr", "es", "hi"),
    *("el", "ur", "bg", "en", "fr", "zh", "ru", "th", "sw", "vi"),
)

SMALL_QWEN: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "initializer_range": 0.1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "pad_token_id": 1,
}
POSITIONS = 130  # RoBERTa does not use two of them


def write_bge_large(folder: Path) -> None:
    """BAAI/bge-large-en-v1.5"""
    tokenizer = small_tokenizer("word_piece")
    write_model(folder, BertModel, BertConfig(**{**SMALL_BERT, "max_position_embeddings": 128}), tokenizer)
    write_old_modules(folder, ["Transformer", "Pooling", "Normalize"], pooling("cls_token", SMALL_BERT["hidden_size"]))
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 128, "do_lower_case": True})


def write_xlm_roberta(folder: Path, labels: Mapping[int, str]) -> None:
    sizes = {**SMALL_BERT, "max_position_embeddings": POSITIONS, "type_vocab_size": 1}
    ids: dict[str, Any] = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
    label_ids = {label: index for index, label in labels.items()}
    config = XLMRobertaConfig(**sizes, **ids, id2label=dict(labels), label2id=label_ids)
    write_model(folder, XLMRobertaForSequenceClassification, config, small_tokenizer("unigram"))


def write_bge_reranker(folder: Path) -> None:
    """BAAI/bge-reranker-v2-m3"""
    write_xlm_roberta(folder, {0: "LABEL_0"})


def write_language_detection(folder: Path) -> None:
    """papluca/xlm-roberta-base-language-detection"""
    write_xlm_roberta(folder, dict(enumerate(LANGUAGES)))


def write_qwen3_embedding(folder: Path) -> None:
    """Like michaelfeil/Qwen3-Embedding-8B-auto: a Qwen3Model, whose tokenizer adds an end token."""
    tokenizer = small_tokenizer("byte_level")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A $B:1 </s>:1", special_tokens=[("</s>", 2)]
    )
    write_model(folder, Qwen3Model, Qwen3Config(**SMALL_QWEN), tokenizer)
    write_old_modules(folder, ["Transformer", "Pooling", "Normalize"], pooling("lasttoken", SMALL_QWEN["hidden_size"]))


def write_qwen3_reranker(folder: Path) -> None:
    """michaelfeil/Qwen3-Reranker-8B-seq: a sequence classifier with one label."""
    config = Qwen3Config(**SMALL_QWEN, id2label={0: "LABEL_0"}, label2id={"LABEL_0": 0})
    write_model(folder, Qwen3ForSequenceClassification, config, small_tokenizer("bare"))


STAND_INS: Mapping[str, Callable[[Path], None]] = {
    "BAAI/bge-large-en-v1.5": write_bge_large,
    "BAAI/bge-reranker-v2-m3": write_bge_reranker,
    "papluca/xlm-roberta-base-language-detection": write_language_detection,
    "michaelfeil/Qwen3-Reranker-8B-seq": write_qwen3_reranker,
    "model-repo-name": write_qwen3_embedding,
}


def pooling(mode: str, width: int) -> dict[str, Any]:
    modes = ("cls_token", "mean_tokens", "max_tokens", "lasttoken")
    return {"word_embedding_dimension": width} | {f"pooling_mode_{each}": each == mode for each in modes}


def write_model(folder: Path, model_class: type[PreTrainedModel], config: Any, tokenizer: Tokenizer) -> None:
    config.vocab_size = tokenizer.get_vocab_size()
    torch.manual_seed(0)
    model: PreTrainedModel = model_class(config)
    model.train(mode=False)
    for name, parameter in model.named_parameters():
        if "norm" not in name.lower():
            torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    special = {token: token for token in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]") if tokenizer.token_to_id(token)}
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    if not special:
        names = {"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    length = config.max_position_embeddings - (2 if config.model_type == "xlm-roberta" else 0)
    fast = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call] # transformers'
        tokenizer_object=tokenizer, model_max_length=length, **names
    )
    fast.save_pretrained(folder)
