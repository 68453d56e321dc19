"""Decides which tokens continue the word of the token before them, and spells words. Called by `spans`.

The rules are those of `gather_pre_entities` in transformers.pipelines.token_classification, its guesses included: what
people compare with is the pipeline.
"""

from dataclasses import dataclass
from pathlib import Path

import tokenizers

from heddle.checkpoint.json_files import read_json_if_exists
from tokenizer_svc.text.sequence import TextLayout


@dataclass(frozen=True, slots=True)
class Subwords:
    has_prefix: bool  # the vocabulary marks what goes on with a word, as WordPiece does with ##
    unknown_id: int | None  # id of the token for what is not in the vocabulary
    library: tokenizers.Tokenizer | None = None  # only needed to spell words

    @classmethod
    def of(cls, tokenizer: tokenizers.Tokenizer, unknown_token: str) -> "Subwords":
        """`unknown_token` is what the checkpoint calls it; "" leaves it to the model of the tokenizer."""
        model = tokenizer.model
        name = unknown_token or getattr(model, "unk_token", None)
        return cls(
            has_prefix=bool(getattr(model, "continuing_subword_prefix", None)),
            unknown_id=tokenizer.token_to_id(name) if name else None,
            library=tokenizer,
        )

    def continues(self, text: str, token_id: int, spelling: str, start: int, end: int) -> bool:
        """Whether the token at [start, end) of the text belongs to the word of the one before it."""
        if token_id == self.unknown_id:
            return False
        if self.has_prefix:
            return len(spelling) != end - start
        return start > 0 and " " not in text[start - 1 : start + 1]

    def words(self, text: str, token_ids: "memoryview[int]", layout: TextLayout) -> list[list[int]]:
        """Indices of the tokens of each word, special tokens left out."""
        words: list[list[int]] = []
        columns = zip(token_ids, layout.spellings, layout.offsets, layout.specials, strict=True)
        for index, (token_id, spelling, (start, end), special) in enumerate(columns):
            if special:
                continue
            if words and self.continues(text, token_id, spelling, start, end):
                words[-1].append(index)
            else:
                words.append([index])
        return words

    def spelling(self, token_id: int, written: str) -> str:
        """The vocabulary's spelling of the token; `written`, its text in the input, for an unknown token."""
        if token_id == self.unknown_id or self.library is None:
            return written
        return self.library.id_to_token(token_id) or written

    def join(self, spellings: list[str]) -> str:
        """Joins tokens as the tokenizer's decoder does."""
        decoder = self.library.decoder if self.library else None
        return " ".join(spellings) if decoder is None else str(decoder.decode(spellings))


def unknown_token_of(folder: Path) -> str:
    """As transformers reads it; "" where the checkpoint does not say."""
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        token = read_json_if_exists(folder / name).get("unk_token")
        if isinstance(token, dict):
            token = token.get("content")
        if isinstance(token, str):
            return token
    return ""
