"""Dense, sparse and ColBERT vectors in one call, over HTTP and gRPC, equal FlagEmbedding's."""

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import ormsgpack
import pytest
from tokenizers import Tokenizer

from engine_svc.backends.torch_backend import TorchBackend
from engine_svc.rows import Rows
from engine_svc.sequences import Output, PackedBatch
from heddle import tensors
from heddle.checkpoint import Checkpoint
from heddle.client import Client
from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.v1 import inference_pb2 as pb
from heddle.v1 import model_pb2, tensor_pb2
from tests.http_gateway.calls import answer_to, refusal_of
from tests.kinds import http_of
from tests.small_models.m3 import Vectors, write_m3
from tests.texts import SENTENCES

TEXTS = SENTENCES[:4]
DENSE, SPARSE, COLBERT = (
    model_pb2.EMBEDDING_KIND_DENSE,
    model_pb2.EMBEDDING_KIND_SPARSE,
    model_pb2.EMBEDDING_KIND_COLBERT,
)


class Counting(TorchBackend):
    """Counts the sequences that it computes."""

    computed = 0

    def run(self, batch: PackedBatch, cores: int = 0) -> Mapping[Output, Rows]:
        self.computed += len(batch)
        return super().run(batch, cores)


class Served:
    """A small bge-m3 over HTTP and gRPC, and the vectors that FlagEmbedding computes for TEXTS."""

    def __init__(self, http: httpx.AsyncClient, address: str, backend: Counting, expected: list[Vectors]) -> None:
        self.http = http
        self.address = address
        self.backend = backend
        self.expected = expected


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    small = write_m3(tmp_path / "model")
    library = Tokenizer.from_file(str(tmp_path / "model" / "tokenizer.json"))
    library.enable_truncation(64)
    expected = [small.vectors_of(library.encode(text).ids) for text in TEXTS]
    backend = Counting(Checkpoint.read(tmp_path / "model"), dtype="float32", device="cpu")
    async with http_of(tmp_path, tmp_path / "model", backend) as http:
        backend.computed = 0
        yield Served(http, f"unix:{tmp_path}/tokenizer", backend, expected)


def check_lexical(found: list[dict[str, float]], expected: list[Vectors]) -> None:
    for weights, vectors in zip(found, expected, strict=True):
        assert weights
        assert weights == pytest.approx({str(key): value for key, value in vectors.lexical_weights.items()}, abs=1e-5)


def check_colbert(found: Any, expected: list[Vectors]) -> None:
    for table, vectors in zip(found, expected, strict=True):
        np.testing.assert_allclose(np.array(table), vectors.colbert, atol=1e-5)


async def test_embed_returns_all_three_kinds_from_one_pass_by_flagembeddings_names(served: Served) -> None:
    answer: Any = await answer_to(served.http, "/embed", inputs=TEXTS, return_sparse=True, return_colbert_vecs=True)
    assert list(answer) == ["dense_vecs", "lexical_weights", "colbert_vecs"]
    np.testing.assert_allclose(answer["dense_vecs"], [vectors.dense for vectors in served.expected], atol=1e-5)
    check_lexical(answer["lexical_weights"], served.expected)
    check_colbert(answer["colbert_vecs"], served.expected)
    assert served.backend.computed == len(TEXTS)


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"return_sparse": True}, ["dense_vecs", "lexical_weights"]),
        ({"return_sparse": True, "return_dense": False}, ["lexical_weights"]),
        ({"return_colbert_vecs": True, "return_dense": False}, ["colbert_vecs"]),
        ({"return_colbert_vecs": True, "return_dense": False, "normalize": False}, ["colbert_vecs"]),
    ],
)
async def test_answer_has_the_requested_kinds(served: Served, fields: dict[str, Any], names: list[str]) -> None:
    assert list(await answer_to(served.http, "/embed", inputs=TEXTS, **fields)) == names


async def test_dense_vectors_alone_are_a_plain_list(served: Served) -> None:
    for fields in ({}, {"return_dense": True, "return_sparse": False}):
        rows = await answer_to(served.http, "/embed", inputs=TEXTS, **fields)
        np.testing.assert_allclose(rows, [vectors.dense for vectors in served.expected], atol=1e-5)


async def test_sparse_vectors_alone_are_those_of_embed_sparse(served: Served) -> None:
    answer: Any = await answer_to(served.http, "/embed_sparse", inputs=TEXTS)
    check_lexical([{str(entry["index"]): entry["value"] for entry in entries} for entries in answer], served.expected)


async def test_long_answers_are_written_in_parts_and_in_message_pack(served: Served) -> None:
    body = {"inputs": list(TEXTS) * 16, "return_sparse": True, "return_colbert_vecs": True}
    packed = await served.http.post("/embed", json=body, headers={"accept": "application/msgpack"})
    answer = ormsgpack.unpackb(packed.content)
    assert answer.keys() == (await served.http.post("/embed", json=body)).json().keys()
    check_lexical(answer["lexical_weights"], served.expected * 16)
    check_colbert(answer["colbert_vecs"], served.expected * 16)


async def test_grpc_returns_the_kinds_that_get_model_lists(served: Served) -> None:
    async with Client(served.address) as client:
        model = await client.get_model()
        assert list(model.embedding_kinds) == [DENSE, SPARSE, COLBERT]
        inputs = [pb.Input(text=text) for text in TEXTS]
        request = pb.EmbedRequest(inputs=inputs, embedding_kinds=model.embedding_kinds)
        found = await client.embed(request)
        request.data_type = tensor_pb2.DATA_TYPE_FLOAT16
        halves = await client.embed(request)
    dense = [vectors.dense for vectors in served.expected]
    np.testing.assert_allclose(tensors.from_proto(found.embeddings), dense, atol=1e-5)
    check_colbert([tensors.from_proto(table) for table in found.colbert_embeddings], served.expected)
    for sparse, vectors in zip(found.sparse_embeddings, served.expected, strict=True):
        ids, weights = np.frombuffer(sparse.indices, "<u4"), np.frombuffer(sparse.values, "<f4")
        assert dict(zip(ids.tolist(), weights.tolist(), strict=True)) == pytest.approx(
            vectors.lexical_weights, abs=1e-5
        )
        assert sparse.dimension == model.vocabulary_size
    assert served.backend.computed == 2 * len(TEXTS)
    assert halves.embeddings.data_type == halves.colbert_embeddings[0].data_type == tensor_pb2.DATA_TYPE_FLOAT16
    assert halves.sparse_embeddings == found.sparse_embeddings


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"embedding_kinds": [99]}, "embedding_kinds"),
        ({"embedding_kinds": [SPARSE], "dimensions": 4}, "dimensions"),
        ({"embedding_kinds": [COLBERT], "dimensions": 4}, "dimensions"),
        ({"embedding_kinds": [SPARSE], "skip_normalization": True}, "skip_normalization"),
        ({"embedding_kinds": [SPARSE], "data_type": tensor_pb2.DATA_TYPE_FLOAT16}, "data_type"),
    ],
)
async def test_options_without_effect_are_refused_by_name(served: Served, fields: dict[str, Any], field: str) -> None:
    async with Client(served.address) as client:
        with pytest.raises(HeddleError) as caught:
            await client.embed(pb.EmbedRequest(inputs=[pb.Input(text="a")], **fields))
    assert (caught.value.kind, caught.value.field) == (ErrorKind.INVALID_INPUT, field)


async def test_a_request_for_no_kind_is_400(served: Served) -> None:
    status, _, message = await refusal_of(served.http, "/embed", inputs="a", return_dense=False)
    assert (status, message[:21]) == (400, "return_dense is false")


async def test_a_dense_only_model_refuses_other_kinds(http: httpx.AsyncClient) -> None:
    for field in ("return_sparse", "return_colbert_vecs"):
        status, _, message = await refusal_of(http, "/embed", inputs="a", **{field: True})
        assert status == 400
        assert "return_sparse and return_colbert_vecs" in message
        assert message.endswith("embeddings, only dense")
