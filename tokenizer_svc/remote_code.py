"""What the tokenizers of some checkpoints do in code of their own, beyond their tokenizer.json: done here instead.

Code that comes with a checkpoint is never executed. Called by `Tokenizer.load`.
"""

import tokenizers
from tokenizers.processors import Sequence, TemplateProcessing

from heddle.causality import BIDIRECTIONAL_CODE, remote_code_of
from heddle.checkpoint import Checkpoint
from heddle.checkpoint_files import CheckpointError, read_json_if_there


def add_end_token(tokenizer: tokenizers.Tokenizer, checkpoint: Checkpoint) -> None:
    """Alibaba's GTE-Qwen2 and what is made of it end every text with a token that their tokenizer.json leaves out.
    Raises CheckpointError where the vocabulary lacks it."""
    settings = read_json_if_there(checkpoint.folder / "tokenizer_config.json")
    has_code = bool((settings.get("auto_map") or {}).get("AutoTokenizer")) and settings.get("add_eos_token") is True
    if not has_code and remote_code_of(checkpoint.config) != BIDIRECTIONAL_CODE:
        return
    end = settings.get("eos_token") or "<|endoftext|>"
    end = end["content"] if isinstance(end, dict) else str(end)
    token_id = tokenizer.token_to_id(end)
    if token_id is None:
        raise CheckpointError(f"{checkpoint.folder / 'tokenizer.json'} has no token {end!r}, which is to end each text")
    if tokenizer.encode("a").ids[-1:] == [token_id]:
        return
    template = TemplateProcessing(single=f"$A {end}", pair=f"$A {end} $B:1 {end}:1", special_tokens=[(end, token_id)])
    tokenizer.post_processor = Sequence([step for step in (tokenizer.post_processor, template) if step is not None])
