"""The engine pods behind a tokenizer pod: which ones belong to it, and how it speaks to them. Used by the edge."""

from collections.abc import Callable

import grpc

from heddle.rpc.credentials import PLAINTEXT, Access, Metadata
from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.rpc.pool import Pool
from heddle.rpc.stream import StreamProtocol
from heddle.v1 import engine_pb2, model_pb2
from heddle.v1.engine_pb2_grpc import EngineServiceStub


class Engines(Pool[engine_pb2.Submission, engine_pb2.Outcome]):
    """A pool of pods that have our fingerprint: the ids of one tokenizer are noise to the model of another."""

    def __init__(
        self,
        targets: tuple[str, ...],
        fingerprint: str,
        *,
        access: Access = PLAINTEXT,
        on_change: Callable[[bool], None] = lambda ready: None,
    ) -> None:
        self.model = model_pb2.Model()  # as the pod that was met last describes it
        self._fingerprint = fingerprint
        protocol: StreamProtocol[engine_pb2.Submission, engine_pb2.Outcome] = StreamProtocol(
            frame_type=engine_pb2.EngineServiceInferRequest,
            open_stream=lambda channel, metadata: EngineServiceStub(channel).Infer(metadata=metadata),
            handshake=self._handshake,
            cost_of=tokens_of,
        )
        super().__init__(targets, protocol, access=access, on_change=on_change)

    async def _handshake(self, channel: grpc.aio.Channel, metadata: Metadata) -> engine_pb2.EngineServiceInferRequest:
        request = engine_pb2.EngineServiceGetModelRequest()
        response = await EngineServiceStub(channel).GetModel(request, metadata=metadata)
        model: model_pb2.Model = response.model
        if model.tokenizer_fingerprint != self._fingerprint:
            raise HeddleError(
                ErrorKind.MISMATCH,
                f"an engine serves {model.name} with the tokenizer fingerprint {model.tokenizer_fingerprint[:12]}, "
                f"this tokenizer has {self._fingerprint[:12]}: they do not belong together",
            )
        self.model = model
        return engine_pb2.EngineServiceInferRequest(tokenizer_fingerprint=self._fingerprint)


def tokens_of(item: engine_pb2.Submission) -> int:
    return len(item.sequences.token_ids) // 4
