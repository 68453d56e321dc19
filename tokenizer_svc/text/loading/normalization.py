"""Applies the settings of tokenizer_config.json for letters and spaces, which override tokenizer.json.

transformers reads them in the constructors of its classes. They differ from tokenizer.json if somebody edited one of
the two files.
"""

import json

import tokenizers
from tokenizers.normalizers import BertNormalizer, Lowercase, Sequence
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.processors import RobertaProcessing

from tokenizer_svc.text.loading.tokenizer_config import MPNET, TokenizerConfig


def apply_bert_settings(tokenizer: tokenizers.Tokenizer, config: TokenizerConfig) -> None:
    """Applies the settings for case, accents and Chinese characters. transformers 4 changes a BertNormalizer and leaves
    other normalizers alone; transformers 5 replaces any normalizer of tokenizer.json with a BertNormalizer."""
    if not config.tokenizer_class.has_bert_settings:
        return
    if not isinstance(tokenizer.normalizer, BertNormalizer):
        verb = "replaces" if config.is_from_transformers_5 else "leaves alone"
        config.log_version(f"{config.class_name} {verb} the normalizer of tokenizer.json")
    if config.is_from_transformers_5:
        tokenizer.normalizer = build_bert_normalizer(config)
    elif isinstance(tokenizer.normalizer, BertNormalizer):
        before, after = tokenizer.normalizer, build_bert_normalizer(config)
        after.clean_text = before.clean_text
        if config.tokenizer_class is MPNET:  # version 4 ignores tokenize_chinese_chars here
            after.handle_chinese_chars = before.handle_chinese_chars
        tokenizer.normalizer = after


def build_bert_normalizer(config: TokenizerConfig) -> BertNormalizer:
    return BertNormalizer(
        clean_text=True,
        handle_chinese_chars=config.flag("tokenize_chinese_chars", default=True),
        strip_accents=config.read_field("strip_accents", bool),
        lowercase=config.flag("do_lower_case", default=True),
    )


def add_lower_case(tokenizer: tokenizers.Tokenizer) -> None:
    """Lower-cases texts before all other normalization, as sentence-transformers does it."""
    normalizer = tokenizer.normalizer
    if isinstance(normalizer, Sequence):
        steps = [normalizer[index] for index in range(len(normalizer))]
    else:
        steps = [normalizer] if normalizer else []
    if not any(isinstance(step, Lowercase) for step in steps):
        tokenizer.normalizer = Sequence([Lowercase(), *steps])


def apply_prefix_setting(tokenizer: tokenizers.Tokenizer, config: TokenizerConfig) -> None:
    """Applies add_prefix_space: whether a text is read as if a space came before it. Byte-level BPE classes always use
    the setting; for other classes, only transformers 4 does, and only if it is stated."""
    pre_tokenizer = tokenizer.pre_tokenizer
    if not isinstance(pre_tokenizer, ByteLevel):
        return
    by_class = config.tokenizer_class.has_prefix_setting
    adds_prefix = config.flag("add_prefix_space", default=False if by_class else pre_tokenizer.add_prefix_space)
    if pre_tokenizer.add_prefix_space == adds_prefix:
        return
    if not by_class:
        config.log_version(f"add_prefix_space is {'ignored' if config.is_from_transformers_5 else 'applied'}")
        if config.is_from_transformers_5:
            return
    pre_tokenizer.add_prefix_space = adds_prefix
    tokenizer.pre_tokenizer = pre_tokenizer
    processor = tokenizer.post_processor
    if isinstance(processor, RobertaProcessing):
        # add_prefix_space here decides where the first token starts in the text.
        state = json.loads(processor.__getstate__())
        tokenizer.post_processor = RobertaProcessing(
            tuple(state["sep"]), tuple(state["cls"]), state["trim_offsets"], adds_prefix
        )
