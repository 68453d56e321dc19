"""A query and a document inside a prompt, as decoder rerankers read them: which ids they become, and what gives way
where they are too long. `rerank_prompts` makes them, `tokenization` tokenizes them.

The pieces of a prompt are tokenized one by one and their ids joined, as the authors of these models do it, so that no
token reaches over the border of two pieces. Of what is too long the document loses tokens first and then the query; the
prompt around them stays whole, because the model's answer is read off its last token.
"""

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import tokenizers

from heddle.rpc.errors import HeddleError
from tokenizer_svc.text.truncation import MARGIN_TOKENS, WINDOWS_MAX, Span, Truncation, window, window_chars

Encoded = tokenizers.Encoding | HeddleError


class Limits(NamedTuple):
    """How long a prompt and its document may be, and on which side they are cut."""

    side: Truncation
    room: int  # most tokens of the whole prompt, without the tokenizer's special tokens
    document_max: int  # most tokens of the document; 0 = as many as fit


class Role(enum.Enum):
    FRAME = 0
    QUERY = 1
    DOCUMENT = 2


GIVES_WAY = (Role.DOCUMENT, Role.QUERY)

Piece = tuple[tuple[Role, str], ...]  # parts of a text


@dataclass(frozen=True, slots=True)
class Framed:
    pieces: tuple[Piece, ...]

    @property
    def texts(self) -> list[str]:
        return [text for piece in self.pieces for _, text in piece]

    def shown(self, chars: int, side: Truncation) -> "Framed":
        """With no more of query and document than a window."""
        return Framed(tuple(tuple((role, shown(role, text, chars, side)) for role, text in p) for p in self.pieces))

    def of_role(self, role: Role) -> int:
        """Characters."""
        return sum(len(text) for piece in self.pieces for own, text in piece if own is role)


@dataclass(frozen=True, slots=True)
class FramedTokens:
    """Ids of the whole prompt, without the tokenizer's special tokens, and the part that each token is of."""

    ids: list[int]
    roles: list[Role]  # [] if the prompt is short enough and its document has no limit
    is_cut: bool  # something of a text was not even looked at

    def kept(self, limits: Limits) -> list[int]:
        """The ids that remain after truncation. They are more than `limits.room` only if the text around query and
        document alone is longer."""
        own = {role: [index for index, of in enumerate(self.roles) if of is role] for role in GIVES_WAY}
        counts = {role: len(indices) for role, indices in own.items()}
        counts[Role.DOCUMENT] = min(counts[Role.DOCUMENT], limits.document_max or counts[Role.DOCUMENT])
        frame = len(self.ids) - sum(map(len, own.values()))
        excess = max(frame + sum(counts.values()) - limits.room, 0)
        dropped: set[int] = set()
        for role, indices in own.items():
            less = min(excess, counts[role])
            excess -= less
            gone = len(indices) - (counts[role] - less)
            dropped.update(indices[:gone] if limits.side is Truncation.LEFT else indices[len(indices) - gone :])
        return [token_id for index, token_id in enumerate(self.ids) if index not in dropped]


def framed_tokens(
    work: Mapping[int, tuple[Framed, Limits]], encode_each: Callable[[list[str]], Sequence[Encoded]]
) -> dict[int, FramedTokens | HeddleError]:
    """Tokens of each prompt, by the keys of `work`. `encode_each` must add no special tokens; it gets a text that many
    prompts share only once."""
    results: dict[int, FramedTokens | HeddleError] = {}
    for attempt in range(WINDOWS_MAX):
        views = {
            key: framed.shown(window_chars(limits.room, attempt), limits.side)
            for key, (framed, limits) in work.items()
            if key not in results
        }
        texts = list({text_of(piece): None for view in views.values() for piece in view.pieces})
        encodings = dict(zip(texts, encode_each(texts), strict=True)) if texts else {}
        for key, view in views.items():
            framed, limits = work[key]
            cut = cut_roles(framed, view)
            result = joined(view, encodings, limits, is_cut=bool(cut))
            is_last = attempt + 1 == WINDOWS_MAX
            if is_last or isinstance(result, HeddleError) or suffices(result, cut, limits.room):
                results[key] = result
    return results


def joined(
    view: Framed, encodings: Mapping[str, Encoded], limits: Limits, *, is_cut: bool
) -> FramedTokens | HeddleError:
    ids: list[int] = []
    encoded: list[tokenizers.Encoding] = []
    for piece in view.pieces:
        encoding = encodings[text_of(piece)]
        if isinstance(encoding, HeddleError):
            return HeddleError(encoding.kind, encoding.message)
        ids += encoding.ids
        encoded.append(encoding)
    if not is_cut and len(ids) <= limits.room and not limits.document_max:
        return FramedTokens(ids, [], False)
    roles = [role for piece, own in zip(view.pieces, encoded, strict=True) for role in roles_of(piece, own.offsets)]
    return FramedTokens(ids, roles, is_cut)


def cut_roles(whole: Framed, view: Framed) -> list[Role]:
    """Of which texts the view shows a part only."""
    return [role for role in GIVES_WAY if whole.of_role(role) > view.of_role(role)]


def suffices(tokens: FramedTokens, cut: Sequence[Role], room: int) -> bool:
    """Whether what was left out cannot change the tokens that are kept."""
    return all(tokens.roles.count(role) >= room + MARGIN_TOKENS for role in cut)


def roles_of(piece: Piece, offsets: Sequence[Span]) -> list[Role]:
    """A token that goes on into the frame is of the frame; a space that leads into a text may be of the text."""
    if len(piece) == 1:
        return [piece[0][0]] * len(offsets)
    slots: list[tuple[Role, int, int]] = []
    at = 0
    for role, text in piece:
        if role is not Role.FRAME and text:
            slots.append((role, at, at + len(text)))
        at += len(text)
    return [
        next((role for role, from_, to in slots if start < to and from_ < end <= to), Role.FRAME)
        for start, end in offsets
    ]


def shown(role: Role, text: str, chars: int, side: Truncation) -> str:
    return text if role is Role.FRAME else window(text, chars, side)


def text_of(piece: Piece) -> str:
    return "".join(text for _, text in piece)
