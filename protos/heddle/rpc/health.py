"""grpc.health.v1 with all of its methods: the library's servicer plus `List`, which the library does not implement.

`heddle.rpc.lifecycle` adds it to each server.
"""

from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2

Response = health_pb2.HealthCheckResponse


class HealthServicer(health.aio.HealthServicer):  # type: ignore[misc]  # not typed
    def __init__(self) -> None:
        super().__init__()
        self._statuses: dict[str, Any] = {health.OVERALL_HEALTH: Response.SERVING}

    async def set(self, service: str, status: Any) -> None:
        self._statuses[service] = status
        await super().set(service, status)

    async def List(
        self, request: health_pb2.HealthListRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> health_pb2.HealthListResponse:
        statuses = {service: Response(status=status) for service, status in self._statuses.items()}
        return health_pb2.HealthListResponse(statuses=statuses)
