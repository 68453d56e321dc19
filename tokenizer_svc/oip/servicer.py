"""Implements inference.GRPCInferenceService. `tokenizer_svc.__main__` adds it to the pod's server.

ServerLive, ServerReady and ModelReady are answered while the pod starts and drains, without a key, like health checks.
"""

from importlib.metadata import version
from typing import Any

import grpc

from heddle.checkpoint import Checkpoint
from heddle.oip.v2 import open_inference_grpc_pb2 as oip
from heddle.oip.v2.open_inference_grpc_pb2_grpc import (
    GRPCInferenceServiceServicer,
    add_GRPCInferenceServiceServicer_to_server,
)
from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.rpc.lifecycle import Server
from heddle.v1 import inference_pb2
from tokenizer_svc.oip.answers import check_outputs, respond
from tokenizer_svc.oip.metadata import describe
from tokenizer_svc.oip.requests import translate
from tokenizer_svc.servicer import InferenceServicer

SERVICE = "inference.GRPCInferenceService"
PROBES = ("ServerLive", "ServerReady", "ModelReady")

Context = grpc.aio.ServicerContext[Any, Any]


def add_oip(server: Server, inference: InferenceServicer, checkpoint: Checkpoint, inputs_max: int) -> None:
    servicer = OipServicer(server, inference, checkpoint, inputs_max)
    server.add(SERVICE, add_GRPCInferenceServiceServicer_to_server, servicer, probes=PROBES)


class OipServicer(GRPCInferenceServiceServicer):
    def __init__(self, server: Server, inference: InferenceServicer, checkpoint: Checkpoint, inputs_max: int) -> None:
        self._server = server
        self._inference = inference
        self._checkpoint = checkpoint
        self._inputs_max = inputs_max
        self._version = checkpoint.revision or "1"  # like Triton, a model without a version has version 1

    async def ServerLive(self, _: oip.ServerLiveRequest, context: Context) -> oip.ServerLiveResponse:
        return oip.ServerLiveResponse(live=True)

    async def ServerReady(self, _: oip.ServerReadyRequest, context: Context) -> oip.ServerReadyResponse:
        return oip.ServerReadyResponse(ready=self._server.is_ready)

    async def ModelReady(self, request: oip.ModelReadyRequest, context: Context) -> oip.ModelReadyResponse:
        self._check_model(request.name, request.version)
        return oip.ModelReadyResponse(ready=self._server.is_ready)

    async def ServerMetadata(self, _: oip.ServerMetadataRequest, context: Context) -> oip.ServerMetadataResponse:
        return oip.ServerMetadataResponse(name="heddle", version=version("heddle"))

    async def ModelMetadata(self, request: oip.ModelMetadataRequest, context: Context) -> oip.ModelMetadataResponse:
        self._check_model(request.name, request.version)
        found = await self._inference.GetModel(inference_pb2.InferenceServiceGetModelRequest(), context)
        return describe(self._checkpoint, found.model, self._version)

    async def ModelInfer(self, request: oip.ModelInferRequest, context: Context) -> oip.ModelInferResponse:
        self._check_model(request.model_name, request.model_version)
        item = translate(request, self._checkpoint.kind, self._inputs_max)
        check_outputs(request, item.WhichOneof("request") or "")
        outcome = await self._inference.answer(item, context)
        return respond(request, outcome, self._checkpoint.name, self._version)

    def _check_model(self, name: str, version_: str) -> None:
        """Raises MODEL_NOT_FOUND."""
        if name not in ("", self._checkpoint.name):
            message = f"there is no model {name!r} here, only {self._checkpoint.name!r}"
            raise HeddleError(ErrorKind.MODEL_NOT_FOUND, message, field="model_name")
        if version_ not in ("", self._version):
            message = f"there is no version {version_!r} of {self._checkpoint.name}, only {self._version!r}"
            raise HeddleError(ErrorKind.MODEL_NOT_FOUND, message, field="model_version")
