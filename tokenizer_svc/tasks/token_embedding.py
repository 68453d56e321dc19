"""The task of `EmbedTokens`: texts to one vector for each of their tokens."""

from heddle import tensors
from heddle.v1 import engine_pb2, inference_pb2
from tokenizer_svc.tasks.grouping import Group
from tokenizer_svc.tasks.plan import Plan, slots
from tokenizer_svc.tasks.terms import Terms, data_type_of
from tokenizer_svc.tasks.texts import contents


def plan(request: inference_pb2.EmbedTokensRequest, terms: Terms) -> Plan:
    terms.check_count(len(request.inputs))
    data_type = data_type_of(request.data_type)
    row_bytes = tensors.row_bytes(terms.checkpoint.token_dimension, data_type)
    answer = inference_pb2.InferenceOutcome()
    embeddings = slots(answer.embed_tokens.embeddings, len(request.inputs))

    def read(group: Group, outcome: engine_pb2.Outcome) -> None:
        targets = embeddings[group.start : group.start + len(group.sequences)]
        tensors.copy_tokens(outcome.results[0].tokens, targets)

    return Plan(
        inputs=contents(request.inputs),
        options=terms.options(request, request.prompt_name, request.task),
        output=engine_pb2.OUTPUT_TOKEN_VECTORS,
        read=read,
        assemble=lambda _: answer,
        expected_bytes=lambda sequences: sequences.tokens * row_bytes,
        data_type=data_type,
    )
