"""The task of `Predict`: scores texts, or pairs of texts, for each label of a classifier."""

from collections.abc import Callable

from heddle.activations import sigmoid, softmax
from heddle.checkpoint import Checkpoint
from heddle.tensors import Floats
from heddle.v1 import engine_pb2, inference_pb2
from tokenizer_svc.tasks.inputs import check_no_text, to_tokenized
from tokenizer_svc.tasks.plan import Plan
from tokenizer_svc.tasks.scores import ScoreTable, identity
from tokenizer_svc.tasks.served_model import ServedModel
from tokenizer_svc.text.inputs import INPUTS, Input


def plan(request: inference_pb2.PredictRequest, served: ServedModel) -> Plan:
    served.check_count(len(request.inputs))
    labels = served.checkpoint.labels
    row_bytes = 2 * 4 * len(labels)  # scores and ranking
    score = identity if request.raw_scores else choose_activation(served.checkpoint)
    table = ScoreTable(len(request.inputs), len(labels), score)

    def assemble(_: object) -> inference_pb2.InferenceOutcome:
        """Sets the scores in the answer itself, so that they need not be copied."""
        answer = inference_pb2.InferenceOutcome()
        answer.predict.scores, answer.predict.ranking = table.to_bytes()
        answer.predict.labels.extend(labels)
        return answer

    return Plan(
        inputs=[to_input(item, INPUTS(index)) for index, item in enumerate(request.inputs)],
        options=served.read_options(request),
        output=engine_pb2.OUTPUT_LOGITS,
        read=table.read,
        assemble=assemble,
        expected_bytes=lambda sequences: len(sequences) * row_bytes,
    )


def to_input(item: inference_pb2.TextOrPair, field: str) -> Input:
    """Raises INVALID_INPUT if an input has both texts and token ids."""
    if item.HasField("tokenized"):
        check_no_text(item.text, item.pair, field=field)
        return to_tokenized(item.tokenized)
    return (item.text, item.pair) if item.HasField("pair") else item.text


def choose_activation(checkpoint: Checkpoint) -> Callable[[Floats], Floats]:
    """Chooses the activation that transformers.pipelines.text_classification would use."""
    if checkpoint.config.get("problem_type") == "regression":
        return identity
    return sigmoid if checkpoint.multi_label or len(checkpoint.labels) == 1 else softmax
