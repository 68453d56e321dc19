"""How much is taken on at once. Called by the app for every request that is work; beyond a limit it is 429 at once."""

from typing import Self

from heddle.rpc.errors import ErrorKind, HeddleError

RETRY_AFTER_MS = 1_000


class Admission:
    def __init__(self, *, requests_max: int, bodies_bytes_max: int) -> None:
        self.requests_max = requests_max
        self.bodies_bytes_max = bodies_bytes_max
        self.requests = 0
        self.bodies_bytes = 0


class Permit:
    """One request's share, given back at the end of the `with`. Raises OVERLOADED where there is none left."""

    __slots__ = ("_admission", "_bytes")

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._bytes = 0

    def __enter__(self) -> Self:
        admission = self._admission
        if admission.requests >= admission.requests_max:
            raise overloaded(f"{admission.requests} requests are being answered already")
        admission.requests += 1
        return self

    def __exit__(self, *_: object) -> None:
        self._admission.requests -= 1
        self._admission.bodies_bytes -= self._bytes

    def hold(self, size: int) -> None:
        """Accounts for bytes of the request's body."""
        self._bytes += size
        self._admission.bodies_bytes += size
        if self._admission.bodies_bytes > self._admission.bodies_bytes_max:
            raise overloaded("the requests that are being answered fill the memory set aside for them")


def overloaded(message: str) -> HeddleError:
    return HeddleError(ErrorKind.OVERLOADED, message, retry_after_ms=RETRY_AFTER_MS)
