"""The issuer's keys: fetched, cached, withdrawn, and kept while the issuer is unavailable."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, x25519
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from tests.client import API, TASKS, at_once
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


@pytest.fixture(autouse=True)
def long_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """No timeout that a busy machine could reach."""
    for name in ("MAX_WAIT", "SHORT_WAIT", "FETCH_TIMEOUT", "COOL_DOWN", "FIRST_COOL_DOWN"):
        monkeypatch.setattr(jwks, name, 60)


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
def short_times(long_times: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key set is fetched soon, and a fetch soon times out."""
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
    """To a URL that has the new key."""
    if handler.path == "/jwks":
        handler.answer(b"", 302, Location="/elsewhere")
    else:
        handler.answer(NEW_SET)


def write_banner(handler: Handler) -> None:
    handler.wfile.write(b"SSH-2.0-OpenSSH_9.2\r\n")


# None of these responses adds the new key or withdraws the old one.
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
def test_known_keys_stay_valid_while_the_issuer_fails(
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
    # The service recovers by itself.
    if how == "down":
        issuer.start()
    else:
        assert wait_until(lambda: len(issuer.fetches) > before), "the issuer was not asked"
    issuer.behave, issuer.keys = serve, [NEW.jwk()]
    assert wait_until(lambda: knows(keys, NEW))


def knows(keys: KeySet, key: Key) -> bool:
    try:
        return bool(keys.key(key.kid))
    except (UnknownKeyError, KeysUnavailableError):
        return False


def test_a_new_key_is_accepted_by_all_threads_after_one_fetch(issuer: Issuer, keys: KeySet) -> None:
    issuer.keys.append(NEW.jwk())
    issuer.behave = serve_after(0.1)
    keys._next_fetch = 0
    assert all(at_once(16, lambda number: knows(keys, NEW if number % 4 else OLD)))
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
    """No request is accepted, also while the issuer is slow."""

    def behave(handler: Handler) -> None:
        issuer.ended.wait(delay)
        handler.answer(WITHDRAWN[how])

    issuer.behave = behave
    age(keys, jwks.CACHE_TTL + 1)
    assert not any(at_once(3, lambda _: knows(keys, OLD)))
    assert len(issuer.fetches) == 2, "they wait for the same fetch"
    assert knows(keys, NEW) == (how == "replaced")
    assert not knows(keys, OLD)


def test_an_empty_set_is_401(issuer: Issuer, settings: Any, db: None) -> None:
    """401 and not 503: the issuer has said that it has no such key."""
    issuer.keys = []
    use(issuer, settings)
    assert API(**bearer(OLD.sign())).get(TASKS, 401)["code"] == "invalid_token"


def test_known_keys_are_trusted_for_a_limited_time_while_the_issuer_is_unavailable(
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


def test_with_a_max_stale_of_zero_keys_are_still_cached(issuer: Issuer) -> None:
    keys = fetched(issuer.url, max_stale=0)
    issuer.stop()
    age(keys, jwks.CACHE_TTL - 10)
    assert knows(keys, OLD)
    age(keys, 20)
    with pytest.raises(KeysUnavailableError):
        keys.key(OLD.kid)


def test_a_slow_fetch_leaves_one_thread_free(
    issuer: Issuer, keys: KeySet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four threads ask for a known key, the set is too old, and the issuer does not answer."""
    monkeypatch.setattr(jwks, "SHORT_WAIT", 0.25)
    issuer.behave = serve_after(60)
    age(keys, 3600)
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(knows, keys, OLD) for _ in range(4)]
        assert wait_until(lambda: any(future.done() for future in asked))
        assert [future.done() for future in asked].count(True) == 1
        issuer.ended.set()
        assert all(future.result() for future in asked)
    assert len(issuer.fetches) == 2


@pytest.mark.parametrize("key", [OLD, NEW], ids=["known", "unknown"])
def test_no_request_waits_until_a_slow_fetch_times_out(
    issuer: Issuer, keys: KeySet, monkeypatch: pytest.MonkeyPatch, key: Key
) -> None:
    monkeypatch.setattr(jwks, "MAX_WAIT", 0.3)
    issuer.behave = serve_after(60)
    age(keys, 3600)
    began = time.monotonic()
    assert set(at_once(3, lambda _: knows(keys, key))) == {key is OLD}
    for _ in range(100):  # these do not wait at all
        assert knows(keys, key) == (key is OLD)
    assert time.monotonic() - began < 25
    assert wait_until(lambda: len(issuer.fetches) == 2)


def test_the_response_to_an_abandoned_fetch_is_ignored(
    issuer: Issuer, keys: KeySet, short_times: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It could bring a withdrawn key back."""
    release = threading.Event()

    def late(handler: Handler) -> None:
        release.wait(60)
        handler.answer(json.dumps({"keys": [OLD.jwk()]}).encode())

    monkeypatch.setattr(jwks, "FETCH_TIMEOUT", 20)
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
    began = time.monotonic()

    def flood(_: int) -> int:
        asked = 0
        while time.monotonic() < began + 1:
            with pytest.raises(UnknownKeyError):
                keys.key(str(uuid4()))
            asked += 1
        return asked

    asked = sum(at_once(8, flood))
    fetches = len(issuer.fetches) - 1
    assert 1 <= fetches <= (time.monotonic() - began) / 0.25 + 1
    assert asked > 10 * fetches


def test_without_any_key_it_is_503_until_the_issuer_is_available(
    short_times: None, settings: Any, db: None
) -> None:
    issuer = Issuer(OLD)
    use(issuer, settings)
    api = API(**bearer(OLD.sign()))
    assert api.get(TASKS, 503)["code"] == "issuer_unavailable"
    assert api.last["Retry-After"] == "2"
    # Without a well-formed token it is the client's fault all the same.
    assert API(**bearer("garbage")).get(TASKS, 401)["code"] == "invalid_token"
    assert API().get(TASKS, 401)["code"] == "not_authenticated"
    with issuer:
        assert wait_until(lambda: api.client.get(TASKS).status_code == 200)


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
def test_a_key_that_is_unsuitable_is_ignored(why: str) -> None:
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
def test_the_key_decides_which_algorithms_it_verifies(
    jwk: dict[str, Any], algorithms: list[str]
) -> None:
    [key] = jwks.parse(json.dumps({"keys": [jwk]}).encode()).values()
    assert key.algorithms == algorithms


def test_an_issuer_that_is_down_or_slow_does_not_affect_known_users() -> None:
    """With two processes of four threads, each process with a key set of its own.

    Eight clients flood them with unknown keys, and the issuer takes ten seconds.
    """
    issuer = Issuer(OLD)
    with (
        issuer,
        open_live_server(vendor="sqlite", AUTH_MODE="jwt", JWT_JWKS_URL=issuer.url) as server,
        ThreadPoolExecutor(12) as pool,
    ):
        known, unknown = bearer(OLD.sign()), bearer(NEW.sign())

        def status(headers: dict[str, str]) -> int:
            # Each on a connection of its own, so that both processes get some.
            with Client(server) as client:
                return client.ask("GET", TASKS, headers=headers).status

        issuer.stop()
        answer = httpx.get(server.base_url + TASKS, headers=known, timeout=60)
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
        began = time.monotonic()
        ended = threading.Event()

        def flood(_: int) -> set[int]:
            with httpx.Client(base_url=server.base_url, headers=unknown, timeout=60) as client:
                seen = set()
                while not ended.is_set():
                    seen.add(client.get(TASKS).status_code)
                return seen

        def measure(_: int) -> list[float]:
            took = []
            with httpx.Client(base_url=server.base_url, headers=known, timeout=60) as client:
                while not ended.is_set():
                    started = time.perf_counter()
                    assert client.get(TASKS).status_code == 200
                    took.append(time.perf_counter() - started)
            return took

        floods = [pool.submit(flood, number) for number in range(8)]
        measures = [pool.submit(measure, number) for number in range(4)]
        # From before both processes ask the slow issuer to well after.
        asked = wait_until(lambda: len(issuer.fetches) >= 4)
        time.sleep(2)
        ended.set()
        assert asked, f"{len(issuer.fetches)} fetches"
        assert set().union(*(future.result() for future in floods)) == {401}
        took = [seconds for future in measures for seconds in future.result()]
        # Those that wait for the issuer do so for 1 s, and hold no thread that a known user needs.
        waited = [seconds for seconds in took if seconds > 2]
        assert len(waited) <= len(took) / 100, f"{len(waited)} of {len(took)} known users waited"
        fetches = len(issuer.fetches) - 2  # those of two processes, with a pause after each
        assert fetches <= 2 * (1 + (time.monotonic() - began) / 5)
