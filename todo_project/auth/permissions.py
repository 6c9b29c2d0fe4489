"""Who may use a path."""

from typing import TYPE_CHECKING

from django.conf import settings
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from todo_project.api.problems import CODES

if TYPE_CHECKING:  # rest_framework.views itself imports this module, for its default
    from rest_framework.views import APIView


class IsOwner(BasePermission):
    """The token's subject must be the `user_id` of the path. Decided without a query."""

    _, message = CODES["permission_denied"]

    def has_permission(self, request: Request, view: "APIView") -> bool:
        if settings.AUTH_MODE == "none":
            return True
        return request.user is not None and request.user.id == view.kwargs.get("user_id")
