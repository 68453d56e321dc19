"""Picks the pod that gets an item. Called by `heddle.rpc.pool`."""

import random
from collections.abc import Sequence

from heddle.rpc.pod import Pod
from heddle.rpc.stream import Item, Outcome

# Reported load counts for this fraction only. A report is stale when it is read: the pod has answered items since, and
# other clients have sent more. If clients trusted reports, all would choose the same pods. With a small weight, reports
# still tell slow pods from fast ones. In simulations of 2 to 64 clients and 400 pods, other small weights did as well.
OTHERS_DIVISOR = 16


def pick(pods: Sequence[Pod[Item, Outcome]]) -> Pod[Item, Outcome]:
    """Picks the less loaded of two random pods (Mitzenmacher 2001). That is close to the best choice, and clients
    with the same stale reports do not all rush to one pod."""
    if len(pods) == 1:
        return pods[0]
    one = random.randrange(len(pods))
    two = pods[one], pods[one - random.randrange(1, len(pods))]
    return min(two, key=lambda pod: estimate_load(pod.unanswered_cost, pod.reported_cost))


def estimate_load(unanswered: int, reported: int) -> float:
    """Work ahead of a new item at a pod. `unanswered` is what this client has there; `reported` is the pod's last
    report plus what this client has sent since. All three have the unit of the pod's Load."""
    return unanswered + max(0, reported - unanswered) / OTHERS_DIVISOR
