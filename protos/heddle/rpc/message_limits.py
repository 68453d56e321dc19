"""How large a gRPC message may be. For settings, which must not import gRPC, and for `channels` and `message_bytes`."""

# One item is at most one request or one answer: 2,048 vectors of 4,096 float32 are 32 MiB.
MESSAGE_BYTES_MAX = 256 << 20
# The largest request that our clients send, and by default the largest that a server receives: a client that begins
# messages and does not finish them makes a server hold as much for each. A gateway's bodies have 8 MiB by default.
REQUEST_BYTES_MAX = 64 << 20


def check_message_bytes(message_bytes_max: int) -> None:
    """Raises ValueError. Called by `__post_init__` of settings."""
    if not 1 << 20 <= message_bytes_max <= MESSAGE_BYTES_MAX:
        raise ValueError(f"message_bytes_max must be from {1 << 20} to {MESSAGE_BYTES_MAX}, not {message_bytes_max}")
