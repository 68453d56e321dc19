"""The task of `Rerank`: how well each document answers the query."""

from dataclasses import replace

from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.v1 import engine_pb2, inference_pb2
from tokenizer_svc.rerank_prompts import RerankPrompt
from tokenizer_svc.scores import sigmoid
from tokenizer_svc.sequence import Input, numbered
from tokenizer_svc.tasks.plan import Plan
from tokenizer_svc.tasks.score_table import ScoreTable, as_they_are
from tokenizer_svc.tasks.terms import Terms
from tokenizer_svc.tasks.texts import check_not_empty, check_text, check_texts

DOCUMENTS = numbered("documents")


def plan(request: inference_pb2.RerankRequest, terms: Terms) -> Plan:
    """A document may be empty: the model has a score for it, as in sentence-transformers, and one such document among
    a hundred search results should not cost the others theirs."""
    terms.check_count(len(request.documents), "documents")
    check_not_empty(request.query, "query")
    check_text(request.query, "query")
    check_texts(request.documents, DOCUMENTS)
    check_text(request.instruction, "instruction")
    table = ScoreTable(len(request.documents), 1, as_they_are if request.raw_scores else sigmoid)

    def assembled(_: object) -> inference_pb2.InferenceOutcome:
        return inference_pb2.InferenceOutcome(rerank=inference_pb2.RerankResponse(scores=table.to_bytes()))

    return Plan(
        inputs=inputs_of(request, terms.rerank_prompt),
        options=replace(terms.options(request), document_tokens_max=request.document_tokens_max),
        output=engine_pb2.OUTPUT_LOGITS,
        read=table.read,
        assemble=assembled,
        field_of=DOCUMENTS,
    )


def inputs_of(request: inference_pb2.RerankRequest, prompt: RerankPrompt | None) -> list[Input]:
    """One for each document. Raises INVALID_INPUT for an instruction that nothing would be done with."""
    if request.instruction and (prompt is None or not prompt.takes_instruction):
        message = "the model's prompt has no place for an instruction"
        raise HeddleError(ErrorKind.INVALID_INPUT, message, field="instruction")
    if prompt is None:
        return [(request.query, document) for document in request.documents]
    return [prompt.framed(request.query, document, request.instruction) for document in request.documents]
