"""Adds the tokens that tokenizer_config.json and its companions state to those of tokenizer.json.

Called by `tokenizer_svc.text.loading.fast_tokenizer`. The rules are those of transformers 4. A token that is listed, or
written as an object, has the flags that are stated there; a token that is only named keeps the flags of tokenizer.json.
Stated ids are ignored: new tokens follow the vocabulary, in the order of their ids.
"""

import logging
from collections.abc import Container, Iterator
from typing import Any

import tokenizers
from tokenizers import AddedToken

from heddle.checkpoint.json_files import CheckpointError, get_field, read_json_if_exists
from tokenizer_svc.text.loading.folder import SETTINGS, TokenizerFolder, content_of

log = logging.getLogger(__name__)

FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


def add_stated_tokens(tokenizer: tokenizers.Tokenizer, folder: TokenizerFolder, vocabulary_size: int) -> None:
    """Leaves out, with a warning, new tokens for which the model has no embedding. Raises CheckpointError for a token
    that is malformed."""
    present = {token.content: repr(token) for token in tokenizer.get_added_tokens_decoder().values()}
    room = vocabulary_size - tokenizer.get_vocab_size()
    # All are added in one call, because each call makes the library rebuild its search for added tokens.
    tokens: list[AddedToken] = []
    new: set[str] = set()
    without_embedding: list[str] = []
    for token in stated_tokens(folder, frozenset(present)):
        if present.get(token.content) == repr(token):
            continue
        if token.content not in new and tokenizer.token_to_id(token.content) is None:
            if len(new) >= room:
                without_embedding.append(token.content)
                continue
            new.add(token.content)
        tokens.append(token)
    tokenizer.add_tokens(tokens)
    if without_embedding:
        names = ", ".join(without_embedding[:5]) + (", ..." if len(without_embedding) > 5 else "")
        log.warning(
            "%s: the model has no embeddings for the added tokens %s; they are read as text", folder.path, names
        )


def stated_tokens(folder: TokenizerFolder, present: frozenset[str]) -> Iterator[AddedToken]:
    """The tokens of the settings, in the order of their ids. `present` are those that tokenizer.json adds."""
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
    """Whether the mask token includes the space before it: the tokenizer class says so, unless a file describes the
    token."""
    is_stated = "mask_token" in folder.settings or "mask_token" in folder.special_tokens_map
    by_class = folder.tokenizer_class.mask_takes_space and not folder.is_from_transformers_5
    return by_class and not (is_stated and mask in described)


def listed_tokens(folder: TokenizerFolder) -> Iterator[AddedToken]:
    """The tokens of added_tokens_decoder or, before transformers 4.34, of added_tokens.json, sorted by id."""
    path = folder.path / SETTINGS
    decoder: dict[str, Any] | None = get_field(folder.settings, "added_tokens_decoder", dict, path)
    if decoder is not None:
        for _, token in sorted(decoder.items(), key=lambda item: id_of(item[0], folder)):
            yield added_token(token, folder)
        return
    by_content = read_json_if_exists(folder.path / "added_tokens.json")
    specials = {content_of(token) for token in (*folder.special_tokens.values(), *further_special_tokens(folder))}
    for content, _ in sorted(by_content.items(), key=lambda item: id_of(item[1], folder)):
        yield AddedToken(content, special=content in specials)


def further_special_tokens(folder: TokenizerFolder) -> list[Any]:
    """Special tokens that are not one of NAMES: additional_special_tokens, and extra_special_tokens, which may be an
    object."""
    path = folder.path / SETTINGS
    stated = get_field(folder.settings, "additional_special_tokens", list, path)
    mapped = folder.special_tokens_map.get("additional_special_tokens")
    tokens = [*(folder.tokenizer_class.additional if stated is None else stated)]
    tokens += mapped if isinstance(mapped, list) else []
    extra = folder.settings.get("extra_special_tokens") or []
    if not isinstance(extra, dict | list):
        raise CheckpointError(f"{path}: extra_special_tokens {extra!r} is neither a list nor an object")
    extras = list(extra.values()) if isinstance(extra, dict) else extra
    if not folder.is_from_transformers_5:
        return [*tokens, *extras]
    # To version 5 a list is the newer name of additional_special_tokens, and tokens by name come first.
    return extras if extra and isinstance(extra, list) else [*extras, *tokens]


def added_token(token: Any, folder: TokenizerFolder, *, special: bool | None = None) -> AddedToken:
    """Reads a token that transformers wrote as a string or an object. Raises CheckpointError."""
    if isinstance(token, str):
        return AddedToken(token, special=True)
    if not isinstance(token, dict) or not isinstance(token.get("content"), str):
        raise CheckpointError(f"{folder.path / SETTINGS} has the added token {token!r}, which has no content")
    flags: dict[str, bool] = {name: token[name] for name in FLAGS if isinstance(token.get(name), bool)}
    return AddedToken(token["content"], **{**flags, **({} if special is None else {"special": special})})


def id_of(value: Any, folder: TokenizerFolder) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        raise CheckpointError(f"{folder.path}: an added token has the id {value!r}, which is not a number") from None
