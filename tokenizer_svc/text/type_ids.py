"""Whether a model is given the token type ids that its tokenizer.json has for pairs, and which ones a caller may send.
`tokenizer_svc.text.tokenization` asks."""

from pathlib import Path

from heddle.checkpoint.json_files import read_json_if_exists
from heddle.checkpoint.tokenizer_files import PLAIN_TOKENIZER
from heddle.rpc.errors import ErrorKind, HeddleError

TYPE_IDS = "token_type_ids"


def gives_type_ids(folder: Path) -> bool:
    """Reads tokenizer_config.json as transformers does. Version 5 gives its plain tokenizer no type ids by default."""
    settings = read_json_if_exists(folder / "tokenizer_config.json")
    names = settings.get("model_input_names")
    if isinstance(names, list):
        return TYPE_IDS in names
    return settings.get("tokenizer_class") != PLAIN_TOKENIZER


def type_id_error(type_ids: bytes, tokens: int) -> HeddleError | None:
    """Those of many sequences travel as one, so that none may have too few."""
    if type_ids and len(type_ids) != tokens:
        return HeddleError(ErrorKind.INVALID_INPUT, "type ids must be empty or one byte per token")
    if max(type_ids, default=0) > 1:
        return HeddleError(ErrorKind.INVALID_INPUT, "a type id must be 0 or 1")
    return None
