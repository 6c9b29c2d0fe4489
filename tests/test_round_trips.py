"""Round trips to the database, counted at the socket: at most one for almost every request."""

import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import jwt
import pytest

from tests.client import ALICE, BOB, TASKS
from tests.database_plugin import LiveServer, open_live_server
from tests.live import HEAD_AND_OPTIONS, OPERATIONS, REFUSED, Client, Row, route, routes
from tools.certificate import self_signed
from tools.servers import PostgreSQL, ServerError

pytestmark = pytest.mark.live

PROBES = [
    Row("health", "GET", "/healthz", round_trips=0),
    # The applied migrations; the table, its columns and rights.
    Row("readiness", "GET", "/readyz", round_trips=2),
]
DOCUMENTS = [
    Row("schema", "GET", "/api/schema", round_trips=0),
    Row("docs", "GET", "/api/docs", round_trips=0),
]
ROWS = OPERATIONS + HEAD_AND_OPTIONS + REFUSED + PROBES + DOCUMENTS


ONE_THREAD: Any = {"WEB_CONCURRENCY": "1", "WEB_THREADS": "1"}  # so that one connection serves all


@pytest.fixture(scope="module", params=["direct", "pgbouncer", "citus"])
def server(request: pytest.FixtureRequest) -> Iterator[LiveServer]:
    """The proxy is between the service and PgBouncer, if there is one."""
    through = request.param == "pgbouncer"
    vendor = "citus" if request.param == "citus" else "postgresql"
    with open_live_server(vendor, via_pgbouncer=through, proxy=True, **ONE_THREAD) as live:
        assert live.proxy.connections == 1  # at the start the encoding is checked, and no more
        assert live.proxy.statements == []
        yield live


@pytest.fixture(scope="module")
def encrypted() -> Iterator[PostgreSQL]:
    """A server with TLS, and a certificate for `localhost` that is its own root."""
    with ExitStack() as stack:
        server = PostgreSQL()
        stack.callback(server.close)
        key, certificate = self_signed("localhost")
        server._write("key", key).chmod(0o600)
        server._write("root", certificate)
        server.settings["ssl"] = "on"
        server.settings["ssl_key_file"] = str(server.folder / "key")
        server.settings["ssl_cert_file"] = str(server.folder / "root")
        try:
            server.start()
        except ServerError as error:
            if "SSL is not supported by this build" in str(error):
                pytest.skip("this PostgreSQL is built without TLS")
            raise
        yield server


def test_tls_costs_no_round_trip_and_no_reconnection(encrypted: PostgreSQL) -> None:
    """The server sends a session ticket unasked, which the health check must not take for the end
    of the session."""
    with open_live_server(postgres=encrypted, proxy=True, **ONE_THREAD) as server:
        server.stop()
        url = server.environment["DATABASE_URL"].replace("127.0.0.1", "localhost")
        server.environment["DATABASE_URL"] = (
            f"{url}?sslmode=verify-full&sslrootcert={encrypted.folder}/root"
        )
        server.start()
        with Client(server) as client:
            client.create()
            server.proxy.reset()
            for row in OPERATIONS:
                task = client.create()
                assert row.ask(client, task).status == row.status
            assert (server.proxy.connections, server.proxy.round_trips) == (0, 2 * len(OPERATIONS))
            sessions = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)"
            sessions += " WHERE ssl AND application_name = 'todo'"
            assert encrypted.execute(sessions) == [(1,)]


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


def test_a_token_is_verified_without_the_database() -> None:
    secret = "of 32 bytes or more, as RFC 7518 has it"
    with (
        open_live_server(proxy=True, AUTH_MODE="jwt", JWT_SECRET=secret, **ONE_THREAD) as server,
        Client(server) as client,
    ):

        def get(sub: str, seconds: int = 60) -> tuple[int, int]:
            claims = {"sub": sub, "exp": int(time.time()) + seconds}
            token = jwt.encode(claims, secret, "HS256") if sub else "none"
            server.proxy.reset()
            answer = client.ask("GET", TASKS, headers={"Authorization": f"Bearer {token}"})
            return answer.status, server.proxy.round_trips

        assert get(ALICE)[0] == 200
        assert get(ALICE) == (200, 1)
        assert get(ALICE, seconds=-60) == (401, 0)
        assert get("") == (401, 0)
        assert get(BOB) == (403, 0)
