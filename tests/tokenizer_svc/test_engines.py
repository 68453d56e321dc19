"""A tokenizer pod and its engine pods: which ones it accepts, and what its callers learn when it has none."""

import asyncio
import contextlib
import time
from pathlib import Path

import pytest

from heddle.checkpoint import Checkpoint
from heddle.checkpoint.description import describe_checkpoint
from heddle.checkpoint.model_source import PACKAGED_NAME, locate
from heddle.client import Client
from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.rpc.pool import PoolLimits
from heddle.rpc.waiting import poll_until
from heddle.v1 import model_pb2
from tests.cluster import engine_pod, tokenizer_pod
from tokenizer_svc.engines import Engines, check_model
from tokenizer_svc.unary_engines import UnaryEngines


@pytest.mark.parametrize("unary", [False, True])
async def test_an_engine_with_another_pooling_is_refused(tmp_path: Path, unary: bool) -> None:
    own = describe_checkpoint(Checkpoint.read(locate(PACKAGED_NAME)))
    async with engine_pod(tmp_path, pooling="cls") as other:
        engines = UnaryEngines(other, own) if unary else Engines((other,), own)
        await engines.start()
        await asyncio.wait_for(poll_until(lambda: engines.refusal().kind is ErrorKind.MISMATCH), 5)
        assert "with the pooling cls, this tokenizer has mean" in engines.refusal().message
        assert not engines.ready
        await engines.close()
        async with tokenizer_pod(tmp_path, other, pooling="cls") as address, Client(address) as client:
            assert (await client.vectors(["together"])).shape == (1, 384)


def test_engines_are_compared_by_what_both_sides_say() -> None:
    own = model_pb2.Model(name="m", tokenizer_fingerprint="f", kind="MODEL_KIND_CLASSIFIER", labels=["a", "b"])
    check_model(own, own)
    check_model(model_pb2.Model(tokenizer_fingerprint="f", pooling="cls"), own)
    for field, words in (
        (model_pb2.Model(kind="MODEL_KIND_EMBEDDER"), "the kind embedder, this tokenizer has classifier"),
        (model_pb2.Model(labels=["a", "c"]), "the labels a, c, this tokenizer has a, b"),
        (model_pb2.Model(tokenizer_fingerprint="g"), "the tokenizer fingerprint g, this tokenizer has f"),
    ):
        stated = model_pb2.Model(name="m", tokenizer_fingerprint="f")
        stated.MergeFrom(field)
        with pytest.raises(HeddleError, match=words) as refused:
            check_model(stated, own)
        assert refused.value.kind is ErrorKind.MISMATCH


@pytest.mark.parametrize("transport", ["stream", "unary"])
async def test_clients_avoid_a_tokenizer_without_engines(tmp_path: Path, transport: str) -> None:
    """Its stream stays open. While there is no other, items wait for it, and fail with its reason."""
    folders = [tmp_path / name for name in "ab"]
    for folder in folders:
        folder.mkdir()
    own = contextlib.AsyncExitStack()
    engine = await own.enter_async_context(engine_pod(folders[0]))
    first = contextlib.AsyncExitStack()
    alone = await first.enter_async_context(tokenizer_pod(folders[0], engine, engine_transport=transport))
    limits = PoolLimits(no_pod_s_max=0.5)
    async with engine_pod(folders[1]) as other, tokenizer_pod(folders[1], other) as whole:  # noqa: SIM117
        async with Client(alone, whole) as both, Client(alone, limits=limits) as one, Client(alone) as patient:
            await asyncio.wait_for(poll_until(lambda: both.pool.count_pods()["connected"] == 2), 5)
            await asyncio.wait_for(one.wait_ready(), 5)
            await own.aclose()
            await asyncio.wait_for(poll_until(lambda: not one.ready), 20)
            assert one.pool.count_pods()["unready"] == 1
            began = time.monotonic()
            for _ in range(20):
                await both.vectors(["a loom"])
            assert time.monotonic() - began < 5
            with pytest.raises(HeddleError, match=f"{alone} is not ready: no pod can be reached at {engine}") as caught:
                await one.vectors(["a loom"])
            assert (caught.value.kind, caught.value.retry_after_ms) == (ErrorKind.UNAVAILABLE, 1000)
            waiting = asyncio.create_task(patient.vectors(["a loom"]))
            async with engine_pod(folders[0]):
                assert (await asyncio.wait_for(waiting, 10)).shape == (1, 384)
                await asyncio.wait_for(poll_until(lambda: both.pool.count_pods()["connected"] == 2), 5)
    await first.aclose()
