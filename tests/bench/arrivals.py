"""Arrival times of independent requests, from a Poisson process. `load` uses it."""

import random


def poisson_arrivals(per_second: float, seconds: float, seed: int) -> list[float]:
    """Returns the seconds from the start at which requests are due, in order. Equal seeds give equal times."""
    rng = random.Random(seed)
    arrivals: list[float] = []
    now = rng.expovariate(per_second)
    while now < seconds:
        arrivals.append(now)
        now += rng.expovariate(per_second)
    return arrivals
