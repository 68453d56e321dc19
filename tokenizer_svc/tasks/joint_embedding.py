"""The task of `Embed` for requests that ask for sparse or ColBERT vectors. One forward pass of the engine makes all
kinds of vectors of a text. Called by `tokenizer_svc.tasks.embedding`, which plans requests for dense vectors itself.
"""

from collections.abc import Iterable, Iterator, Sequence

from heddle import tensors
from heddle.checkpoint import Checkpoint
from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.v1 import engine_pb2, inference_pb2, model_pb2, tensor_pb2
from tokenizer_svc.sequence import TokenSequence
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
    dense: list[tensor_pb2.Tensor] = [tensor_pb2.Tensor()] * count
    dimension, token_dimension = terms.checkpoint.dimension, terms.checkpoint.token_dimension
    dense_bytes = tensors.bytes_of_row(request.dimensions or dimension, data_type) if DENSE in outputs else 0
    token_bytes = tensors.bytes_of_row(token_dimension, data_type) if COLBERT in outputs else 0

    def read(index: int, sequence: TokenSequence, outcome: engine_pb2.Outcome) -> int:
        """Stores the vectors. Returns the bytes of the sparse one, whose size was not known before."""
        for kind, result in zip(outputs, results_of(outcome), strict=True):
            if kind == DENSE:
                dense[index] = result.tensor
            elif kind == SPARSE:
                sparse[index].CopyFrom(result.sparse)
            else:
                colbert[index].CopyFrom(result.tensor)
        return sparse[index].ByteSize() if sparse else 0

    def assembled(_: object) -> inference_pb2.InferenceOutcome:
        if DENSE in outputs:
            stack(dense, answer.embed.embeddings)
        return answer

    first, *more = outputs.values()
    return Plan(
        inputs=contents(request.inputs),
        options=terms.options(request, request.prompt_name, request.task),
        output=first,
        more_outputs=more,
        read=read,
        assemble=assembled,
        expected_bytes=lambda sequence: dense_bytes + (sequence.tokens - 1) * token_bytes,
        read_bytes=int,
        skip_normalization=request.skip_normalization,
        dimensions=request.dimensions,
        data_type=data_type,
    )


def results_of(outcome: engine_pb2.Outcome) -> Iterator[engine_pb2.Outcome | engine_pb2.Result]:
    yield outcome
    yield from outcome.more


def stack(rows: Sequence[tensor_pb2.Tensor], embeddings: tensor_pb2.Tensor) -> None:
    """Fills `embeddings` with the rows, in the order of the inputs. Filled in place, they need no second copy."""
    embeddings.data_type = rows[0].data_type
    embeddings.shape.extend((len(rows), *rows[0].shape))
    embeddings.data = b"".join([row.data for row in rows])
