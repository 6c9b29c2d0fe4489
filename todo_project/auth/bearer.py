"""Bearer tokens (RFC 6750): JWTs that someone else has issued, and this service verifies."""

from typing import Any, NamedTuple
from uuid import UUID

import jwt
from django.conf import settings
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed, NotAuthenticated
from rest_framework.request import Request

from todo_project.api.converters import parse_uuid
from todo_project.api.problems import ServiceUnavailable
from todo_project.auth.jwks import NoKeysError, UnknownKeyError, key_set

LONGEST = 16 * 1024
"""Characters of a token; a longer one is refused unread."""


class Owner(NamedTuple):
    """Who a token is for: `request.user` of the API."""

    id: UUID
    is_authenticated: bool = True


class BearerAuthentication(BaseAuthentication):
    """Who the token's subject is. With AUTH_MODE=none nobody is asked."""

    def authenticate(self, request: Request) -> tuple[Owner, str] | None:
        """Raises NotAuthenticated without a token, AuthenticationFailed for one that does not
        hold, and ServiceUnavailable when the issuer's keys have never been had."""
        if settings.AUTH_MODE == "none":
            return None
        scheme, _, token = request.META.get("HTTP_AUTHORIZATION", "").partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            raise NotAuthenticated("A bearer token is required.")
        subject = verify(token)["sub"]
        if (id := parse_uuid(subject)) is None:
            raise refusal(
                "The token's subject is not a UUID. In Better Auth set "
                'advanced.database.generateId: "uuid".'
            )
        return Owner(id), token

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="tasks"'


def refusal(detail: str) -> AuthenticationFailed:
    return AuthenticationFailed(detail, "invalid_token")


# The first that an error is an instance of, from the particular to the general.
REASONS: list[tuple[type[Exception], str]] = [
    (jwt.ExpiredSignatureError, "The token has expired."),
    (jwt.ImmatureSignatureError, "The token is not yet valid."),
    (jwt.InvalidIssuerError, "The token is from another issuer."),
    (jwt.InvalidAudienceError, "The token is for another audience."),
    (jwt.MissingRequiredClaimError, "The token lacks a required claim: exp and sub are."),
    (jwt.exceptions.InvalidSubjectError, "The token's subject is not a string."),
    (jwt.InvalidAlgorithmError, "The token is signed with another algorithm."),
    (jwt.InvalidSignatureError, "The token's signature does not hold."),
    (UnknownKeyError, "The token is signed with an unknown key."),
]


def verify(token: str) -> dict[str, Any]:
    """The claims of a token that holds (RFC 7519 section 7.2), `sub` a string among them.

    Raises AuthenticationFailed, or ServiceUnavailable when there is no key to verify with.
    """
    try:
        if len(token) > LONGEST:
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
                # "Checked when set": PyJWT refuses a token with an audience nobody asked for.
                "verify_aud": settings.JWT_AUDIENCE is not None,
            },
        )
        # RFC 7519 section 2: a date is a number. PyJWT takes "123" for one as well.
        if any(isinstance(claims.get(date), str) for date in ("exp", "nbf", "iat")):
            raise jwt.DecodeError("a date is a string")
        return claims
    except NoKeysError:
        raise ServiceUnavailable(
            "The token issuer's keys are not to be had.", "issuer_unavailable"
        ) from None
    # Every byte of a token is a stranger's choice: numbers past all bounds, text that is none.
    except (jwt.PyJWTError, UnknownKeyError, ValueError, TypeError, ArithmeticError) as error:
        for kind, reason in REASONS:
            if isinstance(error, kind):
                raise refusal(reason) from None
        raise refusal("The token is malformed.") from None


def _key(token: str) -> tuple[Any, list[str]]:
    """The key for a token, and the algorithms that the key, not the token, allows."""
    if settings.JWT_JWKS_URL is None:
        return settings.JWT_SECRET, ["HS256"]
    kid = jwt.get_unverified_header(token).get("kid")
    if not isinstance(kid, str):
        raise UnknownKeyError
    return key_set(settings.JWT_JWKS_URL).key(kid)
