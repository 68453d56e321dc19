"""How the C core of gRPC moves bytes and logs in a service. Each service's package calls this when it is imported."""

import os

# The core's newer I/O passes every read and write through a pool of threads. The older one works on the thread that
# polls for asyncio: with it, a message there and back over grpc.aio needs 20 context switches and not 26. Connections
# that a server accepts keep the newer one: with the older, one that floods it with pings stalls all others.
OLDER_CLIENT = "-event_engine_client"
# At the level below, it prints what a peer says when it closes a connection, with any control characters. Our own log
# has that too, escaped.
VERBOSITY = "ERROR"


def configure_core() -> None:
    """The core reads the variables when `grpc` is imported, so this must be called before."""
    os.environ.setdefault("GRPC_EXPERIMENTS", OLDER_CLIENT)
    os.environ.setdefault("GRPC_VERBOSITY", VERBOSITY)
