"""`python -m benchmarks.fleet`: kill parts of a fleet under load, and check every write.

The fleet: a Citus coordinator and two workers, and two gunicorn masters of two processes, one
connected to the coordinator and one to the first worker. Each client has an owner, sends to one
master until it fails, then to the other, and sends a write again until it is acknowledged: creates
with an `Idempotency-Key`, replacements with `If-Match`. Meanwhile these get SIGKILL in turn: a
process of the first master, that master alone, and PostgreSQL on the second worker.

Exits with 1 if an acknowledged write is missing, if one was done twice, or if an owner on the
running node was refused while the other node was down.
"""

from __future__ import annotations

import http.client
import itertools
import json
import os
import signal
import sys
import threading
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

from benchmarks.data import environment, manage
from benchmarks.report import Cell, table
from tools.citus import Citus
from tools.servers import HOST, Gunicorn, kill_tree

CLIENTS_PER_NODE = 4
PHASES = ["before", "process killed", "master killed", "node killed", "repaired"]


class Answer(NamedTuple):
    status: int
    etag: str
    task: dict[str, Any]


class Owner:
    """A client with tasks of its own, which counts the answers."""

    def __init__(self, fleet: Fleet, user_id: str, node: int) -> None:
        self.fleet, self.node = fleet, node
        self.user_id, self.tasks = user_id, f"/api/{user_id}/tasks"
        self.created: list[str] = []
        self.replaced = 0
        self._masters = itertools.cycle(fleet.masters)
        self._switch()

    def _switch(self) -> None:
        self._connection = http.client.HTTPConnection(HOST, next(self._masters).port, timeout=30)

    def work(self) -> None:
        own = self._create()
        while not self.fleet.stopping.is_set():
            self._create()
            own = self._replace(own)
        self._connection.close()

    def _create(self) -> Answer:
        key = str(uuid.uuid4())
        made = self._until({201}, "POST", self.tasks, {"title": key}, {"Idempotency-Key": key})
        self.created.append(key)
        return made

    def _replace(self, last: Answer) -> Answer:
        """Increment a number in a task. After an unknown outcome, 412 may mean success."""
        wanted = str(self.replaced + 1)
        body = {"title": last.task["title"], "description": wanted, "is_completed": False}
        path = f"{self.tasks}/{last.task['id']}"
        answer = self._until({200, 412}, "PUT", path, body, {"If-Match": last.etag})
        if answer.status == 412:
            answer = self._until({200}, "GET", path)
            assert answer.task["description"] == wanted, (answer, wanted)
        self.replaced += 1
        return answer

    def _until(
        self,
        expected: set[int],
        method: str,
        path: str,
        body: Any = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """Send until the answer is as expected, to the other master after each failure."""
        first = time.monotonic()
        while True:
            phase, began = self.fleet.phase, time.monotonic()
            try:
                self._connection.request(
                    method,
                    path,
                    json.dumps(body) if body else None,
                    {"Content-Type": "application/json", **(headers or {})},
                )
                response = self._connection.getresponse()
                status, etag, content = response.status, response.headers["ETag"], response.read()
            except (OSError, http.client.HTTPException):
                status, content = 0, b""
            self.fleet.record(phase, self.node, status, time.monotonic() - began)
            if status in expected:
                return Answer(status, etag, json.loads(content))
            if status not in (0, 503) or began > first + 60:
                raise AssertionError(f"{method} {path}: {status} {content!r}")
            self._connection.close()
            self._switch()
            time.sleep(0.02)


class Fleet:
    def __init__(self, cluster: Citus, database: str, masters: list[Gunicorn]) -> None:
        self.cluster, self.database, self.masters = cluster, database, masters
        self.phase = "before"
        self.stopping = threading.Event()
        self.statuses: Counter[tuple[str, int, int]] = Counter()
        self.slowest: defaultdict[tuple[str, int], float] = defaultdict(float)
        self._lock = threading.Lock()
        self.owners = [
            Owner(self, self._owner_on(node.port), node.port)
            for node in cluster.workers
            for _ in range(CLIENTS_PER_NODE)
        ]

    def _owner_on(self, port: int) -> str:
        """An owner whose shard is on the node of that port."""
        sql = """SELECT nodeport FROM pg_dist_placement JOIN pg_dist_node USING (groupid)
                 WHERE shardid = get_shard_id_for_distribution_column('tasks_task', %s::uuid)"""
        while True:
            user_id = str(uuid.uuid4())
            if self.cluster.coordinator.execute(sql, [user_id], self.database) == [(port,)]:
                return user_id

    def record(self, phase: str, node: int, status: int, seconds: float) -> None:
        with self._lock:
            self.statuses[phase, node, status] += 1
            self.slowest[phase, node] = max(self.slowest[phase, node], seconds)

    def run(self, seconds: float) -> None:
        """Each phase begins with a kill and takes `seconds`; at the end everything is repaired."""
        master, node = self.masters[0], self.cluster.workers[1]
        with ThreadPoolExecutor(len(self.owners)) as pool:
            futures = [pool.submit(owner.work) for owner in self.owners]
            try:
                time.sleep(seconds)
                self.phase = "process killed"
                os.kill(master.worker_pids()[0], signal.SIGKILL)
                time.sleep(seconds)
                self.phase = "master killed"
                orphans = master.children()
                os.kill(master.pid, signal.SIGKILL)
                time.sleep(seconds)
                for orphan in orphans:  # like a supervisor before it restarts a service
                    kill_tree(orphan)
                master.kill()
                master.start()
                self.phase = "node killed"
                node.kill()
                time.sleep(seconds)
                node.start()
                self.phase = "repaired"
                time.sleep(seconds)
            finally:
                self.stopping.set()
            for future in futures:
                future.result()

    def faults(self) -> list[str]:
        """The differences from what was acknowledged."""
        down = self.cluster.workers[1].port
        faults = [
            f"{count} x {status} for owners on a living node while another was down"
            for (phase, node, status), count in self.statuses.items()
            if phase == "node killed" and node != down and status in (0, 503)
        ]
        for owner in self.owners:
            rows = self.cluster.coordinator.execute(
                "SELECT title, description FROM tasks_task WHERE user_id = %s",
                [owner.user_id],
                self.database,
            )
            found = Counter(title for title, _ in rows)
            faults += [f"lost: {key}" for key in owner.created if not found[key]]
            faults += [f"done {count} times: {key}" for key, count in found.items() if count > 1]
            faults += [f"never acknowledged: {key}" for key in found.keys() - {*owner.created}]
            replaced = [text for _, text in rows if text is not None]
            if replaced != [str(owner.replaced)] * bool(owner.replaced):
                faults.append(f"replaced {owner.replaced} times, but the task says {replaced}")
        return faults

    def report(self) -> None:
        down = self.cluster.workers[1].port
        rows: list[list[Cell]] = []
        for phase, node in sorted(
            self.slowest, key=lambda at: (PHASES.index(at[0]), at[1] == down)
        ):
            of = {s: n for (p, at, s), n in self.statuses.items() if (p, at) == (phase, node)}
            done = sum(n for status, n in of.items() if status in (200, 201))
            owners = "second worker" if node == down else "first worker"
            slowest = round(1000 * self.slowest[phase, node])
            rows.append(
                [phase, owners, done, of.get(412, 0), of.get(503, 0), of.get(0, 0), slowest]
            )
        header = ["phase", "owners on", "200, 201", "412", "503", "no answer", "slowest, ms"]
        table("Answers", header, rows)
        created = sum(len(owner.created) for owner in self.owners)
        replaced = sum(owner.replaced for owner in self.owners)
        print(f"\nacknowledged: {created} creates, {replaced} replacements")


@contextmanager
def fleet(cluster: Citus, database: str) -> Iterator[Fleet]:
    """A fleet on a new database of the cluster."""
    url = cluster.create_database(database)
    manage(url, "migrate", "--verbosity=0")
    manage(url, "distribute")
    with ExitStack() as stack:
        masters = []
        for node in cluster.nodes[:2]:
            settings = {**environment(node.url(database)), "WEB_CONCURRENCY": "2"}
            masters.append(stack.enter_context(Gunicorn(settings)))
        yield Fleet(cluster, database, masters)


def main() -> None:
    with Citus() as cluster, fleet(cluster, "fleet") as it:
        print(f"{cluster.version('fleet')}, {os.cpu_count()} cores")
        it.run(seconds=5)
        it.report()
        faults = it.faults()
    print("\n".join(faults) or "nothing lost, nothing done twice")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
