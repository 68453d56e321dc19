"""The task of `EmbedTokens`: texts to one vector for each of their tokens."""

from collections.abc import Sequence

from heddle import tensors
from heddle.checkpoint import Checkpoint
from heddle.v1 import engine_pb2, inference_pb2, item_pb2
from tokenizer_svc.tasks.plan import Plan
from tokenizer_svc.tasks.terms import Terms, data_type_of
from tokenizer_svc.tasks.texts import contents


def plan(request: inference_pb2.EmbedTokensRequest, terms: Terms) -> Plan:
    terms.check_count(len(request.inputs))
    data_type = data_type_of(request.data_type)
    row_bytes = tensors.bytes_of_row(hidden_size_of(terms.checkpoint), data_type)
    return Plan(
        inputs=contents(request.inputs),
        options=terms.options(request, request.prompt_name),
        output=engine_pb2.OUTPUT_TOKEN_VECTORS,
        assemble=assembled,
        expected_bytes=lambda sequence: sequence.tokens * row_bytes,
        data_type=data_type,
    )


def hidden_size_of(checkpoint: Checkpoint) -> int:
    """Components of a token's vector, which pooling may put side by side or cut."""
    return int(checkpoint.config.get("hidden_size") or checkpoint.dimension)


def assembled(
    outcomes: Sequence[engine_pb2.Outcome], usage: item_pb2.Usage, timings: item_pb2.Timings
) -> inference_pb2.InferenceOutcome:
    response = inference_pb2.EmbedTokensResponse(
        embeddings=[outcome.tensor for outcome in outcomes], usage=usage, timings=timings
    )
    return inference_pb2.InferenceOutcome(embed_tokens=response)
