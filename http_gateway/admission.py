"""Limits the requests that the gateway answers at once, and the bytes of their bodies and answers. Beyond a limit, it
answers 429 at once. Bodies that are still arriving have their own limits, in http_gateway.web.bodies.
"""

from heddle.rpc.errors import ErrorKind, HeddleError

# The least that Retry-After can say: places and memory become free with every answer that has left.
RETRY_AFTER_MS = 1_000


class Admission:
    def __init__(self, *, requests_max: int, bodies_bytes_max: int, answers_bytes_max: int) -> None:
        self.requests_max = requests_max
        self.bodies_bytes_max = bodies_bytes_max
        self.answers_bytes_max = answers_bytes_max
        self.requests = 0
        self.bodies_bytes = 0
        self.answers_bytes = 0

    def check_room(self) -> None:
        """Raises OVERLOADED if as many requests are being answered as may be."""
        if self.requests >= self.requests_max:
            raise overloaded(f"{self.requests} requests are being answered already")


class Permit:
    """One request's share of the limits, from when its body is complete until its answer has been sent (`release`)."""

    __slots__ = ("_admission", "_answer_bytes", "_body_bytes", "_is_released")

    def __init__(self, admission: Admission, body_bytes: int = 0) -> None:
        """Raises OVERLOADED."""
        admission.check_room()
        if admission.bodies_bytes + body_bytes > admission.bodies_bytes_max:
            raise no_room_for_body()
        admission.requests += 1
        admission.bodies_bytes += body_bytes
        self._admission = admission
        self._body_bytes = body_bytes
        self._answer_bytes = 0
        self._is_released = False

    def reserve_body(self, size: int) -> None:
        """Counts further bytes of the request's body. Raises OVERLOADED."""
        self._body_bytes += size
        self._admission.bodies_bytes += size
        if self._admission.bodies_bytes > self._admission.bodies_bytes_max:
            raise no_room_for_body()

    def reserve_answer(self, size: int) -> None:
        """Counts bytes of its answer. Raises OVERLOADED, or TOO_LARGE for an answer that is over the limit of all
        answers by itself: sending the request again would not help."""
        admission = self._admission
        self._answer_bytes += size
        admission.answers_bytes += size
        if self._answer_bytes > admission.answers_bytes_max:
            message = f"the answer has more than {admission.answers_bytes_max} bytes, which is the limit of all answers"
            raise HeddleError(ErrorKind.TOO_LARGE, message)
        if admission.answers_bytes > admission.answers_bytes_max:
            raise overloaded("the answers that are being sent fill the memory set aside for them")

    def release_body(self) -> None:
        self._admission.bodies_bytes -= self._body_bytes
        self._body_bytes = 0

    def release_answer(self) -> None:
        self._admission.answers_bytes -= self._answer_bytes
        self._answer_bytes = 0

    def release(self) -> None:
        """May be called more than once."""
        if not self._is_released:
            self._is_released = True
            self._admission.requests -= 1
            self.release_body()
            self.release_answer()


def no_room_for_body() -> HeddleError:
    return overloaded("the bodies of the requests that are being answered fill the memory set aside for them")


def overloaded(message: str) -> HeddleError:
    return HeddleError(ErrorKind.OVERLOADED, message, retry_after_ms=RETRY_AFTER_MS)
