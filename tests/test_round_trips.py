"""One round trip to the database per request, and none where none is needed: at the socket."""

import uuid
from collections.abc import Iterator

import pytest

from tests.database_plugin import LiveServer, open_live_server
from tests.live import HEAD_AND_OPTIONS, OPERATIONS, REFUSED, Client, Row, route, routes

pytestmark = pytest.mark.live

PROBES = [
    Row("health", "GET", "/healthz", round_trips=0),
    # It answers, there is a table of migrations, all are in it.
    Row("readiness", "GET", "/readyz", round_trips=3),
]
DOCUMENTS = [
    Row("schema", "GET", "/api/schema", round_trips=0),
    Row("docs", "GET", "/api/docs", round_trips=0),
]
ROWS = OPERATIONS + HEAD_AND_OPTIONS + REFUSED + PROBES + DOCUMENTS


@pytest.fixture(scope="module", params=["direct", "pgbouncer"])
def server(request: pytest.FixtureRequest) -> Iterator[LiveServer]:
    """One thread, so that one connection serves all; the proxy is next to the service."""
    through = request.param == "pgbouncer"
    one = {"WEB_CONCURRENCY": "1", "WEB_THREADS": "1"}
    with open_live_server(via_pgbouncer=through, proxy=True, **one) as live:
        assert live.proxy.connections == 0  # neither start nor health check has asked for any
        yield live


def test_every_route_has_a_row() -> None:
    missing = routes() - {route(row) for row in ROWS if row.status < 300}
    assert missing == set(), "give each a row with its number of round trips"


def test_a_request_takes_one_round_trip_and_no_session_state(server: LiveServer) -> None:
    with Client(server) as client:
        wrong = []
        for row in ROWS:
            key = str(uuid.uuid4())
            task = client.create(headers={"Idempotency-Key": key})
            server.proxy.reset()
            answer = row.ask(client, task, key)
            told = (answer.status, server.proxy.round_trips, server.proxy.connections)
            if told != (row.status, row.round_trips, 0):
                wrong.append((row.name, told, answer.body[:200]))
            # No BEGIN, COMMIT, SET or DISCARD, and no name of a prepared statement.
            verbs = {statement.split()[0] for statement in server.proxy.statements}
            assert verbs <= {"SELECT", "INSERT", "UPDATE", "DELETE"}, row.name
            assert len(server.proxy.statements) == row.round_trips, row.name
        assert wrong == []
