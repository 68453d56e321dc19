"""The task of `PredictTokens`: finds named entities in texts, or labels each token."""

from collections.abc import Iterable, Sequence

from heddle import tensors
from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.tensors import Floats
from heddle.v1 import engine_pb2, inference_pb2
from tokenizer_svc.tasks.grouping import Group
from tokenizer_svc.tasks.inputs import TOKENIZED_INPUTS, check_no_text, to_tokenized
from tokenizer_svc.tasks.plan import Plan, add_empty, no_bytes
from tokenizer_svc.tasks.served_model import ServedModel
from tokenizer_svc.text.entities import Aggregation, AlignedText, Entity, find_entities, label_tokens
from tokenizer_svc.text.inputs import INPUTS, Input, Options
from tokenizer_svc.text.sequences import TokenSequence

AGGREGATIONS = frozenset(inference_pb2.Aggregation.values())


def plan(request: inference_pb2.PredictTokensRequest, served: ServedModel) -> Plan:
    aggregation = read_aggregation(request)
    inputs = read_inputs(request, served)
    labels = served.checkpoint.labels
    answer = inference_pb2.InferenceOutcome()
    results = add_empty(answer.predict_tokens.results, len(inputs))

    def read(group: Group, outcome: engine_pb2.Outcome) -> int:
        """Fills the results of the group. Returns their bytes."""
        own_logits = tensors.split_tokens(outcome.results[0].tokens)
        indices = range(group.start, group.start + len(own_logits))
        for index, sequence, logits in zip(indices, group.sequences, own_logits, strict=True):
            assert isinstance(sequence, TokenSequence)  # the request ends with the first that failed
            fill(results[index], to_entities(inputs[index], sequence, logits))
        return sum(results[index].ByteSize() for index in indices)

    def to_entities(content: Input, sequence: TokenSequence, logits: Floats) -> Iterable[Entity]:
        assert sequence.alignment is not None  # the options ask for it
        text = content if isinstance(content, str) else ""
        tokens = AlignedText(text, memoryview(sequence.token_ids).cast("I"), sequence.alignment)
        if aggregation is Aggregation.NONE:
            subwords = served.tokenizer.subwords if request.with_words else None
            return label_tokens(tokens, logits, labels, raw_scores=request.raw_scores, subwords=subwords)
        return find_entities(
            tokens,
            logits,
            labels,
            aggregation,
            served.tokenizer.subwords,
            with_words=request.with_words,
            with_outside=request.with_outside,
        )

    # With all labels of all tokens, the answer is large, but its size is known ahead.
    is_known = aggregation is Aggregation.NONE and request.raw_scores
    token_bytes = min_entity_bytes(labels)
    return Plan(
        inputs=inputs,
        options=Options(served.read_truncation(request), with_alignment=True, tokens_max=request.input_tokens_max),
        output=engine_pb2.OUTPUT_TOKEN_LOGITS,
        read=read,
        assemble=lambda _: answer,
        expected_bytes=(lambda sequences: sequences.tokens * token_bytes) if is_known else no_bytes,
        read_bytes=no_bytes if is_known else int,
        field_of=TOKENIZED_INPUTS if request.tokenized_inputs else INPUTS,
    )


def fill(result: inference_pb2.Entities, entities: Iterable[Entity]) -> None:
    for entity in entities:
        result.entities.add(
            text=entity.text,
            token_id=entity.token_id,
            start_char=entity.start,
            end_char=entity.end,
            scores=entity.scores,
            word=entity.word,
            special=entity.special,
        )


def min_entity_bytes(labels: Sequence[str]) -> int:
    """The smallest message of a token with scores of all labels."""
    return inference_pb2.Entity(text="a", token_id=1, end_char=1, scores=dict.fromkeys(labels, 0.0)).ByteSize()


def read_inputs(request: inference_pb2.PredictTokensRequest, served: ServedModel) -> Sequence[Input]:
    """Raises HeddleError for too few or too many inputs, and for texts beside token ids."""
    if not request.tokenized_inputs:
        served.check_count(len(request.inputs))
        return request.inputs
    served.check_count(len(request.tokenized_inputs), "tokenized_inputs")
    check_no_text(request.inputs, field="tokenized_inputs")
    return [to_tokenized(item) for item in request.tokenized_inputs]


def read_aggregation(request: inference_pb2.PredictTokensRequest) -> Aggregation:
    """Raises INVALID_INPUT for an unknown number, and for entities with raw_scores or of token ids: an entity's score
    is made of probabilities, and its text is a slice of the input."""
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
