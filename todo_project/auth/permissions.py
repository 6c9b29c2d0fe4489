"""Who may use a path."""

from typing import TYPE_CHECKING

from django.conf import settings
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

if TYPE_CHECKING:  # rest_framework.views itself imports this module, for its default
    from rest_framework.views import APIView


class IsOwner(BasePermission):
    """The token's subject must be the `user_id` of the path. Decided without a query."""

    message = "The token is for another user."

    def has_permission(self, request: Request, view: "APIView") -> bool:
        if settings.AUTH_MODE == "none":
            return True
        return request.user is not None and request.user.id == view.kwargs.get("user_id")
