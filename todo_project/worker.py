"""gunicorn's worker for this service: its threads wait in one epoll and serve what they wake for.

gunicorn's own threaded worker takes every request through a dispatcher, a pool and back, which is a
third of the CPU time of a small request. Here every descriptor is armed for one event
(`EPOLLONESHOT`): the thread that gets the event owns the connection until it arms it again. The
main thread only reports to gunicorn's master and closes what has passed its deadline. A client that
is silent, or sends its headers slowly, costs no thread.

gunicorn parses the requests and builds the WSGI environment. TLS, HTTP/2 and uWSGI's protocol are
left out, and refused at the start.
"""

import copy
import math
import os
import select
import socket
import threading
import time
from contextlib import suppress
from datetime import datetime
from typing import Any

from gunicorn import http, util
from gunicorn.http import wsgi
from gunicorn.http.errors import NoMoreData
from gunicorn.workers import base

MIN_RATE = 1024
"""Bytes per second that a client must send of a body, after the first `Worker.stall` seconds."""

LINGER = 1
"""Seconds for which a connection stays open after its last response, or the start of a shutdown:
closed while the client still sends, it could lose that response (RFC 9112 section 9.6)."""

MAX_UNREAD = 64 * 1024
"""Bytes of a body that the application left, read so that the connection can be kept."""

ONE_EVENT = select.EPOLLIN | select.EPOLLONESHOT


class Incomplete(Exception):
    """The headers of the next request have not all arrived."""


class Connection:
    """A client's connection: what gunicorn's parser reads from, and how long it may last."""

    def __init__(self, worker: "Worker", sock: socket.socket, client: Any) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.client = client
        self.server = sock.getsockname()
        self.stall = worker.stall
        self.parser = http.get_parser(worker.cfg, self, client)
        self.owned = threading.Lock()  # by the thread that serves it, or the one that closes it
        # The monotonic clock's time to close it, while nobody owns it:
        self.deadline = time.monotonic() + max(self.stall, worker.cfg.keepalive)
        self.read_deadline = math.inf  # while a thread waits for a part of a body
        self.body_deadline = 0.0  # for all of the body
        self.headers: bytearray | None = None  # of the next request, as they arrive
        self.began = False  # whether some have arrived
        self.ended = False  # the client has closed its side
        self.closing = False  # and so have we

    def next_request(self) -> Any:
        """Raises Incomplete, StopIteration at the end, and gunicorn's errors for a bad request."""
        unreader = self.parser.unreader
        self.headers = bytearray(unreader.buf.getvalue())
        try:
            request = next(self.parser)
        except Incomplete:
            # To be parsed again from the start: most headers come in one piece.
            unreader.unread(bytes(self.headers))
            self.parser.req_count -= 1
            if self.headers and not self.began:
                self.began = True
                self.deadline = time.monotonic() + self.stall
            raise
        self.headers = None
        self.began = False
        self.body_deadline = 0.0
        return request

    def ends_request(self) -> bool:
        """Read what is left of the body; False when no other request can follow it."""
        try:
            return self.parser.finish_body(max_bytes=MAX_UNREAD) and not self.ended
        except Exception:  # gunicorn's, for a malformed body: too late for an answer to it
            return False

    def recv(self, size: int) -> bytes:
        """What gunicorn's parser reads: headers that are there, or a body as it comes."""
        if self.headers is not None:
            try:
                data = self.sock.recv(size, socket.MSG_DONTWAIT)
            except BlockingIOError:
                raise Incomplete from None
            self.headers += data
        else:
            now = time.monotonic()
            self.body_deadline = self.body_deadline or now + self.stall
            self.read_deadline = min(self.body_deadline, now + self.stall)
            data = self.sock.recv(size)
            self.read_deadline = math.inf
            self.body_deadline += len(data) / MIN_RATE
        self.ended = not data
        return data


class Response(wsgi.Response):
    """Sends headers with the first part of the body, a `Date` made once a second, no `Server`."""

    headers_sent: bool
    upgrade: bool
    unsent = b""

    def __init__(self, req: Any, sock: Any, cfg: Any, worker: "Worker", conn: Connection) -> None:
        super().__init__(req, sock, cfg)
        self.worker = worker
        self.conn = conn

    def send_headers(self) -> None:
        if not self.headers_sent:
            unread = getattr(self.req.body.reader, "length", 0)  # of a chunked body: not known
            if self.conn.ended or unread > MAX_UNREAD or not self.worker.keeps_connections():
                self.force_close()
            lines = self.default_headers()
            lines += [f"{name}: {value}\r\n" for name, value in self.headers]
            self.unsent = ("".join(lines) + "\r\n").encode("latin-1")
            self.headers_sent = True

    def default_headers(self) -> list[str]:
        major, minor = self.req.version
        connection = "close" if self.should_close() else "keep-alive"
        lines = [
            f"HTTP/{major}.{minor} {self.status}\r\n",
            f"Date: {self.worker.date}\r\n",
            f"Connection: {'upgrade' if self.upgrade else connection}\r\n",
        ]
        return [*lines, "Transfer-Encoding: chunked\r\n"] if self.chunked else lines

    def _emit_body(self, data: bytes) -> None:
        self._send(b"%X\r\n%b\r\n" % (len(data), data) if self.chunked else data)

    def _send(self, data: bytes = b"") -> None:
        if data := self.unsent + data:
            self.unsent = b""
            self.sock.sendall(data)

    def sendfile(self, respiter: Any) -> bool:
        self.send_headers()
        self._send()
        return bool(super().sendfile(respiter))

    def close(self) -> None:
        self.send_headers()
        self._send(b"0\r\n\r\n" if self.chunked else b"")


class Worker(base.Worker):
    cfg: Any
    stall = 10
    """Seconds in which a client must send the headers of a request, and for which it may pause
    within a body or while it reads a response."""

    @classmethod
    def check_config(cls, cfg: Any, log: Any) -> None:
        """Called by gunicorn's master at the start."""
        if cfg.is_ssl or cfg.protocol != "http" or set(cfg.http_protocols) != {"h1"}:
            raise RuntimeError(f"{cls.__module__} serves plain HTTP/1.1: no TLS, HTTP/2 or uWSGI")

    def run(self) -> None:
        self.cfg = with_plain_attributes(self.cfg)
        self.logs_access = self.log.access_log_enabled or self.cfg.statsd_host
        self.connections: dict[int, Connection] = {}
        self.counted = threading.Lock()  # held while their number changes
        self.epoll = select.epoll()
        self.listeners = {listener.fileno(): listener.sock for listener in self.sockets}
        for fd, listener in self.listeners.items():
            # Accepted sockets inherit it. SO_SNDTIMEO waits three times as long, and not at all
            # in sendfile(); Unix sockets have neither.
            with suppress(OSError):
                listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, self.stall * 1000)
            self.epoll.register(fd, ONE_EVENT)
        self.date = util.http_date()
        self.end = os.eventfd(0)
        self.epoll.register(self.end, select.EPOLLIN)
        threads = [threading.Thread(target=self.work, daemon=True) for _ in range(self.cfg.threads)]
        for thread in threads:
            thread.start()
        while self.alive and self.ppid == os.getppid():
            self.tick()
            self.listen()  # for whatever reason it was given up
            if select.select([self.PIPE[0]], [], [], 1)[0]:  # a signal
                os.read(self.PIPE[0], 4096)
        if self.alive:
            self.log.info("Parent changed, shutting down: %s", self)
        self.drain()
        os.eventfd_write(self.end, 1)
        for thread in threads:
            thread.join(0.5)

    def drain(self) -> None:
        """Stop listening, finish the requests that have begun, close all connections."""
        self.alive = False
        for fd, listener in self.listeners.items():
            self.epoll.unregister(fd)
            listener.close()
        limit = time.monotonic() + self.cfg.graceful_timeout
        while self.connections and time.monotonic() < limit:
            self.tick()
            time.sleep(0.05)

    def tick(self) -> None:
        """What the main thread does once a second: close what is overdue, for one."""
        self.notify()
        self.date = util.http_date()
        now = time.monotonic()
        full = len(self.connections) >= self.cfg.worker_connections
        for conn in self.connections.copy().values():
            if full or not self.alive:
                conn.deadline = min(conn.deadline, now + LINGER)
            if not self.alive:
                conn.read_deadline = min(conn.read_deadline, now + LINGER)
            if conn.deadline <= now and conn.owned.acquire(blocking=False):
                if conn.deadline <= now:
                    self.close(conn)
                else:  # it has been served meanwhile
                    self.arm(conn)
            elif conn.read_deadline <= now:
                with suppress(OSError):
                    conn.sock.shutdown(socket.SHUT_RD)  # the thread's recv() ends

    def keeps_connections(self) -> bool:
        room = self.cfg.worker_connections - self.cfg.threads
        return self.alive and self.cfg.keepalive > 0 and len(self.connections) <= room

    def listen(self) -> None:
        for fd in self.listeners:
            with suppress(OSError):  # closed by now
                if self.alive and len(self.connections) < self.cfg.worker_connections:
                    self.epoll.modify(fd, ONE_EVENT)

    def arm(self, conn: Connection) -> None:
        """Give the connection up to whichever thread gets its next event."""
        conn.owned.release()
        with suppress(OSError):  # closed by now
            self.epoll.modify(conn.fd, ONE_EVENT)

    def close(self, conn: Connection) -> None:
        with self.counted:
            was_full = len(self.connections) >= self.cfg.worker_connections
            del self.connections[conn.fd]
            conn.sock.close()
        if was_full:
            self.listen()

    def work(self) -> None:
        """A thread's life."""
        while True:
            for fd, _ in self.epoll.poll(-1, 1):
                if fd == self.end:
                    return
                if fd in self.listeners:
                    self.accept(self.listeners[fd])
                # The event may be of a connection that had this descriptor before.
                elif (conn := self.connections.get(fd)) and conn.owned.acquire(blocking=False):
                    self.serve(conn)

    def accept(self, listener: Any) -> None:
        try:
            with self.counted:
                # Two threads may have armed the listener for the same place.
                if not self.alive or len(self.connections) >= self.cfg.worker_connections:
                    return
                sock, client = listener.accept()
                conn = Connection(self, sock, client)
                self.connections[conn.fd] = conn
        except (BlockingIOError, ConnectionAbortedError):  # another process has it
            self.listen()
            return
        except OSError as error:  # no descriptors left; the main thread tries again
            if self.alive:
                self.log.warning("Cannot accept a connection: %s", error)
            return
        self.epoll.register(conn.fd, ONE_EVENT)
        self.listen()

    def serve(self, conn: Connection) -> None:
        """Answer what has arrived, and arm or close the connection."""
        try:
            if not conn.closing and not self.answer(conn):
                conn.closing = True
                conn.deadline = time.monotonic() + LINGER
                conn.sock.shutdown(socket.SHUT_WR)
            if conn.closing:
                unread = conn.sock.recv(MAX_UNREAD, socket.MSG_DONTWAIT)
                conn.ended = not unread or conn.deadline < time.monotonic()
        except BlockingIOError:
            pass
        except OSError:
            conn.ended = True
        if conn.closing and conn.ended:
            self.close(conn)
        else:
            self.arm(conn)

    def answer(self, conn: Connection) -> bool:
        """Answer the requests that have arrived; False when no other may follow."""
        request = None
        try:
            while True:
                request = conn.next_request()
                if not (self.respond(conn, request) and conn.ends_request()):
                    return False
                conn.deadline = time.monotonic() + self.cfg.keepalive
                request = None
                if not conn.parser.unreader.buf.getvalue():
                    return True
        except Incomplete:
            return True
        except (StopIteration, NoMoreData, ConnectionError, TimeoutError) as error:
            self.log.debug("Closing connection: %r", error)
        except (Exception, SystemExit) as error:
            self.handle_error(request, conn.sock, conn.client, error)
        return False

    def respond(self, conn: Connection, request: Any) -> bool:
        """Have the application answer; False when the connection is to be closed."""
        response = environ = None
        began = datetime.now() if self.logs_access else None  # noqa: DTZ005
        try:
            self.cfg.pre_request(self, request)
            response, environ = wsgi.create(
                request, conn.sock, conn.client, conn.server, self.cfg, Response, (self, conn)
            )
            environ["wsgi.multithread"] = True
            self.nr += 1
            if self.nr >= self.max_requests and self.alive:
                self.log.info("Autorestarting worker after current request.")
                self.alive = False
                os.write(self.PIPE[1], b".")
            result = self.wsgi(environ, response.start_response)
            try:
                if isinstance(result, environ["wsgi.file_wrapper"]):
                    response.write_file(result)
                else:
                    for part in result:
                        response.write(part)
                response.close()
            finally:
                if began:
                    elapsed = datetime.now() - began  # noqa: DTZ005
                    self.log.access(response, request, environ, elapsed)
                if hasattr(result, "close"):
                    result.close()
        except (ConnectionError, TimeoutError):
            raise
        except (Exception, SystemExit):
            if response is None or response.unsent or not response.headers_sent:
                raise
            self.log.exception("Error handling request")  # too late for another response
            return False
        finally:
            try:
                self.cfg.post_request(self, request, environ, response)
            except Exception:
                self.log.exception("Exception in post_request hook")
        return not response.should_close()


def with_plain_attributes(cfg: Any) -> Any:
    """A copy that looks no setting up by its name: a request reads more than twenty."""
    plain = copy.copy(cfg)
    vars(plain).update((name, setting.get()) for name, setting in cfg.settings.items())
    return plain
