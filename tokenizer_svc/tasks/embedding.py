"""The tasks of `Embed`, `EmbedTokens` and `EmbedSparse`: vectors of texts or of their tokens.

`plan_joint` serves requests of `Embed` for several kinds of vectors, such as bge-m3's: one forward pass makes them all.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from heddle import tensors
from heddle.checkpoint import Checkpoint
from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.v1 import engine_pb2, inference_pb2, model_pb2, tensor_pb2
from tokenizer_svc.tasks.grouping import Group
from tokenizer_svc.tasks.inputs import to_inputs
from tokenizer_svc.tasks.plan import Plan, add_empty
from tokenizer_svc.tasks.served_model import ServedModel, parse_data_type

DENSE = model_pb2.EMBEDDING_KIND_DENSE
SPARSE = model_pb2.EMBEDDING_KIND_SPARSE
COLBERT = model_pb2.EMBEDDING_KIND_COLBERT

OUTPUTS = {
    DENSE: engine_pb2.OUTPUT_VECTOR,
    SPARSE: engine_pb2.OUTPUT_SPARSE_VECTOR,
    COLBERT: engine_pb2.OUTPUT_COLBERT_VECTORS,
}

# The kinds of vectors that a field affects.
KINDS_OF_FIELD = {"dimensions": {DENSE}, "skip_normalization": {DENSE, COLBERT}, "data_type": {DENSE, COLBERT}}


def plan(request: inference_pb2.EmbedRequest, served: ServedModel) -> Plan:
    """Raises HeddleError for an unknown prompt, task, kind or data type."""
    served.check_count(len(request.inputs))
    dimension = served.checkpoint.dimension
    if request.dimensions > dimension:
        message = f"{request.dimensions} dimensions are more than the {dimension} that the model's vectors have"
        raise HeddleError(ErrorKind.INVALID_INPUT, message, field="dimensions")
    data_type = parse_data_type(request.data_type)
    if request.embedding_kinds:
        kinds = parse_kinds(request, served.checkpoint)
        if kinds != [DENSE]:
            return plan_joint(request, served, kinds, data_type)
    row_bytes = tensors.row_bytes(request.dimensions or dimension, data_type)
    return Plan(
        inputs=to_inputs(request.inputs),
        options=served.read_options(request, request.prompt_name, request.task),
        output=engine_pb2.OUTPUT_VECTOR,
        assemble=assemble,
        expected_bytes=lambda sequences: len(sequences) * row_bytes,
        skip_normalization=request.skip_normalization,
        dimensions=request.dimensions,
        data_type=data_type,
    )


def assemble(outcomes: Sequence[engine_pb2.Outcome]) -> inference_pb2.InferenceOutcome:
    answer = inference_pb2.InferenceOutcome()
    stack([outcome.results[0].tensor for outcome in outcomes], answer.embed.embeddings)
    return answer


def plan_tokens(request: inference_pb2.EmbedTokensRequest, served: ServedModel) -> Plan:
    served.check_count(len(request.inputs))
    data_type = parse_data_type(request.data_type)
    row_bytes = tensors.row_bytes(served.checkpoint.token_dimension, data_type)
    answer = inference_pb2.InferenceOutcome()
    embeddings = add_empty(answer.embed_tokens.embeddings, len(request.inputs))

    def read(group: Group, outcome: engine_pb2.Outcome) -> None:
        targets = embeddings[group.span]
        tensors.copy_tokens(outcome.results[0].tokens, targets)

    return Plan(
        inputs=to_inputs(request.inputs),
        options=served.read_options(request, request.prompt_name, request.task),
        output=engine_pb2.OUTPUT_TOKEN_VECTORS,
        read=read,
        assemble=lambda _: answer,
        expected_bytes=lambda sequences: sequences.tokens * row_bytes,
        data_type=data_type,
    )


def plan_sparse(request: inference_pb2.EmbedSparseRequest, served: ServedModel) -> Plan:
    served.check_count(len(request.inputs))
    answer = inference_pb2.InferenceOutcome()
    embeddings = add_empty(answer.embed_sparse.embeddings, len(request.inputs))

    def read(group: Group, outcome: engine_pb2.Outcome) -> int:
        """Returns the bytes of the vectors."""
        targets = embeddings[group.span]
        tensors.copy_sparse(outcome.results[0].sparse, targets)
        return sum(map(tensor_pb2.SparseTensor.ByteSize, targets))

    return Plan(
        inputs=to_inputs(request.inputs),
        options=served.read_options(request, request.prompt_name, request.task),
        output=engine_pb2.OUTPUT_SPARSE_VECTOR,
        read=read,
        assemble=lambda _: answer,
        read_bytes=int,
    )


class Part(NamedTuple):
    """What is kept of an outcome. It is a copy: a submessage would keep the whole outcome in memory."""

    dense: tensor_pb2.Tensor
    sparse_bytes: int  # not known before


def parse_kinds(request: inference_pb2.EmbedRequest, checkpoint: Checkpoint) -> list[model_pb2.EmbeddingKind]:
    """Returns the requested kinds in the order of OUTPUTS. Raises INVALID_INPUT for a kind that the model does not
    make, and for fields that would have no effect."""
    wanted = {kind or DENSE for kind in request.embedding_kinds}
    possible = set(OUTPUTS) if checkpoint.m3 is not None else {DENSE}
    for kind in sorted(wanted - possible):
        name = kind_name(kind) if kind in OUTPUTS else f"kind {kind}"
        message = f"{checkpoint.name} makes no {name} embeddings, only {', '.join(map(kind_name, sorted(possible)))}"
        raise HeddleError(ErrorKind.INVALID_INPUT, message, field="embedding_kinds")
    for field, takers in KINDS_OF_FIELD.items():
        if getattr(request, field) and not wanted & takers:
            message = f"{field} has no effect on {' and '.join(map(kind_name, sorted(wanted)))} embeddings"
            raise HeddleError(ErrorKind.INVALID_INPUT, message, field=field)
    return [kind for kind in OUTPUTS if kind in wanted]


def kind_name(kind: model_pb2.EmbeddingKind) -> str:
    return model_pb2.EmbeddingKind.Name(kind).removeprefix("EMBEDDING_KIND_").lower()


def plan_joint(
    request: inference_pb2.EmbedRequest,
    served: ServedModel,
    kinds: Iterable[model_pb2.EmbeddingKind],
    data_type: tensor_pb2.DataType,
) -> Plan:
    outputs = {kind: OUTPUTS[kind] for kind in kinds}
    count = len(request.inputs)
    answer = inference_pb2.InferenceOutcome()
    sparse = add_empty(answer.embed.sparse_embeddings, count) if SPARSE in outputs else []
    colbert = add_empty(answer.embed.colbert_embeddings, count) if COLBERT in outputs else []
    dimension, token_dimension = served.checkpoint.dimension, served.checkpoint.token_dimension
    dense_bytes = tensors.row_bytes(request.dimensions or dimension, data_type) if DENSE in outputs else 0
    token_bytes = tensors.row_bytes(token_dimension, data_type) if COLBERT in outputs else 0

    def read(group: Group, outcome: engine_pb2.Outcome) -> Part:
        targets = group.span
        part = Part(tensor_pb2.Tensor(), 0)
        for kind, result in zip(outputs, outcome.results, strict=True):
            if kind == DENSE:
                part.dense.CopyFrom(result.tensor)
            elif kind == COLBERT:
                tensors.copy_tokens(result.tokens, colbert[targets])
            else:
                tensors.copy_sparse(result.sparse, sparse[targets])
                part = part._replace(sparse_bytes=sum(map(tensor_pb2.SparseTensor.ByteSize, sparse[targets])))
        return part

    def assemble(parts: Sequence[Part]) -> inference_pb2.InferenceOutcome:
        if DENSE in outputs:
            stack([part.dense for part in parts], answer.embed.embeddings)
        return answer

    first, *more = outputs.values()
    return Plan(
        inputs=to_inputs(request.inputs),
        options=served.read_options(request, request.prompt_name, request.task),
        output=first,
        more_outputs=more,
        read=read,
        assemble=assemble,
        expected_bytes=lambda some: len(some) * dense_bytes + (some.tokens - len(some)) * token_bytes,
        read_bytes=lambda part: part.sparse_bytes,
        skip_normalization=request.skip_normalization,
        dimensions=request.dimensions,
        data_type=data_type,
    )


def stack(parts: Sequence[tensor_pb2.Tensor], embeddings: tensor_pb2.Tensor) -> None:
    """Joins the rows of the parts in `embeddings`, without a second copy."""
    embeddings.data_type = parts[0].data_type
    embeddings.shape.extend((sum([part.shape[0] for part in parts]), *parts[0].shape[1:]))
    embeddings.data = b"".join([part.data for part in parts])
