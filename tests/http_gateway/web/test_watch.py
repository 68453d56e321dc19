"""What lasts is watched, once; what does not is not."""

import asyncio

from http_gateway.web.watch import LOOK_S, Watch


class Lasting:
    def __init__(self) -> None:
        self.watched = 0

    def watch(self) -> None:
        self.watched += 1


async def test_only_what_lasts_is_watched_and_only_once() -> None:
    watch = Watch()
    lasting, short = Lasting(), Lasting()
    watch.add(lasting)
    watch.add(short)
    await asyncio.sleep(1.5 * LOOK_S)
    late = Lasting()
    watch.add(late)
    watch.remove(short)
    await asyncio.sleep(LOOK_S)
    assert (lasting.watched, short.watched, late.watched) == (1, 0, 0)
    await asyncio.sleep(2 * LOOK_S)
    assert (lasting.watched, short.watched, late.watched) == (1, 0, 1)


async def test_a_watch_that_had_nothing_to_do_goes_on_when_there_is() -> None:
    watch = Watch()
    for _ in range(2):
        lasting = Lasting()
        watch.add(lasting)
        await asyncio.sleep(3 * LOOK_S)
        assert lasting.watched == 1
