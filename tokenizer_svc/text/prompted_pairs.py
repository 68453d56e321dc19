"""Encodes a query and a document inside the prompt of a decoder reranker.

The segments of a prompt are tokenized one by one and their ids joined, as the authors of these models do it, so that no
token crosses from one segment into the next. If the result is too long, the document loses tokens first and then the
query. The prompt stays whole, because the model's answer is read from its last token.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import tokenizers

from heddle.rpc.errors import ErrorKind, HeddleError
from tokenizer_svc.text.batch_encoding import encode_each
from tokenizer_svc.text.fitting import Length, SequenceFitter
from tokenizer_svc.text.inputs import Options, PromptedPair, Role, Segment
from tokenizer_svc.text.long_texts import MARGIN_TOKENS, WINDOWS_MAX, encode_in_windows, take_window, window_chars
from tokenizer_svc.text.sequences import Result, Span, TokenSequence, pack_ids
from tokenizer_svc.text.truncation import Truncation

CUT_ORDER = (Role.DOCUMENT, Role.QUERY)


class PairLimits(NamedTuple):
    side: Truncation
    tokens_max: int  # of the whole prompt, without the tokenizer's special tokens
    document_tokens_max: int  # 0 = as many as fit


@dataclass(frozen=True, slots=True)
class PairTokens:
    """Ids of a filled prompt, without the tokenizer's special tokens."""

    ids: list[int]
    roles: list[Role]  # of each token; [] if nothing has to be cut
    cut_roles: Sequence[Role]  # the texts of which the tokenizer saw only a part

    def suffice(self, limits: PairLimits) -> bool:
        """Whether what was left out cannot change the tokens that are kept."""
        return all(self.roles.count(role) >= limits.tokens_max + MARGIN_TOKENS for role in self.cut_roles)

    def truncate(self, limits: PairLimits) -> list[int]:
        """The ids that remain. They are more than the limit only if the prompt alone is longer."""
        places = {role: [index for index, own in enumerate(self.roles) if own is role] for role in CUT_ORDER}
        counts = {role: len(indices) for role, indices in places.items()}
        counts[Role.DOCUMENT] = min(counts[Role.DOCUMENT], limits.document_tokens_max or counts[Role.DOCUMENT])
        prompt_tokens = len(self.ids) - sum(map(len, places.values()))
        excess = max(prompt_tokens + sum(counts.values()) - limits.tokens_max, 0)
        dropped: set[int] = set()
        for role, indices in places.items():
            less = min(excess, counts[role])
            excess -= less
            lost = len(indices) - (counts[role] - less)
            dropped.update(indices[:lost] if limits.side is Truncation.LEFT else indices[len(indices) - lost :])
        return [token_id for index, token_id in enumerate(self.ids) if index not in dropped]


@dataclass(frozen=True, slots=True)
class PromptedPairEncoder:
    library: tokenizers.Tokenizer
    fitter: SequenceFitter

    def encode(self, pairs: Mapping[int, tuple[PromptedPair, Options]]) -> dict[int, Result]:
        """Results by the keys of `pairs`."""
        return encode_in_windows(pairs, self._encode_windows)

    def _encode_windows(self, pairs: Mapping[int, tuple[PromptedPair, Options]], attempt: int) -> dict[int, Result]:
        limits = {key: self._limits(options) for key, (_, options) in pairs.items()}
        windows = {
            key: _take_window(pair, window_chars(limits[key].tokens_max, attempt), limits[key].side)
            for key, (pair, _) in pairs.items()
        }
        encode_batch = functools.partial(self.library.encode_batch, add_special_tokens=False)
        # Pairs share most of their segments: each is encoded once.
        texts = list({_join_texts(segment): None for window in windows.values() for segment in window.segments})
        encodings = dict(zip(texts, encode_each(texts, encode_batch), strict=True))
        results: dict[int, Result] = {}
        for key, window in windows.items():
            whole = pairs[key][0]
            cut_roles = [role for role in CUT_ORDER if whole.count_characters(role) > window.count_characters(role)]
            tokens = _join_tokens(window, encodings, limits[key], cut_roles)
            if isinstance(tokens, HeddleError):
                results[key] = tokens
            elif attempt + 1 == WINDOWS_MAX or tokens.suffice(limits[key]):
                results[key] = self._to_result(tokens, limits[key])
        return results

    def _limits(self, options: Options) -> PairLimits:
        specials = self.fitter.special_tokens.count(is_pair=False)
        tokens_max = options.limit(self.fitter.sequence_tokens_max) - specials
        return PairLimits(options.truncation, tokens_max, options.document_tokens_max)

    def _to_result(self, tokens: PairTokens, limits: PairLimits) -> Result:
        """Fits the tokens to their limits, and adds the special tokens of a single text around them."""
        if self.fitter.exceeds_vocabulary and (error := self.fitter.unknown_id_error(pack_ids(tokens.ids))):
            return error
        ids, special_tokens = tokens.ids, self.fitter.special_tokens
        specials = special_tokens.count(is_pair=False)
        length = Length(
            len(ids) + specials,
            limits.tokens_max + specials,
            tokens.roles.count(Role.DOCUMENT),
            limits.document_tokens_max,
            is_cut=bool(tokens.cut_roles),
        )
        if length.is_too_long:
            if limits.side is Truncation.REFUSE:
                return length.too_large_error()
            ids = tokens.truncate(limits)
            if len(ids) > limits.tokens_max:
                message = f"the prompt around query and document alone is longer than {limits.tokens_max} tokens"
                return HeddleError(ErrorKind.TOO_LARGE, message)
        token_ids = special_tokens.lead_ids + pack_ids(ids) + special_tokens.trail_ids
        return TokenSequence(token_ids, truncated=length.is_too_long)


def _take_window(pair: PromptedPair, chars: int, side: Truncation) -> PromptedPair:
    """The pair with no more of query and document than a window."""

    def shorten(role: Role, text: str) -> str:
        return text if role is Role.PROMPT else take_window(text, chars, side)

    return PromptedPair(tuple(tuple((role, shorten(role, text)) for role, text in part) for part in pair.segments))


def _join_tokens(
    window: PromptedPair,
    encodings: Mapping[str, tokenizers.Encoding | HeddleError],
    limits: PairLimits,
    cut_roles: Sequence[Role],
) -> PairTokens | HeddleError:
    ids: list[int] = []
    encoded: list[tokenizers.Encoding] = []
    for segment in window.segments:
        encoding = encodings[_join_texts(segment)]
        if isinstance(encoding, HeddleError):
            return HeddleError(encoding.kind, encoding.message)  # a copy, because the caller sets its field
        ids += encoding.ids
        encoded.append(encoding)
    if not cut_roles and len(ids) <= limits.tokens_max and not limits.document_tokens_max:
        return PairTokens(ids, [], ())
    segments = zip(window.segments, encoded, strict=True)
    roles = [role for segment, encoding in segments for role in _find_roles(segment, encoding.offsets)]
    return PairTokens(ids, roles, cut_roles)


def _find_roles(segment: Segment, offsets: Sequence[Span]) -> list[Role]:
    """The role of each token. A token that continues into the prompt belongs to the prompt; a space before a text may
    belong to the text."""
    if len(segment) == 1:
        return [segment[0][0]] * len(offsets)
    texts: list[tuple[Role, int, int]] = []
    at = 0
    for role, text in segment:
        if role is not Role.PROMPT and text:
            texts.append((role, at, at + len(text)))
        at += len(text)
    return [
        next(
            (role for role, text_start, text_end in texts if start < text_end and text_start < end <= text_end),
            Role.PROMPT,
        )
        for start, end in offsets
    ]


def _join_texts(segment: Segment) -> str:
    return "".join(text for _, text in segment)
