"""The tokens that a checkpoint's settings add to its vocabulary, or keep whole, beside those of tokenizer.json.

Called by `tokenizer_svc.loading.fast_tokenizer`. As in transformers 4: a token that is listed or written as an object
has the flags that stand there, one that is merely named keeps those of tokenizer.json, and the ids that are stated are
not looked at: new tokens follow the vocabulary in their order.
"""

import logging
from collections.abc import Container, Iterator
from typing import Any

import tokenizers
from tokenizers import AddedToken

from heddle.checkpoint_files import CheckpointError, field_of, read_json_if_there
from tokenizer_svc.loading.folder import SETTINGS, TokenizerFolder, content_of

log = logging.getLogger(__name__)

FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


def add_stated_tokens(tokenizer: tokenizers.Tokenizer, folder: TokenizerFolder, vocabulary_size: int) -> None:
    """Leaves out a new token for which the model has no embedding, and says so in the log: its id could not be served.
    Raises CheckpointError for a token that is none."""
    present = {token.content: repr(token) for token in tokenizer.get_added_tokens_decoder().values()}
    room = vocabulary_size - tokenizer.get_vocab_size()
    # Added in one call: each makes the library prepare its search for all added tokens anew.
    tokens: list[AddedToken] = []
    new: set[str] = set()
    homeless: list[str] = []
    for token in stated_tokens(folder, frozenset(present)):
        if present.get(token.content) == repr(token):
            continue
        if token.content not in new and tokenizer.token_to_id(token.content) is None:
            if len(new) >= room:
                homeless.append(token.content)
                continue
            new.add(token.content)
        tokens.append(token)
    tokenizer.add_tokens(tokens)
    if homeless:
        names = ", ".join(homeless[:5]) + (", ..." if len(homeless) > 5 else "")
        log.warning(
            "%s: the model has no embeddings for the added tokens %s; they are read as text", folder.path, names
        )


def stated_tokens(folder: TokenizerFolder, present: frozenset[str]) -> Iterator[AddedToken]:
    """In the order of their ids; `present` are those that tokenizer.json adds."""
    specials = {content_of(token) for token in (*folder.special_tokens.values(), *further_special_tokens(folder))}
    listed = {token.content: token for token in listed_tokens(folder)}
    for token in listed.values():
        token.special = token.special or token.content in specials
        yield token
    known = present | set(listed)
    has_list = "added_tokens_decoder" in folder.settings
    for name, token in folder.special_tokens.items():
        content = content_of(token)
        if name == "mask_token" and takes_space_before(content, folder, listed if has_list else known):
            yield AddedToken(content, lstrip=True, special=True)
        elif content and content not in known:
            yield added_token(token, folder, special=True)
    for token in further_special_tokens(folder):
        if isinstance(token, dict) or content_of(token) not in known:
            yield added_token(token, folder, special=True)


def takes_space_before(mask: str, folder: TokenizerFolder, described: Container[str]) -> bool:
    """Whether it is for the class of the tokenizer to say so of the mask token: no file describes it."""
    is_stated = "mask_token" in folder.settings or "mask_token" in folder.special_tokens_map
    by_class = folder.tokenizer_class.mask_takes_space and not folder.is_of_transformers_5
    return by_class and not (is_stated and mask in described)


def listed_tokens(folder: TokenizerFolder) -> Iterator[AddedToken]:
    """By their ids: those of added_tokens_decoder or, before transformers 4.34, of added_tokens.json."""
    path = folder.path / SETTINGS
    decoder: dict[str, Any] | None = field_of(folder.settings, "added_tokens_decoder", dict, path)
    if decoder is not None:
        for _, token in sorted(decoder.items(), key=lambda item: id_of(item[0], folder)):
            yield added_token(token, folder)
        return
    by_content = read_json_if_there(folder.path / "added_tokens.json")
    specials = {content_of(token) for token in (*folder.special_tokens.values(), *further_special_tokens(folder))}
    for content, _ in sorted(by_content.items(), key=lambda item: id_of(item[1], folder)):
        yield AddedToken(content, special=content in specials)


def further_special_tokens(folder: TokenizerFolder) -> list[Any]:
    """Those without a name of their own: lists of tokens and, of extra_special_tokens, also an object by name."""
    path = folder.path / SETTINGS
    stated = field_of(folder.settings, "additional_special_tokens", list, path)
    mapped = folder.special_tokens_map.get("additional_special_tokens")
    tokens = [*(folder.tokenizer_class.additional if stated is None else stated)]
    tokens += mapped if isinstance(mapped, list) else []
    extra = folder.settings.get("extra_special_tokens") or []
    if not isinstance(extra, dict | list):
        raise CheckpointError(f"{path}: extra_special_tokens {extra!r} is neither a list nor an object")
    extras = list(extra.values()) if isinstance(extra, dict) else extra
    if not folder.is_of_transformers_5:
        return [*tokens, *extras]
    # To version 5 a list is the newer name of additional_special_tokens, and tokens by name come first.
    return extras if extra and isinstance(extra, list) else [*extras, *tokens]


def added_token(token: Any, folder: TokenizerFolder, *, special: bool | None = None) -> AddedToken:
    """Of a text or an object, as transformers writes it."""
    if isinstance(token, str):
        return AddedToken(token, special=True)
    if not isinstance(token, dict) or not isinstance(token.get("content"), str):
        raise CheckpointError(f"{folder.path / SETTINGS} has the added token {token!r}, which is not one")
    flags: dict[str, bool] = {name: token[name] for name in FLAGS if isinstance(token.get(name), bool)}
    return AddedToken(token["content"], **{**flags, **({} if special is None else {"special": special})})


def id_of(value: Any, folder: TokenizerFolder) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        raise CheckpointError(f"{folder.path}: an added token has the id {value!r}, which is not a number") from None
