"""A small service in a process of its own, for the tests of the lifecycle: `service_process.py ADDRESS KIND`.

KIND says how its warm-up goes: quick, slow (a thread sleeps), misconfigured or broken. Encode answers after as many
milliseconds as it is sent sequences.
"""

import asyncio
import sys
import time
from typing import Any

from heddle.rpc.lifecycle import Server
from heddle.rpc.process import run
from heddle.rpc.settings import ConfigurationError
from heddle.telemetry.logs import start_logging
from heddle.v1 import engine_pb2, engine_pb2_grpc

NAME = "heddle.v1.EngineService"


class SlowServicer(engine_pb2_grpc.EngineServiceServicer):
    async def Encode(self, request: engine_pb2.EncodeRequest, context: Any) -> engine_pb2.EncodeResponse:
        await asyncio.sleep(len(request.sequences.lengths) / 1000)
        return engine_pb2.EncodeResponse(outcome=engine_pb2.Outcome(id=len(request.sequences.lengths)))


async def warm_up(kind: str) -> None:
    if kind == "slow":
        await asyncio.to_thread(time.sleep, 60)
    if kind == "misconfigured":
        raise ConfigurationError("/no/model is not a model folder")
    if kind == "broken":
        raise RuntimeError("the device failed")


async def report(text: str) -> None:
    print(text, flush=True)


async def serve(address: str, kind: str) -> None:
    server = Server([address], drain_s_max=0.5 if kind == "impatient" else 20)
    servicer = SlowServicer()
    server.add(NAME, engine_pb2_grpc.add_EngineServiceServicer_to_server, servicer)
    await server.serve(
        warm_up=lambda: warm_up(kind),
        announce_draining=lambda: report("draining"),
        until_idle=lambda: report("idle"),
        close=lambda: report("closed"),
    )


if __name__ == "__main__":
    start_logging("loom", log_format="text", log_level="info")
    run(lambda: serve(*sys.argv[1:]))
