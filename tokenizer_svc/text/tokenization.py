"""Texts to token sequences and back: the fast tokenizer of a checkpoint, used as sentence-transformers uses it.

`tokenizer_svc.encoder` calls `Tokenizer.encode` with whatever is waiting; the edge calls `options` for each request,
`tokenize` and `decode` for the RPCs of that name. Safe to share between threads.
"""

import functools
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, islice

import tokenizers
from tokenizers import normalizers

from heddle.checkpoint import Checkpoint
from heddle.checkpoint.json_files import CheckpointError
from heddle.rpc.errors import ErrorKind, HeddleError
from tokenizer_svc.text.batch_encoding import check_unicode, encode_each
from tokenizer_svc.text.fitting import fit_framed, fit_ids, fit_text
from tokenizer_svc.text.framed import Framed, FramedTokens, Limits, framed_tokens
from tokenizer_svc.text.layout import layout_of_text, layout_without_text
from tokenizer_svc.text.loading.fast_tokenizer import load_fast_tokenizer
from tokenizer_svc.text.loading.framing import EndToken
from tokenizer_svc.text.sequence import (
    Input,
    Options,
    Result,
    Token,
    Tokenized,
    TokenSequence,
    pack_ids,
    pack_type_ids,
)
from tokenizer_svc.text.short_texts import ShortTextEncoder
from tokenizer_svc.text.subwords import Subwords, unknown_token_of
from tokenizer_svc.text.template import Template
from tokenizer_svc.text.text_window import Text, TextWindow
from tokenizer_svc.text.token_sequences import TokenSequences
from tokenizer_svc.text.truncation import WINDOWS_MAX, Truncation, window_chars
from tokenizer_svc.text.type_ids import gives_type_ids, type_id_error


class Tokenizer:
    """The tokenizer of one model, with the model's limits and prompts.

    `prompts` are texts by name; `include_prompt` is that of the checkpoint's pooling. Raises ValueError where
    `sequence_tokens_max` leaves no room for text beside the special tokens.
    """

    def __init__(
        self,
        tokenizer: tokenizers.Tokenizer,
        *,
        sequence_tokens_max: int,
        vocabulary_size: int,
        prompts: Mapping[str, str] | None = None,
        default_prompt_name: str = "",
        include_prompt: bool = True,
        do_lower_case: bool = False,
        unknown_token: str = "",
        gives_type_ids: bool = True,
        truncation_side: Truncation = Truncation.RIGHT,
    ) -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        if do_lower_case:
            _lower_case(tokenizer)
        self._tokenizer = tokenizer
        self.subwords = Subwords.of(tokenizer, unknown_token)
        self._template = Template.of(tokenizer)
        self.sequence_tokens_max = sequence_tokens_max
        self.vocabulary_size = vocabulary_size
        self.prompts = dict(prompts or {})
        self.default_prompt_name = default_prompt_name
        self.truncation_side = truncation_side  # used if neither request nor settings say
        self._include_prompt = include_prompt
        self._gives_type_ids = gives_type_ids
        self._exceeds_vocabulary = tokenizer.get_vocab_size() > vocabulary_size
        self._options: dict[tuple[Truncation, str], Options] = {}
        self._short = ShortTextEncoder(
            tokenizer,
            self._template,
            gives_type_ids=gives_type_ids,
            sequence_tokens_max=sequence_tokens_max,
            exceeds_vocabulary=self._exceeds_vocabulary,
            fit=self._fit,
        )
        if sequence_tokens_max <= sum(self._template.pair_specials):
            raise ValueError(f"sequence_tokens_max {sequence_tokens_max} leaves no room for text")

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
                do_lower_case=checkpoint.do_lower_case,
                unknown_token=unknown_token_of(checkpoint.folder),
                gives_type_ids=gives_type_ids(checkpoint.folder),
                truncation_side=loaded.truncation_side,
            )
        except Exception as error:  # the library raises Exception itself
            raise CheckpointError(f"the tokenizer of {checkpoint.folder} cannot be used: {error}") from error

    def options(self, truncation: Truncation = Truncation.RIGHT, prompt_name: str = "") -> Options:
        """`prompt_name` "" is the model's default prompt. Raises INVALID_INPUT for a prompt that the model lacks."""
        key = (truncation, prompt_name)  # whose hash costs more than all else here
        options = self._options.get(key)
        if options is None:
            prompt = self._prompt(prompt_name)
            options = self._options[key] = Options(truncation, prompt, self._prompt_tokens(prompt))
        return options

    def _prompt(self, prompt_name: str) -> str:
        name = prompt_name or self.default_prompt_name
        if name and name not in self.prompts:
            known = ", ".join(sorted(self.prompts)) or "none"
            message = f"the model has no prompt named {name!r}; it has: {known}"
            raise HeddleError(ErrorKind.INVALID_INPUT, message, field="prompt_name")
        return self.prompts.get(name, "")

    def encode(self, work: Sequence[tuple[Sequence[Input], Options]]) -> list[TokenSequences]:
        """A sequence for each input, or the error of that one alone: its neighbours are unharmed.

        EMPTY_INPUT for no text or no ids, INVALID_INPUT for what is not Unicode or outside the vocabulary, TOO_LARGE
        where truncation is refused. The second text of a pair may be empty.
        """
        short = {key: texts for key, some in enumerate(work) if (texts := self._short.short_texts(*some))}
        encoded = self._short.encode(short) if short else {}
        if len(encoded) < len(work):
            rest = {key: some for key, some in enumerate(work) if key not in encoded}
            results = iter(
                self._encode_each([(content, options) for inputs, options in rest.values() for content in inputs])
            )
            encoded |= {key: TokenSequences.of(list(islice(results, len(inputs)))) for key, (inputs, _) in rest.items()}
        return [encoded[key] for key in range(len(work))]

    def _encode_each(self, work: Sequence[tuple[Input, Options]]) -> list[Result]:
        """Results of inputs of any kind and length, each with its options."""
        results: dict[int, Result] = {}
        texts: dict[int, tuple[Text, Options]] = {}
        framed: dict[int, tuple[Framed, Options]] = {}
        for index, (content, options) in enumerate(work):
            if isinstance(content, bytes):
                results[index] = self._of_ids(content, options)
            elif isinstance(content, Tokenized):
                results[index] = self._of_tokenized(content, options)
            elif isinstance(content, Framed):
                framed[index] = content, options
            elif not (content if isinstance(content, str) else content[0]):
                results[index] = HeddleError(ErrorKind.EMPTY_INPUT, "the text is empty")
            else:
                texts[index] = content, options
        if framed:
            results |= self._encode_framed(framed)
        for attempt in range(WINDOWS_MAX):
            if not texts:
                break
            results |= self._encode_windows(texts, attempt)
            texts = {index: text for index, text in texts.items() if index not in results}
        return [results[index] for index in range(len(work))]

    def tokenize(self, text: str, *, prompt: str = "", skip_special_tokens: bool = False) -> list[Token]:
        """All tokens of a text, none cut off, with where they lie in it. INVALID_INPUT for lone surrogates."""
        check_unicode(text)
        encoding = self._tokenizer.encode(prompt + text, add_special_tokens=not skip_special_tokens)
        at_byte = [0, *accumulate(len(char.encode()) for char in text)]
        spans = [(max(0, start - len(prompt)), max(0, end - len(prompt))) for start, end in encoding.offsets]
        rows = zip(encoding.ids, encoding.tokens, encoding.special_tokens_mask, spans, strict=True)
        return [
            Token(token_id, spelling if special else text[start:end], bool(special), at_byte[start], at_byte[end])
            for token_id, spelling, special, (start, end) in rows
        ]

    def decode(self, token_ids: bytes, *, keep_special_tokens: bool = False) -> str:
        """The text of ids (uint32). INVALID_INPUT for ids outside the vocabulary; no ids are an empty text."""
        return self._tokenizer.decode(self._checked(token_ids).tolist(), skip_special_tokens=not keep_special_tokens)

    def _encode_windows(self, texts: Mapping[int, tuple[Text, Options]], attempt: int) -> dict[int, Result]:
        """Results of the texts for which this attempt's window is large enough."""
        windows = self._windows(texts.values(), attempt)
        results: dict[int, Result] = {}
        for index, window, encoding in zip(texts, windows, self._encode_texts(windows), strict=True):
            if isinstance(encoding, HeddleError):
                results[index] = encoding
            elif attempt + 1 == WINDOWS_MAX or window.suffices(encoding):
                results[index] = self._of_encoding(encoding, window)
        return results

    def _windows(self, texts: Iterable[tuple[Text, Options]], attempt: int) -> list[TextWindow]:
        """Windows are larger for texts that may be refused, so that the error can state how long they are."""
        windows: list[TextWindow] = []
        seen: Options | None = None  # the texts of a request share their options
        for text, options in texts:
            if options is not seen:
                seen, tokens_max = options, options.limit(self.sequence_tokens_max)
                is_refused = options.truncation is Truncation.REFUSE
                chars = window_chars(tokens_max, max(attempt, 1) if is_refused else attempt)
            windows.append(TextWindow.of(text, options, tokens_max, chars))
        return windows

    def _encode_texts(self, windows: list[TextWindow]) -> Sequence[tokenizers.Encoding | HeddleError]:
        """Uses the library's faster call, which has no offsets, unless they are needed. The ids are the same."""
        with_layout = any(window.options.with_layout for window in windows)
        encode_batch = self._tokenizer.encode_batch if with_layout else self._tokenizer.encode_batch_fast
        return encode_each([window.text for window in windows], encode_batch)

    def _encode_framed(self, framed: Mapping[int, tuple[Framed, Options]]) -> dict[int, Result]:
        encode_batch = functools.partial(self._tokenizer.encode_batch, add_special_tokens=False)
        specials = self._template.lead + self._template.trail
        work = {
            index: (content, options.limits(self.sequence_tokens_max, specials))
            for index, (content, options) in framed.items()
        }
        encoded = framed_tokens(work, lambda texts: encode_each(list(texts), encode_batch))
        return {index: self._of_framed(tokens, work[index][1]) for index, tokens in encoded.items()}

    def _of_framed(self, tokens: FramedTokens | HeddleError, limits: Limits) -> Result:
        if isinstance(tokens, HeddleError):
            return tokens
        if self._exceeds_vocabulary and (error := self._vocabulary_error(max(tokens.ids, default=0))):
            return error
        return fit_framed(tokens, limits, self._template)

    def _of_encoding(self, encoding: tokenizers.Encoding, window: TextWindow) -> Result:
        has_type_ids = self._gives_type_ids and (window.is_pair or self._template.has_type_ids)
        sequence = TokenSequence(pack_ids(encoding.ids), pack_type_ids(encoding.type_ids) if has_type_ids else b"")
        if window.options.with_layout:
            sequence.layout = layout_of_text(encoding, window.skipped)
        return self._fit(sequence, encoding, window)

    def _fit(self, sequence: TokenSequence, encoding: tokenizers.Encoding, window: TextWindow) -> Result:
        if not sequence.token_ids:
            return HeddleError(ErrorKind.EMPTY_INPUT, "the text has no tokens")
        ids = memoryview(sequence.token_ids).cast("I")
        if self._exceeds_vocabulary and (error := self._vocabulary_error(max(ids))):
            return error
        return fit_text(sequence, encoding, window, self._template)

    def _of_ids(self, token_ids: bytes, options: Options) -> Result:
        try:
            self._checked(token_ids)
        except HeddleError as error:
            return error
        return fit_ids(token_ids, options, self._template, options.limit(self.sequence_tokens_max))

    def _of_tokenized(self, content: Tokenized, options: Options) -> Result:
        sequence = self._of_ids(content.token_ids, Options(Truncation.REFUSE, tokens_max=options.tokens_max))
        if isinstance(sequence, TokenSequence):
            if error := type_id_error(content.type_ids, sequence.tokens):
                return error
            sequence.type_ids = pack_type_ids(content.type_ids)
            if options.with_layout:
                sequence.layout = layout_without_text(content.token_ids, self._tokenizer)
        return sequence

    def _checked(self, token_ids: bytes) -> "memoryview[int]":
        if len(token_ids) % 4:
            raise HeddleError(ErrorKind.INVALID_INPUT, "token ids are not a whole number of uint32")
        ids = memoryview(token_ids).cast("I")
        if error := self._vocabulary_error(max(ids, default=0)):
            raise error
        return ids

    def _vocabulary_error(self, id_max: int) -> HeddleError | None:
        if id_max < self.vocabulary_size:
            return None
        message = f"token id {id_max} is outside the model's vocabulary of {self.vocabulary_size}"
        return HeddleError(ErrorKind.INVALID_INPUT, message)

    def _prompt_tokens(self, prompt: str) -> int:
        """As sentence-transformers counts: the prompt alone, less a special token at its end."""
        if self._include_prompt or not prompt:
            return 0
        ids = self._tokenizer.encode(prompt).ids
        added = self._tokenizer.get_added_tokens_decoder()
        ends_special = ids[-1] in added and added[ids[-1]].special
        return min(len(ids), self.sequence_tokens_max) - ends_special


def _lower_case(tokenizer: tokenizers.Tokenizer) -> None:
    """Before all other normalisation, as sentence-transformers does it."""
    normalizer = tokenizer.normalizer
    if isinstance(normalizer, normalizers.Sequence):
        steps = [normalizer[index] for index in range(len(normalizer))]
    else:
        steps = [normalizer] if normalizer else []
    if not any(isinstance(step, normalizers.Lowercase) for step in steps):
        tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), *steps])
