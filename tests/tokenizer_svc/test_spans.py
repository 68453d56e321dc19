"""Span attributes of requests other than embeddings; tests/system/test_traces.py has those."""

from typing import Any

import pytest

from heddle.v1 import inference_pb2 as pb
from heddle.v1 import tensor_pb2
from tokenizer_svc.spans import RequestSpans, find_dimension

TENSOR = tensor_pb2.Tensor(shape=(2, 384))


@pytest.mark.parametrize(
    ("item", "operation", "inputs"),
    [
        (pb.InferenceItem(rerank=pb.RerankRequest(query="q", documents=["a", "b"])), "rerank", 2),
        (pb.InferenceItem(rerank=pb.RerankRequest(tokenized_inputs=[pb.TokenizedInput()])), "rerank", 1),
        (pb.InferenceItem(predict=pb.PredictRequest(inputs=[pb.TextOrPair(text="a")])), "classify", 1),
        (pb.InferenceItem(predict_tokens=pb.PredictTokensRequest(inputs=["a"])), "classify_tokens", 1),
        (pb.InferenceItem(similarity=pb.SimilarityRequest(source="s", sentences=["a"])), "similarity", 1),
        (pb.InferenceItem(embed_sparse=pb.EmbedSparseRequest(inputs=[pb.Input(text="a")])), "embeddings", 1),
        (pb.InferenceItem(tokenize=pb.TokenizeRequest(inputs=["a"])), "tokenize", 1),
        (pb.InferenceItem(decode=pb.DecodeRequest(token_ids=[b"", b""])), "decode", 2),
        (pb.InferenceItem(), "unknown", 0),
    ],
)
def test_requests_name_their_operation_and_count_their_inputs(
    item: pb.InferenceItem, operation: str, inputs: int
) -> None:
    name, attributes = RequestSpans("loom", None).begin(item)  # type: ignore[arg-type]
    assert (name, attributes["gen_ai.operation.name"]) == (f"{operation} loom", operation)
    assert attributes["heddle.request.inputs"] == inputs
    assert "gen_ai.request.encoding_formats" not in attributes


@pytest.mark.parametrize(("data_type", "formats"), [(0, ["float"]), (1, ["float"]), (4, ["int8"]), (7, ["ubinary"])])
def test_encoding_formats_have_the_names_of_embedding_apis(data_type: Any, formats: list[str]) -> None:
    item = pb.InferenceItem(embed_tokens=pb.EmbedTokensRequest(data_type=data_type))
    assert RequestSpans("loom", None).begin(item)[1]["gen_ai.request.encoding_formats"] == formats  # type: ignore[arg-type]


def test_a_data_type_that_does_not_exist_is_left_out() -> None:
    item = pb.InferenceItem(embed=pb.EmbedRequest(data_type=99))  # type: ignore[arg-type]
    assert "gen_ai.request.encoding_formats" not in RequestSpans("loom", None).begin(item)[1]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("answer", "dimension"),
    [
        (pb.EmbedResponse(embeddings=TENSOR), 384),
        (pb.EmbedTokensResponse(embeddings=[TENSOR]), 384),
        (pb.EmbedTokensResponse(), 0),
        (pb.EmbedResponse(sparse_embeddings=[tensor_pb2.SparseTensor(dimension=9)]), 0),
        (pb.EmbedSparseResponse(embeddings=[tensor_pb2.SparseTensor(dimension=9)]), 0),
        (pb.RerankResponse(), 0),
    ],
)
def test_the_dimension_is_that_of_dense_vectors(answer: Any, dimension: int) -> None:
    assert find_dimension(answer) == dimension
