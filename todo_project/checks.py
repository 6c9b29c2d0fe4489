"""System checks: settings that work and should not be used in production."""

from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core import checks


@checks.register(checks.Tags.security, deploy=True)
def check_authentication(**kwargs: Any) -> list[checks.Warning]:
    found = {}
    if settings.AUTH_MODE == "none":
        found["W001"] = "AUTH_MODE=none: anyone who reaches the port reads and writes every task."
    elif settings.JWT_JWKS_URL:
        url = urlsplit(settings.JWT_JWKS_URL)
        if url.scheme != "https" and url.hostname not in ("localhost", "127.0.0.1", "::1"):
            found["W002"] = "JWT_JWKS_URL is not https: anyone on the way can replace the keys."
        if settings.JWT_ISSUER is None and settings.JWT_AUDIENCE is None:
            found["W003"] = (
                "JWT_ISSUER and JWT_AUDIENCE are not set: any token signed with a key of "
                "JWT_JWKS_URL is accepted, also one for another service."
            )
    return [checks.Warning(problem, id=f"todo.{id}") for id, problem in found.items()]
