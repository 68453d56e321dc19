"""What a checkpoint states about its tokenizer: its class, special tokens, flags, and the version of transformers.

`fast_tokenizer` reads it once; all files of this package use it.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from heddle.checkpoint.json_files import CheckpointError, get_field, read_json_if_exists
from heddle.checkpoint.tokenizer_files import PLAIN_TOKENIZER, is_from_transformers_5
from tokenizer_svc.text.truncation import Truncation

log = logging.getLogger(__name__)

CONFIG_FILE = "tokenizer_config.json"
SPECIAL_TOKENS_FILE = "special_tokens_map.json"
SIDES = {"right": Truncation.RIGHT, "left": Truncation.LEFT}

# wordpiece: vocab.txt. byte_level: vocab.json and merges.txt. sentencepiece: a .model file.
Build = Literal["wordpiece", "byte_level", "sentencepiece"]

NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


@dataclass(frozen=True, slots=True)
class TokenizerClass:
    """The properties of a tokenizer class of transformers."""

    build: Build | None = None  # None: it can only be read from tokenizer.json
    specials: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    additional: tuple[str, ...] = ()  # further special tokens, if the settings name none
    mask_takes_space: bool = False  # the mask token includes the space before it
    has_bert_settings: bool = False  # do_lower_case, strip_accents and tokenize_chinese_chars decide the normalizer
    has_prefix_setting: bool = False  # add_prefix_space decides the pre-tokenizer
    has_bos_eos_settings: bool = False  # add_bos_token and add_eos_token decide the special tokens around a text


def special_tokens(*tokens: str) -> Mapping[str, str]:
    """Special tokens by name, given in the order of NAMES; "" for none."""
    return MappingProxyType({name: token for name, token in zip(NAMES, tokens, strict=True) if token})


PLAIN = TokenizerClass()

BERT = TokenizerClass(
    "wordpiece", special_tokens("", "", "[UNK]", "[SEP]", "[PAD]", "[CLS]", "[MASK]"), has_bert_settings=True
)
MPNET = TokenizerClass(
    "wordpiece",
    special_tokens("<s>", "</s>", "[UNK]", "</s>", "<pad>", "<s>", "<mask>"),
    mask_takes_space=True,
    has_bert_settings=True,
)

FAIRSEQ = special_tokens("<s>", "</s>", "<unk>", "</s>", "<pad>", "<s>", "<mask>")
ROBERTA = TokenizerClass("byte_level", FAIRSEQ, mask_takes_space=True, has_prefix_setting=True)
XLM_ROBERTA = TokenizerClass("sentencepiece", FAIRSEQ, mask_takes_space=True)
CAMEMBERT = TokenizerClass(
    "sentencepiece", FAIRSEQ, additional=("<s>NOTUSED", "</s>NOTUSED", "<unk>NOTUSED"), mask_takes_space=True
)

ALBERT = TokenizerClass(
    "sentencepiece",
    special_tokens("[CLS]", "[SEP]", "<unk>", "[SEP]", "<pad>", "[CLS]", "[MASK]"),
    mask_takes_space=True,
)
DEBERTA_V2 = TokenizerClass(
    "sentencepiece", special_tokens("[CLS]", "[SEP]", "[UNK]", "[SEP]", "[PAD]", "[CLS]", "[MASK]")
)
T5 = TokenizerClass("sentencepiece", special_tokens("", "</s>", "<unk>", "", "<pad>", "", ""))

LLAMA = TokenizerClass(
    "sentencepiece", special_tokens("<s>", "</s>", "<unk>", "", "", "", ""), has_bos_eos_settings=True
)
GEMMA = TokenizerClass(
    "sentencepiece", special_tokens("<bos>", "<eos>", "<unk>", "", "<pad>", "", ""), has_bos_eos_settings=True
)

END_OF_TEXT = "<|endoftext|>"
GPT2 = TokenizerClass(
    "byte_level", special_tokens(END_OF_TEXT, END_OF_TEXT, END_OF_TEXT, "", "", "", ""), has_prefix_setting=True
)
QWEN2 = TokenizerClass("byte_level", special_tokens("", END_OF_TEXT, END_OF_TEXT, "", END_OF_TEXT, "", ""))

CLASSES: Mapping[str, TokenizerClass] = {
    "AlbertTokenizer": ALBERT,
    "BertTokenizer": BERT,
    "CamembertTokenizer": CAMEMBERT,
    "DebertaV2Tokenizer": DEBERTA_V2,
    "DistilBertTokenizer": BERT,
    "ElectraTokenizer": BERT,
    "GPT2Tokenizer": GPT2,
    "GemmaTokenizer": GEMMA,
    "LlamaTokenizer": LLAMA,
    "MPNetTokenizer": MPNET,
    "MobileBertTokenizer": BERT,
    "Qwen2Tokenizer": QWEN2,
    "RobertaTokenizer": ROBERTA,
    "T5Tokenizer": T5,
    "XLMRobertaTokenizer": XLM_ROBERTA,
}

# By the model_type of config.json, for checkpoints in which no file names a class.
CLASS_OF_MODEL_TYPE: Mapping[str, str] = {
    "albert": "AlbertTokenizer",
    "bert": "BertTokenizer",
    "camembert": "CamembertTokenizer",
    "deberta-v2": "DebertaV2Tokenizer",
    "distilbert": "DistilBertTokenizer",
    "electra": "ElectraTokenizer",
    "gemma": "GemmaTokenizer",
    "gemma2": "GemmaTokenizer",
    "gemma3_text": "GemmaTokenizer",
    "gpt2": "GPT2Tokenizer",
    "llama": "LlamaTokenizer",
    "mistral": "LlamaTokenizer",
    "mpnet": "MPNetTokenizer",
    "nomic_bert": "BertTokenizer",
    "qwen2": "Qwen2Tokenizer",
    "qwen3": "Qwen2Tokenizer",
    "roberta": "RobertaTokenizer",
    "t5": "T5Tokenizer",
    "xlm-roberta": "XLMRobertaTokenizer",
}

# For these model types, AutoTokenizer of transformers 5 ignores the stated class and uses tokenizer.json as it is.
PLAIN_IN_TRANSFORMERS_5 = frozenset({"modernbert", "modernbert-decoder"})


@dataclass(frozen=True)
class TokenizerConfig:
    folder: Path
    model_config: Mapping[str, Any]  # config.json
    settings: Mapping[str, Any]  # tokenizer_config.json

    @classmethod
    def read(cls, folder: Path, model_config: Mapping[str, Any]) -> "TokenizerConfig":
        return cls(folder, model_config, read_json_if_exists(folder / CONFIG_FILE))

    @cached_property
    def class_name(self) -> str:
        """The name without "Fast" at its end; "" if neither a file nor the type of the model states it."""
        stated = self.read_field("tokenizer_class", str) or get_field(
            self.model_config, "tokenizer_class", str, self.folder / "config.json"
        )
        return (stated or CLASS_OF_MODEL_TYPE.get(str(self.model_config.get("model_type")), "")).removesuffix("Fast")

    @cached_property
    def tokenizer_class(self) -> TokenizerClass:
        if self.is_from_transformers_5 and self.model_config.get("model_type") in PLAIN_IN_TRANSFORMERS_5:
            return PLAIN
        return CLASSES.get(self.class_name, PLAIN)

    @cached_property
    def is_from_transformers_5(self) -> bool:
        return is_from_transformers_5(self.model_config, self.settings)

    def log_version(self, effect: str) -> None:
        """Logs a setting for which the other major version of transformers would give other ids."""
        version = 5 if self.is_from_transformers_5 else 4
        log.info("%s: %s, as in transformers %d, which wrote the checkpoint", self.folder, effect, version)

    def read_field(self, name: str, kind: type[Any], default: Any = None) -> Any:
        """Raises CheckpointError for a value of another type."""
        return get_field(self.settings, name, kind, self.folder / CONFIG_FILE, default)

    def flag(self, name: str, default: bool) -> bool:
        return bool(self.read_field(name, bool, default))

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
        return read_json_if_exists(self.folder / SPECIAL_TOKENS_FILE)

    def special_token(self, name: str) -> str:
        """The spelling of the token; "" if there is none."""
        return read_spelling(self.special_tokens.get(name))

    @property
    def unknown_token(self) -> str:
        """The unknown token that a file states; "" if none does."""
        for settings in (self.settings, read_json_if_exists(self.folder / SPECIAL_TOKENS_FILE)):
            token = settings.get("unk_token")
            spelling = token.get("content") if isinstance(token, dict) else token
            if isinstance(spelling, str):
                return spelling
        return ""

    @property
    def gives_type_ids(self) -> bool:
        """Whether the model gets the token type ids that its tokenizer.json has for pairs. Version 5 of transformers
        gives its plain tokenizer none by default."""
        names = self.settings.get("model_input_names")
        if isinstance(names, list):
            return "token_type_ids" in names
        return bool(self.settings.get("tokenizer_class") != PLAIN_TOKENIZER)

    def truncation_side(self, saved: str) -> Truncation:
        """`saved` is the side of the truncation that tokenizer.json was saved with; the settings go before it."""
        stated = self.settings.get("truncation_side")
        side = saved if stated is None else stated
        if not isinstance(side, str) or side not in SIDES:
            path = self.folder / CONFIG_FILE
            raise CheckpointError(f"{path}: truncation_side {side!r} is neither right nor left")
        return SIDES[side]


def read_spelling(token: Any) -> str:
    """The spelling of a token that is written as a string or as an object."""
    return str((token.get("content") if isinstance(token, dict) else token) or "")
