"""Bearer tokens: which ones are valid, and that every other is refused."""

import json
import logging
import socket
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.client import ALICE, API, TASKS
from tests.database_plugin import LiveServer, open_live_server
from tests.issuer import (
    SECRET,
    Issuer,
    Key,
    base64url,
    bearer,
    by_secret,
    claims,
    tampered,
)
from tools.servers import HOST

ALGORITHMS = ("RS256", "PS256", "ES256", "EdDSA")
KEYS = {algorithm: Key(algorithm) for algorithm in ALGORITHMS}
RSA = KEYS["RS256"]
STRANGER = Key("RS256", turn=9)  # not a key of the issuer


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    with Issuer(*KEYS.values()) as issuer:
        yield issuer


@pytest.fixture
def by_secret_mode(settings: Any) -> None:
    settings.AUTH_MODE, settings.JWT_SECRET, settings.JWT_JWKS_URL = "jwt", SECRET, None


@pytest.fixture
def by_keys_mode(settings: Any, issuer: Issuer) -> None:
    settings.AUTH_MODE, settings.JWT_SECRET, settings.JWT_JWKS_URL = "jwt", None, issuer.url


def get(authorization: str, expected: int) -> Any:
    return API(Authorization=authorization).get(TASKS, expected)


def refused(token: str, detail: str) -> None:
    """The token gets 401 with the challenge of RFC 6750 section 3 and this detail."""
    api = API(**bearer(token))
    problem = api.get(TASKS, 401)
    assert (problem["code"], problem["detail"]) == ("invalid_token", detail)
    description = detail.replace('"', "'")
    assert api.last["WWW-Authenticate"] == (
        f'Bearer realm="tasks", error="invalid_token", error_description="{description}"'
    )


MALFORMED = "The token is malformed."
EXPIRED = "The token has expired."
EARLY = "The token is not yet valid."
SIGNATURE = "The token's signature is not valid."
ALGORITHM = "The token is signed with another algorithm."
UNKNOWN = "The token is signed with an unknown key."
LACKING = "The token lacks the claim {}."
ISSUER = "The token is from another issuer."
AUDIENCE = "The token is for another audience."
NO_STRING = "The token's subject is not a string."
NO_UUID = (
    'The token\'s subject is not a UUID. In Better Auth set advanced.database.generateId: "uuid".'
)

# Claims ---------------------------------------------------------------------------------------

FAR = 10**10


@pytest.mark.parametrize(
    ("changes", "detail"),
    [
        ({"exp": None}, LACKING.format("exp")),
        ({"exp": str(FAR)}, MALFORMED),  # RFC 7519 section 2: a NumericDate is a JSON number
        ({"exp": "tomorrow"}, MALFORMED),
        ({"exp": [FAR]}, MALFORMED),
        ({"exp": {}}, MALFORMED),
        ({"exp": True}, EXPIRED),
        ({"exp": False}, EXPIRED),
        ({"exp": 0}, EXPIRED),
        ({"exp": -FAR}, EXPIRED),
        ({"exp": 1.5}, EXPIRED),
        ({"exp": float("inf")}, MALFORMED),
        ({"exp": float("nan")}, MALFORMED),
        ({"nbf": FAR}, EARLY),
        ({"nbf": "soon"}, MALFORMED),
        ({"nbf": str(-FAR)}, MALFORMED),
        ({"nbf": float("inf")}, MALFORMED),
        ({"iat": FAR}, EARLY),
        ({"iat": "garbage"}, MALFORMED),
        ({"iat": "1"}, MALFORMED),
        ({"iat": {}}, MALFORMED),
        ({"sub": None}, LACKING.format("sub")),
        ({"sub": 5}, NO_STRING),
        ({"sub": [ALICE]}, NO_STRING),
        ({"sub": {"id": ALICE}}, NO_STRING),
        ({"sub": True}, NO_STRING),
        ({"sub": ""}, NO_UUID),
        ({"sub": "alice"}, NO_UUID),
        ({"sub": "n0rYyrcRGjRFFhTZHzzAhGkH4iAKz0nn"}, NO_UUID),
        ({"sub": ALICE.replace("-", "")}, NO_UUID),
        ({"sub": f"{{{ALICE}}}"}, NO_UUID),
        ({"sub": f"{ALICE}\n"}, NO_UUID),
        ({"sub": f"urn:uuid:{ALICE}"}, NO_UUID),
        ({"sub": ALICE.replace("0", "\N{ARABIC-INDIC DIGIT ZERO}")}, NO_UUID),
        ({"sub": "\ud800"}, NO_UUID),
    ],
    ids=lambda value: str(value).encode("ascii", "replace").decode()[:40],
)
def test_it_rejects_invalid_claims(
    by_secret_mode: None, changes: dict[str, Any], detail: str
) -> None:
    refused(by_secret(**{"sub": ALICE, **changes}), detail)


@pytest.mark.parametrize("number", ["1e400", "-1e400", "9" * 5000, "NaN", "1" * 300, "[" * 900])
@pytest.mark.parametrize("claim", ["exp", "nbf", "iat"])
def test_huge_numbers_are_refused_or_compared(
    by_secret_mode: None, db: None, claim: str, number: str
) -> None:
    """Never a 500: JSON does not limit numbers, but Python does."""
    payload = claims()
    payload.pop(claim, None)
    text = json.dumps(payload)[:-1] + f',"{claim}":{number}}}'
    token = jwt.api_jws.encode(text.encode(), SECRET, "HS256")
    if number == "1" * 300 and claim == "exp":
        get(f"Bearer {token}", 200)
    else:
        refused(token, EARLY if number == "1" * 300 else MALFORMED)


def test_the_leeway_widens_both_ends(by_secret_mode: None, settings: Any, db: None) -> None:
    settings.JWT_LEEWAY = 30
    now = int(time.time())
    for changes in ({"exp": now - 20}, {"nbf": now + 20}, {"iat": now + 20}):
        get(f"Bearer {by_secret(**changes)}", 200)
    refused(by_secret(exp=now - 31), EXPIRED)
    for changes in ({"nbf": now + 60}, {"iat": now + 60}):
        refused(by_secret(**changes), EARLY)
    settings.JWT_LEEWAY = 0
    refused(by_secret(exp=now - 1), EXPIRED)
    get(f"Bearer {by_secret(exp=now + 20.5, nbf=now, iat=now - 0.5)}", 200)


@pytest.mark.parametrize(
    ("setting", "claim", "detail"),
    [("JWT_ISSUER", "iss", ISSUER), ("JWT_AUDIENCE", "aud", AUDIENCE)],
)
def test_issuer_and_audience_are_checked_when_set(
    by_secret_mode: None, settings: Any, db: None, setting: str, claim: str, detail: str
) -> None:
    theirs = by_secret(**{claim: "https://theirs.example"})
    get(f"Bearer {theirs}", 200)
    setattr(settings, setting, "https://ours.example")
    get(f"Bearer {by_secret(**{claim: 'https://ours.example'})}", 200)
    refused(theirs, detail)
    refused(by_secret(**{claim: None}), LACKING.format(claim))
    others: list[Any] = [None, "", "https://ours.example/", 5, {}, [], ["https://theirs.example"]]
    for other in [*others, True]:
        api = API(**bearer(by_secret(**{claim: other})))
        assert api.get(TASKS, 401)["code"] == "invalid_token", other
    ours = by_secret(aud=["https://theirs.example", "https://ours.example"])
    get(f"Bearer {ours}", 200 if claim == "aud" else 401)


# Signatures -----------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_key_of_each_algorithm_verifies_its_own_and_no_other(
    by_keys_mode: None, algorithm: str, db: None, django_assert_num_queries: Any
) -> None:
    key = KEYS[algorithm]
    # SELECT … FROM tasks_task WHERE user_id = …
    with django_assert_num_queries(1):
        get(f"Bearer {key.sign()}", 200)
    refused(tampered(key.sign()), SIGNATURE)
    for other in ALGORITHMS:
        if other != algorithm:
            refused(KEYS[other].sign(kid=key.kid), ALGORITHM)


@pytest.mark.parametrize("algorithm", ["RS256", "PS256"])
def test_a_key_without_alg_verifies_what_fits_its_type(
    settings: Any, algorithm: str, db: None
) -> None:
    key = Key("RS256", kid="open")
    settings.AUTH_MODE, settings.JWT_SECRET = "jwt", None
    with Issuer() as issuer:
        issuer.keys = [key.jwk(alg=None, use=None)]
        settings.JWT_JWKS_URL = issuer.url
        token = jwt.encode(claims(), key.private, algorithm, {"kid": "open"})
        get(f"Bearer {token}", 200)
        refused(jwt.encode(claims(), key.private, "RS512", {"kid": "open"}), ALGORITHM)


def public(key: Key, encoding: Encoding) -> bytes:
    data: bytes = key.private.public_key().public_bytes(encoding, PublicFormat.SubjectPublicKeyInfo)
    return data


def hmac_with(secret: bytes, **header: str) -> str:
    """An HS256 token signed with any bytes, also those PyJWT would not sign with."""
    signed = f"{base64url({'alg': 'HS256', **header})}.{base64url(claims())}"
    signature = jwt.get_algorithm_by_name("HS256").sign(signed.encode(), secret)
    return f"{signed}.{base64url(signature)}"


def unsigned(alg: Any) -> str:
    return f"{base64url({'alg': alg, 'kid': RSA.kid})}.{base64url(claims())}."


def elsewhere(by: str) -> str:
    """A token signed by a stranger, whose header contains or points to the key."""
    where: Any = STRANGER.jwk() if by == "jwk" else "http://stranger.example/keys"
    return STRANGER.sign(kid=RSA.kid, **{by: where})


ODD_KIDS: list[Any] = [5, None, True, ["a"], {}]
# name: (the token, why it is refused in secret mode, why in key mode)
HOSTILE: dict[str, tuple[str, str, str]] = {
    **{f"alg {alg}": (unsigned(alg), ALGORITHM, ALGORITHM) for alg in ("none", "None", "NONE")},
    "alg missing": (f"{base64url({'kid': RSA.kid})}.{base64url(claims())}.", ALGORITHM, ALGORITHM),
    "alg empty": (unsigned(""), ALGORITHM, ALGORITHM),
    "alg null": (unsigned(None), ALGORITHM, ALGORITHM),
    "alg list": (unsigned(["HS256", "RS256"]), ALGORITHM, ALGORITHM),
    "alg object": (unsigned({}), ALGORITHM, ALGORITHM),
    "alg HS512": (jwt.encode(claims(), SECRET * 2, "HS512"), ALGORITHM, UNKNOWN),
    "another secret": (jwt.encode(claims(), SECRET[::-1]), SIGNATURE, UNKNOWN),
    "public key as secret, PEM": (
        hmac_with(public(RSA, Encoding.PEM), kid=RSA.kid),
        SIGNATURE,
        ALGORITHM,
    ),
    "public key as secret, DER": (
        hmac_with(public(RSA, Encoding.DER), kid=RSA.kid),
        SIGNATURE,
        ALGORITHM,
    ),
    "public key as secret, JWK": (
        hmac_with(json.dumps(RSA.jwk()).encode(), kid=RSA.kid),
        SIGNATURE,
        ALGORITHM,
    ),
    "empty secret": (hmac_with(b"", kid=RSA.kid), SIGNATURE, ALGORITHM),
    "swapped kid": (RSA.sign(kid=KEYS["ES256"].kid), ALGORITHM, ALGORITHM),
    "a stranger's key": (STRANGER.sign(kid=RSA.kid), ALGORITHM, SIGNATURE),
    **{f"{by} header": (elsewhere(by), ALGORITHM, SIGNATURE) for by in ("jku", "x5u", "jwk")},
    "kid unknown": (RSA.sign(kid="unknown"), ALGORITHM, UNKNOWN),
    "kid a path": (RSA.sign(kid="../../../dev/null"), ALGORITHM, UNKNOWN),
    "kid SQL": (RSA.sign(kid="' OR 1=1 --"), ALGORITHM, UNKNOWN),
    "kid huge": (RSA.sign(kid="k" * 10_000), ALGORITHM, UNKNOWN),
    "kid empty": (RSA.sign(kid=""), ALGORITHM, UNKNOWN),
    **{
        f"kid {kid}": (
            f"{base64url({'alg': 'RS256', 'kid': kid})}.{base64url(claims())}.AAAA",
            MALFORMED,
            MALFORMED,
        )
        for kid in ODD_KIDS
    },
    "crit": (RSA.sign(crit=["b64"]), MALFORMED, MALFORMED),
    "crit unknown": (
        f"{base64url({'alg': 'RS256', 'kid': RSA.kid, 'crit': ['exp'], 'exp': 1})}"
        f".{base64url(claims())}.AAAA",
        MALFORMED,
        MALFORMED,
    ),
    "b64 false": (
        f"{base64url({'alg': 'RS256', 'kid': RSA.kid, 'crit': ['b64'], 'b64': False})}..AAAA",
        MALFORMED,
        MALFORMED,
    ),
    "compressed, by the issuer": (
        RSA.sign(zlib.compress(json.dumps(claims()).encode()), zip="DEF"),
        ALGORITHM,
        MALFORMED,
    ),
    "100 kB": (RSA.sign(claims(padding="x" * 75_000)), MALFORMED, MALFORMED),
    "an array, by the issuer": (RSA.sign(b"[]"), ALGORITHM, MALFORMED),
    "a string, by the issuer": (RSA.sign(b'"sub"'), ALGORITHM, MALFORMED),
    "nothing, by the issuer": (RSA.sign(b""), ALGORITHM, MALFORMED),
    "deep payload, by the issuer": (RSA.sign(b'{"sub":' + b"[" * 9000), ALGORITHM, MALFORMED),
    "bytes, by the issuer": (RSA.sign(b"\xff\xfe\x00"), ALGORITHM, MALFORMED),
    "signature gone": (RSA.sign().rpartition(".")[0] + ".", ALGORITHM, SIGNATURE),
    "signature short": (RSA.sign()[:-6], ALGORITHM, SIGNATURE),
    "ES256 signature in DER": (
        KEYS["ES256"].sign().rpartition(".")[0]
        + "."
        + base64url(b"\x30\x06\x02\x01\x01\x02\x01\x01"),
        ALGORITHM,
        SIGNATURE,
    ),
    "ES256 signature of zeros": (
        KEYS["ES256"].sign().rpartition(".")[0] + "." + base64url(bytes(64)),
        ALGORITHM,
        SIGNATURE,
    ),
    **{
        name: (token, MALFORMED, MALFORMED)
        for name, token in {
            "garbage": "garbage",
            "dots": "..",
            "many dots": "." * 1000,
            "two parts": "e30.e30",
            "four parts": f"{RSA.sign()}.AAAA",
            "five parts, encrypted": "e30.e30.e30.e30.e30",
            "a space inside": RSA.sign().replace(".", " .", 1),
            "a comma": f"{RSA.sign()},{RSA.sign()}",
            "standard base64": "+/+/" + RSA.sign(),
            "odd base64": "e30==.e30.e30",
            "one character too many": f"a{RSA.sign()}",
            "header no JSON": f"{base64url('nonsense')}.e30.e30",
            "header an array": f"{base64url('[]')}.e30.e30",
            "header a number": f"{base64url('1e999')}.e30.e30",
            "header not UTF-8": f"{base64url(bytes([0xFF]))}.e30.e30",
            "deep header": f"{base64url('[' * 9000)}.e30.e30",
            "deep objects": base64url('{"a":' * 9000) + ".e30.e30",
            "not ASCII": "é.é.é",
            "bytes": "\xff\xfe\x80",
            "a comma alone": ",",
            "quoted": f'"{RSA.sign()}"',
        }.items()
    },
}


@pytest.mark.parametrize("mode", ["by_secret_mode", "by_keys_mode"])
@pytest.mark.parametrize("name", HOSTILE)
def test_it_rejects_a_hostile_token(
    request: pytest.FixtureRequest, name: str, mode: str, caplog: Any, issuer: Issuer
) -> None:
    """Without the `db` fixture: a query would fail the test."""
    caplog.set_level(logging.DEBUG)
    request.getfixturevalue(mode)
    token, *details = HOSTILE[name]
    refused(token, details[mode == "by_keys_mode"])
    for part in token.split("."):
        assert len(part) < 8 or part[:60] not in caplog.text


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Bearer",
        "Bearer ",
        "bearer\t",
        "Basic YWxpY2U6c2VjcmV0",
        "Token {}",
        "{}",
        "JWT {}",
        "Bearer{}",
        "Bearer,{}",
        "Digest username=alice",
    ],
)
def test_without_a_bearer_token_the_response_asks_for_one(
    by_secret_mode: None, authorization: str
) -> None:
    """RFC 6750 section 3.1: no error code where no token was sent."""
    api = API(Authorization=authorization.format(by_secret()))
    assert api.get(TASKS, 401)["code"] == "not_authenticated"
    assert api.last["WWW-Authenticate"] == 'Bearer realm="tasks"'


@pytest.mark.parametrize("scheme", ["bearer ", "BEARER ", "Bearer   "])
def test_the_scheme_is_read_in_any_case(by_secret_mode: None, db: None, scheme: str) -> None:
    """RFC 9110 section 11.1."""
    get(scheme + by_secret(), 200)


def test_a_token_of_15_kilobytes_is_read(by_keys_mode: None, db: None) -> None:
    token = RSA.sign(claims(groups=["administrator"] * 610))
    assert 14_000 < len(token) < 16_384
    get(f"Bearer {token}", 200)


def test_a_token_outside_the_header_is_ignored(by_secret_mode: None) -> None:
    """RFC 6750 sections 2.2 and 2.3 are not supported: URLs are logged."""
    api, token = API(), by_secret()
    api.client.cookies["token"] = token
    api.get(f"{TASKS}?access_token={token}", 401)
    api.post(TASKS, {"title": "x", "access_token": token}, 401)


def test_without_authentication_no_token_is_read(settings: Any, db: None) -> None:
    settings.AUTH_MODE = "none"
    get("Bearer garbage", 200)


# Over the wire --------------------------------------------------------------------------------

Start = Callable[..., LiveServer]


@pytest.fixture(scope="module")
def live(issuer: Issuer) -> Iterator[dict[str, LiveServer]]:
    """The service in both modes, with the most detailed log."""
    common: Any = {"AUTH_MODE": "jwt", "WEB_CONCURRENCY": "1", "LOG_LEVEL": "DEBUG"}
    with (
        open_live_server("sqlite", JWT_SECRET=SECRET, **common) as secret,
        open_live_server("sqlite", JWT_JWKS_URL=issuer.url, **common) as keys,
    ):
        yield {"secret": secret, "keys": keys}


@pytest.mark.live
@pytest.mark.parametrize("mode", ["secret", "keys"])
def test_a_live_server_accepts_only_valid_tokens_and_logs_none(
    live: dict[str, LiveServer], mode: str
) -> None:
    server = live[mode]
    good = {"secret": by_secret(), "keys": KEYS["EdDSA"].sign()}
    # Strings that no other line of the log contains.
    secret_parts = [part for token in good.values() for part in token.split(".")[1:]]
    with httpx.Client(base_url=server.base_url, timeout=60) as client:
        for name, token in good.items():
            answer = client.get(TASKS, headers=bearer(token))
            assert answer.status_code == (200 if name == mode else 401)
        hostile = [token for token, *_ in HOSTILE.values()]
        for token in hostile:
            raw = f"Bearer {token}".encode("latin-1" if token.isascii() else "utf-8")
            answer = client.get(TASKS, headers={b"Authorization": raw})
            assert (answer.status_code, answer.json()["code"]) == (401, "invalid_token"), token
            assert answer.headers["WWW-Authenticate"].startswith("Bearer ")
        token = good[mode]
        for headers in (
            [bearer(token), bearer(token)],
            [bearer(token), {"Authorization": "Bearer"}],
            [{"Authorization": ""}, bearer(token)],
            [{"Authorization": "Basic YWxpY2U6c2VjcmV0"}, bearer(token)],
            [bearer(by_secret(exp=1)), bearer(token)],
        ):
            pairs = [pair for header in headers for pair in header.items()]
            assert client.get(TASKS, headers=pairs).status_code == 401
    # What gunicorn itself refuses.
    for line in (f"Authorization: Bearer \0{token}", f"Authorization : Bearer {token}"):
        with socket.create_connection((HOST, server.port), timeout=60) as wire:
            wire.sendall(f"GET {TASKS} HTTP/1.1\r\nHost: localhost\r\n{line}\r\n\r\n".encode())
            assert wire.recv(65536).startswith(b"HTTP/1.1 400 ")
    log = server.log()
    assert "Traceback" not in log
    for part in [part[:40] for token in hostile for part in token.split(".")] + secret_parts:
        assert len(part) < 20 or part not in log, part
