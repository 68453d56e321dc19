"""Each kind of small tokenizer, loaded once per session: ours, and the same one in transformers."""

from dataclasses import dataclass
from functools import cache

from tokenizers import Tokenizer as Library
from transformers import PreTrainedTokenizerFast

from tests.small_tokenizers import small_tokenizer
from tokenizer_svc.text.sequences import TokenSequence, pack_ids
from tokenizer_svc.text.tokenizer import Tokenizer
from tokenizer_svc.text.truncation import Truncation

TOKENS_MAX = 16
LONGEST = "longest_first"


@dataclass
class Parity:
    """Our tokenizer, the library's, which does not truncate, and that of transformers, which does."""

    ours: Tokenizer
    library: Library
    transformers: PreTrainedTokenizerFast

    def expected(
        self, text: str, pair: str | None, side: Truncation, *, tokens_max: int = TOKENS_MAX, strategy: str = LONGEST
    ) -> TokenSequence:
        """The sequence of a text or pair in transformers."""
        self.transformers.truncation_side = "left" if side is Truncation.LEFT else "right"
        encoded = self.transformers(
            [text],
            None if pair is None else [pair],
            truncation=strategy,
            max_length=tokens_max,
            return_token_type_ids=True,
            verbose=False,
        )
        types = bytes(encoded["token_type_ids"][0])
        is_long = len(self.library.encode(text, pair)) > tokens_max
        return TokenSequence(pack_ids(encoded["input_ids"][0]), types if any(types) else b"", is_long)


@cache
def load_parity(kind: str) -> Parity:
    library = small_tokenizer(kind)
    ours = Tokenizer(small_tokenizer(kind), sequence_tokens_max=TOKENS_MAX, vocabulary_size=library.get_vocab_size())
    reference = PreTrainedTokenizerFast(tokenizer_object=library)  # type: ignore[no-untyped-call]
    return Parity(ours, library, reference)
