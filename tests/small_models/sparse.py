"""A SPLADE model, in the files of a sentence-transformers SparseEncoder: a text becomes weights of vocabulary words."""

from pathlib import Path

import torch
from torch import Tensor
from transformers import BertForMaskedLM

from tests.checkpoints import write_json, write_old_modules
from tests.small_models.minilm import body_with_head, encoded, minilm_tokenizer, save, token_features
from tests.small_models.ner_corpus import labelled_sentences
from tests.small_models.reranker_corpus import documents

MODULES = "sentence_transformers.sparse_encoder.models"

# The head's GELU passes what is far above zero unchanged, and its layer norm takes a common offset away: with this
# bias the head is linear, which least squares can find.
OFFSET = 20.0
RIDGE = 1.0

# For each token of a text, its own word and the few most similar words of the vocabulary have weights above zero.
SHARE_ABOVE_ZERO = 2e-4
NEVER = -100.0
SAMPLE = 200


def splade_model(folder: Path) -> Path:
    """The head tells from a token's hidden state the token itself; its decoder is tied to the word embeddings."""
    model = body_with_head(BertForMaskedLM)
    texts = sorted([*documents(), *(sentence.text for sentence in labelled_sentences(150))], key=len)
    features = token_features(model.bert, texts)
    tokens = torch.cat([batch["input_ids"][batch["attention_mask"].bool()] for batch in encoded(texts)])
    with torch.no_grad():
        write_transform(model, features, tokens)
        write_bias(model, features)
    write_sparse_encoder_files(folder)
    return save(model, folder)


def write_transform(model: BertForMaskedLM, features: Tensor, tokens: Tensor) -> None:
    """From hidden states [n, hidden] to the word embeddings of their tokens [n], by ridge regression."""
    inputs = torch.cat([features, torch.ones(len(features), 1)], dim=1)
    words = model.bert.embeddings.word_embeddings.weight
    gram = inputs.T @ inputs + RIDGE * torch.eye(inputs.shape[1])
    solution = torch.linalg.solve(gram, inputs.T @ (words[tokens] - words.mean(0)))
    dense = model.cls.predictions.transform.dense
    dense.weight.copy_(solution[:-1].T)
    dense.bias.copy_(solution[-1] + OFFSET)


def write_bias(model: BertForMaskedLM, features: Tensor) -> None:
    """The same for all words, so that SHARE_ABOVE_ZERO of the logits are; special tokens never are."""
    logits = model.cls(features[:: len(features) // SAMPLE]).flatten()
    threshold = logits.topk(int(SHARE_ABOVE_ZERO * len(logits))).values[-1]
    model.cls.predictions.bias.fill_(-threshold)
    model.cls.predictions.bias[minilm_tokenizer().all_special_ids] = NEVER


def write_sparse_encoder_files(folder: Path) -> None:
    """The files of sentence-transformers 5.0, which the SPLADE models on the hub have."""
    write_old_modules(folder, [f"{MODULES}.MLMTransformer", f"{MODULES}.SpladePooling"])
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 512, "do_lower_case": False})
    write_json(
        folder / "config_sentence_transformers.json",
        {"model_type": "SparseEncoder", "prompts": {"query": "", "document": ""}, "similarity_fn_name": "dot"},
    )
    write_json(
        folder / "1_SpladePooling" / "config.json",
        {"pooling_strategy": "max", "activation_function": "relu", "word_embedding_dimension": None},
    )
