"""When requests arrive that do not wait for each other: a Poisson process. Used by load."""

import random


def poisson_arrivals(per_second: float, seconds: float, seed: int) -> list[float]:
    """Seconds from the start at which requests are due, in order; the same for the same seed."""
    rng = random.Random(seed)
    arrivals: list[float] = []
    now = rng.expovariate(per_second)
    while now < seconds:
        arrivals.append(now)
        now += rng.expovariate(per_second)
    return arrivals
