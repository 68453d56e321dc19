"""The pool of engine pods behind a tokenizer pod. Used by the servicer."""

from collections.abc import Callable

import grpc

from heddle.rpc.credentials import PLAINTEXT, Access, Metadata
from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.rpc.pool import Pool, PoolLimits
from heddle.rpc.stream import StreamProtocol
from heddle.telemetry.tracing import Tracing
from heddle.v1 import engine_pb2, model_pb2
from heddle.v1.engine_pb2_grpc import EngineServiceStub

# Fields of heddle.v1.Model that the settings of a pod can change (`--pooling`, `--score-tokens`) without changing the
# fingerprint, or that differ between checkpoints with one tokenizer.
COMPARED = ("kind", "pooling", "dimension", "labels")


class Engines(Pool[engine_pb2.Submission, engine_pb2.Outcome]):
    """Accepts only pods with the same tokenizer, because another model would misread the token ids, and with the same
    settings, because answers would depend on the pod."""

    def __init__(
        self,
        targets: tuple[str, ...],
        own: model_pb2.Model,
        *,
        limits: PoolLimits | None = None,
        access: Access = PLAINTEXT,
        on_change: Callable[[bool], None] = lambda ready: None,
        tracing: Tracing | None = None,
    ) -> None:
        """`own` describes the tokenizer's checkpoint, see `describe_checkpoint`."""
        self.model = model_pb2.Model()  # described by the pod that connected last
        self._own = own
        protocol: StreamProtocol[engine_pb2.Submission, engine_pb2.Outcome] = StreamProtocol(
            service="heddle.v1.EngineService",
            frame_type=engine_pb2.EngineServiceInferRequest,
            outcome_type=engine_pb2.Outcome,
            open_stream=lambda channel, metadata: EngineServiceStub(channel).Infer(metadata=metadata),
            handshake=self._handshake,
            cost_of=count_tokens,
        )
        super().__init__(targets, protocol, limits=limits, access=access, on_change=on_change, tracing=tracing)

    async def _handshake(self, channel: grpc.aio.Channel, metadata: Metadata) -> engine_pb2.EngineServiceInferRequest:
        request = engine_pb2.EngineServiceGetModelRequest()
        response = await EngineServiceStub(channel).GetModel(request, metadata=metadata)
        check_model(response.model, self._own)
        self.model = response.model
        fingerprint = self._own.tokenizer_fingerprint
        return engine_pb2.EngineServiceInferRequest(tokenizer_fingerprint=fingerprint, takes_pieces=True)


def check_model(model: model_pb2.Model, own: model_pb2.Model) -> None:
    """Raises MISMATCH for an engine's model with another tokenizer, or that is set to compute something else. What one
    of the two does not say is not compared."""
    fingerprint, expected = model.tokenizer_fingerprint, own.tokenizer_fingerprint
    if fingerprint != expected:
        raise mismatch(model, f"the tokenizer fingerprint {fingerprint[:12]}", expected[:12])
    for name in COMPARED:
        stated, wanted = read_field(model, name), read_field(own, name)
        if stated and wanted and stated != wanted:
            raise mismatch(model, f"the {name} {stated}", wanted)


def read_field(model: model_pb2.Model, name: str) -> str:
    """Returns the setting in words; "" if the model does not state it."""
    value = getattr(model, name)
    if name == "kind":
        known = model_pb2.ModelKind.values()
        return model_pb2.ModelKind.Name(value).removeprefix("MODEL_KIND_").lower() if value and value in known else ""
    return ", ".join(value) if name == "labels" else str(value or "")


def mismatch(model: model_pb2.Model, stated: str, own: str) -> HeddleError:
    message = (
        f"an engine serves {model.name} with {stated}, this tokenizer has {own}: the two must serve the same "
        "checkpoint with the same settings"
    )
    return HeddleError(ErrorKind.MISMATCH, message)


def count_tokens(item: engine_pb2.Submission) -> int:
    return len(item.sequences.token_ids) // 4
