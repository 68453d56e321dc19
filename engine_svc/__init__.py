"""The engine pod: token ids in, vectors out. Runs a model in continuous, token-budgeted batches; never sees text."""

from heddle.rpc.grpc_core import configure_core

configure_core()
