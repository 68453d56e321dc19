"""Whether a token of a decoder sees the tokens before it alone, or the whole text, as many embedders do.

Nothing in the weights tells, and checkpoints say it in many ways. The first line here that applies decides:

| config.json | then | found in |
|---|---|---|
| `is_causal` true or false | as it says | gte-Qwen2, GritLM, Giga-Embeddings; transformers from 5.2 on |
| `use_bidirectional_attention` true | whole text | EmbeddingGemma |
| `model_type` llama_bidirec | whole text | llama-embed-nemotron, llama-nemotron-embed, llama-nemotron-rerank |
| a class Llama-, Mistral-, Qwen-, Gemma- followed by Bidirectional, Bi or Encoder | whole text | NeMo, LLM2Vec |
| `auto_map` to Alibaba's modeling_qwen.Qwen2Model | whole text | stella_en_1.5B, gte-Qwen2 before it said so |
| none of these | what is before | all others |

A class is one of `architectures`, or what `auto_map` has for AutoModel. `checkpoint` asks here for the pooling,
the engine for whom a token attends to.
"""

import re
from collections.abc import Mapping
from typing import Any

BIDIRECTIONAL_CLASS = re.compile(r"(Llama|Mistral|Qwen\d*|Gemma\d*)(Bidirectional|Bi|Encoder)(Model|For[A-Z]\w*)")
BIDIRECTIONAL_CODE = "modeling_qwen.Qwen2Model"


def is_causal(config: Mapping[str, Any]) -> bool:
    """Of the config.json of a decoder."""
    stated = config.get("is_causal")
    if isinstance(stated, bool):
        return stated
    if config.get("use_bidirectional_attention") is True or config.get("model_type") == "llama_bidirec":
        return False
    remote_code = remote_code_of(config)
    classes = [*(config.get("architectures") or []), remote_code.rpartition(".")[2]]
    return remote_code != BIDIRECTIONAL_CODE and not any(BIDIRECTIONAL_CLASS.fullmatch(str(name)) for name in classes)


def remote_code_of(config: Mapping[str, Any]) -> str:
    """File and class that stand for AutoModel, without the repository that they may be in; "" for none."""
    auto_map = config.get("auto_map")
    stated = auto_map.get("AutoModel") if isinstance(auto_map, dict) else None
    return str(stated or "").rpartition("--")[2]
