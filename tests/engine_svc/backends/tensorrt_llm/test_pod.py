"""An engine pod whose backend is TensorRT-LLM: requests over gRPC through scheduler and worker to the fake."""

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from transformers import MistralModel

import engine_svc.pod as engine
from engine_svc import startup
from engine_svc.backends.tensorrt_llm import support
from engine_svc.backends.torch_backend import TorchBackend
from engine_svc.settings import EngineSettings
from heddle import tensors
from heddle.checkpoint import Checkpoint
from heddle.cli.readiness import grpc_ready
from heddle.rpc.channels import open_channel
from heddle.rpc.settings import ConfigurationError
from heddle.v1 import engine_pb2 as pb
from heddle.v1 import error_pb2
from heddle.v1.engine_pb2_grpc import EngineServiceStub
from tests.cluster import ENGINE, running
from tests.engine_svc.backends.tensorrt_llm.conftest import write_embedder
from tests.engine_svc.backends.tensorrt_llm.fake_llm import Llm
from tests.engine_svc.gpus import H100
from tests.messages import submitted
from tests.sequences import Sequence as TokenSequence
from tests.sequences import packed, run_each

pytestmark = pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")

IDS = [[5], [7, 8, 9], [*range(10, 50)], [7, 8, 9, 10], [3, 4]]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_embedder(tmp_path / "model", MistralModel)


@pytest.fixture
async def stub(tmp_path: Path, model: Path, llm: type[Llm], monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    """A stub for a pod with `--backend auto`. At the end the pod must have shut TensorRT-LLM down."""
    address = f"unix:{tmp_path}/engine"
    settings = EngineSettings(
        listen=(address,), model=str(model), backend="auto", batch_tokens_max=64, batch_items_max=4
    )
    monkeypatch.setattr(startup, "find_device", lambda _: H100)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (H100.memory_bytes, H100.memory_bytes))
    is_ready = partial(grpc_ready, address, ENGINE)
    async with running(lambda stop: engine.serve(settings, stop), is_ready), open_channel(address) as channel:
        yield cast("Any", EngineServiceStub(channel))
    assert [made.shutdowns for made in llm.made] == [1]


async def encoded(stub: Any, **options: Any) -> Any:
    return (await stub.Encode(pb.EncodeRequest(sequences=submitted(*IDS, **options)))).outcome


async def test_vectors_are_those_of_torch(stub: Any, model: Path) -> None:
    ours = tensors.from_proto((await encoded(stub, dimensions=16)).results[0].tensor)
    batch = packed([TokenSequence(np.array(ids, "<u4").tobytes(), dimensions=16) for ids in IDS])
    theirs = np.stack(run_each(TorchBackend(Checkpoint.read(model), dtype="float32", device="cpu"), batch))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


async def test_the_pod_names_the_backend_of_its_model(stub: Any) -> None:
    model = (await stub.GetModel(pb.EngineServiceGetModelRequest())).model
    assert (model.backend, model.data_type, model.batch_tokens_max) == ("tensorrt_llm", "bfloat16", 64)


async def test_a_batch_that_fails_is_run_again_in_halves(stub: Any, llm: type[Llm]) -> None:
    llm.made[0].fails_next = RuntimeError("CUDA out of memory")
    outcome = await encoded(stub)
    assert (outcome.results[0].tensor.shape[0], len(outcome.errors)) == (len(IDS), 0)


async def test_a_sequence_that_fails_alone_has_an_error(stub: Any, llm: type[Llm]) -> None:
    llm.made[0].fails_next = RuntimeError("CUDA error")
    outcome = (await stub.Encode(pb.EncodeRequest(sequences=submitted([5])))).outcome
    assert [error.error.kind for error in outcome.errors] == [error_pb2.ERROR_KIND_INTERNAL]
    assert not (await encoded(stub)).errors


async def test_a_pod_without_the_package_does_not_start(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(support, "installed_version", lambda: None)
    settings = EngineSettings(backend="tensorrt_llm", model=str(model))
    with pytest.raises(ConfigurationError, match="backend tensorrt_llm: tensorrt-llm is not installed"):
        await engine.serve(settings)
