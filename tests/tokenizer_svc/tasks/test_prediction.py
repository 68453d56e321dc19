"""Predict: single texts and pairs, with the activation of transformers' pipeline."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from transformers.pipelines.text_classification import sigmoid, softmax

from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.tensors import Floats
from heddle.v1 import inference_pb2 as pb
from tests.kinds import EMOTIONS, write_classifier, write_config, write_multi_label_classifier, write_reranker
from tests.texts import SENTENCES
from tests.tokenizer_svc.tasks.conftest import Serve
from tests.tokenizer_svc.tasks.simulated_logits import logits_of

PAIRS: list[tuple[str, str | None]] = [
    *((sentence, None) for sentence in SENTENCES),
    *zip(SENTENCES, reversed(SENTENCES), strict=True),
    ("a", ""),
]
REQUEST_INPUTS = [pb.TextOrPair(text=text, pair=pair) for text, pair in PAIRS]


def write_regression(folder: Path) -> Path:
    return write_config(folder, "BertForSequenceClassification", ("score",), problem_type="regression")


@pytest.mark.parametrize(
    ("write", "labels", "function"),
    [
        (write_classifier, EMOTIONS, softmax),
        (write_multi_label_classifier, EMOTIONS, sigmoid),
        (write_reranker, ("LABEL_0",), sigmoid),
        (write_regression, ("score",), np.copy),
    ],
)
async def test_scores_are_those_of_the_pipeline_for_the_same_logits(
    serve: Serve, write: Callable[[Path], Path], labels: tuple[str, ...], function: Callable[[Floats], Floats]
) -> None:
    client = await serve(write)
    logits = np.stack([logits_of(len(labels), *pair) for pair in PAIRS])
    for raw_scores, expected in ((False, function(logits)), (True, logits)):
        response = await client.predict(pb.PredictRequest(inputs=REQUEST_INPUTS, raw_scores=raw_scores))
        assert tuple(response.labels) == labels
        scores = np.frombuffer(response.scores, "<f4").reshape(-1, len(labels))
        np.testing.assert_allclose(scores, expected, rtol=1e-6)


def of(*texts: str) -> pb.PredictRequest:
    return pb.PredictRequest(inputs=[pb.TextOrPair(text=text) for text in texts])


BAD_REQUESTS = [
    (of(), ErrorKind.EMPTY_INPUT, "inputs"),
    (of("a", ""), ErrorKind.EMPTY_INPUT, "inputs[1]"),
    (of(*"1234"), ErrorKind.TOO_LARGE, "inputs"),
]


async def test_bad_requests_are_refused_by_the_name_of_their_field(serve: Serve) -> None:
    client = await serve(write_classifier, request_inputs_max=3)
    for request, kind, field in BAD_REQUESTS:
        with pytest.raises(HeddleError) as caught:
            await client.predict(request)
        assert (caught.value.kind, caught.value.field) == (kind, field)
