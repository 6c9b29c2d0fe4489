"""The task API: one viewset."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn
from uuid import UUID

from django.urls import reverse
from rest_framework.exceptions import NotFound, ParseError, UnsupportedMediaType
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import BaseSerializer
from rest_framework.viewsets import GenericViewSet

from tasks import schema, serializers
from tasks.models import Row, Task, TaskQuerySet
from tasks.pagination import ListParameters
from tasks.preconditions import etag, if_match, is_fresh, page_etag
from todo_project.api.parsers import JSONParser, MergePatchParser
from todo_project.api.problems import BadRequest, Invalid, PreconditionFailed
from todo_project.api.views import APIMixin


class TaskViewSet(APIMixin, GenericViewSet[Task]):
    http_method_names = ["get", "head", "post", "put", "patch", "delete", "options"]
    serializers_by_action = {
        "create": serializers.CreateTaskSerializer,
        "update": serializers.ReplaceTaskSerializer,
        "partial_update": serializers.UpdateTaskSerializer,
        "complete": serializers.CompleteTaskSerializer,
    }

    def get_queryset(self) -> TaskQuerySet:
        return Task.objects.owned_by(self.kwargs["user_id"])

    @schema.list_tasks
    def list(self, request: Request, user_id: UUID) -> Response:
        parameters = ListParameters(request, user_id)
        rows, ways = parameters.window(self.get_queryset().page(parameters.query))
        links = ""
        if ways:
            path = reverse("task-list", args=[user_id])
            links = ", ".join(f'<{parameters.link(path, at)}>; rel="{way}"' for way, at in ways)
        headers = {"ETag": page_etag(rows, links)}
        if links:
            headers["Link"] = links
        if is_fresh(request, headers["ETag"]):
            return Response(status=304, headers=headers)
        owner = str(user_id)
        return Response([serializers.represent(owner, row) for row in rows], headers=headers)

    @schema.create_task
    def create(self, request: Request, user_id: UUID) -> Response:
        body = self._body(request)
        key = self._idempotency_key(request)
        values = serializers.CreateTaskSerializer.validated(body)
        row = self.get_queryset().add(**values, idempotency_key=key)
        if row is None:
            raise Invalid(
                "This Idempotency-Key was used with another payload.", "idempotency_key_reused"
            )
        location = reverse("task-detail", args=[user_id, row.id])
        return self._task(row, status=201, headers={"Location": location})

    @schema.get_task
    def retrieve(self, request: Request, user_id: UUID, id: UUID) -> Response:
        row = self._found(self.get_queryset().fetch(id))
        if is_fresh(request, etag(row)):
            return Response(status=304, headers={"ETag": etag(row)})
        return self._task(row)

    @schema.replace_task
    def update(self, request: Request, user_id: UUID, id: UUID) -> Response:
        values = serializers.ReplaceTaskSerializer.validated(self._body(request))
        return self._change(request, id, values)

    @schema.update_task
    def partial_update(self, request: Request, user_id: UUID, id: UUID) -> Response:
        values = serializers.UpdateTaskSerializer.validated(self._body(request))
        return self._change(request, id, values)

    @schema.complete_task
    def complete(self, request: Request, user_id: UUID, id: UUID) -> Response:
        if request.stream is None:
            tags = if_match(request)
            row = self.get_queryset().toggle(id, tags)
            return self._task(row or self._missing(id, tags))
        values = serializers.CompleteTaskSerializer.validated(self._body(request))
        return self._change(request, id, values)

    @schema.delete_task
    def destroy(self, request: Request, user_id: UUID, id: UUID) -> Response:
        tags = if_match(request)
        if not self.get_queryset().remove(id, tags):
            self._missing(id, tags)
        return Response(status=204)

    # Helpers ------------------------------------------------------------------------------

    def get_serializer_class(self) -> type[BaseSerializer[Any]]:
        """For the browsable API's forms."""
        return self.serializers_by_action.get(self.action, serializers.TaskSerializer)

    def get_parsers(self) -> Any:
        patches = self.request is not None and self.request.method == "PATCH"
        return [JSONParser(), MergePatchParser()] if patches else [JSONParser()]

    def _body(self, request: Request) -> Any:
        if not request.content_type and request.stream is not None:
            raise UnsupportedMediaType("")
        if request.stream is None:
            raise ParseError("A JSON body is required.")
        return request.data

    def _change(self, request: Request, id: UUID, values: dict[str, Any]) -> Response:
        tags = if_match(request)
        if values:
            row = self.get_queryset().change(id, values, tags)
        else:  # an empty patch changes nothing, but its precondition counts
            row = self.get_queryset().fetch(id)
            if row is not None and tags is not None and row.updated_at not in tags:
                row = None
        return self._task(row or self._missing(id, tags))

    def _found(self, row: Row | None) -> Row:
        if row is None:
            raise NotFound("There is no such task.")
        return row

    def _missing(self, id: UUID, tags: Sequence[str] | None) -> NoReturn:
        """After a write that met no task: 404, or 412 with the tag that the task has by now."""
        if tags is None:
            self._found(None)
        current = self._found(self.get_queryset().fetch(id))
        raise PreconditionFailed(headers={"ETag": etag(current)})

    def _idempotency_key(self, request: Request) -> str | None:
        """Raises BadRequest for a key that is not 1 to 255 visible ASCII characters."""
        key = request.META.get("HTTP_IDEMPOTENCY_KEY")
        if key is not None and not re.fullmatch(r"[\x21-\x7e]{1,255}", key):
            raise BadRequest(
                "Idempotency-Key must have 1 to 255 visible ASCII characters.",
                "invalid_idempotency_key",
            )
        return key

    def _task(self, row: Row, status: int = 200, headers: Mapping[str, str] = {}) -> Response:
        body = serializers.represent(str(self.kwargs["user_id"]), row)
        return Response(body, status=status, headers={"ETag": etag(row), **headers})
