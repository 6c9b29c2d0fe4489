"""The issuer's keys: fetched, cached, withdrawn, and kept while the issuer is unavailable."""

import json
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any
from uuid import uuid4

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, x25519
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from tests.client import API, TASKS
from tests.database_plugin import open_live_server
from tests.issuer import (
    Behaviour,
    Handler,
    Issuer,
    Key,
    bearer,
    drip,
    drip_headers,
    serve,
    serve_after,
    serve_bytes,
)
from tests.live import Client
from todo_project.auth import jwks
from todo_project.auth.jwks import KeySet, KeysUnavailableError, UnknownKeyError
from tools.servers import wait_until

# An issuer is a server too; few tests here use a database.
pytestmark = pytest.mark.live

OLD, NEW = Key(), Key(turn=1)
DAY = 86400


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with Issuer(OLD) as issuer:
        yield issuer


@pytest.fixture
def keys(issuer: Issuer) -> KeySet:
    """The old key has been fetched."""
    return fetched(issuer.url)


def fetched(url: str, **options: float) -> KeySet:
    keys = KeySet(url, **{"max_stale": DAY, "max_waiters": 3, **options})  # type: ignore[arg-type]
    assert keys.key(OLD.kid).algorithms == ["EdDSA"]
    return keys


def age(keys: KeySet, seconds: float) -> None:
    """Let time pass since the last fetch."""
    keys.fetched = keys.fetched._replace(at=keys.fetched.at - seconds)
    keys._next_fetch -= seconds


@pytest.fixture
def short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every fetch is due, and given up, soon."""
    for name, seconds in {
        "CACHE_TTL": 0,
        "COOL_DOWN": 0.05,
        "FIRST_COOL_DOWN": 0.05,
        "FETCH_TIMEOUT": 0.2,
        "MAX_WAIT": 0.3,
    }.items():
        monkeypatch.setattr(jwks, name, seconds)


NEW_SET = json.dumps({"keys": [NEW.jwk()]}).encode()


def redirect(handler: Handler) -> None:
    """To where there is a key indeed."""
    if handler.path == "/jwks":
        handler.answer(b"", 302, Location="/elsewhere")
    else:
        handler.answer(NEW_SET)


def write_banner(handler: Handler) -> None:
    handler.wfile.write(b"SSH-2.0-OpenSSH_9.2\r\n")


# None of these makes the new key known, or withdraws the old one.
BROKEN: dict[str, Behaviour] = {
    "slow": serve_after(10),
    "garbage": serve_bytes(b"\xff{"),
    "HTML": serve_bytes(b"<html>Login</html>", 200, "text/html"),
    "404": serve_bytes(b"", 404),
    "204": serve_bytes(b"", 204),
    "no set": serve_bytes(b"[]"),
    "null": serve_bytes(b'{"keys": null}'),
    "an object": serve_bytes(b'{"keys": {}}'),
    "an error": serve_bytes(b'{"error": "rate limited"}'),
    "odd keys": serve_bytes(b'{"keys": [null, 5, "x", [], {}, {"kid": 5}, {"kid": "x"}]}'),
    "deep": serve_bytes(b"[" * 100_000),
    "500 with a set": serve_bytes(NEW_SET, 500),
    "10 MB": serve_bytes(b" " * 10_000_000 + NEW_SET),
    "redirect": redirect,
    "redirect to a file": serve_bytes(b"", 302, Location="file:///etc/passwd"),
    "shorter than it says": serve_bytes(b'{"keys": []}', **{"Content-Length": "99"}),
    "no HTTP": write_banner,
    "nothing": lambda handler: None,
    "drip": drip,
    "drip in the headers": drip_headers,
}


@pytest.mark.parametrize("how", [*BROKEN, "down"])
def test_known_keys_go_on_while_the_issuer_fails(
    issuer: Issuer, keys: KeySet, short_times: None, how: str
) -> None:
    age(keys, 3600)
    if how == "down":
        issuer.stop()
    else:
        issuer.behave = BROKEN[how]
    before = len(issuer.fetches)
    for _ in range(5):
        assert knows(keys, OLD)
        time.sleep(0.05)
    with pytest.raises(UnknownKeyError):
        keys.key(NEW.kid)
    # The service comes back with the issuer, by itself.
    if how == "down":
        issuer.start()
    else:
        assert len(issuer.fetches) > before, "nobody asked the failing issuer"
    issuer.behave, issuer.keys = serve, [NEW.jwk()]
    assert wait_until(lambda: knows(keys, NEW), 10)


def knows(keys: KeySet, key: Key) -> bool:
    try:
        return bool(keys.key(key.kid))
    except (UnknownKeyError, KeysUnavailableError):
        return False


def test_a_new_key_is_accepted_at_once_by_all_and_costs_one_fetch(
    issuer: Issuer, keys: KeySet
) -> None:
    issuer.keys.append(NEW.jwk())
    issuer.behave = serve_after(0.1)
    keys._next_fetch = 0
    crowd = 16
    start = threading.Barrier(crowd)

    def ask(number: int) -> bool:
        start.wait()
        return knows(keys, NEW if number % 4 else OLD)

    with ThreadPoolExecutor(crowd) as pool:
        assert all(pool.map(ask, range(crowd)))
    assert len(issuer.fetches) == 2


WITHDRAWN: dict[str, bytes] = {
    "replaced": NEW_SET,
    "empty set": b'{"keys": []}',
    "of another use": json.dumps({"keys": [OLD.jwk(use="enc")]}).encode(),
    "of an unknown type": json.dumps({"keys": [{"kty": "future", "kid": OLD.kid}]}).encode(),
}


@pytest.mark.parametrize("how", WITHDRAWN)
@pytest.mark.parametrize("delay", [0, 0.6])
def test_a_withdrawn_key_is_refused_by_a_process_that_was_idle(
    issuer: Issuer, keys: KeySet, how: str, delay: float
) -> None:
    """Not one request gets past, also while the issuer takes its time."""

    def behave(handler: Handler) -> None:
        issuer.ended.wait(delay)
        handler.answer(WITHDRAWN[how])

    issuer.behave = behave
    age(keys, jwks.CACHE_TTL + 1)
    with ThreadPoolExecutor(3) as pool:
        assert not any(pool.map(lambda _: knows(keys, OLD), range(3)))
    assert len(issuer.fetches) == 2, "they wait for the same fetch"
    assert knows(keys, NEW) == (how == "replaced")
    assert not knows(keys, OLD)


def test_an_empty_set_is_an_answer(issuer: Issuer, settings: Any, db: None) -> None:
    """401 and not 503: the issuer has said that it has no such key."""
    issuer.keys = []
    use(issuer, settings)
    assert API(**bearer(OLD.sign())).get(TASKS, 401)["code"] == "invalid_token"


def test_known_keys_outlive_an_issuer_that_is_away_for_a_limited_time(
    issuer: Issuer, settings: Any, db: None
) -> None:
    settings.JWT_JWKS_MAX_STALE = 3600
    use(issuer, settings)
    api = API(**bearer(OLD.sign()))
    api.get(TASKS)
    keys = jwks.key_set(issuer.url)
    issuer.stop()
    age(keys, 3500)
    api.get(TASKS)
    age(keys, 200)
    assert api.get(TASKS, 503)["code"] == "issuer_unavailable"
    assert API(**bearer(NEW.sign())).get(TASKS, 503)["code"] == "issuer_unavailable"
    issuer.start()
    keys._next_fetch = 0
    api.get(TASKS)


def test_a_max_stale_of_zero_still_leaves_the_cache(issuer: Issuer) -> None:
    keys = fetched(issuer.url, max_stale=0)
    issuer.stop()
    age(keys, jwks.CACHE_TTL - 10)
    assert knows(keys, OLD)
    age(keys, 20)
    with pytest.raises(KeysUnavailableError):
        keys.key(OLD.kid)


def test_a_slow_fetch_leaves_one_thread_free(issuer: Issuer, keys: KeySet) -> None:
    """Four threads; all have a known key whose set is too old, and the issuer is slow."""
    issuer.behave = serve_after(10)
    age(keys, 3600)
    began = time.monotonic()

    def ask(_: int) -> float:
        assert knows(keys, OLD)
        return time.monotonic() - began

    with ThreadPoolExecutor(4) as pool:
        took = sorted(pool.map(ask, range(4)))
    assert took[0] < jwks.MAX_WAIT <= took[1]
    assert took[3] < jwks.FETCH_TIMEOUT
    # Once its time is over nobody waits for that fetch.
    began = time.monotonic()
    assert knows(keys, OLD)
    assert time.monotonic() - began < jwks.SHORT_WAIT
    assert len(issuer.fetches) == 2


def test_the_answer_of_a_fetch_that_was_left_does_not_count(
    issuer: Issuer, keys: KeySet, short_times: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else an old set could bring a withdrawn key back."""
    release = threading.Event()

    def late(handler: Handler) -> None:
        release.wait(10)
        handler.answer(json.dumps({"keys": [OLD.jwk()]}).encode())

    monkeypatch.setattr(jwks, "FETCH_TIMEOUT", 10)
    threads = threading.active_count()
    issuer.behave = late
    age(keys, 3600)
    assert knows(keys, OLD)
    keys._started -= 100
    issuer.behave, issuer.keys = serve, [NEW.jwk()]
    assert wait_until(lambda: knows(keys, NEW))
    assert not knows(keys, OLD)
    release.set()
    assert wait_until(lambda: threading.active_count() <= threads)
    assert list(keys.fetched.keys) == [NEW.kid]


def test_keys_are_fetched_again_when_the_cache_expires(issuer: Issuer, keys: KeySet) -> None:
    age(keys, jwks.CACHE_TTL - 10)
    for _ in range(20):
        assert knows(keys, OLD)
    assert len(issuer.fetches) == 1
    age(keys, 20)
    assert knows(keys, OLD)
    assert len(issuer.fetches) == 2
    for _ in range(20):
        assert knows(keys, OLD)
    assert len(issuer.fetches) == 2


def test_a_flood_of_unknown_kids_is_one_fetch_per_cool_down(
    issuer: Issuer, keys: KeySet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jwks, "COOL_DOWN", 0.25)
    keys._next_fetch = 0
    ends = time.monotonic() + 1

    def flood(_: int) -> int:
        asked = 0
        while time.monotonic() < ends:
            with pytest.raises(UnknownKeyError):
                keys.key(str(uuid4()))
            asked += 1
        return asked

    with ThreadPoolExecutor(8) as pool:
        asked = sum(pool.map(flood, range(8)))
    assert asked > 500
    pauses = [after - before for before, after in pairwise(issuer.fetches[1:])]
    assert pauses, "no fetch at all"
    assert min(pauses) >= 0.25


def test_an_unknown_kid_is_unknown_while_the_issuer_is_slow(issuer: Issuer, keys: KeySet) -> None:
    issuer.behave = serve_after(10)
    keys._next_fetch = 0
    began = time.perf_counter()
    with ThreadPoolExecutor(4) as pool:
        took = []
        for future in [pool.submit(knows, keys, NEW) for _ in range(4)]:
            assert not future.result()
            took.append(time.perf_counter() - began)
        while time.perf_counter() < began + jwks.MAX_WAIT:
            time.sleep(0.01)
        began = time.perf_counter()
        assert not pool.submit(knows, keys, NEW).result()
    assert max(took) < 2, "a request waited longer than a second"
    assert time.perf_counter() - began < 0.5, "and later ones do not wait at all"


def test_without_any_key_ever_it_is_the_services_fault_until_the_issuer_is_there(
    short_times: None, settings: Any, db: None
) -> None:
    issuer = Issuer(OLD)
    use(issuer, settings)
    api = API(**bearer(OLD.sign()))
    assert api.get(TASKS, 503)["code"] == "issuer_unavailable"
    assert api.last["Retry-After"] == "2"
    # What no key could mend is the client's fault even so.
    assert API(**bearer("garbage")).get(TASKS, 401)["code"] == "invalid_token"
    assert API().get(TASKS, 401)["code"] == "not_authenticated"
    with issuer:
        assert wait_until(lambda: api.client.get(TASKS).status_code == 200, 10)


def use(issuer: Issuer, settings: Any) -> None:
    settings.AUTH_MODE, settings.JWT_SECRET = "jwt", None
    settings.JWT_JWKS_URL = issuer.url


def other_curve(curve: ec.EllipticCurve) -> dict[str, Any]:
    key = ec.generate_private_key(curve).public_key()
    return {**ECAlgorithm.to_jwk(key, as_dict=True), "kid": "bad", "use": "sig"}


RSA = Key("RS256", kid="bad")
X25519 = x25519.X25519PrivateKey.generate().public_key().public_bytes_raw()
UNUSABLE: dict[str, Callable[[], Any]] = {
    "weak RSA": lambda: Key("RS256", size=1024, kid="bad").jwk(),
    "for encryption": lambda: RSA.jwk(use="enc"),
    "RSA-OAEP": lambda: RSA.jwk(alg="RSA-OAEP", use=None),
    "RS512": lambda: RSA.jwk(alg="RS512"),
    "HS256": lambda: RSA.jwk(alg="HS256"),
    "none": lambda: RSA.jwk(alg="none"),
    "ES256 on RSA": lambda: RSA.jwk(alg="ES256"),
    "symmetric": lambda: {"kty": "oct", "k": "c2VjcmV0" * 8, "kid": "bad", "alg": "HS256"},
    "symmetric without alg": lambda: {"kty": "oct", "k": "c2VjcmV0" * 8, "kid": "bad"},
    "private": lambda: {**RSAAlgorithm.to_jwk(RSA.private, as_dict=True), "kid": "bad"},
    "private EdDSA": lambda: {**OKPAlgorithm.to_jwk(OLD.private, as_dict=True), "kid": "bad"},
    "P-384": lambda: other_curve(ec.SECP384R1()),
    "secp256k1": lambda: other_curve(ec.SECP256K1()),
    "X25519": lambda: OLD.jwk(kid="bad", crv="X25519", alg=None, x=X25519.hex()),
    "a point off the curve": lambda: Key("ES256").jwk(kid="bad", x="A" * 43),
    "no modulus": lambda: RSA.jwk(n=None),
    "a number for text": lambda: RSA.jwk(n=5),
    "lists for text": lambda: RSA.jwk(kty=["RSA"], use=["sig"], alg=["RS256"]),
    "no kid": lambda: RSA.jwk(kid=None),
    "kid a number": lambda: RSA.jwk(kid=5),
    "no object": lambda: "bad",
}


@pytest.mark.parametrize("why", UNUSABLE)
def test_it_ignores_a_key_that_is_not_fit_to_verify_and_takes_the_rest(why: str) -> None:
    document = json.dumps({"keys": [UNUSABLE[why](), OLD.jwk()]}).encode()
    assert list(jwks.parse(document)) == [OLD.kid]


@pytest.mark.parametrize(
    ("jwk", "algorithms"),
    [
        (RSA.jwk(), ["RS256"]),
        (RSA.jwk(alg="PS256"), ["PS256"]),
        (RSA.jwk(alg=None), ["RS256", "PS256"]),
        (RSA.jwk(use=None, x5c=["nonsense"], x5t="x"), ["RS256"]),
        (Key("ES256").jwk(), ["ES256"]),
        (OLD.jwk(), ["EdDSA"]),
        (OLD.jwk(alg="Ed25519"), ["EdDSA"]),  # RFC 9864
    ],
)
def test_the_key_says_which_algorithms_it_verifies(
    jwk: dict[str, Any], algorithms: list[str]
) -> None:
    [key] = jwks.parse(json.dumps({"keys": [jwk]}).encode()).values()
    assert key.algorithms == algorithms


def test_an_issuer_down_or_slow_is_not_its_users_trouble() -> None:
    """Two processes of four threads each; keys and locks are each process's own.

    Measured on two busy cores: known users p50 0.009 s, p99 0.05 s, slowest 0.36 s, while eight
    clients flood both with unknown keys and the issuer takes ten seconds.
    """
    issuer = Issuer(OLD)
    with (
        issuer,
        open_live_server(vendor="sqlite", AUTH_MODE="jwt", JWT_JWKS_URL=issuer.url) as server,
        ThreadPoolExecutor(12) as pool,
    ):
        known, unknown = bearer(OLD.sign()), bearer(NEW.sign())

        def status(headers: dict[str, str]) -> int:
            # A connection each, so that both processes are met.
            with Client(server) as client:
                return client.ask("GET", TASKS, headers=headers).status

        issuer.stop()
        answer = httpx.get(server.base_url + TASKS, headers=known, timeout=15)
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
        assert answer.json()["code"] == "issuer_unavailable"
        issuer.start()
        assert wait_until(lambda: all(status(known) == 200 for _ in range(12)))
        assert wait_until(lambda: status(known) == 200 and len(issuer.fetches) == 2), (
            "each process fetches for itself"
        )

        issuer.stop()
        assert set(pool.map(status, [known] * 40)) == {200}
        issuer.start()

        issuer.behave = serve_after(10)
        ended = threading.Event()

        def flood(_: int) -> set[int]:
            with httpx.Client(base_url=server.base_url, headers=unknown, timeout=15) as client:
                seen = set()
                while not ended.is_set():
                    seen.add(client.get(TASKS).status_code)
                return seen

        def measure(_: int) -> list[float]:
            took = []
            with httpx.Client(base_url=server.base_url, headers=known, timeout=15) as client:
                while not ended.is_set():
                    began = time.perf_counter()
                    assert client.get(TASKS).status_code == 200
                    took.append(time.perf_counter() - began)
            return took

        floods = [pool.submit(flood, number) for number in range(8)]
        measures = [pool.submit(measure, number) for number in range(4)]
        # From before both processes begin to ask the slow issuer to well after.
        asked = wait_until(lambda: len(issuer.fetches) == 4, 15)
        time.sleep(2)
        ended.set()
        assert asked, f"{len(issuer.fetches)} fetches"
        assert set().union(*(future.result() for future in floods)) == {401}
        took = [seconds for future in measures for seconds in future.result()]
        p99 = statistics.quantiles(took, n=100)[-1]
        assert p99 < 2, f"p99 of {len(took)} known users: {p99:.3f} s with an issuer of 10 s"
        assert max(took) < 5, f"slowest of {len(took)} known users: {max(took):.3f} s"
        assert len(issuer.fetches) == 4
