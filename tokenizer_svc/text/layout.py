"""Finds the place of each token in its text. `tokenization` calls it for requests that label tokens."""

import tokenizers

from tokenizer_svc.text.sequence import TextLayout


def layout_of_text(encoding: tokenizers.Encoding, skipped: int) -> TextLayout:
    """`skipped` is the number of characters that were cut off before the encoded text."""
    specials = encoding.special_tokens_mask
    offsets = [
        (0, 0) if special else (start + skipped, end + skipped)
        for (start, end), special in zip(encoding.offsets, specials, strict=True)
    ]
    return TextLayout(offsets, specials, encoding.tokens)


def layout_without_text(token_ids: bytes, tokenizer: tokenizers.Tokenizer) -> TextLayout:
    """Treats all tokens like special ones: they have no place in a text, and are spelled as in the vocabulary."""
    ids = memoryview(token_ids).cast("I")
    spellings = [tokenizer.id_to_token(token_id) or "" for token_id in ids]
    return TextLayout([(0, 0)] * len(ids), [1] * len(ids), spellings)
