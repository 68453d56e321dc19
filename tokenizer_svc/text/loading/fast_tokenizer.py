"""Loads the fast tokenizer of a checkpoint: reads tokenizer.json, or builds one, and applies the other settings.

`Tokenizer.load` calls it. The ids are those of transformers' AutoTokenizer. Where versions 4 and 5 differ, the version
that wrote the checkpoint decides. No code of a checkpoint is run.
"""

from dataclasses import dataclass
from pathlib import Path

import tokenizers

from heddle.checkpoint import Checkpoint
from heddle.checkpoint.json_files import CheckpointError
from heddle.checkpoint.tokenizer_files import TOKENIZER_FILE
from tokenizer_svc.text.loading.added_tokens import add_stated_tokens
from tokenizer_svc.text.loading.folder import SETTINGS, TokenizerFolder
from tokenizer_svc.text.loading.framing import EndToken, frame
from tokenizer_svc.text.loading.normalizing import apply_bert_settings, apply_prefix_setting
from tokenizer_svc.text.loading.vocabulary import build_tokenizer
from tokenizer_svc.text.truncation import Truncation

SIDES = {"right": Truncation.RIGHT, "left": Truncation.LEFT}


@dataclass(frozen=True, slots=True)
class FastTokenizer:
    library: tokenizers.Tokenizer
    truncation_side: Truncation  # the default for inputs that are too long


def load_fast_tokenizer(checkpoint: Checkpoint, end_token: EndToken = "auto") -> FastTokenizer:
    """Raises CheckpointError for files that are missing or broken, and for an unknown tokenizer class without
    tokenizer.json."""
    folder = TokenizerFolder.read(checkpoint.folder, checkpoint.config)
    path = folder.path / TOKENIZER_FILE
    tokenizer = read_tokenizer(path) if path.is_file() else build_tokenizer(folder)
    try:
        apply_bert_settings(tokenizer, folder)
        apply_prefix_setting(tokenizer, folder)
        add_stated_tokens(tokenizer, folder, checkpoint.vocabulary_size)
        # With True, special tokens inside a text are read as plain text.
        tokenizer.encode_special_tokens = folder.flag("split_special_tokens", default=False)
        frame(tokenizer, folder, checkpoint, end_token)
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(f"{path if path.is_file() else folder.path} cannot be used: {error}") from error
    return FastTokenizer(tokenizer, truncation_side_of(folder, tokenizer))


def read_tokenizer(path: Path) -> tokenizers.Tokenizer:
    try:
        return tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises Exception itself
        raise CheckpointError(f"{path} cannot be used: {error}") from error


def truncation_side_of(folder: TokenizerFolder, tokenizer: tokenizers.Tokenizer) -> Truncation:
    """The side of tokenizer_config.json, else that of the truncation which tokenizer.json was saved with."""
    stated = folder.settings.get("truncation_side")
    if stated is None:
        stated = (tokenizer.truncation or {}).get("direction", "right")
    if stated not in SIDES:
        raise CheckpointError(f"{folder.path / SETTINGS}: truncation_side {stated!r} is neither right nor left")
    return SIDES[stated]
