"""End to end: users of a real Better Auth, run from examples/better-auth, work with the service.

Everything is real: Node runs the issuer, gunicorn the service, and PostgreSQL has the tasks.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import httpx
import jwt
import pytest

from tests.database_plugin import LiveServer
from tools import npm
from tools.servers import CLEAN_ENVIRONMENT, HOST, Server, wait_until

EXAMPLE = npm.EXAMPLES / "better-auth"
DEADLINE = 60.0  # seconds; much longer than the pause between two fetches of the keys

pytestmark = pytest.mark.live


@dataclass
class User:
    """A user signed up at the issuer, with the session's cookie."""

    id: str
    session_token: str
    issuer_url: str
    cookies: httpx.Cookies

    def fetch(self, path: str) -> httpx.Response:
        """GET from the issuer within the session."""
        url = self.issuer_url + path
        return httpx.get(url, cookies=self.cookies, timeout=60).raise_for_status()

    def token(self) -> str:
        """A new JWT, as a front end gets it."""
        return str(self.fetch("/api/auth/token").json()["token"])


class BetterAuth(Server):
    """The example on a free port, with its data in memory: a restart loses users and keys."""

    def __init__(self, **env: str) -> None:
        """`env` is added to its environment."""
        super().__init__()
        self.url = f"http://{HOST}:{self.port}"
        self._env = CLEAN_ENVIRONMENT | {"PORT": str(self.port)} | env

    def start(self) -> None:
        self._spawn(["node", "server.mjs"], self._serves, self._env, EXAMPLE)

    def _serves(self) -> bool:
        try:
            return httpx.get(f"{self.url}/api/auth/ok").status_code == 200
        except httpx.TransportError:
            return False

    def sign_up(self, name: str) -> User:
        answer = httpx.post(
            f"{self.url}/api/auth/sign-up/email",
            json={
                "name": name,
                "email": f"{name}-{uuid.uuid4()}@example.com",
                "password": "correct horse battery",
            },
            timeout=60,
        ).raise_for_status()
        body = answer.json()
        return User(body["user"]["id"], body["token"], self.url, answer.cookies)


@dataclass
class Service:
    """The task service as a front end talks to it."""

    client: httpx.Client

    def __call__(
        self, token: str, method: str, path: str, expect: int, json: object = None
    ) -> httpx.Response:
        """Send one request with `token`, and check its status and that a problem is one."""
        answer = self._send(token, method, path, json)
        assert answer.status_code == expect, answer.text
        if expect >= 400:
            assert answer.headers["Content-Type"] == "application/problem+json"
            assert answer.json()["status"] == expect
        return answer

    def accepts_within_deadline(self, token: str, path: str) -> None:
        """Wait for the service to fetch the key of `token`; until then it may only answer 401."""
        deadline = time.monotonic() + DEADLINE
        while (answer := self._send(token, "GET", path)).status_code != 200:
            assert answer.status_code == 401, answer.text
            assert time.monotonic() < deadline, f"the new key was not fetched: {answer.text}"
            time.sleep(0.2)

    def _send(self, token: str, method: str, path: str, json: object = None) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token}"}
        return self.client.request(method, path, headers=headers, json=json)


@pytest.fixture(scope="session")
def node_modules() -> None:
    npm.require_packages(EXAMPLE)


@pytest.fixture(scope="module")
def issuer(node_modules: None) -> Iterator[BetterAuth]:
    """Better Auth as in the example: its defaults, except for UUIDs as ids."""
    with BetterAuth() as issuer:
        yield issuer


@pytest.fixture
def service_trusting(
    live_server_factory: Callable[..., LiveServer],
) -> Iterator[Callable[[BetterAuth], Service]]:
    """Start the service with the settings from the example's README."""
    clients: list[httpx.Client] = []

    def start(issuer: BetterAuth) -> Service:
        block = re.search(r"```dotenv\n(.+?)```", (EXAMPLE / "README.md").read_text(), re.DOTALL)
        assert block
        lines = block[1].replace("http://127.0.0.1:3000", issuer.url).split()
        # One process: each has its own key set, and some tests expect when it changes.
        env = dict(line.split("=", 1) for line in lines) | {"WEB_CONCURRENCY": "1"}
        server = live_server_factory(vendor="postgresql", **env)
        clients.append(httpx.Client(base_url=server.base_url, timeout=60))
        return Service(clients[-1])

    yield start
    for client in clients:
        client.close()


ServiceTrusting = Callable[[BetterAuth], Service]


def test_a_user_of_better_auth_creates_lists_and_completes_a_task(
    issuer: BetterAuth, service_trusting: ServiceTrusting
) -> None:
    service, alice = service_trusting(issuer), issuer.sign_up("alice")
    token, path = alice.token(), f"/api/{alice.id}/tasks"

    task = service(token, "POST", path, 201, {"title": "Buy milk"}).json()
    assert (task["user_id"], task["title"], task["is_completed"]) == (alice.id, "Buy milk", False)
    assert service(token, "GET", path, 200).json() == [task]
    done = service(token, "PATCH", f"{path}/{task['id']}/complete", 200).json()
    assert done == task | {"is_completed": True, "updated_at": done["updated_at"]}

    header = alice.fetch("/api/auth/get-session").headers["set-auth-jwt"]
    assert service(header, "GET", path, 200).json() == [done]


def test_it_gives_another_user_403_on_every_route_of_the_first(
    issuer: BetterAuth, service_trusting: ServiceTrusting
) -> None:
    service, alice, bob = service_trusting(issuer), issuer.sign_up("alice"), issuer.sign_up("bob")
    path = f"/api/{alice.id}/tasks"
    task = service(alice.token(), "POST", path, 201, {"title": "Private"}).json()
    one = f"{path}/{task['id']}"

    for method, url, body in (
        ("GET", path, None),
        ("POST", path, {"title": "Taken"}),
        ("GET", one, None),
        ("PUT", one, {"title": "Taken", "description": None, "is_completed": True}),
        ("PATCH", one, {"title": "Taken"}),
        ("PATCH", f"{one}/complete", None),
        ("DELETE", one, None),
    ):
        assert "Private" not in service(bob.token(), method, url, 403, body).text
    service(bob.token(), "GET", f"/api/{bob.id}/tasks/{task['id']}", 404)
    assert service(alice.token(), "GET", path, 200).json() == [task]


def test_it_refuses_the_session_token_which_is_no_jwt(
    issuer: BetterAuth, service_trusting: ServiceTrusting
) -> None:
    alice = issuer.sign_up("alice")
    refused = service_trusting(issuer)(alice.session_token, "GET", f"/api/{alice.id}/tasks", 401)
    assert refused.headers["WWW-Authenticate"].startswith("Bearer ")


def test_it_names_the_setting_when_better_auth_makes_ids_that_are_no_uuids(
    node_modules: None, service_trusting: ServiceTrusting
) -> None:
    with BetterAuth(GENERATE_ID="default") as issuer:
        service, alice = service_trusting(issuer), issuer.sign_up("alice")
        assert re.fullmatch("[A-Za-z0-9]{32}", alice.id)
        for owner in (alice.id, "11111111-1111-4111-8111-111111111111"):
            refused = service(alice.token(), "GET", f"/api/{owner}/tasks", 401)
            assert 'advanced.database.generateId: "uuid"' in refused.json()["detail"]
            assert refused.headers["WWW-Authenticate"].startswith("Bearer ")


def test_it_learns_a_rotated_key_and_still_takes_the_old_one_while_published(
    node_modules: None, service_trusting: ServiceTrusting
) -> None:
    with BetterAuth(JWKS_ROTATION_SECONDS="3") as issuer:
        service, alice = service_trusting(issuer), issuer.sign_up("alice")
        old, path = alice.token(), f"/api/{alice.id}/tasks"
        service(old, "GET", path, 200)
        assert wait_until(lambda: key_id(alice.token()) != key_id(old)), "no new key"
        service.accepts_within_deadline(alice.token(), path)
        service(old, "GET", path, 200)


def test_it_keeps_a_key_while_the_issuer_is_unavailable_and_drops_it_once_withdrawn(
    node_modules: None, service_trusting: ServiceTrusting
) -> None:
    with BetterAuth() as issuer:
        service, alice = service_trusting(issuer), issuer.sign_up("alice")
        old, path = alice.token(), f"/api/{alice.id}/tasks"
        service(old, "GET", path, 200)
        issuer.kill()
        service(old, "GET", path, 200)

        issuer.start()
        bob = issuer.sign_up("bob")
        service.accepts_within_deadline(bob.token(), f"/api/{bob.id}/tasks")
        service(old, "GET", path, 401)


def key_id(token: str) -> str:
    """The `kid` of the key that signed `token`."""
    return str(jwt.get_unverified_header(token)["kid"])
