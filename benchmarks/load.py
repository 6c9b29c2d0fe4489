"""1000 users with a request a second each, on a machine that also runs the database and clients.

The schedule is fixed beforehand and a duration begins when the request was due, so that it includes
the wait for a server that stalls. Each user has a keep-alive connection and 100 tasks.
"""

from __future__ import annotations

import asyncio
import gc
import random
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

import psutil
import uvloop

from benchmarks import clients, report
from benchmarks.data import Databases
from benchmarks.servers import Web, cpu_seconds

USERS, QUICK_USERS = 1000, 200
SECONDS, QUICK_SECONDS = 40, 5
WARM_SECONDS = 5
PROCESSES = 2
# Of 100 requests; 80 read. The lists have the user's 100 tasks.
MIX = {"get": 40, "list": 40, "post": 6, "put": 4, "patch": 2, "toggle": 6, "delete": 2}
P95_MUST = P99_AIM = 200  # ms
MEMORY_MUST, MEMORY_AIM = 100, 70  # MB


def main(databases: Databases) -> None:
    seconds, users = (QUICK_SECONDS, QUICK_USERS) if databases.quick else (SECONDS, USERS)
    load: list[list[report.Cell]] = []
    memory: list[tuple[str, list[float]]] = []
    for name in ("service", "FastAPI"):
        with Web(name, databases.large(), processes=PROCESSES) as server:
            database = psutil.Process(databases.server.pid)

            def cpu(server: Web = server, database: psutil.Process = database) -> list[float]:
                backends = [database, *database.children()]
                used = [server.cpu_seconds(), cpu_seconds(backends), time.process_time()]
                machine = psutil.cpu_times()
                busy = machine.user + machine.nice + machine.system + machine.softirq
                return [*used, busy - sum(used), time.monotonic()]

            run = Run(server.port, users, databases.users, WARM_SECONDS + seconds, WARM_SECONDS)
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                before = runner.run(run.perform(cpu))
            *used, elapsed = [b - a for a, b in zip(before, cpu(), strict=True)]
            memory += [(name, _megabytes(worker)) for worker in server.workers()]
        load.append([name, *run.row(seconds, judged=name == "service")])
        load[-1] += [seconds_used / elapsed for seconds_used in used]
        for error, count in run.errors.most_common(5):
            print(f"{name}: {count} times {error}")
    report.table(
        f"{users} users, each a request a second (80 % reads) for {seconds} s, {PROCESSES} server"
        f" processes: ms since it was due (must: p95 < {P95_MUST}, no error; aim: p99 < {P99_AIM})",
        [
            *("server", "per s", "p50", "p95", "p99", "max", "errors", ""),
            *("client late", "reconnects", "server cores", "database", "clients", "others"),
        ],
        load,
    )
    report.table(
        f"Memory of each worker after that, MB (must {MEMORY_MUST}, aim {MEMORY_AIM}, of RSS)",
        ["server", "RSS", "PSS", "private", ""],
        [
            [
                name,
                *sizes,
                report.at_most(sizes[0], MEMORY_MUST, MEMORY_AIM) if name == "service" else "",
            ]
            for name, sizes in memory
        ],
    )


def _megabytes(process: psutil.Process) -> list[float]:
    memory = process.memory_full_info()
    return [size / 1e6 for size in (memory.rss, memory.pss, memory.uss)]


@dataclass
class Run:
    """The schedule of all users, and their results."""

    port: int
    users: int
    owners: int  # in the database
    seconds: int
    warm_seconds: int  # not counted
    times: list[float] = field(default_factory=list)
    late: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    reconnects: int = 0

    async def perform(self, at_start: Callable[[], list[float]]) -> list[float]:
        """Send everything; return the value of `at_start()` from when the counted part begins."""
        loop = asyncio.get_running_loop()
        chance = random.Random(1)
        users = [User(self, number, chance) for number in range(self.users)]
        for user in users:
            await user.connect()
        gc.collect()
        gc.freeze()
        start = loop.time() + 0.5
        self.counted_from = start + self.warm_seconds
        for user in users:
            user.begin(start)
        await asyncio.sleep(self.counted_from - loop.time())
        values = at_start()
        deadline = start + self.seconds + 10
        await asyncio.sleep(start + self.seconds - loop.time())
        while any(user.pending for user in users) and loop.time() < deadline:
            await asyncio.sleep(0.02)
        for user in users:
            user.end()
        return values

    def row(self, seconds: int, *, judged: bool) -> list[report.Cell]:
        times = sorted(self.times)
        p50, p95, p99, most = (
            times[min(len(times) - 1, int(len(times) * share))] * 1000
            for share in (0.5, 0.95, 0.99, 1)
        )
        errors = sum(self.errors.values())
        verdict = ""
        if judged:
            met = not errors and p95 < P95_MUST
            verdict = ("aim" if p99 < P99_AIM else "ok") if met else "MISSED"
        late = max(self.late) * 1000
        return [len(times) // seconds, p50, p95, p99, most, errors, verdict, late, self.reconnects]


class User(asyncio.Protocol):
    """A user: the plan, the connection, and the requests that are due and not yet answered."""

    def __init__(self, run: Run, number: int, chance: random.Random) -> None:
        self.run = run
        self.loop = asyncio.get_running_loop()
        self.transport: asyncio.Transport | None = None
        self.pending: deque[tuple[float, bytes, int]] = deque()
        self.busy = False
        self.received = b""
        self.wanted: int | None = None
        self.phase = chance.random()
        self.plan: deque[tuple[bytes, int]] = deque()
        deleted = 0
        for n in range(run.seconds):
            (route,) = chance.choices(list(MIX), list(MIX.values()))
            index = chance.randrange(50)
            if route == "delete":
                deleted += 1
                index = 100 - deleted
            task = number + run.owners * index
            request = clients.request(route, number, task, n)
            self.plan.append((clients.encode(request), clients.STATUSES.get(route, 200)))

    async def connect(self) -> None:
        await self.loop.create_connection(lambda: self, "127.0.0.1", self.run.port)

    def begin(self, start: float) -> None:
        self.loop.call_at(start + self.phase, self.request_due, start + self.phase)

    def end(self) -> None:
        if self.pending:
            self.run.errors["no answer"] += len(self.pending)
        self.pending.clear()
        if self.transport:
            self.transport.abort()

    def request_due(self, due: float) -> None:
        if due >= self.run.counted_from:
            self.run.late.append(self.loop.time() - due)
        self.pending.append((due, *self.plan.popleft()))
        if self.plan:
            self.loop.call_at(due + 1, self.request_due, due + 1)
        if not self.busy:
            self.send()

    def send(self) -> None:
        self.busy = True
        self.received = b""
        self.wanted = None
        if self.transport is None:
            self.run.reconnects += 1
            self.task = self.loop.create_task(self.connect())
            self.task.add_done_callback(self.reconnected)
        else:
            self.transport.write(self.pending[0][1])

    def reconnected(self, task: asyncio.Task[None]) -> None:
        if error := task.exception():
            self.answered(f"{type(error).__name__} on connecting")
        else:
            self.send()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is not a subclass

    def connection_lost(self, exception: Exception | None) -> None:
        self.transport = None
        if self.busy and self.pending:
            if self.received:
                self.answered("connection lost amid an answer")
            else:
                self.send()  # an idle connection, closed just when the request was sent

    def data_received(self, data: bytes) -> None:
        self.received += data
        if self.wanted is None:
            end = self.received.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self.received[:end].lower()
            _, _, length = head.partition(b"\r\ncontent-length:")
            self.wanted = end + 4 + (int(length.split(b"\r\n")[0]) if length else 0)
        if len(self.received) >= self.wanted:
            status = int(self.received[9:12])
            expected = self.pending[0][2]
            self.answered("" if status == expected else f"{status} instead of {expected}")

    def answered(self, error: str) -> None:
        due, _, _ = self.pending.popleft()
        if error:
            self.run.errors[error] += 1
        elif due >= self.run.counted_from:
            self.run.times.append(self.loop.time() - due)
        self.busy = False
        if self.pending:
            self.send()
