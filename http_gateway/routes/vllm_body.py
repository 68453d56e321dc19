"""What the routes that vLLM's callers look for have in common: /score, /classify and /pooling.

https://docs.vllm.ai/en/latest/models/pooling_models/
"""

import time
from typing import Annotated, Any, Literal

from heddle.v1 import item_pb2
from http_gateway.message import Request
from http_gateway.routes.inputs import TEIBody
from http_gateway.supported import agreed, only


class VLLMBody(TEIBody, kw_only=True):
    """vLLM's fields that change the answer; other unknown ones are ignored."""

    user: str | None = None  # users take turns at the engines
    use_activation: bool | None = None  # true when absent
    activation: bool | None = None  # what use_activation was called before
    softmax: bool | None = None  # … and before that, where texts are classified
    normalize: bool | None = None  # … and where they are embedded
    padding: Literal["do_not_pad"] | None = None
    add_special_tokens: Annotated[
        bool | None, only(True, instead="texts get the special tokens that the model was trained with")
    ] = None
    mm_processor_kwargs: Annotated[dict[str, Any] | None, only({}, instead="only texts are taken")] = None

    @property
    def is_raw(self) -> bool:
        """Whether what the model computes is wanted without the last step: softmax, sigmoid or normalisation."""
        return agreed(self.activation_wishes()) is False

    def activation_wishes(self) -> dict[str, bool | None]:
        """What is said of that step, by field."""
        return {name: getattr(self, name) for name in ("use_activation", "activation", "softmax", "normalize")}


def answer_value(request: Request, model: str, data: Any, usage: item_pb2.Usage, kind: str = "list") -> dict[str, Any]:
    return {
        "id": request.id,
        "object": kind,
        "created": int(time.time()),
        "model": model,
        "data": data,
        "usage": {"prompt_tokens": usage.tokens, "total_tokens": usage.tokens},
    }
