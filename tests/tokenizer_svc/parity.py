"""Each kind of small tokenizer, loaded once per session: ours, and the same one in transformers."""

from dataclasses import dataclass
from functools import cache

from tokenizers import Tokenizer as Library
from transformers import PreTrainedTokenizerFast

from tests.small_tokenizers import small_tokenizer
from tokenizer_svc.text.sequences import TokenSequence
from tokenizer_svc.text.tokenizer import Tokenizer
from tokenizer_svc.text.truncation import Truncation

TOKENS_MAX = 16


@dataclass
class Parity:
    """Our tokenizer, the library's, which does not truncate, and that of transformers, which does."""

    ours: Tokenizer
    library: Library
    transformers: PreTrainedTokenizerFast

    def expected(self, text: str, pair: str | None, side: Truncation) -> TokenSequence:
        """The sequence of a text or pair in transformers, truncated with the strategy longest_first."""
        self.transformers.truncation_side = "left" if side is Truncation.LEFT else "right"
        limit = self.ours.sequence_tokens_max
        encoded = self.transformers(
            [text],
            None if pair is None else [pair],
            truncation="longest_first",
            max_length=limit,
            return_token_type_ids=True,
            verbose=False,
        )
        library = self.library.encode(text, pair)
        ids = b"".join(token_id.to_bytes(4, "little") for token_id in encoded["input_ids"][0])
        types = bytes(encoded["token_type_ids"][0])
        return TokenSequence(ids, types if any(types) else b"", len(library) > limit)


@cache
def load_parity(kind: str) -> Parity:
    library = small_tokenizer(kind)
    ours = Tokenizer(small_tokenizer(kind), sequence_tokens_max=TOKENS_MAX, vocabulary_size=library.get_vocab_size())
    reference = PreTrainedTokenizerFast(tokenizer_object=library)  # type: ignore[no-untyped-call]
    return Parity(ours, library, reference)
