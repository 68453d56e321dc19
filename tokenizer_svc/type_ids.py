"""Whether a model is given the token type ids that its tokenizer.json has for pairs. `Tokenizer.load` asks."""

from pathlib import Path

from heddle.checkpoint_files import read_json_if_there
from heddle.tokenizer_files import PLAIN_TOKENIZER

TYPE_IDS = "token_type_ids"


def gives_type_ids(folder: Path) -> bool:
    """Reads tokenizer_config.json as transformers does. Version 5 gives its plain tokenizer no type ids by default."""
    settings = read_json_if_there(folder / "tokenizer_config.json")
    names = settings.get("model_input_names")
    if isinstance(names, list):
        return TYPE_IDS in names
    return settings.get("tokenizer_class") != PLAIN_TOKENIZER
