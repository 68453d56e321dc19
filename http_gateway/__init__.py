"""The HTTP gateway: serves the HTTP APIs of OpenAI, BEI, TEI and others by calling tokenizer pods over gRPC."""

from heddle.rpc.grpc_core import use_older_client

use_older_client()
