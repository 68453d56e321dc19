"""Each log line about a request names it, in all three services, and no line holds the caller's text."""

import asyncio
import contextlib
import io
import itertools
import json
import logging
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest

from engine_svc.backends.simulated import SimulatedBackend
from engine_svc.rows import Rows
from engine_svc.sequences import Output, PackedBatch
from heddle.telemetry.logs import JsonFormatter
from heddle.v1 import inference_pb2
from heddle.v1.inference_pb2_grpc import InferenceServiceStub
from tests.cluster import engine_pod, gateway, tokenizer_pod

CANARY = "zebrafinch"
IDS = [29_345, 29_346]  # of a caller that sends token ids
PATH = "/v1/embeddings"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE}-00f067aa0ba902b7-00"

# Right and wrong bodies for all kinds of routes, with the canary wherever a caller's text may be.
BODIES: list[Any] = [
    *({name: CANARY} for name in ("input", "inputs", "text", "prompt", "content", CANARY)),
    *({name: [CANARY, f"two {CANARY}s"]} for name in ("input", "inputs", "texts", "prompt", "instances")),
    *({name: [CANARY], "query": CANARY, "top_n": 1} for name in ("texts", "documents")),
    {"query": CANARY, "texts": [{"text": CANARY}], "raw_scores": CANARY},
    {"inputs": {"source_sentence": CANARY, "sentences": [CANARY]}},
    {"inputs": [[CANARY, CANARY]], "truncate": False},
    {"instances": [{"inputs": CANARY}]},
    {"messages": [{"role": "user", "content": CANARY}], "text_1": CANARY, "text_2": CANARY},
    {"input": CANARY, "dimensions": CANARY, "encoding_format": CANARY, "user": CANARY},
    {"input": CANARY, "prompt_name": CANARY, "instruction": CANARY},
    {"input": f"{CANARY} " * 600, "inputs": f"{CANARY} " * 600, "truncate": False},
    {"input": [CANARY, 7, {"x": CANARY}], "inputs": [CANARY, None]},
    {"input": f"{CANARY} \ud800", "inputs": f"{CANARY} \ud800"},
    {"input": IDS, "inputs": IDS, "tokens": IDS, "ids": IDS},
    {"input": [IDS[1:]], "inputs": [IDS[1:]]},
    {"input": [[*IDS, 10**9]], "inputs": [[*IDS, 10**9]], "tokens": [*IDS, 10**9]},
    [CANARY],
    CANARY,
]
RAW = [json.dumps({"input": CANARY})[:-2].encode(), CANARY.encode(), b'{"input": "' + CANARY.encode() + b'\xff"}']


class FailingBackend:
    """Raises for sequences that contain IDS[0], and computes NaN for sequences that contain IDS[1]."""

    def __init__(self) -> None:
        self._simulated = SimulatedBackend(fixed_us=2000, per_token_ns=0)
        self.outputs, self.data_type = self._simulated.outputs, self._simulated.data_type

    def run(self, batch: PackedBatch, cores: int = 0) -> Mapping[Output, Rows]:
        if IDS[0] in batch.token_ids:
            raise RuntimeError("the device failed")
        rows = self._simulated.run(batch)
        if IDS[1] in batch.token_ids:
            return {output: Rows(np.full_like(its.values, np.nan)) for output, its in rows.items()}
        return rows

    def close(self) -> None:
        pass


@contextlib.contextmanager
def logged(level: int = logging.DEBUG) -> Iterator[io.StringIO]:
    """Returns what all services and libraries log in this process, as JSON lines."""
    stream, root = io.StringIO(), logging.getLogger()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter("all"))
    before = root.level
    root.addHandler(handler)
    root.setLevel(level)
    try:
        yield stream
    finally:
        root.removeHandler(handler)
        root.setLevel(before)


def lines_of(stream: io.StringIO, logger: str = "") -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    return [line for line in lines if line["logger"].startswith(logger)]


def quiet_clients() -> None:
    """The clients of this test log in the same process."""
    for name in ("httpx", "httpcore", "hpack"):
        logging.getLogger(name).setLevel(logging.WARNING)


@contextlib.asynccontextmanager
async def services(folder: Path, **settings: Any) -> AsyncIterator[tuple[httpx.AsyncClient, str]]:
    """Yields a client of the gateway, and the address of the tokenizer."""
    quiet_clients()
    async with (
        engine_pod(folder, FailingBackend()) as engine,
        tokenizer_pod(folder, engine) as tokenizer,
        gateway(tokenizer, trust_token_ids=True, **settings) as url,
        httpx.AsyncClient(base_url=url, timeout=60) as http,
    ):
        yield http, tokenizer


async def test_no_line_holds_what_a_caller_sent(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Sends valid and invalid requests to every route, at debug level."""
    statuses = set()
    with logged() as stream:
        async with services(tmp_path) as (http, tokenizer):
            paths = [
                path for path, routes in (await http.get("/openapi.json")).json()["paths"].items() if "post" in routes
            ]
            contents = [*(json.dumps(body).encode() for body in BODIES), *RAW]
            for path, content in itertools.product(paths, contents):
                statuses.add((await http.post(path, content=content)).status_code)
            await call_tokenizer(tokenizer)
    assert len(paths) > 20
    assert {200, 400, 413, 500} <= statuses
    written = stream.getvalue() + capfd.readouterr().err
    assert len(lines_of(stream, "http_gateway.app")) > len(paths) * len(contents)
    assert any("refused as INVALID_INPUT" in line["message"] for line in lines_of(stream))
    assert "the device failed" in written
    for secret in (CANARY, *map(str, IDS)):
        assert not [line for line in written.splitlines() if secret in line][:3]


async def call_tokenizer(address: str) -> None:
    """Unary calls, as clients without a gateway make them."""
    inputs = [[{"text": CANARY}], [{"text": f"{CANARY} " * 600}], []]
    refusing = inference_pb2.TRUNCATION_REFUSE
    async with grpc.aio.insecure_channel(address) as channel:
        stub = InferenceServiceStub(channel)
        calls: list[tuple[Any, Any]] = [
            *((stub.Embed, inference_pb2.EmbedRequest(inputs=each, truncation=refusing)) for each in inputs),
            (stub.Embed, inference_pb2.EmbedRequest(inputs=inputs[0], model=CANARY)),
            (stub.Rerank, inference_pb2.RerankRequest(query=CANARY)),
            (stub.Tokenize, inference_pb2.TokenizeRequest(inputs=[CANARY])),
        ]
        for call, request in calls:
            with contextlib.suppress(grpc.aio.AioRpcError):
                await call(request)


async def test_every_line_about_a_request_names_it_and_its_trace(tmp_path: Path) -> None:
    """Includes lines of the engine's threads, also about a batch of several requests."""
    bodies = {"bad": {"input": IDS}, "good": {"input": [11, 12]}, "fine": {"input": "loom"}}
    with logged() as stream:
        async with services(tmp_path) as (http, _):
            for _ in range(3):
                await asyncio.gather(
                    *(
                        http.post(PATH, json=body, headers={"x-request-id": name, "traceparent": TRACEPARENT})
                        for name, body in bodies.items()
                    )
                )
    (failure, *_) = failures = [line for line in lines_of(stream) if "the device failed" in line.get("exception", "")]
    assert len(failures) == 3
    assert all(line["request_id"] == "bad" for line in failures)
    assert failure["trace_id"] == TRACE
    halved = lines_of(stream, "engine_svc.batch_runner")
    assert all("bad" in line["request_id"].split(",") for line in halved)
    refused = lines_of(stream, "heddle.rpc.stream_session")
    assert any("INTERNAL" in line["message"] and line["request_id"] == "bad" for line in refused)
    access = lines_of(stream, "http_gateway.app")
    assert {line["request_id"] for line in access if "request_id" in line and line["path"] == PATH} == set(bodies)
    assert all(line["trace_id"] == TRACE for line in access if line["path"] == PATH)


async def test_lines_about_a_failed_batch_name_its_requests(tmp_path: Path) -> None:
    with logged() as stream:
        async with services(tmp_path) as (http, _):
            body = {"input": [[7] * 5, IDS]}
            await http.post(PATH, json=body, headers={"x-request-id": "one", "traceparent": TRACEPARENT})
    (halved,) = lines_of(stream, "engine_svc.batch_runner")
    assert halved["message"].startswith("a batch of 2 sequences failed and is run again in halves")
    assert (halved["request_id"], halved["trace_id"]) == ("one", TRACE)


async def test_an_access_line_has_the_fields_that_log_dashboards_use(tmp_path: Path) -> None:
    with logged(logging.INFO) as stream:
        async with services(tmp_path, api_keys_file=write_keys(tmp_path)) as (http, _):
            answer = await http.post(PATH, json={"input": "warp and weft"}, headers={"authorization": "Bearer k-1"})
            await http.post("/nowhere", json={})
    line, unmatched = lines_of(stream, "http_gateway.app")
    assert {name: line[name] for name in ("method", "path", "route", "status", "key", "client", "tokens")} == {
        "method": "POST",
        "path": PATH,
        "route": PATH,
        "status": 200,
        "key": "team-a",
        "client": "127.0.0.1",
        "tokens": int(answer.headers["x-compute-tokens"]),
    }
    assert line["model"].endswith("all-MiniLM-L6-v2")
    assert line["response_bytes"] == len(answer.content)
    assert line["request_bytes"] == len(answer.request.content)
    assert line["milliseconds"] > 0
    assert (unmatched["route"], unmatched["status"], unmatched["key"]) == ("unmatched", 404, "")


def write_keys(folder: Path) -> Path:
    file = folder / "keys"
    file.write_text("team-a k-1\n")
    return file


@pytest.mark.parametrize("level", ["info", "debug"])
async def test_probes_are_logged_at_debug_level_only(tmp_path: Path, level: str) -> None:
    with logged(logging.getLevelNamesMapping()[level.upper()]) as stream:
        async with services(tmp_path) as (http, _):
            for path in ("/live", "/ready", "/health", "/metrics", "/"):
                await http.get(path)
    paths = {line["path"] for line in lines_of(stream, "http_gateway.app")}
    assert paths == (set() if level == "info" else {"/live", "/ready", "/health", "/metrics", "/"})


async def test_bodies_are_logged_up_to_a_limit_if_the_setting_is_on(tmp_path: Path) -> None:
    with logged(logging.INFO) as stream:
        async with services(tmp_path, log_requests=True, log_request_characters_max=60) as (http, _):
            await http.post(PATH, json={"input": f"{CANARY}\n" * 50}, headers={"x-request-id": "mine"})
    warning = next(line for line in lines_of(stream, "http_gateway") if line["level"] == "warning")
    body = next(line for line in lines_of(stream, "http_gateway") if "a body of" in line["message"])
    assert "up to 60 characters of what each caller sends" in warning["message"]
    assert body["request_id"] == "mine"
    text = body["message"].partition(": ")[2]
    assert (len(text), text.count(CANARY)) == (60, 4)
