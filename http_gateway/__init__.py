"""The HTTP gateway: OpenAI and BEI routes on one side, one InferenceService item per request on the other."""

from heddle.rpc.grpc_core import use_older_client

use_older_client()
