"""The HTTP gateway: serves the HTTP APIs of OpenAI, BEI, TEI and others by calling tokenizer pods over gRPC."""

from heddle.rpc.grpc_core import configure_core

configure_core()
