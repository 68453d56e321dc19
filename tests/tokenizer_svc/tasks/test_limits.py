"""input_tokens_max cuts the inputs of every request that runs the model, and usage counts the cut inputs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.v1 import inference_pb2 as pb
from tests.kinds import (
    write_classifier,
    write_multi_vector_embedder,
    write_reranker,
    write_sparse_embedder,
    write_token_classifier,
)
from tests.tokenizer_svc.tasks.conftest import Serve

TEXT = "one two three four"
INPUTS = [pb.Input(text=TEXT)]
PAIRS = [pb.TextOrPair(text=TEXT)]

REQUESTS: list[tuple[Callable[[Path], Path], str, Any]] = [
    (write_multi_vector_embedder, "embed_tokens", pb.EmbedTokensRequest(inputs=INPUTS)),
    (write_sparse_embedder, "embed_sparse", pb.EmbedSparseRequest(inputs=INPUTS)),
    (write_reranker, "rerank", pb.RerankRequest(query="one", documents=[TEXT])),
    (write_classifier, "predict", pb.PredictRequest(inputs=PAIRS)),
    (write_token_classifier, "predict_tokens", pb.PredictTokensRequest(inputs=[TEXT])),
]


@pytest.mark.parametrize(("write", "method", "request_"), REQUESTS, ids=[name for _, name, _ in REQUESTS])
async def test_an_input_has_no_more_tokens_than_the_request_allows(
    serve: Serve, write: Callable[[Path], Path], method: str, request_: Any
) -> None:
    client = await serve(write)
    call = getattr(client, method)
    whole = await call(request_)
    assert whole.usage.truncated_inputs == 0
    limited = type(request_)()
    limited.CopyFrom(request_)
    limited.input_tokens_max = 5
    cut = await call(limited)
    assert (cut.usage.tokens, cut.usage.truncated_inputs) == (5, 1)
    limited.truncation = pb.TRUNCATION_REFUSE
    with pytest.raises(HeddleError) as refused:
        await call(limited)
    assert refused.value.kind is ErrorKind.TOO_LARGE
    assert "the limit is 5 tokens" in refused.value.message
