"""System checks: settings that work and should not be used in production."""

from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core import checks
from django.core.checks import CheckMessage, Tags, register

NO_AUTHENTICATION = checks.Warning(
    "AUTH_MODE is none: anyone who reaches the port reads and writes every task.", id="todo.W001"
)
KEYS_OVER_HTTP = checks.Warning(
    "JWT_JWKS_URL is not https: anyone on the way can replace the keys.", id="todo.W002"
)
ANY_TOKEN_OF_THE_ISSUER = checks.Warning(
    "JWT_ISSUER and JWT_AUDIENCE are not set: any token signed with a key of JWT_JWKS_URL is "
    "accepted, also one for another service.",
    id="todo.W003",
)


@register(Tags.security, deploy=True)
def check_authentication(**kwargs: Any) -> list[CheckMessage]:
    if settings.AUTH_MODE == "none":
        return [NO_AUTHENTICATION]
    found: list[CheckMessage] = []
    if settings.JWT_JWKS_URL:
        url = urlsplit(settings.JWT_JWKS_URL)
        if url.scheme != "https" and url.hostname not in ("localhost", "127.0.0.1", "::1"):
            found.append(KEYS_OVER_HTTP)
        if settings.JWT_ISSUER is None and settings.JWT_AUDIENCE is None:
            found.append(ANY_TOKEN_OF_THE_ISSUER)
    return found
