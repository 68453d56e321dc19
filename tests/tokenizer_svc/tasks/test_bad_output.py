"""What an engine sends that is no number is an error of its input, even if the engine did not notice."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine_svc import lane
from engine_svc.backends.simulated import SimulatedBackend
from engine_svc.batch import PackedBatch
from heddle import tensors
from heddle.client import InferenceClient
from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.v1 import engine_pb2, tensor_pb2
from heddle.v1 import inference_pb2 as pb
from tests.kinds import write_classifier, write_reranker, write_sparse_embedder, write_token_classifier
from tests.tokenizer_svc.tasks.conftest import Serve
from tests.tokenizer_svc.tei.served_model import write_embedder
from tokenizer_svc.tasks.gathering import checked

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


def broken(run: Callable[..., Any]) -> Callable[..., list[np.ndarray]]:
    """A backend's `run` that makes NaN for sequences of more than ten tokens."""

    def broken_run(self: SimulatedBackend, batch: PackedBatch, cores: int = 0) -> list[np.ndarray]:
        long = [len(sequence.token_ids) // 4 > 10 for sequence in batch.sequences]
        arrays = zip(run(self, batch, cores), long, strict=True)
        return [np.full_like(array, np.nan) if is_long else array for array, is_long in arrays]

    return broken_run


@pytest.mark.parametrize("name", CALLS)
async def test_what_is_no_number_is_an_error_of_its_input(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(lane, "checked", lambda array: array)
    monkeypatch.setattr(SimulatedBackend, "run", broken(SimulatedBackend.run))
    write, call, field = CALLS[name]
    client = await serve(write)
    with pytest.raises(HeddleError, match="NaN or infinity") as failed:
        await call(client)
    assert (failed.value.kind, failed.value.field) == (ErrorKind.BAD_OUTPUT, f"{field}[2]")


@pytest.mark.parametrize("bad", ["first", "second"])
def test_each_of_several_outputs_is_looked_at(bad: str) -> None:
    fine, broken = np.ones(4, np.float32), np.full(4, np.nan, np.float32)
    outcome = engine_pb2.Outcome(tensor=tensors.to_proto(broken if bad == "first" else fine))
    outcome.more.add(tensor=tensors.to_proto(fine))
    outcome.more.add(sparse=tensor_pb2.SparseTensor(values=(broken if bad == "second" else fine).tobytes()))
    failure = checked(outcome, has_more=True)
    assert isinstance(failure, HeddleError)
    assert failure.kind is ErrorKind.BAD_OUTPUT
