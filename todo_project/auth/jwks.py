"""The issuer's public keys (RFC 7517), fetched beside the requests and never in their way.

PyJWT's own client fetches in the caller's thread, under one lock, with a timeout of 30 seconds,
and has no keys at all once its cache has expired and the issuer is away.
"""

import logging
import threading
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.request import HTTPRedirectHandler, Request, build_opener

import orjson
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt import PyJWK
from jwt.exceptions import PyJWTError

logger = logging.getLogger(__name__)

FRESH = 300.0
"""Seconds after which a set of keys is fetched again, while it goes on being used."""

PAUSE = 5.0
"""Seconds between two fetches, however many unknown `kid`s come meanwhile."""

FIRST_PAUSE = 1.0
"""The same, as long as there is no key at all."""

PATIENCE = 1.0
"""Seconds from the start of a fetch for which requests wait for its outcome."""

SEATS = 2
"""Requests of one process that may wait so long while others have keys to go on with."""

GLANCE = 0.25
"""Seconds that the rest wait: long enough for an issuer in health, so that of many requests with
a new key none is refused, and too short to hold up those with a known one."""

TIMEOUT = 5.0
"""Seconds for a fetch, which no request waits for any more by then."""

LARGEST = 1024 * 1024
"""Bytes that a set of keys may have."""


class UnknownKeyError(Exception):
    """The issuer has no key of this `kid`."""


class NoKeysError(Exception):
    """No key has ever been fetched, so that nothing can be said of any token."""


class Key(NamedTuple):
    public: Any
    algorithms: list[str]


class KeySet:
    """The keys of one issuer, by `kid`."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._keys: dict[str, Key] = {}
        self._lock = threading.Lock()
        self._seats = threading.BoundedSemaphore(SEATS)
        self._done = threading.Event()
        self._done.set()
        self._started = self._next_fetch = self._stale_at = 0.0

    def key(self, kid: str) -> Key:
        """The key of that id.

        A known one is returned without waiting. Raises `UnknownKeyError`, or `NoKeysError`.
        """
        if key := self._keys.get(kid):
            if time.monotonic() > self._stale_at:
                self._fetch()
            return key
        self._fetch()
        if not self._keys:
            self._wait(PATIENCE)
        elif self._seats.acquire(blocking=False):
            try:
                self._wait(PATIENCE)
            finally:
                self._seats.release()
        else:
            self._wait(GLANCE)
        if key := self._keys.get(kid):
            return key
        raise UnknownKeyError if self._keys else NoKeysError

    def _wait(self, patience: float) -> None:
        self._done.wait(max(0.0, self._started + patience - time.monotonic()))

    def _fetch(self) -> None:
        """Start a fetch in a thread of its own, unless one runs or has just ended."""
        with self._lock:
            now = time.monotonic()
            # One that has outlived its timeout fourfold drips, and is left to itself.
            running = not self._done.is_set() and now < self._started + 4 * TIMEOUT
            if running or now < self._next_fetch:
                return
            self._started = now
            self._done = threading.Event()
            threading.Thread(target=self._run, args=[self._done], daemon=True).start()

    def _run(self, done: threading.Event) -> None:
        try:
            self._keys = parse(download(self.url))
            self._stale_at = time.monotonic() + FRESH
        except Exception as error:  # whatever the issuer sends, the last good keys stay
            logger.warning("cannot fetch the key set: %s: %s", type(error).__name__, error)
        finally:
            self._next_fetch = time.monotonic() + (PAUSE if self._keys else FIRST_PAUSE)
            done.set()


class RefuseRedirects(HTTPRedirectHandler):
    """One could lead from https to http, where anybody may put in keys of his own."""

    def redirect_request(self, *args: Any) -> None:
        return None


open_url = build_opener(RefuseRedirects).open


def download(url: str) -> bytes:
    """The body at a URL of http or https (settings.py sees to that).

    Raises OSError, for any status that is no success too, or ValueError when it is too
    large.
    """
    expires = time.monotonic() + TIMEOUT
    request = Request(url, headers={"Accept": "application/json"})  # noqa: S310
    body = b""
    with open_url(request, timeout=TIMEOUT) as response:
        while part := response.read1(65536):
            body += part
            if len(body) > LARGEST:
                raise ValueError("the key set is too large")
            if time.monotonic() > expires:
                raise TimeoutError("the key set comes too slowly")
    return body


def parse(document: bytes) -> dict[str, Key]:
    """The usable keys of a JWK set. Raises ValueError when there is none."""
    data = orjson.loads(document)
    entries = data.get("keys") if isinstance(data, dict) else None
    keys = {}
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, dict) and isinstance(kid := entry.get("kid"), str):
            algorithms = usable_algorithms(entry)
            try:
                public = PyJWK(entry, algorithms[0]).key if algorithms else None
            except PyJWTError:
                continue
            if isinstance(public, RSAPublicKey) and public.key_size < 2048:
                continue  # RFC 7518 section 3.3
            if public is not None:
                keys[kid] = Key(public, algorithms)
    if not keys:
        raise ValueError("the key set has no usable key")
    return keys


def usable_algorithms(entry: Mapping[str, Any]) -> list[str]:
    """Which signatures a key may check: decided by the key, never by the token."""
    if entry.get("use", "sig") != "sig" or "d" in entry:  # published, a private key is everybody's
        return []
    match entry.get("kty"), entry.get("crv"):
        case "RSA", _:
            fitting = ["RS256", "PS256"]
        case "EC", "P-256":
            fitting = ["ES256"]
        case "OKP", "Ed25519":
            fitting = ["EdDSA"]
        case _:
            return []
    named = entry.get("alg")
    # RFC 9864 calls it Ed25519, where the curve is meant to be fixed by the name.
    named = "EdDSA" if named == "Ed25519" else named
    return fitting if named is None else [name for name in fitting if name == named]


@lru_cache(maxsize=4)
def key_set(url: str) -> KeySet:
    """The process's one set for a URL."""
    return KeySet(url)
