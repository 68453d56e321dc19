"""The task of `Rerank`: scores documents by how well they answer a query."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from heddle import tensors
from heddle.activations import sigmoid
from heddle.checkpoint import Checkpoint, ModelKind
from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.tensors import Floats
from heddle.v1 import engine_pb2, inference_pb2
from tokenizer_svc.tasks.inputs import TOKENIZED_INPUTS, check_no_text, check_not_empty, to_tokenized
from tokenizer_svc.tasks.plan import Plan
from tokenizer_svc.tasks.scores import best_first, identity
from tokenizer_svc.tasks.served_model import ServedModel
from tokenizer_svc.text.inputs import Input, indexed_field

DOCUMENTS = indexed_field("documents")


def plan(request: inference_pb2.RerankRequest, served: ServedModel) -> Plan:
    """A document may be empty: the model scores it, as in sentence-transformers. One empty document among a hundred
    search results must not fail the request."""
    inputs = read_tokenized_inputs(request, served) if request.tokenized_inputs else read_inputs(request, served)

    def assemble(outcomes: Sequence[engine_pb2.Outcome]) -> inference_pb2.InferenceOutcome:
        logits = np.concatenate([tensors.from_proto(outcome.results[0].tensor) for outcome in outcomes]).reshape(-1)
        scores = logits if request.raw_scores else sigmoid(logits)
        answer = inference_pb2.RerankResponse(scores=scores.tobytes(), ranking=best_first(logits).tobytes())
        return inference_pb2.InferenceOutcome(rerank=answer)

    return Plan(
        inputs=inputs,
        options=replace(served.read_options(request), document_tokens_max=request.document_tokens_max),
        output=engine_pb2.OUTPUT_LOGITS,
        assemble=assemble,
        field_of=TOKENIZED_INPUTS if request.tokenized_inputs else DOCUMENTS,
    )


def choose_activation(checkpoint: Checkpoint) -> Callable[[Floats], Floats]:
    """Turns raw scores into scores. For an embedder that reranks, cosines are both."""
    return sigmoid if checkpoint.kind is ModelKind.RERANKER else identity


def read_tokenized_inputs(request: inference_pb2.RerankRequest, served: ServedModel) -> list[Input]:
    """Raises HeddleError for too many, for texts beside them, and for document_tokens_max: where the document starts
    in a tokenized input is not known."""
    served.check_count(len(request.tokenized_inputs), "tokenized_inputs")
    if request.document_tokens_max:
        message = "documents in tokenized_inputs cannot be cut: leave document_tokens_max unset"
        raise HeddleError(ErrorKind.INVALID_INPUT, message, field="document_tokens_max")
    check_no_text(request.query, request.documents, request.instruction, field="tokenized_inputs")
    return [to_tokenized(item) for item in request.tokenized_inputs]


def read_inputs(request: inference_pb2.RerankRequest, served: ServedModel) -> list[Input]:
    """One input per document. Raises HeddleError for too few or too many documents, and for an instruction that the
    model's prompt does not take."""
    served.check_count(len(request.documents), "documents")
    check_not_empty(request.query, "query")
    prompt = served.rerank_prompt
    if request.instruction and (prompt is None or not prompt.takes_instruction):
        message = "the model's prompt takes no instruction"
        raise HeddleError(ErrorKind.INVALID_INPUT, message, field="instruction")
    if prompt is None:
        return [(request.query, document) for document in request.documents]
    return [prompt.fill(request.query, document, request.instruction) for document in request.documents]
