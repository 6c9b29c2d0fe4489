"""Bearer tokens (RFC 6750): JWTs (RFC 7519) that another service issues and this one verifies."""

from functools import lru_cache
from typing import Any, NamedTuple
from uuid import UUID

import jwt
from django.conf import settings
from jwt.utils import base64url_encode
from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request

from todo_project.api.converters import parse_uuid
from todo_project.api.problems import Problem
from todo_project.auth.jwks import KeysUnavailableError, UnknownKeyError, key_set

MAX_TOKEN_LENGTH = 16 * 1024
"""Characters; a longer token is refused without being decoded."""


class Owner(NamedTuple):
    """The subject of a token: `request.user` of the API."""

    id: UUID
    is_authenticated: bool = True


class BearerAuthentication(BaseAuthentication):
    """Authenticates the token's subject. With AUTH_MODE=none no token is read."""

    def authenticate(self, request: Request) -> tuple[Owner, str] | None:
        """Raises Problem: 401 without a valid token, 503 if the issuer's keys are unavailable."""
        if settings.AUTH_MODE == "none":
            return None
        scheme, _, token = request.META.get("HTTP_AUTHORIZATION", "").partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            raise Problem("not_authenticated")
        subject = verify(token)["sub"]
        if (id := parse_uuid(subject)) is None:
            raise Problem(
                "invalid_token",
                "The token's subject is not a UUID. In Better Auth set "
                'advanced.database.generateId: "uuid".',
            )
        return Owner(id), token


# The first that an error is an instance of counts: subclasses before their base.
REASONS: list[tuple[type[Exception], str]] = [
    (jwt.ExpiredSignatureError, "The token has expired."),
    (jwt.ImmatureSignatureError, "The token is not yet valid."),
    (jwt.InvalidIssuerError, "The token is from another issuer."),
    (jwt.InvalidAudienceError, "The token is for another audience."),
    (jwt.MissingRequiredClaimError, "The token lacks the claim {error.claim}."),
    (jwt.exceptions.InvalidSubjectError, "The token's subject is not a string."),
    (jwt.InvalidAlgorithmError, "The token is signed with another algorithm."),
    (jwt.InvalidSignatureError, "The token's signature is not valid."),
    (UnknownKeyError, "The token is signed with an unknown key."),
]


def verify(token: str) -> dict[str, Any]:
    """The claims of a valid token (RFC 7519 section 7.2), with a string as `sub`.

    Raises Problem: 401, or 503 if there is no key to verify with.
    """
    try:
        if len(token) > MAX_TOKEN_LENGTH:
            raise jwt.DecodeError("too long")
        key, algorithms = _key(token)
        claims = jwt.decode(
            token,
            key,
            algorithms=algorithms,
            audience=settings.JWT_AUDIENCE,
            issuer=settings.JWT_ISSUER,
            leeway=settings.JWT_LEEWAY,
            options={
                "require": ["exp", "sub"],
                # Without JWT_AUDIENCE: PyJWT would refuse a token that has one.
                "verify_aud": settings.JWT_AUDIENCE is not None,
            },
        )
        # RFC 7519 section 2: a date is a number. PyJWT accepts "123" as well.
        if any(isinstance(claims.get(date), str) for date in ("exp", "nbf", "iat")):
            raise jwt.DecodeError("a date is a string")
        return claims
    except KeysUnavailableError:
        raise Problem("issuer_unavailable") from None
    # The last three come from numbers and text that PyJWT does not expect in a token.
    except (jwt.PyJWTError, UnknownKeyError, ValueError, TypeError, ArithmeticError) as error:
        reasons = (reason for kind, reason in REASONS if isinstance(error, kind))
        reason = next(reasons, "The token is malformed.").format(error=error)
        raise Problem("invalid_token", reason=reason) from None


def _key(token: str) -> tuple[Any, list[str]]:
    """The key for a token and its algorithms, which the token has no say in."""
    if settings.JWT_JWKS_URL is None:
        return _shared_key(settings.JWT_SECRET), ["HS256"]
    kid = jwt.get_unverified_header(token).get("kid")
    if not isinstance(kid, str):
        raise UnknownKeyError
    return key_set(settings.JWT_JWKS_URL).key(kid)


@lru_cache(maxsize=1)
def _shared_key(secret: str) -> jwt.PyJWK:
    """PyJWT would examine a string anew for each token."""
    encoded = base64url_encode(secret.encode()).decode()
    return jwt.PyJWK({"kty": "oct", "k": encoded, "alg": "HS256"})
