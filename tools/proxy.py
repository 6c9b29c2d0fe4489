"""A TCP proxy that adds latency, counts PostgreSQL round trips and breaks the network.

**Round trip**: the client sends something after it has received something, or for the first time
on the connection. A client that waits for an answer first receives bytes and then sends some, so no
wait is missed. (Counting ReadyForQuery would miss one in an exchange with a Flush: it has two waits
and one ReadyForQuery.) A message that the server sends unasked during a request is counted too
much. Requests that are sent without waiting (pipelining) are one round trip, as they cost one
latency. Opening a connection costs one or more for the start-up packets. Terminate, which has no
answer, is not counted.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Self
from urllib.parse import urlsplit, urlunsplit

from tools.servers import HOST, free_port

SSL, GSS = 80877103, 80877104
# Bytes. Anything longer is not a message but TLS or another protocol.
MAX_MESSAGE = 1 << 28


class _Messages:
    """Splits the data from a PostgreSQL client into messages (protocol 3.0, section 54.7)."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._started = False
        self._readable = True

    def feed(self, data: bytes) -> list[tuple[bytes, bytes]]:
        """Return the messages that `data` completes as (type, body); start-up packets as b""."""
        messages = []
        self._buffer += data
        while self._readable:
            head = 1 if self._started else 0
            if len(self._buffer) < head + 4:
                break
            (length,) = struct.unpack_from("!i", self._buffer, head)
            if not 4 <= length < MAX_MESSAGE:
                self._readable = False
                self._buffer.clear()
                break
            if len(self._buffer) < head + length:
                break
            kind, body = bytes(self._buffer[:head]), bytes(self._buffer[head + 4 : head + length])
            del self._buffer[: head + length]
            if not self._started:
                # After these two an untyped packet follows: start-up, or the other of the two.
                self._started = struct.unpack("!i", body[:4])[0] not in (SSL, GSS)
            messages.append((kind, body))
        return messages


class Proxy:
    """Listens on a free port of 127.0.0.1 in front of another one; may be used from any thread.

    `delay`: seconds of latency in each direction, so a round trip costs twice that. It may be
    changed at any time and does not limit throughput.

    Counted since the start or `reset()`, for all connections together:
    `round_trips` (see the module), `statements` (the SQL of each that is executed, in order of
    arrival, prepared ones included), `connections` (accepted), `bytes_sent` and `bytes_received`
    (by clients).
    When a client has its answer, everything that led to it has been counted.
    """

    def __init__(self, port: int) -> None:
        self._server_port = port
        self.port = free_port()
        self.delay = 0.0
        self.round_trips = self.connections = self.bytes_sent = self.bytes_received = 0
        self.statements: list[str] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._server: asyncio.Server | None = None
        self._thawed = asyncio.Event()
        self._thawed.set()
        self._live: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        self.accept()
        return self

    def __exit__(self, *exception: object) -> None:
        self.refuse()
        self.cut()
        self._do(self._end)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def url(self, url: str) -> str:
        """Return `url` with the proxy's host and port instead of its own."""
        parts = urlsplit(url)
        user = parts.netloc.rpartition("@")[0]
        netloc = f"{user}@{HOST}:{self.port}" if user else f"{HOST}:{self.port}"
        return urlunsplit(parts._replace(netloc=netloc))

    def reset(self) -> None:
        """Set all counts to zero; connections stay open."""
        self._do(self._reset)

    async def _reset(self) -> None:
        self.round_trips = self.connections = self.bytes_sent = self.bytes_received = 0
        self.statements = []

    def cut(self) -> None:
        """Break every open connection, with RST to both ends; new ones are accepted."""
        self._do(self._cut)

    async def _cut(self) -> None:
        for writer in self._live:
            _break(writer)

    def freeze(self) -> None:
        """Hang the network: connections stay open and new ones open, but nothing is forwarded."""
        self._do(self._freeze)

    async def _freeze(self) -> None:
        self._thawed.clear()

    def thaw(self) -> None:
        """End `freeze()`, and forward what was sent meanwhile."""
        self._do(self._thaw)

    async def _thaw(self) -> None:
        self._thawed.set()

    def refuse(self) -> None:
        """Refuse new connections; open ones stay open."""
        self._do(self._refuse)

    async def _refuse(self) -> None:
        if self._server:
            self._server.close()
            self._server = None

    def accept(self) -> None:
        """End `refuse()`: listen again on the same port."""
        self._do(self._accept)

    async def _accept(self) -> None:
        if not self._server:
            self._server = await asyncio.start_server(self._serve, HOST, self.port, backlog=1024)

    def _do(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run `work` in the proxy's thread, the only one that touches its state, and wait."""
        asyncio.run_coroutine_threadsafe(work(), self._loop).result(30)

    async def _end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        self.connections += 1
        writers = [writer]
        self._live.add(writer)
        try:
            upstream_reader, upstream_writer = await asyncio.open_connection(
                HOST, self._server_port
            )
            writers.append(upstream_writer)
            self._live.add(upstream_writer)
            count = _Connection(self)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, upstream_writer, on_read=count.sent))
                group.create_task(self._pump(upstream_reader, writer, on_write=count.answered))
        except OSError:
            _break(writer)
        except asyncio.CancelledError:
            pass  # by _end(); asyncio would print it as an error
        finally:
            self._live.difference_update(writers)
            for each in writers:
                each.close()
            self._tasks.discard(task)

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        on_read: Callable[[bytes], None] | None = None,
        on_write: Callable[[bytes], None] | None = None,
    ) -> None:
        """Carry one direction, each piece `delay` after it came; the end of stream as well."""
        pieces: asyncio.Queue[tuple[float, bytes | None]] = asyncio.Queue()

        async def write() -> None:
            while True:
                due, data = await pieces.get()
                if (wait := due - self._loop.time()) > 0:
                    await asyncio.sleep(wait)
                await self._thawed.wait()
                if data is None:
                    _break(writer)
                elif not data:
                    if writer.can_write_eof():
                        with suppress(OSError):
                            writer.write_eof()
                else:
                    if on_write:
                        on_write(data)
                    writer.write(data)
                    with suppress(OSError):
                        await writer.drain()
                if not data:
                    return

        async def read() -> None:
            while True:
                data: bytes | None
                try:
                    data = await reader.read(1 << 16)
                except OSError:
                    data = None  # broken, not closed: the other end sees the same
                if data and on_read:
                    on_read(data)
                pieces.put_nowait((self._loop.time() + self.delay, data))
                if not data:
                    return

        async with asyncio.TaskGroup() as group:
            group.create_task(write())
            group.create_task(read())


class _Connection:
    """Counts one connection into its proxy."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._messages = _Messages()
        self._prepared: dict[bytes, str] = {}
        self._was_answered = True

    def sent(self, data: bytes) -> None:
        self._proxy.bytes_sent += len(data)
        messages = self._messages.feed(data)
        for kind, body in messages:
            # Query: text. Parse: name of the statement, text, … Bind: portal, name, …
            first, second, *_ = [*body.split(b"\0"), b""]
            if kind == b"Q":
                self._proxy.statements.append(first.decode(errors="replace"))
            elif kind == b"P":
                self._prepared[first] = second.decode(errors="replace")
            elif kind == b"B":
                self._proxy.statements.append(self._prepared.get(second, "(prepared elsewhere)"))
        if self._was_answered and [kind for kind, _ in messages] != [b"X"]:
            self._proxy.round_trips += 1
            self._was_answered = False

    def answered(self, data: bytes) -> None:
        self._proxy.bytes_received += len(data)
        self._was_answered = True


def _break(writer: asyncio.StreamWriter) -> None:
    """Close with RST, dropping what was not sent yet."""
    sock = writer.get_extra_info("socket")
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
