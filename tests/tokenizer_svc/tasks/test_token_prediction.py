"""PredictTokens over the wire. tests/tokenizer_svc/text/test_entities.py tests the entities themselves."""

import numpy as np
import pytest

from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.v1 import inference_pb2 as pb
from tests.kinds import TAGS, write_token_classifier
from tests.texts import SENTENCES
from tests.tokenizer_svc.fake_engine import noise
from tests.tokenizer_svc.tasks.conftest import Serve
from tests.tokenizer_svc.tasks.simulated_logits import TOKENS_MAX, sequence_of
from tokenizer_svc.text.sequences import TokenSequence


def logits_of(sequence: TokenSequence) -> np.ndarray:
    return noise(sequence, sequence.tokens * len(TAGS)).reshape(-1, len(TAGS))


async def test_raw_scores_are_the_logits_of_every_token(serve: Serve) -> None:
    client = await serve(write_token_classifier)
    response = await client.predict_tokens(pb.PredictTokensRequest(inputs=SENTENCES, raw_scores=True))
    assert len(response.results) == len(SENTENCES)
    for text, result in zip(SENTENCES, response.results, strict=True):
        sequence = sequence_of(text)
        assert [entity.token_id for entity in result.entities] == np.frombuffer(sequence.token_ids, "<u4").tolist()
        scores = [[entity.scores[tag] for tag in TAGS] for entity in result.entities]
        np.testing.assert_array_equal(np.array(scores, np.float32), logits_of(sequence))
        assert all(entity.text == text[entity.start_char : entity.end_char] for entity in result.entities[1:-1])


async def test_without_raw_scores_a_token_has_its_best_label(serve: Serve) -> None:
    client = await serve(write_token_classifier)
    text = SENTENCES[4]
    (result,) = (await client.predict_tokens(pb.PredictTokensRequest(inputs=[text]))).results
    best = [TAGS[index] for index in logits_of(sequence_of(text)).argmax(axis=-1)]
    assert [list(entity.scores) for entity in result.entities] == [[tag] for tag in best]
    assert (result.entities[0].text, result.entities[-1].text) == ("[CLS]", "[SEP]")


@pytest.mark.parametrize("aggregation", [2, 3, 4, 5])
async def test_entities_are_slices_of_the_text_without_prefix_and_in_its_order(
    serve: Serve, aggregation: pb.Aggregation
) -> None:
    client = await serve(write_token_classifier)
    response = await client.predict_tokens(pb.PredictTokensRequest(inputs=SENTENCES, aggregation=aggregation))
    for text, result in zip(SENTENCES, response.results, strict=True):
        starts = [entity.start_char for entity in result.entities]
        assert starts == sorted(starts)
        for entity in result.entities:
            assert entity.text == text[entity.start_char : entity.end_char]
            (score,) = entity.scores.items()
            assert score[0] in ("PER", "ORG", "LOC")
            assert 1 / len(TAGS) <= score[1] <= 1
            assert entity.token_id == 0
    assert sum(len(result.entities) for result in response.results) > len(SENTENCES)


@pytest.mark.parametrize(("side", "first"), [(pb.TRUNCATION_SIDE_RIGHT, 0), (pb.TRUNCATION_SIDE_LEFT, None)])
async def test_offsets_of_a_truncated_text_are_right(serve: Serve, side: pb.TruncationSide, first: int | None) -> None:
    client = await serve(write_token_classifier)
    text = "Zoë lives in 東京 🎉. " * 2_000
    response = await client.predict_tokens(pb.PredictTokensRequest(inputs=[text], truncation_side=side))
    tokens = response.results[0].entities
    assert len(tokens) == TOKENS_MAX
    assert response.usage.truncated_inputs == 1
    assert all(token.text == text[token.start_char : token.end_char] for token in tokens[1:-1])
    if first is None:
        assert tokens[-2].end_char == len(text.rstrip())
    else:
        assert tokens[1].start_char == first


async def test_bad_requests_are_refused_by_the_name_of_their_field(serve: Serve) -> None:
    client = await serve(write_token_classifier)
    for request, kind, field in (
        (pb.PredictTokensRequest(), ErrorKind.EMPTY_INPUT, "inputs"),
        (pb.PredictTokensRequest(inputs=["a", ""]), ErrorKind.EMPTY_INPUT, "inputs[1]"),
        (pb.PredictTokensRequest(inputs=["a"], aggregation=9), ErrorKind.INVALID_INPUT, "aggregation"),  # type: ignore[arg-type]
        (
            pb.PredictTokensRequest(inputs=["a"], aggregation=pb.AGGREGATION_MAX, raw_scores=True),
            ErrorKind.INVALID_INPUT,
            "raw_scores",
        ),
    ):
        with pytest.raises(HeddleError) as caught:
            await client.predict_tokens(request)
        assert (caught.value.kind, caught.value.field) == (kind, field)
