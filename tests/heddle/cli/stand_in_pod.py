"""Stands in for each of the three services under `heddle serve`, which starts it by the name of the folder it is in.

It prints its flags, and reports readiness like the real service, by gRPC health or GET /ready. STAND_IN_FAILS names a
service that exits with code 2.
"""

import http.server
import os
import signal
import socket
import socketserver
import sys
import threading
from pathlib import Path
from types import FrameType

from heddle.rpc.lifecycle import Server
from heddle.rpc.process import run

NAME = Path(__file__).parent.name
FLAGS = dict(zip(sys.argv[1::2], sys.argv[2::2], strict=True))
SERVICES = {"engine_svc": "heddle.v1.EngineService", "tokenizer_svc": "heddle.v1.InferenceService"}


class Gateway(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/ready" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def serve_http() -> None:
    server = http.server.HTTPServer(("", 0), Gateway, bind_and_activate=False)
    server.socket = socket.socket(fileno=int(FLAGS["--listen-fd"]))
    server.server_activate()
    local = socketserver.UnixStreamServer(FLAGS["--unix-socket"], Gateway)
    threading.Thread(target=local.serve_forever, daemon=True).start()

    def stop(_: int, __: FrameType | None) -> None:
        threading.Thread(target=server.shutdown).start()

    signal.signal(signal.SIGTERM, stop)
    server.serve_forever()
    print("stopped")


async def serve_grpc() -> None:
    server = Server(FLAGS["--listen"].split(","), drain_s_max=1)
    server.add(SERVICES[NAME], lambda *_: None, None)
    await server.serve()
    print("stopped", flush=True)


if __name__ == "__main__":
    print("started", *sys.argv[1:])
    if os.environ.get("STAND_IN_FAILS") == NAME:
        print("the flags contradict each other")
        sys.exit(2)
    if NAME == "http_gateway":
        serve_http()
    else:
        run(serve_grpc)
