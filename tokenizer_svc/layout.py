"""Where the tokens of a sequence lie in its text. `tokenizer_svc.tokenization` asks, for requests that label tokens."""

import tokenizers

from tokenizer_svc.sequence import TextLayout


def layout_of_text(encoding: tokenizers.Encoding, skipped: int) -> TextLayout:
    """`skipped` characters before what was encoded were cut off."""
    specials = encoding.special_tokens_mask
    offsets = [
        (0, 0) if special else (start + skipped, end + skipped)
        for (start, end), special in zip(encoding.offsets, specials, strict=True)
    ]
    return TextLayout(offsets, specials, encoding.tokens)


def layout_without_text(token_ids: bytes, tokenizer: tokenizers.Tokenizer) -> TextLayout:
    """All tokens are like special ones: they lie nowhere, and the vocabulary spells them."""
    ids = memoryview(token_ids).cast("I")
    spellings = [tokenizer.id_to_token(token_id) or "" for token_id in ids]
    return TextLayout([(0, 0)] * len(ids), [1] * len(ids), spellings)
