"""The task of `Rerank` for an embedder, if the settings allow it: scores are cosines between query and document.

`tokenizer_svc.tasks.table` calls it. Queries and documents get the model's prompts and adapters for them, as with
encode_query and encode_document of sentence-transformers.
"""

from collections.abc import Sequence

from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.v1 import engine_pb2, inference_pb2
from tokenizer_svc.tasks.plan import Plan
from tokenizer_svc.tasks.scores import best_first
from tokenizer_svc.tasks.similarity import cosines_of
from tokenizer_svc.tasks.terms import Terms
from tokenizer_svc.tasks.texts import check_not_empty
from tokenizer_svc.text.inputs import Input, Options
from tokenizer_svc.text.sequences import pack_ids

# The first prompt that the model has is used, or its default prompt if it has none of them.
QUERY_PROMPTS = ("query", "search_query", "retrieval.query", "s2p_query")
DOCUMENT_PROMPTS = ("document", "passage", "corpus", "search_document", "retrieval.passage")


def plan(request: inference_pb2.RerankRequest, terms: Terms) -> Plan:
    """The query is the first input, the documents are the others. The score is the cosine, whether `raw_scores` is set
    or not: no sigmoid is applied."""
    check_texts_alone(request, terms)
    terms.check_count(len(request.documents), "documents")
    check_not_empty(request.query, "query")
    options = options_for(DOCUMENT_PROMPTS, request, terms)
    return Plan(
        inputs=[request.query, *(document or empty_document(options, terms) for document in request.documents)],
        options=options,
        first_options=options_for(QUERY_PROMPTS, request, terms),
        output=engine_pb2.OUTPUT_VECTOR,
        assemble=assembled,
        field_of=field_of,
        skip_normalization=True,  # keeps a zero vector zero
    )


def options_for(prompts: Sequence[str], request: inference_pb2.RerankRequest, terms: Terms) -> Options:
    name = next((name for name in prompts if name in terms.tokenizer.prompts), "")
    return terms.options(request, name, task=name if name in terms.checkpoint.tasks else "")


def empty_document(options: Options, terms: Terms) -> Input:
    """The sequence of an empty document: prompt and special tokens. One empty document among a hundred search results
    must not fail the request."""
    return pack_ids([token.id for token in terms.tokenizer.tokenize("", prompt=options.prompt)])


def check_texts_alone(request: inference_pb2.RerankRequest, terms: Terms) -> None:
    """Raises INVALID_INPUT for fields that only rerankers can honour, if they would change the scores."""
    if request.tokenized_inputs:
        message = "the model is an embedder: send query and documents as texts, not as tokenized pairs"
        raise HeddleError(ErrorKind.INVALID_INPUT, message, field="tokenized_inputs")
    if request.instruction:
        message = "the model is an embedder, which takes no instruction"
        raise HeddleError(ErrorKind.INVALID_INPUT, message, field="instruction")
    if 0 < request.document_tokens_max < terms.tokenizer.sequence_tokens_max:
        message = "the model is an embedder: it has no limit for documents alone"
        raise HeddleError(ErrorKind.INVALID_INPUT, message, field="document_tokens_max")


def field_of(index: int) -> str:
    return f"documents[{index - 1}]" if index else "query"


def assembled(outcomes: Sequence[engine_pb2.Outcome]) -> inference_pb2.InferenceOutcome:
    scores = cosines_of(outcomes)
    answer = inference_pb2.RerankResponse(scores=scores.tobytes(), ranking=best_first(scores).tobytes())
    return inference_pb2.InferenceOutcome(rerank=answer)
