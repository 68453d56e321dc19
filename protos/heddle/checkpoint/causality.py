"""Whether the tokens of a decoder attend only to the tokens before them, or to the whole text, as in many embedders.

The weights do not tell, and checkpoints state it in many ways. The first matching row decides:

| config.json | tokens attend to | found in |
|---|---|---|
| `is_causal` true or false | what it says | gte-Qwen2, GritLM, Giga-Embeddings; transformers since 5.2 |
| `use_bidirectional_attention` true | whole text | EmbeddingGemma |
| `model_type` llama_bidirec | whole text | llama-embed-nemotron, llama-nemotron-embed, llama-nemotron-rerank |
| a class Llama-, Mistral-, Qwen-, Gemma- followed by Bidirectional, Bi or Encoder | whole text | NeMo, LLM2Vec |
| `auto_map` to Alibaba's modeling_qwen.Qwen2Model | whole text | stella_en_1.5B, older gte-Qwen2 |
| anything else | tokens before | all others |

The class is one of `architectures`, or the AutoModel of `auto_map`. `checkpoint` derives the default pooling from this,
the engine the attention mask.
"""

import re
from collections.abc import Mapping
from typing import Any

BIDIRECTIONAL_CLASS = re.compile(r"(Llama|Mistral|Qwen\d*|Gemma\d*)(Bidirectional|Bi|Encoder)(Model|For[A-Z]\w*)")
BIDIRECTIONAL_CODE = "modeling_qwen.Qwen2Model"


def is_causal(config: Mapping[str, Any]) -> bool:
    """`config` is the config.json of a decoder."""
    stated = config.get("is_causal")
    if isinstance(stated, bool):
        return stated
    if config.get("use_bidirectional_attention") is True or config.get("model_type") == "llama_bidirec":
        return False
    remote_code = get_remote_code(config)
    classes = [*(config.get("architectures") or []), remote_code.rpartition(".")[2]]
    return remote_code != BIDIRECTIONAL_CODE and not any(BIDIRECTIONAL_CLASS.fullmatch(str(name)) for name in classes)


def get_remote_code(config: Mapping[str, Any]) -> str:
    """Returns file and class of the AutoModel in `auto_map`, without a repository; "" if there is none."""
    auto_map = config.get("auto_map")
    stated = auto_map.get("AutoModel") if isinstance(auto_map, dict) else None
    return str(stated or "").rpartition("--")[2]
