"""Two connections made one by a doorway: all that comes in goes out, no faster, and they end together."""

import asyncio
import contextlib
import secrets
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from heddle.rpc.http2.doorway import Doorway
from tests.heddle.rpc.http2.loops import on_both_loops
from tests.heddle.rpc.http2.peers import Wire, eventually, wire_to

MIB = 1 << 20
# What the inner end has room for by itself: little, so that the relay is the first to fill up.
RECEIVED_BYTES = 4096
HELLO = b"this is not the preface of HTTP/2"


@asynccontextmanager
async def relayed(*begin: bytes) -> AsyncIterator[tuple[Wire, Wire, Doorway]]:
    """Both ends of a connection through a doorway: a client that says `begin` first, and who gets it."""
    accepted: asyncio.Future[Wire] = asyncio.get_running_loop().create_future()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.set_result(Wire(reader, writer))

    listening = socket.create_server(("127.0.0.1", 0))
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVED_BYTES)
    inside = await asyncio.start_server(accept, sock=listening, limit=RECEIVED_BYTES)
    doorway = Doorway()
    doorway.inner = f"127.0.0.1:{listening.getsockname()[1]}"
    address = doorway.bind("127.0.0.1:0")
    await doorway.open()
    async with wire_to(address, *begin) as client:
        inner = await asyncio.wait_for(accepted, 5)
        try:
            yield client, inner, doorway
        finally:
            await inner.close()
            doorway.close()
            inside.close()
            await doorway.end_streams(1)
    assert not doorway._connections


@on_both_loops
async def test_what_is_said_at_one_end_is_heard_at_the_other() -> None:
    async with relayed(HELLO) as (client, inner, _):
        assert await inner.reader.readexactly(len(HELLO)) == HELLO
        for sender, receiver in ((client, inner), (inner, client)):
            sent = bytes(range(256)) * 20_000
            sender.send(sent)
            assert await asyncio.wait_for(receiver.reader.readexactly(len(sent)), 5) == sent


@pytest.mark.parametrize("how", ["close", "abort"])
@pytest.mark.parametrize("first", ["client", "inner"])
@on_both_loops
async def test_an_end_that_closes_closes_the_other_after_what_it_said(first: str, how: str) -> None:
    async with relayed(HELLO) as (client, inner, doorway):
        await inner.reader.readexactly(len(HELLO))
        one, other = (client, inner) if first == "client" else (inner, client)
        one.send(b"bye")
        if how == "close":
            one.writer.close()
            assert await asyncio.wait_for(other.reader.read(), 5) == b"bye"
        else:
            await asyncio.wait_for(other.reader.readexactly(3), 5)
            one.writer.transport.abort()
            assert await asyncio.wait_for(other.reader.read(), 5) == b""
        await eventually(lambda: not doorway._connections)


@pytest.mark.parametrize("slow", ["client", "inner"])
@on_both_loops
async def test_an_end_that_does_not_read_stops_the_other(slow: str) -> None:
    async with relayed(HELLO) as (client, inner, doorway):
        await inner.reader.readexactly(len(HELLO))
        sender, receiver = (inner, client) if slow == "client" else (client, inner)
        receiver.reader._transport.pause_reading()  # type: ignore[attr-defined]
        assert await unread(sender, doorway) < 2 * MIB
        receiver.reader._transport.resume_reading()  # type: ignore[attr-defined]
        size = 0
        sender.writer.close()
        while received := await asyncio.wait_for(receiver.reader.read(MIB), 5):
            size += len(received)
        assert size == 64 * MIB


async def unread(sender: Wire, doorway: Doorway) -> int:
    """What the relay holds at most, of 64 MiB that are sent."""
    for _ in range(64):
        sender.send(bytes(MIB))
    most, calm = 0, 0
    while calm < 20:
        held = max(end._transport.get_write_buffer_size() for end in doorway._connections)
        most, calm = max(most, held), calm + 1 if held <= most else 0
        await asyncio.sleep(0.01)
    return most


@on_both_loops
async def test_much_that_is_said_before_the_relay_stands_is_not_read_on_for_one_that_does_not_read() -> None:
    """The first write to the inner end fills it up; to read on after that would be to read without bound."""
    begin = HELLO + bytes(64 * MIB)
    async with relayed(begin) as (_, inner, doorway):
        inner.reader._transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.sleep(0.3)
        assert max(end._transport.get_write_buffer_size() for end in doorway._connections) < 2 * MIB


@contextlib.contextmanager
def welcoming() -> Iterator[str]:
    """A server that speaks as soon as it is connected to, from a thread of its own as gRPC does."""

    def welcome() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listening.accept()
                connections.append(connection)
                connection.sendall(b"welcome")

    connections: list[socket.socket] = []
    name = f"heddle-test-{secrets.token_hex(4)}"
    listening = socket.socket(socket.AF_UNIX)
    listening.bind("\0" + name)
    listening.listen(1024)
    thread = threading.Thread(target=welcome)
    thread.start()
    try:
        yield f"unix-abstract:{name}"
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()
        for connection in (*connections, listening):
            connection.close()


@on_both_loops
async def test_what_the_inner_end_says_at_once_is_heard() -> None:
    async def heard(address: str) -> bytes:
        async with wire_to(address, HELLO) as client:
            return await asyncio.wait_for(client.reader.read(7), 2)

    with welcoming() as inner:
        doorway = Doorway()
        doorway.inner = inner
        address = doorway.bind("127.0.0.1:0")
        await doorway.open()
        heard_by_all = [
            welcome
            for _ in range(10)
            for welcome in await asyncio.gather(*(heard(address) for _ in range(50)), return_exceptions=True)
        ]
        doorway.close()
        await doorway.end_streams(1)
    assert heard_by_all == [b"welcome"] * 500
