"""A small decoder and its calibration for tests of quantized builds."""

from pathlib import Path

import pytest

from engine_svc.build.calibration import Calibration, calibrate
from heddle.checkpoint import Checkpoint
from tests.engine_svc.build.quantized_folders import random_sequences
from tests.engine_svc.models.trained_like import DECODERS, write_decoder


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("decoder")
    write_decoder(folder, DECODERS[2])
    return folder


@pytest.fixture(scope="module")
def calibration(decoder: Path) -> Calibration:
    checkpoint = Checkpoint.read(decoder)
    return calibrate(checkpoint, random_sequences(checkpoint.vocabulary_size), devices=["cpu"], dtype="float32")
