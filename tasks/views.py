"""The task API: one viewset."""

import re
from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

import orjson
from django.conf import settings
from django.http import HttpResponse
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import BaseSerializer, Serializer
from rest_framework.viewsets import GenericViewSet

from tasks.etags import Conditions, page_etag, task_etag
from tasks.list_parameters import ListParameters
from tasks.models import (
    NO_PRECONDITIONS,
    KeyReused,
    Preconditions,
    Task,
    TaskJSON,
    TaskQuerySet,
    TooManyTasks,
)
from tasks.schema import DOCUMENT
from tasks.serializers import INPUT_SERIALIZERS
from todo_project.api.parsers import JSONParser, MergePatchParser
from todo_project.api.problems import Problem, declare
from todo_project.api.views import APIMixin

declare(400, invalid_idempotency_key="Idempotency-Key must have 1 to 255 visible ASCII characters.")
declare(409, too_many_tasks="You may have {limit} tasks at most.")
declare(422, idempotency_key_reused="This Idempotency-Key was used with another payload.")


class TaskViewSet(APIMixin, GenericViewSet[Task]):
    http_method_names = ["get", "head", "post", "put", "patch", "delete", "options"]
    document = DOCUMENT

    def get_queryset(self) -> TaskQuerySet:
        return Task.objects.owned_by(self.kwargs["user_id"])

    def list(self, request: Request, user_id: UUID) -> HttpResponse:
        parameters = ListParameters(request, user_id)
        found = self.get_queryset().page(parameters.query)
        page, links = parameters.paginate(found, self._list_path())
        text = ",".join(page)
        del found, page  # up to 2 MB each, before two more copies
        body = f"[{text}]".encode()
        headers = {"ETag": page_etag(body, links)} | ({"Link": links} if links else {})
        return self._read(request, body, headers)

    def create(self, request: Request, user_id: UUID) -> HttpResponse:
        body = self._body(request)
        key = self._idempotency_key(request)
        values = INPUT_SERIALIZERS[self.action].validate_body(body)
        try:
            task = self.get_queryset().add(values, key, settings.MAX_TASKS_PER_OWNER)
        except KeyReused:
            raise Problem("idempotency_key_reused") from None
        except TooManyTasks:
            raise Problem("too_many_tasks", limit=settings.MAX_TASKS_PER_OWNER) from None
        headers = {"Location": f"{self._list_path()}/{task['id']}"}
        return self._task(task, status=201, headers=headers)

    def retrieve(self, request: Request, user_id: UUID, id: UUID) -> HttpResponse:
        task = self._found(self.get_queryset().fetch(id))
        return self._read(request, orjson.dumps(task), {"ETag": task_etag(task)})

    def update(self, request: Request, user_id: UUID, id: UUID) -> HttpResponse:
        values = INPUT_SERIALIZERS[self.action].validate_body(self._body(request))
        return self._task(self._write(request, id, lambda tasks, p: tasks.change(id, values, p)))

    partial_update = update

    @action(detail=True, methods=["patch"], name="Complete or reopen")
    def complete(self, request: Request, user_id: UUID, id: UUID) -> HttpResponse:
        if request.stream is None:
            return self._task(self._write(request, id, lambda tasks, p: tasks.toggle(id, p)))
        return self.update(request, user_id, id)

    def destroy(self, request: Request, user_id: UUID, id: UUID) -> Response:
        self._write(request, id, lambda tasks, p: tasks.remove(id, p))
        return Response(status=204)

    # Helpers ------------------------------------------------------------------------------

    def get_serializer_class(self) -> type[BaseSerializer[Any]]:
        """For the forms of the browsable API."""
        return INPUT_SERIALIZERS.get(self.action, Serializer)

    def get_parsers(self) -> Any:
        patches = self.request is not None and self.request.method == "PATCH"
        return [JSONParser(), MergePatchParser()] if patches else [JSONParser()]

    def _list_path(self) -> str:
        """The path of the list, which the request has: `reverse` costs more than resolving it."""
        return self.request.path_info.lower()  # the UUID may be in either case

    def _body(self, request: Request) -> Any:
        if request.stream is None:
            raise Problem("parse_error", "A JSON body is required.")
        return request.data

    def _idempotency_key(self, request: Request) -> str | None:
        """Raises Problem for a key that is not 1 to 255 visible ASCII characters."""
        key = request.META.get("HTTP_IDEMPOTENCY_KEY")
        if key is not None and not re.fullmatch(r"[\x21-\x7e]{1,255}", key):
            raise Problem("invalid_idempotency_key")
        return key

    def _read(self, request: Request, body: bytes, headers: dict[str, str]) -> HttpResponse:
        conditions = Conditions.of(request)
        if conditions.if_match_fails(headers["ETag"]):
            raise Problem("precondition_failed", headers={"ETag": headers["ETag"]})
        if conditions.if_none_match_fails(headers["ETag"]):
            return Response(status=304, headers=headers)
        return self.json_response(body, headers=headers)

    def _write(
        self, request: Request, id: UUID, operation: Callable[[TaskQuerySet, Preconditions], Any]
    ) -> Any:
        """What an operation on a task returns.

        Raises Problem: 404 if there is no such task, else 412, with the current ETag, if the task
        does not meet the request's preconditions.
        """
        conditions = Conditions.of(request)
        preconditions = conditions.preconditions()
        if preconditions is not None and (done := operation(self.get_queryset(), preconditions)):
            return done
        unconditional = preconditions == NO_PRECONDITIONS
        task = None if unconditional else self.get_queryset().fetch(id)
        etag = task_etag(self._found(task))
        raise Problem("precondition_failed", headers={"ETag": etag})

    def _found(self, task: TaskJSON | None) -> TaskJSON:
        if task is None:
            raise Problem("not_found", "There is no such task.")
        return task

    def _task(
        self, task: TaskJSON, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> HttpResponse:
        headers = {"ETag": task_etag(task), **(headers or {})}
        return self.json_response(orjson.dumps(task), status, headers)
