"""The task of `Similarity`: the cosine between one text and each of many."""

from collections.abc import Sequence

import numpy as np

from heddle import tensors
from heddle.tensors import Floats
from heddle.v1 import engine_pb2, inference_pb2
from tokenizer_svc.tasks.plan import Plan
from tokenizer_svc.tasks.scores import cosines
from tokenizer_svc.tasks.terms import Terms
from tokenizer_svc.tasks.texts import check_not_empty


def plan(request: inference_pb2.SimilarityRequest, terms: Terms) -> Plan:
    """The source is the first input, the sentences are the others."""
    terms.check_count(len(request.sentences), "sentences")
    check_not_empty(request.source, "source")
    return Plan(
        inputs=[request.source, *request.sentences],
        options=terms.options(request, request.prompt_name, request.task),
        output=engine_pb2.OUTPUT_VECTOR,
        assemble=assembled,
        field_of=field_of,
        skip_normalization=True,  # a vector without a direction stays what it is
    )


def field_of(index: int) -> str:
    return f"sentences[{index - 1}]" if index else "source"


def assembled(outcomes: Sequence[engine_pb2.Outcome]) -> inference_pb2.InferenceOutcome:
    scores = cosines_of(outcomes).tobytes()
    return inference_pb2.InferenceOutcome(similarity=inference_pb2.SimilarityResponse(scores=scores))


def cosines_of(outcomes: Sequence[engine_pb2.Outcome]) -> Floats:
    """Cosines between the first vector and each of the others."""
    vectors = np.concatenate([tensors.from_proto(outcome.results[0].tensor) for outcome in outcomes])
    return cosines(vectors[0], vectors[1:])
