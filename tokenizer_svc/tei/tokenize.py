"""tei.v1.Tokenize: texts to tokens and back, without an engine.

It asks the tokenizer itself: TEI tells where a token lies in the prompt and the text together, heddle.v1 only where it
lies in the text.
"""

import functools
import json
from collections.abc import AsyncIterator

from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.tei.v1 import tei_pb2, tei_pb2_grpc
from tokenizer_svc.encoder import Encoder
from tokenizer_svc.tasks.tokens import check_sizes
from tokenizer_svc.tei.call import Call, Context
from tokenizer_svc.tei.calls import Calls
from tokenizer_svc.text.sequence import Token, pack_ids
from tokenizer_svc.text.tokenization import Tokenizer


class TokenizeServicer(tei_pb2_grpc.TokenizeServicer):
    def __init__(self, calls: Calls, tokenizer: Tokenizer, encoder: Encoder, bytes_max: int) -> None:
        """`bytes_max` bounds a request's text or ids: all of it is worked on, nothing is cut off."""
        self._calls = calls
        self._tokenizer = tokenizer
        self._encoder = encoder
        self._bytes_max = bytes_max

    async def Tokenize(self, request: tei_pb2.EncodeRequest, context: Context) -> tei_pb2.EncodeResponse:
        return await self._tokens(request)

    async def TokenizeStream(  # type: ignore[override]  # writes to the context
        self, request_iterator: AsyncIterator[tei_pb2.EncodeRequest], context: Context
    ) -> None:
        async def answer(_: Call, request: tei_pb2.EncodeRequest) -> tei_pb2.EncodeResponse:
            return await self._tokens(request)

        await self._calls.stream(answer, request_iterator, context)

    async def Decode(self, request: tei_pb2.DecodeRequest, context: Context) -> tei_pb2.DecodeResponse:
        return await self._text(request)

    async def DecodeStream(  # type: ignore[override]  # writes to the context
        self, request_iterator: AsyncIterator[tei_pb2.DecodeRequest], context: Context
    ) -> None:
        async def answer(_: Call, request: tei_pb2.DecodeRequest) -> tei_pb2.DecodeResponse:
            return await self._text(request)

        await self._calls.stream(answer, request_iterator, context)

    async def _tokens(self, request: tei_pb2.EncodeRequest) -> tei_pb2.EncodeResponse:
        text = self._prompt(request.prompt_name) + request.inputs
        (size,) = check_sizes([text], self._bytes_max, "inputs")
        skip_special_tokens = not request.add_special_tokens
        tokenize = functools.partial(self._tokenizer.tokenize, text, skip_special_tokens=skip_special_tokens)
        return tei_pb2.EncodeResponse(tokens=map(simple, await self._encoder.run(tokenize, size)))

    async def _text(self, request: tei_pb2.DecodeRequest) -> tei_pb2.DecodeResponse:
        token_ids = pack_ids(list(request.ids))
        (size,) = check_sizes([token_ids], self._bytes_max, "ids")
        keep_special_tokens = not request.skip_special_tokens
        decode = functools.partial(self._tokenizer.decode, token_ids, keep_special_tokens=keep_special_tokens)
        return tei_pb2.DecodeResponse(text=await self._encoder.run(decode, size))

    def _prompt(self, name: str) -> str:
        """Raises INVALID_INPUT in the form that clients read the names of prompts from: Info does not tell them."""
        if name and name not in self._tokenizer.prompts:
            known = json.dumps(sorted(self._tokenizer.prompts))
            message = f"the model has no prompt named {name!r}. Available prompts: {known}"
            raise HeddleError(ErrorKind.INVALID_INPUT, message, field="prompt_name")
        return self._tokenizer.options(prompt_name=name).prompt


def simple(token: Token) -> tei_pb2.SimpleToken:
    """Special tokens lie nowhere in the text."""
    if token.special:
        return tei_pb2.SimpleToken(id=token.id, text=token.text, special=True)
    return tei_pb2.SimpleToken(id=token.id, text=token.text, start=token.start_byte, stop=token.end_byte)
