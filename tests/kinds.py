"""Checkpoints of every kind without weights, for simulated engines. They have MiniLM's tokenizer."""

import json
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from engine_svc.backends import Backend
from heddle.checkpoint.model_source import PACKAGED_NAME, locate
from tests.cluster import engine_pod, gateway, tokenizer_pod

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")

EMOTIONS = ("anger", "joy", "sadness")
TAGS = ("O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC")


def write_reranker(folder: Path) -> Path:
    return write_config(folder, "BertForSequenceClassification", ("LABEL_0",))


def write_classifier(folder: Path) -> Path:
    return write_config(folder, "BertForSequenceClassification", EMOTIONS)


def write_multi_label_classifier(folder: Path) -> Path:
    return write_config(folder, "BertForSequenceClassification", EMOTIONS, problem_type="multi_label_classification")


def write_token_classifier(folder: Path) -> Path:
    return write_config(folder, "BertForTokenClassification", TAGS)


def write_multi_vector_embedder(folder: Path) -> Path:
    write_config(folder, "HF_ColBERT", ())
    (folder / "artifact.metadata").write_text('{"dim": 16}')
    return folder


def write_sparse_embedder(folder: Path) -> Path:
    write_config(folder, "BertForMaskedLM", ())
    modules = [("0", "", "MLMTransformer"), ("1", "1_SpladePooling", "SpladePooling")]
    package = "sentence_transformers.sparse_encoder.models"
    listing = [
        {"idx": index, "name": name, "path": path, "type": f"{package}.{type_}"}
        for index, (name, path, type_) in enumerate(modules)
    ]
    (folder / "modules.json").write_text(json.dumps(listing))
    (folder / "1_SpladePooling").mkdir()
    (folder / "1_SpladePooling" / "config.json").write_text('{"pooling_strategy": "max"}')
    return folder


def write_config(folder: Path, architecture: str, labels: Sequence[str], **more: Any) -> Path:
    packaged = locate(PACKAGED_NAME, None, with_weights=False)
    folder.mkdir(parents=True, exist_ok=True)
    for name in TOKENIZER_FILES:
        if (packaged / name).is_file():
            shutil.copy(packaged / name, folder)
    config = json.loads((packaged / "config.json").read_text())
    if labels:
        config["id2label"] = dict(enumerate(labels))
        config["label2id"] = {label: index for index, label in enumerate(labels)}
    config |= {"architectures": [architecture], "max_position_embeddings": 256, **more}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@asynccontextmanager
async def http_of(
    folder: Path, model: Path, backend: Backend | None = None, **settings: Any
) -> AsyncIterator[httpx.AsyncClient]:
    """Yields a client of a gateway in front of real pods. The engine is simulated unless a backend is given."""
    named: dict[str, Any] = {"model": str(model), "served_model_name": "served"}
    async with (
        engine_pod(folder, backend, **named) as engine,
        tokenizer_pod(folder, engine, **named) as tokenizer,
        gateway(tokenizer, **settings) as url,
        httpx.AsyncClient(base_url=url, timeout=30) as http,
    ):
        yield http
