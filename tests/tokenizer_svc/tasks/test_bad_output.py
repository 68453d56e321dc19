"""NaN from an engine is an error of its input, even if the engine did not notice it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from heddle.client import InferenceClient
from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.v1 import engine_pb2, tensor_pb2
from heddle.v1 import inference_pb2 as pb
from tests.kinds import write_classifier, write_reranker, write_sparse_embedder, write_token_classifier
from tests.tokenizer_svc.fake_engine import FakeEngine
from tests.tokenizer_svc.tasks.conftest import Serve
from tests.tokenizer_svc.tei.served_model import write_embedder
from tokenizer_svc.text.sequences import TokenSequence

TEXTS = ["fine", "fine too", "a text that has far more tokens than the others have"]
INPUTS = [pb.Input(text=text) for text in TEXTS]
HALVES = tensor_pb2.DATA_TYPE_FLOAT16

Call = Callable[[InferenceClient], Any]
CALLS: dict[str, tuple[Callable[[Path], Path], Call, str]] = {
    "embed": (write_embedder, lambda client: client.embed(pb.EmbedRequest(inputs=INPUTS)), "inputs"),
    "halves": (write_embedder, lambda client: client.embed(pb.EmbedRequest(inputs=INPUTS, data_type=HALVES)), "inputs"),
    "tokens": (write_embedder, lambda client: client.embed_tokens(pb.EmbedTokensRequest(inputs=INPUTS)), "inputs"),
    "sparse": (
        write_sparse_embedder,
        lambda client: client.embed_sparse(pb.EmbedSparseRequest(inputs=INPUTS)),
        "inputs",
    ),
    "rerank": (write_reranker, lambda client: client.rerank(pb.RerankRequest(query="a", documents=TEXTS)), "documents"),
    "predict": (
        write_classifier,
        lambda client: client.predict(pb.PredictRequest(inputs=[pb.TextOrPair(text=text) for text in TEXTS])),
        "inputs",
    ),
    "predict_tokens": (
        write_token_classifier,
        lambda client: client.predict_tokens(pb.PredictTokensRequest(inputs=TEXTS)),
        "inputs",
    ),
}


class Broken(FakeEngine):
    """Sends NaN for sequences of more than ten tokens."""

    def is_broken(self, sequence: TokenSequence, output: engine_pb2.Output) -> bool:
        return sequence.tokens > 10


@pytest.mark.parametrize("name", CALLS)
async def test_nan_is_an_error_of_its_input(serve: Serve, name: str) -> None:
    write, call, field = CALLS[name]
    client = await serve(write, Broken())
    with pytest.raises(HeddleError, match="NaN or infinity") as failed:
        await call(client)
    assert (failed.value.kind, failed.value.field) == (ErrorKind.BAD_OUTPUT, f"{field}[2]")
