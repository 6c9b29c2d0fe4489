"""System checks: combinations of settings that work, and should not."""

from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core import checks
from django.core.checks import CheckMessage, Tags, register


@register(Tags.security)
def check_cors(**kwargs: Any) -> list[CheckMessage]:
    wildcard = getattr(settings, "CORS_ALLOW_ALL_ORIGINS", False) or (
        "*" in settings.CORS_ALLOWED_ORIGINS
    )
    if wildcard and getattr(settings, "CORS_ALLOW_CREDENTIALS", False):
        return [
            checks.Error(
                "Any website may use the API with its visitors' credentials.",
                hint="Name the origins in CORS_ALLOWED_ORIGINS.",
                id="todo.E001",
            )
        ]
    return []


@register(Tags.security, deploy=True)
def check_authentication(**kwargs: Any) -> list[CheckMessage]:
    if settings.AUTH_MODE == "none":
        return [
            checks.Warning(
                "AUTH_MODE is none: whoever reaches the port reads and writes everybody's tasks.",
                id="todo.W001",
            )
        ]
    url = urlsplit(settings.JWT_JWKS_URL or "https:")
    if url.scheme != "https" and url.hostname not in ("localhost", "127.0.0.1", "::1"):
        return [
            checks.Warning(
                "JWT_JWKS_URL is not https: who can change what comes from there signs tokens.",
                id="todo.W002",
            )
        ]
    return []
