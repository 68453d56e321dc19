"""Large outcomes in pieces: joined, they are the same outcome, whatever its form."""

import random
from typing import Any

import pytest
from google.protobuf.message import DecodeError

from heddle.rpc.pieces import Joiner, cut, encode
from heddle.v1 import engine_pb2, error_pb2, inference_pb2, item_pb2, tensor_pb2

KIB = 1024


def embed_all(*sizes: int) -> inference_pb2.InferenceOutcome:
    outcome = inference_pb2.InferenceOutcome()
    for size in sizes:
        data = random.randbytes(size)
        outcome.embed_tokens.embeddings.add(data_type=tensor_pb2.DATA_TYPE_FLOAT32, shape=[size // 4], data=data)
    outcome.embed_tokens.usage.tokens = 7
    return outcome


def token_outcome(size: int) -> engine_pb2.Outcome:
    tokens = tensor_pb2.TokenTensor(
        tensor=tensor_pb2.Tensor(shape=[size], data=random.randbytes(size)), lengths=b"1234"
    )
    error = engine_pb2.SequenceError(index=3, error=error_pb2.Error(message="one"))
    return engine_pb2.Outcome(
        results=[engine_pb2.Result(tokens=tokens), engine_pb2.Result()], errors=[error, error], queue_us=5
    )


def entities() -> inference_pb2.InferenceOutcome:
    outcome = inference_pb2.InferenceOutcome()
    for number in range(50):
        result = outcome.predict_tokens.results.add()
        result.entities.add(text=f"word {number}", scores={"PER": 0.5, "LOC": 0.25})
        result.entities.add(text="é", start_char=number)
    return outcome


OUTCOMES: dict[str, Any] = {
    "many tensors": embed_all(*[3 * KIB] * 100),
    "one large tensor": embed_all(10, 700 * KIB, 5, 0, 300),
    "a result of the engine": token_outcome(500 * KIB),
    "entities with maps": entities(),
    "an answer without elements": inference_pb2.InferenceOutcome(embed_tokens=inference_pb2.EmbedTokensResponse()),
    "an error": inference_pb2.InferenceOutcome(error=error_pb2.Error(message="no")),
    "nothing": engine_pb2.Outcome(),
}


@pytest.mark.parametrize("name", OUTCOMES)
@pytest.mark.parametrize("bytes_max", [100, 16 * KIB, 256 * KIB])
def test_joined_pieces_are_the_outcome(name: str, bytes_max: int) -> None:
    outcome = OUTCOMES[name]
    pieces = list(cut(outcome, bytes_max))
    assert pieces[-1][1]
    assert max(len(data) for data, _ in pieces) < 2 * bytes_max
    assert type(outcome).FromString(b"".join(data for data, _ in pieces)) == outcome
    assert type(outcome).FromString(b"".join(encode(outcome))) == outcome
    joiner = Joiner(type(outcome))
    for number, (data, ends_part) in enumerate(pieces):
        piece = item_pb2.OutcomePiece(id=9, data=data, ends_part=ends_part, is_last=number == len(pieces) - 1)
        joined = joiner.join([piece], {9})
        assert bool(joined) == piece.is_last
    expected = type(outcome).FromString(outcome.SerializeToString())
    expected.id = 9
    assert joined == [expected]


def test_a_long_list_is_parsed_while_it_comes() -> None:
    """Otherwise its receiver would hold it twice, and parse it all at once."""
    kept, most, at_once = 0, 0, 0
    for data, ends_part in cut(embed_all(*[30 * KIB] * 100), 64 * KIB):
        kept += len(data)
        most = max(most, kept)
        at_once += 1
        kept = 0 if ends_part else kept
    assert at_once > 20
    assert most < 256 * KIB


def test_pieces_of_several_outcomes_do_not_mix() -> None:
    outcomes = {number: embed_all(*[number * KIB] * 20) for number in range(1, 6)}
    pieces = {number: list(cut(outcome, 2 * KIB)) for number, outcome in outcomes.items()}
    joiner = Joiner(inference_pb2.InferenceOutcome)
    joined: list[inference_pb2.InferenceOutcome] = []
    while any(pieces.values()):
        number = random.choice([number for number, left in pieces.items() if left])
        data, ends_part = pieces[number].pop(0)
        piece = item_pb2.OutcomePiece(id=number, data=data, ends_part=ends_part, is_last=not pieces[number])
        joined += joiner.join([piece], outcomes)
    for outcome in joined:
        outcomes[outcome.id].id = outcome.id
        assert outcome == outcomes.pop(outcome.id)
    assert not outcomes


def test_what_nobody_wants_is_not_kept() -> None:
    joiner = Joiner(inference_pb2.InferenceOutcome)
    piece = item_pb2.OutcomePiece(id=1, data=b"abc")
    joiner.join([piece], set())
    assert not joiner._unfinished
    joiner.join([piece], {1})
    joiner.drop(1)
    assert not joiner._unfinished


def test_bytes_that_are_not_an_outcome_are_an_error() -> None:
    with pytest.raises(DecodeError):
        Joiner(engine_pb2.Outcome).join([item_pb2.OutcomePiece(id=1, data=b"\xff\xff\xff", is_last=True)], {1})
