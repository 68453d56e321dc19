"""Tasks whose scores are cosines of vectors: `Similarity`, and `Rerank` of an embedder if the settings allow it.

A reranking query and its documents get the model's prompts and adapters for them, like encode_query and encode_document
of sentence-transformers.
"""

from collections.abc import Sequence

import numpy as np

from heddle import tensors
from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.tensors import Floats
from heddle.v1 import engine_pb2, inference_pb2
from tokenizer_svc.tasks.inputs import check_not_empty
from tokenizer_svc.tasks.plan import Plan
from tokenizer_svc.tasks.scores import best_first, cosines
from tokenizer_svc.tasks.served_model import ServedModel
from tokenizer_svc.text.inputs import Input, Options
from tokenizer_svc.text.sequences import pack_ids

# The model's first of these is used, or else its default prompt.
QUERY_PROMPTS = ("query", "search_query", "retrieval.query", "s2p_query")
DOCUMENT_PROMPTS = ("document", "passage", "corpus", "search_document", "retrieval.passage")


def plan_similarity(request: inference_pb2.SimilarityRequest, served: ServedModel) -> Plan:
    """The source is the first input, the sentences are the others."""
    served.check_count(len(request.sentences), "sentences")
    check_not_empty(request.source, "source")
    return Plan(
        inputs=[request.source, *request.sentences],
        options=served.read_options(request, request.prompt_name, request.task),
        output=engine_pb2.OUTPUT_VECTOR,
        assemble=assemble_similarity,
        field_of=name_sentence,
        skip_normalization=True,  # keeps a zero vector zero
    )


def name_sentence(index: int) -> str:
    return f"sentences[{index - 1}]" if index else "source"


def assemble_similarity(outcomes: Sequence[engine_pb2.Outcome]) -> inference_pb2.InferenceOutcome:
    scores = compute_cosines(outcomes).tobytes()
    return inference_pb2.InferenceOutcome(similarity=inference_pb2.SimilarityResponse(scores=scores))


def compute_cosines(outcomes: Sequence[engine_pb2.Outcome]) -> Floats:
    """Cosines between the first vector and each of the others."""
    vectors = np.concatenate([tensors.from_proto(outcome.results[0].tensor) for outcome in outcomes])
    return cosines(vectors[0], vectors[1:])


def plan_reranking(request: inference_pb2.RerankRequest, served: ServedModel) -> Plan:
    """The query is the first input, the documents are the others. `raw_scores` makes no difference: the score is the
    cosine."""
    check_reranking_fields(request, served)
    served.check_count(len(request.documents), "documents")
    check_not_empty(request.query, "query")
    options = choose_options(DOCUMENT_PROMPTS, request, served)
    return Plan(
        inputs=[request.query, *(document or encode_empty_document(options, served) for document in request.documents)],
        options=options,
        first_options=choose_options(QUERY_PROMPTS, request, served),
        output=engine_pb2.OUTPUT_VECTOR,
        assemble=assemble_reranking,
        field_of=name_document,
        skip_normalization=True,  # keeps a zero vector zero
    )


def choose_options(prompts: Sequence[str], request: inference_pb2.RerankRequest, served: ServedModel) -> Options:
    name = next((name for name in prompts if name in served.tokenizer.prompts), "")
    return served.read_options(request, name, task=name if name in served.checkpoint.tasks else "")


def encode_empty_document(options: Options, served: ServedModel) -> Input:
    """Encodes an empty document as prompt and special tokens: one empty document must not fail the request."""
    return pack_ids([token.id for token in served.tokenizer.tokenize("", prompt=options.prompt)])


def check_reranking_fields(request: inference_pb2.RerankRequest, served: ServedModel) -> None:
    """Raises INVALID_INPUT for fields that only a reranker can honour, if they would change the scores."""
    if request.tokenized_inputs:
        message = "the model is an embedder: send query and documents as texts, not as tokenized pairs"
        raise HeddleError(ErrorKind.INVALID_INPUT, message, field="tokenized_inputs")
    if request.instruction:
        message = "the model is an embedder, which takes no instruction"
        raise HeddleError(ErrorKind.INVALID_INPUT, message, field="instruction")
    if 0 < request.document_tokens_max < served.tokenizer.sequence_tokens_max:
        message = "the model is an embedder: it has no limit for documents alone"
        raise HeddleError(ErrorKind.INVALID_INPUT, message, field="document_tokens_max")


def name_document(index: int) -> str:
    return f"documents[{index - 1}]" if index else "query"


def assemble_reranking(outcomes: Sequence[engine_pb2.Outcome]) -> inference_pb2.InferenceOutcome:
    scores = compute_cosines(outcomes)
    answer = inference_pb2.RerankResponse(scores=scores.tobytes(), ranking=best_first(scores).tobytes())
    return inference_pb2.InferenceOutcome(rerank=answer)
