"""Small copies of checkpoints from the hub: one JSON file in `published/` for each.

A file holds the checkpoint's config.json and, if there are any, the files of sentence-transformers. `source` names a
public copy of config.json, or what it was put together from. The other files are those of the same copy or, if it has
none, follow the model card. `small_files` reduces the sizes and keeps all other settings as published.
`test_published.py` writes such a folder, with random weights under the published names, and compares outputs.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from heddle.checkpoint import ModelKind
from heddle.checkpoint.sentence_modules import PoolingSetting

FOLDER = Path(__file__).parent / "published"

VOCABULARY = 97
INTERMEDIATE = 48
HEAD_DIM = 8
# More than ModernBERT's reach of 64 tokens to each side; shorter windows are made for the others.
WINDOW_MAX = 48

# In these, layers of different kinds alternate; so many layers include each kind.
LAYERS = {"modernbert": 4, "gemma3_text": 7, "gemma2": 3, "albert": 3, "nomic_bert": 3}
# The slopes of ALiBi depend on the number of heads.
HEADS_OF_ALIBI = 12

# Names of the sizes in config.json, by architecture.
HIDDEN_NAMES = ("hidden_size", "dim", "n_embd", "pooler_hidden_size")
LAYERS_NAMES = ("num_hidden_layers", "n_layers", "n_layer")
HEADS_NAMES = ("num_attention_heads", "n_heads", "n_head")
INTERMEDIATE_NAMES = ("intermediate_size", "hidden_dim", "n_inner")

Json = dict[str, Any]


@dataclass(frozen=True)
class Published:
    """One file of `published/`."""

    path: Path

    @cached_property
    def content(self) -> Json:
        return json.loads(self.path.read_text(encoding="utf-8"))  # type: ignore[no-any-return]

    @property
    def name(self) -> str:
        """Owner and repository on the hub."""
        return self.path.stem.replace("--", "/")

    @property
    def shown(self) -> str:
        """Its name in the table of models."""
        return str(self.content.get("shown", self.path.stem.partition("--")[2]))

    @property
    def row(self) -> str:
        """The architecture, which is a row of the table of models."""
        return str(self.content["row"])

    @property
    def kind(self) -> ModelKind:
        return ModelKind(self.content["expected"]["kind"])

    @property
    def pooling(self) -> PoolingSetting:
        """The pooling that an operator has to set."""
        return self.content.get("pooling", "auto")  # type: ignore[no-any-return]

    @property
    def adapter(self) -> str:
        return str(self.content.get("adapter", ""))

    def small_files(self) -> dict[str, Any]:
        """The content of each JSON file of the folder, by name."""
        files = self.content["files"]
        config = files["config.json"]
        small = small_config(config)
        hidden, small_hidden = (stated(sizes, HIDDEN_NAMES) for sizes in (config, small))

        def resized(settings: Mapping[str, Any]) -> Json:
            sizes = ("in_features", "out_features", "word_embedding_dimension", "embedding_dimension")
            return tokens_within(settings) | {
                key: max(4, value * small_hidden // hidden) for key, value in settings.items() if key in sizes
            }

        return {
            name: small if content is config else resized(content) if name.endswith("/config.json") else content
            for name, content in files.items()
        }


def small_config(config: Mapping[str, Any]) -> Json:
    """Reduces hidden size, layers, heads, vocabulary and window. As many heads as before share keys and values."""
    heads = stated(config, HEADS_NAMES)
    num_kv_heads = config.get("num_key_value_heads") or heads
    shared = heads // num_kv_heads
    small_key_heads = 1 if num_kv_heads == 1 else 2
    small_heads = small_key_heads * shared if shared > 1 else 4
    if config.get("position_embedding_type") == "alibi":
        small_heads = HEADS_OF_ALIBI
    small: Json = {
        **config,
        "vocab_size": VOCABULARY,
        **{name: small_heads * HEAD_DIM for name in HIDDEN_NAMES if name in config},
        **{name: LAYERS.get(config["model_type"], 2) for name in LAYERS_NAMES if name in config},
        **{name: small_heads for name in HEADS_NAMES if name in config},
        **{name: INTERMEDIATE for name in INTERMEDIATE_NAMES if name in config},
    }
    if "num_key_value_heads" in config:
        small["num_key_value_heads"] = small_key_heads if shared > 1 else small_heads
    if "head_dim" in config:  # keeps the ratio to the hidden size
        width = HEAD_DIM * config["head_dim"] * heads / stated(config, HIDDEN_NAMES)
        small["head_dim"] = 2 * round(width / 2)
    if config.get("embedding_size"):
        small["embedding_size"] = small_heads * HEAD_DIM * config["embedding_size"] // config["hidden_size"]
    if config.get("layer_types"):
        small["layer_types"] = config["layer_types"][: stated(small, LAYERS_NAMES)]
    if config.get("sliding_window"):
        small["sliding_window"] = min(config["sliding_window"], WINDOW_MAX)
    return tokens_within(small)


def tokens_within(settings: Mapping[str, Any]) -> Json:
    """Replaces token ids that are outside the small vocabulary."""
    return {
        name: VOCABULARY - 1 - value % 5
        if name.endswith("_token_id") and isinstance(value, int) and value >= VOCABULARY
        else value
        for name, value in settings.items()
    }


def stated(sizes: Mapping[str, Any], names: tuple[str, ...]) -> int:
    return next(int(sizes[name]) for name in names if name in sizes)


PUBLISHED = [Published(path) for path in sorted(FOLDER.glob("*.json"))]
