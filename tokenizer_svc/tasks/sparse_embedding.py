"""The task of `EmbedSparse`: texts to the words of the vocabulary that they are about, each with a weight."""

from collections.abc import Sequence

from heddle.v1 import engine_pb2, inference_pb2, item_pb2
from tokenizer_svc.tasks.plan import Plan
from tokenizer_svc.tasks.terms import Terms
from tokenizer_svc.tasks.texts import contents


def plan(request: inference_pb2.EmbedSparseRequest, terms: Terms) -> Plan:
    terms.check_count(len(request.inputs))
    return Plan(
        inputs=contents(request.inputs),
        options=terms.options(request, request.prompt_name),
        output=engine_pb2.OUTPUT_SPARSE_VECTOR,
        assemble=assembled,
        read_bytes=engine_pb2.Outcome.ByteSize,
    )


def assembled(
    outcomes: Sequence[engine_pb2.Outcome], usage: item_pb2.Usage, timings: item_pb2.Timings
) -> inference_pb2.InferenceOutcome:
    response = inference_pb2.EmbedSparseResponse(
        embeddings=[outcome.sparse for outcome in outcomes], usage=usage, timings=timings
    )
    return inference_pb2.InferenceOutcome(embed_sparse=response)
