"""Options of every gRPC channel and server of Heddle. Used by pods, unary clients, servers and tests."""

import grpc

from heddle.rpc.credentials import PLAINTEXT, Access
from heddle.rpc.message_limits import MESSAGE_BYTES_MAX, REQUEST_BYTES_MAX

# A dead peer is noticed within KEEPALIVE_S + KEEPALIVE_TIMEOUT_S even when nothing is being sent.
KEEPALIVE_S = 20
KEEPALIVE_TIMEOUT_S = 10

# Concurrent calls of one connection; further calls wait in the client. A proxy may use one connection for all clients.
STREAMS_MAX = 4096
# A connection whose TLS or HTTP/2 handshake takes longer is closed.
HANDSHAKE_S_MAX = 20

Options = list[tuple[str, int | str]]

SHARED_OPTIONS: Options = [
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.keepalive_time_ms", KEEPALIVE_S * 1000),
    ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_S * 1000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # What a peer may send before it is read: a small outcome waits for the pieces of large ones that were sent before
    # it. Otherwise gRPC grows this to megabytes.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 512 << 10),
]

SERVER_OPTIONS: Options = [
    *SHARED_OPTIONS,
    # Otherwise two servers could share a port unnoticed.
    ("grpc.so_reuseport", 0),
    # A client that pings more often than this is disconnected.
    ("grpc.http2.min_ping_interval_without_data_ms", KEEPALIVE_S * 500),
    ("grpc.max_concurrent_streams", STREAMS_MAX),
    ("grpc.server_handshake_timeout_ms", HANDSHAKE_S_MAX * 1000),
]

CLIENT_OPTIONS: Options = [
    *SHARED_OPTIONS,
    # Retries are ours: a stream's items move to another pod.
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 50),
    # The time for connecting. If nobody listens, an attempt fails at once, and the other two space the attempts.
    ("grpc.min_reconnect_backoff_ms", 2000),
    ("grpc.max_reconnect_backoff_ms", 500),
    # Each channel has its own connection, so closing one never disturbs another.
    ("grpc.use_local_subchannel_pool", 1),
]


def open_channel(
    target: str, access: Access = PLAINTEXT, server_name: str = "", options: Options = CLIENT_OPTIONS
) -> grpc.aio.Channel:
    """Opens a channel to one pod, or with other options to several. Their certificate must be for `server_name`, unless
    `access` names another. Raises ConfigurationError for a file that cannot be used."""
    if access.tls is None or target.startswith("unix:"):
        return grpc.aio.insecure_channel(target, options=options)
    name = access.tls.server_name or server_name
    options = [*options, ("grpc.ssl_target_name_override", name)] if name else options
    return grpc.aio.secure_channel(target, access.tls.channel_credentials(), options=options)


def server_options(message_bytes_max: int = REQUEST_BYTES_MAX) -> Options:
    """`message_bytes_max` limits what a client sends in one message."""
    options = [option for option in SERVER_OPTIONS if option[0] != "grpc.max_receive_message_length"]
    return [*options, ("grpc.max_receive_message_length", message_bytes_max)]
