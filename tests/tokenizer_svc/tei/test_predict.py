"""tei.v1.Predict against a pod: labels with their scores, best first."""

from pathlib import Path

import grpc
import numpy as np
import pytest

from heddle.tei.v1 import tei_pb2 as tei
from heddle.v1 import inference_pb2 as pb
from tests.high_logits import HighLogits
from tests.kinds import EMOTIONS, write_multi_label_classifier
from tests.tokenizer_svc.tei.served_model import ServedModel, served, status_of

Scores = list[tuple[str, float]]


async def heddle_scores(model: ServedModel, text: pb.TextOrPair, *, raw_scores: bool = False) -> Scores:
    response = await model.heddle.Predict(pb.PredictRequest(inputs=[text], raw_scores=raw_scores))
    rows = zip(response.labels, np.frombuffer(response.scores, "<f4").tolist(), strict=True)
    return sorted(rows, key=lambda row: -row[1])


def scores_of(response: tei.PredictResponse) -> Scores:
    return [(prediction.label, prediction.score) for prediction in response.predictions]


async def test_scores_are_those_of_heddle_v1_best_first(classifier: ServedModel) -> None:
    response = await classifier.predict.Predict(tei.PredictRequest(inputs="warp"))
    assert scores_of(response) == await heddle_scores(classifier, pb.TextOrPair(text="warp"))
    assert {prediction.label for prediction in response.predictions} == set(EMOTIONS)
    assert response.metadata.compute_chars == 4


async def test_scores_are_probabilities_unless_raw(classifier: ServedModel) -> None:
    response = await classifier.predict.Predict(tei.PredictRequest(inputs="warp"))
    assert sum(score for _, score in scores_of(response)) == pytest.approx(1, abs=1e-5)
    raw = await classifier.predict.Predict(tei.PredictRequest(inputs="warp", raw_scores=True))
    assert scores_of(raw) == await heddle_scores(classifier, pb.TextOrPair(text="warp"), raw_scores=True)
    assert scores_of(raw) != scores_of(response)


async def test_scores_that_round_to_one_are_ranked_by_their_logits(tmp_path: Path) -> None:
    async with served(tmp_path, write_multi_label_classifier, HighLogits(dimension=len(EMOTIONS))) as classifier:
        response = await classifier.predict.Predict(tei.PredictRequest(inputs="warp"))
        assert scores_of(response) == [(EMOTIONS[index], 1.0) for index in (2, 0, 1)]


async def test_a_pair_is_one_input_and_a_pair_of_one_is_a_text(classifier: ServedModel) -> None:
    pair = await classifier.predict.PredictPair(tei.PredictPairRequest(inputs=["warp", "weft"]))
    assert scores_of(pair) == await heddle_scores(classifier, pb.TextOrPair(text="warp", pair="weft"))
    assert pair.metadata.compute_chars == 8
    alone = await classifier.predict.PredictPair(tei.PredictPairRequest(inputs=["warp"]))
    assert scores_of(alone) == await heddle_scores(classifier, pb.TextOrPair(text="warp"))


@pytest.mark.parametrize("inputs", [[], ["a", "b", "c"]])
async def test_a_pair_has_one_or_two_texts(classifier: ServedModel, inputs: list[str]) -> None:
    status, message = await status_of(classifier.predict.PredictPair(tei.PredictPairRequest(inputs=inputs)))
    assert (status, message) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        f"inputs must have one or two texts, not {len(inputs)}",
    )


async def test_a_classifier_neither_embeds_nor_reranks(classifier: ServedModel) -> None:
    for call in (
        classifier.embed.Embed(tei.EmbedRequest(inputs="warp")),
        classifier.rerank.Rerank(tei.RerankRequest(query="warp", texts=["weft"])),
    ):
        assert (await status_of(call))[0] is grpc.StatusCode.FAILED_PRECONDITION
