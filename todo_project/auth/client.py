"""Where a request comes from, for the rate limits and for django-axes."""

from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any

from django.conf import settings
from django.http import HttpRequest

MAX_USERNAME_LENGTH = 255
"""Characters that django-axes can store."""


def address(request: HttpRequest) -> str:
    """The client's IP address: the one that the outermost of TRUSTED_PROXIES has seen.

    Each proxy appends the address that it sees to X-Forwarded-For. What stands before the last
    TRUSTED_PROXIES entries comes from the client, who can write anything.
    """
    peer: str = request.META.get("REMOTE_ADDR", "")
    forwarded = request.META.get("HTTP_X_FORWARDED_FOR")
    if not (settings.TRUSTED_PROXIES and forwarded):
        return peer
    entry = forwarded.split(",")[-settings.TRUSTED_PROXIES :][0]
    try:
        return str(ip_address(entry.strip()))
    except ValueError:
        return peer


def username(request: HttpRequest, credentials: Mapping[str, Any] | None) -> str | None:
    """The user name that was tried at the admin's login."""
    name = (credentials or request.POST).get("username")
    return name and name[:MAX_USERNAME_LENGTH]
