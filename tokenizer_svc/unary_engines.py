"""Sends each submission as a unary call, for a proxy or service mesh that balances calls: `--engine-transport unary`.

`tokenizer_svc.__main__` makes it in place of `Engines`. The proxy chooses the pod, or the channel does, by the pods'
load reports, if the target has several addresses. Hedging is left to the proxy. A call is repeated here only if its
pod was lost.
"""

import asyncio
import json
import random
import time
from collections.abc import Callable
from typing import Any

import grpc

from heddle.rpc.channels import CLIENT_OPTIONS, open_channel
from heddle.rpc.credentials import PLAINTEXT, Access
from heddle.rpc.deadlines import NEVER, deadline_exceeded
from heddle.rpc.errors import ErrorKind, HeddleError
from heddle.rpc.pool_counts import PoolCounts
from heddle.rpc.refusals import Refusals, explain, explain_absence
from heddle.rpc.stream import Cancel, Reply, nothing_to_cancel
from heddle.rpc.traced_submit import end_on_cancel, end_on_reply, start_call
from heddle.rpc.unary import to_metadata
from heddle.telemetry.tracing import Tracing
from heddle.v1 import engine_pb2, model_pb2
from heddle.v1.engine_pb2_grpc import EngineServiceStub
from tokenizer_svc.engines import check_model

# Calls in progress; beyond them, submissions are refused as OVERLOADED.
CALLS_MAX = 32_768
# Attempts of a submission whose pods are lost.
ATTEMPTS_MAX = 3
RETRY_S = 0.1
# How long a submission waits while no pod can be reached. A pod that restarts is back within that time.
NO_POD_S_MAX = 10.0
# The interval and the timeout of checks whether engines can be reached. After FAILED_CHECKS_MAX failed checks in a row,
# they count as unreachable.
CHECK_S, CHECK_S_MAX = 2.0, 5.0
FAILED_CHECKS_MAX = 3
# After certificates or keys have changed, calls on the old channel may take this long to finish.
RENEW_S_MAX = 10.0

BALANCING = {
    "loadBalancingConfig": [
        {"weighted_round_robin": {"blackoutPeriod": "1s", "weightUpdatePeriod": "0.5s"}},
        {"round_robin": {}},
    ]
}
OPTIONS = [*CLIENT_OPTIONS, ("grpc.service_config", json.dumps(BALANCING))]


class UnaryEngines:
    """`submit` is a `Submit` (see heddle.rpc.stream). Used on one event loop."""

    def __init__(
        self,
        target: str,
        own: model_pb2.Model,
        *,
        access: Access = PLAINTEXT,
        on_change: Callable[[bool], None] = lambda ready: None,
        tracing: Tracing | None = None,
    ) -> None:
        """`own` describes the tokenizer's checkpoint. `on_change` is called with True when the engines can be reached,
        and with False when they no longer can."""
        self.model = model_pb2.Model()
        self.counts = PoolCounts()
        self._target = target
        self._own = own
        self._access = access
        self._on_change = on_change
        self._tracing = tracing
        self._ready = asyncio.Event()
        self._refusals = Refusals(target)
        self._failed_checks = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._calls: set[asyncio.Timeout] = set()  # in progress; each ends when no pod has been reached for too long
        self.unanswered = 0  # submissions
        self._connect()

    def _connect(self) -> None:
        self._versions = self._access.versions()
        self._metadata = self._access.metadata()
        self._channel = open_channel(self._target, self._access, options=OPTIONS)
        self._stub: Any = EngineServiceStub(self._channel)

    @property
    def ready(self) -> bool:
        return self._ready.is_set()

    def refusal(self) -> HeddleError:
        """Why the engines cannot be reached, as far as is known."""
        return explain_absence([self._refusals], (self._target,))

    async def start(self) -> None:
        self._keep(self._watch())

    async def wait_ready(self) -> None:
        await self._ready.wait()

    async def close(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._channel.close()

    def submit(self, item: engine_pb2.Submission, deadline: float, reply: Reply[engine_pb2.Outcome]) -> Cancel:
        if len(self._tasks) >= CALLS_MAX:
            reply(HeddleError(ErrorKind.OVERLOADED, "too much is waiting already", retry_after_ms=1000))
            return nothing_to_cancel
        span = None
        if self._tracing is not None:
            span = start_call(self._tracing, "heddle.v1.EngineService/Encode", item.context)
            reply = end_on_reply(span, reply) if span else reply
        task = self._keep(self._answer(item, deadline, reply))

        def cancel() -> None:
            task.cancel()

        return end_on_cancel(span, cancel) if span else cancel

    def _keep(self, work: Any) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _answer(self, item: engine_pb2.Submission, deadline: float, reply: Reply[engine_pb2.Outcome]) -> None:
        self.unanswered += 1
        try:
            outcome: engine_pb2.Outcome | HeddleError = await self._call(item, deadline)
        except Exception as error:  # noqa: BLE001 - logged, unless it is a HeddleError
            outcome = HeddleError.from_exception(error)
        finally:
            self.unanswered -= 1
        reply(outcome)

    async def _call(self, item: engine_pb2.Submission, deadline: float) -> engine_pb2.Outcome:
        try:
            async with asyncio.timeout(None if self.ready else NO_POD_S_MAX) as patience:
                self._calls.add(patience)
                return await self._try(item, deadline)
        except TimeoutError:
            raise self.refusal() from None
        finally:
            self._calls.discard(patience)

    def _set_ready(self, *, ready: bool) -> None:
        (self._ready.set if ready else self._ready.clear)()
        until = None if ready else asyncio.get_running_loop().time() + NO_POD_S_MAX
        for patience in self._calls:
            patience.reschedule(until)
        self._on_change(ready)

    async def _try(self, item: engine_pb2.Submission, deadline: float) -> engine_pb2.Outcome:
        request = engine_pb2.EncodeRequest(
            sequences=item.sequences, tokenizer_fingerprint=self._own.tokenizer_fingerprint
        )
        metadata = to_metadata(item.context)
        for attempt in range(1, ATTEMPTS_MAX + 1):
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                break
            try:
                response = await self._stub.Encode(
                    request,
                    timeout=None if left_s == NEVER else left_s,
                    metadata=(*metadata, *self._metadata),
                    wait_for_ready=True,
                )
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                    break
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise explain(error, self._target, self._access) from None
                if attempt == ATTEMPTS_MAX:
                    self.counts.abandoned += 1
                    raise explain(error, self._target, self._access) from None
                self.counts.resent += 1
                await asyncio.sleep(RETRY_S * attempt * random.uniform(0.5, 1.5))
            else:
                return response.outcome  # type: ignore[no-any-return]
        self.counts.expired += 1
        raise deadline_exceeded() if self.ready else self.refusal()

    async def _watch(self) -> None:
        while True:
            try:
                if self._access.versions() != self._versions and self._access.is_usable(self._target):
                    self._keep(self._channel.close(RENEW_S_MAX))
                    self._connect()
                await self._check()
            except Exception as error:  # noqa: BLE001 - whatever it is, look again
                self._on_refusal(explain(error, self._target, self._access))
            await asyncio.sleep(RETRY_S if self._failed_checks else CHECK_S)

    async def _check(self) -> None:
        request = engine_pb2.EngineServiceGetModelRequest()
        response = await self._stub.GetModel(request, timeout=CHECK_S_MAX, metadata=self._metadata)
        check_model(response.model, self._own)
        self.model = response.model
        self._refusals.clear()
        self._failed_checks = 0
        if not self.ready:
            self._set_ready(ready=True)

    def _on_refusal(self, error: HeddleError) -> None:
        self._refusals.note(error)
        self._failed_checks += 1
        if self.ready and self._failed_checks >= FAILED_CHECKS_MAX:
            self._set_ready(ready=False)
