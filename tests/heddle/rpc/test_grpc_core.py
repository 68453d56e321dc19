"""Services set the option of gRPC's core before they import gRPC. Other processes do not set it."""

import os
import subprocess
import sys

import pytest

from heddle.rpc.grpc_core import OLDER_CLIENT


def printed_by(code: str, **variables: str) -> str:
    environ = {name: value for name, value in os.environ.items() if name != "GRPC_EXPERIMENTS"}
    environ["PYTHONPATH"] = os.pathsep.join(sys.path)
    run = subprocess.run(
        [sys.executable, "-c", code], env={**environ, **variables}, capture_output=True, text=True, check=True
    )
    assert not run.stderr  # the core would warn of an unknown experiment
    return run.stdout.strip()


@pytest.mark.parametrize("service", ["engine_svc", "tokenizer_svc", "http_gateway"])
def test_a_service_sets_the_option_before_it_imports_grpc(service: str) -> None:
    code = f"import os, sys, {service}; print(os.environ['GRPC_EXPERIMENTS'], 'grpc' in sys.modules)"
    assert printed_by(code) == f"{OLDER_CLIENT} False"
    assert printed_by(code, GRPC_EXPERIMENTS="fancy") == "fancy False"


def test_the_core_knows_the_option() -> None:
    assert printed_by("import engine_svc, grpc; grpc.insecure_channel('localhost:1'); print('ok')") == "ok"


def test_a_client_does_not_set_the_option() -> None:
    assert printed_by("import os, heddle.client; print(os.environ.get('GRPC_EXPERIMENTS'))") == "None"
