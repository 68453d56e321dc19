"""Chooses the backend of `--backend auto`, and checks one of tensorrt_llm. `engine_svc.__main__` calls it at start."""

import logging
from typing import Literal

from engine_svc.device import Device
from engine_svc.settings import EngineSettings
from heddle.checkpoint import Checkpoint
from heddle.rpc.settings import ConfigurationError

log = logging.getLogger(__name__)


def chosen_backend(
    settings: EngineSettings, checkpoint: Checkpoint, device: Device
) -> Literal["torch", "tensorrt_llm", "simulated"]:
    """Raises ConfigurationError if the settings ask for TensorRT-LLM and it cannot serve the checkpoint."""
    if settings.backend in ("torch", "simulated"):
        return settings.backend
    from engine_svc.backends.tensorrt_llm.fitness import check_fitness

    try:
        check_fitness(settings, checkpoint, device)
    except ConfigurationError as error:
        if settings.backend == "tensorrt_llm":
            raise ConfigurationError(f"backend tensorrt_llm: {error}") from None
        log.info("backend auto: torch, not tensorrt_llm: %s", error)
        return "torch"
    log.info("backend %s: tensorrt_llm, which serves this checkpoint on this GPU", settings.backend)
    return "tensorrt_llm"
