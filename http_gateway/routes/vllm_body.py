"""What the routes that vLLM's callers look for have in common: /score, /classify and /pooling.

https://docs.vllm.ai/en/latest/models/pooling_models/
"""

import time
from typing import Any

from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.v1 import item_pb2
from http_gateway.message import Request
from http_gateway.routes.inputs import TEIBody


class VLLMBody(TEIBody, kw_only=True):
    use_activation: bool | None = None  # true when absent
    activation: bool | None = None  # what use_activation was called before
    softmax: bool | None = None  # … and before that, where texts are classified
    normalize: bool | None = None  # … and where they are embedded
    add_special_tokens: bool | None = None

    @property
    def is_raw(self) -> bool:
        """Whether what the model computes is wanted without the last step: softmax, sigmoid or normalisation."""
        return False in (self.use_activation, self.activation, self.softmax, self.normalize)

    def check(self) -> None:
        """Raises INVALID_INPUT for what cannot be honoured."""
        if self.add_special_tokens is False:
            message = "add_special_tokens: texts always get the special tokens that the model was trained with"
            raise HeddleError(ErrorKind.INVALID_INPUT, message, field="add_special_tokens")


def answer_value(request: Request, model: str, data: Any, usage: item_pb2.Usage, kind: str = "list") -> dict[str, Any]:
    return {
        "id": request.id,
        "object": kind,
        "created": int(time.time()),
        "model": model,
        "data": data,
        "usage": {"prompt_tokens": usage.tokens, "total_tokens": usage.tokens},
    }
