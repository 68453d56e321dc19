"""Tokenize and Decode give the results of the model's tokenizer, without an engine."""

import numpy as np
import pytest

from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.v1 import inference_pb2 as pb
from tests.kinds import write_classifier, write_reranker
from tests.texts import varied_texts
from tests.tokenizer_svc.tasks.conftest import Serve
from tests.tokenizer_svc.tasks.simulated_logits import minilm_tokenizer
from tests.tokenizer_svc.tei.served_model import write_embedder

TEXTS = varied_texts(150)


def packed(*token_ids: int) -> bytes:
    return np.array(token_ids, "<u4").tobytes()


@pytest.mark.parametrize("skip_special_tokens", [True, False])
async def test_all_tokens_are_returned_with_their_offsets(serve: Serve, skip_special_tokens: bool) -> None:
    client = await serve(write_reranker)
    request = pb.TokenizeRequest(inputs=TEXTS, skip_special_tokens=skip_special_tokens)
    response = await client.tokenize(request)
    for text, result in zip(TEXTS, response.results, strict=True):
        expected = minilm_tokenizer()(text, add_special_tokens=not skip_special_tokens)["input_ids"]
        assert [token.id for token in result.tokens] == expected
        for token in result.tokens:
            if not token.special:
                assert text.encode()[token.start_byte : token.end_byte].decode() == token.text
        specials = [token.text for token in result.tokens if token.special]
        assert specials == ([] if skip_special_tokens else ["[CLS]", "[SEP]"])


async def test_a_prompt_is_tokenized_with_its_text(serve: Serve) -> None:
    client = await serve(write_embedder)
    (result,) = (await client.tokenize(pb.TokenizeRequest(inputs=["why"], prompt_name="query"))).results
    assert [token.id for token in result.tokens] == minilm_tokenizer()("Ask: why")["input_ids"]
    assert [(token.start_byte, token.end_byte) for token in result.tokens][-2:] == [(0, 3), (0, 0)]


@pytest.mark.parametrize("keep_special_tokens", [True, False])
async def test_ids_become_text_again(serve: Serve, keep_special_tokens: bool) -> None:
    client = await serve(write_classifier)
    ids = [minilm_tokenizer()(text)["input_ids"] for text in TEXTS]
    request = pb.DecodeRequest(token_ids=[packed(*row) for row in ids] + [b""], keep_special_tokens=keep_special_tokens)
    library = minilm_tokenizer().backend_tokenizer
    expected = [library.decode(row, skip_special_tokens=not keep_special_tokens) for row in ids]
    assert list((await client.decode(request)).texts) == [*expected, ""]


async def test_bad_requests_are_refused_by_the_name_of_their_field(serve: Serve) -> None:
    client = await serve(write_classifier, request_inputs_max=3, tokenize_bytes_max=1000)
    for texts, kind, field in (
        ([], ErrorKind.EMPTY_INPUT, "inputs"),
        (list("1234"), ErrorKind.TOO_LARGE, "inputs"),
        (["é" * 450, "é" * 30], ErrorKind.TOO_LARGE, "inputs"),
    ):
        with pytest.raises(HeddleError) as caught:
            await client.tokenize(pb.TokenizeRequest(inputs=texts))
        assert (caught.value.kind, caught.value.field) == (kind, field)
    for token_ids, kind, field in (
        ([], ErrorKind.EMPTY_INPUT, "token_ids"),
        ([packed(101), b"123"], ErrorKind.INVALID_INPUT, "token_ids[1]"),
        ([packed(30522)], ErrorKind.INVALID_INPUT, "token_ids[0]"),
        ([packed(*range(300))], ErrorKind.TOO_LARGE, "token_ids"),
    ):
        with pytest.raises(HeddleError) as caught:
            await client.decode(pb.DecodeRequest(token_ids=token_ids))
        assert (caught.value.kind, caught.value.field) == (kind, field)
    with pytest.raises(HeddleError) as caught:
        await client.tokenize(pb.TokenizeRequest(inputs=["a"], prompt_name="none such"))
    assert (caught.value.kind, caught.value.field) == (ErrorKind.INVALID_INPUT, "prompt_name")
