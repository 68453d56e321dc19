"""Callers who send anything over HTTP or gRPC soon get an answer or a client error."""

from collections.abc import Iterator
from functools import cache
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from heddle.oip.v2 import open_inference_grpc_pb2 as oip_pb2
from heddle.tei.v1 import tei_pb2
from heddle.v1 import engine_pb2, error_pb2, inference_pb2
from tests.fuzz.pods import KINDS, call, world
from tests.fuzz.strategies import BOUNDED, bytes_near, encode_json, json_near, messages, tokens

CODES = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.UNIMPLEMENTED,
}
# grpc.aio says this, in place of the status, when a stream ends while it writes.
BROKEN = "Internal error from Core"
NOT_THE_CALLERS = {
    error_pb2.ERROR_KIND_UNSPECIFIED,
    error_pb2.ERROR_KIND_INTERNAL,
    error_pb2.ERROR_KIND_UNAVAILABLE,
    error_pb2.ERROR_KIND_BAD_OUTPUT,
}


@pytest.fixture(scope="module", autouse=True)
def pods() -> Iterator[None]:
    prepare()
    yield
    world().close()


@cache
def routes() -> list[tuple[str, Any]]:
    """The path and an example of the body of each POST."""
    described = world().run(world().pods("embedder").http.get("/openapi.json")).json()
    found = []
    for path, methods in described["paths"].items():
        if body := methods.get("post", {}).get("requestBody"):
            content = body["content"]["application/json"]
            found.append((path.replace("{model}", "small"), content.get("example") or {"inputs": "a text"}))
    assert len(found) > 20
    return found


@cache
def field_names() -> list[str]:
    described = world().run(world().pods("embedder").http.get("/openapi.json")).json()
    schemas = described["components"]["schemas"].values()
    return sorted({name for schema in schemas for name in schema.get("properties", ())})


def prepare() -> None:
    """Must be called before the tests."""
    routes()
    field_names()


@st.composite
def posts(draw: st.DrawFn) -> tuple[str, bytes]:
    path, example = draw(st.sampled_from(routes()))
    body = draw(json_near(example, field_names()).map(encode_json))
    return path, draw(st.just(body) | bytes_near(body))


@given(st.sampled_from(KINDS), posts(), st.sampled_from(["", "gzip", "zstd", "br"]) | st.just(""))
@BOUNDED
def test_json_bodies(kind: str, post: tuple[str, bytes], coding: str) -> None:
    path, body = post
    http, headers = world().pods(kind).http, {"content-encoding": coding} if coding else {}
    response = world().run(http.post(path, content=body, headers=headers, timeout=None))
    assert response.status_code in (200, 400, 404, 413, 415, 422, 424, 429, 501), response.text
    response.json()


def check_calls(kind: str, service: str, method: MethodDescriptor, requests: list[Message]) -> None:
    pods = world().pods(kind)
    try:
        responses = world().run(call(getattr(pods, service), method, requests))
    except grpc.aio.AioRpcError as error:
        if error.code() in CODES or error.details() == BROKEN:
            return
        raise
    for response in responses:
        for outcome in getattr(response, "outcomes", ()):
            assert not (outcome.HasField("error") and outcome.error.kind in NOT_THE_CALLERS), outcome.error


def calls(file: Any, *names: str) -> st.SearchStrategy[tuple[MethodDescriptor, list[Message]]]:
    """A method of a service in a .proto file, and requests for it."""
    methods = [method for name in names for method in file.services_by_name[name].methods]
    return st.sampled_from(methods).flatmap(
        lambda method: st.tuples(st.just(method), st.lists(messages(method.input_type), min_size=1, max_size=3))
    )


@given(st.sampled_from(KINDS), calls(inference_pb2.DESCRIPTOR, "InferenceService"))
@BOUNDED
def test_inference_calls(kind: str, made: tuple[MethodDescriptor, list[Message]]) -> None:
    check_calls(kind, "tokenizer", *made)


@given(st.sampled_from(KINDS), calls(tei_pb2.DESCRIPTOR, "Embed", "Predict", "Rerank", "Tokenize", "Info"))
@BOUNDED
def test_tei_calls(kind: str, made: tuple[MethodDescriptor, list[Message]]) -> None:
    check_calls(kind, "tokenizer", *made)


@given(st.sampled_from(KINDS), calls(oip_pb2.DESCRIPTOR, "GRPCInferenceService"))
@BOUNDED
def test_open_inference_calls(kind: str, made: tuple[MethodDescriptor, list[Message]]) -> None:
    check_calls(kind, "tokenizer", *made)


@given(st.sampled_from(KINDS), calls(engine_pb2.DESCRIPTOR, "EngineService"))
@BOUNDED
def test_engine_calls(kind: str, made: tuple[MethodDescriptor, list[Message]]) -> None:
    check_calls(kind, "engine", *made)


ENCODE = engine_pb2.DESCRIPTOR.services_by_name["EngineService"].methods_by_name["Encode"]


@given(
    st.sampled_from(KINDS),
    messages(engine_pb2.Sequences.DESCRIPTOR),
    st.lists(tokens(9), min_size=1, max_size=4),
)
@BOUNDED
def test_sequences_whose_sizes_match(kind: str, sequences: Any, each: list[bytes]) -> None:
    sequences.token_ids = b"".join(each)
    sequences.lengths = b"".join((len(one) // 4).to_bytes(4, "little") for one in each)
    sequences.type_ids = sequences.type_ids[: len(sequences.token_ids) // 4] or b""
    check_calls(kind, "engine", ENCODE, [engine_pb2.EncodeRequest(sequences=sequences)])
