"""tei.v1.Tokenize: texts to tokens and back, without an engine.

It calls the tokenizer directly, because TEI reports the place of a token in prompt and text together, and heddle.v1 its
place in the text alone.
"""

import functools
import json

from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.tei.v1 import tei_pb2
from tokenizer_svc.encoder import Encoder
from tokenizer_svc.tasks.tokens import check_sizes
from tokenizer_svc.tei.calls import Call, Calls
from tokenizer_svc.text.sequences import Token, pack_ids
from tokenizer_svc.text.tokenizer import Tokenizer


class TokenizeServicer:
    def __init__(self, calls: Calls, tokenizer: Tokenizer, encoder: Encoder, bytes_max: int) -> None:
        """`bytes_max` limits the text or ids of a request, because nothing of them is cut off."""
        self._tokenizer = tokenizer
        self._encoder = encoder
        self._bytes_max = bytes_max
        self.Tokenize, self.TokenizeStream = calls.unary(self._tokenize), calls.stream(self._tokenize)
        self.Decode, self.DecodeStream = calls.unary(self._decode), calls.stream(self._decode)

    async def _tokenize(self, _: Call, request: tei_pb2.EncodeRequest) -> tei_pb2.EncodeResponse:
        text = self._find_prompt(request.prompt_name) + request.inputs
        (size,) = check_sizes([text], self._bytes_max, "inputs")
        skip_special_tokens = not request.add_special_tokens
        tokenize = functools.partial(self._tokenizer.tokenize, text, skip_special_tokens=skip_special_tokens)
        return tei_pb2.EncodeResponse(tokens=map(to_simple_token, await self._encoder.run(tokenize, size)))

    async def _decode(self, _: Call, request: tei_pb2.DecodeRequest) -> tei_pb2.DecodeResponse:
        token_ids = pack_ids(list(request.ids))
        (size,) = check_sizes([token_ids], self._bytes_max, "ids")
        keep_special_tokens = not request.skip_special_tokens
        decode = functools.partial(self._tokenizer.decode, token_ids, keep_special_tokens=keep_special_tokens)
        return tei_pb2.DecodeResponse(text=await self._encoder.run(decode, size))

    def _find_prompt(self, name: str) -> str:
        """Raises INVALID_INPUT in the form that clients parse the names of prompts from, as Info does not list them."""
        if name and name not in self._tokenizer.prompts:
            known = json.dumps(sorted(self._tokenizer.prompts))
            message = f"the model has no prompt named {name!r}. Available prompts: {known}"
            raise HeddleError(ErrorKind.INVALID_INPUT, message, field="prompt_name")
        return self._tokenizer.options(prompt_name=name).prompt


def to_simple_token(token: Token) -> tei_pb2.SimpleToken:
    """Special tokens have no place in the text."""
    if token.special:
        return tei_pb2.SimpleToken(id=token.id, text=token.text, special=True)
    return tei_pb2.SimpleToken(id=token.id, text=token.text, start=token.start_byte, stop=token.end_byte)
