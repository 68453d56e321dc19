"""Texts to token sequences and back: the fast tokenizer of a checkpoint, used as sentence-transformers uses it."""

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import accumulate, islice

import tokenizers

from heddle.checkpoint import Checkpoint
from heddle.checkpoint.json_files import CheckpointError
from heddle.rpc.errors import ErrorKind, HeddleError
from tokenizer_svc.text.batch_encoding import encode_each
from tokenizer_svc.text.entities import Subwords
from tokenizer_svc.text.fitting import SequenceFitter
from tokenizer_svc.text.inputs import Input, Options, PromptedPair, Text, TokenizedInput
from tokenizer_svc.text.loading.fast_tokenizer import load_fast_tokenizer
from tokenizer_svc.text.loading.post_processor import EndToken
from tokenizer_svc.text.long_texts import LongTextEncoder
from tokenizer_svc.text.prompted_pairs import PromptedPairEncoder
from tokenizer_svc.text.sequences import Alignment, Result, Token, TokenSequence, TokenSequences
from tokenizer_svc.text.short_texts import ShortTextEncoder
from tokenizer_svc.text.truncation import SpecialTokens, Truncation


class Tokenizer:
    """The tokenizer of one model, with the model's limits and prompts. Threads can share it.

    `prompts` are texts by name; `include_prompt` is that of the checkpoint's pooling. Raises ValueError if
    `sequence_tokens_max` leaves no room for text beside the special tokens.
    """

    def __init__(
        self,
        library: tokenizers.Tokenizer,
        *,
        sequence_tokens_max: int,
        vocabulary_size: int,
        prompts: Mapping[str, str] | None = None,
        default_prompt_name: str = "",
        include_prompt: bool = True,
        unknown_token: str = "",
        gives_type_ids: bool = True,
        truncation_side: Truncation = Truncation.RIGHT,
    ) -> None:
        library.no_truncation()
        library.no_padding()
        self.subwords = Subwords.read(library, unknown_token)
        self.sequence_tokens_max = sequence_tokens_max
        self.vocabulary_size = vocabulary_size
        self.prompts = dict(prompts or {})
        self.default_prompt_name = default_prompt_name
        self.truncation_side = truncation_side  # used if neither the request nor the settings state it
        self._library = library
        self._include_prompt = include_prompt
        self._options: dict[tuple[Truncation, str], Options] = {}
        special_tokens = SpecialTokens.read(library)
        if sequence_tokens_max <= special_tokens.count(is_pair=True):
            raise ValueError(f"sequence_tokens_max {sequence_tokens_max} leaves no room for text")
        exceeds_vocabulary = library.get_vocab_size() > vocabulary_size
        self._fitter = SequenceFitter(special_tokens, sequence_tokens_max, vocabulary_size, exceeds_vocabulary)
        self._short_texts = ShortTextEncoder(library, self._fitter, gives_type_ids)
        self._long_texts = LongTextEncoder(library, self._fitter, gives_type_ids)
        self._prompted_pairs = PromptedPairEncoder(library, self._fitter)

    @classmethod
    def load(cls, checkpoint: Checkpoint, end_token: EndToken = "auto") -> "Tokenizer":
        """Raises CheckpointError if files of the tokenizer are missing, broken or not supported."""
        loaded = load_fast_tokenizer(checkpoint, end_token)
        try:
            return cls(
                loaded.library,
                sequence_tokens_max=checkpoint.sequence_tokens_max,
                vocabulary_size=checkpoint.vocabulary_size,
                prompts=checkpoint.prompts,
                default_prompt_name=checkpoint.default_prompt_name,
                include_prompt=checkpoint.include_prompt,
                unknown_token=loaded.unknown_token,
                gives_type_ids=loaded.gives_type_ids,
                truncation_side=loaded.truncation_side,
            )
        except BaseException as error:  # the library raises Exception itself, and PanicException, which is none
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            raise CheckpointError(f"the tokenizer of {checkpoint.folder} cannot be used: {error}") from error

    def options(self, truncation: Truncation = Truncation.RIGHT, prompt_name: str = "") -> Options:
        """`prompt_name` "" is the model's default prompt. Raises INVALID_INPUT for a prompt that the model lacks."""
        key = (truncation, prompt_name)  # hashing it costs more than the rest of this method
        options = self._options.get(key)
        if options is None:
            prompt = self._find_prompt(prompt_name)
            options = self._options[key] = Options(truncation, prompt, self._count_prompt_tokens(prompt))
        return options

    def encode(self, work: Sequence[tuple[Sequence[Input], Options]]) -> list[TokenSequences]:
        """A sequence for each input, or an error for that input alone.

        EMPTY_INPUT for no text or no ids, INVALID_INPUT for text that is not Unicode and for ids outside the
        vocabulary, TOO_LARGE if truncation is refused. The second text of a pair may be empty.
        """
        short = {key: texts for key, request in enumerate(work) if (texts := self._short_texts.select(*request))}
        encoded = self._short_texts.encode(short) if short else {}
        if len(encoded) < len(work):
            rest = {key: request for key, request in enumerate(work) if key not in encoded}
            results = iter(
                self._encode_each([(content, options) for inputs, options in rest.values() for content in inputs])
            )
            for key, (inputs, _) in rest.items():
                encoded[key] = TokenSequences.from_results(list(islice(results, len(inputs))))
        return [encoded[key] for key in range(len(work))]

    def _encode_each(self, work: Sequence[tuple[Input, Options]]) -> list[Result]:
        """Results of inputs of any kind and length, each with its options."""
        results: dict[int, Result] = {}
        texts: dict[int, tuple[Text, Options]] = {}
        pairs: dict[int, tuple[PromptedPair, Options]] = {}
        for index, (content, options) in enumerate(work):
            if isinstance(content, bytes):
                results[index] = self._fitter.fit_ids(content, options)
            elif isinstance(content, TokenizedInput):
                results[index] = self._encode_tokenized(content, options)
            elif isinstance(content, PromptedPair):
                pairs[index] = content, options
            elif not (content if isinstance(content, str) else content[0]):
                results[index] = HeddleError(ErrorKind.EMPTY_INPUT, "the text is empty")
            else:
                texts[index] = content, options
        results |= self._prompted_pairs.encode(pairs)
        results |= self._long_texts.encode(texts)
        return [results[index] for index in range(len(work))]

    def _encode_tokenized(self, content: TokenizedInput, options: Options) -> Result:
        result = self._fitter.fit_tokenized(content, options)
        if options.with_alignment and isinstance(result, TokenSequence):
            result.alignment = Alignment.from_ids(content.token_ids, self._library)
        return result

    def tokenize(self, text: str, *, prompt: str = "", skip_special_tokens: bool = False) -> list[Token]:
        """All tokens of a text, however long, with their places in it. Raises INVALID_INPUT for a text that cannot be
        encoded."""
        encode_batch = partial(self._library.encode_batch, add_special_tokens=not skip_special_tokens)
        [encoding] = encode_each([prompt + text], encode_batch)
        if isinstance(encoding, HeddleError):
            raise encoding
        at_byte = [0, *accumulate(len(char.encode()) for char in text)]
        spans = [(max(0, start - len(prompt)), max(0, end - len(prompt))) for start, end in encoding.offsets]
        rows = zip(encoding.ids, encoding.tokens, encoding.special_tokens_mask, spans, strict=True)
        return [
            Token(token_id, spelling if special else text[start:end], bool(special), at_byte[start], at_byte[end])
            for token_id, spelling, special, (start, end) in rows
        ]

    def decode(self, token_ids: bytes, *, keep_special_tokens: bool = False) -> str:
        """The text of ids (uint32). Raises INVALID_INPUT for ids outside the vocabulary; no ids give an empty text."""
        ids = self._fitter.check_ids(token_ids).tolist()
        return self._library.decode(ids, skip_special_tokens=not keep_special_tokens)

    def _find_prompt(self, prompt_name: str) -> str:
        name = prompt_name or self.default_prompt_name
        if name and name not in self.prompts:
            known = ", ".join(sorted(self.prompts)) or "none"
            message = f"the model has no prompt named {name!r}; it has: {known}"
            raise HeddleError(ErrorKind.INVALID_INPUT, message, field="prompt_name")
        return self.prompts.get(name, "")

    def _count_prompt_tokens(self, prompt: str) -> int:
        """Counts like sentence-transformers: the prompt alone, without a special token at its end."""
        if self._include_prompt or not prompt:
            return 0
        ids = self._library.encode(prompt).ids
        added = self._library.get_added_tokens_decoder()
        ends_special = ids[-1] in added and added[ids[-1]].special
        return min(len(ids), self.sequence_tokens_max) - ends_special
