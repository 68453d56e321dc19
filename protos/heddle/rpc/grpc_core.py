"""How the C core of gRPC moves bytes in a service. Each service's package calls this when it is imported."""

import os

# The core's newer I/O passes every read and write through a pool of threads. The older one works on the thread that
# polls for asyncio: with it, a message there and back over grpc.aio needs 20 context switches and not 26. Connections
# that a server accepts keep the newer one: with the older, one that floods it with pings stalls all others.
OLDER_CLIENT = "-event_engine_client"


def use_older_client() -> None:
    """The core reads the variable when `grpc` is imported, so this must be called before."""
    os.environ.setdefault("GRPC_EXPERIMENTS", OLDER_CLIENT)
