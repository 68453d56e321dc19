"""The task of `PredictTokens`: texts to named entities, or to a label for each of their tokens."""

from collections.abc import Iterable, Sequence

from heddle import tensors
from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.tensors import Floats
from heddle.v1 import engine_pb2, inference_pb2
from tokenizer_svc.tasks.grouping import Group
from tokenizer_svc.tasks.plan import Plan, nothing, slots
from tokenizer_svc.tasks.terms import Terms
from tokenizer_svc.tasks.texts import TOKENIZED_INPUTS, check_no_text, to_tokenized
from tokenizer_svc.text.entities import Aggregation, AlignedText, Entity, find_entities, label_tokens
from tokenizer_svc.text.inputs import INPUTS, Input, Options
from tokenizer_svc.text.sequences import TokenSequence

AGGREGATIONS = frozenset(inference_pb2.Aggregation.values())


def plan(request: inference_pb2.PredictTokensRequest, terms: Terms) -> Plan:
    aggregation = read_aggregation(request)
    inputs = inputs_of(request, terms)
    labels = terms.checkpoint.labels
    answer = inference_pb2.InferenceOutcome()
    results = slots(answer.predict_tokens.results, len(inputs))

    def read(group: Group, outcome: engine_pb2.Outcome) -> int:
        """Fills the results of the group. Returns their bytes."""
        own_logits = tensors.split_tokens(outcome.results[0].tokens)
        indices = range(group.start, group.start + len(own_logits))
        for index, sequence, logits in zip(indices, group.sequences, own_logits, strict=True):
            assert isinstance(sequence, TokenSequence)  # the request ends with the first that failed
            fill(results[index], spans_of(inputs[index], sequence, logits))
        return sum(results[index].ByteSize() for index in indices)

    def spans_of(content: Input, sequence: TokenSequence, logits: Floats) -> Iterable[Entity]:
        assert sequence.alignment is not None  # the options ask for it
        text = content if isinstance(content, str) else ""
        tokens = AlignedText(text, memoryview(sequence.token_ids).cast("I"), sequence.alignment)
        if aggregation is Aggregation.NONE:
            spelled_by = terms.tokenizer.subwords if request.with_words else None
            return label_tokens(tokens, logits, labels, raw_scores=request.raw_scores, subwords=spelled_by)
        return find_entities(
            *(tokens, logits, labels, aggregation, terms.tokenizer.subwords),
            with_words=request.with_words,
            with_outside=request.with_outside,
        )

    # All labels of all tokens are many, and are known ahead.
    is_known = aggregation is Aggregation.NONE and request.raw_scores
    token_bytes = least_bytes(labels)
    return Plan(
        inputs=inputs,
        options=Options(terms.truncation(request), with_alignment=True, tokens_max=request.input_tokens_max),
        output=engine_pb2.OUTPUT_TOKEN_LOGITS,
        read=read,
        assemble=lambda _: answer,
        expected_bytes=(lambda sequences: sequences.tokens * token_bytes) if is_known else nothing,
        read_bytes=nothing if is_known else int,
        field_of=TOKENIZED_INPUTS if request.tokenized_inputs else INPUTS,
    )


def fill(result: inference_pb2.Entities, spans: Iterable[Entity]) -> None:
    for span in spans:
        result.entities.add(
            text=span.text,
            token_id=span.token_id,
            start_char=span.start,
            end_char=span.end,
            scores=span.scores,
            word=span.word,
            special=span.special,
        )


def least_bytes(labels: Sequence[str]) -> int:
    """Of the message of a token with the scores of all labels."""
    return inference_pb2.Entity(text="a", token_id=1, end_char=1, scores=dict.fromkeys(labels, 0.0)).ByteSize()


def inputs_of(request: inference_pb2.PredictTokensRequest, terms: Terms) -> Sequence[Input]:
    """Raises HeddleError for too few or too many, and for texts in addition to token ids."""
    if not request.tokenized_inputs:
        terms.check_count(len(request.inputs))
        return request.inputs
    terms.check_count(len(request.tokenized_inputs), "tokenized_inputs")
    check_no_text(request.inputs, field="tokenized_inputs")
    return [to_tokenized(item) for item in request.tokenized_inputs]


def read_aggregation(request: inference_pb2.PredictTokensRequest) -> Aggregation:
    """Raises INVALID_INPUT for a number that the contract does not know, and for raw_scores or token ids with entities:
    the score of an entity is made of probabilities, and its text is a slice of the input."""
    wanted = request.aggregation
    if wanted not in AGGREGATIONS:
        raise HeddleError(ErrorKind.INVALID_INPUT, f"there is no aggregation {wanted}", field="aggregation")
    aggregation = Aggregation(wanted) if wanted else Aggregation.NONE
    if aggregation is not Aggregation.NONE:
        if request.raw_scores:
            message = "entities have no logits: raw_scores needs aggregation none"
            raise HeddleError(ErrorKind.INVALID_INPUT, message, field="raw_scores")
        if request.tokenized_inputs:
            message = "token ids have no text to find entities in: tokenized_inputs need aggregation none"
            raise HeddleError(ErrorKind.INVALID_INPUT, message, field="aggregation")
    return aggregation
