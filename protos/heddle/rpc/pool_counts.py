"""What a `Pool` counts for the metrics (see `heddle.rpc.metrics`)."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from heddle.rpc.pod import Pod

# Only connected pods take items. Unready ones say that they can answer nothing now. Unlisted ones are no longer among
# the targets, and finish what they have.
POD_STATES = ("connected", "unready", "draining", "unlisted", "unreachable")


@dataclass(slots=True)
class PoolCounts:
    """What has happened since the start."""

    lost_pods: int = 0  # streams that ended without notice
    resent: int = 0  # items sent again because their pod was lost
    hedged: int = 0  # items also sent to a second pod because the first was slow
    hedges_won: int = 0  # of those, answered by the second pod first
    moved: int = 0  # items sent to another pod because one refused them as OVERLOADED
    abandoned: int = 0  # items given up after attempts_max pods
    poisoned: int = 0  # items given up because pods crashed on them
    expired: int = 0  # items whose deadline passed


def count_states(pods: "Iterable[Pod[Any, Any]]") -> dict[str, int]:
    counted = Counter(state_of(pod) for pod in pods)
    return {state: counted[state] for state in POD_STATES}


def state_of(pod: "Pod[Any, Any]") -> str:
    if not pod.connected:
        return "unreachable"
    if pod.draining:
        return "draining"
    if pod.is_unready:
        return "unready"
    return "connected" if pod.listed else "unlisted"
