"""The settings of a checkpoint's tokenizer: its class, special tokens, flags, and the version of transformers.

Read once by `tokenizer_svc.text.loading.fast_tokenizer`, and used by all files of this package.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from heddle.checkpoint.json_files import get_field, read_json_if_exists
from heddle.checkpoint.tokenizer_files import is_from_transformers_5
from tokenizer_svc.text.loading.classes import CLASS_OF_MODEL_TYPE, CLASSES, NAMES, PLAIN, TokenizerClass

log = logging.getLogger(__name__)

SETTINGS = "tokenizer_config.json"

# For these model types, AutoTokenizer of transformers 5 ignores the stated class and uses tokenizer.json as it is.
PLAIN_IN_TRANSFORMERS_5 = frozenset({"modernbert", "modernbert-decoder"})


@dataclass(frozen=True)
class TokenizerFolder:
    path: Path
    config: Mapping[str, Any]  # config.json
    settings: Mapping[str, Any]  # tokenizer_config.json

    @classmethod
    def read(cls, path: Path, config: Mapping[str, Any]) -> "TokenizerFolder":
        return cls(path, config, read_json_if_exists(path / SETTINGS))

    @cached_property
    def class_name(self) -> str:
        """The name without "Fast" at its end; "" if neither a file nor the type of the model tells it."""
        stated = get_field(self.settings, "tokenizer_class", str, self.path / SETTINGS) or get_field(
            self.config, "tokenizer_class", str, self.path / "config.json"
        )
        return (stated or CLASS_OF_MODEL_TYPE.get(str(self.config.get("model_type")), "")).removesuffix("Fast")

    @cached_property
    def tokenizer_class(self) -> TokenizerClass:
        if self.is_from_transformers_5 and self.config.get("model_type") in PLAIN_IN_TRANSFORMERS_5:
            return PLAIN
        return CLASSES.get(self.class_name, PLAIN)

    @cached_property
    def is_from_transformers_5(self) -> bool:
        return is_from_transformers_5(self.config, self.settings)

    def log_version(self, effect: str) -> None:
        """Logs a setting for which the other major version of transformers would give other ids."""
        version = 5 if self.is_from_transformers_5 else 4
        log.info("%s: %s, as in transformers %d, which wrote the checkpoint", self.path, effect, version)

    def flag(self, name: str, default: bool) -> bool:
        return get_field(self.settings, name, bool, self.path / SETTINGS, default)

    def optional_flag(self, name: str) -> bool | None:
        return get_field(self.settings, name, bool, self.path / SETTINGS)

    @cached_property
    def special_tokens(self) -> Mapping[str, Any]:
        """Special tokens by name, such as `cls_token`, as they are written: a string, an object or null. As in
        transformers, special_tokens_map.json takes precedence, but is ignored if the settings list added tokens."""
        stated: dict[str, Any] = {**self.tokenizer_class.specials, **self.settings, **self.special_tokens_map}
        return {name: stated[name] for name in NAMES if name in stated}

    @cached_property
    def special_tokens_map(self) -> Mapping[str, Any]:
        if "added_tokens_decoder" in self.settings:
            return {}
        return read_json_if_exists(self.path / "special_tokens_map.json")

    def special_token(self, name: str) -> str:
        """The spelling of the token; "" if there is none."""
        return content_of(self.special_tokens.get(name))


def content_of(token: Any) -> str:
    """The spelling of a token that is written as a string or as an object."""
    return str((token.get("content") if isinstance(token, dict) else token) or "")
