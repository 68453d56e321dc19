"""tei.v1.Tokenize against a pod: tokens with their places, and back to text."""

from pathlib import Path

import grpc
import pytest

from heddle.tei.v1 import tei_pb2 as tei
from tests.tokenizer_svc.tei.served_model import ServedModel, served, status_of

TEXT = "Größe 🙂 weaving"


def slices(text: str, tokens: list[tei.SimpleToken]) -> list[str]:
    return [text.encode()[token.start : token.stop].decode() for token in tokens if not token.special]


async def test_offsets_are_those_of_the_bytes_of_each_token(embedder: ServedModel) -> None:
    tokens = (await embedder.tokenize.Tokenize(tei.EncodeRequest(inputs=TEXT))).tokens
    assert slices(TEXT, tokens) == [token.text for token in tokens]
    assert "".join(slices(TEXT, tokens)) == TEXT.replace(" ", "")
    assert not any(token.special for token in tokens)


async def test_special_tokens_are_returned_on_request_without_offsets(embedder: ServedModel) -> None:
    plain = (await embedder.tokenize.Tokenize(tei.EncodeRequest(inputs=TEXT))).tokens
    first, *inner, last = (
        await embedder.tokenize.Tokenize(tei.EncodeRequest(inputs=TEXT, add_special_tokens=True))
    ).tokens
    assert inner == list(plain)
    assert [(token.id, token.text, token.special) for token in (first, last)] == [
        (101, "[CLS]", True),
        (102, "[SEP]", True),
    ]
    assert not any(first.HasField(field) for field in ("start", "stop"))


async def test_offsets_count_the_prompt(embedder: ServedModel) -> None:
    tokens = (await embedder.tokenize.Tokenize(tei.EncodeRequest(inputs=TEXT, prompt_name="query"))).tokens
    assert slices(f"Ask: {TEXT}", tokens) == [token.text for token in tokens]
    assert [token.text for token in tokens[:2]] == ["Ask", ":"]
    assert all(token.HasField("start") for token in tokens)


async def test_the_error_for_an_unknown_prompt_lists_the_names(embedder: ServedModel) -> None:
    """tei-client 0.2 asks for an unknown name, and reads the others from the message."""
    call = embedder.tokenize.Tokenize(tei.EncodeRequest(inputs=TEXT, prompt_name="answer"))
    status, message = await status_of(call)
    assert status is grpc.StatusCode.INVALID_ARGUMENT
    assert message.endswith('Available prompts: ["query"]')


@pytest.mark.parametrize(("skip_special_tokens", "text"), [(False, "[CLS] hello world [SEP]"), (True, "hello world")])
async def test_ids_are_decoded(embedder: ServedModel, skip_special_tokens: bool, text: str) -> None:
    request = tei.DecodeRequest(ids=[101, 7592, 2088, 102], skip_special_tokens=skip_special_tokens)
    assert (await embedder.tokenize.Decode(request)).text == text


async def test_ids_outside_the_vocabulary_are_an_invalid_argument(embedder: ServedModel) -> None:
    status, message = await status_of(embedder.tokenize.Decode(tei.DecodeRequest(ids=[30522])))
    assert (status, "outside the model's vocabulary" in message) == (grpc.StatusCode.INVALID_ARGUMENT, True)


async def test_more_than_the_limit_is_an_invalid_argument(tmp_path: Path) -> None:
    async with served(tmp_path, tokenize_bytes_max=1000) as model:
        assert (await model.tokenize.Tokenize(tei.EncodeRequest(inputs="a" * 900))).tokens
        for call in (
            model.tokenize.Tokenize(tei.EncodeRequest(inputs="a" * 1000)),
            model.tokenize.Decode(tei.DecodeRequest(ids=[101] * 250)),
        ):
            status, message = await status_of(call)
            assert (status, "the limit is 1000" in message) == (grpc.StatusCode.INVALID_ARGUMENT, True)
