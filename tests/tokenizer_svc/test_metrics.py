"""The metrics of a tokenizer pod after known work."""

import asyncio
from pathlib import Path

import pytest

from heddle.client import Client
from heddle.rpc.errors import HeddleError
from heddle.rpc.stream import LARGE_BYTES_MIN
from heddle.v1 import inference_pb2 as pb
from tests.cluster import engine_pod, tokenizer_pod
from tests.metrics import free_port, scrape

TEXTS = ["warp", "silk and wool"]  # 3 and 5 tokens, 17 characters


async def test_answered_requests_are_counted(tmp_path: Path) -> None:
    port = free_port()
    async with (
        engine_pod(tmp_path) as engine,
        tokenizer_pod(tmp_path, engine, metrics_port=port) as address,
        Client(address) as client,
    ):
        await client.vectors(TEXTS)
        await client.vectors(["silk wool"], input_tokens_max=3)
        await client.tokenize(pb.TokenizeRequest(inputs=["warp"]))
        with pytest.raises(HeddleError):
            await client.rerank(pb.RerankRequest(query="warp", documents=["weft"]))
        scraped = await scrape(f"http://127.0.0.1:{port}")
    requests = "heddle_tokenizer_requests_total"
    assert scraped.value(requests, task="embed", outcome="ok") == 2
    assert scraped.value(requests, task="tokenize", outcome="ok") == 1
    assert scraped.value(requests, task="rerank", outcome="wrong_task") == 1
    values = {"inputs": 3, "tokens": 11, "characters": 26, "truncated_inputs": 1}
    assert {name: scraped.value(f"heddle_tokenizer_{name}_total", task="embed") for name in values} == values
    for stage in ("tokenize", "queue", "compute"):
        assert scraped.value("heddle_tokenizer_stage_seconds_count", stage=stage) == 2
    assert scraped.value("heddle_tokenizer_request_seconds_count", task="embed") == 2
    assert scraped.value("heddle_tokenizer_encode_seconds_count") == 2
    assert scraped.value("heddle_tokenizer_slice_bytes_sum") == 26 + 3 * 32
    for name in ("running_requests", "queued_requests", "queued_bytes", "queue_age_seconds", "answers_bytes"):
        assert scraped.value(f"heddle_tokenizer_{name}") == 0
    assert scraped.value("heddle_rpc_pods", state="connected") == 1
    assert not scraped.labels_of("te_request_count", "method")


async def test_large_answers_are_counted(tmp_path: Path) -> None:
    port = free_port()
    async with (
        engine_pod(tmp_path) as engine,
        tokenizer_pod(tmp_path, engine, metrics_port=port) as address,
        Client(address) as client,
    ):
        inputs = LARGE_BYTES_MIN // (4 * 384)  # vectors of 384 numbers
        await client.vectors(["warp"] * (inputs + 1))
        scraped = await scrape(f"http://127.0.0.1:{port}")
    assert scraped.value("heddle_tokenizer_requests_total", outcome="ok") == 1
    assert scraped.value("heddle_tokenizer_tokens_total") == 3 * (inputs + 1)


async def test_cancelled_requests_are_counted(tmp_path: Path) -> None:
    port = free_port()
    async with (
        engine_pod(tmp_path, simulated_fixed_us=300_000) as engine,
        tokenizer_pod(tmp_path, engine, metrics_port=port) as address,
        Client(address) as client,
    ):
        url = f"http://127.0.0.1:{port}"
        call = asyncio.create_task(client.vectors(TEXTS))
        async with asyncio.timeout(10):
            while not (await scrape(url)).value("heddle_tokenizer_running_requests"):
                await asyncio.sleep(0.01)
            call.cancel()
            while (await scrape(url)).value("heddle_tokenizer_running_requests"):
                await asyncio.sleep(0.01)
        scraped = await scrape(url)
    assert scraped.value("heddle_tokenizer_requests_total", outcome="cancelled") == 1


async def test_the_names_of_tei_have_its_labels_and_buckets(tmp_path: Path) -> None:
    port = free_port()
    async with (
        engine_pod(tmp_path) as engine,
        tokenizer_pod(tmp_path, engine, metrics_port=port, tei_metrics=True) as address,
        Client(address) as client,
    ):
        await client.vectors(TEXTS)
        await client.vectors(["warp"])
        with pytest.raises(HeddleError):
            await client.predict(pb.PredictRequest())
        await client.tokenize(pb.TokenizeRequest(inputs=["warp"]))
        scraped = await scrape(f"http://127.0.0.1:{port}")
    counts = {
        ("te_request_count", "batch"): 1,
        ("te_request_count", "single"): 2,
        ("te_request_success", "batch"): 1,
        ("te_request_success", "single"): 1,
    }
    assert {(name, method): scraped.value(name, method=method) for name, method in counts} == counts
    assert scraped.value("te_request_failure", err="model_type") == 1
    assert (scraped.value("te_embed_count"), scraped.value("te_embed_success")) == (3, 3)
    assert (scraped.value("te_request_input_length_count"), scraped.value("te_request_input_length_sum")) == (3, 11)
    assert scraped.value("te_request_input_length_bucket", le="4.0") == 2
    for stage in ("duration", "tokenization_duration", "queue_duration", "inference_duration"):
        assert scraped.value(f"te_request_{stage}_count") == 2
        assert scraped.value(f"te_embed_{stage}_count") == 3
        bounds = sorted(map(float, scraped.labels_of(f"te_request_{stage}_bucket", "le")))
        assert len(bounds) == 36
        assert bounds[0] == pytest.approx(1.5e-5)
        assert bounds[-2] == pytest.approx(1e-5 * 1.5**35)
