"""tei.v1.Predict: a text, or two that belong together, to the scores of all labels, best first."""

from collections.abc import AsyncIterator

from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.tei.v1 import tei_pb2, tei_pb2_grpc
from heddle.v1 import inference_pb2
from tokenizer_svc.tei.call import Call, Context
from tokenizer_svc.tei.calls import Calls
from tokenizer_svc.tei.metadata import metadata_of
from tokenizer_svc.tei.truncation import side_of, truncation_of


class PredictServicer(tei_pb2_grpc.PredictServicer):
    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def Predict(self, request: tei_pb2.PredictRequest, context: Context) -> tei_pb2.PredictResponse:
        return await self._calls.unary(predict, request, context)

    async def PredictPair(self, request: tei_pb2.PredictPairRequest, context: Context) -> tei_pb2.PredictResponse:
        return await self._calls.unary(predict_pair, request, context)

    async def PredictStream(  # type: ignore[override]  # writes to the context
        self, request_iterator: AsyncIterator[tei_pb2.PredictRequest], context: Context
    ) -> None:
        await self._calls.stream(predict, request_iterator, context)

    async def PredictPairStream(  # type: ignore[override]  # writes to the context
        self, request_iterator: AsyncIterator[tei_pb2.PredictPairRequest], context: Context
    ) -> None:
        await self._calls.stream(predict_pair, request_iterator, context)


async def predict(call: Call, request: tei_pb2.PredictRequest) -> tei_pb2.PredictResponse:
    return await scores_of(call, inference_pb2.TextOrPair(text=request.inputs), request)


async def predict_pair(call: Call, request: tei_pb2.PredictPairRequest) -> tei_pb2.PredictResponse:
    if len(request.inputs) not in (1, 2):
        message = f"inputs must have one or two texts, not {len(request.inputs)}"
        raise HeddleError(ErrorKind.INVALID_INPUT, message, field="inputs")
    text, *pair = request.inputs
    return await scores_of(call, inference_pb2.TextOrPair(text=text, pair=pair[0] if pair else None), request)


async def scores_of(
    call: Call, text: inference_pb2.TextOrPair, request: tei_pb2.PredictRequest | tei_pb2.PredictPairRequest
) -> tei_pb2.PredictResponse:
    wanted = inference_pb2.PredictRequest(
        inputs=[text],
        truncation=truncation_of(request),
        truncation_side=side_of(request),
        raw_scores=request.raw_scores,
    )
    found = (await call.outcome(inference_pb2.InferenceItem(predict=wanted))).predict
    scores = memoryview(found.scores).cast("f")
    return tei_pb2.PredictResponse(
        predictions=[
            tei_pb2.Prediction(score=scores[index], label=found.labels[index])
            for index in memoryview(found.ranking).cast("I")
        ],
        metadata=metadata_of(len(text.text) + len(text.pair), found.usage, found.timings),
    )
