"""ModelInfer refuses invalid requests with a fitting status, never with INTERNAL or UNKNOWN."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from heddle.oip.v2 import open_inference_grpc_pb2 as oip
from tests.tokenizer_svc.oip.calls import Tensor, infer, integers, stub_of, texts
from tests.tokenizer_svc.tei.served_model import TOKENS_MAX, ServedModel, served, status_of

INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND
LONG = " ".join(f"thread{number}" for number in range(TOKENS_MAX))
WARP = texts("text", "warp")


@pytest.fixture
async def embedder(tmp_path: Path) -> AsyncIterator[ServedModel]:
    async with served(tmp_path) as model:
        yield model


def raw_request(*contents: bytes, datatype: str = "BYTES", shape: list[int]) -> Any:
    tensor = Tensor(name="input_ids" if datatype != "BYTES" else "text", datatype=datatype, shape=shape)
    return oip.ModelInferRequest(inputs=[tensor], raw_input_contents=contents)


def with_empty_parameter() -> Any:
    request = infer(WARP)
    request.parameters["truncate"].SetInParent()
    return request


def with_parameters(on: str) -> Any:
    request = infer(WARP, outputs=["embeddings"])
    getattr(request, on)[0].parameters["classification"].int64_param = 3
    return request


# Requests, and words of the message.
REFUSED: list[tuple[Any, str]] = [
    (infer(), "they are none"),
    (infer(texts("query", "warp"), WARP), "they are query, text"),
    (infer(WARP, WARP), "occurs twice"),
    (infer(texts("text", "warp", "weft", shape=[3])), "has 2 elements"),
    (infer(texts("text", "warp", "weft", shape=[-2, -1])), "below 1"),
    (infer(texts("text", "warp", shape=[-1])), "below 1"),
    (infer(texts("text", *"abcd", shape=[2, 2])), "one row or one column"),
    (infer(texts("text", "")), "empty"),
    (infer(texts("text", shape=[0])), "below 1"),
    (infer(texts("text", "warp", shape=[2**62, 2**62])), "may have at most 2048 inputs"),
    (infer(*[texts("text", *["warp"] * 2049)]), "the limit is 2048"),
    (infer(texts("text", LONG), truncate=False), f"the limit is {TOKENS_MAX} tokens"),
    (infer(integers("numbers", [[1]])), "must be of the data type BYTES"),
    (infer(WARP, color="red"), "no parameter 'color'"),
    (infer(WARP, raw_scores=True), "no parameter 'raw_scores'"),
    (infer(WARP, truncate="yes"), "truncate must be a boolean"),
    (with_empty_parameter(), "truncate must be a boolean"),
    (infer(WARP, dimensions=True), "dimensions must be a whole number"),
    (infer(WARP, dimensions=0), "dimensions must be at least 1"),
    (infer(WARP, dimensions=2**40), "dimensions "),
    (infer(WARP, dimensions=385), "384"),
    (infer(WARP, truncation_side="middle"), "one of right, left"),
    (infer(WARP, prompt_name="answer"), "no prompt named 'answer'"),
    (infer(WARP, outputs=["scores"]), "no output 'scores'"),
    (infer(WARP, outputs=["embeddings", "embeddings"]), "each once"),
    (with_parameters("outputs"), "takes no parameters"),
    (with_parameters("inputs"), "unknown parameters: classification"),
    (infer(integers("input_ids", [[101, -1]])), "not token ids"),
    (infer(integers("input_ids", [[101, 10**6]])), "vocabulary"),
    (infer(integers("input_ids", [[101, 102]]), integers("attention_mask", [[1]])), "has the shape [1, 1]"),
    (infer(integers("input_ids", [[101, 102]]), integers("attention_mask", [[1, 2]])), "too large"),
    (infer(integers("input_ids", [[101, 102]]), integers("token_type_ids", [[0, 1]])), "must be 0"),
    (infer(integers("input_ids", [[101, 102]]), integers("attention_mask", [[0, 0]])), "empty"),
    (raw_request(b"\4\0\0\0warp", b"more", shape=[1]), "1 inputs and 2 raw_input_contents"),
    (raw_request(b"\5\0\0\0warp", shape=[1]), "end inside an element"),
    (raw_request(b"\4\0", shape=[1]), "end inside an element"),
    (raw_request(b"\2\0\0\0\xff\xfe", shape=[1]), "not UTF-8"),
    (raw_request(b"1234567", datatype="INT64", shape=[1, 1]), "not a multiple of 8"),
    (raw_request(b"12345678", datatype="INT64", shape=[1]), "two dimensions"),
    (raw_request(b"", datatype="INT64", shape=[2**40, 0]), "below 1"),
    (raw_request(bytes(8 * 2049), datatype="INT64", shape=[2049, 1]), "may have at most 2048 inputs"),
    (raw_request(bytes(4_000_000), shape=[1]), "more elements than its shape"),
]


async def test_a_bad_request_is_an_invalid_argument(embedder: ServedModel) -> None:
    for request, words in REFUSED:
        status, message = await status_of(stub_of(embedder).ModelInfer(request))
        assert (status, words in message) == (INVALID, True), (message, words)


async def test_contents_beside_raw_contents_are_an_invalid_argument(embedder: ServedModel) -> None:
    request = infer(WARP)
    request.raw_input_contents.append(b"\4\0\0\0warp")
    assert (await status_of(stub_of(embedder).ModelInfer(request)))[0] is INVALID


async def test_another_model_or_version_is_not_found(embedder: ServedModel) -> None:
    stub = stub_of(embedder)
    for call in (
        stub.ModelInfer(oip.ModelInferRequest(model_name="large", inputs=[WARP])),
        stub.ModelInfer(oip.ModelInferRequest(model_name="small", model_version="2", inputs=[WARP])),
        stub.ModelReady(oip.ModelReadyRequest(name="large")),
        stub.ModelMetadata(oip.ModelMetadataRequest(name="small", version="2")),
    ):
        assert (await status_of(call))[0] is NOT_FOUND


async def test_a_task_that_the_model_lacks_is_a_failed_precondition(embedder: ServedModel) -> None:
    call = stub_of(embedder).ModelInfer(infer(texts("query", "warp"), texts("documents", "weft")))
    assert (await status_of(call))[0] is grpc.StatusCode.FAILED_PRECONDITION
