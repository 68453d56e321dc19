"""Applies the settings of tokenizer_config.json for letters and spaces, which override tokenizer.json.

Called by `tokenizer_svc.text.loading.fast_tokenizer`. transformers reads them in the constructors of its classes. They
differ from tokenizer.json if somebody edited one of the two files.
"""

import json

import tokenizers
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.processors import RobertaProcessing

from tokenizer_svc.text.loading.classes import MPNET
from tokenizer_svc.text.loading.folder import TokenizerFolder


def apply_bert_settings(tokenizer: tokenizers.Tokenizer, folder: TokenizerFolder) -> None:
    """Applies the settings for case, accents and Chinese characters. transformers 4 changes a BertNormalizer and leaves
    other normalizers alone; transformers 5 replaces any normalizer of tokenizer.json with a BertNormalizer."""
    if not folder.tokenizer_class.has_bert_settings:
        return
    is_of_bert = isinstance(tokenizer.normalizer, BertNormalizer)
    if not is_of_bert:
        verb = "replaces" if folder.is_from_transformers_5 else "leaves alone"
        folder.log_version(f"{folder.class_name} {verb} the normalizer of tokenizer.json")
    if folder.is_from_transformers_5:
        tokenizer.normalizer = bert_normalizer(folder)
    elif isinstance(tokenizer.normalizer, BertNormalizer):
        before, after = tokenizer.normalizer, bert_normalizer(folder)
        after.clean_text = before.clean_text
        if folder.tokenizer_class is MPNET:  # version 4 ignores tokenize_chinese_chars here
            after.handle_chinese_chars = before.handle_chinese_chars
        tokenizer.normalizer = after


def bert_normalizer(folder: TokenizerFolder) -> BertNormalizer:
    return BertNormalizer(
        clean_text=True,
        handle_chinese_chars=folder.flag("tokenize_chinese_chars", default=True),
        strip_accents=folder.optional_flag("strip_accents"),
        lowercase=folder.flag("do_lower_case", default=True),
    )


def apply_prefix_setting(tokenizer: tokenizers.Tokenizer, folder: TokenizerFolder) -> None:
    """Applies add_prefix_space: whether a text is read as if a space came before it. Byte-level BPE classes always use
    the setting; for other classes, only transformers 4 does, and only if it is stated."""
    pre_tokenizer = tokenizer.pre_tokenizer
    if not isinstance(pre_tokenizer, ByteLevel):
        return
    by_class = folder.tokenizer_class.has_prefix_setting
    adds_prefix = folder.flag("add_prefix_space", default=False if by_class else pre_tokenizer.add_prefix_space)
    if pre_tokenizer.add_prefix_space == adds_prefix:
        return
    if not by_class:
        folder.log_version(f"add_prefix_space is {'ignored' if folder.is_from_transformers_5 else 'applied'}")
        if folder.is_from_transformers_5:
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
