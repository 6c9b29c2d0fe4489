"""The task operations as the OpenAPI document tells of them. views.py decorates with these."""

import inspect
import json
from typing import Any

from drf_spectacular.extensions import OpenApiSerializerExtension
from drf_spectacular.utils import Direction
from rest_framework.fields import Field, empty

from tasks.models import TITLE_LENGTH
from tasks.pagination import MOST, ORDERINGS, SEARCH_LENGTH
from tasks.serializers import (
    READ_ONLY,
    CompleteTaskSerializer,
    CreateTaskSerializer,
    ReplaceTaskSerializer,
    TaskSerializer,
    TextField,
    UpdateTaskSerializer,
)
from todo_project.api.openapi import Good, Schema, operation
from todo_project.api.parsers import JSONParser, MergePatchParser

# Schemas ------------------------------------------------------------------------------------

# What Python's str.strip takes for white space; ECMA 262's \s differs in six characters.
_SPACE = r"\u0009-\u000d\u001c-\u0020\u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_INK = rf"[^\u0000{_SPACE}]"
TITLE_PATTERN = rf"^[{_SPACE}]*{_INK}(?:[^\u0000]{{0,{TITLE_LENGTH - 2}}}{_INK})?[{_SPACE}]*$"
"""Exactly the titles that are accepted: white space around them does not count."""

NO_NULLS = r"^[^\u0000]*$"
TIME_PATTERN = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z$"

DESCRIPTIONS = {
    "id": "Made by the service.",
    "user_id": "The owner.",
    "title": "What is to be done.",
    "description": 'More about it, kept to the letter. `null`: never given; `""`: cleared.',
    "is_completed": "Whether it is done.",
    "created_at": "When it was made, in UTC.",
    "updated_at": "When it last changed, in UTC. Rises with every change, and only then.",
}


class TaskExtension(OpenApiSerializerExtension):
    """Nothing in it is marked as read-only: all of it is returned, and none of it sent."""

    target_class = "tasks.serializers.TaskSerializer"

    def map_serializer(self, auto_schema: Any, direction: Direction) -> Schema:
        schema: Schema = super().map_serializer(auto_schema, direction)
        for name, declared in schema["properties"].items():
            declared.pop("readOnly", None)
            if declared.get("format") == "date-time":
                declared["pattern"] = TIME_PATTERN
            declared["description"] = DESCRIPTIONS[name]
        schema["properties"]["title"]["minLength"] = 1
        schema["required"] = list(schema["properties"])
        return schema


class InputExtension(OpenApiSerializerExtension):
    """What may be sent, exactly.

    The members that cannot be set are `readOnly`, in JSON Schema's sense (2020-12, validation,
    section 9.4): they may be sent, and are ignored. Any other is an error.

    drf-spectacular's own mapping says less: it takes every PATCH for one that requires nothing,
    and states a text that may be blank as "one of" two schemas, both of which `""` fits.
    """

    target_class = "tasks.serializers.InputSerializer"
    match_subclasses = True

    def map_serializer(self, auto_schema: Any, direction: Direction) -> Schema:
        fields = self.target._declared_fields
        properties = {name: self._property(name, field) for name, field in fields.items()}
        for name in (name for name in DESCRIPTIONS if name in READ_ONLY):
            properties[name] = {
                "readOnly": True,
                "description": "Ignored, so that what was returned can be sent back.",
            }
        schema: Schema = {
            "type": "object",
            "description": inspect.getdoc(type(self.target)),
            "properties": properties,
            "additionalProperties": False,
        }
        if required := [name for name, field in fields.items() if field.required]:
            schema["required"] = required
        return schema

    def _property(self, name: str, field: Field) -> Schema:
        schema: Schema = {"type": "boolean", "description": DESCRIPTIONS[name]}
        if isinstance(field, TextField) and field.trim_whitespace:
            schema |= {"type": "string", "minLength": 1, "pattern": TITLE_PATTERN}
            schema["description"] += (
                f" 1 to {TITLE_LENGTH} characters; white space around them is removed."
            )
        elif isinstance(field, TextField):
            schema |= {"type": ["string", "null"], "maxLength": field.max_length}
            schema["pattern"] = NO_NULLS
        if field.default is not empty:
            # Not as `default`: openapi-typescript would make a member that has one required.
            schema["description"] += f" `{json.dumps(field.default)}` if absent."
        return schema


# Parameters ---------------------------------------------------------------------------------

OWNER = "a11ce000-0000-4000-8000-000000000001"


def _parameter(where: str, name: str, schema: Schema, description: str, example: Any) -> Schema:
    parameter = {"in": where, "name": name, "description": description, "schema": schema}
    if where == "path":
        return parameter | {"required": True, "example": example}
    # With the schema, and not the parameter: there Swagger UI would send it unasked.
    return parameter | {"schema": schema | {"examples": [example]}}


_UUID = {"type": "string", "format": "uuid"}
_TAG = {"type": "string"}
_BY_OWNER = {
    "UserId": _parameter(
        "path",
        "user_id",
        _UUID,
        "The owner, who is the subject of the token.",
        OWNER,
    ),
}
_BY_TASK = _BY_OWNER | {
    "TaskId": _parameter(
        "path",
        "id",
        _UUID,
        "The task.",
        "019ca8d9-a8c0-7000-8000-000000000001",
    ),
}
_LISTING = {
    "IsCompleted": _parameter(
        "query",
        "is_completed",
        {"type": "boolean"},
        "Only what is done, or only what is not.",
        False,
    ),
    "Search": _parameter(
        "query",
        "search",
        {"type": "string", "minLength": 1, "maxLength": SEARCH_LENGTH, "pattern": NO_NULLS},
        "Only tasks with this text in their title or description, in upper or lower case.",
        "milk",
    ),
    "Ordering": _parameter(
        "query",
        "ordering",
        {"type": "string", "enum": list(ORDERINGS), "default": ORDERINGS[0]},
        "The order: a field, downwards with `-`. Titles go by code point.",
        "-created_at",
    ),
    "Limit": _parameter(
        "query",
        "limit",
        {"type": "integer", "minimum": 1, "maximum": MOST, "default": MOST},
        "Tasks on a page. May change from page to page.",
        100,
    ),
    "Cursor": _parameter(
        "query",
        "cursor",
        {"type": "string", "pattern": "^[A-Za-z0-9_-]+$"},
        "Where the page begins: follow the `Link` header instead of making one. It holds for the "
        "same owner, ordering and filters.",
        "q0oTnJ7gqz4Yw1cS",
    ),
}
_IF_MATCH = {
    "IfMatch": _parameter(
        "header",
        "If-Match",
        _TAG,
        "Do it only if the task still has this `ETag`, or one of several; `*` for any.",
        '"2026-03-01T09:30:00.000000Z"',
    ),
}
_IF_NONE_MATCH = {
    "IfNoneMatch": _parameter(
        "header",
        "If-None-Match",
        _TAG,
        "Answer 304 without a body if the `ETag` is still this, or one of several.",
        '"2026-03-01T09:29:00.000000Z"',
    ),
}
_IDEMPOTENCY_KEY = {
    "IdempotencyKey": _parameter(
        "header",
        "Idempotency-Key",
        {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
        "Makes the request safe to send again: as long as the task exists, the same key with the "
        "same payload answers 201 with that task, as it is by now, and makes no second.",
        "8d7a8f0e-2f2c-4d8e-9a31-5b1f3c6f2c11",
    ),
}

# Examples -----------------------------------------------------------------------------------

_MILK = {
    "id": "019ca8d9-a8c0-7000-8000-000000000001",
    "user_id": OWNER,
    "title": "Buy milk",
    "description": "Two bottles",
    "is_completed": False,
    "created_at": "2026-03-01T09:30:00.000000Z",
    "updated_at": "2026-03-01T09:30:00.000000Z",
}
_DONE = _MILK | {"is_completed": True, "updated_at": "2026-03-01T17:05:12.204113Z"}
_CALL = _MILK | {
    "id": "019ca8d8-be60-7000-8000-000000000002",
    "title": "Call Bob",
    "description": None,
    "created_at": "2026-03-01T09:29:00.000000Z",
    "updated_at": "2026-03-01T09:29:00.000000Z",
}

# Links --------------------------------------------------------------------------------------


def _links() -> dict[str, Schema]:
    """From a response with a task in it to what can be done with that task."""
    owner = {"user_id": "$response.body#/user_id"}
    links: dict[str, Schema] = {"ListTasks": {"operationId": "listTasks", "parameters": owner}}
    for operation_id in ("getTask", "replaceTask", "updateTask", "completeTask", "deleteTask"):
        parameters = owner | {"id": "$response.body#/id"}
        if operation_id != "getTask":
            parameters["If-Match"] = "$response.header.ETag"
        name = operation_id[0].upper() + operation_id[1:]
        links[name] = {"operationId": operation_id, "parameters": parameters}
    return links


_LINKS = _links()

# Operations ---------------------------------------------------------------------------------

_EVERYWHERE = (
    "Unauthorized",
    "Forbidden",
    "NotAcceptable",
    "ContentTooLarge",
    "InternalError",
    "Unavailable",
)
_WITH_BODY = (*_EVERYWHERE, "UnsupportedMediaType")
_PATCHES = (JSONParser.media_type, MergePatchParser.media_type)
_NOT_MODIFIED: Good = ("Not changed: what the client has is still right.", None, ["ETag"], {})

list_tasks = operation(
    "listTasks",
    "List tasks",
    "The owner's tasks, newest first unless ordered otherwise, at most `limit` of them. Where "
    'there are more, follow the `Link` header with `rel="next"`: no task is skipped or repeated '
    "while others come and go.",
    tag="tasks",
    parameters=_BY_OWNER | _LISTING | _IF_NONE_MATCH,
    responses={
        200: (
            "A page of tasks; without any, an empty array.",
            TaskSerializer(many=True),
            ["ETag", "Link"],
            {"two": [_MILK, _CALL]},
        ),
        304: _NOT_MODIFIED,
    },
    problems=("BadParameters", *_EVERYWHERE),
)
create_task = operation(
    "createTask",
    "Create a task",
    "With an `Idempotency-Key` the request may be sent again without making a second task.",
    tag="tasks",
    parameters=_BY_OWNER | _IDEMPOTENCY_KEY,
    request=CreateTaskSerializer,
    request_examples={
        "title": {"title": "Buy milk"},
        "everything": {
            "title": "Buy milk",
            "description": "Two bottles",
            "is_completed": False,
        },
    },
    responses={
        201: ("The new task.", TaskSerializer, ["ETag", "Location"], {"new": _MILK}),
    },
    problems=("BadNewTask", "InvalidNewTask", *_WITH_BODY),
    links=_LINKS,
)
get_task = operation(
    "getTask",
    "Get a task",
    "One task. With `If-None-Match` it is sent only if it has changed.",
    tag="tasks",
    parameters=_BY_TASK | _IF_NONE_MATCH,
    responses={
        200: ("The task.", TaskSerializer, ["ETag"], {"open": _MILK}),
        304: _NOT_MODIFIED,
    },
    problems=("BadPath", "NotFound", *_EVERYWHERE),
    links=_LINKS,
)
replace_task = operation(
    "replaceTask",
    "Replace a task",
    "All three fields are required, so that none is reset by omission.",
    tag="tasks",
    parameters=_BY_TASK | _IF_MATCH,
    request=ReplaceTaskSerializer,
    request_examples={
        "replacement": {"title": "Buy milk", "description": "Two bottles", "is_completed": True},
    },
    responses={200: ("The task, replaced.", TaskSerializer, ["ETag"], {"done": _DONE})},
    problems=("BadBody", "NotFound", "PreconditionFailed", "Invalid", *_WITH_BODY),
    links=_LINKS,
)
update_task = operation(
    "updateTask",
    "Update a task",
    "A merge patch (RFC 7396): what is absent stays as it is, and `null` clears the description.",
    tag="tasks",
    parameters=_BY_TASK | _IF_MATCH,
    request=UpdateTaskSerializer,
    media_types=_PATCHES,
    request_examples={"title": {"title": "Buy oat milk"}, "clear": {"description": None}},
    responses={
        200: (
            "The task, updated.",
            TaskSerializer,
            ["ETag"],
            {"renamed": _DONE | {"title": "Buy oat milk", "is_completed": False}},
        )
    },
    problems=("BadBody", "NotFound", "PreconditionFailed", "Invalid", *_WITH_BODY),
    links=_LINKS,
)
delete_task = operation(
    "deleteTask",
    "Delete a task",
    "For good: there is no way back.",
    tag="tasks",
    parameters=_BY_TASK | _IF_MATCH,
    responses={204: ("Deleted.", None, [], {})},
    problems=("BadPath", "NotFound", "PreconditionFailed", *_EVERYWHERE),
)
complete_task = operation(
    "completeTask",
    "Complete or reopen a task",
    "Without a body it toggles. With one it sets, which is safe to send again.",
    tag="tasks",
    parameters=_BY_TASK | _IF_MATCH,
    request=CompleteTaskSerializer,
    request_required=False,
    media_types=_PATCHES,
    request_examples={"complete": {"is_completed": True}, "reopen": {"is_completed": False}},
    responses={200: ("The task, done or open again.", TaskSerializer, ["ETag"], {"done": _DONE})},
    problems=("BadBody", "NotFound", "PreconditionFailed", "Invalid", *_WITH_BODY),
    links=_LINKS,
)
