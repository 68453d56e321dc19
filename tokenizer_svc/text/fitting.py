"""Turns encoded inputs into results: checks their ids, and truncates or refuses those that are too long.

`Tokenizer` makes one `SequenceFitter`, which all encoders use.
"""

from dataclasses import dataclass
from typing import NamedTuple

import tokenizers

from heddle.rpc.errors import ErrorKind, HeddleError
from tokenizer_svc.text.inputs import Options, TokenizedInput
from tokenizer_svc.text.sequences import Result, TokenSequence, pack_type_ids
from tokenizer_svc.text.truncation import SpecialTokens, Truncation


class Length(NamedTuple):
    """How many tokens an input and its document have, and how many they may have."""

    tokens: int
    tokens_max: int
    document_tokens: int = 0
    document_tokens_max: int = 0  # 0 = no limit
    is_cut: bool = False  # the input has more tokens than were counted

    @property
    def is_too_long(self) -> bool:
        return self.is_cut or self.tokens > self.tokens_max or self.document_tokens > self.document_tokens_max > 0

    def too_large_error(self) -> HeddleError:
        """The error for an input that must not be truncated."""
        thing, tokens, limit = "input", self.tokens, self.tokens_max
        if not self.is_cut and tokens <= limit:
            thing, tokens, limit = "document", self.document_tokens, self.document_tokens_max
        if tokens <= limit:
            length = "far more characters than can be looked at"
        else:
            length = f"more than {tokens} tokens" if self.is_cut else f"{tokens} tokens"
        return HeddleError(ErrorKind.TOO_LARGE, f"the {thing} has {length}, the limit is {limit} tokens")


@dataclass(frozen=True, slots=True)
class SequenceFitter:
    special_tokens: SpecialTokens
    sequence_tokens_max: int  # the model's limit, special tokens included
    vocabulary_size: int  # of the model
    exceeds_vocabulary: bool  # the tokenizer has ids that the model does not have

    def fit_text(
        self,
        sequence: TokenSequence,
        encoding: tokenizers.Encoding,
        options: Options,
        *,
        is_pair: bool,
        is_cut: bool = False,
    ) -> Result:
        """Fits the sequence of a text or a pair. `is_cut`: the tokenizer saw only a part of it."""
        if not sequence.token_ids:
            return HeddleError(ErrorKind.EMPTY_INPUT, "the text has no tokens")
        if self.exceeds_vocabulary and (error := self.unknown_id_error(sequence.token_ids)):
            return error
        tokens, tokens_max, side = sequence.tokens, options.limit(self.sequence_tokens_max), options.truncation
        # Counted only for a pair whose document has a limit of its own.
        document_tokens = encoding.sequence_ids.count(1) if options.document_tokens_max and is_pair else 0
        length = Length(tokens, tokens_max, document_tokens, options.document_tokens_max, is_cut=is_cut)
        if not length.is_too_long:
            sequence.prompt_tokens = min(options.prompt_tokens, tokens)
            return sequence
        if side is Truncation.REFUSE:
            return length.too_large_error()
        specials = self.special_tokens.count(is_pair=is_pair)
        if tokens_max <= specials:
            return no_room_error(tokens_max, specials)
        if is_pair:
            spans = self.special_tokens.truncate_pair(encoding, tokens_max, side, options.document_tokens_max)
        else:
            spans = self.special_tokens.truncate_text(tokens, tokens_max, side)
        lost = options.prompt_tokens if is_cut else tokens - tokens_max
        return sequence.truncate(spans, self._remaining_prompt_tokens(options, tokens_max, lost))

    def fit_ids(self, token_ids: bytes, options: Options) -> Result:
        try:
            self.check_ids(token_ids)
        except HeddleError as error:
            return error
        if not token_ids:
            return HeddleError(ErrorKind.EMPTY_INPUT, "there are no token ids")
        tokens, tokens_max = len(token_ids) // 4, options.limit(self.sequence_tokens_max)
        if tokens <= tokens_max:
            return TokenSequence(token_ids)
        if options.truncation is Truncation.REFUSE:
            return Length(tokens, tokens_max).too_large_error()
        specials = self.special_tokens.count(is_pair=False)
        if tokens_max <= specials:
            return no_room_error(tokens_max, specials)
        spans = self.special_tokens.truncate_ids(token_ids, tokens_max, options.truncation)
        return TokenSequence(token_ids).truncate(spans, 0)

    def fit_tokenized(self, content: TokenizedInput, options: Options) -> Result:
        result = self.fit_ids(content.token_ids, Options(Truncation.REFUSE, tokens_max=options.tokens_max))
        if isinstance(result, HeddleError):
            return result
        # The type ids of many sequences are joined, so that one with too few would shift those of others.
        if content.type_ids and len(content.type_ids) != result.tokens:
            return HeddleError(ErrorKind.INVALID_INPUT, "type ids must be empty or one byte per token")
        if max(content.type_ids, default=0) > 1:
            return HeddleError(ErrorKind.INVALID_INPUT, "a type id must be 0 or 1")
        result.type_ids = pack_type_ids(content.type_ids)
        return result

    def check_ids(self, token_ids: bytes) -> "memoryview[int]":
        """Raises INVALID_INPUT for bytes that are not ids of the model's vocabulary."""
        if len(token_ids) % 4:
            raise HeddleError(ErrorKind.INVALID_INPUT, "token ids are not a whole number of uint32")
        if error := self.unknown_id_error(token_ids):
            raise error
        return memoryview(token_ids).cast("I")

    def unknown_id_error(self, token_ids: bytes) -> HeddleError | None:
        """None if the model's vocabulary has all of the ids."""
        id_max = max(memoryview(token_ids).cast("I"), default=0)
        if id_max < self.vocabulary_size:
            return None
        message = f"token id {id_max} is outside the model's vocabulary of {self.vocabulary_size}"
        return HeddleError(ErrorKind.INVALID_INPUT, message)

    def _remaining_prompt_tokens(self, options: Options, tokens_max: int, lost: int) -> int:
        """Tokens of the prompt that are left after truncation, which from the left cuts the prompt first."""
        if not options.prompt_tokens:
            return 0
        if options.truncation is Truncation.LEFT:
            return max(self.special_tokens.lead, options.prompt_tokens - lost)
        return min(options.prompt_tokens, tokens_max - self.special_tokens.trail)


def no_room_error(tokens_max: int, specials: int) -> HeddleError:
    """The error for a limit that a request sets too low."""
    message = f"a limit of {tokens_max} tokens leaves no room for text: the model adds {specials} special tokens"
    return HeddleError(ErrorKind.INVALID_INPUT, message)
