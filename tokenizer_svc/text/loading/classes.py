"""The tokenizer classes of transformers: the files that each is built from, and its default special tokens.

`tokenizer_svc.text.loading.folder` looks up the class of a checkpoint here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

# wordpiece: vocab.txt. byte_level: vocab.json and merges.txt. sentencepiece: a .model file.
Build = Literal["wordpiece", "byte_level", "sentencepiece"]

NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


@dataclass(frozen=True, slots=True)
class TokenizerClass:
    build: Build | None = None  # None: it can only be read from tokenizer.json
    specials: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    additional: tuple[str, ...] = ()  # further special tokens, if the settings name none
    mask_takes_space: bool = False  # the mask token includes the space before it
    has_bert_settings: bool = False  # do_lower_case, strip_accents and tokenize_chinese_chars decide the normalizer
    has_prefix_setting: bool = False  # add_prefix_space decides the pre-tokenizer
    frames_by_settings: bool = False  # add_bos_token and add_eos_token decide the special tokens around a text


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

LLAMA = TokenizerClass("sentencepiece", special_tokens("<s>", "</s>", "<unk>", "", "", "", ""), frames_by_settings=True)
GEMMA = TokenizerClass(
    "sentencepiece", special_tokens("<bos>", "<eos>", "<unk>", "", "<pad>", "", ""), frames_by_settings=True
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

# By config.json's model_type, for checkpoints in which no file names a class.
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
