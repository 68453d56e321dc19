"""The tasks that requests may name, one for each adapter of an embedder, and their prompts (jina-embeddings-v3).

config.json lists the tasks in `lora_adaptations`, and in `task_instructions` the text that Jina's code puts before the
input. Called by `heddle.checkpoint`.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from heddle.checkpoint_files import CheckpointError, field_of
from heddle.sentence_modules import SentenceModules


def tasks_of(config: Mapping[str, Any], path: Path) -> tuple[str, ...]:
    """The tasks, in the order in which their adapters are stored. `path` is that of config.json. Raises
    CheckpointError."""
    names = config.get("lora_adaptations") or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise CheckpointError(f"{path}: lora_adaptations {names!r} is not a list of names")
    return () if config.get("load_trained_adapters") is False else tuple(names)


def with_task_prompts(modules: SentenceModules, config: Mapping[str, Any], path: Path) -> SentenceModules:
    """Adds the prompts of config.json. A prompt in sentence-transformers' files takes precedence over one of the same
    name. Raises CheckpointError."""
    instructions = field_of(config, "task_instructions", dict, path, {})
    prompts = {task: str(instructions[task] or "") for task in tasks_of(config, path) if task in instructions}
    return replace(modules, prompts={**prompts, **modules.prompts})
