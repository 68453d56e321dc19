"""Services set options of gRPC's core before they import gRPC. Other processes do not set them."""

import os
import subprocess
import sys

import pytest

from heddle.rpc.grpc_core import OLDER_CLIENT


def printed_by(code: str, **variables: str) -> str:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GRPC_")}
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
    code = "import engine_svc, grpc; grpc.insecure_channel('localhost:1'); print('ok')"
    assert printed_by(code) == "ok"


def test_a_client_does_not_set_the_option() -> None:
    assert printed_by("import os, heddle.client; print(os.environ.get('GRPC_EXPERIMENTS'))") == "None"


HOSTILE = """
import asyncio, socket, threading
import tokenizer_svc
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import RequestReceived
from heddle.client import Client
from heddle.rpc.waiting import poll_until
from heddle.telemetry.logs import start_logging

def serve(listener):
    while True:
        client, _ = listener.accept()
        connection = H2Connection(H2Configuration(client_side=False))
        connection.initiate_connection()
        while data := client.recv(65536):
            if any(isinstance(event, RequestReceived) for event in connection.receive_data(data)):
                connection.close_connection(error_code=2, additional_data=b"\\x1b[2J\\n00:00 info: all is well\\r")
            client.sendall(connection.data_to_send())
            if connection.state_machine.state.name == "CLOSED":
                break
        client.close()

async def main():
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=serve, args=(listener,), daemon=True).start()
    client = Client(f"127.0.0.1:{listener.getsockname()[1]}")
    await client.start()
    (pod,) = client._pool._pods.values()
    await poll_until(lambda: pod.refusals.last is not None)
    print(ascii(pod.refusals.last.message))
    await client.close()

start_logging("test", log_format="text", log_level="info")
asyncio.run(asyncio.wait_for(main(), 10))
"""


def test_what_a_peer_says_when_it_closes_a_connection_does_not_reach_the_log_raw() -> None:
    assert r"\x1b[2J\n00:00 info: all is well\r" in printed_by(HOSTILE)  # and nothing is on stderr
