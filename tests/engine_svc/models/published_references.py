"""Writes a published checkpoint with random weights, and returns a reference for its outputs. Makes batches for it.

If transformers has the checkpoint's class, it reads the folder itself. Otherwise the reference is that of `cases_of/`,
which was compared with the authors' code, with the published settings.
"""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file
from sentence_transformers.util import import_from_string
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import Tensor
from transformers import AutoConfig, PreTrainedModel

from engine_svc.sequences import PackedBatch
from heddle.checkpoint import Checkpoint, ModelKind
from heddle.checkpoint.causality import is_causal
from tests.checkpoints import write_json
from tests.engine_svc.models import published_code
from tests.engine_svc.models.cases import OUTPUTS, Reference, make_reference, randomize
from tests.engine_svc.models.published_checkpoints import HIDDEN_NAMES, VOCABULARY, Json, Published, stated
from tests.sequences import Sequence as TokenSequence
from tests.sequences import packed

Tensors = Mapping[str, Tensor]

SPECIAL_TOKENS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>", "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

AUTO_CLASSES: Mapping[ModelKind, Any] = {
    ModelKind.EMBEDDER: transformers.AutoModel,
    ModelKind.SPARSE_EMBEDDER: transformers.AutoModelForMaskedLM,
    ModelKind.RERANKER: transformers.AutoModelForSequenceClassification,
    ModelKind.CLASSIFIER: transformers.AutoModelForSequenceClassification,
    ModelKind.TOKEN_CLASSIFIER: transformers.AutoModelForTokenClassification,
}

# The longest exceeds every sliding window, and has distances that share a bucket.
LENGTHS = (1, 2, 3, 17, 64, 150)


def random_batch(published: Published, checkpoint: Checkpoint) -> PackedBatch:
    """Ids without the padding id, which has no position in some models."""
    rng = np.random.default_rng(0)
    padding = checkpoint.config.get("pad_token_id")
    choices = np.array([token for token in range(VOCABULARY) if token != padding], np.uint32)
    with_types = published_code.has_types(checkpoint.config)
    sequences = [
        TokenSequence(
            rng.choice(choices, length).tobytes(),
            rng.integers(0, 2, length, dtype=np.uint8).tobytes() if with_types else b"",
            output=OUTPUTS[published.kind],
        )
        for length in LENGTHS
    ]
    return packed(sequences)


def write(published: Published, folder: Path) -> Reference:
    """Writes the folder as on the hub. Returns its reference: token vectors of an embedder, else the head's outputs."""
    files = published.small_files()
    for name, content in files.items():
        write_json(folder / name, content)
    config = files["config.json"]
    write_tokenizer(folder)
    write_dense(folder, files)
    write_linears(published, folder, hidden=stated(config, HIDDEN_NAMES))
    for name in published.content.get("beside", []):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"not for us")
    compute = published_code.find_reference(published, config)
    if compute is not None:
        write_weights(published, folder, compute.tensors)
        return compute.reference
    model = native_model(folder, config)
    write_weights(published, folder, names_of_transformers(model, folder / "as_transformers_saves"))
    return native_reference(published, folder, config)


def native_model(folder: Path, config: Json) -> PreTrainedModel:
    """A model with random weights that the published data type can hold, so that storing them loses nothing."""
    settings = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    model_class: type[PreTrainedModel] = getattr(transformers, config["architectures"][0])
    model = published_code.scale_embeddings(randomize(model_class(settings)))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.to(published_code.read_dtype(config)))
    return model


def native_reference(published: Published, folder: Path, config: Json) -> Reference:
    """Loads the folder with transformers, and checks that no weight is missing."""
    settings = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    if "auto_map" in config and not is_causal(
        config
    ):  # the authors' code is bidirectional, though the config does not say so
        settings.is_causal = False
    score = published.small_files().get("1_LogitScore/config.json")
    auto_class: Any = AUTO_CLASSES[published.kind] if score is None else transformers.AutoModelForCausalLM
    model, found = auto_class.from_pretrained(
        folder,
        config=settings,
        dtype=torch.float32,
        trust_remote_code=False,
        attn_implementation="eager",
        output_loading_info=True,
    )
    missing = [name for name in found["missing_keys"] if "pooler" not in name]
    assert not missing, f"transformers misses {missing}"
    if score is not None:
        return logit_score(model, score["true_token_id"], score["false_token_id"])
    has_types = published_code.has_types(config)
    return make_reference(model.train(mode=False), published.kind, has_types=has_types)


def logit_score(model: PreTrainedModel, true_id: int, false_id: int) -> Reference:
    def reference(ids: Tensor, types: Tensor) -> Tensor:
        logits: Tensor = model(input_ids=ids).logits[0, -1]
        return (logits[true_id] - logits[false_id])[None]

    return reference


def names_of_transformers(model: PreTrainedModel, folder: Path) -> Tensors:
    model.save_pretrained(folder)
    tensors = load_file(folder / "model.safetensors")
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    return tensors


def write_weights(published: Published, folder: Path, tensors: Tensors) -> None:
    """Writes the tensors under the published names, in the published data type and number of files."""
    content = published.content
    config = content["files"]["config.json"]
    named: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        published_name = name
        for pattern, replacement in content.get("renamed", {}).items():
            published_name = re.sub(pattern, replacement, published_name)
        if published_name:  # "" leaves the tensor out
            named[published_name] = tensor.to(published_code.read_dtype(config)).contiguous()
    for name in content.get("buffers", []):
        named[name] = torch.arange(config["max_position_embeddings"])[None]
    check_names(published, named)
    if content.get("weights") == "pytorch_model.bin":
        torch.save(named, folder / "pytorch_model.bin")
        return
    shards = content.get("shards", 1)
    if shards == 1:
        save_file(named, folder / "model.safetensors", metadata={"format": "pt"})
        return
    names = sorted(named)
    shard_of = {name: f"model-{index % shards + 1:05}-of-{shards:05}.safetensors" for index, name in enumerate(names)}
    for shard in set(shard_of.values()):
        save_file({name: named[name] for name in names if shard_of[name] == shard}, folder / shard)
    write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": 0}, "weight_map": shard_of})


def check_names(published: Published, named: Tensors) -> None:
    """Checks that all names which `tensors` lists from the hub are there; {} stands for the number of a layer."""
    listed = set(published.content["tensors"])
    present = {re.sub(r"(layers?|layer_groups)\.\d+\.", r"\1.{}.", name) for name in named}
    assert listed <= present, f"{published.name} would have {sorted(present)}"


def write_dense(folder: Path, files: Mapping[str, Any]) -> None:
    """Writes the weights of each Dense module into its folder."""
    generator = torch.Generator().manual_seed(3)
    for name, settings in files.items():
        if "in_features" not in settings:
            continue
        shape = (settings["out_features"], settings["in_features"])
        tensors = {"linear.weight": torch.randn(shape, generator=generator) / shape[1] ** 0.5}
        if settings.get("bias", True):
            tensors["linear.bias"] = torch.randn(shape[:1], generator=generator)
        save_file(tensors, folder / Path(name).parent / "model.safetensors")


def write_linears(published: Published, folder: Path, *, hidden: int) -> None:
    """Writes the extra linears of bge-m3 with torch.save. `linears` has the number of rows by name; "hidden" is the
    hidden size."""
    for name, rows in published.content.get("linears", {}).items():
        torch.save(torch.nn.Linear(hidden, hidden if rows == "hidden" else rows).state_dict(), folder / name)


def write_tokenizer(folder: Path) -> None:
    """Writes a tokenizer with a word for each id. The tests use ids, but a checkpoint needs a tokenizer to be read."""
    words = [*SPECIAL_TOKENS, *(f"w{index}" for index in range(len(SPECIAL_TOKENS), VOCABULARY))]
    vocabulary = {word: index for index, word in enumerate(words)}
    Tokenizer(WordLevel(vocabulary, unk_token="<unk>")).save(str(folder / "tokenizer.json"))


def compute_vector(folder: Path) -> Callable[[Tensor], Tensor]:
    """Runs sentence-transformers' own modules on the token vectors [tokens, hidden] of one text."""
    listing = json.loads((folder / "modules.json").read_text())
    classes: list[Any] = [import_from_string(entry["type"]) for entry in listing[1:]]
    modules = [known.load(str(folder / entry["path"])) for known, entry in zip(classes, listing[1:], strict=True)]

    def compute(hidden: Tensor) -> Tensor:
        features = {"token_embeddings": hidden[None], "attention_mask": torch.ones(1, len(hidden), dtype=torch.long)}
        for module in modules:
            features = module.train(mode=False)(features)
        vector: Tensor = features["sentence_embedding"][0]
        return vector

    return compute
