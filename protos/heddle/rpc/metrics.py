"""The Prometheus side of a service. Metrics live beside what they measure, in prometheus_client's default registry,
which adds memory, CPU time and open files of the process; names are heddle_<service>_<noun>_<unit>.
"""

import prometheus_client

from heddle.rpc.settings import ConfigurationError

# From 100 us, an idle hop, to 10 s, a long queue.
SECONDS_BUCKETS = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)


def serve_metrics(port: int, host: str = "0.0.0.0") -> int:
    """Answers GET /metrics from a thread of its own until the process ends; returns the port that was bound."""
    try:
        server, _ = prometheus_client.start_http_server(port, host)
    except OSError as error:
        raise ConfigurationError(f"cannot serve metrics on {host}:{port}: {error.strerror}") from error
    return int(server.server_port)
