"""The task of `Embed` for requests that ask for sparse or ColBERT vectors. One forward pass of the engine makes all
kinds of vectors of a text. Called by `tokenizer_svc.tasks.embedding`, which plans requests for dense vectors itself.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from heddle import tensors
from heddle.checkpoint import Checkpoint
from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.v1 import engine_pb2, inference_pb2, model_pb2, tensor_pb2
from tokenizer_svc.tasks.grouping import Group
from tokenizer_svc.tasks.plan import Plan, slots
from tokenizer_svc.tasks.terms import Terms
from tokenizer_svc.tasks.texts import contents

DENSE = model_pb2.EMBEDDING_KIND_DENSE
SPARSE = model_pb2.EMBEDDING_KIND_SPARSE
COLBERT = model_pb2.EMBEDDING_KIND_COLBERT

OUTPUTS = {
    DENSE: engine_pb2.OUTPUT_VECTOR,
    SPARSE: engine_pb2.OUTPUT_SPARSE_VECTOR,
    COLBERT: engine_pb2.OUTPUT_COLBERT_VECTORS,
}


class Part(NamedTuple):
    """What is kept of an outcome: a copy, since a message inside it would keep all of its ColBERT vectors in memory."""

    dense: tensor_pb2.Tensor
    sparse_bytes: int  # not known before


# The kinds on which a field has an effect.
KINDS_OF_FIELD = {"dimensions": {DENSE}, "skip_normalization": {DENSE, COLBERT}, "data_type": {DENSE, COLBERT}}


def kinds_of(request: inference_pb2.EmbedRequest, checkpoint: Checkpoint) -> list[model_pb2.EmbeddingKind]:
    """The kinds that the request asks for, in the order of OUTPUTS. Raises INVALID_INPUT for a kind that the model does
    not make, and for fields that would have no effect."""
    wanted = {kind or DENSE for kind in request.embedding_kinds}
    possible = set(OUTPUTS) if checkpoint.m3 is not None else {DENSE}
    for kind in sorted(wanted - possible):
        name = name_of(kind) if kind in OUTPUTS else f"kind {kind}"
        message = f"{checkpoint.name} makes no {name} embeddings, only {', '.join(map(name_of, sorted(possible)))}"
        raise HeddleError(ErrorKind.INVALID_INPUT, message, field="embedding_kinds")
    for field, takers in KINDS_OF_FIELD.items():
        if getattr(request, field) and not wanted & takers:
            message = f"{field} has no effect on {' and '.join(map(name_of, sorted(wanted)))} embeddings"
            raise HeddleError(ErrorKind.INVALID_INPUT, message, field=field)
    return [kind for kind in OUTPUTS if kind in wanted]


def name_of(kind: model_pb2.EmbeddingKind) -> str:
    return model_pb2.EmbeddingKind.Name(kind).removeprefix("EMBEDDING_KIND_").lower()


def plan(
    request: inference_pb2.EmbedRequest,
    terms: Terms,
    kinds: Iterable[model_pb2.EmbeddingKind],
    data_type: tensor_pb2.DataType,
) -> Plan:
    outputs = {kind: OUTPUTS[kind] for kind in kinds}
    count = len(request.inputs)
    answer = inference_pb2.InferenceOutcome()
    sparse = slots(answer.embed.sparse_embeddings, count) if SPARSE in outputs else []
    colbert = slots(answer.embed.colbert_embeddings, count) if COLBERT in outputs else []
    dimension, token_dimension = terms.checkpoint.dimension, terms.checkpoint.token_dimension
    dense_bytes = tensors.row_bytes(request.dimensions or dimension, data_type) if DENSE in outputs else 0
    token_bytes = tensors.row_bytes(token_dimension, data_type) if COLBERT in outputs else 0

    def read(group: Group, outcome: engine_pb2.Outcome) -> Part:
        targets = slice(group.start, group.start + len(group.sequences))
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

    def assembled(parts: Sequence[Part]) -> inference_pb2.InferenceOutcome:
        if DENSE in outputs:
            stack([part.dense for part in parts], answer.embed.embeddings)
        return answer

    first, *more = outputs.values()
    return Plan(
        inputs=contents(request.inputs),
        options=terms.options(request, request.prompt_name, request.task),
        output=first,
        more_outputs=more,
        read=read,
        assemble=assembled,
        expected_bytes=lambda some: len(some) * dense_bytes + (some.tokens - len(some)) * token_bytes,
        read_bytes=lambda part: part.sparse_bytes,
        skip_normalization=request.skip_normalization,
        dimensions=request.dimensions,
        data_type=data_type,
    )


def stack(parts: Sequence[tensor_pb2.Tensor], embeddings: tensor_pb2.Tensor) -> None:
    """Fills `embeddings` with the rows of the parts, in their order. Filled in place, they need no second copy."""
    embeddings.data_type = parts[0].data_type
    embeddings.shape.extend((sum([part.shape[0] for part in parts]), *parts[0].shape[1:]))
    embeddings.data = b"".join([part.data for part in parts])
