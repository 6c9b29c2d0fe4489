"""System checks: settings that work and should not be used in production."""

from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core import checks
from django.core.checks import CheckMessage, Tags, register


@register(Tags.security, deploy=True)
def check_authentication(**kwargs: Any) -> list[CheckMessage]:
    if settings.AUTH_MODE == "none":
        return [
            checks.Warning(
                "AUTH_MODE is none: anyone who reaches the port reads and writes every task.",
                id="todo.W001",
            )
        ]
    if settings.JWT_JWKS_URL is None:
        return []
    found: list[CheckMessage] = []
    url = urlsplit(settings.JWT_JWKS_URL)
    if url.scheme != "https" and url.hostname not in ("localhost", "127.0.0.1", "::1"):
        found.append(
            checks.Warning(
                "JWT_JWKS_URL is not https: anyone on the way can replace the keys.",
                id="todo.W002",
            )
        )
    if settings.JWT_ISSUER is None and settings.JWT_AUDIENCE is None:
        found.append(
            checks.Warning(
                "JWT_ISSUER and JWT_AUDIENCE are not set: any token signed with a key of "
                "JWT_JWKS_URL is accepted, also one for another service.",
                id="todo.W003",
            )
        )
    return found
