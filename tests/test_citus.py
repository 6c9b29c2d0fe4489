"""The service on a Citus cluster: one shard per request, and failing nodes."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from benchmarks.fleet import fleet
from tests.database_plugin import LiveServer, open_live_server
from tests.live import HEAD_AND_OPTIONS, OPERATIONS, REFUSED, Client, route, routes
from tests.test_statements import LISTS
from tools.citus import Citus, Node
from tools.servers import Gunicorn

pytestmark = pytest.mark.live

ROWS = OPERATIONS + HEAD_AND_OPTIONS + REFUSED + LISTS


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    """The service on the coordinator of the cluster."""
    with open_live_server("citus") as live:
        yield live


@contextmanager
def on_node(server: LiveServer, node: Node, **environment: str) -> Iterator[Gunicorn]:
    """The service on each node of the cluster: all nodes know where the shards are."""
    environment["DATABASE_URL"] = node.url(server.database)
    with Gunicorn({**server.environment, **environment}) as gunicorn:
        yield gunicorn


Session = psycopg.Connection[tuple[int, int]]


def executions(session: Session) -> dict[str, int]:
    """How many statements the node has run so far on a single shard, and on several."""
    sql = """SELECT query_execution_single_shard, query_execution_multi_shard
             FROM citus_stat_counters WHERE name = current_database()"""
    return dict(zip(("single", "multi"), session.execute(sql).fetchall()[0], strict=True))


def test_every_route_has_a_row() -> None:
    """Except statements that read no task."""
    missing = routes() - {route(row) for row in ROWS if row.status < 300}
    assert {name for name, _ in missing} == {"healthz", "readyz", "schema", "docs"}


def test_the_counters_tell_one_shard_from_several(server: LiveServer) -> None:
    with psycopg.connect(server.database_url, autocommit=True) as session:
        before = executions(session)
        session.execute("SELECT count(*) FROM tasks_task")
        after = executions(session)
    assert {kind: after[kind] - before[kind] for kind in after} == {"single": 0, "multi": 1}


@pytest.mark.parametrize("number", [0, 1], ids=["coordinator", "worker"])
@pytest.mark.parametrize("limit", ["", "1000"], ids=["", "MAX_TASKS_PER_OWNER"])
def test_a_request_touches_one_shard(
    server: LiveServer, citus: Citus, number: int, limit: str
) -> None:
    node = citus.nodes[number]
    with (
        on_node(server, node, MAX_TASKS_PER_OWNER=limit) as gunicorn,
        Client(gunicorn) as client,
        psycopg.connect(node.url(server.database), autocommit=True) as session,
    ):
        wrong = []
        for row in ROWS:
            key = str(uuid.uuid4())
            task = client.create(headers={"Idempotency-Key": key})
            before = executions(session)
            answer = row.ask(client, task, key)
            after = executions(session)
            touched = {kind: after[kind] - before[kind] for kind in after}
            if answer.status != row.status or touched["multi"]:
                wrong.append((row.name, answer.status, touched))
            # The limit's statement is one for Citus's planner and two for its executor.
            if not limit and touched["single"] != row.round_trips:
                wrong.append((row.name, row.round_trips, touched))
        assert wrong == []


def owners_by_node(citus: Citus, database: str) -> dict[int, str]:
    """An owner for each worker, by the node's port."""
    sql = """SELECT nodeport FROM pg_dist_placement JOIN pg_dist_node USING (groupid)
             WHERE shardid = get_shard_id_for_distribution_column('tasks_task', %s::uuid)"""
    found: dict[int, str] = {}
    while len(found) < len(citus.workers):
        owner = str(uuid.uuid4())
        found[citus.coordinator.execute(sql, [owner], database)[0][0]] = owner
    return found


def exercise(client: Client, owner: str) -> list[int]:
    """The status of a create, and of what else can be done with a task."""
    tasks = f"/api/{owner}/tasks"
    made = client.ask("POST", tasks, {"title": "Buy milk"})
    path = f"{tasks}/{made.json().get('id', uuid.uuid4())}"
    whole = {"title": "Buy bread", "description": None, "is_completed": True}
    others = [
        client.ask("GET", tasks),
        client.ask("GET", path),
        client.ask("PUT", path, whole),
        client.ask("PATCH", f"{path}/complete"),
        client.ask("DELETE", path),
    ]
    return [answer.status for answer in [made, *others]]


WELL = [201, 200, 200, 200, 200, 204]


def test_a_failed_node_affects_only_its_owners(server: LiveServer, citus: Citus) -> None:
    """It stays ready; a load balancer would else stop serving the other owners too."""
    dead, living = citus.workers
    owners = owners_by_node(citus, server.database)
    with Client(server) as client:
        assert [exercise(client, owner) for owner in owners.values()] == [WELL, WELL]
        dead.kill()
        try:
            for _ in range(5):
                assert exercise(client, owners[dead.port]) == [503] * len(WELL)
                assert exercise(client, owners[living.port]) == WELL
                assert client.ask("GET", "/readyz").status == 200
        finally:
            dead.start()
        assert [exercise(client, owner) for owner in owners.values()] == [WELL, WELL]


def test_without_the_coordinator_other_nodes_serve(server: LiveServer, citus: Citus) -> None:
    owners = owners_by_node(citus, server.database)
    with on_node(server, citus.workers[0]) as gunicorn, Client(gunicorn) as client:
        citus.coordinator.kill()
        try:
            assert [exercise(client, owner) for owner in owners.values()] == [WELL, WELL]
            assert client.ask("GET", "/readyz").status == 200
        finally:
            citus.coordinator.start()


def test_a_fleet_loses_nothing_and_does_nothing_twice(citus: Citus) -> None:
    """Parts are killed under load: see benchmarks/fleet.py."""
    with fleet(citus, "fleet") as it:
        it.run(seconds=1)
        assert it.faults() == []
    citus.drop_database("fleet")
