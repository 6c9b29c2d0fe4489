"""An issuer of tokens: keys of every algorithm, and a key set served on loopback.

The server may be slowed down, broken and stopped at any time, and counts its requests.
"""

import base64
import json
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import get_default_algorithms

from tests.client import ALICE
from tools.servers import HOST, free_port

SECRET = "a secret that the tests share with nobody at all"
Json = dict[str, Any]
Behaviour = Callable[["Handler"], None]


def claims(sub: Any = ALICE, **changes: Any) -> Json:
    """A payload valid for an hour, with changes; a claim that is None is left out."""
    now = int(time.time())
    payload = {"sub": sub, "iat": now, "exp": now + 3600, **changes}
    return {name: value for name, value in payload.items() if value is not None}


def by_secret(sub: Any = ALICE, **changes: Any) -> str:
    """A token signed with `SECRET`. PyJWT's own `encode` would refuse some claims."""
    return jwt.api_jws.encode(json.dumps(claims(sub, **changes)).encode(), SECRET, "HS256")


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def base64url(data: bytes | str | Json) -> str:
    """The base64url form (RFC 7515 section 2) of bytes, text or JSON."""
    if isinstance(data, dict):
        data = json.dumps(data)
    if isinstance(data, str):
        data = data.encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@cache
def private_key(algorithm: str, size: int = 2048, turn: int = 0) -> Any:
    """A key that signs with an algorithm; another `turn` is another key."""
    match algorithm:
        case "RS256" | "PS256":
            return rsa.generate_private_key(65537, size)
        case "ES256":
            return ec.generate_private_key(ec.SECP256R1())
        case "EdDSA":
            return ed25519.Ed25519PrivateKey.generate()
    raise ValueError(algorithm)


class Key:
    """A signing key of the issuer; keys of one algorithm differ by `turn`."""

    def __init__(
        self, algorithm: str = "EdDSA", *, size: int = 2048, turn: int = 0, kid: str | None = None
    ) -> None:
        self.algorithm = algorithm
        self.private = private_key(algorithm, size, turn)
        self.kid = kid or f"{algorithm}-{turn}"

    def jwk(self, **changes: Any) -> Json:
        """The public key as an entry of a key set, with changes; None leaves a member out."""
        public = get_default_algorithms()[self.algorithm].to_jwk(
            self.private.public_key(), as_dict=True
        )
        public.pop("key_ops", None)
        entry = {**public, "kid": self.kid, "alg": self.algorithm, "use": "sig", **changes}
        return {name: value for name, value in entry.items() if value is not None}

    def sign(self, payload: Mapping[str, Any] | bytes | None = None, **header: Any) -> str:
        """A token with these claims, or Alice's; `header` changes its header."""
        if not isinstance(payload, bytes):
            payload = json.dumps(claims() if payload is None else payload).encode()
        return jwt.api_jws.encode(
            payload, self.private, self.algorithm, {"kid": self.kid, **header}
        )


class Handler(BaseHTTPRequestHandler):
    server: "Server"

    def do_GET(self) -> None:
        self.server.issuer.fetches.append(self.path)
        # The client may have given up.
        with suppress(OSError):
            self.server.issuer.behave(self)

    def answer(
        self,
        body: bytes,
        status: int = 200,
        content_type: str = "application/json",
        **headers: str,
    ) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": content_type, **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    issuer: "Issuer"


class Issuer:
    """Serves a key set at `url`.

    `keys` may be changed at any time, and so may `behave`, which answers a request. `fetches` has
    the paths of the requests.
    """

    def __init__(self, *keys: Key) -> None:
        self.keys = [key.jwk() for key in keys]
        self.port = free_port()
        self.url = f"http://{HOST}:{self.port}/jwks"
        self.fetches: list[str] = []
        self.behave: Behaviour = serve
        self.ended = threading.Event()
        self._server: Server | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.ended.set()
        self.stop()

    def start(self) -> None:
        self._server = Server((HOST, self.port), Handler)
        self._server.issuer = self
        threading.Thread(target=self._server.serve_forever, args=[0.01], daemon=True).start()

    def stop(self) -> None:
        """Refuse connections until `start()`."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


def serve(handler: Handler) -> None:
    handler.answer(json.dumps({"keys": handler.server.issuer.keys}).encode())


def serve_after(seconds: float) -> Behaviour:
    def behave(handler: Handler) -> None:
        handler.server.issuer.ended.wait(seconds)
        serve(handler)

    return behave


def serve_bytes(body: bytes, *args: Any, **headers: Any) -> Behaviour:
    return lambda handler: handler.answer(body, *args, **headers)


def drip(handler: Handler) -> None:
    """Never finish the body: send a space, with which JSON may begin, every 0.1 s."""
    handler.answer(b"")
    while not handler.server.issuer.ended.wait(0.1):
        handler.wfile.write(b" ")


def drip_headers(handler: Handler) -> None:
    """Never finish the headers."""
    handler.wfile.write(b"HTTP/1.0 200 OK\r\nX-Drip: ")
    while not handler.server.issuer.ended.wait(0.1):
        handler.wfile.write(b".")


def tampered(token: str) -> str:
    """The token with the last claim of its payload changed after signing."""
    header, payload, signature = token.split(".")
    data = json.loads(base64.urlsafe_b64decode(payload + "=="))
    return ".".join([header, base64url({**data, "jti": secrets.token_hex(4)}), signature])
