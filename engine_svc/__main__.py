"""Starts an engine pod. `engine-svc --help` explains. The pod itself is `engine_svc.pod`."""

import os
import sys
from typing import NoReturn

from engine_svc.settings import EngineSettings
from engine_svc.torch_import import load_libraries_in_background
from heddle.rpc.settings import load
from heddle.rpc.settings_table import log_settings
from heddle.telemetry.logs import start_logging


def main() -> NoReturn:
    # Read when oneDNN compiles its first primitive. Each shape and number of cores has one, and it keeps 1,024
    # otherwise.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "4096")
    # Without this, PyTorch searches all installed packages for plugins of other devices. The engine supports none.
    os.environ.setdefault("TORCH_DEVICE_BACKEND_AUTOLOAD", "0")
    # Both are for TensorRT-LLM. Without the first it reports its use to NVIDIA.
    os.environ["TRTLLM_NO_USAGE_STATS"] = "1"
    # Without this one it loads the model in another process, where our model class is not registered.
    os.environ["TLLM_WORKER_USE_SINGLE_PROCESS"] = "1"
    origins: dict[str, str] = {}
    settings = load(
        EngineSettings, sys.argv[1:], os.environ, prog="engine-svc", env_prefix="HEDDLE_ENGINE_", origins=origins
    )
    start_logging("engine_svc", log_format=settings.log_format, log_level=settings.log_level)
    log_settings(settings, origins)
    if settings.backend != "simulated":
        load_libraries_in_background()
    # Imported here to overlap with the loading of the libraries.
    from engine_svc.pod import serve
    from engine_svc.startup import hide_other_gpus
    from heddle.rpc.process import run
    from heddle.rpc.start_times import end_phase
    from heddle.telemetry.trace_settings import use_collector

    end_phase("imports")
    run(lambda: serve(use_collector(hide_other_gpus(settings, os.environ), os.environ)))


if __name__ == "__main__":
    main()
