"""What django-axes counts failed logins at the admin by."""

from collections.abc import Mapping
from typing import Any

from axes.models import AccessAttempt
from django.http import HttpRequest

_max_length = AccessAttempt._meta.get_field("username").max_length


def username(request: HttpRequest, credentials: Mapping[str, Any] | None) -> str | None:
    """The user name that was tried, cut to what django-axes can store."""
    name = (credentials or request.POST).get("username")
    return name and name[:_max_length]
