"""The engine pod: token ids in, vectors out. Runs a model in continuous, token-budgeted batches; never sees text."""

from heddle.rpc.grpc_core import use_older_client

use_older_client()
