"""The task of `Predict`: texts, or pairs of them, to a score for each label of a classifier."""

from collections.abc import Callable

from heddle.activations import sigmoid, softmax
from heddle.checkpoint import Checkpoint
from heddle.tensors import Floats
from heddle.v1 import engine_pb2, inference_pb2
from tokenizer_svc.tasks.plan import Plan
from tokenizer_svc.tasks.score_table import ScoreTable, as_they_are
from tokenizer_svc.tasks.terms import Terms
from tokenizer_svc.tasks.texts import check_no_text, to_tokenized
from tokenizer_svc.text.inputs import INPUTS, Input


def plan(request: inference_pb2.PredictRequest, terms: Terms) -> Plan:
    terms.check_count(len(request.inputs))
    labels = terms.checkpoint.labels
    row_bytes = 2 * 4 * len(labels)  # scores and ranking
    score = as_they_are if request.raw_scores else scoring_of(terms.checkpoint)
    table = ScoreTable(len(request.inputs), len(labels), score)

    def assembled(_: object) -> inference_pb2.InferenceOutcome:
        """Sets the scores in the answer itself, because they are many and would be copied otherwise."""
        answer = inference_pb2.InferenceOutcome()
        answer.predict.scores, answer.predict.ranking = table.to_bytes()
        answer.predict.labels.extend(labels)
        return answer

    return Plan(
        inputs=[content(item, INPUTS(index)) for index, item in enumerate(request.inputs)],
        options=terms.options(request),
        output=engine_pb2.OUTPUT_LOGITS,
        read=table.read,
        assemble=assembled,
        expected_bytes=lambda sequences: len(sequences) * row_bytes,
    )


def content(item: inference_pb2.TextOrPair, field: str) -> Input:
    """Raises INVALID_INPUT if an input has both texts and token ids."""
    if item.HasField("tokenized"):
        check_no_text(item.text, item.pair, field=field)
        return to_tokenized(item.tokenized)
    return (item.text, item.pair) if item.HasField("pair") else item.text


def scoring_of(checkpoint: Checkpoint) -> Callable[[Floats], Floats]:
    """From logits [inputs, labels] to scores, as transformers.pipelines.text_classification chooses it."""
    if checkpoint.config.get("problem_type") == "regression":
        return as_they_are
    return sigmoid if checkpoint.multi_label or len(checkpoint.labels) == 1 else softmax
