"""One call of the tokenizers library for many texts, in which a text that cannot be encoded fails alone."""

from collections.abc import Callable, Sequence

import tokenizers

from heddle.rpc.errors import ErrorKind, HeddleError
from tokenizer_svc.text.inputs import Text

EncodeBatch = Callable[..., list[tokenizers.Encoding]]


def encode_all(texts: Sequence[Text], encode_batch: EncodeBatch, **options: bool) -> list[tokenizers.Encoding] | None:
    """None if one of the texts cannot be encoded."""
    try:
        return encode_batch(texts, **options)
    except BaseException as exception:  # noqa: BLE001 - logged for the text that fails alone
        _reraise_exit(exception)
        return None


def encode_each(texts: Sequence[Text], encode_batch: EncodeBatch) -> Sequence[tokenizers.Encoding | HeddleError]:
    """An encoding for each text, or INVALID_INPUT if it cannot be encoded."""
    encodings = encode_all(texts, encode_batch)
    return [_encode_alone(text, encode_batch) for text in texts] if encodings is None else encodings


def _encode_alone(text: Text, encode_batch: EncodeBatch) -> tokenizers.Encoding | HeddleError:
    try:
        for part in (text,) if isinstance(text, str) else text:
            part.encode()
        return encode_batch([text])[0]
    except UnicodeEncodeError as error:
        message = f"the text is not Unicode: a lone surrogate at character {error.start}"
        return HeddleError(ErrorKind.INVALID_INPUT, message)
    except BaseException as exception:  # noqa: BLE001 - the library panics on some texts
        _reraise_exit(exception)
        refusal = HeddleError(ErrorKind.INVALID_INPUT, "the model's tokenizer cannot encode this text")
        refusal.__cause__ = exception  # the job logs only its type: the message may quote the text
        return refusal


def _reraise_exit(exception: BaseException) -> None:
    """A panic of the library is a BaseException as well, but concerns only one text."""
    if isinstance(exception, KeyboardInterrupt | SystemExit):
        raise exception
