"""Changes a checkpoint that today's transformers wrote into the layout of the hub: that of an older version, or that of
a model's own code, with other names for the same settings and tensors."""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

# Of the config of a decoder, by layer type, in transformers 5.
FULL, SLIDING = "full_attention", "sliding_attention"


def change_config(folder: Path, *, without: Iterable[str] = (), **changes: Any) -> None:
    path = folder / "config.json"
    config = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({name: value for name, value in config.items() if name not in without}))


def rename_tensors(
    folder: Path, name_of: Callable[[str], str | None], *, add: Mapping[str, Tensor] | None = None
) -> None:
    """None leaves the tensor out."""
    path = folder / "model.safetensors"
    tensors = {name_of(name): tensor for name, tensor in load_file(path).items()}
    save_file({name: tensor for name, tensor in tensors.items() if name is not None} | dict(add or {}), path)


def as_transformers_4(folder: Path) -> None:
    """rope_theta and rope_scaling beside each other, torch_dtype, and no layer_types."""
    config = json.loads((folder / "config.json").read_text())
    stated = config["rope_parameters"]
    change_config(
        folder,
        without=("rope_parameters", "dtype", "layer_types"),
        torch_dtype=config["dtype"],
        transformers_version="4.46.0",
        rope_theta=stated.get(FULL, stated)["rope_theta"],
        rope_scaling=read_scaling(stated.get(FULL, stated)),
        **({"rope_local_base_freq": stated[SLIDING]["rope_theta"]} if SLIDING in stated else {}),
    )


def read_scaling(parameters: dict[str, Any]) -> dict[str, Any] | None:
    if parameters["rope_type"] == "default":
        return None
    scaling = {name: value for name, value in parameters.items() if name not in ("rope_theta", "rope_type")}
    # Llama's said rope_type from the start, others type.
    return {"rope_type" if parameters["rope_type"] == "llama3" else "type": parameters["rope_type"], **scaling}
