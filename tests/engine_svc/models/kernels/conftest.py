"""Tests of kernels on the CPU. Loaded before the tests of this folder, so that Triton interprets their kernels."""

import tests.engine_svc.models.kernels.interpreter  # noqa: F401
