"""The pool of engine pods behind a tokenizer pod. Used by the servicer."""

from collections.abc import Callable

import grpc

from heddle.rpc.credentials import PLAINTEXT, Access, Metadata
from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.rpc.pool import Pool
from heddle.rpc.stream import StreamProtocol
from heddle.v1 import engine_pb2, model_pb2
from heddle.v1.engine_pb2_grpc import EngineServiceStub


class Engines(Pool[engine_pb2.Submission, engine_pb2.Outcome]):
    """Accepts only pods with the same tokenizer: another model would misread the token ids."""

    def __init__(
        self,
        targets: tuple[str, ...],
        fingerprint: str,
        *,
        access: Access = PLAINTEXT,
        on_change: Callable[[bool], None] = lambda ready: None,
    ) -> None:
        self.model = model_pb2.Model()  # described by the pod that connected last
        self._fingerprint = fingerprint
        protocol: StreamProtocol[engine_pb2.Submission, engine_pb2.Outcome] = StreamProtocol(
            service="heddle.v1.EngineService",
            frame_type=engine_pb2.EngineServiceInferRequest,
            open_stream=lambda channel, metadata: EngineServiceStub(channel).Infer(metadata=metadata),
            handshake=self._handshake,
            cost_of=count_tokens,
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
                f"this tokenizer has {self._fingerprint[:12]}: the two must serve the same checkpoint",
            )
        self.model = model
        return engine_pb2.EngineServiceInferRequest(tokenizer_fingerprint=self._fingerprint)


def count_tokens(item: engine_pb2.Submission) -> int:
    return len(item.sequences.token_ids) // 4
