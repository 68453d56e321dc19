"""Sets the tokens around every text, if a checkpoint's settings or code differ from its tokenizer.json.

Code that comes with a checkpoint is never run: this file does what the code is known to do.

| tokenizer_config.json, config.json | tokens around a text |
|---|---|
| the class of Llama or Gemma, of transformers 4 | as `add_bos_token` (true by default) and `add_eos_token` say |
| `add_eos_token` true, and last-token pooling | those of tokenizer.json, and the end token |
| `add_eos_token` true, and a tokenizer class in the checkpoint's code | the same |
| Alibaba's modeling_qwen.Qwen2Model (GTE-Qwen2) | the same |
| all others, including the rest of transformers 5 | those of tokenizer.json |

The second line holds for both versions of transformers, though version 5 ignores `add_eos_token` if there is a
tokenizer.json: e5-mistral, SFR and Linq were trained to pool a text's end token and fail without it.
"""

import json
import logging
from typing import Any, Literal

import tokenizers
from tokenizers.processors import Sequence, TemplateProcessing

from heddle.checkpoint import Checkpoint
from heddle.checkpoint.causality import BIDIRECTIONAL_CODE, get_remote_code
from heddle.checkpoint.json_files import CheckpointError
from heddle.checkpoint.sentence_modules import Pooling
from tokenizer_svc.text.loading.tokenizer_config import END_OF_TEXT, TokenizerConfig

log = logging.getLogger(__name__)

# The JSON of post-processors, as the tokenizers library writes it.
TEMPLATE = "TemplateProcessing"
FIRST: dict[str, Any] = {"Sequence": {"id": "A", "type_id": 0}}
SECOND: dict[str, Any] = {"Sequence": {"id": "B", "type_id": 1}}

# See TokenizerSettings.end_token.
EndToken = Literal["auto", "append", "file"]


def set_post_processor(
    tokenizer: tokenizers.Tokenizer, config: TokenizerConfig, checkpoint: Checkpoint, end_token: EndToken
) -> None:
    """Raises CheckpointError if the vocabulary has no end token, or it cannot be added."""
    if end_token == "file":
        return
    if config.tokenizer_class.has_bos_eos_settings and not config.is_from_transformers_5:
        apply_bos_eos_settings(tokenizer, config)
    if end_token == "append" or needs_end_token(config, checkpoint):
        append_end_token(tokenizer, config)


def needs_end_token(config: TokenizerConfig, checkpoint: Checkpoint) -> bool:
    if get_remote_code(checkpoint.config) == BIDIRECTIONAL_CODE:
        return True
    auto_map = config.settings.get("auto_map")
    has_code = bool(auto_map.get("AutoTokenizer")) if isinstance(auto_map, dict) else bool(auto_map)
    pools_last = Pooling.LAST_TOKEN in checkpoint.pooling
    return (has_code or pools_last) and config.flag("add_eos_token", default=False)


def apply_bos_eos_settings(tokenizer: tokenizers.Tokenizer, config: TokenizerConfig) -> None:
    """Does what transformers 4 does, which ignores the special tokens that tokenizer.json puts around a text."""
    # add_bos_token is true if it is missing, but false if it is null.
    begins = config.flag("add_bos_token", default="add_bos_token" not in config.settings)
    lead = [config.special_token("bos_token")] if begins else []
    trail = [config.special_token("eos_token")] if config.flag("add_eos_token", default=False) else []
    ids = {token: tokenizer.token_to_id(token) for token in (*lead, *trail)}
    if None in ids.values():
        return  # transformers 4 would fail; keep what tokenizer.json adds
    before = tokenizer.encode("a").ids
    tokenizer.post_processor = TemplateProcessing(
        single=[*lead, "$A", *trail],
        pair=[*lead, "$A", *trail, *(f"{token}:1" for token in lead), "$B:1", *(f"{token}:1" for token in trail)],
        special_tokens=list(ids.items()),
    )
    if tokenizer.encode("a").ids != before:
        config.log_version("add_bos_token and add_eos_token decide how texts begin and end, not tokenizer.json")


def append_end_token(tokenizer: tokenizers.Tokenizer, config: TokenizerConfig) -> None:
    end = config.special_token("eos_token") or END_OF_TEXT
    token_id = tokenizer.token_to_id(end)
    if token_id is None:
        raise CheckpointError(
            f"{config.folder}: the vocabulary has no token {end!r} to end texts; set end_token to file"
        )
    if tokenizer.encode("a").ids[-1:] == [token_id]:
        return
    processor = tokenizer.post_processor
    steps = [] if processor is None else flatten(json.loads(processor.__getstate__()))
    others = {step["type"] for step in steps} - {"ByteLevel", TEMPLATE}
    if others:
        raise CheckpointError(f"{config.folder}: no end token can follow a {others.pop()}; set end_token to file")
    if not any(step["type"] == TEMPLATE for step in steps):
        steps.append({"type": TEMPLATE, "single": [FIRST], "pair": [FIRST, SECOND], "special_tokens": {}})
    changed = [add_end_token(step, end, token_id) if step["type"] == TEMPLATE else step for step in steps]
    processor = Sequence([])
    processor.__setstate__(json.dumps({"type": "Sequence", "processors": changed}).encode())
    tokenizer.post_processor = processor
    log.info("%s: each text ends with %s, which tokenizer.json alone would not add", config.folder, end)


def flatten(processor: dict[str, Any]) -> list[dict[str, Any]]:
    if processor["type"] != "Sequence":
        return [processor]
    return [inner for step in processor["processors"] for inner in flatten(step)]


def add_end_token(template: dict[str, Any], end: str, token_id: int) -> dict[str, Any]:
    """Adds the end token after the first text of a pair, and at the end of each sequence."""

    def end_like(piece: dict[str, Any]) -> dict[str, Any]:
        [content] = piece.values()
        return {"SpecialToken": {"id": end, "type_id": content["type_id"]}}

    single, pair = template["single"], template["pair"]
    first_ends = next(index for index, piece in enumerate(pair) if piece.get("Sequence", {}).get("id") == "A") + 1
    known = {**template["special_tokens"], end: {"id": end, "ids": [token_id], "tokens": [end]}}
    return {
        "type": TEMPLATE,
        "single": [*single, end_like(single[-1])],
        "pair": [*pair[:first_ends], end_like(pair[first_ends - 1]), *pair[first_ends:], end_like(pair[-1])],
        "special_tokens": known,
    }
