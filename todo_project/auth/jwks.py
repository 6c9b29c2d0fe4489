"""The issuer's public keys (RFC 7517): cached, and fetched in a thread of their own.

PyJWT's own client fetches in the caller's thread, under one lock, with a timeout of 30 seconds,
and has no keys at all once its cache has expired and the issuer is unavailable.
"""

import logging
import math
import threading
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.request import HTTPRedirectHandler, Request, build_opener

import orjson
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from django.conf import settings
from jwt import PyJWK
from jwt.exceptions import PyJWTError

logger = logging.getLogger(__name__)

CACHE_TTL = 300.0
"""Seconds for which a fetched set is used without asking again."""

COOL_DOWN = 5.0
"""Seconds between two fetches, however many unknown `kid`s arrive."""

FIRST_COOL_DOWN = 1.0
"""The same, as long as there is no key at all."""

MAX_WAIT = 1.0
"""Seconds from the start of a fetch for which requests wait for its result."""

SHORT_WAIT = 0.25
"""The same for the last free thread of the process. Long enough for a healthy issuer."""

FETCH_TIMEOUT = 5.0
"""Seconds that a fetch may take."""

MAX_DOCUMENT = 1024 * 1024
"""Bytes that a set of keys may have."""


class UnknownKeyError(Exception):
    """The issuer has no key of this `kid`."""


class KeysUnavailableError(Exception):
    """No set was ever fetched, or the last one is too old: no token can be verified."""


class Key(NamedTuple):
    public: Any
    algorithms: list[str]


class FetchedSet(NamedTuple):
    keys: Mapping[str, Key]
    at: float  # time.monotonic()


NEVER = FetchedSet({}, at=-math.inf)


class KeySet:
    """The keys of one issuer, by `kid`.

    `max_stale`: seconds since the last successful fetch after which no key is trusted.
    `max_waiters`: threads that may wait for `MAX_WAIT`, so that a slow issuer does not hold all.
    """

    def __init__(self, url: str, max_stale: float, max_waiters: int) -> None:
        self.url = url
        self._max_age = max(max_stale, CACHE_TTL)
        self.fetched = NEVER
        self._lock = threading.Lock()
        self._waiters = threading.BoundedSemaphore(max_waiters)
        self._done = threading.Event()
        self._done.set()
        self._started = self._next_fetch = 0.0

    def key(self, kid: str) -> Key:
        """The key of that id.

        Waits for a fetch, `MAX_WAIT` seconds at most, if the set is older than `CACHE_TTL` or
        lacks the key. A set in use stays in use while the issuer is unavailable. Raises
        `UnknownKeyError`, or `KeysUnavailableError`.
        """
        if time.monotonic() > self.fetched.at + CACHE_TTL or kid not in self.fetched.keys:
            self._fetch()
            self._wait()
            if time.monotonic() > self.fetched.at + self._max_age:
                raise KeysUnavailableError
        if (key := self.fetched.keys.get(kid)) is None:
            raise UnknownKeyError
        return key

    def _wait(self) -> None:
        """Wait for the fetch that runs, if one does."""
        counted = self._waiters.acquire(blocking=False)
        # Before the first set a free thread could serve no request.
        seconds = MAX_WAIT if counted or self.fetched is NEVER else SHORT_WAIT
        try:
            self._done.wait(max(0.0, self._started + seconds - time.monotonic()))
        finally:
            if counted:
                self._waiters.release()

    def _fetch(self) -> None:
        """Start a fetch in a thread of its own, unless one runs or has just ended."""
        with self._lock:
            now = time.monotonic()
            # The timeout does not bound headers that arrive byte by byte: abandon such a fetch.
            running = not self._done.is_set() and now < self._started + 4 * FETCH_TIMEOUT
            if running or now < self._next_fetch:
                return
            self._started = now
            self._done = threading.Event()
            threading.Thread(target=self._run, args=[self._done, now], daemon=True).start()

    def _run(self, done: threading.Event, started: float) -> None:
        keys = None
        try:
            keys = parse(download(self.url))
        except Exception as error:  # whatever the issuer sends
            logger.warning("cannot fetch the key set: %s: %s", type(error).__name__, error)
        with self._lock:
            if done is self._done:  # not an abandoned one, whose set may be old
                if keys is not None:
                    self.fetched = FetchedSet(keys, started)
                cool_down = COOL_DOWN if self.fetched.keys else FIRST_COOL_DOWN
                self._next_fetch = time.monotonic() + cool_down
        done.set()


class RefuseRedirects(HTTPRedirectHandler):
    """A redirect could lead from https to http, where anyone on the way can replace the keys."""

    def redirect_request(self, *args: Any) -> None:
        return None


open_url = build_opener(RefuseRedirects).open


def download(url: str) -> bytes:
    """The body at a URL of http or https (settings.py checks that).

    Raises OSError, also for a status that is no success, or ValueError for a body too large.
    """
    expires = time.monotonic() + FETCH_TIMEOUT
    request = Request(url, headers={"Accept": "application/json"})  # noqa: S310
    body = b""
    with open_url(request, timeout=FETCH_TIMEOUT) as response:
        while part := response.read1(65536):
            body += part
            if len(body) > MAX_DOCUMENT:
                raise ValueError("the key set is too large")
            if time.monotonic() > expires:
                raise TimeoutError("the key set arrives too slowly")
        if response.length:  # `read1` does not notice
            raise ValueError("the key set is incomplete")
    return body


def parse(document: bytes) -> dict[str, Key]:
    """The usable keys of a JWK set (RFC 7517 section 5), none for an empty one.

    Raises ValueError for what is no such set, or consists of entries that cannot be read.
    """
    data = orjson.loads(document)
    entries = data.get("keys") if isinstance(data, dict) else None
    if not isinstance(entries, list):
        raise ValueError("it is not a key set")
    keys: dict[str, Key] = {}
    for entry in entries:
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
    if not keys and not all(isinstance(entry, dict) for entry in entries):
        raise ValueError("no entry of the key set can be read")
    return keys


def usable_algorithms(entry: Mapping[str, Any]) -> list[str]:
    """The algorithms a key may verify: the key decides, never the token."""
    if entry.get("use", "sig") != "sig" or "d" in entry:  # a private key that was published
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
    # RFC 9864 section 2.2 names it Ed25519.
    named = "EdDSA" if named == "Ed25519" else named
    return fitting if named is None else [name for name in fitting if name == named]


@lru_cache(maxsize=4)
def key_set(url: str) -> KeySet:
    """The process's set for a URL."""
    return KeySet(url, settings.JWT_JWKS_MAX_STALE, max(1, settings.WEB_THREADS - 1))
