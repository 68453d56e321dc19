"""Loads the fast tokenizer of a checkpoint: reads tokenizer.json, or builds one, and applies the other settings.

The ids are those of transformers' AutoTokenizer. Where versions 4 and 5 differ, the version that wrote the checkpoint
decides. No code of a checkpoint is run.
"""

from dataclasses import dataclass
from pathlib import Path

import tokenizers

from heddle.checkpoint import Checkpoint
from heddle.checkpoint.damaged_files import explain
from heddle.checkpoint.json_files import CheckpointError
from heddle.checkpoint.tokenizer_files import TOKENIZER_FILE
from tokenizer_svc.text.loading.added_tokens import add_stated_tokens
from tokenizer_svc.text.loading.normalization import add_lower_case, apply_bert_settings, apply_prefix_setting
from tokenizer_svc.text.loading.post_processor import EndToken, set_post_processor
from tokenizer_svc.text.loading.tokenizer_config import TokenizerConfig
from tokenizer_svc.text.loading.vocabulary import build_tokenizer
from tokenizer_svc.text.truncation import Truncation


@dataclass(frozen=True, slots=True)
class FastTokenizer:
    library: tokenizers.Tokenizer
    truncation_side: Truncation  # the default for inputs that are too long
    unknown_token: str  # the checkpoint's name for it; "" if it has none
    gives_type_ids: bool  # pairs get token type ids


def load_fast_tokenizer(checkpoint: Checkpoint, end_token: EndToken = "auto") -> FastTokenizer:
    """Raises CheckpointError for files that are missing or broken, and for an unknown tokenizer class without
    tokenizer.json."""
    config = TokenizerConfig.read(checkpoint.folder, checkpoint.config)
    path = config.folder / TOKENIZER_FILE
    library = read_tokenizer_file(path) if path.is_file() else build_tokenizer(config)
    try:
        apply_bert_settings(library, config)
        apply_prefix_setting(library, config)
        add_stated_tokens(library, config, checkpoint.vocabulary_size)
        # With True, special tokens inside a text are read as plain text.
        library.encode_special_tokens = config.flag("split_special_tokens", default=False)
        set_post_processor(library, config, checkpoint, end_token)
        if checkpoint.do_lower_case:
            add_lower_case(library)
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(f"{path if path.is_file() else config.folder} cannot be used: {error}") from error
    side = config.truncation_side(saved=(library.truncation or {}).get("direction", "right"))
    return FastTokenizer(library, side, config.unknown_token, config.gives_type_ids)


def read_tokenizer_file(path: Path) -> tokenizers.Tokenizer:
    try:
        return tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises Exception itself
        raise CheckpointError(f"{path} {explain(path) or f'cannot be used: {error}'}") from error
