"""An item of a `Pool` without an answer. A `Pod` takes it; if that pod is lost, the pool gives it to another."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic

from heddle.rpc.errors import HeddleError
from heddle.rpc.stream import Item, Outcome, Reply

if TYPE_CHECKING:
    from heddle.rpc.pod import Pod


@dataclass(slots=True, eq=False)
class Pending(Generic[Item, Outcome]):
    item: Item
    deadline: float
    reply: Reply[Outcome]
    size: int  # in bytes
    cost: int
    id: int = 0  # of the item, at its current pod
    attempts: int = 0
    answered: bool = False
    pod: "Pod[Item, Outcome] | None" = None

    def answer(self, outcome: Outcome | HeddleError) -> None:
        if not self.answered:
            self.answered = True
            self.reply(outcome)
