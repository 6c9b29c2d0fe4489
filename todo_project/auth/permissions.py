"""Who may use a path."""

from typing import Any

from django.conf import settings
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from todo_project.api.problems import CODES


class IsOwner(BasePermission):
    """The token's subject must be the `user_id` of the path. Decided without a query."""

    message = CODES["permission_denied"][1]

    def has_permission(self, request: Request, view: Any) -> bool:
        if settings.AUTH_MODE == "none":
            return True
        return request.user is not None and request.user.id == view.kwargs.get("user_id")
