"""Limits the memory of answers that are being put together. Every `EngineRequest` takes its share from it."""

from heddle.rpc.errors import ErrorKind, HeddleError

RETRY_AFTER_MS = 1_000


class MemoryBudget:
    """The limits of one answer and of all answers of the pod. A request takes bytes when it learns of them, and
    gives them back at its end."""

    def __init__(self, *, answer_bytes_max: int, answers_bytes_max: int) -> None:
        self.answer_bytes_max = answer_bytes_max
        self.answers_bytes_max = answers_bytes_max
        self.total = 0

    def take(self, count: int, of_answer: int) -> None:
        """`of_answer` is what the answer has with them. Raises TOO_LARGE, and OVERLOADED; they are taken even so."""
        self.total += count
        if of_answer > self.answer_bytes_max:
            message = f"the answer would have more than {self.answer_bytes_max} bytes, which is the limit"
            raise HeddleError(ErrorKind.TOO_LARGE, f"{message}: send fewer inputs at a time, or shorter ones")
        if self.total > self.answers_bytes_max:
            message = "the answers that are being put together fill the memory set aside for them"
            raise HeddleError(ErrorKind.OVERLOADED, message, retry_after_ms=RETRY_AFTER_MS)

    def give_back(self, count: int) -> None:
        self.total -= count
