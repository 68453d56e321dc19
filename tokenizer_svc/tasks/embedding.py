"""The task of `Embed`: makes one vector of each text, or the other kinds of vectors that the model has."""

from collections.abc import Sequence

from heddle import tensors
from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.v1 import engine_pb2, inference_pb2
from tokenizer_svc.tasks import joint_embedding
from tokenizer_svc.tasks.plan import Plan
from tokenizer_svc.tasks.terms import Terms, data_type_of
from tokenizer_svc.tasks.texts import contents


def plan(request: inference_pb2.EmbedRequest, terms: Terms) -> Plan:
    """Raises HeddleError for a request that names what there is not."""
    terms.check_count(len(request.inputs))
    dimension = terms.checkpoint.dimension
    if request.dimensions > dimension:
        message = f"{request.dimensions} dimensions are more than the {dimension} that the model's vectors have"
        raise HeddleError(ErrorKind.INVALID_INPUT, message, field="dimensions")
    data_type = data_type_of(request.data_type)
    if request.embedding_kinds:
        kinds = joint_embedding.kinds_of(request, terms.checkpoint)
        if kinds != [joint_embedding.DENSE]:
            return joint_embedding.plan(request, terms, kinds, data_type)
    row_bytes = tensors.row_bytes(request.dimensions or dimension, data_type)
    return Plan(
        inputs=contents(request.inputs),
        options=terms.options(request, request.prompt_name, request.task),
        output=engine_pb2.OUTPUT_VECTOR,
        assemble=assembled,
        expected_bytes=lambda sequences: len(sequences) * row_bytes,
        skip_normalization=request.skip_normalization,
        dimensions=request.dimensions,
        data_type=data_type,
    )


def assembled(outcomes: Sequence[engine_pb2.Outcome]) -> inference_pb2.InferenceOutcome:
    answer = inference_pb2.InferenceOutcome()
    joint_embedding.stack([outcome.results[0].tensor for outcome in outcomes], answer.embed.embeddings)
    return answer
