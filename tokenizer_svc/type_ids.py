"""Whether a model is given the token type ids that its tokenizer.json has for pairs. `Tokenizer.load` asks."""

from pathlib import Path

from heddle.checkpoint_files import read_json_if_there

TYPE_IDS = "token_type_ids"

# What transformers 5 calls a tokenizer that is nothing but its tokenizer.json: to it, it gives no type ids by default.
PLAIN_TOKENIZER = "TokenizersBackend"


def gives_type_ids(folder: Path) -> bool:
    """As transformers reads tokenizer_config.json."""
    settings = read_json_if_there(folder / "tokenizer_config.json")
    names = settings.get("model_input_names")
    if isinstance(names, list):
        return TYPE_IDS in names
    return settings.get("tokenizer_class") != PLAIN_TOKENIZER
