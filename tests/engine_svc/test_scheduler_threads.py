"""The scheduler with several threads: workers that wait, submitters that race, and closing."""

import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable

import numpy as np

from engine_svc.batching import Batch, SchedulerLimits
from engine_svc.scheduler import Load, Scheduler
from engine_svc.submission import Submission
from tests.engine_svc.submissions import ROOMY, list_expired, list_submissions, make_scheduler, single, take_next


def test_take_returns_none_after_its_timeout() -> None:
    assert Scheduler(ROOMY).take(timeout_s=0.001) is None


def start_taking(scheduler: Scheduler, taken: list[Batch | None]) -> threading.Thread:
    thread = threading.Thread(target=lambda: taken.append(scheduler.take()), daemon=True)
    thread.start()
    return thread


def test_waiting_worker_gets_what_is_submitted() -> None:
    scheduler, taken = Scheduler(ROOMY), list[Batch | None]()
    thread = start_taking(scheduler, taken)
    submitted = single()
    scheduler.submit([submitted])
    thread.join(5)
    assert list_submissions(taken[0]) == [submitted]


def test_one_submission_of_two_batches_wakes_two_waiting_workers() -> None:
    scheduler, taken = Scheduler(ROOMY, passes=2, cores=2), list[Batch | None]()
    threads = [start_taking(scheduler, taken) for _ in range(2)]
    scheduler.submit(single() for _ in range(16))
    for thread in threads:
        thread.join(5)
    assert [len(list_submissions(batch)) for batch in taken] == [8, 8]


def test_thread_that_came_last_is_the_next_to_go() -> None:
    scheduler, taken = Scheduler(ROOMY), list[Batch | None]()
    first = start_taking(scheduler, taken)
    wait_until_waiting(scheduler, 1)
    last = start_taking(scheduler, taken)
    wait_until_waiting(scheduler, 2)
    scheduler.submit([single()])
    last.join(5)
    assert (first.is_alive(), last.is_alive()) == (True, False)
    scheduler.close()
    first.join(5)


def wait_until_waiting(scheduler: Scheduler, threads: int) -> None:
    while len(scheduler._idle) < threads:
        time.sleep(0.001)


def test_close_wakes_waiting_workers() -> None:
    scheduler, taken = Scheduler(ROOMY), list[Batch | None]()
    threads = [start_taking(scheduler, taken) for _ in range(3)]
    scheduler.close()
    for thread in threads:
        thread.join(5)
    assert taken == [None] * 3


def test_closed_scheduler_refuses_new_submissions_and_hands_out_what_waits() -> None:
    accepted, late = single(), single()
    scheduler = make_scheduler(accepted)
    scheduler.close()
    assert scheduler.submit([late]) == [late]
    assert list_submissions(take_next(scheduler)) == [accepted]
    assert scheduler.take() is None


def test_racing_threads_lose_nothing_and_serve_nothing_twice() -> None:
    limits = SchedulerLimits(64, 6, queue_tokens_max=2_000, queue_items_max=300)
    scheduler = Scheduler(limits, passes=3, cores=5)
    accepted, cancelled, taken = list[Submission](), list[Submission](), list[Batch]()
    out, most_passes, most_cores = list[Batch](), [0], [0]

    def submit(seed: int) -> None:
        random = np.random.default_rng(seed)
        for _ in range(150):
            specs = random.integers((1, 0, 0, 0), (80, 9, 3, 9), (10, 4)).tolist()
            submissions = [single(tokens, str(flow), priority, content) for tokens, flow, priority, content in specs]
            submissions[0].deadline = time.monotonic() + random.random() / 100
            refused = set(scheduler.submit(submissions))
            accepted.extend(each for each in submissions if each not in refused)
            cancelled.extend(each for each in submissions[::4] if scheduler.cancel(each))

    def worker(take: Callable[[], Batch | None]) -> None:
        while (batch := take()) is not None:
            taken.append(batch)
            out.append(batch)
            usual = [each for each in tuple(out) if not each.is_express]
            most_passes.append(len(usual))
            most_cores.append(sum(each.cores for each in usual))
            time.sleep(0.0005)
            out.remove(batch)
            scheduler.give_back(batch)

    submitters = [threading.Thread(target=submit, args=(seed,), daemon=True) for seed in range(3)]
    takes = [scheduler.take, scheduler.take, scheduler.take, scheduler.take_express]
    workers = [threading.Thread(target=worker, args=(take,), daemon=True) for take in takes]
    for thread in submitters + workers:
        thread.start()
    for thread in submitters:
        thread.join(10)
    scheduler.close()
    for thread in workers:
        thread.join(10)
    leavers = [leaver for batch in taken for leaver in (*list_submissions(batch), *list_expired(batch))]
    assert Counter([*leavers, *cancelled]) == Counter(accepted)
    assert all(batch.tokens <= 64 or batch.items == 1 for batch in taken)
    assert scheduler.load() == Load(0, 0)
    assert max(most_passes) <= 3
    assert max(most_cores) <= 5


def test_scheduler_imports_neither_grpc_nor_torch_nor_asyncio() -> None:
    code = "import sys, engine_svc.scheduler; print({'grpc', 'torch', 'asyncio'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
