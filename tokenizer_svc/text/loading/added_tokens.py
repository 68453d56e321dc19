"""Adds the tokens that tokenizer_config.json and its companions state to those of tokenizer.json.

The rules are those of transformers 4. A token that is listed, or written as an object, has the flags that are stated
there; a token that is only named keeps the flags of tokenizer.json. Stated ids are ignored: new tokens follow the
vocabulary, in the order of their ids.
"""

import logging
from collections.abc import Container, Iterator
from typing import Any

import tokenizers
from tokenizers import AddedToken

from heddle.checkpoint.json_files import CheckpointError, read_json_if_exists
from tokenizer_svc.text.loading.tokenizer_config import CONFIG_FILE, TokenizerConfig, read_spelling

log = logging.getLogger(__name__)

FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


def add_stated_tokens(tokenizer: tokenizers.Tokenizer, config: TokenizerConfig, vocabulary_size: int) -> None:
    """Leaves out, with a warning, new tokens for which the model has no embedding. Raises CheckpointError for a token
    that is malformed."""
    present = {token.content: repr(token) for token in tokenizer.get_added_tokens_decoder().values()}
    room = vocabulary_size - tokenizer.get_vocab_size()
    # All are added in one call, because each call makes the library rebuild its search for added tokens.
    tokens: list[AddedToken] = []
    new: set[str] = set()
    without_embedding: list[str] = []
    for token in read_stated_tokens(config, frozenset(present)):
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
            "%s: the model has no embeddings for the added tokens %s; they are read as text", config.folder, names
        )


def read_stated_tokens(config: TokenizerConfig, present: frozenset[str]) -> Iterator[AddedToken]:
    """The tokens of the settings, in the order of their ids. `present` are those that tokenizer.json adds."""
    further = read_further_special_tokens(config)
    specials = {read_spelling(token) for token in (*config.special_tokens.values(), *further)}
    listed = {token.content: token for token in read_listed_tokens(config, specials)}
    for token in listed.values():
        token.special = token.special or token.content in specials
        yield token
    known = present | set(listed)
    has_list = "added_tokens_decoder" in config.settings
    for name, token in config.special_tokens.items():
        content = read_spelling(token)
        if name == "mask_token" and mask_takes_space(content, config, listed if has_list else known):
            yield AddedToken(content, lstrip=True, special=True)
        elif content and content not in known:
            yield parse_token(token, config, special=True)
    for token in further:
        if isinstance(token, dict) or read_spelling(token) not in known:
            yield parse_token(token, config, special=True)


def mask_takes_space(mask: str, config: TokenizerConfig, described: Container[str]) -> bool:
    """Whether the mask token includes the space before it: the tokenizer class says so, unless a file describes the
    token."""
    is_stated = "mask_token" in config.settings or "mask_token" in config.special_tokens_map
    by_class = config.tokenizer_class.mask_takes_space and not config.is_from_transformers_5
    return by_class and not (is_stated and mask in described)


def read_listed_tokens(config: TokenizerConfig, specials: Container[str]) -> Iterator[AddedToken]:
    """The tokens of added_tokens_decoder or, before transformers 4.34, of added_tokens.json, sorted by id."""
    decoder: dict[str, Any] | None = config.read_field("added_tokens_decoder", dict)
    if decoder is not None:
        for _, token in sorted(decoder.items(), key=lambda item: parse_id(item[0], config)):
            yield parse_token(token, config)
        return
    by_content = read_json_if_exists(config.folder / "added_tokens.json")
    for content, _ in sorted(by_content.items(), key=lambda item: parse_id(item[1], config)):
        yield AddedToken(content, special=content in specials)


def read_further_special_tokens(config: TokenizerConfig) -> list[Any]:
    """Special tokens that are not one of NAMES: additional_special_tokens, and extra_special_tokens, which may be an
    object."""
    stated = config.read_field("additional_special_tokens", list)
    mapped = config.special_tokens_map.get("additional_special_tokens")
    tokens = [*(config.tokenizer_class.additional if stated is None else stated)]
    tokens += mapped if isinstance(mapped, list) else []
    extra = config.settings.get("extra_special_tokens") or []
    if not isinstance(extra, dict | list):
        raise CheckpointError(
            f"{config.folder / CONFIG_FILE}: extra_special_tokens {extra!r} is neither a list nor an object"
        )
    extras = list(extra.values()) if isinstance(extra, dict) else extra
    if not config.is_from_transformers_5:
        return [*tokens, *extras]
    # In version 5 a list is the new name of additional_special_tokens, and tokens by name come first.
    return extras if extra and isinstance(extra, list) else [*extras, *tokens]


def parse_token(token: Any, config: TokenizerConfig, *, special: bool | None = None) -> AddedToken:
    """A token that transformers wrote as a string or an object. Raises CheckpointError."""
    if isinstance(token, str):
        return AddedToken(token, special=True)
    if not isinstance(token, dict) or not isinstance(token.get("content"), str):
        raise CheckpointError(f"{config.folder / CONFIG_FILE} has the added token {token!r}, which has no content")
    flags: dict[str, bool] = {name: token[name] for name in FLAGS if isinstance(token.get(name), bool)}
    return AddedToken(token["content"], **{**flags, **({} if special is None else {"special": special})})


def parse_id(value: Any, config: TokenizerConfig) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        raise CheckpointError(f"{config.folder}: an added token has the id {value!r}, which is not a number") from None
