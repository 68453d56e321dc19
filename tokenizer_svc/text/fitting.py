"""Cuts or refuses sequences that are longer than their limit.

`tokenization` calls it for everything that it has encoded. `tokens_max` is the smaller of the limits of
the request and of the model, special tokens included.
"""

import tokenizers

from heddle.rpc.errors import ErrorKind, HeddleError
from tokenizer_svc.text.framed import FramedTokens, Limits, Role
from tokenizer_svc.text.sequence import Options, Result, TokenSequence, pack_ids
from tokenizer_svc.text.template import Template
from tokenizer_svc.text.text_window import TextWindow
from tokenizer_svc.text.truncation import Truncation, no_room, too_large


def fit_text(sequence: TokenSequence, encoding: tokenizers.Encoding, window: TextWindow, template: Template) -> Result:
    """Fits the sequence of a text or a pair."""
    options, tokens_max = window.options, window.tokens_max
    side = options.truncation
    tokens = sequence.tokens
    is_long = window.is_cut or tokens > tokens_max
    # Counted only for a pair whose document has a limit of its own.
    document_tokens = encoding.sequence_ids.count(1) if options.document_tokens_max and window.is_pair else 0
    is_document_long = document_tokens > options.document_tokens_max > 0
    if not is_long and not is_document_long:
        sequence.prompt_tokens = min(options.prompt_tokens, tokens)
        return sequence
    if side is Truncation.REFUSE:
        if is_long:
            return too_large(tokens, tokens_max, is_cut=window.is_cut)
        return too_large(document_tokens, options.document_tokens_max, is_cut=False, thing="document")
    specials = sum(template.pair_specials) if window.is_pair else template.lead + template.trail
    if tokens_max <= specials:
        return no_room(tokens_max, specials)
    if window.is_pair:
        kept = template.kept_of_pair(encoding, tokens_max, side, options.document_tokens_max)
    else:
        kept = template.kept_of_single(tokens, tokens_max, side)
    return sequence.keep(kept, remaining_prompt_tokens(tokens, window, template))


def remaining_prompt_tokens(tokens: int, window: TextWindow, template: Template) -> int:
    """Tokens of the prompt that are left after truncation, which from the left cuts the prompt first."""
    prompt_tokens = window.options.prompt_tokens
    if not prompt_tokens:
        return 0
    if window.options.truncation is not Truncation.LEFT:
        return min(prompt_tokens, window.tokens_max - template.trail)
    gone = prompt_tokens if window.is_cut else tokens - window.tokens_max
    return max(template.lead, prompt_tokens - gone)


def fit_ids(token_ids: bytes, options: Options, template: Template, tokens_max: int) -> Result:
    """Fits token ids, which must be within the vocabulary."""
    tokens = len(token_ids) // 4
    if tokens == 0:
        return HeddleError(ErrorKind.EMPTY_INPUT, "there are no token ids")
    if tokens <= tokens_max:
        return TokenSequence(token_ids)
    if options.truncation is Truncation.REFUSE:
        return too_large(tokens, tokens_max, is_cut=False)
    if tokens_max <= template.lead + template.trail:
        return no_room(tokens_max, template.lead + template.trail)
    return TokenSequence(token_ids).keep(template.kept_of_ids(token_ids, tokens_max, options.truncation), 0)


def fit_framed(tokens: FramedTokens, limits: Limits, template: Template) -> Result:
    """Fits a prompt with query and document, and adds the special tokens of a single text around it."""
    ids = tokens.ids
    is_long = tokens.is_cut or len(ids) > limits.room
    document_tokens = tokens.roles.count(Role.DOCUMENT)
    is_document_long = document_tokens > limits.document_max > 0
    if limits.side is Truncation.REFUSE:
        if is_long:
            specials = template.lead + template.trail
            return too_large(len(ids) + specials, limits.room + specials, is_cut=tokens.is_cut)
        if is_document_long:
            return too_large(document_tokens, limits.document_max, is_cut=False, thing="document")
    if is_long or is_document_long:
        ids = tokens.kept(limits)
        if len(ids) > limits.room:
            message = f"the prompt around query and document alone is longer than {limits.room} tokens"
            return HeddleError(ErrorKind.TOO_LARGE, message)
    return TokenSequence(template.lead_ids + pack_ids(ids) + template.trail_ids, truncated=is_long or is_document_long)
