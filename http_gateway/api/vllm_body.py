"""Request fields and answer that vLLM's routes /score, /classify and /pooling have in common.

https://docs.vllm.ai/en/latest/models/pooling_models/
"""

import time
from typing import Annotated, Any, Literal

from heddle.v1 import item_pb2
from http_gateway.api.inputs import TEIBody
from http_gateway.api.supported import merge_aliases, only
from http_gateway.web.message import Request


class VLLMBody(TEIBody, kw_only=True):
    """vLLM's fields that change the answer. Other fields are ignored."""

    user: str | None = None  # fair-share key; see http_gateway.callers
    use_activation: bool | None = None  # true when absent
    # Names that use_activation had in earlier versions of vLLM; the last two for classification and for embedding.
    activation: bool | None = None
    softmax: bool | None = None
    normalize: bool | None = None
    padding: Literal["do_not_pad"] | None = None
    add_special_tokens: Annotated[
        bool | None, only(True, instead="texts get the special tokens that the model was trained with")
    ] = None
    mm_processor_kwargs: Annotated[dict[str, Any] | None, only({}, instead="only texts are taken")] = None

    @property
    def is_raw(self) -> bool:
        """Whether the request asks for results without the final softmax, sigmoid or normalisation."""
        return merge_aliases(self.activation_aliases()) is False

    def activation_aliases(self) -> dict[str, bool | None]:
        """What the fields for that final step say, by name."""
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
